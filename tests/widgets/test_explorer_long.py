"""The temperature explorer over a long sitting in JupyterLab: its numbers stay right, and nothing piles up."""

from collections.abc import Iterator

import pytest
import torch
from conftest import watched_page
from explorer_in_a_notebook import EXPLORER, reference, training_moments
from explorer_view import ExplorerView
from notebook_page import NotebookPage
from playwright.sync_api import Browser, CDPSession
from servers import Jupyter

pytestmark = [pytest.mark.browser, pytest.mark.long]

MOVES = 10_000
MOST_GROWN = 5e6  # bytes


@pytest.fixture
def notebook(browser: Browser, jupyter: Jupyter, request: pytest.FixtureRequest) -> Iterator[NotebookPage]:
    torch.save(training_moments(), jupyter.root / "moments.pt")
    with watched_page(browser) as page:
        yield NotebookPage(page, jupyter, f"{request.node.name}.ipynb", [EXPLORER])


def resident(notebook: NotebookPage) -> float:
    """Bytes of the kernel in memory."""
    return float(notebook.ask("psutil.Process().memory_info().rss", before="import gc, psutil; gc.collect()"))


def heap(session: CDPSession) -> float:
    """Bytes that the page's scripts hold when the garbage is gone."""
    session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize")


def test_ten_thousand_moves_leave_the_numbers_right_and_nothing_behind(notebook: NotebookPage) -> None:
    notebook.run(0)
    view = ExplorerView(notebook.page)
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    positions = torch.rand(MOVES, generator=torch.Generator().manual_seed(0)).mul(100)
    view.sweep(positions[:500].tolist())  # before it is measured, all has been in use once
    page_before, kernel_before = heap(session), resident(notebook)
    shown = []
    for part in positions.split(1000):
        shown += view.sweep(part.tolist())
    temperatures = [numbers["temperature"] for numbers in shown]
    assert notebook.ask_until("explorer.temperature", temperatures[-1]) == temperatures[-1]
    page_grown, kernel_grown = heap(session) - page_before, resident(notebook) - kernel_before
    print(f"grown by: page {page_grown / 1e6:.2f} MB, kernel {kernel_grown / 1e6:.2f} MB")
    assert page_grown < MOST_GROWN
    assert kernel_grown < MOST_GROWN

    assert len(set(temperatures)) > 500
    expected = {temperature: reference(training_moments()[2], temperature) for temperature in set(temperatures)}
    for numbers in shown:
        formulas = expected[numbers["temperature"]]
        assert {name: numbers[name] for name in formulas} == pytest.approx(formulas, abs=1e-4)
    sampled = shown[:: MOVES // 100]
    told = (
        f"[explorer.set_trait('temperature', t) or explorer.numbers() for t in {[n['temperature'] for n in sampled]}]"
    )
    for numbers, kernels in zip(sampled, notebook.ask(told), strict=True):
        assert numbers == pytest.approx(kernels, abs=1e-9)


def there(notebook: NotebookPage, session: CDPSession) -> dict[str, int]:
    """What is there, shown or not: comms in the kernel, nodes and listeners in the page."""
    notebook.page.mouse.move(0, 0)
    session.send("HeapProfiler.collectGarbage")
    comms = notebook.ask("len(__import__('comm').get_comm_manager().comms)")
    return {"comms": comms, **session.send("Memory.getDOMCounters")}


def test_fifty_runs_of_the_cell_leave_one_explorer(notebook: NotebookPage) -> None:
    session = notebook.page.context.new_cdp_session(notebook.page)
    empty = there(notebook, session)
    notebook.run(0)
    ExplorerView(notebook.page).numbers()
    once = there(notebook, session)
    for _ in range(49):
        notebook.run(0)
        ExplorerView(notebook.page).numbers()
    after = there(notebook, session)
    print(empty, once, after, sep="\n")
    assert notebook.page.locator(".temperature-explorer").count() == 1
    assert after["comms"] == once["comms"]
    # JupyterLab keeps a few more for itself with every run, even of a cell without a widget.
    for name in ("nodes", "jsEventListeners"):
        assert (after[name] - once[name]) / 49 < (once[name] - empty[name]) / 2
