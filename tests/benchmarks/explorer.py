"""How soon a picture follows the hand: the temperature explorer, and the ways of doing it that people know.

``python tests/benchmarks/explorer.py`` prints a table and writes it, with all that was measured, to ``data/results``.
Each rival shows the softmax of a matrix of similarities, with its colour bar and the temperature, and follows a slider,
in one Chromium and one JupyterLab; in each round all take turns. Measured in the page, for all in the same way:

- The hand is a mouse: real pointer events, sent to the browser while the slider is held. A time begins with the
  ``timeStamp`` that the browser gives to the pointer's move.
- In every frame of the display, when it has been painted, 64 x 64 pixels are read that lie evenly over the picture
  (a canvas or an image, whichever the rival has). A time ends in the first frame in which one of them has changed. What
  the screen needs to show a painted frame is the same for all and not in it. No picture at all counts as no change.
- Moves one by one: the next begins when the picture has rested for three frames, at a random moment between two frames.
- Dragging: the mouse moves on as soon as the browser has taken the move before, about once a frame. Counted are the
  frames whose picture is another than that of the frame before; and then, the hand at rest, the time from its last move
  to the last new picture, after which none comes for 30 frames: how far the picture was behind.
- Idle: the share of the time in which the page's main thread did anything at all while nobody touched it.
"""

import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "widgets"))
from notebook_page import NotebookPage
from servers import Jupyter, chromium, serve

from helpers.cli import CommandLine
from helpers.files import InputError
from helpers.sources.coco import DATA
from helpers.widgets.explorer import TemperatureExplorer

FRAMES_PER_SECOND = 60
PACKAGES = ("jupyterlab", "ipywidgets", "ipympl", "matplotlib", "anywidget")

BATCH = """
import numpy as np
chance = np.random.default_rng(0)
image_features = chance.normal(size=(PAIRS, 64))
text_features = image_features + 2 * chance.normal(size=(PAIRS, 64))
"""
SOFTMAX = f"""{BATCH}
import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import clear_output, display
unit = lambda features: features / np.linalg.norm(features, axis=1, keepdims=True)
similarities = unit(image_features) @ unit(text_features).T
def softmax(temperature):
    weights = np.exp((similarities - similarities.max(1, keepdims=True)) / temperature)
    return weights / weights.sum(1, keepdims=True)
slider = ipywidgets.FloatLogSlider(value=0.07, min=-2, max=0.3, step=0.001, layout={{"width": "600px"}})
image = dict(cmap="Blues", vmin=0, vmax=1)
title = "temperature {{:.3g}}".format
"""
DRAWN_ONCE = """artist = axes.imshow(softmax(slider.value), **image)
figure.colorbar(artist)
def update(temperature):
    artist.set_data(softmax(temperature))
    axes.set_title(title(temperature))
update(slider.value)
"""


@dataclass(frozen=True)
class Plan:
    """What is measured: which rivals, at which sizes, in how many rounds of how many moves, dragged for how long."""

    rivals: Sequence[str]
    sizes: Sequence[int]
    rounds: int
    moves: int
    seconds: float


@dataclass(frozen=True)
class Rival:
    """One way of doing it: a cell that shows it (none: a page of its own), and where the page has its parts."""

    cell: str
    picture: str
    slider: str = ".noUi-base"


RIVALS = {
    "interact": Rival(
        f"""{SOFTMAX}
%matplotlib inline
@ipywidgets.interact(temperature=slider)
def show(temperature):
    plt.figure(figsize=(5, 5))
    plt.imshow(softmax(temperature), **image)
    plt.colorbar()
    plt.title(title(temperature))
    plt.show()
""",
        ".jp-OutputArea img",
    ),
    "Output": Rival(
        f"""{SOFTMAX}
%matplotlib inline
figure, axes = plt.subplots(figsize=(5, 5))
{DRAWN_ONCE}
plt.close(figure)
output = ipywidgets.Output()
def redraw(change=None):
    update(slider.value)
    with output:
        clear_output(wait=True)
        display(figure)
slider.observe(redraw, "value")
redraw()
ipywidgets.VBox([slider, output])
""",
        ".jp-OutputArea img",
    ),
    "ipympl": Rival(
        f"""{SOFTMAX}
%matplotlib widget
with plt.ioff():
    figure, axes = plt.subplots(figsize=(5, 5))
{DRAWN_ONCE}
def redraw(change):
    update(slider.value)
    figure.canvas.draw_idle()
slider.observe(redraw, "value")
ipywidgets.VBox([slider, figure.canvas])
""",
        ".jupyter-matplotlib canvas",
    ),
    "PNG into Image": Rival(
        f"""{SOFTMAX}
from matplotlib.figure import Figure
from helpers.widgets.figures import live_figure
figure = Figure(figsize=(5, 5))
axes = figure.subplots()
{DRAWN_ONCE}
live_figure(figure, update, temperature=slider)
""",
        "img.widget-image",
    ),
    "explorer in JupyterLab": Rival(
        f"""{BATCH}
from helpers.widgets.explorer import TemperatureExplorer
TemperatureExplorer(image_features, text_features)
""",
        "canvas[data-matrix=softmax]",
        ".temperature-explorer input[aria-label^=Temperature]",
    ),
    "explorer as a page": Rival(
        "", "canvas[data-matrix=softmax]", ".temperature-explorer input[aria-label^=Temperature]"
    ),
}
EXPLORERS = tuple(name for name in RIVALS if name.startswith("explorer"))

