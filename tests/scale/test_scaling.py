"""What a loss costs is measured in the right place, and the model of it finds laws that are known."""

import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from helpers.losses import contrastive_loss
from helpers.scale import costs as scaling
from helpers.scale.blockwise import BLOCK

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how large a process has been")


@pytest.mark.parametrize("size", [5, BLOCK, 2 * BLOCK + 77])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_the_checkpointed_loss_is_the_plain_one(size: int, temperature: float) -> None:
    found, exact = [], []
    for loss, values in ((scaling.checkpointed_contrastive_loss, found), (contrastive_loss, exact)):
        images, texts = (side.double().requires_grad_() for side in scaling.random_pairs(size, 16))
        learned = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
        value = loss(images, texts, learned)
        values += [value.detach(), *torch.autograd.grad(value, (images, texts, learned))]
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


def test_the_checkpointed_loss_refuses_what_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="4 images and 3 texts"):
        scaling.checkpointed_contrastive_loss(torch.randn(4, 8), torch.randn(3, 8))
    with pytest.raises(ValueError, match="temperature"):
        scaling.checkpointed_contrastive_loss(torch.randn(4, 8), torch.randn(4, 8), 0.0)


def extra_of_three(megabytes: int) -> float:
    def run() -> None:
        for _ in range(3):  # one after the other: never two at a time
            torch.ones(megabytes * 250_000)

    torch.ones(40_000_000)  # larger than both, and gone before
    return scaling.extra_megabytes(run)


@linux
@pytest.mark.parametrize("megabytes", [8, 64])
def test_memory_is_what_is_held_at_the_worst_moment_and_no_more(megabytes: int) -> None:
    """In a process of its own: one that has lived long may have such a piece lying free."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(extra_of_three, megabytes).result() == pytest.approx(megabytes, rel=0.1, abs=1)


@linux
@pytest.mark.long
def test_the_matrix_is_held_six_times_by_the_plain_loss_and_by_no_other() -> None:
    matrix = 4e-6 * 2048**2
    held = {way: scaling.measure(way, 2048, dim=16, rounds=1)["megabytes"] / matrix for way in scaling.WAYS}
    assert held["plain"] == pytest.approx(6, rel=0.1)
    assert max(held[way] for way in scaling.WAYS if way != "plain") < 1.5


@pytest.mark.parametrize("law", [(3.0, 2.0), (3.0, 0.0), (0.0, 2.0)])
def test_a_law_that_is_known_is_found(law: tuple[float, float]) -> None:
    sizes = [2.0**k for k in range(10, 16)]
    found = scaling.fit(sizes, [law[0] * n**2 + law[1] * n for n in sizes])
    assert found == pytest.approx(law, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("power", "which"), [(0.8, 1), (2.3, 0)])
def test_no_coefficient_is_negative(power: float, which: int) -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    found = scaling.fit(sizes, [n**power for n in sizes])
    assert found[which] > 0
    assert found[1 - which] == 0


def test_small_sizes_count_as_much_as_large_ones() -> None:
    sizes, off = [1.0, 10.0, 100.0], [1.0, 1.2, 1.0]
    found = scaling.fit(sizes, [5 * n * factor for n, factor in zip(sizes, off, strict=True)])
    assert found[1] == pytest.approx(5, rel=0.1)


def test_a_file_is_written_with_a_row_a_size_and_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(way: str, pairs: int) -> dict[str, float]:
        asked.append((way, pairs))
        return {"megabytes": 1.0, "milliseconds": 2.0}

    monkeypatch.setattr(scaling, "measure", measure)
    out = tmp_path / "results" / "scaling.json"
    assert scaling.main(["--out", str(out), "--pairs", "8", "4"]) == 0
    report = json.loads(out.read_text())
    assert asked == [(way, pairs) for way in scaling.WAYS for pairs in (4, 8)]
    assert report["rows"][0] == {"pairs": 4, "way": "plain", "megabytes": 1.0, "milliseconds": 2.0}
    assert report["dim"] == scaling.DIM
    assert str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(("given", "words"), [(["--pairs", "7"], "even numbers"), (["--pairs", "0"], "even numbers")])
def test_sizes_that_cannot_be_measured_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    assert scaling.main(["--out", str(tmp_path / "a.json"), *given]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_asked_for_in_vain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--out", str(tmp_path / "a.json"), "--device", "cuda"]) == 2
    assert "finds no GPU" in capsys.readouterr().err


def test_two_ranks_are_two_processes_that_find_each_other() -> None:
    found = scaling.measure(scaling.TWO_RANKS, 64, dim=8, rounds=1)
    assert found["milliseconds"] > 0
    assert not math.isinf(found["megabytes"])
