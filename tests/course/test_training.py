import contextlib
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import types
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from helpers import evaluation, training
from helpers import runs as checkpoints
from helpers.cli import CommandLine, Interrupted, signals_held
from helpers.files import InputError, atomic_file
from helpers.regularizers import RATES, REGULARIZERS
from helpers.runs import load_checkpoint, restore_model, save_checkpoint
from helpers.scenes.render import write_scenes
from helpers.training import learning_rate_factor, train

SETTINGS = {"epochs": 3, "image_size": 32, "batch_size": 24}  # 4 steps an epoch


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, {"train": 100, "val": 20, "test": 20})
    return root


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("runs") / "plain"
    return out, train(scenes, out, **SETTINGS)


def weights(out: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(out / name)["model"]


def same_weights(one: Path, other: Path, name: str = "last.pt") -> bool:
    first, second = weights(one, name), weights(other, name)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_seconds(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def log_of(out: Path) -> list[dict]:
    return without_seconds([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])


def test_a_run_leaves_its_log_and_checkpoints(run: tuple[Path, list[dict]]) -> None:
    out, records = run
    assert sorted(path.name for path in out.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
    assert [record["step"] for record in records] == [0, 4, 8, 12]
    assert [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] == records
    assert records[0]["loss"] is None
    assert records[-1]["learning_rate"] == pytest.approx(0)
    assert records[1]["learning_rate"] == pytest.approx(0.009 * learning_rate_factor(1 / 3))
    assert records[-1]["loss"] < records[1]["loss"]
    content = torch.load(out / "last.pt", weights_only=True)
    assert content["step"] == 12
    model, tokenizer = restore_model(content)
    assert "circle" in tokenizer.vocabulary
    assert not model.training


def test_the_same_seed_gives_the_same_bits(scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path) -> None:
    again = train(scenes, tmp_path / "again", **SETTINGS)
    assert same_weights(run[0], tmp_path / "again")
    assert without_seconds(again) == without_seconds(run[1])
    train(scenes, tmp_path / "other", **SETTINGS, seed=1)
    assert not same_weights(run[0], tmp_path / "other")


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_stopped_run_goes_on_to_the_same_bits(
    scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path, stop_at: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == stop_at:
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(scenes, tmp_path / "run", **SETTINGS, on_step=stop)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == stop_at
    records = train(scenes, tmp_path / "run", **SETTINGS, resume=True)
    assert same_weights(run[0], tmp_path / "run")
    assert without_seconds(records) == without_seconds(run[1])


def test_a_run_stopped_while_it_validates_keeps_its_record(
    scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def evaluate_twice(*arguments: object) -> dict:
        calls.append(arguments)
        if len(calls) == 3:  # before the first epoch, after it, and then
            raise Interrupted(signal.SIGTERM)
        return evaluation.evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate_twice)
        with pytest.raises(Interrupted):
            train(scenes, tmp_path / "run", **SETTINGS)
    records = train(scenes, tmp_path / "run", **SETTINGS, resume=True)
    assert same_weights(run[0], tmp_path / "run")
    assert without_seconds(records) == without_seconds(run[1])


def test_a_signal_waits_for_the_end_of_what_must_be_whole() -> None:
    done = []

    def block() -> None:
        with signals_held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["the rest"]


def test_a_finished_run_stays_finished(scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path) -> None:
    records = train(scenes, tmp_path / "run", **SETTINGS)
    assert train(scenes, tmp_path / "run", **SETTINGS, resume=True) == records
    assert same_weights(run[0], tmp_path / "run")


def test_regularizers_and_schedules_are_part_of_the_run(scenes: Path, run: tuple, tmp_path: Path) -> None:
    records = train(
        scenes, tmp_path / "run", **SETTINGS, temperature="cosine:0.2:0.05", regularizers=["multi_scale:0.5"]
    )
    assert records[0]["temperature"] == pytest.approx(0.2)
    assert records[-1]["temperature"] == pytest.approx(0.05)
    assert records[-1]["multi_scale"] > 0
    assert not same_weights(run[0], tmp_path / "run")


def test_every_regularizer_trains_has_its_place_in_the_log_and_survives_a_stop(scenes: Path, tmp_path: Path) -> None:
    regularizers = [f"{name}:0.01" for name in REGULARIZERS] + [f"{name}:0.2" for name in RATES]

    def stop(step: int, *_: object) -> None:
        if step == 6:
            raise Interrupted(signal.SIGTERM)

    records = train(scenes, tmp_path / "whole", **SETTINGS, regularizers=regularizers)
    with pytest.raises(Interrupted):
        train(scenes, tmp_path / "stopped", **SETTINGS, regularizers=regularizers, on_step=stop)
    resumed = train(scenes, tmp_path / "stopped", **SETTINGS, regularizers=regularizers, resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    assert without_seconds(resumed) == without_seconds(records)
    assert all(math.isfinite(records[-1][name]) for name in REGULARIZERS)
    assert not records[-1].keys() & RATES.keys()
    model, _ = restore_model(load_checkpoint(tmp_path / "whole" / "last.pt"))
    text_encoder = model.text_encoder
    assert (text_encoder.dropout.p, text_encoder.word_dropout, model.image_encoder.patch_dropout) == (0.2, 0.2, 0.2)


def test_seconds_end_the_run_with_its_schedules(scenes: Path, tmp_path: Path) -> None:
    records = train(scenes, tmp_path / "run", seconds=3, image_size=32, batch_size=24, temperature="linear:0.2:0.1")
    assert records[-1]["step"] > 0
    assert [record["temperature"] for record in records] == sorted((r["temperature"] for r in records), reverse=True)
    assert records[-1]["temperature"] < 0.15  # not 0.1 to the digit: what is left may be too short for one more step


def test_too_few_seconds_are_refused_in_words(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="went by before the first step could be made; give more than 0.001"):
        train(scenes, tmp_path / "run", seconds=0.001, image_size=32)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    factors = [learning_rate_factor(k / 100) for k in range(101)]
    assert factors[0] > 0
    assert max(factors) == pytest.approx(1) == factors[5]
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_a_checkpoint_replaces_the_old_one_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(tmp_path / "last.pt", {"step": lambda: 2})
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1


def test_a_run_killed_in_its_first_save_starts_anew(scenes: Path, run: tuple, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt.partial").write_bytes(b"half of it")
    train(scenes, tmp_path / "run", **SETTINGS)
    assert same_weights(run[0], tmp_path / "run")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    scenes: Path, run: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Torch says RuntimeError where a write falls short in the middle of a file."""

    def save_until_full(content: dict, file: object) -> None:
        if content["step"] > 4:
            file.write(b"half of it")
            raise error
        real_save(content, file)

    real_save = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_until_full)
        with pytest.raises(
            InputError, match="what was saved before is still whole: make room, then go on with --resume"
        ):
            train(scenes, tmp_path / "run", **SETTINGS)
    assert not list((tmp_path / "run").glob("*.partial"))
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 4
    train(scenes, tmp_path / "run", **SETTINGS, resume=True)
    assert same_weights(run[0], tmp_path / "run")


def test_a_log_that_finds_no_room_is_an_error_in_words_and_keeps_what_was_there(
    scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "run" / "log.jsonl.partial"

    def block(record: dict) -> None:
        if record["step"] == 4:
            in_the_way.mkdir()

    with pytest.raises(InputError, match=r"cannot write .*log.jsonl \(.*; what was saved before is still whole"):
        train(scenes, tmp_path / "run", **SETTINGS, on_epoch=block)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    in_the_way.rmdir()
    train(scenes, tmp_path / "run", **SETTINGS, resume=True)
    assert same_weights(run[0], tmp_path / "run")
    assert log_of(tmp_path / "run") == without_seconds(run[1])


class Killed(BaseException):
    """What nothing cleans up after."""


@pytest.mark.parametrize("at", ["best.pt", "log.jsonl"])
def test_a_run_killed_between_its_files_catches_up(
    scenes: Path, run: tuple[Path, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The last checkpoint has an epoch more than the best one and the log, and there is none to come."""

    def kill(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.name == at and load_checkpoint(path.with_name("last.pt"))["step"] == 12:
            raise Killed
        return atomic_file(path)

    monkeypatch.setattr(training, "record_score", lambda record: record["step"])  # each epoch is the best so far
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "written_whole", kill)
        patch.setattr(training, "written_whole", kill)
        with pytest.raises(Killed):
            train(scenes, tmp_path / "run", **SETTINGS)
    assert len(log_of(tmp_path / "run")) == 3
    train(scenes, tmp_path / "run", **SETTINGS, resume=True)
    assert same_weights(run[0], tmp_path / "run")
    best, last = (load_checkpoint(tmp_path / "run" / name)["model"] for name in ("best.pt", "last.pt"))
    assert all(torch.equal(best[name], last[name]) for name in last)
    assert log_of(tmp_path / "run") == without_seconds(run[1])


def test_a_run_stopped_before_its_first_step_says_that_nothing_was_saved(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        train(scenes, tmp_path / "run", **SETTINGS, on_step=stop)
    assert "stopped by signal 2 at step 0; nothing was saved yet, so start it again" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_second_signal_waits_until_the_first_has_saved(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    def save_and_stop(*given: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        save_checkpoint(*given)

    monkeypatch.setattr(training, "save_checkpoint", save_and_stop)
    command = CommandLine(prog="train")
    assert command.run(lambda: train(scenes, tmp_path / "run", **SETTINGS, on_step=stop)) == 143
    assert capsys.readouterr().err == "stopped by signal 15 at step 2; go on with --resume\n"
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 2


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (6, "went astray at step 6: .*features holds NaN.*has the model of step 4"),
        (2, "went astray at step 2: .*features holds NaN.*nothing was saved yet; try a higher temperature"),
        (8, "a weight is not finite after step 8; .*has the model of step 4"),
    ],
)
def test_a_run_that_goes_astray_stops_and_keeps_what_was_good(
    scenes: Path, tmp_path: Path, at: int, words: str
) -> None:
    def spoil(step: int, model: torch.nn.Module, _: object) -> None:
        if step == at:
            with torch.no_grad():
                model.text_encoder.hidden.weight[0, 0] = math.nan

    with pytest.raises(InputError, match=words):
        train(scenes, tmp_path / "run", **SETTINGS, on_step=spoil)
    last = tmp_path / "run" / "last.pt"
    assert last.is_file() == (at > 4)
    assert at < 4 or all(parameter.isfinite().all() for parameter in weights(last.parent).values())


def test_a_loss_that_is_not_finite_names_its_parts(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGULARIZERS, "uniformity", lambda views, _: views.image_features.sum() * math.inf)
    words = "step 0: loss [0-9.]+, uniformity (inf|-inf|nan), at temperature 0.2 and with logits up to [0-9.]+; nothing"
    with pytest.raises(InputError, match=words):
        train(scenes, tmp_path / "run", **SETTINGS, regularizers=["uniformity"], temperature="0.2")
    assert not (tmp_path / "run").exists()


def change_a_caption(root: Path) -> None:
    path = root / "annotations" / "captions_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["caption"] += " and"
    path.write_text(json.dumps(content))


def change_an_image(root: Path) -> None:
    path = sorted((root / "images").glob("val_*.png"))[0]
    path.write_bytes(path.read_bytes() + b"more")


def rename_an_image(root: Path) -> None:
    path = root / "annotations" / "captions_train.json"
    content = json.loads(path.read_text())
    name = content["images"][0]["file_name"]
    (root / "images" / name).rename(root / "images" / "another.png")
    path.write_text(json.dumps(content).replace(name, "another.png"))


def leave_a_pair_out(root: Path) -> None:
    path = root / "annotations" / "captions_train.json"
    content = json.loads(path.read_text())
    left_out = content["images"].pop()["id"]
    content["annotations"] = [pair for pair in content["annotations"] if pair["image_id"] != left_out]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("change", [change_a_caption, change_an_image, rename_an_image, leave_a_pair_out])
def test_other_data_under_the_same_name_is_no_resume(scenes: Path, tmp_path: Path, change) -> None:
    shutil.copytree(scenes, tmp_path / "scenes")
    train(tmp_path / "scenes", tmp_path / "run", **SETTINGS | {"epochs": 1})
    change(tmp_path / "scenes")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(InputError, match="has other images or captions than when the run in .* began; start a new run"):
        train(tmp_path / "scenes", tmp_path / "run", **SETTINGS | {"epochs": 1}, resume=True)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_vocabulary_of_another_day_is_no_resume(scenes: Path, run: tuple, tmp_path: Path) -> None:
    """As where a later version of the course splits words in another way."""
    content = load_checkpoint(run[0] / "last.pt")
    *words, one, other = content["vocabulary"]
    save_checkpoint(tmp_path / "run" / "last.pt", content | {"vocabulary": [*words, other, one]})
    with pytest.raises(InputError, match="has another vocabulary than .* start a new run"):
        train(scenes, tmp_path / "run", **SETTINGS, resume=True)


@pytest.mark.parametrize("batch_size", [100, 101, 256])
def test_a_batch_larger_than_the_data_is_cut_and_said(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch_size: int
) -> None:
    records = train(scenes, tmp_path / "run", epochs=2, image_size=32, batch_size=batch_size)
    assert [record["step"] for record in records] == [0, 1, 2]
    said = "has 100 training images, so each batch has all of them"
    assert (said in capsys.readouterr().err) == (batch_size > 100)


def test_tensorboard_gets_every_number_of_the_log(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: dict[tuple[str, int], float] = {}

    class SummaryWriter(contextlib.nullcontext):
        def __enter__(self) -> "SummaryWriter":
            return self

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert self.enter_result == str(tmp_path / "run" / "tensorboard")
            written[name, step] = value

    given = ["--data", scenes, "--out", tmp_path / "run", "--epochs", "2", "--image-size", "32", "--batch-size", "24"]
    given = [*map(str, given), "--cache", str(tmp_path / "cache"), "--tensorboard"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not installed
    assert training.main(given) == 2
    assert "--tensorboard needs the package tensorboard: pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert training.main(given) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert written == {(name, record["step"]): value for record in records[1:] for name, value in record.items()}


def test_evaluation_ends_in_one_json_object(scenes: Path, run: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in (run[0], run[0] / "best.pt"):
        assert evaluation.main(["--checkpoint", str(checkpoint), "--data", str(scenes), "--split", "test"]) == 0
        printed = capsys.readouterr().out.splitlines()
        result = json.loads(printed[-1])
        for metrics in (result, result["exact"]):
            for direction in ("image_to_text", "text_to_image"):
                recalls = {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "chance"}
                assert set(metrics[direction]) == recalls | {"ceiling", "truth_oracle", "fits", "R-precision", "mAP@R"}
                assert 0 <= metrics[direction]["R@1"] <= metrics[direction]["R@10"] <= 100
        assert set(result["minimal_pairs"]) == {"colours", "sides"}
        assert "ceiling" in printed[0]
    assert result["exact"]["text_to_image"]["ceiling"] == pytest.approx(100)


class Mischief:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("mischief",)


def break_image(root: Path) -> None:
    next((root / "images").glob("train_*.png")).write_bytes(b"no image at all")


def break_json(root: Path) -> None:
    (root / "annotations" / "captions_train.json").write_text('{"images": [')


def remove_images(root: Path) -> None:
    for path in (root / "images").glob("train_*.png"):
        path.unlink()


def empty_split(root: Path) -> None:
    (root / "annotations" / "captions_val.json").write_text('{"images": [], "annotations": []}')


def remove_split(root: Path) -> None:
    (root / "annotations" / "captions_val.json").unlink()


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (nothing, ["--data", "{root}/nowhere"], "there is no folder"),
        (remove_split, [], "no split 'val'; the splits are: train, test, minimal"),
        (break_json, [], "not valid JSON"),
        (break_image, [], "cannot read the image"),
        (remove_images, [], "image files of train are missing"),
        (empty_split, [], "has no images"),
        (nothing, ["--temperature", "0"], "above 0"),
        (nothing, ["--temperature", "cosin:0.1:0.05"], "did you mean 'cosine:FROM:TO'?"),
        (nothing, ["--seconds", "-1"], "--seconds must be above 0"),
        (nothing, ["--seconds", "nan"], "--seconds must be above 0"),
        (nothing, ["--epochs", "0"], "--epochs must be above 0"),
        (nothing, ["--epochs", "two"], "invalid float value"),
        (nothing, ["--epochs", "1", "--seconds", "1"], "either --epochs N or --seconds S"),
        (nothing, ["--image-size", "16"], "32 pixels or more"),
        (nothing, ["--batch-size", "1"], "2 or more"),
        (nothing, ["--regularizer", "nope"], "there are: multi_scale"),
        (nothing, ["--regularizer", "token-wise:0.5"], "did you mean 'token_wise'?"),
        (nothing, ["--regularizer", "crops:much"], "the weight in 'crops:much' is no number"),
        (nothing, ["--regularizer", "word_dropout"], "needs its share"),
        (nothing, ["--out", "{root}/annotations/captions_train.json"], "no folder that you may write in"),
        (nothing, ["--resume"], "no run to resume"),
        (nothing, ["--unknown"], "unrecognized arguments"),
    ],
)
def test_bad_input_to_training_is_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change, arguments: list[str], words: str
) -> None:
    root = tmp_path / "scenes"
    write_scenes(root, {"train": 6, "val": 3, "test": 3})
    change(root)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    given = ["--data", str(root), "--out", str(tmp_path / "run"), *(a.format(root=root) for a in arguments)]
    assert exit_code(training.main, given) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "run").exists()


def exit_code(main, arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def test_another_run_is_never_overwritten(scenes: Path, run: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    given = ["--data", str(scenes), "--out", str(out), "--epochs", "3", "--image-size", "32"]
    assert training.main(given) == 2
    assert "perhaps it holds another run" in capsys.readouterr().err
    assert training.main([*given, "--resume"]) == 2
    assert "was started with batch_size 24; resume it with the same settings" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "was"),
    [
        ({"epochs": 4}, "epochs 3"),
        ({"epochs": None, "seconds": 3}, "seconds None, epochs 3"),
        ({"seed": 1}, "seed 0"),
        ({"temperature": "0.07"}, "temperature learned:0.1"),
        ({"image_size": 48}, "image_size 32"),
        ({"regularizers": ["uniformity"]}, r"regularizers \[\]"),
        ({"augment": ["crop"]}, r"augment \[\]"),
        ({"batch_size": 25, "seed": 2}, "seed 0, batch_size 24"),
    ],
)
def test_other_settings_are_no_resume_and_are_named(scenes: Path, run: tuple, changed: dict, was: str) -> None:
    before = (run[0] / "last.pt").read_bytes()
    with pytest.raises(InputError, match=f"was started with {was}; resume it with the same settings"):
        train(scenes, run[0], **SETTINGS | changed, resume=True)
    assert (run[0] / "last.pt").read_bytes() == before


def write_wrong_checkpoint(path: Path, kind: str, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    if kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.touch()
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[:-100])
    elif kind == "code":
        torch.save({**content, "model": Mischief()}, path)
    elif kind == "code in the old format of torch":
        torch.save({**content, "model": Mischief()}, path, _use_new_zipfile_serialization=False)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Mischief(), protocol=2))
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "other version":
        save_checkpoint(path, {**content, "version": 99})
    elif kind == "no version":
        torch.save({name: value for name, value in content.items() if name != "version"}, path)
    elif kind == "other vocabulary":
        save_checkpoint(path, {**content, "vocabulary": content["vocabulary"][:-1]})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no checkpoint at"),
        ("text", "not a checkpoint that this course can read"),
        ("empty", "not a checkpoint that this course can read"),
        ("cut short", "not a checkpoint that this course can read"),
        ("code", "not a checkpoint that this course can read"),
        ("code in the old format of torch", "not a checkpoint that this course can read"),
        ("plain pickle", "not a checkpoint that this course can read"),
        ("foreign", "not a checkpoint of this course"),
        ("other version", "is of version 99, this code reads version 1; train again"),
        ("no version", "is of version None, this code reads version 1; train again"),
        ("other vocabulary", "the parts of the checkpoint are not of one model"),
    ],
)
def test_checkpoints_that_are_not_ours_are_refused(
    scenes: Path,
    run: tuple,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    words: str,
) -> None:
    """In measuring, in searching and in going on; whatever code is in one is never run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    write_wrong_checkpoint(path, kind, run[0] / "last.pt")
    before = path.read_bytes() if path.is_file() else None
    given = ["--checkpoint", str(path.parent), "--data", str(scenes)]
    for more in ([], ["--query", "a circle"]):
        assert evaluation.main([*given, *more]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert words in error
    with pytest.raises(InputError):
        train(scenes, path.parent, **SETTINGS, resume=True)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not (tmp_path / "mischief").exists()


def test_the_code_in_those_checkpoints_would_have_run(
    run: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("code", "code in the old format of torch", "plain pickle"):
        write_wrong_checkpoint(tmp_path / "last.pt", kind, run[0] / "last.pt")
        if kind == "plain pickle":
            pickle.loads((tmp_path / "last.pt").read_bytes())
        else:
            torch.load(tmp_path / "last.pt", weights_only=False)
        (tmp_path / "mischief").rmdir()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_signal_saves_and_ends(scenes: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    given = [
        "--data",
        scenes,
        "--out",
        tmp_path / "run",
        "--seconds",
        "300",
        "--image-size",
        "32",
        "--batch-size",
        "24",
        "--cache",
        tmp_path / "cache",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.training", *map(str, given)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    while not (tmp_path / "run" / "last.pt").exists():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "go on with --resume" in error.decode()
    assert "Traceback" not in error.decode()
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] > 0
