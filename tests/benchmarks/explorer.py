"""Measure how soon the picture of the temperature explorer follows its slider, in JupyterLab and Chromium.

``python tests/benchmarks/explorer.py [PAIRS ...]`` writes a table and all numbers to ``data/results``. The latency runs
from the ``timeStamp`` of a real pointer event to the first painted frame in which one of 64 x 64 pixels of the picture
differs.
"""

import os
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "widgets"))
from notebook_page import NotebookPage
from playwright.sync_api import Page
from report import write_report
from servers import chromium, serve

from helpers.files import DATA

MOVES, DRAGS = 30, 120
EXPLORER = """
import torch
from helpers.widgets import TemperatureExplorer
images, noise = torch.randn(2, PAIRS, 64, generator=torch.Generator().manual_seed(0))
TemperatureExplorer(images, images + 2 * noise)
"""
PICTURE, SLIDER = "canvas[data-matrix=softmax]", ".temperature-explorer input[aria-label^=Temperature]"
WATCH = """(selector) => {
    const pixels = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
    pixels.imageSmoothingEnabled = false;
    const hash = () => {
        const picture = [...document.querySelectorAll(selector)].find((node) => node.clientWidth > 0);
        if (!picture || picture.complete === false) return watch.shown;
        pixels.clearRect(0, 0, 64, 64);
        pixels.drawImage(picture, 0, 0, 64, 64);
        return new Uint32Array(pixels.getImageData(0, 0, 64, 64).data.buffer).reduce((h, p) => (h * 31 + p) | 0, 0);
    };
    const watch = (window.watch = {});
    watch.restart = () => Object.assign(watch, { frames: 0, pictures: 0, rested: 0, moved: 0, latency: null });
    addEventListener("pointermove", (event) => { watch.moved ||= event.timeStamp; }, { capture: true });
    const channel = new MessageChannel(); // its messages arrive after the frame has been painted
    const next = () => requestAnimationFrame(() => channel.port2.postMessage(null));
    channel.port1.onmessage = () => {
        if (window.watch !== watch) return;
        const shown = hash();
        if (watch.moved) {
            watch.frames++;
            watch.rested++;
            if (shown !== watch.shown) {
                watch.pictures++;
                watch.rested = 0;
                watch.latency ??= performance.now() - watch.moved;
            }
        }
        watch.shown = shown;
        next();
    };
    next();
}"""


class Slider:
    """The mouse on a slider."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.page.locator(PICTURE).first.wait_for()
        self.page.evaluate(WATCH, PICTURE)
        track = self.page.locator(SLIDER).first
        track.scroll_into_view_if_needed()
        self.box = track.bounding_box()
        self.protocol = self.page.context.new_cdp_session(self.page)  # faster than Playwright's own mouse
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send(0.4, event)
        self.page.wait_for_timeout(400)  # the first press only moves the handle under the mouse
        self.send(0.4, "mousePressed")

    def send(self, share: float, event: str = "mouseMoved") -> None:
        place = {"x": self.box["x"] + share * self.box["width"], "y": self.box["y"] + self.box["height"] / 2}
        buttons = {"button": "left", "buttons": int(event != "mouseReleased"), "clickCount": 1}
        self.protocol.send("Input.dispatchMouseEvent", {"type": event, **place, **buttons})

    def latency(self, share: float) -> float:
        """Milliseconds from a move to the next picture."""
        self.page.evaluate("watch.restart()")
        self.send(share)
        self.page.wait_for_function("watch.latency !== null && watch.rested >= 3")
        return self.page.evaluate("watch.latency")

    def latencies(self, moves: int, rng: random.Random) -> list[float]:
        """Milliseconds of moves to and fro, each at a random moment of a frame."""
        latencies = []
        for move in range(moves):
            time.sleep(rng.uniform(0, 1 / 60))
            latencies.append(self.latency(rng.uniform(0.2, 0.35) if move % 2 else rng.uniform(0.4, 0.55)))
        return latencies

    def drag(self) -> float:
        """Percentage of frames with a new picture."""
        self.page.evaluate("watch.restart()")
        for move in range(DRAGS):
            self.send(0.2 + 0.3 * move / DRAGS)
        return self.page.evaluate("100 * watch.pictures / watch.frames")


def measure(sizes: list[int], folder: Path) -> dict:
    rng, results = random.Random(0), []
    with chromium() as browser, serve("jupyterlab", folder) as jupyter:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        notebook = NotebookPage(page, jupyter, "explorer.ipynb", [EXPLORER])
        for pairs in sizes:
            notebook.ask("None", before=f"PAIRS = {pairs}")
            notebook.run(0)
            slider = Slider(page)
            latencies = slider.latencies(MOVES, rng)
            median, late = np.percentile(latencies, [50, 95]).round(1)
            new = round(slider.drag(), 1)
            slider.send(0.4, "mouseReleased")
            results.append({"pairs": pairs, "median_ms": median, "p95_ms": late, "new_pictures_percent": new})
        return {"cores": os.cpu_count(), "chromium": browser.version, "moves": MOVES, "results": results}


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        report = measure([int(size) for size in sys.argv[1:]] or [16, 64, 256], Path(folder))
    lines = [
        f"From a move of the slider to a changed picture: {report['cores']} cores, headless Chromium.\n",
        "| pairs | median, ms | 95 %, ms | frames with a new picture |\n|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        lines.append("| {pairs} | {median_ms:.0f} | {p95_ms:.0f} | {new_pictures_percent:.0f} % |".format(**row))
    write_report(DATA / "results", "explorer", report, lines)
