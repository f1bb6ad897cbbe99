"""The lessons as a learner first sees them: opened in JupyterLab, trusted, no cell run."""

from collections.abc import Iterator

import pytest
from conftest import watched_page
from explorer_view import ExplorerView
from playwright.sync_api import Browser, Page, expect
from servers import PROJECT, Jupyter

pytestmark = pytest.mark.browser

LESSONS = sorted(path.name for path in (PROJECT / "notebooks").glob("*.ipynb"))
# JupyterLab looks for a stored widget, waits 100 ms, and looks again. On a busy machine it comes back much later.
LATE_TIMERS = (
    "{ const now = setTimeout; window.setTimeout = (f, ms, ...given) => now(f, ms === 100 ? 2500 : ms, ...given) }"
)

# anywidget reports a model that takes two seconds to start. Only messages from a kernel wait for it, and here is none.
LATE_MODEL = "[anywidget] Failed to initialize model."


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_page(browser, known=[LATE_MODEL]) as page:
        yield page


def open_lesson(page: Page, jupyter: Jupyter, name: str) -> None:
    page.set_default_timeout(300_000)  # a busy machine is slow at a quarter of its speed
    page.goto(jupyter.url(name))
    page.locator(".jp-CodeCell").first.wait_for()


def check_explorer(page: Page) -> None:
    """The stored explorer follows its slider."""
    page.locator(".temperature-explorer").first.scroll_into_view_if_needed()
    view = ExplorerView(page)
    before, pixels = view.numbers(), view.pixels("softmax")
    view.slider.press("End")
    after = view.numbers()
    assert after["temperature"] > before["temperature"]
    assert after["accuracy"] == before["accuracy"]
    assert view.pixels("softmax") != pixels
    expect(page.get_by_text("Error displaying widget")).to_have_count(0)


def check_training(page: Page) -> None:
    """The stored training shows its curves."""
    training = page.locator(".live-training").first
    training.scroll_into_view_if_needed()
    training.locator("path.curve[d*=L]").first.wait_for()
    assert int(training.locator(".done").get_attribute("data-step")) > 0
    expect(page.get_by_text("Error displaying widget")).to_have_count(0)


def test_the_stored_explorer_works_without_running_a_cell(jupyter: Jupyter, page: Page) -> None:
    open_lesson(page, jupyter, "03_temperature.ipynb")
    check_explorer(page)


def test_the_stored_training_shows_without_running_a_cell(jupyter: Jupyter, page: Page) -> None:
    open_lesson(page, jupyter, "05_training.ipynb")
    check_training(page)


def test_stored_widgets_work_on_a_slow_machine(jupyter: Jupyter, page: Page) -> None:
    page.add_init_script(LATE_TIMERS)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    open_lesson(page, jupyter, "03_temperature.ipynb")
    check_explorer(page)


@pytest.mark.long
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_shows_its_first_figure_and_its_exercises(jupyter: Jupyter, page: Page, name: str) -> None:
    open_lesson(page, jupyter, name)
    for wanted in (".jp-OutputArea-output img, .temperature-explorer", "h2:has-text('Try it yourself')"):
        page.locator(wanted).first.scroll_into_view_if_needed()
