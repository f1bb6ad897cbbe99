"""Which tests are run, and in which order: quick ones, then the notebooks, then the browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import helpers.sources.cache  # also before any test loads torch: `helpers` sets how torch's threads wait

# Kernels that tests start inherit it: lessons that train then do so for fewer seconds and seeds.
os.environ.setdefault("COURSE_QUICK", "1")


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


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images that tests decode are kept apart from those of the learner, and no longer than the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers.sources.cache, "CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of photographs that PHOTOGRAPHS names, in the COCO Captions layout."""
    folder = Path(os.environ["PHOTOGRAPHS"]).expanduser().resolve()
    assert (folder / "annotations").is_dir(), f"PHOTOGRAPHS={folder} has no folder 'annotations' in it"
    return folder


@pytest.fixture(scope="session")
def sixty_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes, sixty of them to test with."""
    from helpers.scenes.render import write_scenes

    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, {"train": 60, "val": 10, "test": 60})
    return root


@pytest.fixture(scope="session")
def untrained_run(sixty_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on these scenes."""
    from untrained import write_untrained_run  # not above, for it loads torch

    return write_untrained_run(sixty_scenes, tmp_path_factory.mktemp("runs") / "untrained")
