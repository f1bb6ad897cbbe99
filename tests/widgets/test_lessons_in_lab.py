"""The lessons as a learner first sees them: opened in JupyterLab, trusted, no cell run."""

from pathlib import Path

import pytest
from explorer_view import ExplorerView
from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PROJECT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.name for path in (PROJECT / "notebooks").glob("*.ipynb"))
WITH_EXPLORER = ["03_temperature.ipynb", "05_training.ipynb"]
WITH_LIVE_TRAINING = ["03_temperature.ipynb", "05_training.ipynb"]


def scroll_until(page: Page, wanted: str) -> bool:
    """Scroll down the open notebook until an element is there. JupyterLab draws only the cells near the window."""
    page.locator(".jp-CodeCell").first.wait_for(timeout=60_000)
    lesson = page.locator(".jp-WindowedPanel-outer").first
    for _ in range(100):
        if page.locator(wanted).count():
            return True
        lesson.evaluate("node => { node.scrollTop += 700 }")
        page.wait_for_timeout(150)
    return False


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_opens_whole_and_shows_its_figure_at_once(jupyter, page: Page, name: str) -> None:
    page.goto(jupyter.url(name))
    figure = ".jp-OutputArea-output img, .temperature-explorer"
    assert scroll_until(page, figure)
    assert page.locator(figure).first.bounding_box()["width"] > 200
    assert scroll_until(page, "h2:has-text('Try it yourself')")


@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_a_stored_explorer_is_alive_without_running_a_cell(jupyter, page: Page, name: str) -> None:
    page.goto(jupyter.url(name))
    assert scroll_until(page, ".temperature-explorer")
    page.locator(".temperature-explorer").first.scroll_into_view_if_needed()
    view = ExplorerView(page)
    before, pixels = view.numbers(), view.pixels("softmax")
    view.drag(0.35, 0.8)
    after = view.numbers()
    assert after["temperature"] > before["temperature"]
    assert after["effective_negatives"] > before["effective_negatives"]
    assert after["accuracy"] == before["accuracy"]
    assert view.pixels("softmax") != pixels


@pytest.mark.parametrize("name", WITH_LIVE_TRAINING)
def test_a_stored_training_shows_its_curves_without_running_a_cell(jupyter, page: Page, name: str) -> None:
    page.goto(jupyter.url(name))
    assert scroll_until(page, ".live-training")
    training = page.locator(".live-training").first
    training.scroll_into_view_if_needed()
    training.locator("path.curve[d*=L]").first.wait_for()
    assert int(training.locator(".done").get_attribute("data-step")) > 0
    training.get_by_role("button", name="Start", exact=True).wait_for()
