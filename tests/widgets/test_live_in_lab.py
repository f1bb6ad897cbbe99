"""The live training in JupyterLab: slider and button act while it runs, and other cells run meanwhile."""

import pytest
from notebook_page import NotebookPage
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser

CELLS = [
    """import time
from helpers.widgets.live import LiveTraining

used, counted_at_press = [], []

def step(temperature):
    used.append(temperature)
    time.sleep(0.02)
    return {"loss": 3 / len(used), "accuracy": 1 - 1 / len(used)}

training = LiveTraining(step, 10_000, 0.1, {"Both": ["loss", "accuracy"]}, {"Both": (0, 3)}, {"Both": {"chance": 2}})
training.on_msg(lambda widget, content, buffers: counted_at_press.append(len(used)))
training""",
    "len(used), training.running",
]


@pytest.fixture
def notebook(page: Page, jupyter) -> NotebookPage:
    notebook = NotebookPage(page, jupyter, "live.ipynb", CELLS)
    notebook.run(0)
    return notebook


def slider(page: Page) -> Locator:
    return page.locator(".live-training").get_by_role("slider", name="Temperature")


def wait_for_steps(page: Page, more: int) -> int:
    """Wait until the page shows ``more`` steps than now, and return how many it shows."""
    shown = page.locator(".live-training .done")
    wanted = int(shown.get_attribute("data-step")) + more
    page.wait_for_function(
        "(wanted) => document.querySelector('.done').dataset.step >= wanted", arg=wanted, timeout=60_000
    )
    return int(shown.get_attribute("data-step"))


def test_slider_and_button_act_during_the_training(notebook: NotebookPage) -> None:
    page = notebook.page
    page.get_by_role("button", name="Start", exact=True).press("Enter")  # JupyterLab leaves the key to the button
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.wait_for()
    wait_for_steps(page, 3)

    for key in ("Home", "ArrowRight", "PageUp", "ArrowDown", "End"):
        slider(page).press(key)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        wanted = float(page.locator("[data-quantity=temperature]").get_attribute("data-value"))
        assert float(slider(page).get_attribute("aria-valuetext")) == pytest.approx(wanted, rel=1e-3)
        notebook.ask_until("used[-1]", wanted)  # the step that is made now has it
    assert len(set(notebook.ask("used"))) == 6

    count, running = eval(notebook.run(1))  # a cell runs meanwhile
    assert running
    assert wait_for_steps(page, 3) > count
    drawn = page.locator(".live-training path.curve[d*=L]")  # both curves and the temperatures
    assert drawn.count() == 3

    stop.click()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    count, running = eval(notebook.run(1))
    assert not running
    assert count <= notebook.ask("counted_at_press[-1]") + 1
    expect(page.locator(".live-training .done")).to_have_attribute("data-step", str(count))
    assert notebook.ask("len(used)") == count


def test_a_page_loaded_during_the_training_shows_it_from_its_first_step(notebook: NotebookPage) -> None:
    page = notebook.page
    page.get_by_role("button", name="Start", exact=True).click()
    before = wait_for_steps(page, 10)
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.locator(".live-training").wait_for(timeout=60_000)
    page.wait_for_function(
        "(before) => document.querySelector('.done').dataset.step > before", arg=before, timeout=60_000
    )
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    points = (
        page.locator(".live-training path.curve[d*=L]")
        .nth(0)
        .evaluate("(p) => p.getAttribute('d').match(/[ML]/g).length")
    )
    assert points == int(page.locator(".live-training .done").get_attribute("data-step"))
