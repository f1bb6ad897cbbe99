// The browser half of helpers/explorer.py. Everything the slider shows is computed here from the features, so the
// picture follows the hand without asking the kernel. First the numbers, then the colours, then the picture's parts.

/**
 * Cosine of every image with every text, [image, text] row by row, from features of shape [2, pairs, dim].
 * Lengths below 1e-12 count as 1e-12, as in torch's `normalize`, so that a vector of zeros gives 0 and not NaN.
 */
function cosineSimilarities(features, pairs) {
  const dim = features.length / (2 * pairs);
  const unit = new Float64Array(features.length);
  for (let start = 0; start < features.length; start += dim) {
    let squares = 0;
    for (let d = start; d < start + dim; d++) squares += features[d] ** 2;
    const length = Math.max(Math.sqrt(squares), 1e-12);
    for (let d = start; d < start + dim; d++) unit[d] = features[d] / length;
  }
  const similarities = new Float64Array(pairs * pairs);
  for (let image = 0; image < pairs; image++) {
    for (let text = 0; text < pairs; text++) {
      const a = image * dim;
      const b = (pairs + text) * dim;
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += unit[a + d] * unit[b + d];
      similarities[image * pairs + text] = sum;
    }
  }
  return similarities;
}

/** How a matrix stored row by row is walked: from line to line, and within a line. A column is a line too. */
const walk = (direction, pairs) => (direction === "text to image" ? [1, pairs] : [pairs, 1]);

/**
 * Softmax over each line, written into `probabilities`, with the loss and the effective negatives, means over lines.
 * The largest similarity of a line is taken off first: it changes nothing, and no exponential overflows.
 */
function softmax(similarities, pairs, temperature, direction, probabilities) {
  const [lineStep, step] = walk(direction, pairs);
  let loss = 0;
  let effectiveNegatives = 0;
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
    effectiveNegatives += Math.exp(entropy);
  }
  return { loss: loss / pairs, effectiveNegatives: effectiveNegatives / pairs };
}

/** Share of lines whose own match beats every other by more than float32 can blur; a tie counts as wrong. */
function accuracy(similarities, pairs, direction) {
  const [lineStep, step] = walk(direction, pairs);
  let right = 0;
  for (let line = 0; line < pairs; line++) {
    let other = -Infinity;
    for (let k = 0; k < pairs; k++) {
      if (k !== line) other = Math.max(other, similarities[line * lineStep + k * step]);
    }
    if (similarities[line * lineStep + line * step] > other + 1e-6) right++;
  }
  return right / pairs;
}

// ColorBrewer's RdBu and Blues, safe for colour-blind eyes; blue means alike in the one and likely in the other.
const DIVERGING = "67001f b2182b d6604d f4a582 fddbc7 f7f7f7 d1e5f0 92c5de 4393c3 2166ac 053061".split(" ");
const SEQUENTIAL = "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b".split(" ");
const SHADES = 1024;
// The limits are fixed, so that a colour means the same at every temperature.
const SIMILARITY = { name: "similarity", title: "Similarity", stops: DIVERGING, limits: [-1, 0, 1] };
const SOFTMAX = { name: "softmax", title: "Softmax", stops: SEQUENTIAL, limits: [0, 0.5, 1] };
const MOST_LABELS = 32; // beyond that a line is too thin for a thumbnail or a word

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function describeSimilarities(similarities, pairs) {
  const [low, high] = [Math.min, Math.max].map((pick) => similarities.reduce((a, b) => pick(a, b)).toFixed(2));
  return `Cosines of ${pairs} images, the rows, with ${pairs} texts, the columns: from ${low} to ${high}`;
}

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

/** Appends an element. Text goes in as text, so a caption never becomes markup. */
function add(parent, tag, className = "", text = "", attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== "") node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

