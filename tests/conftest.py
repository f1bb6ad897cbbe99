"""Which tests run, and in which order: quick ones, then the notebooks, then the browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Kernels that tests start inherit these: lessons that train then do so for fewer seconds and seeds, and threads that
# wait do not slow down a busy machine. The second counts only before torch is imported.
os.environ.setdefault("COURSE_QUICK", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests on photographs where no folder of them is named, and put the slow kinds last.

    The browser comes last also because Playwright keeps an event loop running, in which kernels stumble.
    """
    if not os.environ.get("PHOTOGRAPHS"):
        left_out = [item for item in items if item.get_closest_marker("photographs")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("photographs")]
    items.sort(key=lambda item: 2 if item.get_closest_marker("browser") else int(item.path.suffix == ".ipynb"))


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep images that tests decode apart from the learner's, and only as long as the tests run."""
    import helpers.sources.cache

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
    return scenes_of(tmp_path_factory, {"train": 60, "val": 10, "test": 60})


@pytest.fixture(scope="session")
def hundred_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes, a hundred of them to train with."""
    return scenes_of(tmp_path_factory, {"train": 100, "val": 20, "test": 20})


def scenes_of(tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]) -> Path:
    from helpers.scenes import write_scenes

    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, sizes)
    return root


@pytest.fixture(scope="session")
def untrained_run(sixty_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on these scenes."""
    from harness import write_untrained_run

    return write_untrained_run(sixty_scenes, tmp_path_factory.mktemp("runs") / "untrained")
