// The browser half of live.py: stores the numbers of a training as rows and plots them as curves.

const LINE_STYLES = [
  ["#2f7fc1", ""],
  ["#d55e00", "7 3"],
  ["#00906a", "2 2.5"],
  ["#b0528a", "9 3 2 3"],
]; // told apart by their dashes where colours are not seen
const HEIGHT = 190;
const MARGIN = { left: 44, right: 10, top: 8, bottom: 22 };

function addDrawn(parent, tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

/** The rows of a training: float32, each the temperature and then one number a curve. Grows as they arrive. */
class Rows {
  constructor() {
    this.bytes = new Uint8Array(1 << 12);
    this.length = 0; // in bytes
  }
  /** Bytes that begin at `start`; false when some before them are missing. */
  put(start, view) {
    if (start > this.length) return false;
    const end = start + view.byteLength;
    if (end > this.bytes.length) {
      const longer = new Uint8Array(2 * end);
      longer.set(this.bytes);
      this.bytes = longer;
    }
    this.bytes.set(new Uint8Array(view.buffer, view.byteOffset, view.byteLength), start);
    this.length = Math.max(this.length, end);
    return true;
  }
  column(at, width) {
    const all = new Float32Array(this.bytes.buffer, 0, this.length / 4);
    return Array.from({ length: Math.floor(all.length / width) }, (_, row) => all[row * width + at]);
  }
}

/** Round numbers from `low` to `high`, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((by) => by * power).find((by) => by >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

/** The axis of a panel: its ends, the values marked on it, and where a value lies from 0 (below) to 1 (above). */
function valueAxis({ limits, levels, log }, columns) {
  if (log) {
    const place = (value) => Math.log(value / limits[0]) / Math.log(limits[1] / limits[0]);
    return { ends: limits, marks: [0.01, 0.03, 0.1, 0.3, 1], place };
  }
  let [low, high] = limits;
  if (limits.length === 0) {
    low = Infinity;
    high = -Infinity;
    for (const values of [...columns, Object.values(levels)]) {
      for (const value of values) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (!(low < high)) [low, high] = low === high ? [low - 0.5, low + 0.5] : [0, 1];
    const step = ticks(low, high, 4);
    const gap = step.length > 1 ? step[1] - step[0] : high - low;
    [low, high] = [Math.floor(low / gap + 1e-9) * gap, Math.ceil(high / gap - 1e-9) * gap];
  }
  return { ends: [low, high], marks: ticks(low, high, 4), place: (value) => (value - low) / (high - low) };
}

/** A line through the values. Where many fall on one pixel, only the lowest and the highest of them are drawn. */
function line(values, x, y, pixels, stairs) {
  const many = Math.ceil(values.length / pixels);
  const points = [];
  for (let from = 0; from < values.length; from += many) {
    const bunch = values.slice(from, from + many);
    const ends = many > 2 ? [Math.min(...bunch), Math.max(...bunch)] : bunch;
    ends.forEach((value, i) => {
      const at = y(value).toFixed(1);
      const right = x(from + 1 + (many > 2 ? i * (many - 1) : i));
      if (stairs) points.push(`${x(from + i).toFixed(1)} ${at}`);
      points.push(`${right.toFixed(1)} ${at}`);
    });
  }
  return points.length ? `M${points.join("L")}` : "";
}

/** One set of axes with its title, its key and its curves. */
function makePanel(parent, panel) {
  const figure = add(parent, "figure");
  const caption = add(figure, "figcaption");
  add(caption, "span", "title", panel.title);
  const numbers = panel.curves.map((name, i) => {
    const [colour, dashes] = LINE_STYLES[i % LINE_STYLES.length];
    const key = add(caption, "span", "key");
    const sample = addDrawn(key, "svg", { width: 26, height: 8, "aria-hidden": "true" });
    addDrawn(sample, "path", { d: "M1 4H25", class: "curve", stroke: colour, "stroke-dasharray": dashes });
    if (panel.curves.length > 1 || name.toLowerCase() !== panel.title.toLowerCase()) add(key, "span", "", name);
    return add(key, "span", "number", "", { "data-curve": name });
  });
  const picture = addDrawn(figure, "svg", { class: "picture", role: "img" });
  const frame = addDrawn(picture, "g");
  const moves = addDrawn(picture, "path", { class: "moves" });
  const curves = panel.curves.map((_, i) => {
    const [colour, dashes] = LINE_STYLES[i % LINE_STYLES.length];
    return addDrawn(picture, "path", { class: "curve", stroke: colour, "stroke-dasharray": dashes });
  });
  let drawnFrame = "";

  /** Draws columns of numbers, one a curve, over `steps` steps. `changes`: before which steps the hand moved. */
  return (columns, steps, changes) => {
    const width = picture.clientWidth;
    if (width === 0) return;
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const axis = valueAxis(panel, columns);
    const x = (step) => MARGIN.left + (step / steps) * (right - MARGIN.left);
    const y = (value) => bottom - Math.max(-0.02, Math.min(1.02, axis.place(value))) * (bottom - MARGIN.top);

    const wanted = JSON.stringify([width, steps, axis.ends]);
    if (wanted !== drawnFrame) {
      drawnFrame = wanted;
      frame.replaceChildren();
      picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      for (const mark of axis.marks) {
        addDrawn(frame, "path", { class: "grid", d: `M${MARGIN.left} ${y(mark)}H${right}` });
        addDrawn(frame, "text", { x: MARGIN.left - 6, y: y(mark) + 4, "text-anchor": "end" }, written(mark));
      }
      for (const mark of ticks(0, steps, width / 55)) {
        const inside = width - 3.5 * written(mark).length; // half as wide as the words at their size
        addDrawn(frame, "text", { x: Math.min(x(mark), inside), y: HEIGHT - 6, "text-anchor": "middle" }, written(mark));
      }
      for (const [name, value] of Object.entries(panel.levels)) {
        addDrawn(frame, "path", { class: "level", d: `M${MARGIN.left} ${y(value)}H${right}` });
        addDrawn(frame, "text", { x: right, y: y(value) - 4, "text-anchor": "end" }, name);
      }
      addDrawn(frame, "path", { class: "axis", d: `M${MARGIN.left} ${MARGIN.top}V${bottom}H${right}` });
    }
    const moved = new Set(changes.map((step) => Math.round(x(step)))); // one line a pixel
    moves.setAttribute("d", Array.from(moved, (at) => `M${at + 0.5} ${MARGIN.top}V${bottom}`).join(""));
    columns.forEach((values, i) => {
      curves[i].setAttribute("d", line(values, x, y, right - MARGIN.left, panel.log));
      if (values.length === 0) return;
      numbers[i].dataset.value = String(values.at(-1));
      numbers[i].textContent = written(Number(values.at(-1).toPrecision(3)));
    });
    const last = panel.curves.map((name, i) => (columns[i].length ? `${name} ${numbers[i].textContent}` : name));
    picture.setAttribute("aria-label", `${panel.title} over ${columns[0].length} of ${steps} steps: ${last.join(", ")}`);
  };
}

function controls(parent, model) {
  const bar = add(parent, "div", "controls", "", KEEP_KEYS);
  const button = add(bar, "button", "", "Start", { type: "button" });
  const heat = temperatureSlider(bar, (temperature) => {
    model.set("temperature", temperature);
    model.save_changes();
  });
  const value = add(heat.says, "span", "value", "", { "data-quantity": "temperature" });
  const progress = add(bar, "span", "done");
  const words = add(parent, "p", "words", "", { role: "status" });
  let waiting = 0;
  button.addEventListener("click", () => {
    model.send({ press: model.get("running") ? "stop" : "start" });
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      words.textContent = "The kernel has not answered yet: it is busy, or this cell has not been run since it started.";
    }, 3000);
  });
  const answered = () => {
    clearTimeout(waiting);
    words.textContent = model.get("trouble");
  };
  answered();

  return {
    answered,
    show(step) {
      const temperature = model.get("temperature");
      heat.show(temperature, written(temperature));
      value.dataset.value = String(temperature);
      value.textContent = written(temperature);
      button.textContent = model.get("running") ? "Stop" : "Start";
      progress.textContent = `step ${step} of ${model.get("steps")}`;
      progress.dataset.step = step;
    },
  };
}