/** What the explorer holds, unpacked: bytes arrive as a DataView that need not begin at a multiple of four. */
function unpack(model) {
  const pairs = model.get("pairs");
  const bytes = (name) => {
    const view = model.get(name);
    return new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  const sheet = bytes("thumbnails");
  const type = sheet[0] === 0x89 ? "image/png" : "image/jpeg"; // every PNG begins with this byte
  const captions = model.get("captions");
  return {
    pairs,
    similarities: cosineSimilarities(new Float32Array(bytes("features").buffer), pairs),
    sheetUrl: sheet.length ? URL.createObjectURL(new Blob([sheet], { type })) : "",
    labels: Array.from({ length: pairs }, (_, text) => captions[text] ?? String(text)),
    captions: Array.from({ length: pairs }, (_, text) => captions[text] ?? `text ${text}`),
  };
}

/** Shows image `index` of the sheet of thumbnails (a square of tiles, filled row by row) in an element. */
function showTile(node, pairs, index) {
  const tiles = Math.ceil(Math.sqrt(pairs));
  const place = (tile) => (tiles > 1 ? (100 * tile) / (tiles - 1) : 0);
  node.className = "tile";
  node.style.backgroundSize = `${tiles * 100}%`;
  node.style.backgroundPosition = `${place(index % tiles)}% ${place(Math.floor(index / tiles))}%`;
}

/** A matrix with its axes and colour bar. `paint` draws values, `mark` frames a cell. */
function matrixPanel(parent, state, look, onPoint) {
  const { pairs } = state;
  const colours = colourTable(look.stops);
  const panel = add(parent, "figure", "panel");
  const title = add(panel, "figcaption", "title", look.title);
  const note = add(title, "small");
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
  const face = add(panel, "div", "face");
  const canvas = add(face, "canvas", "", "", { role: "img", "data-matrix": look.name });
  const frame = add(face, "div", "mark", "", { hidden: "" });
  const bar = add(panel, "div", "bar", "", { "aria-hidden": "true" });
  add(bar, "div", "gradient").style.background = colours.gradient;
  for (const end of look.limits) add(bar, "span", "", String(end).replace("-", "\u2212"));

  const small = new OffscreenCanvas(pairs, pairs); // one pixel a cell, then enlarged
  const image = new ImageData(pairs, pairs);
  const pixels = new Uint32Array(image.data.buffer);
  const context = canvas.getContext("2d");
  const [low, high] = [look.limits[0], look.limits.at(-1)];
  const shade = (value) => Math.max(0, Math.min(SHADES - 1, Math.round(((value - low) / (high - low)) * (SHADES - 1))));

  function writeNumbers(values, cell) {
    const narrow = cell < 40 * devicePixelRatio;
    const digits = (value) => {
      if (Math.abs(value) < 0.005) return "0";
      const text = value.toFixed(narrow && Math.abs(value) >= 0.995 ? 1 : 2).replace("-", "\u2212");
      return narrow ? text.replace("0.", ".") : text;
    };
    context.font = `${Math.min(cell * 0.4, 13 * devicePixelRatio)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let k = 0; k < values.length; k++) {
      context.fillStyle = colours.inks[shade(values[k])];
      context.fillText(digits(values[k]), ((k % pairs) + 0.5) * cell, (Math.floor(k / pairs) + 0.5) * cell);
    }
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect();
    const cell = (offset, length) => Math.max(0, Math.min(pairs - 1, Math.floor((offset / length) * pairs)));
    onPoint(cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width));
  }
  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);

  return {
    describe(words, textAlternative) {
      note.textContent = words;
      canvas.setAttribute("aria-label", textAlternative);
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
  };
}

/** A number with its name, a bar from 0 to `most`, and a tick where chance lies. */
function numberCard(parent, quantity, name, note, most, chance) {
  const card = add(parent, "div", "card");
  add(card, "div", "name", name);
  const value = add(card, "div", "value", "", { "data-quantity": quantity });
  const track = add(card, "div", "track", "", { "aria-hidden": "true" });
  const fill = add(track, "div", "fill");
  add(track, "div", "chance").style.left = `${(100 * chance) / most}%`;
  add(card, "div", "note", note);
  return (number, text) => {
    value.dataset.value = String(number);
    value.textContent = text;
    fill.style.width = `${Math.min(100, (100 * number) / most)}%`;
  };
}

// The slider's own positions run from 0 to 100, evenly in the logarithm of the temperature, so that one press of an
// arrow key is a hundredth and a Page key a tenth of the way. Three digits are as fine as a hand can set.
const [COLDEST, HOTTEST] = [0.01, 2];
const positionOf = (temperature) => (100 * Math.log(temperature / COLDEST)) / Math.log(HOTTEST / COLDEST);
const temperatureAt = (position) => Number((COLDEST * (HOTTEST / COLDEST) ** (position / 100)).toPrecision(3));
const written = (temperature) => String(Number(temperature.toPrecision(4)));

/** The slider and the choice of direction. Both only write to the model; drawing follows from there. */
function controls(parent, model) {
  const bar = add(parent, "div", "controls");
  const label = add(bar, "label", "temperature");
  add(label, "span", "", "Temperature");
  const track = add(label, "span", "slider");
  // JupyterLab takes the arrow keys from native inputs for itself unless they ask to keep them.
  const keepKeys = { "data-lm-suppress-shortcuts": "true" };
  const range = { type: "range", min: 0, max: 100, step: "any", "aria-label": "Temperature" };
  const slider = add(track, "input", "", "", { ...range, ...keepKeys });
  const ends = add(track, "span", "ends", "", { "aria-hidden": "true" });
  add(ends, "span", "", `${COLDEST}, sharp`);
  add(ends, "span", "", `flat, ${HOTTEST}`);
  const value = add(bar, "span", "value", "", { "data-quantity": "temperature" });
  slider.addEventListener("input", () => {
    model.set("temperature", temperatureAt(slider.value));
    model.save_changes();
  });

  const directions = add(bar, "fieldset", "directions", "", keepKeys);
  add(directions, "legend", "", "Direction");
  const group = `direction-${Math.random().toString(36).slice(2)}`; // radio buttons of two explorers must not mix
  const buttons = ["both", "image to text", "text to image"].map((direction) => {
    const choice = add(directions, "label");
    const button = add(choice, "input", "", "", { type: "radio", name: group, value: direction });
    add(choice, "span", "", direction);
    button.addEventListener("change", () => {
      model.set("direction", direction);
      model.save_changes();
    });
    return button;
  });

  return (temperature, direction) => {
    // A value set from Python stays as it is: the slider moves to it, and never rounds it to a position of its own.
    if (temperatureAt(slider.value) !== temperature) slider.value = positionOf(temperature);
    slider.setAttribute("aria-valuetext", written(temperature));
    slider.style.setProperty("--position", `${slider.value}%`);
    value.dataset.value = String(temperature);
    value.textContent = written(temperature);
    for (const button of buttons) button.checked = button.value === direction;
  };
}

/** One line on the cell last pointed at. It stays while the slider moves, so that one probability can be followed. */
function cellDetail(parent, state) {
  const box = add(parent, "div", "detail");
  const hint = add(box, "p", "hint", "Point at a cell to see its image, its caption and its numbers.");
  const tile = add(box, "span");
  const words = add(box, "div", "words", "", { hidden: "" });
  const title = add(words, "div", "pair");
  const caption = add(words, "div", "caption");
  const figures = add(words, "div", "figures");
  return (row, column, similarity, shares) => {
    hint.hidden = true;
    words.hidden = false;
    if (state.sheetUrl) showTile(tile, state.pairs, row);
    title.textContent = `Image ${row} with text ${column}${row === column ? ", a matched pair" : ""}`;
    caption.textContent = state.captions[column];
    const probabilities = shares.map(([direction, share]) => `probability ${direction} ${share.toPrecision(3)}`);
    figures.textContent = [`similarity ${similarity.toFixed(3)}`, ...probabilities].join(" \u00b7 ");
  };
}

function render({ model, el }) {
  const state = unpack(model);
  const { pairs, similarities } = state;
  const cells = pairs * pairs;
  const probabilities = { "image to text": new Float64Array(cells), "text to image": new Float64Array(cells) };
  // Temperature never changes what is ranked first, so accuracy, like the similarities, is computed once.
  const accuracies = Object.keys(probabilities).map((direction) => accuracy(similarities, pairs, direction));

  const root = add(el, "div", "temperature-explorer");
  root.classList.toggle("few", pairs <= 6);
  root.classList.toggle("many", pairs > MOST_LABELS);
  root.style.setProperty("--pairs", pairs);
  root.style.setProperty("--sheet", state.sheetUrl ? `url("${state.sheetUrl}")` : "none");
  const showControls = controls(root, model);
  const cards = add(root, "div", "cards");
  const chance = Math.log(pairs);
  const chanceNotes = [`chance: ln ${pairs} = ${chance.toFixed(2)}`, `chance: 1/${pairs} = ${percent(1 / pairs)}`];
  const showLoss = numberCard(cards, "loss", "Loss", chanceNotes[0], 1.5 * chance || 1, chance);
  const showAccuracy = numberCard(cards, "accuracy", "Accuracy", chanceNotes[1], 1, 1 / pairs);
  const all = `out of ${pairs}`;
  const showEffective = numberCard(cards, "effective_negatives", "Effective negatives", all, pairs, pairs);

  let selected = null;
  const point = (row, column) => {
    selected = [row, column];
    schedule();
  };
  const panels = add(root, "div", "panels");
  const similarityPanel = matrixPanel(panels, state, SIMILARITY, point);
  const softmaxPanel = matrixPanel(panels, state, SOFTMAX, point);
  const showDetail = cellDetail(root, state);
  similarityPanel.describe("cosine; matched pairs lie on the diagonal", describeSimilarities(similarities, pairs));

  function drawSelected(directions) {
    const [row, column] = selected;
    const cell = row * pairs + column;
    similarityPanel.mark(row, column);
    softmaxPanel.mark(row, column);
    showDetail(row, column, similarities[cell], directions.map((name) => [name, probabilities[name][cell]]));
  }

  let frame = 0;
  function draw() {
    frame = 0;
    const temperature = model.get("temperature");
    const direction = model.get("direction");
    if (!(temperature > 0)) return; // a slider linked in the browser alone may pass zero; the last picture stays
    const directions = Object.keys(probabilities);
    const results = directions.map((name) => softmax(similarities, pairs, temperature, name, probabilities[name]));
    // Loss and accuracy are the mean of both directions. The picture and the effective negatives are of the rows then:
    // no picture can sum to one along both sides.
    const chosen = direction === "both" ? [0, 1] : [directions.indexOf(direction)];
    const mean = (values) => chosen.reduce((sum, which) => sum + values[which], 0) / chosen.length;
    const loss = mean(results.map((result) => result.loss));
    const { effectiveNegatives } = results[chosen[0]];
    showControls(temperature, direction);
    showLoss(loss, loss.toPrecision(4));
    showAccuracy(mean(accuracies), percent(mean(accuracies)));
    showEffective(effectiveNegatives, effectiveNegatives.toPrecision(3));
    const line = direction === "text to image" ? "column" : "row";
    softmaxPanel.describe(
      `at this temperature; each ${line} sums to 1`,
      `Softmax over each ${line} at temperature ${written(temperature)}: ` +
        `${effectiveNegatives.toPrecision(3)} of ${pairs} count in the mean`,
    );
    if (similarityPanel.resize()) similarityPanel.paint(similarities);
    softmaxPanel.resize();
    softmaxPanel.paint(probabilities[directions[chosen[0]]]);
    if (selected) drawSelected(chosen.map((which) => directions[which]));
  }
  // However many events arrive between two frames of the display, one picture is drawn.
  const schedule = () => {
    frame ||= requestAnimationFrame(draw);
  };

  const observer = new ResizeObserver(schedule);
  observer.observe(root);
  model.on("change:temperature", schedule);
  model.on("change:direction", schedule);
  schedule();
  return () => {
    model.off("change:temperature", schedule);
    model.off("change:direction", schedule);
    observer.disconnect();
    cancelAnimationFrame(frame);
    URL.revokeObjectURL(state.sheetUrl);
  };
}

export default { render };
