"""The training loop on several processes: the same run, started by another command line."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import log_of, same_weights

RECIPE = ["--epochs", "3", "--image-size", "32", "--batch-size", "24"]  # 4 steps per epoch of the hundred scenes
DROPOUT = ("--regularizer", "text_dropout:0.1")


def command(scenes: Path, out: Path, ranks: int, *more: str) -> list[str]:
    start = [sys.executable, "-m"]
    start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    paths = ["--data", str(scenes), "--out", str(out), "--cache", str(out.parent / "cache")]
    return [*start, "helpers", "train", *paths, *RECIPE, *more]


def run(scenes: Path, out: Path, ranks: int, *more: str) -> str:
    result = subprocess.run(command(scenes, out, ranks, *more), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_ranks_train_the_run_of_one_process(hundred_scenes: Path, tmp_path: Path, ranks: int) -> None:
    """Compared by losses: Muon takes a full step in every direction, even in one that is only rounding error."""
    run(hundred_scenes, tmp_path / "alone", 1)
    output = run(hundred_scenes, tmp_path / "run", ranks)
    assert output.count("epoch     3") == 1  # one rank prints
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
    for ours, theirs in zip(log_of(tmp_path / "run"), log_of(tmp_path / "alone"), strict=True):
        assert ours["step"] == theirs["step"]
        if ours["loss"] is not None:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01)
            assert ours["temperature"] == pytest.approx(theirs["temperature"], rel=1e-3)


@pytest.mark.long
def test_two_ranks_that_are_stopped_resume_to_the_same_bits(hundred_scenes: Path, tmp_path: Path) -> None:
    run(hundred_scenes, tmp_path / "complete", 2, *DROPOUT)
    process = subprocess.Popen(command(hundred_scenes, tmp_path / "run", 2, *DROPOUT))
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "last.pt").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)  # as a cluster sends it to torchrun
    assert process.wait(timeout=120) != 0, "the run was done before it could be stopped"
    run(hundred_scenes, tmp_path / "run", 2, *DROPOUT, "--resume")
    assert log_of(tmp_path / "run") == log_of(tmp_path / "complete")
    assert same_weights(tmp_path / "run", tmp_path / "complete")


@pytest.mark.long
def test_ranks_that_cannot_share_a_batch_are_refused_and_nothing_is_written(
    hundred_scenes: Path, tmp_path: Path
) -> None:
    arguments = command(hundred_scenes, tmp_path / "run", 2, "--batch-size", "25")
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert result.returncode != 0
    assert "a batch of 25 pairs cannot be shared equally by 2 processes" in result.stderr
    assert not (tmp_path / "run").exists()
