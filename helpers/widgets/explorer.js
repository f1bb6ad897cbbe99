// The browser half of explorer.py. Everything is computed here from the features, so that the picture follows the slider
// without the kernel. First the numbers, then the colours, then the parts of the picture.

/**
 * Similarity of every image with every text, [image, text] row by row, from the features of one moment, [2, pairs, dim]:
 * cosines, or dot products of the features as they are. Lengths below 1e-12 count as 1e-12, as in torch's `normalize`,
 * so that a vector of zeros gives 0 and not NaN.
 */
function dotProducts(features, pairs, normalize) {
  const dim = features.length / (2 * pairs);
  const vectors = Float64Array.from(features);
  for (let start = 0; normalize && start < vectors.length; start += dim) {
    let squares = 0;
    for (let d = start; d < start + dim; d++) squares += vectors[d] ** 2;
    const length = Math.max(Math.sqrt(squares), 1e-12);
    for (let d = start; d < start + dim; d++) vectors[d] /= length;
  }
  const similarities = new Float64Array(pairs * pairs);
  for (let image = 0; image < pairs; image++) {
    for (let text = 0; text < pairs; text++) {
      const a = image * dim;
      const b = (pairs + text) * dim;
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += vectors[a + d] * vectors[b + d];
      similarities[image * pairs + text] = sum;
    }
  }
  return similarities;
}

/** How a matrix stored row by row is walked: from line to line, and within a line. A column is a line too. */
const walk = (direction, pairs) => (direction === "text to image" ? [1, pairs] : [pairs, 1]);

/**
 * Softmax over each line, written into `probabilities`, with loss, entropy and effective negatives, means over lines.
 * The largest similarity of a line is taken off first: it changes nothing, and no exponential overflows.
 */
function softmax(similarities, pairs, temperature, direction, probabilities) {
  const [lineStep, step] = walk(direction, pairs);
  let [loss, entropies, effectiveNegatives] = [0, 0, 0];
  for (let line = 0; line < pairs; line++) {
    const start = line * lineStep;
    const end = start + pairs * step;
    let largest = -Infinity;
    for (let k = start; k < end; k += step) largest = Math.max(largest, similarities[k]);
    let total = 0;
    for (let k = start; k < end; k += step) {
      probabilities[k] = Math.exp((similarities[k] - largest) / temperature);
      total += probabilities[k];
    }
    let entropy = Math.log(total);
    for (let k = start; k < end; k += step) {
      probabilities[k] /= total;
      if (probabilities[k] > 0) entropy -= (probabilities[k] * (similarities[k] - largest)) / temperature;
    }
    loss += Math.log(total) - (similarities[start + line * step] - largest) / temperature;
    entropies += entropy;
    effectiveNegatives += Math.exp(entropy);
  }
  return { loss: loss / pairs, entropy: entropies / pairs, effectiveNegatives: effectiveNegatives / pairs };
}

/** Share of lines whose own match beats every other by more than float32 can blur; a tie counts as wrong. */
function accuracy(similarities, pairs, direction, blur) {
  const [lineStep, step] = walk(direction, pairs);
  let right = 0;
  for (let line = 0; line < pairs; line++) {
    let other = -Infinity;
    for (let k = 0; k < pairs; k++) {
      if (k !== line) other = Math.max(other, similarities[line * lineStep + k * step]);
    }
    if (similarities[line * lineStep + line * step] > other + blur) right++;
  }
  return right / pairs;
}

/** The negatives of a line, nearest first. Temperature never changes this order, so a drag only moves the shares. */
function negativesOf(similarities, pairs, direction, line) {
  const [lineStep, step] = walk(direction, pairs);
  const similarity = (k) => similarities[line * lineStep + k * step];
  const negatives = Array.from({ length: pairs }, (_, k) => k).filter((k) => k !== line);
  negatives.sort((a, b) => similarity(b) - similarity(a));
  return { negatives, values: negatives.map(similarity) };
}

