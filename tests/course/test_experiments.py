"""Paired seeds: equal arms differ by nothing, intervals agree with scipy, and a finished run is only read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from harness import write_without_truth
from scipy import stats
from torch import Tensor

from helpers import experiments
from helpers.experiments import (
    compare,
    contents,
    difference,
    in_batch_accuracy,
    measure,
    run_experiment,
    run_once,
    summary,
    verdict,
)
from helpers.files import InputError
from helpers.report import evaluate_split
from helpers.runs import load_checkpoint
from helpers.scenes import COLOURS, SHAPES, Thing, write_scenes
from helpers.training import Recipe, train

PLAIN = Recipe(epochs=1, batch_size=32)
ARMS = {
    "plain": PLAIN,
    "the same": replace(PLAIN, regularizers=("feature_norm:0",)),
    "token-wise": replace(PLAIN, regularizers=("token_wise",)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiment")
    write_scenes(root / "scenes", {"train": 96, "val": 20, "test": 40})
    return root


@pytest.fixture(scope="module")
def result(folder: Path) -> dict:
    return run_experiment(folder / "scenes", ARMS, folder / "runs", [0, 1], cache=folder / "cache")


def test_arms_that_train_alike_differ_by_nothing(result: dict) -> None:
    """Paired seeds share weights, batches and captions, so every difference comes from the arm."""
    assert result["seeds"] == [0, 1]
    plain, same, other = (result["arms"][name]["measures"] for name in ARMS)
    for name, value in same.items():
        assert value["seeds"] == plain[name]["seeds"]
        assert value["difference"] == {"mean": 0, "low": 0, "high": 0, "verdict": "undecided"}
    assert len(plain["linear probe"]["seeds"]) == 2
    assert any(other[name]["seeds"] != value["seeds"] for name, value in plain.items())


def test_the_summary_has_every_arm_and_measure(result: dict) -> None:
    title, *lines = summary(result).splitlines()
    assert "2 paired seeds, 95% intervals" in title
    assert f"plain, minimal pairs: {result['arms']['plain']['measures']['minimal pairs']['mean']:.1f}" in lines
    assert "the same, minimal pairs: +0.0 (+0.0 to +0.0), undecided" in lines
    assert len(lines) == 3 * len(result["arms"]["plain"]["measures"])
    assert json.loads(json.dumps(result))["arms"]["plain"]["measures"] == result["arms"]["plain"]["measures"]


def test_a_finished_experiment_is_only_read(result: dict, folder: Path) -> None:
    for checkpoint in (folder / "runs").rglob("*.pt"):
        checkpoint.unlink()
    assert run_experiment(folder / "scenes", ARMS, folder / "runs", [0, 1], jobs=1) == result


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_is_trained_or_resumed_and_then_kept(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    asked = []

    def fake_train(data: Path, out: Path, recipe: Recipe, resume: bool, cache: Path) -> None:
        asked.append(resume)
        out.mkdir(exist_ok=True)
        shutil.copy(checkpoint, out / "last.pt")

    monkeypatch.setattr(experiments, "train", fake_train)
    out = tmp_path / "run"
    if stopped:
        fake_train(folder, out, PLAIN, resume=False, cache=folder)
    measures = run_once(folder / "scenes", out, PLAIN, folder / "cache", "1a2b")
    assert asked[-1] is stopped
    assert run_once(folder / "scenes", out, PLAIN, folder / "cache", "1a2b") == measures
    assert len(asked) == 1 + stopped
    with pytest.raises(InputError, match=r"was run with epochs 1.*; remove it, or choose another folder"):
        run_once(folder / "scenes", out, replace(PLAIN, epochs=3), folder / "cache", "1a2b")


def test_other_pairs_in_the_same_folder_do_not_get_the_old_measures(result: dict, folder: Path) -> None:
    captions = folder / "scenes" / "annotations" / "captions_val.json"
    before = captions.read_text()
    captions.write_text(before.replace("a picture of ", "there is "))
    with pytest.raises(InputError, match="choose another folder of runs"):
        run_experiment(folder / "scenes", ARMS, folder / "runs", [0, 1], jobs=1)
    captions.write_text(before)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    train(folder / "scenes", folder / "alone", replace(PLAIN, epochs=2), cache=folder / "cache")
    return folder / "alone" / "last.pt"


def test_measures_are_those_of_the_report(folder: Path, checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint)
    measures = measure(content, folder / "scenes")
    report = evaluate_split(content, folder / "scenes", "test")
    assert len(measures) == 9
    assert 100 / 40 <= measures["in-batch accuracy"] <= 100  # from chance, on 40 images
    for way, name in (("image to text", "image_to_text"), ("text to image", "text_to_image")):
        assert measures[f"{way}, all captions"] == report[name]["R@1"]
        assert measures[f"{way}, exact captions"] == report["exact"][name]["R@1"]
    for kind, accuracy in report["minimal_pairs"].items():
        both = (accuracy["image_to_text"] + accuracy["text_to_image"]) / 2
        assert measures[f"minimal pairs, {kind}"] == both
    kinds = measures["minimal pairs, colours"], measures["minimal pairs, sides"]
    assert measures["minimal pairs"] == pytest.approx(sum(kinds) / 2)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch_size", [5, 10, 20, 64])
def test_in_batch_accuracy_agrees_with_loops(batch_size: int) -> None:
    images, texts = F.normalize(normal(4, 20, 8), dim=2).split([1, 3])  # [1 and 3, 20, 8]
    texts = F.normalize(texts + images, dim=2).transpose(0, 1)  # [20, 3, 8]
    right = []
    for shift in range(3):
        for start in range(0, 20, batch_size):
            rows = range(start, min(start + batch_size, 20))
            cosines = torch.stack([texts[i, (i + shift) % 3] for i in rows]) @ images[0, list(rows)].T
            own = torch.arange(len(rows))
            right += [cosines.argmax(0) == own, cosines.argmax(1) == own]
    assert in_batch_accuracy(images[0], texts, batch_size) == pytest.approx(100 * torch.cat(right).double().mean())


def test_in_batch_accuracy_of_unrelated_captions_is_chance() -> None:
    images, texts = F.normalize(normal(2, 2000, 16), dim=2)
    assert in_batch_accuracy(images, images[:, None], 50) == 100
    assert in_batch_accuracy(images, texts[:, None], 50) == pytest.approx(2, abs=1)


def test_contents_are_the_colours_and_shapes_of_a_scene() -> None:
    scene = (Thing("star", "red", "small", "left"), Thing("star", "blue", "large", "right"))
    (row,) = contents([scene])
    named = [word for word, there in zip((*COLOURS, *SHAPES), row.tolist(), strict=True) if there]
    assert named == ["red", "blue", "star"]


@pytest.mark.parametrize("seeds", [2, 5, 9])
def test_intervals_agree_with_the_paired_t_test_of_scipy(seeds: int) -> None:
    values, baseline = torch.rand(2, seeds, generator=torch.Generator().manual_seed(seeds)).mul(100).tolist()
    interval = difference(values, baseline)
    expected = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high))
    assert interval["mean"] == pytest.approx((interval["low"] + interval["high"]) / 2)


def test_a_verdict_needs_an_interval_without_zero() -> None:
    assert verdict(difference([3.0, 4.0, 5.1], [1.0, 2.0, 3.0])) == "better"
    assert verdict(difference([1.0, 2.0, 3.0], [3.0, 4.0, 5.1])) == "worse"
    assert verdict(difference([3.0, 1.0, 5.0], [1.0, 2.0, 3.0])) == "undecided"
    assert verdict({"mean": 0.5, "low": 0.0, "high": 1.0}) == "undecided"
    assert verdict(difference([3.0, 4.0], [1.0, 2.0])) == "undecided"  # two equal differences show no spread


def test_seeds_are_compared_in_pairs() -> None:
    """Where the seeds differ much and the arms little, only the pairs show it."""
    measures = {
        "plain": [{"x": value} for value in (10.0, 50.0, 90.0)],
        "other": [{"x": value} for value in (10.9, 51.0, 91.1)],
    }
    compared = compare(measures)["other"]["x"]
    assert compared["mean"] == 51
    assert compared["difference"]["mean"] == pytest.approx(1)
    assert compared["difference"]["verdict"] == "better"


@pytest.mark.parametrize(
    ("arms", "seeds", "words"),
    [
        ({"plain": PLAIN}, [0, 1], "two arms and two seeds or more, not 1 and 2"),
        ({"plain": PLAIN, "other": PLAIN}, [0], "two arms and two seeds or more, not 2 and 1"),
        ({"plain": PLAIN, "other": PLAIN}, [0, 1], "has no scenes with minimal pairs"),
    ],
)
def test_impossible_experiments_are_refused_and_nothing_is_written(
    folder: Path, tmp_path: Path, arms: dict[str, Recipe], seeds: list[int], words: str
) -> None:
    photographs = write_without_truth(folder / "scenes", tmp_path / "photographs")
    with pytest.raises(InputError, match=words):
        run_experiment(photographs, arms, tmp_path / "runs", seeds)
    assert not (tmp_path / "runs").exists()
