"""The explorer in JupyterLab and in Notebook 7: what the hand does reaches the kernel, and the other way round."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import watched_page
from explorer_view import ExplorerView
from notebook_page import PATIENCE, NotebookPage
from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

PAIRS = 16
EXPLORER = """import torch
from helpers.widgets import TemperatureExplorer
moments = torch.load("moments.pt")
pictures = (16 * torch.arange(16)).byte()[:, None, None, None].expand(16, 3, 64, 64)
captions = [f"a square of shade {i}" for i in range(16)]
training = {"untrained": moments[0], "half-way": moments[1]}
explorer = TemperatureExplorer(*moments[2], pictures, captions, snapshots=training)
explorer"""
START = {
    "temperature": 0.07,
    "direction": "both",
    "normalize": True,
    "scale": "temperature",
    "selected": None,
    "moment": 2,
}
CHANGED = {
    "temperature": 0.123456,
    "direction": "text to image",
    "normalize": False,
    "scale": "logit scale",
    "selected": 3,
    "moment": 0,
}
# For each setting: the value that the hand gives it, what has the focus, the keys, and what the pointer does.
TO_CELL_2_1 = ("ArrowUp",) * PAIRS + ("ArrowLeft",) * PAIRS + ("ArrowDown", "ArrowRight", "ArrowDown", "Enter")
Finder = Callable[[ExplorerView], Locator]
CONTROLS: dict[str, tuple[object, Finder, tuple[str, ...], Callable[[ExplorerView], None]]] = {
    "moment": (
        0,
        lambda view: view.slider_named("Training"),
        ("ArrowLeft", "ArrowDown"),
        lambda view: view.drag(0.9, 0.01, view.slider_named("Training")),
    ),
    "direction": (
        "text to image",
        lambda view: view.radio("both"),
        ("ArrowDown", "ArrowRight"),
        lambda view: view.radio("text to image").click(),
    ),
    "selected": (2, ExplorerView.face, TO_CELL_2_1, lambda view: view.page.mouse.click(*view.cell(2, 1, PAIRS))),
}
for name, label in (("normalize", "L2-normalise"), ("scale", "As logit scale")):
    CONTROLS[name] = (
        CHANGED[name],
        lambda view, label=label: view.check_box(label),
        ("Space",),
        lambda view, label=label: view.check_box(label).click(),
    )


def training_moments() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features at three moments: the texts are the images with less and less noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PAIRS, 128, generator=generator)
    return [(images, images + noise * torch.randn(PAIRS, 128, generator=generator)) for noise in (8, 4, 2)]


def numbers_when_equal(view: ExplorerView, notebook: NotebookPage) -> dict[str, float]:
    """The numbers shown, once the page and the kernel agree."""
    end = time.monotonic() + PATIENCE
    while True:
        expected = pytest.approx(notebook.ask("explorer.numbers()"), rel=1e-9, abs=1e-12)
        shown = view.numbers()
        if shown == expected or time.monotonic() > end:
            assert shown == expected
            return shown


@pytest.fixture(scope="module", params=["jupyter", pytest.param("notebook7", marks=pytest.mark.long)])
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[NotebookPage]:
    server = request.getfixturevalue(request.param)
    torch.save(training_moments(), server.root / "moments.pt")
    # Notebook 7.6 reports this of its own shortcuts whenever it opens.
    known = ("Cannot read properties of undefined (reading 'schema')",) if request.param == "notebook7" else ()
    with watched_page(browser, known) as page:
        notebook = NotebookPage(page, server, "explorer.ipynb", [EXPLORER, "explorer.temperature"])
        notebook.run(0)
        yield notebook


@pytest.fixture
def notebook(opened: NotebookPage) -> NotebookPage:
    """The notebook with the explorer as its cell left it."""
    restart(opened)
    opened.page.mouse.move(0, 0)
    return opened


def restart(notebook: NotebookPage) -> None:
    notebook.ask("None", before=f"for name, value in {START!r}.items(): setattr(explorer, name, value)")
    numbers_when_equal(ExplorerView(notebook.page), notebook)


def test_the_hand_moves_the_picture_and_the_kernel_agrees(notebook: NotebookPage) -> None:
    view = ExplorerView(notebook.page)
    before = {name: view.pixels(name) for name in ("similarity", "softmax")}
    view.drag(0.37, 0.6)
    assert view.pixels("softmax") != before["softmax"]
    assert view.pixels("similarity") == before["similarity"]

    moves = view.sweep(torch.rand(60, generator=torch.Generator().manual_seed(0)).mul(100).tolist())
    for key in ["Home"] + ["ArrowRight"] * 5 + ["PageUp"] * 3 + ["ArrowDown"] * 5:
        view.slider.press(key)
        moves.append(view.numbers())
    assert len({shown["temperature"] for shown in moves[-14:]}) == 14  # the application left the keys to the slider
    numbers_when_equal(view, notebook)
    assert float(notebook.run(1)) == moves[-1]["temperature"]


def test_a_setting_made_in_the_kernel_moves_the_picture(notebook: NotebookPage) -> None:
    view = ExplorerView(notebook.page)
    for name, value in CHANGED.items():
        before, pixels = view.numbers(), view.pixels()
        notebook.ask("None", before=f"explorer.{name} = {value!r}")
        shown = numbers_when_equal(view, notebook)
        assert (shown == before) == (name in ("scale", "selected")), name
        assert (view.pixels() == pixels) == (name in ("scale", "selected")), name
        if name == "temperature":
            assert shown[name] == notebook.ask("explorer.temperature") == value  # showing it did not round it
        if name == "selected":
            similarities = "explorer.similarities_by_direction()[0]"
            of_row = f"gradient_shares({similarities}, explorer.temperature)[explorer.selected].tolist()"
            shares, bars = notebook.ask(of_row, before="from helpers.diagnostics import gradient_shares"), view.bars()
            assert bars == pytest.approx({k: shares[k] for k in bars}, rel=1e-9)
        restart(notebook)


@pytest.mark.parametrize("hand", ["pointer", "keyboard"])
def test_every_control_reaches_the_kernel(notebook: NotebookPage, hand: str) -> None:
    view = ExplorerView(notebook.page)
    for name, (expected, find, keys, act) in CONTROLS.items():
        if hand == "pointer":
            act(view)
        else:
            find(view).focus()
            cell = notebook.active_cell()
            for key in keys:
                notebook.page.keyboard.press(key)
            # The application went to no other cell and did not take the focus.
            assert notebook.active_cell() == cell
            assert view.root.evaluate("(root) => root.contains(document.activeElement)")
        notebook.ask_until(f"explorer.{name}", expected)
        numbers_when_equal(view, notebook)
        restart(notebook)


def test_axe_finds_no_serious_fault(notebook: NotebookPage) -> None:
    view = ExplorerView(notebook.page)
    view.page.mouse.click(*view.cell(3, 1, PAIRS))
    assert view.bars()
    assert view.faults() == []
    for theme, light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        notebook.page.evaluate(
            "(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme }).then(() => null)", theme
        )
        notebook.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")
        assert view.faults() == []


def test_running_the_cell_again_leaves_one_explorer(notebook: NotebookPage) -> None:
    comms = "len(__import__('comm').get_comm_manager().comms)"
    before = notebook.ask(comms)
    for _ in range(3):
        notebook.run(0)
    assert notebook.ask(comms) == before
    assert notebook.page.locator(".temperature-explorer").count() == 1
    assert ExplorerView(notebook.page).numbers()["temperature"] == 0.07