/** The share of each negative in the repulsion of a line: the softmax over the negatives alone, nearest first. */
function sharesOf(values, temperature) {
  const weights = values.map((value) => Math.exp((value - values[0]) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

// ColorBrewer's RdBu and Blues, safe for colour-blind eyes; blue means alike in the one and likely in the other.
const DIVERGING = "67001f b2182b d6604d f4a582 fddbc7 f7f7f7 d1e5f0 92c5de 4393c3 2166ac 053061".split(" ");
const SEQUENTIAL = "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b".split(" ");
const SHADES = 1024;
// The limits are fixed, so that a colour means the same at every temperature.
const SIMILARITY = { name: "similarity", stops: DIVERGING, limits: [-1, 0, 1] };
const SOFTMAX = { name: "softmax", stops: SEQUENTIAL, limits: [0, 0.5, 1] };
const MOST_LABELS = 32; // beyond that a line is too thin for a thumbnail or a word

const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Colours between the stops: as pixels (a canvas holds red in the lowest byte) and as the ink to write on each. */
function colourTable(stops) {
  const channels = stops.map((stop) => [0, 2, 4].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const pixels = new Uint32Array(SHADES);
  const inks = [];
  for (let shade = 0; shade < SHADES; shade++) {
    const place = (shade / (SHADES - 1)) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const between = (from, to) => Math.round(from + (to - from) * (place - below));
    const [red, green, blue] = channels[below].map((channel, i) => between(channel, channels[below + 1][i]));
    pixels[shade] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    inks.push(0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#1b2733" : "#ffffff");
  }
  return { pixels, inks, gradient: `linear-gradient(to right, ${stops.map((stop) => "#" + stop).join(", ")})` };
}

/** What the explorer holds, unpacked: bytes arrive as a DataView that need not begin at a multiple of four. */
function unpack(model) {
  const pairs = model.get("pairs");
  const bytes = (name) => {
    const view = model.get(name);
    return new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  const sheet = bytes("thumbnails");
  const captions = model.get("captions");
  const moments = model.get("moments");
  const features = new Float32Array(bytes("features").buffer);
  const perMoment = features.length / moments.length;
  return {
    pairs,
    moments,
    geometry: model.get("geometry"),
    products: (moment, normalize) =>
      dotProducts(features.subarray(moment * perMoment, (moment + 1) * perMoment), pairs, normalize),
    sheetUrl: sheet.length ? URL.createObjectURL(new Blob([sheet], { type: "image/webp" })) : "",
    labels: Array.from({ length: pairs }, (_, text) => captions[text] ?? String(text)),
    captions: Array.from({ length: pairs }, (_, text) => captions[text] ?? `text ${text}`),
  };
}

/**
 * What is looked at: the similarities of a moment, normalised or not, with all that does not depend on the
 * temperature. Each is computed when it is first asked for, so that a drag along the training costs nothing twice.
 */
function makeSources(state) {
  const { pairs, moments } = state;
  const known = new Map();
  const remembered = (key, compute) => {
    if (!known.has(key)) known.set(key, compute());
    return known.get(key);
  };
  const products = (moment, normalize) =>
    remembered(`products ${moment} ${normalize}`, () => state.products(moment, normalize));
  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Cosines have limits of their own. Those of dot products are common to all moments, so that a colour keeps its meaning.
  const limit = (normalize) =>
    remembered(`limit ${normalize}`, () =>
      normalize ? 1 : Number(Math.max(...moments.map((_, moment) => largest(products(moment, false))), 1e-6).toPrecision(2)),
    );
  return (moment, normalize) =>
    remembered(`source ${moment} ${normalize}`, () => {
      const similarities = products(moment, normalize);
      const blur = 1e-6 * Math.max(1, largest(similarities));
      const accuracyOf = (direction) => accuracy(similarities, pairs, direction, blur);
      const ends = [Math.min, Math.max].map((pick) => similarities.reduce((a, b) => pick(a, b)));
      return {
        normalize,
        similarities,
        ends,
        limit: limit(normalize),
        accuracies: { "image to text": accuracyOf("image to text"), "text to image": accuracyOf("text to image") },
      };
    });
}

/** Shows image `index` of the sheet of thumbnails (a square of tiles, filled row by row) in an element. */
function showTile(node, pairs, index) {
  const tiles = Math.ceil(Math.sqrt(pairs));
  const place = (tile) => (tiles > 1 ? (100 * tile) / (tiles - 1) : 0);
  node.className = "tile";
  node.style.backgroundSize = `${tiles * 100}%`;
  node.style.backgroundPosition = `${place(index % tiles)}% ${place(Math.floor(index / tiles))}%`;
}

/**
 * A matrix with its axes and colour bar. `paint` draws values, `mark` frames a cell, `lock` a line. The hands get told
 * of a cell that is pointed at, of one that is clicked, and of the keys pressed while the matrix has the focus.
 */
function matrixPanel(parent, state, look, hands) {
  const { pairs } = state;
  const colours = colourTable(look.stops);
  const panel = add(parent, "figure", "panel");
  const caption = add(panel, "figcaption", "title");
  const title = add(caption, "span");
  const note = add(caption, "small");
  const rows = add(panel, "div", "rows", "", { "aria-hidden": "true" });
  const columns = add(panel, "div", "columns", "", { "aria-hidden": "true" });
  const labelled = pairs <= MOST_LABELS;
  if (!labelled) add(rows, "span", "", `${pairs} images`);
  if (!labelled) add(columns, "span", "", `${pairs} texts`);
  for (let i = 0; labelled && i < pairs; i++) {
    const image = add(rows, "span", "", "", { title: `image ${i}` });
    if (state.sheetUrl) showTile(image, pairs, i);
    else image.textContent = i;
    add(columns, "span", "", state.labels[i], { title: state.captions[i] });
  }
  const keys = "arrow keys go from cell to cell, Enter locks a line, Escape lets go";
  const words = { "aria-label": `Cells of the ${look.name} matrix: ${keys}`, "aria-roledescription": "matrix" };
  const face = add(panel, "div", "face", "", { tabindex: "0", role: "application", ...words, ...KEEP_KEYS });
  const canvas = add(face, "canvas", "", "", { role: "img", "data-matrix": look.name });
  const frame = add(face, "div", "mark", "", { hidden: "" });
  const line = add(face, "div", "line", "", { hidden: "" });
  const bar = add(panel, "div", "bar", "", { "aria-hidden": "true" });
  add(bar, "div", "gradient").style.background = colours.gradient;
  const ends = look.limits.map(() => add(bar, "span"));

  const small = new OffscreenCanvas(pairs, pairs); // one pixel a cell, then enlarged
  const image = new ImageData(pairs, pairs);
  const pixels = new Uint32Array(image.data.buffer);
  const context = canvas.getContext("2d");
  let [low, high] = [look.limits[0], look.limits.at(-1)];
  const shade = (value) => Math.max(0, Math.min(SHADES - 1, Math.round(((value - low) / (high - low)) * (SHADES - 1))));

  function writeNumbers(values, cell) {
    const narrow = cell < 40 * devicePixelRatio;
    const digits = (value) => {
      if (Math.abs(value) < 0.005) return "0";
      if (Math.abs(value) >= 9.95) return signed(value.toFixed(0));
      const text = signed(value.toFixed(narrow && Math.abs(value) >= 0.995 ? 1 : 2));
      return narrow ? text.replace("0.", ".") : text;
    };
    context.font = `${Math.min(cell * 0.37, 13 * devicePixelRatio)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let k = 0; k < values.length; k++) {
      context.fillStyle = colours.inks[shade(values[k])];
      context.fillText(digits(values[k]), ((k % pairs) + 0.5) * cell, (Math.floor(k / pairs) + 0.5) * cell);
    }
  }

  function cellUnder(event) {
    const box = canvas.getBoundingClientRect();
    const cell = (offset, length) => Math.max(0, Math.min(pairs - 1, Math.floor((offset / length) * pairs)));
    return [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
  }
  canvas.addEventListener("pointermove", (event) => hands.point(...cellUnder(event)));
  canvas.addEventListener("pointerdown", (event) => hands.point(...cellUnder(event)));
  canvas.addEventListener("click", hands.lock);
  face.addEventListener("keydown", hands.press);
  face.addEventListener("focus", hands.enter);

  return {
    describe(name, words, textAlternative) {
      title.textContent = name;
      note.textContent = words;
      canvas.setAttribute("aria-label", textAlternative);
    },
    setLimits(limits) {
      [low, high] = [limits[0], limits.at(-1)];
      limits.forEach((end, i) => (ends[i].textContent = signed(String(end))));
    },
    /** Fits the canvas to the screen's own pixels; true when it changed and must be painted anew. */
    resize() {
      const size = Math.round(canvas.clientWidth * devicePixelRatio);
      if (size === canvas.width) return false;
      canvas.width = canvas.height = size;
      return true;
    },
    paint(values) {
      const size = canvas.width;
      if (size === 0) return;
      for (let k = 0; k < values.length; k++) pixels[k] = colours.pixels[shade(values[k])];
      small.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, size, size);
      const cell = size / pairs;
      if (cell < 10 * devicePixelRatio) return;
      context.fillStyle = "#ffffff";
      for (let line = 1; line < pairs; line++) {
        context.fillRect(Math.round(line * cell), 0, 1, size);
        context.fillRect(0, Math.round(line * cell), size, 1);
      }
      if (pairs <= 16 && cell >= 20 * devicePixelRatio) writeNumbers(values, cell);
    },
    mark(row, column) {
      frame.hidden = false;
      Object.assign(frame.style, { top: `${(100 * row) / pairs}%`, left: `${(100 * column) / pairs}%` });
      for (const [axis, at] of labelled ? [[rows, row], [columns, column]] : []) {
        for (const label of axis.children) label.classList.toggle("pointed", label === axis.children[at]);
      }
    },
    lock(index, direction) {
      line.hidden = index === null;
      const start = `${(100 * index) / pairs}%`;
      const thick = `${100 / pairs}%`;
      const row = { top: start, left: "0", width: "100%", height: thick };
      const column = { top: "0", left: start, width: thick, height: "100%" };
      Object.assign(line.style, direction === "text to image" ? column : row);
    },
  };
}

/** A number with its name, a bar from 0 to `most`, a tick where chance lies, and a note under them. */
function numberCard(parent, quantity, name) {
  const card = add(parent, "div", "card");
  add(card, "div", "name", name);
  const value = add(card, "div", "value", "", { "data-quantity": quantity });
  const track = add(card, "div", "track", "", { "aria-hidden": "true" });
  const fill = add(track, "div", "fill");
  const tick = add(track, "div", "chance");
  const note = add(card, "div", "note");
  return {
    note,
    scale(most, chance, words) {
      this.most = most;
      tick.style.left = `${(100 * chance) / most}%`;
      (note.firstElementChild ?? note).textContent = words;
    },
    show(number, text) {
      value.dataset.value = String(number);
      value.textContent = text;
      fill.style.width = `${Math.min(100, (100 * number) / this.most)}%`;
    },
  };
}

// What the features of a moment look like, whatever the temperature: computed by the kernel, in words here.
const GEOMETRY = {
  alignment: ["Alignment", "mean squared distance of matched features: 0 when they coincide"],
  uniformity: ["Uniformity", "of each side, the mean of both: the lower, the more evenly features fill the sphere; 0 when all are one"],
  modality_gap: ["Modality gap", "distance from the mean of the images to the mean of the texts"],
};

function geometryLine(parent) {
  const folded = add(parent, "details");
  add(folded, "summary", "", "Geometry of the features, at any temperature (lesson 03)");
  const list = add(folded, "dl", "geometry", "", { "aria-label": "The features, L2-normalised, at any temperature" });
  const values = Object.entries(GEOMETRY).map(([quantity, [name, meaning]]) => {
    const item = add(list, "div", "", "", { title: meaning });
    add(item, "dt", "", name);
    return [quantity, add(item, "dd", "", "", { "data-quantity": quantity })];
  });
  return (numbers) => {
    for (const [quantity, value] of values) {
      value.dataset.value = String(numbers[quantity]);
      value.textContent = signed(numbers[quantity].toFixed(2)).replace(`${MINUS}0.00`, "0.00");
    }
  };
}

/** Sliders, directions and check boxes. They only write to the model; drawing follows from there. */
function controls(parent, model, state) {
  const bar = add(parent, "div", "controls");
  const write = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  const heat = temperatureSlider(bar, (temperature) => write("temperature", temperature));
  const value = add(heat.says, "span", "value", "", { "data-quantity": "temperature" });
  const other = add(heat.says, "small");

  const last = state.moments.length - 1;
  const time = last > 0 ? sliderLine(bar, "Training", { min: 0, max: last, step: 1 }) : null;
  if (time) {
    [time.left.textContent, time.right.textContent] = [state.moments[0], state.moments[last]];
    time.slider.addEventListener("input", () => write("moment", Number(time.slider.value)));
  }

  const choices = add(bar, "div", "choices");
  const directions = add(choices, "fieldset", "", "", KEEP_KEYS);
  add(directions, "legend", "", "Direction");
  const group = `direction-${Math.random().toString(36).slice(2)}`; // radio buttons of two explorers must not mix
  const choose = (parent, words, attributes, act) => {
    const choice = add(parent, "label");
    const button = add(choice, "input", "", "", { ...attributes, ...KEEP_KEYS });
    add(choice, "span", "", words);
    button.addEventListener("change", () => act(button.checked));
    return button;
  };
  const buttons = ["both", "image to text", "text to image"].map((direction) =>
    choose(directions, direction, { type: "radio", name: group, value: direction }, () => write("direction", direction)),
  );
  const check = (words, act) => choose(choices, words, { type: "checkbox" }, act);
  const normalize = check("L2-normalise", (on) => write("normalize", on));
  const scale = check("As logit scale", (on) => write("scale", on ? "logit scale" : "temperature"));

  return () => {
    const [temperature, moment] = [model.get("temperature"), model.get("moment")];
    const asScale = model.get("scale") === "logit scale";
    const now = written(asScale ? 1 / temperature : temperature);
    heat.show(temperature, now);
    heat.label.textContent = asScale ? "Logit scale" : "Temperature";
    heat.left.textContent = `${asScale ? 1 / COLDEST : COLDEST}, sharp`;
    heat.right.textContent = `flat, ${asScale ? 1 / HOTTEST : HOTTEST}`;
    heat.slider.setAttribute("aria-label", asScale ? "Temperature, as logit scale" : "Temperature");
    value.dataset.value = String(temperature);
    value.textContent = now;
    other.textContent = asScale ? `= exp(${written(-Math.log(temperature))})` : `= 1 / ${written(1 / temperature)}`;
    if (time) {
      time.slider.value = moment;
      time.slider.style.setProperty("--position", `${(100 * moment) / last}%`);
      time.slider.setAttribute("aria-valuetext", state.moments[moment]);
      time.says.textContent = state.moments[moment];
    }
    for (const button of buttons) button.checked = button.value === model.get("direction");
    normalize.checked = model.get("normalize");
    scale.checked = asScale;
  };
}

/** One line on the cell last pointed at. It stays while the slider moves, so that one probability can be followed. */
function cellDetail(parent, state) {
  const box = add(parent, "div", "detail");
  const hint = add(box, "p", "hint", "Point at a cell to see its image, its caption and its numbers; click to lock its line.");
  const tile = add(box, "span");
  const words = add(box, "div", "words", "", { hidden: "" });
  const title = add(words, "div", "pair");
  const caption = add(words, "div", "caption");
  const figures = add(words, "div", "figures");
  return (row, column, parts) => {
    hint.hidden = true;
    words.hidden = false;
    if (state.sheetUrl) showTile(tile, state.pairs, row);
    title.textContent = `Image ${row} with text ${column}${row === column ? ", a matched pair" : ""}`;
    caption.textContent = state.captions[column];
    figures.textContent = parts.join(" \u00b7 ");
    return `${title.textContent}. ${caption.textContent}. ${parts.join(", ")}.`;
  };
}

const MOST_BARS = 8;

/** Who pushes the locked image or text away: the nearest negatives, each with its share of the repulsion. */
function pushesChart(parent, state, letGo) {
  const box = add(parent, "section", "pushes", "", { hidden: "", "aria-label": "Who pushes" });
  const title = add(box, "div", "title");
  const name = add(title, "span");
  const note = add(title, "small");
  add(title, "button", "", "let go", { type: "button" }).addEventListener("click", letGo);
  const list = add(box, "div", "bars");
  let bars = [];
  let shown = "";

  function addBar(words, image) {
    const bar = add(list, "div", "push");
    if (image !== null && state.sheetUrl) showTile(add(bar, "span"), state.pairs, image);
    add(bar, "span", "who", words, { title: words });
    const fill = add(add(bar, "div", "track", "", { "aria-hidden": "true" }), "div", "fill");
    const figure = add(bar, "span", "figure");
    return (share) => {
      bar.dataset.share = String(share);
      fill.style.width = `${100 * share}%`;
      figure.textContent = percent(share);
      return bar;
    };
  }

  return {
    hide() {
      box.hidden = true;
    },
    show(line, direction, temperature, { negatives, values }, matched, source) {
      const ofImages = direction === "text to image";
      const key = `${line} ${direction} ${source}`;
      if (key !== shown) {
        shown = key;
        list.replaceChildren();
        list.classList.toggle("tiled", ofImages && Boolean(state.sheetUrl));
        bars = negatives
          .slice(0, MOST_BARS)
          .map((k) => addBar(ofImages ? `image ${k}` : state.captions[k], ofImages ? k : null));
        if (negatives.length > MOST_BARS) bars.push(addBar(`the ${negatives.length - MOST_BARS} others`, null));
        name.textContent = `Who pushes ${ofImages ? "text" : "image"} ${line} away`;
      }
      box.hidden = false;
      if (!negatives.length) {
        note.textContent = "no negative is left in this line";
        return;
      }
      const shares = sharesOf(values, temperature);
      const spread = Math.exp(shares.reduce((sum, share) => sum - (share > 0 ? share * Math.log(share) : 0), 0));
      note.textContent =
        `shares of the repulsion, (1 ${MINUS} ${matched.toFixed(3)}) / ${written(temperature)} = ` +
        `${((1 - matched) / temperature).toFixed(2)}; spread over ${spread.toPrecision(3)} of ${negatives.length}`;
      bars.forEach((show, at) => {
        if (at < MOST_BARS) show(shares[at]).dataset.negative = String(negatives[at]);
        else show(shares.slice(MOST_BARS).reduce((sum, share) => sum + share, 0));
      });
    },
  };
}

const WATCHED = ["temperature", "direction", "normalize", "selected", "moment", "scale"];
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function render({ model, el }) {
  const state = unpack(model);
  const { pairs } = state;
  const cells = pairs * pairs;
  const sourceOf = makeSources(state);
  const probabilities = { "image to text": new Float64Array(cells), "text to image": new Float64Array(cells) };

  const root = add(el, "div", "temperature-explorer");
  root.classList.toggle("few", pairs <= 6);
  root.classList.toggle("many", pairs > MOST_LABELS);
  root.style.setProperty("--pairs", pairs);
  root.style.setProperty("--sheet", state.sheetUrl ? `url("${state.sheetUrl}")` : "none");
  const showControls = controls(root, model, state);
  const cards = add(root, "div", "cards");
  const lossCard = numberCard(cards, "loss", "Loss");
  const accuracyCard = numberCard(cards, "accuracy", "Accuracy");
  const effectiveCard = numberCard(cards, "effective_negatives", "Effective negatives");
  add(effectiveCard.note, "span");
  const entropyShown = add(effectiveCard.note, "span", "", "", { "data-quantity": "entropy" });
  effectiveCard.note.append(" nats");
  const showGeometry = geometryLine(root);

  let pointed = null;
  let speak = false; // a screen reader is told of a cell when keys went there, and not while a slider moves
  const setSelected = (line) => {
    model.set("selected", line);
    model.save_changes();
  };
  const hands = {
    point(row, column) {
      pointed = [row, column];
      schedule();
    },
    // A click has whole-number coordinates and may name a neighbour, so the cell is the one that was pointed at.
    lock() {
      const [row, column] = pointed;
      const line = model.get("direction") === "text to image" ? column : row;
      setSelected(model.get("selected") === line ? null : line);
    },
    enter() {
      if (!pointed) hands.point(0, 0);
    },
    press(event) {
      if (event.key in STEPS) {
        const [down, right] = STEPS[event.key];
        const within = (place) => Math.max(0, Math.min(pairs - 1, place));
        speak = true;
        hands.point(within(pointed[0] + down), within(pointed[1] + right));
      } else if (event.key === "Enter" || event.key === " ") hands.lock();
      else if (event.key === "Escape") setSelected(null);
      else return;
      event.preventDefault();
    },
  };
  const panels = add(root, "div", "panels");
  const similarityPanel = matrixPanel(panels, state, SIMILARITY, hands);
  const softmaxPanel = matrixPanel(panels, state, SOFTMAX, hands);
  softmaxPanel.setLimits(SOFTMAX.limits);
  const showDetail = cellDetail(root, state);
  const spoken = add(root, "div", "spoken", "", { "aria-live": "polite" });
  const pushes = pushesChart(root, state, () => setSelected(null));

  /** What the similarities alone decide: colours and limits on the left, chance, the geometry of the features. */
  function drawSource(source, moment, normalize) {
    const [low, high] = source.ends.map((end) => signed(end.toFixed(2)));
    const name = normalize ? "Similarity" : "Dot product";
    const words = normalize ? "cosine; matched pairs lie on the diagonal" : "of the features as they are: length counts";
    const what = normalize ? "Cosines" : "Dot products";
    similarityPanel.describe(
      name,
      words,
      `${what} of ${pairs} images, the rows, with ${pairs} texts, the columns: from ${low} to ${high}`,
    );
    similarityPanel.setLimits([-source.limit, 0, source.limit]);
    const chance = Math.log(pairs);
    lossCard.scale(1.5 * chance || 1, chance, `chance: ln ${pairs} = ${chance.toFixed(2)}`);
    accuracyCard.scale(1, 1 / pairs, `chance: 1/${pairs} = ${percent(1 / pairs)}`);
    effectiveCard.scale(pairs, pairs, `out of ${pairs}; mean entropy `);
    showGeometry(state.geometry[moment]);
  }

  function drawPointed(source, directions, temperature) {
    const [row, column] = pointed;
    const cell = row * pairs + column;
    similarityPanel.mark(row, column);
    softmaxPanel.mark(row, column);
    const parts = [`${source.normalize ? "similarity" : "dot product"} ${signed(source.similarities[cell].toFixed(3))}`];
    const shares = directions.map((direction) => probabilities[direction][cell]);
    parts.push(...directions.map((direction, i) => `probability ${direction} ${shares[i].toPrecision(3)}`));
    const own = Number(row === column);
    const gradient = shares.reduce((sum, share) => sum + share - own, 0) / shares.length / temperature;
    parts.push(`${gradient > 0 ? "pushed apart" : "pulled together"} with ${Math.abs(gradient).toPrecision(3)}`);
    const words = showDetail(row, column, parts);
    if (speak) spoken.textContent = words;
    speak = false;
  }

  let frame = 0;
  let [drawnSource, drawnSoftmax] = ["", ""];
  function draw() {
    frame = 0;
    const [temperature, direction, normalize, selected, moment] = WATCHED.map((name) => model.get(name));
    if (!(temperature > 0)) return; // a slider linked in the browser alone may pass zero; the last picture stays
    const key = `${moment} ${normalize}`;
    const source = sourceOf(moment, normalize);
    showControls();
    const another = drawnSource !== key;
    if (another) drawSource(source, moment, normalize);
    drawnSource = key;
    if (similarityPanel.resize() || another) similarityPanel.paint(source.similarities);

    // Loss and accuracy are the mean of both directions. The picture and the effective negatives are of the rows then:
    // no picture can sum to one along both sides.
    const directions = direction === "both" ? Object.keys(probabilities) : [direction];
    const softmaxKey = `${key} ${temperature} ${direction}`;
    const moved = drawnSoftmax !== softmaxKey;
    drawnSoftmax = softmaxKey;
    if (moved) {
      const results = directions.map((name) => softmax(source.similarities, pairs, temperature, name, probabilities[name]));
      const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
      const loss = mean(results.map((result) => result.loss));
      const right = mean(directions.map((name) => source.accuracies[name]));
      const { entropy, effectiveNegatives } = results[0];
      lossCard.show(loss, loss < 0.001 ? "< 0.001" : loss.toPrecision(4));
      accuracyCard.show(right, percent(right));
      effectiveCard.show(effectiveNegatives, effectiveNegatives.toPrecision(3));
      entropyShown.dataset.value = String(entropy);
      entropyShown.textContent = entropy.toFixed(2);
      const line = directions[0] === "text to image" ? "column" : "row";
      softmaxPanel.describe(
        "Softmax",
        `at this temperature; each ${line} sums to 1`,
        `Softmax over each ${line} at temperature ${written(temperature)}: ` +
          `${effectiveNegatives.toPrecision(3)} of ${pairs} count in the mean`,
      );
    }
    if (softmaxPanel.resize() || moved) softmaxPanel.paint(probabilities[directions[0]]);
    if (pointed) drawPointed(source, directions, temperature);
    for (const panel of [similarityPanel, softmaxPanel]) panel.lock(selected, directions[0]);
    if (selected === null) pushes.hide();
    else {
      const negatives = negativesOf(source.similarities, pairs, directions[0], selected);
      const matched = probabilities[directions[0]][selected * pairs + selected];
      pushes.show(selected, directions[0], temperature, negatives, matched, key);
    }
  }
  // However many events arrive between two frames of the display, one picture is drawn.
  const schedule = () => {
    frame ||= requestAnimationFrame(draw);
  };

  const observer = new ResizeObserver(schedule);
  observer.observe(root);
  for (const name of WATCHED) model.on(`change:${name}`, schedule);
  schedule();
  return () => {
    for (const name of WATCHED) model.off(`change:${name}`, schedule);
    observer.disconnect();
    cancelAnimationFrame(frame);
    URL.revokeObjectURL(state.sheetUrl);
    root.remove(); // JupyterLab keeps the element around it for ever
  };
}

export default { render };
