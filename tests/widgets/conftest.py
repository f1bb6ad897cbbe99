"""Fixtures of the browser tests: a Chromium, pages that must not report errors, a JupyterLab and a Notebook 7."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page
from servers import NO_CHROMIUM, PROJECT, Jupyter, chromium, serve


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as browser:
            yield browser
    except FileNotFoundError:
        if os.environ.get("CI") == "true":
            pytest.fail(NO_CHROMIUM)
        pytest.skip(NO_CHROMIUM)


@contextmanager
def watched_page(browser: Browser, known: Collection[str] = (), **options: object) -> Iterator[Page]:
    """A new page. It fails at its end if its console reported errors, other than the known ones."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    errors: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location['url']})")

    page.on("console", listen)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    errors = [error for error in errors if error not in known]
    assert not errors, "the page had errors:\n" + "\n".join(errors)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_page(browser) as page:
        yield page


@pytest.fixture(scope="module")
def lasting_page(browser: Browser) -> Iterator[Page]:
    """One page for all tests of a module, since opening one takes longer than most tests."""
    with watched_page(browser) as page:
        yield page


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab over copies of the notebooks and their pictures."""
    with serve("jupyterlab", tmp_path_factory.mktemp("jupyter"), (PROJECT / "notebooks").glob("*.ipynb")) as jupyter:
        shutil.copytree(PROJECT / "notebooks" / "figures", jupyter.root / "figures")
        yield jupyter


@pytest.fixture(scope="session")
def notebook7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """Notebook 7, over no notebooks yet."""
    with serve("notebook", tmp_path_factory.mktemp("notebook7")) as jupyter:
        yield jupyter