function render({ model, el }) {
  const root = add(el, "div", "live-training");
  const { answered, show } = controls(root, model);
  const place = add(root, "div", "panels");
  const rows = new Rows();
  const temperaturePanel = {
    title: "Temperature",
    curves: ["temperature"],
    limits: [COLDEST, HOTTEST],
    levels: {},
    log: true,
  };
  let panels = [];
  let names = [];

  function build() {
    const described = model.get("panels");
    names = ["temperature", ...new Set(described.flatMap((panel) => panel.curves))];
    place.replaceChildren();
    panels = [...described, temperaturePanel].map((panel) => ({ panel, draw: makePanel(place, panel) }));
    schedule();
  }

  let frame = 0;
  function draw() {
    frame = 0;
    const columns = new Map(names.map((name, at) => [name, rows.column(at, names.length)]));
    const temperatures = columns.get("temperature");
    const changes = [];
    for (let step = 1; step < temperatures.length; step++) {
      if (temperatures[step] !== temperatures[step - 1]) changes.push(step);
    }
    show(temperatures.length);
    const steps = Math.max(model.get("steps"), temperatures.length);
    for (const { panel, draw } of panels) draw(panel.curves.map((name) => columns.get(name)), steps, changes);
  }
  // However many messages arrive between two frames of the display, one picture is drawn.
  const schedule = () => {
    frame ||= requestAnimationFrame(draw);
  };

  function receive({ start }, [buffer]) {
    // A page that was loaded during a run lacks what was sent before.
    if (!rows.put(start, buffer)) model.send({ missing: rows.length });
    schedule();
  }
  function takeAll() {
    const history = model.get("history");
    if (history.byteLength >= rows.length) rows.put(0, history);
    schedule();
  }
  const changes = {
    "change:temperature": schedule,
    "change:steps": schedule,
    "change:panels": build,
    "change:history": takeAll,
    "change:trouble": answered,
    "change:running": () => {
      answered();
      schedule();
    },
    "msg:custom": receive,
  };
  for (const [name, listener] of Object.entries(changes)) model.on(name, listener);
  build();
  takeAll();
  const observer = new ResizeObserver(schedule);
  observer.observe(root);
  return () => {
    for (const [name, listener] of Object.entries(changes)) model.off(name, listener);
    observer.disconnect();
    cancelAnimationFrame(frame);
    root.remove(); // JupyterLab keeps the element around it for ever
  };
}

export default { render };
