"""The explorer for all readers: axe-core finds no serious fault in it, and it can be read where no script runs.

In JupyterLab and Notebook 7 axe-core runs with the other tests of the explorer there.
"""

from pathlib import Path

import pytest
from conftest import watched_page
from explorer_view import explorer, full_explorer, open_page
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def page(lasting_page: Page) -> Page:
    lasting_page.mouse.move(0, 0)
    return lasting_page


@pytest.mark.usefixtures("without_still_picture")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pairs", [4, 16, 64])
def test_axe_finds_no_serious_fault(page: Page, tmp_path: Path, pairs: int, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    view = open_page(page, tmp_path, full_explorer(pairs))
    assert view.faults() == []
    page.mouse.click(*view.cell(3, 1, pairs))
    view.check_box("L2-normalise").uncheck()
    view.check_box("Mask the same image").check()
    assert view.bars()
    assert view.faults() == []


@pytest.mark.usefixtures("without_still_picture")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_would_find_words_too_faint(page: Page, tmp_path: Path, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    view = open_page(page, tmp_path, explorer(2))
    view.root.locator(".note").first.evaluate("(note) => { note.style.color = 'rgb(110 110 110 / 0.8)'; }")
    assert any("color-contrast" in fault for fault in view.faults())


def test_without_scripts_there_is_a_picture_and_its_words(browser: Browser, tmp_path: Path) -> None:
    widget = explorer(4)
    with watched_page(browser, java_script_enabled=False) as page:
        page.goto(widget.to_html(tmp_path / "explorer.html").as_uri())
        picture = page.get_by_role("img")
        assert picture.bounding_box()["width"] > 300
        words = picture.get_attribute("alt")
        assert "4 images" in words
        assert f"{widget.numbers()['loss']:.3f}" in words