# `watch` follows the picture that a selector names, frame by frame, from `begin` until it has been at `rest`.
WATCH = """() => {
    if (window.watch) return;
    const pixels = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
    pixels.imageSmoothingEnabled = false;
    function fingerprint(selector) {
        const picture = [...document.querySelectorAll(selector)].find((node) => node.clientWidth > 0);
        if (!picture || picture.complete === false) return undefined;
        pixels.clearRect(0, 0, 64, 64);
        pixels.drawImage(picture, 0, 0, 64, 64);
        let hash = 0;
        for (const pixel of new Uint32Array(pixels.getImageData(0, 0, 64, 64).data.buffer)) {
            hash = (Math.imul(hash, 31) + pixel) | 0;
        }
        return hash;
    }
    const watch = { running: false };
    const channel = new MessageChannel();
    const nextFrame = () => requestAnimationFrame(() => channel.port2.postMessage(null));
    channel.port1.onmessage = () => {
        if (!watch.running) return;
        const now = performance.now(); // a message sent by an animation frame arrives when that frame has been painted
        const shown = fingerprint(watch.selector) ?? watch.shown;
        if (watch.firstMove) {
            watch.frames++;
            watch.rested++;
            if (shown !== watch.shown) {
                watch.pictures++;
                watch.rested = 0;
                watch.firstPicture ??= now;
                watch.lastPicture = now;
            }
        }
        watch.shown = shown;
        nextFrame();
    };
    addEventListener("pointermove", (event) => {
        watch.moves++;
        watch.firstMove ??= event.timeStamp;
        watch.lastMove = event.timeStamp;
    }, { capture: true, passive: true });
    window.watch = Object.assign(watch, {
        begin(selector) {
            Object.assign(watch, { frames: 0, pictures: 0, moves: 0, rested: 0, firstMove: null, firstPicture: null });
            Object.assign(watch, { selector, shown: fingerprint(selector), running: true });
            nextFrame();
        },
        counts() {
            const { frames, pictures, moves, firstMove } = watch;
            return { frames, pictures, moves, seconds: (performance.now() - firstMove) / 1000 };
        },
        async rest(frames) {
            const end = performance.now() + 10000;
            const resting = () => watch.firstPicture && watch.rested >= frames;
            while (!resting() && performance.now() < end) await new Promise(requestAnimationFrame);
            watch.running = false;
            const { firstMove, firstPicture, lastMove, lastPicture } = watch;
            return resting() ? { first: firstPicture - firstMove, last: lastPicture - lastMove } : null;
        },
    });
}"""


