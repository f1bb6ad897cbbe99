"""What the explorer does in a notebook, whichever application has it open: JupyterLab or Notebook 7."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from conftest import watched_page
from explorer_view import ExplorerView
from notebook_page import NotebookPage
from playwright.sync_api import Browser, Locator
from servers import Jupyter

from helpers.losses import contrastive_loss

PAIRS = 16
EXPLORER = """import torch
from helpers.widgets.explorer import TemperatureExplorer
moments = torch.load("moments.pt")
pictures = torch.linspace(0, 1, 16)[:, None, None, None].expand(16, 3, 64, 64)
captions = [f"a square of shade {i}" for i in range(16)]
training = {"untrained": moments[0], "half-way": moments[1]}
twice = [i // 2 for i in range(16)]
explorer = TemperatureExplorer(*moments[2], pictures, captions, snapshots=training, image_ids=twice)
explorer"""
ANSWER = "explorer.temperature"
SETTINGS = {
    "temperature": 0.123456,
    "direction": "text to image",
    "normalize": False,
    "mask": True,
    "scale": "logit scale",
    "selected": 3,
    "moment": 0,
}
BEGAN = {
    "temperature": 0.07,
    "direction": "both",
    "normalize": True,
    "mask": False,
    "scale": "temperature",
    "selected": None,
    "moment": 2,
}


@dataclass(frozen=True)
class Control:
    """How the pointer sets it, where the focus goes and which keys then do the same, and what the kernel has then."""

    trait: str
    expected: object
    by_pointer: Callable[[ExplorerView], None]
    focus: Callable[[ExplorerView], Locator]
    keys: tuple[str, ...]


def check_box(name: str, trait: str, expected: object) -> Control:
    return Control(
        trait, expected, lambda view: view.check_box(name).click(), lambda view: view.check_box(name), ("Space",)
    )


CONTROLS = {
    "training": Control(
        "moment",
        0,
        lambda view: view.drag(0.9, 0.01, view.slider_named("Training")),
        lambda view: view.slider_named("Training"),
        ("ArrowLeft", "ArrowDown"),
    ),
    "direction": Control(
        "direction",
        "text to image",
        lambda view: view.radio("text to image").click(),
        lambda view: view.radio("both"),
        ("ArrowDown", "ArrowRight"),
    ),
    "normalising": check_box("L2-normalise", "normalize", False),
    "masking": check_box("Mask the same image", "mask", True),
    "scale": check_box("As logit scale", "scale", "logit scale"),
    "line": Control(
        "selected",
        2,
        lambda view: view.page.mouse.click(*view.cell(2, 1, PAIRS)),
        ExplorerView.face,
        ("ArrowUp",) * PAIRS + ("ArrowLeft",) * PAIRS + ("ArrowDown", "ArrowRight", "ArrowDown", "Enter"),
    ),
}


def training_moments() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features at three moments: the texts are the images and less and less noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PAIRS, 128, generator=generator)
    return [(images, images + noise * torch.randn(PAIRS, 128, generator=generator)) for noise in (8, 4, 2)]


def reference(moment: tuple[torch.Tensor, torch.Tensor], temperature: float) -> dict[str, float]:
    """The numbers once more, from the formulas alone."""
    images, texts = moment
    logits = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T / temperature
    own = torch.arange(len(logits))
    probabilities = logits.softmax(1)
    right = [(logits.argmax(dim) == own).float().mean() for dim in (0, 1)]
    return {
        "temperature": temperature,
        "loss": float(contrastive_loss(images, texts, temperature)),
        "accuracy": float(sum(right) / 2),
        "effective_negatives": float(torch.special.entr(probabilities).sum(1).exp().mean()),
        "entropy": float(torch.special.entr(probabilities).sum(1).mean()),
    }


class ExplorerInANotebook:
    """Tests that share one notebook, opened once, whose first cell has been run."""

    faults_of_the_application: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, browser: Browser, server: Jupyter) -> Iterator[NotebookPage]:
        torch.save(training_moments(), server.root / "moments.pt")
        settings = [f"explorer.{name} = {value!r}" for name, value in SETTINGS.items()]
        with watched_page(browser, cls.faults_of_the_application) as page:
            notebook = NotebookPage(page, server, "explorer.ipynb", [EXPLORER, ANSWER, *settings])
            notebook.run(0)
            yield notebook

    @pytest.fixture
    def notebook(self, opened: NotebookPage) -> NotebookPage:
        """The notebook with the explorer as its cell left it."""
        opened.ask("None", before=f"for name, value in {BEGAN!r}.items(): setattr(explorer, name, value)")
        opened.page.mouse.move(0, 0)
        agreed(ExplorerView(opened.page), opened)
        return opened

    def test_the_hand_moves_the_picture_and_the_kernel_agrees(self, notebook: NotebookPage) -> None:
        view = ExplorerView(notebook.page)
        expected = reference(training_moments()[2], 0.07)
        assert {name: view.numbers()[name] for name in expected} == pytest.approx(expected, abs=1e-5)

        before = {name: view.pixels(name) for name in ("similarity", "softmax")}
        view.drag(0.37, 0.6)
        assert view.pixels("softmax") != before["softmax"]
        assert view.pixels("similarity") == before["similarity"]

        moves = view.sweep(torch.rand(60, generator=torch.Generator().manual_seed(0)).mul(100).tolist())
        for key in ["Home"] + ["ArrowRight"] * 5 + ["PageUp"] * 3 + ["ArrowDown"] * 5:
            view.slider.press(key)
            moves.append(view.numbers())
        assert len({shown["temperature"] for shown in moves[-14:]}) == 14  # the keys were left to the slider
        for shown in moves:
            expected = reference(training_moments()[2], shown["temperature"])
            assert {name: shown[name] for name in expected} == pytest.approx(expected, abs=1e-5, rel=1e-5)
        agreed(view, notebook)
        assert float(notebook.run(1)) == moves[-1]["temperature"]

    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_cell_moves_the_picture(self, notebook: NotebookPage, name: str) -> None:
        view = ExplorerView(notebook.page)
        before, pixels = view.numbers(), view.pixels()
        notebook.run(2 + list(SETTINGS).index(name))
        shown = agreed(view, notebook)
        assert (view.pixels() == pixels) == (shown == before) == (name in ("scale", "selected"))
        if name == "temperature":
            assert shown["temperature"] == SETTINGS[name]
            assert view.slider.get_attribute("aria-valuetext") == "0.1235"
            view.settle()
            assert float(notebook.run(1)) == SETTINGS[name]  # showing it did not round it
        elif name == "scale":
            assert float(view.slider.get_attribute("aria-valuetext")) == pytest.approx(1 / 0.07, rel=1e-3)
        elif name == "selected":
            shares = notebook.ask("explorer.shares().tolist()")
            bars = view.bars()
            assert bars == pytest.approx({k: shares[k] for k in bars}, rel=1e-9)
            assert len(bars) == 8

    @pytest.mark.parametrize("hand", ["pointer", "keyboard"])
    @pytest.mark.parametrize("control", CONTROLS)
    def test_every_control_reaches_the_kernel(self, notebook: NotebookPage, control: str, hand: str) -> None:
        view = ExplorerView(notebook.page)
        chosen = CONTROLS[control]
        if hand == "pointer":
            chosen.by_pointer(view)
        else:
            chosen.focus(view).focus()
            cell = notebook.active_cell()
            for key in chosen.keys:
                notebook.page.keyboard.press(key)
            # The keys were left to the explorer: the application went to no other cell and took no focus.
            assert notebook.active_cell() == cell
            assert view.root.evaluate("(root) => root.contains(document.activeElement)")
        assert notebook.ask_until(f"explorer.{chosen.trait}", chosen.expected) == chosen.expected
        agreed(view, notebook)

    def test_escape_lets_go_and_leaves_the_focus(self, notebook: NotebookPage) -> None:
        view = ExplorerView(notebook.page)
        for key in ("Enter", "Escape"):
            view.face().press(key)
            line = 0 if key == "Enter" else None
            assert (notebook.ask_until("explorer.selected is None", line is None)) == (line is None)
            assert view.pushes.is_visible() == (line is not None)
        assert view.face().evaluate("(face) => face === document.activeElement")

    def test_it_shuts_nobody_out(self, notebook: NotebookPage) -> None:
        view = ExplorerView(notebook.page)
        view.page.mouse.click(*view.cell(3, 1, PAIRS))
        assert view.bars()
        assert view.faults() == []


def agreed(view: ExplorerView, notebook: NotebookPage) -> dict[str, float]:
    """The numbers shown, which equal the kernel's: at the latest when what is under way has arrived."""
    for _ in range(100):
        expected = pytest.approx(notebook.ask("explorer.numbers()"), rel=1e-9, abs=1e-12)
        shown = view.numbers()
        if shown == expected:
            break
    assert shown == expected
    return shown
