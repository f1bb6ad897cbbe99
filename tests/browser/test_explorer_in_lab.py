"""The temperature explorer in JupyterLab: one cell makes it, and cell and hand move the same temperature."""

import json
import re

import pytest
import torch
from explorer_view import ExplorerView
from playwright.sync_api import Page, expect

from helpers.losses import contrastive_loss

pytestmark = pytest.mark.browser

CELLS = [
    """import torch
from helpers.explorer import TemperatureExplorer
image_features, text_features = torch.load("pairs.pt")
pictures = torch.linspace(0, 1, 16)[:, None, None, None].expand(16, 3, 64, 64)
explorer = TemperatureExplorer(image_features, text_features, pictures, [f"a square of shade {i}" for i in range(16)])
explorer""",
    "explorer.temperature",
    "explorer.temperature = 0.123456",
]


@pytest.fixture
def features(jupyter) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 128, generator=generator)
    texts = images + 2 * torch.randn(16, 128, generator=generator)
    torch.save((images, texts), jupyter.root / "pairs.pt")
    return images, texts


@pytest.fixture
def notebook(jupyter, features, page: Page) -> Page:
    """A page with the notebook open and its kernel ready, no cell run yet."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(CELLS)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    document = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (jupyter.root / "explorer.ipynb").write_text(json.dumps(document))
    page.goto(jupyter.url("explorer.ipynb"))
    page.locator(".jp-CodeCell").nth(2).wait_for(timeout=60_000)
    return page


def run_cell(page: Page, index: int) -> str:
    """Run one cell to its end; returns the text it put out."""
    cell = page.locator(".jp-CodeCell").nth(index)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").click()
    # Until the kernel has answered, JupyterLab drops a run without a word, so the keys are pressed until one is taken.
    for _ in range(30):
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(500)
        if prompt.inner_text() != before:
            break
    expect(prompt).to_have_text(re.compile(r"\d"), timeout=120_000)
    return " ".join(cell.locator(".jp-OutputArea-output").all_inner_texts())


def reference(images: torch.Tensor, texts: torch.Tensor, temperature: float) -> dict[str, float]:
    """The numbers once more, from the formulas alone."""
    logits = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T / temperature
    own = torch.arange(len(logits))
    probabilities = logits.softmax(1)
    right = [(logits.argmax(dim) == own).float().mean() for dim in (0, 1)]
    return {
        "temperature": temperature,
        "loss": float(contrastive_loss(images, texts, temperature)),
        "accuracy": float(sum(right) / 2),
        "effective_negatives": float(torch.special.entr(probabilities).sum(1).exp().mean()),
    }


def test_the_hand_moves_the_picture_and_the_kernel_agrees(notebook: Page, features) -> None:
    run_cell(notebook, 0)
    view = ExplorerView(notebook)
    assert view.numbers() == pytest.approx(reference(*features, 0.07), abs=1e-5)

    before = {name: view.pixels(name) for name in ("similarity", "softmax")}
    view.drag(0.37, 0.6)
    assert view.pixels("softmax") != before["softmax"]
    assert view.pixels("similarity") == before["similarity"]

    moves = view.sweep(torch.rand(180, generator=torch.Generator().manual_seed(0)).mul(100).tolist())
    for key in ["Home"] + ["ArrowRight"] * 8 + ["PageUp"] * 3 + ["ArrowDown"] * 8:
        view.slider.press(key)
        moves.append(view.numbers())
    assert len({shown["temperature"] for shown in moves[-20:]}) == 20  # JupyterLab left the keys to the slider
    for shown in moves:
        assert shown == pytest.approx(reference(*features, shown["temperature"]), abs=1e-5, rel=1e-5)
    assert float(run_cell(notebook, 1)) == moves[-1]["temperature"]


def test_a_cell_moves_the_picture(notebook: Page, features) -> None:
    run_cell(notebook, 0)
    view = ExplorerView(notebook)
    before = view.pixels("softmax")
    run_cell(notebook, 2)
    notebook.wait_for_function("document.querySelector('[data-quantity=temperature]').dataset.value === '0.123456'")
    assert view.pixels("softmax") != before
    assert view.numbers() == pytest.approx(reference(*features, 0.123456), abs=1e-5)
    assert view.slider.get_attribute("aria-valuetext") == "0.1235"
    view.settle()
    assert float(run_cell(notebook, 1)) == 0.123456  # showing it did not round it


def test_running_the_cell_again_leaves_one_explorer(notebook: Page, features) -> None:
    for _ in range(3):
        run_cell(notebook, 0)
        notebook.wait_for_timeout(300)
    assert notebook.locator(".temperature-explorer").count() == 1
    assert ExplorerView(notebook).numbers()["temperature"] == 0.07
