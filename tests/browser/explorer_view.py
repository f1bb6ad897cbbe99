"""The temperature explorer as a test sees it: what it shows, and a hand on its slider."""

from playwright.sync_api import Locator, Page

QUANTITIES = ("temperature", "loss", "accuracy", "effective_negatives")


class ExplorerView:
    """The only explorer on a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root: Locator = page.locator(".temperature-explorer")
        self.slider: Locator = self.root.get_by_role("slider", name="Temperature", exact=True)
        self.slider.wait_for()

    def settle(self) -> None:
        """Wait until the picture has caught up: one frame to draw in, one to be sure."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def numbers(self) -> dict[str, float]:
        self.settle()
        found = {name: self.root.locator(f"[data-quantity={name}]") for name in QUANTITIES}
        return {name: float(number.get_attribute("data-value")) for name, number in found.items()}

    def pixels(self, matrix: str) -> str:
        """All pixels of the matrix "similarity" or "softmax", as one string to compare."""
        self.settle()
        return self.root.locator(f"[data-matrix={matrix}]").evaluate("(canvas) => canvas.toDataURL()")

    def drag(self, start: float, end: float) -> None:
        """Drag along the slider with the mouse, from one share of its length to another."""
        box = self.slider.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + start * box["width"], middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], middle, steps=5)
        self.page.mouse.up()

    def point(self, row: int, column: int, pairs: int) -> str:
        """Point at a cell of the softmax; returns what is said about it."""
        box = self.root.locator("[data-matrix=softmax]").bounding_box()
        cell = box["width"] / pairs
        self.page.mouse.move(box["x"] + (column + 0.5) * cell, box["y"] + (row + 0.5) * cell)
        self.settle()
        return self.root.locator(".detail").inner_text()

    def sweep(self, positions: list[float]) -> list[dict[str, float]]:
        """Set the slider to each position (0 to 100), one a frame; returns the numbers shown after each."""
        return self.root.evaluate(
            """async (root, [positions, quantities]) => {
                const slider = root.querySelector("input[type=range]");
                const value = (name) => [name, Number(root.querySelector(`[data-quantity=${name}]`).dataset.value)];
                const shown = [];
                for (const position of positions) {
                    slider.value = position;
                    slider.dispatchEvent(new Event("input", { bubbles: true }));
                    await new Promise(requestAnimationFrame);
                    shown.push(Object.fromEntries(quantities.map(value)));
                }
                return shown;
            }""",
            [positions, QUANTITIES],
        )