class Stage:
    """One rival on a page of its own, and the hand at its slider."""

    def __init__(self, name: str, page: Page, notebook: NotebookPage | None) -> None:
        self.name, self.rival, self.page, self.notebook = name, RIVALS[name], page, notebook
        # The protocol itself: Playwright's own mouse asks the page about dragged things with every move.
        self.browser = page.context.new_cdp_session(page)

    def show(self, pairs: int, folder: Path) -> None:
        """Show the rival with a batch of so many pairs, and take its slider in the hand, once it stands still."""
        if self.notebook is None:
            features: dict[str, object] = {"PAIRS": pairs}
            exec(BATCH, features)  # the same lines as in a cell
            explorer = TemperatureExplorer(features["image_features"], features["text_features"])
            self.page.goto(explorer.to_html(folder / f"explorer_{pairs}.html").as_uri())
        else:
            self.notebook.ask("None", before=f"PAIRS = {pairs}")
            self.notebook.run(0)
        self.page.locator(self.rival.picture).first.wait_for()
        self.page.evaluate(WATCH)
        track = self.page.locator(self.rival.slider).first
        track.scroll_into_view_if_needed()
        self.track = track.bounding_box()
        self.take_slider()

    def take_slider(self) -> None:
        """A press beside a slider's handle only makes it jump there; the next one, on the handle, holds it."""
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.hand(0.4, event)
        self.page.wait_for_timeout(400)
        self.hand(0.4, "mousePressed")

    def hand(self, share: float, event: str = "mouseMoved") -> None:
        """What the mouse does at a share of the slider's length; it is over when the browser has taken it."""
        track = self.track
        place = {"x": track["x"] + share * track["width"], "y": track["y"] + track["height"] / 2}
        buttons = {"button": "left", "buttons": int(event != "mouseReleased"), "clickCount": 1}
        self.browser.send("Input.dispatchMouseEvent", {"type": event, **place, **buttons})

    def let_go(self) -> None:
        self.hand(0.4, "mouseReleased")

    def begin(self) -> None:
        """Watch the picture."""
        self.page.evaluate("(selector) => watch.begin(selector)", self.rival.picture)

    def rest(self, frames: int) -> dict[str, float]:
        """Wait until the picture has not changed for so many frames, and no longer watch it.

        Returns:
            Milliseconds from the first move to the first new picture, and from the last to the last.

        Raises:
            RuntimeError: when no picture followed for ten seconds.
        """
        measured = self.page.evaluate("(frames) => watch.rest(frames)", frames)
        if measured is None:
            raise RuntimeError(f"{self.name}: the mouse moved the slider, and the picture did not follow")
        return measured

    def latencies(self, moves: int, chance: random.Random) -> list[float]:
        """Milliseconds from each of so many moves to another picture."""
        self.page.bring_to_front()
        measured = []
        for turn in range(moves):
            time.sleep(chance.uniform(0, 1 / FRAMES_PER_SECOND))
            self.begin()
            self.hand(chance.uniform(0.2, 0.35) if turn % 2 else chance.uniform(0.4, 0.55))
            measured.append(self.rest(3)["first"])
        return measured

    def drag(self, seconds: float) -> dict[str, float]:
        """What came while the slider was dragged: frames, pictures, moves, seconds; and ``lag``, in ms, at its end."""
        self.begin()
        self.hand(0.2)
        self.rest(12)
        self.begin()
        began = time.perf_counter()
        while (passed := (time.perf_counter() - began) / seconds) < 1:
            self.hand(0.2 + 0.3 * passed)
        counts = self.page.evaluate("() => watch.counts()")
        self.hand(0.55)
        return {**counts, "lag": self.rest(30)["last"]}

    def idle(self, seconds: float) -> float:
        """Percent of the time in which the page's main thread was at work while nobody touched it."""
        self.browser.send("Performance.enable")

        def busy() -> float:
            metrics = {
                metric["name"]: metric["value"] for metric in self.browser.send("Performance.getMetrics")["metrics"]
            }
            return metrics["TaskDuration"]

        before = busy()
        time.sleep(seconds)
        share = (busy() - before) / seconds
        self.browser.send("Performance.disable")
        return 100 * share


def build(name: str, browser: Browser, jupyter: Jupyter) -> Stage:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    cell = RIVALS[name].cell
    notebook = NotebookPage(page, jupyter, f"{name.replace(' ', '_')}.ipynb", [cell]) if cell else None
    return Stage(name, page, notebook)


