// What the browser halves of the course's widgets share. It stands before each of them, as one module.

/** Appends an element. Text goes in as text, so a caption never becomes markup. */
function add(parent, tag, className = "", text = "", attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== "") node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

// JupyterLab takes arrow keys and Enter for itself unless the element that has the focus asks to keep them.
const KEEP_KEYS = { "data-lm-suppress-shortcuts": "true" };
const MINUS = "\u2212";
const signed = (text) => text.replace("-", MINUS);

const written = (number) => signed(String(Number(number.toPrecision(4))));

/** A line with a name, a slider with words under its ends, and what it says now. */
function sliderLine(parent, name, range) {
  const line = add(parent, "label", "slider-line");
  const label = add(line, "span", "name", name);
  const track = add(line, "span", "slider");
  const slider = add(track, "input", "", "", { type: "range", "aria-label": name, ...range, ...KEEP_KEYS });
  const ends = add(track, "span", "ends", "", { "aria-hidden": "true" });
  const [left, right] = [add(ends, "span"), add(ends, "span")];
  const says = add(line, "span", "says");
  return { label, slider, left, right, says };
}

// The slider's own positions run from 0 to 100, evenly in the logarithm of the temperature, so that one press of an
// arrow key is a hundredth and a Page key a tenth of the way. Three digits are as fine as a hand can set.
const [COLDEST, HOTTEST] = [0.01, 2];
const positionOf = (temperature) => (100 * Math.log(temperature / COLDEST)) / Math.log(HOTTEST / COLDEST);
const temperatureAt = (position) => Number((COLDEST * (HOTTEST / COLDEST) ** (position / 100)).toPrecision(3));

/** The temperature under the hand: `move` gets what the hand sets, `show` puts the slider where the temperature is. */
function temperatureSlider(parent, move) {
  const line = sliderLine(parent, "Temperature", { min: 0, max: 100, step: "any" });
  const { slider } = line;
  [line.left.textContent, line.right.textContent] = [`${COLDEST}, sharp`, `flat, ${HOTTEST}`];
  slider.addEventListener("input", () => move(temperatureAt(slider.value)));
  const show = (temperature, words) => {
    // A value set from Python stays as it is: the slider moves to it, and never rounds it to a position of its own.
    if (temperatureAt(slider.value) !== temperature) slider.value = positionOf(temperature);
    slider.style.setProperty("--position", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", words);
  };
  return { ...line, show };
}

