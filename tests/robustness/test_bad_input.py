"""Bad input to a command: exit code 2, one sentence on standard error, nothing written, nothing lost."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers import cli
from helpers.runs import load_checkpoint, save_checkpoint
from helpers.scenes import write_scenes

Change = Callable[[Path], None]


def exit_code(arguments: list[str]) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return stop.code


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(root: Path, split: str, change: Callable[[dict], None]) -> None:
    path = root / "annotations" / f"captions_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def nothing(root: Path) -> None:
    pass


def break_image(root: Path) -> None:
    next((root / "images").glob("train_*.png")).write_bytes(b"not an image")


def break_json(root: Path) -> None:
    (root / "annotations" / "captions_train.json").write_text('{"images": [')


def remove_images(root: Path) -> None:
    for path in (root / "images").glob("train_*.png"):
        path.unlink()


def remove_captions(root: Path) -> None:
    edit(root, "train", lambda content: content.update(annotations=[]))


def remove_an_image_entry(root: Path) -> None:
    edit(root, "train", lambda content: content["images"].pop())


def leave_the_folder(root: Path) -> None:
    edit(root, "train", lambda content: content["images"][0].update(file_name="../secret.png"))


def empty_split(root: Path) -> None:
    edit(root, "val", lambda content: content.update(images=[], annotations=[]))


def remove_split(root: Path) -> None:
    (root / "annotations" / "captions_val.json").unlink()


@pytest.fixture(scope="module")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few") / "scenes"
    write_scenes(root, {"train": 6, "val": 3, "test": 3})
    return root


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (nothing, ["--data", "{root}/nowhere"], "no folder"),
        (remove_split, [], "no split 'val'"),
        (break_json, [], "not valid JSON"),
        (break_image, [], "cannot read the image"),
        (remove_images, [], "6 image files missing"),
        (remove_captions, [], "no caption"),
        (remove_an_image_entry, [], "annotation"),
        (leave_the_folder, [], "../secret.png"),
        (empty_split, [], "val"),
        (nothing, ["--temperature", "0"], "above 0"),
        (nothing, ["--temperature", "cosin:0.1:0.05"], "cosine"),
        (nothing, ["--seconds", "-1"], "--seconds must be a finite number above 0"),
        (nothing, ["--epochs", "two"], "invalid float value"),
        (nothing, ["--epochs", "1", "--seconds", "1"], "not both"),
        (nothing, ["--image-size", "16"], "from 32 to 1024 pixels"),
        (nothing, ["--batch-size", "1"], "2 or more"),
        (nothing, ["--regularizer", "nope"], "multi_scale"),
        (nothing, ["--regularizer", "token-wise:0.5"], "token_wise"),
        (nothing, ["--regularizer", "token_wise:much"], "token_wise:much"),
        (nothing, ["--augment", "flop"], "flip"),
        (nothing, ["--out", "{root}/annotations/captions_train.json"], "is a file"),
        (nothing, ["--resume"], "has no last.pt to resume from"),
        (nothing, ["--epoch", "3"], "unrecognized arguments: --epoch 3; --help lists the options"),
        (nothing, ["--device", "tpu"], "cpu"),
        (nothing, ["--seed", "100000000000000000000"], "--seed must be"),
        (nothing, ["--workers", "-1"], "--workers must be 0 or more"),
    ],
)
def test_train_refuses_bad_input(
    few_scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    arguments: list[str],
    words: str,
) -> None:
    root = tmp_path / "scenes"
    shutil.copytree(few_scenes, root)
    change(root)
    before = files_in(tmp_path)
    given = ["train", "--data", str(root), "--out", str(tmp_path / "run")]
    assert exit_code([*given, *(argument.format(root=root) for argument in arguments)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert files_in(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(untrained_run)
    train = ["train", "--data", str(sixty_scenes), "--out", str(untrained_run), "--epochs", "1"]
    assert exit_code(train) == 2
    assert "is not empty" in capsys.readouterr().err
    assert exit_code([*train, "--resume"]) == 2
    assert "was started with" in capsys.readouterr().err
    assert files_in(untrained_run) == before


class Mischief:
    def __reduce__(self) -> tuple:
        return Path.mkdir, (Path("mischief"),)


def write_wrong_checkpoint(path: Path, kind: str, good: Path) -> None:
    content = load_checkpoint(good)
    path.parent.mkdir()
    if kind == "text":
        path.write_text("hello")
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[:-100])
    elif kind == "code":
        torch.save({**content, "model": Mischief()}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Mischief(), protocol=2))
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "other version":
        torch.save({**content, "version": 99}, path)
    elif kind == "other vocabulary":
        save_checkpoint(path, {**content, "vocabulary": content["vocabulary"][:-1]})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no checkpoint at"),
        ("text", "not a checkpoint that this course can read"),
        ("cut short", "not a checkpoint that this course can read"),
        ("code", "not a checkpoint that this course can read"),
        ("pickle", "not a checkpoint that this course can read"),
        ("foreign", "not a checkpoint of this version of the course"),
        ("other version", "not a checkpoint of this version of the course"),
        ("other vocabulary", "do not belong together"),
    ],
)
@pytest.mark.parametrize("command", [["evaluate"], ["search", "a circle"]])
def test_foreign_checkpoints_are_refused_and_their_code_never_runs(
    sixty_scenes: Path,
    untrained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    words: str,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_wrong_checkpoint(tmp_path / "run" / "last.pt", kind, untrained_run / "last.pt")
    before = files_in(tmp_path)
    assert exit_code([*command, "--run", str(tmp_path / "run"), "--data", str(sixty_scenes)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert files_in(tmp_path) == before
    assert not (tmp_path / "mischief").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{root}/nowhere"], "no folder"),
        (["--split", "exam"], "no split 'exam'"),
        (["--splits", "val"], "unrecognized arguments: --splits val"),
        (["--run", "{root}/nowhere"], "no checkpoint at"),
    ],
)
def test_evaluate_refuses_bad_input(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    arguments = [argument.format(root=sixty_scenes) for argument in arguments]
    assert exit_code(["evaluate", "--run", str(untrained_run), "--data", str(sixty_scenes), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