def measure_size(stages: Sequence[Stage], pairs: int, plan: Plan, folder: Path) -> dict:
    """What the report holds for one size of the matrix."""
    chance = random.Random(0)
    latencies: dict[str, list[float]] = {stage.name: [] for stage in stages}
    drags: dict[str, list[dict[str, float]]] = {stage.name: [] for stage in stages}
    for stage in stages:
        stage.show(pairs, folder)
        stage.latencies(2, chance)  # not counted: the first ones warm everything up
    for turn in range(plan.rounds):
        for stage in stages[:: -1 if turn % 2 else 1]:
            latencies[stage.name] += stage.latencies(plan.moves, chance)
            drags[stage.name].append(stage.drag(plan.seconds / plan.rounds))
    rivals = {}
    for stage in stages:
        stage.let_go()
        median, late = np.percentile(latencies[stage.name], [50, 95])
        lags = [drag.pop("lag") for drag in drags[stage.name]]
        dragged = {name: sum(drag[name] for drag in drags[stage.name]) for name in drags[stage.name][0]}
        rivals[stage.name] = {
            "median_ms": round(float(median), 1),
            "p95_ms": round(float(late), 1),
            "lag_ms": round(float(np.median(lags)), 1),
            "frames_with_new_picture_percent": round(100 * dragged["pictures"] / dragged["frames"], 1),
            "new_pictures_per_second": round(dragged["pictures"] / dragged["seconds"], 1),
            "frames_per_second": round(dragged["frames"] / dragged["seconds"], 1),
            "moves_per_second": round(dragged["moves"] / dragged["seconds"], 1),
            "lags_ms": [round(lag, 1) for lag in lags],
            "latencies_ms": [round(latency, 1) for latency in latencies[stage.name]],
        }
        if stage.name in EXPLORERS:
            rivals[stage.name]["idle_percent"] = round(stage.idle(plan.seconds), 2)
    return {"pairs": pairs, "rivals": rivals}


def measure(plan: Plan) -> dict:
    """Everything that the report holds."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(TemporaryDirectory()))
        try:
            browser = open_things.enter_context(chromium())
        except FileNotFoundError as error:
            raise InputError(str(error)) from None
        jupyter = open_things.enter_context(serve("jupyterlab", folder))
        stages = [build(name, browser, jupyter) for name in plan.rivals]
        results = [measure_size(stages, pairs, plan, folder) for pairs in plan.sizes]
        version = browser.version
        for stage in stages:
            stage.page.close()
    return {
        "cores": os.cpu_count(),
        "chromium": version,
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "moves": plan.moves * plan.rounds,
        "seconds": plan.seconds,
        "results": results,
    }


def table(report: dict) -> str:
    """The report in Markdown. A ratio is that of the 95th percentiles, to that of the first explorer."""
    versions = ", ".join(f"{package} {report[package]}" for package in PACKAGES)
    lines = [
        f"From a move of the mouse on the slider to a changed picture: median and 95th percentile of {report['moves']} "
        "moves in which all took turns, in ms; how many times as long the 95th percentile is as that of the first "
        f"explorer. While dragged, {report['seconds']:g} s in all: the share of the display's frames that carry a new "
        "picture, and by how much the picture is behind when the hand stops, in ms. Idle: how busy the page is when "
        f"nobody touches it. {report['cores']} cores, Chromium {report['chromium']} headless, {versions}.",
        "",
        "| pairs | | median | 95 % | ratio | new pictures | behind | idle |",
        "|---:|:---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        own = next((row["rivals"][name] for name in EXPLORERS if name in row["rivals"]), None)
        for name, measured in row["rivals"].items():
            ratio = f"{measured['p95_ms'] / own['p95_ms']:.1f}" if own else ""
            idle = f"{measured['idle_percent']:.1f} %" if "idle_percent" in measured else ""
            lines.append(
                f"| {row['pairs']} | {name} | {measured['median_ms']:.0f} | {measured['p95_ms']:.0f} | {ratio} "
                f"| {measured['frames_with_new_picture_percent']:.0f} % | {measured['lag_ms']:.0f} | {idle} |"
            )
    return "\n".join(lines) + "\n"


def run(plan: Plan, out: Path) -> None:
    """Measure, print and write.

    Raises:
        InputError: where no Chromium is.
    """
    report = measure(plan)
    out.mkdir(parents=True, exist_ok=True)
    (out / "explorer.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "explorer.md").write_text(table(report), encoding="utf-8")
    print(table(report))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(
        prog="python tests/benchmarks/explorer.py", description="Measure how soon a picture follows the hand."
    )
    parser.add_argument("--out", type=Path, default=DATA / "results", help="where to write (default data/results)")
    parser.add_argument("--pairs", type=int, action="append", metavar="N", help="default 16, 64 and 256")
    parser.add_argument("--rival", action="append", choices=RIVALS, help="default all")
    parser.add_argument("--moves", type=int, default=10, metavar="N", help="of each rival in a round (default 10)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="dragged, and idle (default 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rivals, sizes = options.rival or list(RIVALS), options.pairs or [16, 64, 256]
    plan = Plan(rivals, sizes, options.rounds, options.moves, options.seconds)
    return parser.run(lambda: run(plan, options.out))


if __name__ == "__main__":
    sys.exit(main())
