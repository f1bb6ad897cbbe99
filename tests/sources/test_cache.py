"""The cache of decoded images has the right pixels, and is written again when an image changes."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.files import InputError, locked
from helpers.sources import cache, read_image
from helpers.sources.cache import decoded

SIZE = 16


def write_noise(path: Path, number: int) -> Path:
    Image.effect_noise((40 + number % 7, 30), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def few(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    return [write_noise(tmp_path / "images" / f"{number}.png", number) for number in range(8)]


def by_hand(paths: list[Path]) -> np.ndarray:
    squares = [read_image(path).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(square).transpose(2, 0, 1) for square in squares])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_pixels_are_those_of_the_images_and_are_mapped(few: list[Path], tmp_path: Path) -> None:
    pixels = decoded(few, SIZE, tmp_path / "cache")
    assert np.array_equal(pixels, by_hand(few))
    assert (pixels.dtype, type(pixels), pixels.flags.writeable) == (np.uint8, np.memmap, False)
    assert len(files(tmp_path / "cache")) == 1


def test_two_processes_give_the_same(tmp_path: Path) -> None:
    paths = [write_noise(tmp_path / f"{number}.jpg", number) for number in range(cache.FEW + 50)]
    assert np.array_equal(decoded(paths, SIZE, tmp_path / "cache"), by_hand(paths))


def test_a_second_call_decodes_nothing(few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded(few, SIZE, tmp_path / "cache")
    monkeypatch.setattr(cache, "write", None)
    monkeypatch.chdir(tmp_path / "images")
    assert np.array_equal(first, decoded([path.name for path in few], SIZE, tmp_path / "cache"))


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_changed_image_is_decoded_again(few: list[Path], tmp_path: Path, changed: str) -> None:
    folder, modified = tmp_path / "cache", few[3].stat().st_mtime_ns
    decoded(few, SIZE, folder)
    decoded(few, 2 * SIZE, folder)
    before = set(files(folder))
    if changed == "size":
        write_noise(few[3], 5)
    os.utime(few[3], ns=(0, modified + (changed == "time")))
    assert np.array_equal(decoded(few, SIZE, folder), by_hand(few))
    assert len(files(folder)) == 2  # the outdated file is gone, the file of the other size is kept
    assert len(before & set(files(folder))) == 1


def test_another_list_of_images_has_another_cache(few: list[Path], tmp_path: Path) -> None:
    for paths in (few, few[:4], few[::-1], [*few, few[0]]):
        assert np.array_equal(decoded(paths, SIZE, tmp_path / "cache"), by_hand(paths))
    assert len(files(tmp_path / "cache")) == 4


@pytest.mark.parametrize("count", [8, cache.FEW + 50])
def test_a_broken_image_is_named_and_nothing_is_left(few: list[Path], tmp_path: Path, count: int) -> None:
    few[2].write_bytes(few[2].read_bytes()[:100])
    with pytest.raises(InputError, match="cannot read the image .*2.png"):
        decoded((few * count)[:count], SIZE, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_is_named(few: list[Path]) -> None:
    with pytest.raises(InputError, match="cannot write .*choose another folder"):
        decoded(few, SIZE, few[0])


def test_a_second_process_waits_for_the_first(few: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    with ProcessPoolExecutor(1) as pool:
        with locked(folder):
            waiting = pool.submit(decoded, few, SIZE, folder)
            time.sleep(0.5)
            assert not waiting.done()
            assert files(folder) == []
        assert np.array_equal(waiting.result(timeout=30), by_hand(few))
