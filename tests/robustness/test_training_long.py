"""That a training can be trusted: killed, stopped or out of room at any moment, it goes on to the same bits.

And what the plain recipe reaches, on the scenes and on photographs.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cache import small_disk
from test_training import log_of, same_weights

from helpers import evaluation
from helpers.runs import load_checkpoint
from helpers.scenes.render import HARD, write_scenes
from helpers.sources.coco import DATA
from helpers.training import train

pytestmark = pytest.mark.long

# Everything that is drawn at random is on, and the regularizer has weights of its own.
RECIPE = ["--epochs", "3", "--batch-size", "24", "--image-size", "32", "48", "--augment", "crop"]
for regularizer in ("multi_scale:0.5", "token_wise:0.1", "text_dropout:0.1", "word_dropout:0.1", "patch_dropout:0.1"):
    RECIPE += ["--regularizer", regularizer]

# Loading torch takes longer than such a training does, so one Python loads it and forks them all.
FORK = """
import functools, json, os, resource, sys, traceback
import torch._dynamo  # which the first optimizer loads
from helpers import training


def limit_files(record):
    if record["step"] > 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(order["said"], "w", buffering=1)
            if order["limited"]:  # as on a full disk, the system refuses to write on in the middle of a file
                training.train = functools.partial(training.train, on_epoch=limit_files)
            code = training.main(order["arguments"])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Trainings:
    """``python -m helpers.training`` with the recipe above, one at a time, each a process to be killed."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.given = ["--data", str(data), "--cache", str(folder / "cache"), *RECIPE]
        self.said = folder / "said"
        self.fork = subprocess.Popen(
            [sys.executable, "-c", FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, out: Path, limited: bool = False) -> None:
        """Start a run in ``out``, or go on with the one that has saved something there."""
        given = [*self.given, "--out", str(out), *(["--resume"] if (out / "last.pt").is_file() else [])]
        self.said.unlink(missing_ok=True)
        self.out = out
        self.fork.stdin.write(json.dumps({"arguments": given, "said": str(self.said), "limited": limited}) + "\n")
        self.fork.stdin.flush()
        self.process = int(self.fork.stdout.readline())

    def end(self) -> int:
        """Wait for the exit code."""
        return int(self.fork.stdout.readline())

    def signal_at_random(self, number: signal.Signals, generator: random.Random, longest: float) -> int:
        """Send a signal after at most so many seconds, half of the times in the next save. The exit code."""
        time.sleep(generator.uniform(0, longest))
        if generator.random() < 0.5:
            deadline = time.monotonic() + longest
            while not list(self.out.glob("*.partial")) and time.monotonic() < deadline:
                time.sleep(0.0005)
            time.sleep(generator.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):  # it was done before
            os.kill(self.process, number)
        return self.end()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    folder = tmp_path_factory.mktemp("trainings")
    write_scenes(folder / "scenes", {"train": 100, "val": 20, "test": 4})
    trainings = Trainings(folder / "scenes", folder)
    with trainings.fork:
        yield trainings
        trainings.fork.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run left alone, by the command itself."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    command = [sys.executable, "-m", "helpers.training", *trainings.given, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def usual(trainings: Trainings, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How many seconds such a run takes here."""
    out = tmp_path_factory.mktemp("runs") / "usual"
    began = time.monotonic()
    trainings.start(out)
    assert trainings.end() == 0, trainings.said.read_text()
    seconds = time.monotonic() - began
    assert_the_same(out, undisturbed)
    return seconds


