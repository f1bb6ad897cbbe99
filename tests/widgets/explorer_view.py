"""Explorers to test, and a page object that reads the numbers of an explorer and moves its controls."""

import re
from pathlib import Path

import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page
from torchvision.transforms.functional import to_pil_image

from helpers.diagnostics import gradient_shares
from helpers.widgets.explorer import TemperatureExplorer


def features(pairs: int = 16, noise: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that match in part: the texts are the images plus noise, not normalised."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(pairs, 64, generator=generator)
    return images, images + noise * torch.randn(pairs, 64, generator=generator)


def explorer(pairs: int = 16, **given: object) -> TemperatureExplorer:
    """An explorer with thumbnails and captions."""
    pictures = [to_pil_image(torch.full((3, 64, 64), i / pairs)) for i in range(pairs)]
    captions = [f"a square of shade {i}" for i in range(pairs)]
    return TemperatureExplorer(*features(pairs), **{"images": pictures, "captions": captions, **given})


def full_explorer(pairs: int = 16, **given: object) -> TemperatureExplorer:
    """An explorer with every control: three moments of a training."""
    training = {"untrained": features(pairs, 8.0), "half-way": features(pairs, 4.0)}
    return explorer(pairs, snapshots=training, **given)


def gradient(widget: TemperatureExplorer) -> torch.Tensor:
    """The gradient of ``pairs * loss`` by each similarity, ``[image, text]``: a positive one pushes apart."""
    temperature, identity = widget.temperature, torch.eye(widget.pairs)
    parts = [((line / temperature).softmax(1) - identity) / temperature for line in widget.similarities_by_direction()]
    if widget.direction != "image to text":
        parts[-1] = parts[-1].T
    return sum(parts) / len(parts)


def shares(widget: TemperatureExplorer) -> torch.Tensor:
    """The share of each negative in the repulsion of the selected row (or column), ``[pairs]``."""
    return gradient_shares(widget.similarities_by_direction()[0], widget.temperature)[widget.selected]


class ExplorerView:
    """The first explorer on a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root: Locator = page.locator(".temperature-explorer").first
        self.slider = self.slider_named("Temperature")
        self.slider.wait_for()
        self.detail: Locator = self.root.locator(".detail")
        self.pushes: Locator = self.root.locator(".pushes")

    def slider_named(self, name: str) -> Locator:
        return self.root.get_by_role("slider", name=re.compile(f"^{name}"))

    def radio(self, direction: str) -> Locator:
        return self.root.get_by_role("radio", name=direction, exact=True)

    def check_box(self, name: str) -> Locator:
        return self.root.get_by_role("checkbox", name=name, exact=True)

    def face(self, matrix: str = "softmax") -> Locator:
        """The part of a matrix that has the focus."""
        return self.root.locator(".face", has=self.page.locator(f"[data-matrix={matrix}]"))

    def settle(self) -> None:
        """Wait until the picture has caught up: one frame to draw in, one to be sure."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def numbers(self) -> dict[str, float]:
        """Every number shown, in full precision."""
        self.settle()
        return self.root.evaluate(
            """(root) => Object.fromEntries(Array.from(
                root.querySelectorAll("[data-quantity]"), ({ dataset }) => [dataset.quantity, Number(dataset.value)]
            ))"""
        )

    def pixels(self, matrix: str = "softmax") -> str:
        """All pixels of the matrix "similarity" or "softmax", as one string to compare."""
        self.settle()
        return self.root.locator(f"[data-matrix={matrix}]").evaluate("(canvas) => canvas.toDataURL()")

    def drag(self, start: float, end: float, slider: Locator | None = None) -> None:
        """Drag along a slider (of the temperature) with the mouse, from one share of its length to another."""
        slider = slider or self.slider
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + start * box["width"], middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], middle, steps=5)
        self.page.mouse.up()

    def cell(self, row: int, column: int, pairs: int, matrix: str = "softmax") -> tuple[float, float]:
        """Where in the window the middle of a cell lies."""
        canvas = self.root.locator(f"[data-matrix={matrix}]")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        size = box["width"] / pairs
        return box["x"] + (column + 0.5) * size, box["y"] + (row + 0.5) * size

    def point(self, row: int, column: int, pairs: int) -> str:
        """Point at a cell of the softmax; returns the words about it."""
        self.page.mouse.move(*self.cell(row, column, pairs))
        return self.details()

    def details(self) -> str:
        """The words about the cell last pointed at."""
        self.settle()
        return self.detail.inner_text()

    def bars(self) -> dict[int, float]:
        """The share of each negative that the chart of the locked line names; nothing where no line is locked."""
        self.settle()
        if not self.pushes.is_visible():
            return {}
        bars = self.pushes.locator("[data-negative]").evaluate_all(
            "(bars) => bars.map(({ dataset }) => [Number(dataset.negative), Number(dataset.share)])"
        )
        return dict(map(tuple, bars))

    def sweep(self, positions: list[float]) -> list[dict[str, float]]:
        """Set the slider to each position (0 to 100), one a frame; returns the numbers shown after each."""
        return self.root.evaluate(
            """async (root, positions) => {
                const slider = root.querySelector("input[aria-label^=Temperature]");
                const numbers = Array.from(root.querySelectorAll("[data-quantity]"));
                const shown = [];
                for (const position of positions) {
                    slider.value = position;
                    slider.dispatchEvent(new Event("input", { bubbles: true }));
                    await new Promise(requestAnimationFrame);
                    const values = numbers.map(({ dataset }) => [dataset.quantity, Number(dataset.value)]);
                    shown.push(Object.fromEntries(values));
                }
                return shown;
            }""",
            positions,
        )

    def faults(self) -> list[str]:
        """What axe-core finds in the explorer that shuts people out, or cannot decide: serious and critical faults."""
        # axe-core takes a page for white that names no background, in the dark too.
        self.page.evaluate("() => { document.documentElement.style.background = 'Canvas'; }")
        found = Axe().run(self.page, ".temperature-explorer", {"resultTypes": ["violations", "incomplete"]}).response
        return [
            f"{fault['id']} ({fault['impact']}): {node['html']} {node['failureSummary']}"
            for fault in found["violations"] + found["incomplete"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]


def open_page(page: Page, folder: Path, widget: TemperatureExplorer) -> ExplorerView:
    """The widget as a page of its own, with the network cut."""
    page.context.set_offline(True)
    page.goto(widget.to_html(folder / "explorer.html").as_uri())
    return ExplorerView(page)
