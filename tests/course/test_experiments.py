"""Experiments: equal arms differ by nothing, a finished run is only read, and a run can be repeated to the last bit."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import write_without_truth

from helpers.cli import main
from helpers.experiments import compare, hit_differences, read_rows, run_experiment, write_rows
from helpers.files import InputError
from helpers.report import contents, evaluate_split, measure, scored_columns
from helpers.runs import load_checkpoint
from helpers.scenes import COLOURS, SHAPES, Thing, write_scenes
from helpers.sources.coco import make_record
from helpers.training import Recipe, train

PLAIN = Recipe(epochs=1, batch_size=32)
ARMS = {
    "plain": PLAIN,
    "the same": replace(PLAIN, regularizers=("feature_norm:0",)),
    "other seeds": replace(PLAIN, seed=100),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiment")
    for seed in (0, 1):
        write_scenes(root / f"scenes-{seed}", {"train": 96, "val": 20, "test": 40}, seed)
    return root


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict]:
    return run_experiment(folder / "scenes-{seed}", ARMS, folder / "rows.csv", [0, 1], cache=folder / "cache")


def test_arms_that_train_alike_differ_by_nothing(rows: list[dict]) -> None:
    """Paired seeds share weights, batches and captions, so every difference comes from the arm."""
    row_of = {(row["arm"], row["seed"]): row for row in rows}
    assert len(row_of) == len(rows) == 6
    for seed in (0, 1):
        plain, same, other = (row_of[arm, seed] for arm in ARMS)
        varying = {"arm", "options", "seconds"}
        assert {k: v for k, v in plain.items() if k not in varying} == {
            k: v for k, v in same.items() if k not in varying
        }
        assert plain["weights"] != other["weights"]
        assert plain["data"] == other["data"]
    assert row_of["plain", 0]["data"] != row_of["plain", 1]["data"]
    assert all(cell["differences"] == [0, 0] for cell in compare(rows, "plain", {"the same": "control"}, 1.0))


def test_a_row_says_what_made_it(rows: list[dict]) -> None:
    for row in rows:
        assert row["commit"]
        assert f"torch {torch.__version__}" in row["versions"]
        assert len(row["validation"].split()) == 2  # before training, and after the epoch
    options = json.loads(next(row["options"] for row in rows if row["arm"] == "other seeds"))
    assert (options["epochs"], options["seed"], options["batch_size"]) == (1, 100, 32)
    assert "temperature" not in options  # it is the default


def test_a_finished_experiment_is_only_read(rows: list[dict], folder: Path) -> None:
    file = folder / "rows.csv"
    before = file.read_bytes()
    assert run_experiment(folder / "scenes-{seed}", ARMS, file, [0, 1]) == read_rows(file) == rows
    assert file.read_bytes() == before


def test_a_missing_row_is_run_again_to_the_same_bits(rows: list[dict], folder: Path) -> None:
    file, lost = folder / "again.csv", random.choice(rows)
    write_rows(file, [row for row in rows if row is not lost])
    *_, again = run_experiment(folder / "scenes-{seed}", ARMS, file, [0, 1], jobs=1, cache=folder / "cache")
    assert again | {"seconds": 0} == lost | {"seconds": 0}
    assert read_rows(file)[-1] == again


def test_other_options_or_other_pairs_do_not_get_the_old_rows(rows: list[dict], folder: Path) -> None:
    file = folder / "rows.csv"
    with pytest.raises(InputError, match="choose another --out, or remove its rows"):
        run_experiment(folder / "scenes-{seed}", ARMS | {"plain": replace(PLAIN, epochs=2)}, file, [0, 1])
    with pytest.raises(InputError, match="has seed 1 of plain with .*, or with other images or captions"):
        run_experiment(folder / "scenes-0", ARMS, file, [0, 1])


def test_a_file_of_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.csv"
    other.write_text("file,caption\na.png,a cat\n")
    with pytest.raises(InputError, match="is not the file of an experiment"):
        run_experiment(folder / "scenes-0", ARMS, other, [0, 1])
    assert other.read_text() == "file,caption\na.png,a cat\n"


def test_a_row_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("arm,seed,options,data,R@1\n" + "plain,0,{},1a,50.0\n" * 2)
    with pytest.raises(InputError, match="the same arm and seed in two rows"):
        read_rows(tmp_path / "rows.csv")


def test_the_command_continues_and_judges(
    rows: list[dict], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = tmp_path / "arms.txt"
    arms.write_text(
        "plain: --batch-size 32\nthe same: --batch-size 32 --regularizer feature_norm:0\n"
        "other seeds: --batch-size 32 --seed 100\n"
    )
    options = ["--data", str(folder / "scenes-{seed}"), "--arms", str(arms), "--out", str(folder / "rows.csv")]
    assert main(["experiment", *options, "--epochs", "1", "--seeds", "2"]) == 0
    title, header, same, other = capsys.readouterr().out.splitlines()
    assert title.startswith("test R@1")
    assert header.split()[:2] == ["seeds", "difference"]
    assert same.split() == ["the", "same", "2", "+0.00", "+0.00", "to", "+0.00", "equivalent"]
    assert other.startswith("other seeds")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> dict:
    train(folder / "scenes-0", folder / "alone", replace(PLAIN, epochs=2), cache=folder / "cache")
    return load_checkpoint(folder / "alone" / "last.pt")


def test_measures_are_those_of_the_report(folder: Path, checkpoint: dict) -> None:
    measures = measure(checkpoint, folder / "scenes-0")
    report = evaluate_split(checkpoint, folder / "scenes-0", "test")
    for way, name in (("image to text", "image_to_text"), ("text to image", "text_to_image")):
        assert measures[f"{way}, all captions"] == report[name]["R@1"]
        assert measures[way] == report["exact"][name]["R@1"]
    assert measures["R@1"] == pytest.approx((measures["image to text"] + measures["text to image"]) / 2)
    assert measures["ceiling"] == sum(report["exact"][way]["ceiling"] for way in ("image_to_text", "text_to_image")) / 2
    for kind, accuracy in report["minimal_pairs"].items():
        assert measures[f"minimal pairs, {kind}"] == (accuracy["image_to_text"] + accuracy["text_to_image"]) / 2
    assert 100 / 40 <= measures["in-batch accuracy"] <= 100  # from chance, on 40 images


def test_the_hits_of_each_image_add_up_to_the_recall(folder: Path, checkpoint: dict, tmp_path: Path) -> None:
    photographs = write_without_truth(folder / "scenes-0", tmp_path / "photographs")  # four captions each
    file = photographs / "annotations" / "captions_test.json"
    file.write_text(file.read_text().replace('"level"', '"detail"'))
    for data, captions in ((folder / "scenes-0", 1), (photographs, 4)):
        measures = measure(checkpoint, data)
        hits = [int(digit, 16) for digit in measures["hits"]]
        assert (len(hits), measures["captions"]) == (40, captions)
        assert measures["R@1"] == pytest.approx(100 * sum(hits) / 40 / (2 * captions))


def test_the_differences_of_the_images_have_the_difference_of_the_recalls_as_their_mean(rows: list[dict]) -> None:
    (cell,) = compare(rows, "plain", {"other seeds": "control"}, 1.0)
    differences = hit_differences(rows, "other seeds", "plain")  # [seeds, images]
    assert differences.shape == (2, 40)
    assert differences.mean(1).tolist() == pytest.approx(cell["differences"])


def test_one_name_of_an_emoji_is_scored_in_each_language() -> None:
    record = make_record(0, "a.png", Path("a.png"), ["cat", "puss", "kitty", "猫"])
    for annotation, kind in zip(record.annotations, ("name", "alias", "name", "name"), strict=True):
        annotation |= {"language": "zh" if annotation["caption"] == "猫" else "en", "kind": kind}
    assert scored_columns([record]).tolist() == [0, 3]
    photograph = make_record(1, "b.png", Path("b.png"), ["a dog", "a dog runs"])
    assert scored_columns([record, photograph]).tolist() == [0, 3, 4, 5]


def test_contents_are_the_colours_and_shapes_of_a_scene() -> None:
    scene = (Thing("star", "red", "small", "left"), Thing("star", "blue", "large", "right"))
    (row,) = contents([scene])
    named = [word for word, there in zip((*COLOURS, *SHAPES), row.tolist(), strict=True) if there]
    assert named == ["red", "blue", "star"]


@pytest.mark.parametrize(("arms", "seeds"), [(["plain"], [0, 1]), (["plain", "the same"], [0])])
def test_impossible_experiments_are_refused_and_nothing_is_written(
    folder: Path, tmp_path: Path, arms: list[str], seeds: list[int]
) -> None:
    with pytest.raises(InputError, match="two arms and two seeds or more, not"):
        run_experiment(folder / "scenes-0", {arm: ARMS[arm] for arm in arms}, tmp_path / "rows.csv", seeds)
    assert not (tmp_path / "rows.csv").exists()