def assert_the_same(out: Path, undisturbed: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
    assert log_of(out) == log_of(undisturbed)
    for name in ("last.pt", "best.pt"):
        assert same_weights(out, undisturbed, name), name


def left_in(out: Path) -> str:
    """When a run was killed, by what it left."""
    if list(out.glob("*.partial")):
        return "while saving"
    if not (out / "last.pt").is_file():
        return "before the first save"
    recorded = len((out / "log.jsonl").read_text().splitlines()) if (out / "log.jsonl").is_file() else 0
    return "between saves" if recorded == len(load_checkpoint(out / "last.pt")["records"]) else "between the files"


def test_fifty_runs_killed_at_random_moments_end_in_the_same_bits(
    trainings: Trainings, undisturbed: Path, usual: float, tmp_path: Path
) -> None:
    """Every other one is killed a second time, in what was to go on."""
    generator = random.Random(0)
    kills: Counter[str] = Counter()
    for number in range(50):
        out = tmp_path / f"run{number}"
        code = 0
        while code == 0:  # one that was done before the kill is no run killed
            shutil.rmtree(out, ignore_errors=True)
            trainings.start(out)
            code = trainings.signal_at_random(signal.SIGKILL, generator, 0.9 * usual)
        assert code == -signal.SIGKILL, trainings.said.read_text()
        kills[left_in(out)] += 1
        if number % 2:
            trainings.start(out)
            code = trainings.signal_at_random(signal.SIGKILL, generator, 0.5 * usual)
            assert code in (0, -signal.SIGKILL), trainings.said.read_text()
            kills[f"again, {left_in(out)}"] += code != 0
        trainings.start(out)
        assert trainings.end() == 0, trainings.said.read_text()
        assert_the_same(out, undisturbed)
        shutil.rmtree(out)
    print(dict(kills))
    assert min(kills[moment] for moment in ("before the first save", "while saving", "between saves")) > 0


def test_ten_runs_stopped_at_random_moments_say_so_and_end_in_the_same_bits(
    trainings: Trainings, undisturbed: Path, usual: float, tmp_path: Path
) -> None:
    generator = random.Random(1)
    stopped: Counter[str] = Counter()
    for number in range(10):
        out = tmp_path / f"run{number}"
        code = 0
        while code == 0:
            shutil.rmtree(out, ignore_errors=True)
            trainings.start(out)
            while not (trainings.said.is_file() and trainings.said.read_text()):  # before, it has nothing to stop
                time.sleep(0.001)
            code = trainings.signal_at_random(signal.SIGTERM, generator, 0.6 * usual)
        said = trainings.said.read_text()
        assert code == 143, said
        assert "Traceback" not in said
        has_saved = (out / "last.pt").is_file()
        assert ("go on with --resume" if has_saved else "nothing was saved yet, so start it again") in said
        assert not list(out.glob("*.partial"))
        stopped["saved" if has_saved else "nothing to save"] += 1
        trainings.start(out)
        assert trainings.end() == 0, trainings.said.read_text()
        assert_the_same(out, undisturbed)
    print(dict(stopped))
    assert stopped["saved"] > 0


def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(
    trainings: Trainings, undisturbed: Path, tmp_path: Path
) -> None:
    size = (undisturbed / "last.pt").stat().st_size
    with small_disk(tmp_path / "disk", str(int(2.5 * size))) as mounted:  # room for two, and a third is begun
        out = tmp_path / "disk" / "run"
        trainings.start(out, limited=not mounted)
        code, said = trainings.end(), trainings.said.read_text()
        assert code == 2, said
        assert "what was saved before is still whole: make room, then go on with --resume" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not list(out.glob("*.partial"))
        assert load_checkpoint(out / "last.pt")["step"] == 4
        if mounted:
            subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(tmp_path / "disk")], check=True)
        trainings.start(out)
        assert trainings.end() == 0, trainings.said.read_text()
        assert_the_same(out, undisturbed)


def test_a_minute_and_a_half_on_the_scenes(tmp_path: Path) -> None:
    train(DATA / "scenes", tmp_path / "run", seconds=90)
    result = evaluation.evaluate_split(load_checkpoint(tmp_path / "run" / "best.pt"), DATA / "scenes", "test")
    exact = result["exact"]["text_to_image"]
    print(json.dumps(result))
    assert exact["R@1"] >= 50
    assert exact["R@1"] <= exact["ceiling"] + 1e-9


def test_hard_scenes_leave_room(tmp_path: Path) -> None:
    """The plain recipe ends between 60 and 85 % of what can be reached, on R@1 and on minimal pairs."""
    write_scenes(tmp_path / "hard", difficulty=HARD)
    train(tmp_path / "hard", tmp_path / "run", epochs=16, cache=tmp_path / "cache")
    result = evaluation.evaluate_split(load_checkpoint(tmp_path / "run" / "best.pt"), tmp_path / "hard", "test")
    print(json.dumps(result))
    found = result["text_to_image"]
    assert 0.60 <= found["R@1"] / found["ceiling"] <= 0.85
    of_kinds = [(kind["image_to_text"] + kind["text_to_image"]) / 2 for kind in result["minimal_pairs"].values()]
    assert 60 <= sum(of_kinds) / len(of_kinds) <= 85


@pytest.mark.photographs
def test_ten_epochs_on_photographs(photographs: Path, tmp_path: Path) -> None:
    train(photographs, tmp_path / "run", epochs=10)
    result = evaluation.evaluate_split(load_checkpoint(tmp_path / "run" / "best.pt"), photographs, "val")
    print(json.dumps(result))
    for direction in ("image_to_text", "text_to_image"):
        assert result[direction]["R@1"] >= 5 * result[direction]["chance"]
        assert "ceiling" not in result[direction]
    assert "exact" not in result
