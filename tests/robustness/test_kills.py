"""A training that is killed, or whose disk fills up, at any moment continues to the same bits."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Commands, log_of, same_weights, small_disk

from helpers.files import InputError, atomic_file, atomic_folder
from helpers.runs import load_checkpoint

# Everything random is switched on, and the regularizers have weights of their own.
RECIPE = ["--epochs", 3, "--batch-size", 24, "--image-size", 32, 48, "--augment", "crop"]
for regularizer in ("multi_scale:0.5", "token_wise:0.1", "text_dropout:0.1"):
    RECIPE += ["--regularizer", regularizer]


class Trainings:
    """Trainings with the recipe above, each in a process of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.commands = Commands(folder)
        self.options = ["--data", data, "--cache", folder / "cache", *RECIPE]

    def start(self, out: Path) -> int:
        """Start a run in ``out``, or resume it if it has saved something; it saves before each step."""
        resume = ["--resume"] if (out / "last.pt").is_file() else []
        return self.commands.start("train", *self.options, "--out", out, *resume, save_every=0)

    def finish(self, out: Path) -> None:
        self.start(out)
        assert self.commands.wait() == 0, self.commands.output.read_text()

    def wait_for_a_file(self, out: Path) -> None:
        deadline = time.monotonic() + 120
        while not out.is_dir() or not any(out.iterdir()):
            assert time.monotonic() < deadline, self.commands.output.read_text()
            time.sleep(0.001)


@pytest.fixture(scope="module")
def trainings(hundred_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    trainings = Trainings(hundred_scenes, tmp_path_factory.mktemp("trainings"))
    yield trainings
    trainings.commands.close()


@pytest.fixture(scope="module")
def undisturbed(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    trainings.finish(out)
    return out


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_killed_runs_resume_to_the_same_bits(
    trainings: Trainings, undisturbed: Path, tmp_path: Path, kills: int
) -> None:
    generator = random.Random(kills)
    for number in range(kills):
        out = tmp_path / f"run{number}"
        code = 0
        while code == 0:  # repeat a run that was done before it could be killed
            shutil.rmtree(out, ignore_errors=True)
            process = trainings.start(out)
            trainings.wait_for_a_file(out)
            time.sleep(generator.uniform(0, 0.8))
            os.kill(process, signal.SIGKILL)
            code = trainings.commands.wait()
        assert code == -signal.SIGKILL, trainings.commands.output.read_text()
        trainings.finish(out)
        assert same_weights(out, undisturbed)
        assert log_of(out) == log_of(undisturbed)


def test_ctrl_c_says_how_to_continue(trainings: Trainings, undisturbed: Path, tmp_path: Path) -> None:
    process = trainings.start(tmp_path / "run")
    trainings.wait_for_a_file(tmp_path / "run")
    os.kill(process, signal.SIGINT)
    code, output = trainings.commands.wait(), trainings.commands.output.read_text()
    assert code == 130, output
    assert "Traceback" not in output
    assert "continue it with --resume" in output or "nothing was saved yet; start it again" in output
    trainings.finish(tmp_path / "run")
    assert same_weights(tmp_path / "run", undisturbed)


def test_a_full_disk_keeps_the_last_checkpoint(trainings: Trainings, undisturbed: Path, tmp_path: Path) -> None:
    size = (undisturbed / "last.pt").stat().st_size
    with small_disk(tmp_path / "disk", int(2.5 * size)) as mounted:
        if not mounted:
            pytest.skip("only root can mount a small disk")
        out = tmp_path / "disk" / "run"
        trainings.start(out)
        assert trainings.commands.wait() == 2
        message = trainings.commands.output.read_text().splitlines()[-1]
        assert "cannot write" in message
        assert "free some space" in message
        assert not list(out.glob("*.partial"))
        assert load_checkpoint(out / "last.pt")["step"] > 0
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", tmp_path / "disk"], check=True)
        trainings.finish(out)
        assert same_weights(out, undisturbed)


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.txt") as file:
        file.write(b"first")
    with pytest.raises(TypeError), atomic_file(tmp_path / "a.txt") as file:
        file.writelines([b"half of the second", None])
    with pytest.raises(InputError, match=r"cannot write .*a.txt \(No space left"), atomic_file(tmp_path / "a.txt"):
        raise OSError("No space left on device")
    with pytest.raises(FileNotFoundError, match=r"other.txt"), atomic_file(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_text()
    assert (tmp_path / "a.txt").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_completely_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError), atomic_folder(tmp_path / "pairs") as folder:
        (folder / "a.txt").write_text(None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".pairs.partial").mkdir()  # left by a command that was killed
    (tmp_path / ".pairs.partial" / "b.txt").write_text("half")
    with atomic_folder(tmp_path / "pairs") as folder:
        (folder / "a.txt").write_text("all of it")
        with pytest.raises(InputError, match="in use by another command"), atomic_folder(tmp_path / "pairs"):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["pairs", "a.txt"]
    assert (tmp_path / "pairs" / "a.txt").read_text() == "all of it"
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "pairs"):
        pass
