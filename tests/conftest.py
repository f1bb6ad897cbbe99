"""Which tests are run, and in which order: quick ones, then the notebooks, then the browser."""

import os
from pathlib import Path

import pytest

import helpers  # noqa: F401  (before any test loads torch: it sets how torch's threads wait)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests on photographs where no folder of them is named, and puts the slow kinds last.

    The browser comes last of all also because Playwright keeps an event loop running, which kernels would stumble over.
    """
    if not os.environ.get("PHOTOGRAPHS"):
        left_out = [item for item in items if item.get_closest_marker("photographs")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("photographs")]
    items.sort(key=lambda item: 2 if item.get_closest_marker("browser") else int(item.path.suffix == ".ipynb"))


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of photographs that PHOTOGRAPHS names, in the COCO Captions layout."""
    folder = Path(os.environ["PHOTOGRAPHS"]).expanduser().resolve()
    assert (folder / "annotations").is_dir(), f"PHOTOGRAPHS={folder} has no folder 'annotations' in it"
    return folder
