"""The commands as a person types them; what they refuse is in tests/robustness/test_bad_input.py."""

import dataclasses
import json
from pathlib import Path

import pytest

from helpers import cli
from helpers.files import InputError
from helpers.training import Recipe


def parse(*arguments: str) -> Recipe:
    options = vars(cli.make_parser().parse_args(["train", "--data", "d", "--out", "o", *arguments]))
    names = {field.name for field in dataclasses.fields(Recipe)}
    return cli.recipe_from({name: options[name] for name in names & options.keys()}, seconds=60.0)


def test_every_field_of_the_recipe_is_an_option_of_train() -> None:
    recipe = parse(
        *("--epochs", "2.5", "--seed", "3", "--temperature", "cosine:0.1:0.05", "--image-size", "48", "64"),
        *("--regularizer", "multi_scale:0.5", "--regularizer", "text_dropout:0.1", "--augment", "flip"),
        *("--batch-size", "32", "--captions", "1", "--loss", "one_way", "--learning-rate", "0.5"),
    )
    assert recipe == Recipe(
        epochs=2.5,
        seed=3,
        temperature="cosine:0.1:0.05",
        image_size=(48, 64),
        regularizers=("multi_scale:0.5", "text_dropout:0.1"),
        augment=("flip",),
        batch_size=32,
        captions=1,
        loss="one_way",
        learning_rate=0.5,
    )
    assert parse("--seconds", "7") == Recipe(seconds=7)
    frozen = parse("--encoder", "lite0", "--text", "bag")  # with --augment they would be refused
    assert frozen == Recipe(seconds=60, encoder="lite0", text="bag")
    default = Recipe(seconds=60)
    names = [f.name for f in dataclasses.fields(Recipe)]
    unchanged = [name for name in names if getattr(recipe, name) == getattr(frozen, name) == getattr(default, name)]
    assert unchanged == []  # so that no field is left out above


def test_without_a_length_train_takes_a_minute() -> None:
    assert parse() == Recipe(seconds=60)


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["train", "evaluate", "search", "experiment", "look", "photographs", "coco", "scenes", "emoji"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"    {command}" in printed for command in commands)
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["trian"])
    assert stop.value.code == 2
    assert "'train'" in capsys.readouterr().err


def test_evaluate_ends_in_one_json_object(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (untrained_run, untrained_run / "last.pt"):
        assert cli.main(["evaluate", "--run", str(run), "--data", str(sixty_scenes), "--split", "test"]) == 0
        printed = capsys.readouterr().out.splitlines()
        result = json.loads(printed[-1])
        for metrics in (result, result["exact"]):
            for direction in ("image_to_text", "text_to_image"):
                assert {"R@1", "R@5", "R@10", "median_rank", "chance", "ceiling"} <= metrics[direction].keys()
                assert 0 <= metrics[direction]["R@1"] <= metrics[direction]["R@10"] <= 100
        assert set(result["minimal_pairs"]) == {"colours", "sides"}
        assert "ceiling" in printed[0]
    assert result["exact"]["text_to_image"]["ceiling"] == pytest.approx(100)


def test_search_prints_the_best_images_first(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["search", "--run", str(untrained_run), "--data", str(sixty_scenes), "a red circle", "--top", "3"]
    assert cli.main(given) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert [float(score) for score, _ in lines] == sorted((float(score) for score, _ in lines), reverse=True)
    assert all(Path(path).is_file() for _, path in lines)


def test_arms_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "arms.txt"
    path.write_text("plain\n\ncold: --temperature 0.05 --epochs 3\ntoken-wise: --regularizer token_wise:0.5\n")
    assert cli.read_arms(path, epochs=2) == {
        "plain": Recipe(epochs=2),
        "cold": Recipe(epochs=3, temperature="0.05"),
        "token-wise": Recipe(epochs=2, regularizers=("token_wise:0.5",)),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain", "needs two arms"),
        ("plain\nplain: --seed 1", "a unique name"),
        ("plain\n: --seed 1", "a unique name"),
        ("plain\ncold: --temperature 0", "arm 'cold': .*above 0"),
    ],
)
def test_arms_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "arms.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        cli.read_arms(tmp_path / "arms.txt", epochs=1)
