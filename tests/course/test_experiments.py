"""Experiments over paired seeds: equal arms differ by nothing, intervals are those of scipy, runs are made once."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from helpers import experiments
from helpers.data import ImageTextDataset
from helpers.evaluation import evaluate_split, linear_probe
from helpers.experiments import (
    contents,
    costs,
    difference,
    in_batch_accuracy,
    main,
    measure,
    parse_arm,
    read_arms,
    run_experiment,
    summary,
    verdict,
)
from helpers.files import InputError
from helpers.regularizer_report import PART_SIMILARITIES, similarities_with_parts
from helpers.runs import load_checkpoint, restore_model
from helpers.scenes.render import COLOURS, SHAPES, Thing, write_scenes
from helpers.training import train
from helpers.widgets.figures import effect_sizes

ARMS = """plain: --batch-size 32
the same: --batch-size 32 --regularizer feature_norm:0

token-wise: --batch-size 32 --regularizer token_wise
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiment")
    write_scenes(root / "scenes", {"train": 96, "val": 20, "test": 40})
    (root / "arms.txt").write_text(ARMS)
    return root


@pytest.fixture(scope="module")
def result(folder: Path) -> dict:
    arguments = ["--data", "scenes", "--arms", "arms.txt", "--out", "found/table.json", "--runs", "runs"]
    whole = [str(folder / part) if not part.startswith("--") else part for part in arguments]
    assert main([*whole, "--epochs", "2", "--seeds", "2", "--jobs", "2", "--cache", str(folder / "cache")]) == 0
    return json.loads((folder / "found" / "table.json").read_text())


def test_arms_that_train_alike_differ_by_nothing(result: dict) -> None:
    """The same weights, batches and captions, seed by seed; only so is a difference that of the arm."""
    assert result["seeds"] == [0, 1]
    for name, value in result["arms"]["the same"]["measures"].items():
        assert value["seeds"] == result["arms"]["plain"]["measures"][name]["seeds"]
        assert value["difference"] == {"mean": 0, "low": 0, "high": 0, "verdict": "undecided"}
    seeds = result["arms"]["plain"]["measures"]["image to text, all captions"]["seeds"]
    other = result["arms"]["token-wise"]["measures"]["image to text, all captions"]["seeds"]
    assert len(seeds) == 2
    assert seeds != other


def test_only_an_arm_with_parts_is_searched_with_them(result: dict) -> None:
    with_parts = {name for name in result["arms"]["token-wise"]["measures"] if name.endswith(", with parts")}
    assert len(with_parts) == 5  # exact captions both ways, two kinds of minimal pairs, and their mean
    assert not with_parts & set(result["arms"]["plain"]["measures"])
    compared = result["arms"]["token-wise"]["measures"]["minimal pairs, with parts"]
    alone = result["arms"]["plain"]["measures"]["minimal pairs"]
    assert compared["difference"]["mean"] == pytest.approx(compared["mean"] - alone["mean"])


def test_a_dearer_arm_gets_fewer_epochs(result: dict) -> None:
    arms = result["arms"]
    assert arms["plain"]["time"] == arms["plain"]["memory"] == 1
    assert arms["plain"]["epochs"] == 2
    assert arms["token-wise"]["memory"] > 1.05
    for arm in arms.values():
        assert arm["epochs"] == pytest.approx(2 / arm["time"], abs=0.06)


def test_the_page_names_arms_measures_and_command(result: dict, folder: Path) -> None:
    page = (folder / "found" / "table.md").read_text()
    assert result["command"] in page
    assert "python -m helpers.experiments --data" in page
    assert page.count("| token-wise |") == 2  # by the features alone, and with its parts
    assert page.count("| the same |") == 1
    mean = result["arms"]["plain"]["measures"]["minimal pairs, colours"]["mean"]
    assert f"| {mean:.1f} |" in page
    assert "+0.0 (+0.0 to +0.0)" in page


def test_what_is_done_is_not_run_again(result: dict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for done in (folder / "runs").rglob("*.pt"):
        done.unlink()
    monkeypatch.setattr(experiments, "costs", lambda *_: pytest.fail("costs were known"))
    arms = read_arms(folder / "arms.txt")
    again = run_experiment(folder / "scenes", folder / "runs", arms, 2, [0, 1], 1, folder / "cache")
    assert again == {name: value for name, value in result.items() if name != "command"}


def test_runs_of_other_settings_are_not_taken_for_these(result: dict, folder: Path) -> None:
    arms = read_arms(folder / "arms.txt")
    with pytest.raises(InputError, match=r"was run with .*'epochs': 2.*, not .*'epochs': 3.*; choose another folder"):
        run_experiment(folder / "scenes", folder / "runs", arms, 3, [0, 1], 1, folder / "cache")


@pytest.mark.long
def test_for_equal_steps_every_arm_has_as_many_epochs_and_no_cost_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "costs", lambda *_: pytest.fail("costs do not matter"))
    arms = read_arms(folder / "arms.txt")[::2]
    found = run_experiment(folder / "scenes", folder / "steps", arms, 1, [0, 1], 2, folder / "cache", equal="steps")
    assert found["equal"] == "steps"
    assert [arm["epochs"] for arm in found["arms"].values()] == [1, 1]
    page = experiments.page(found | {"command": "python"})
    assert "as many steps" in page
    assert "memory" not in page


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> dict:
    train(folder / "scenes", folder / "alone", epochs=3, batch_size=32, cache=folder / "cache")
    return load_checkpoint(folder / "alone" / "last.pt")


def test_measures_are_those_of_the_evaluation(folder: Path, checkpoint: dict) -> None:
    found = measure(*restore_model(checkpoint), folder / "scenes", 64, [])
    whole = evaluate_split(checkpoint, folder / "scenes", "test")
    assert len(found) == 9
    assert 100 / 40 <= found["in-batch accuracy"] <= 100  # of chance, on 40 images
    for way in ("image to text", "text to image"):
        of_way = way.replace(" ", "_")
        assert found[f"{way}, all captions"] == whole[of_way]["R@1"]
        assert found[f"{way}, exact captions"] == whole["exact"][of_way]["R@1"]
    kinds = whole["minimal_pairs"]
    for kind in ("colours", "sides"):
        both = (kinds[kind]["image_to_text"] + kinds[kind]["text_to_image"]) / 2
        assert found[f"minimal pairs, {kind}"] == both
    assert found["minimal pairs"] == pytest.approx(
        (found["minimal pairs, colours"] + found["minimal pairs, sides"]) / 2
    )


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch_size", [5, 10, 20, 64])
def test_in_batch_accuracy_is_that_of_loops(batch_size: int) -> None:
    images, texts = F.normalize(normal(4, 20, 8), dim=2).split([1, 3])  # [1 and 3, 20, 8]
    texts = F.normalize(texts + images, dim=2).transpose(0, 1)  # [20, 3, 8]
    right = []
    for turn in range(3):
        for start in range(0, 20, batch_size):
            rows = range(start, min(start + batch_size, 20))
            cosines = torch.stack([texts[i, (i + turn) % 3] for i in rows]) @ images[0, list(rows)].T
            own = torch.arange(len(rows))
            right += [cosines.argmax(0) == own, cosines.argmax(1) == own]
    assert in_batch_accuracy(images[0], texts, batch_size) == pytest.approx(100 * torch.cat(right).double().mean())


def test_captions_of_others_have_the_in_batch_accuracy_of_chance() -> None:
    images, texts = F.normalize(normal(2, 2000, 16), dim=2)
    assert in_batch_accuracy(images, images[:, None], 50) == 100
    assert in_batch_accuracy(images, texts[:, None], 50) == pytest.approx(2, abs=1)


def test_a_linear_probe_reads_what_is_linear_and_nothing_else() -> None:
    features = normal(600, 10)
    linear, product = features[:, 0] > 0.3, features[:, 0] * features[:, 1] > 0
    labels = torch.stack([linear, linear, ~linear], dim=1)
    sides = (slice(0, 400), slice(400, 600))
    assert linear_probe(features[sides[0]], labels[sides[0]], features[sides[1]], labels[sides[1]]) > 90
    labels = product[:, None]
    assert 35 < linear_probe(features[sides[0]], labels[sides[0]], features[sides[1]], labels[sides[1]]) < 65


def test_a_linear_probe_does_not_mind_how_features_are_turned_or_stretched() -> None:
    features, labels = normal(300, 6), normal(300, 4) > 0
    changed = features @ normal(6, 6) + 3
    found = [linear_probe(x[:200], labels[:200], x[200:], labels[200:]) for x in (features, changed)]
    assert found[0] == pytest.approx(found[1])


def test_a_linear_probe_needs_a_row_of_labels_for_each_image() -> None:
    with pytest.raises(ValueError, match="the rows are 4 and 3, 2 and 2"):
        linear_probe(normal(4, 2), torch.ones(3, 1).bool(), normal(2, 2), torch.ones(2, 1).bool())


def test_contents_are_the_colours_and_shapes_of_a_scene() -> None:
    scene = (Thing("star", "red", "small", "left"), Thing("star", "blue", "large", "right"))
    (found,) = contents([scene])
    there = [word for word, present in zip((*COLOURS, *SHAPES), found.tolist(), strict=True) if present]
    assert sorted(there) == ["blue", "red", "star"]


def test_the_figure_of_effects_fills_what_misses_zero_and_marks_what_was_claimed() -> None:
    sure, open_ = {"mean": 2.0, "low": 1.0, "high": 3.0}, {"mean": 0.5, "low": -1.0, "high": 2.0}
    figure = effect_sizes(
        {"warmer": {"a": sure, "b": open_}, "pooled": {"a": open_}}, "points", (-4, 4), {"warmer": 3.0}
    )
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["warmer", "a", "b", "pooled", "a"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [2.0, 0.5, 0.5]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True, True]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in axis.lines if line.get_marker() == "D"] == [
        (3.0, 1),
        (3.0, 2),
    ]
    plt.close(figure)


@pytest.mark.parametrize("name", PART_SIMILARITIES)
def test_parts_are_added_the_same_in_blocks_of_images(
    folder: Path, checkpoint: dict, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = restore_model(checkpoint)
    paths = sorted((folder / "scenes" / "images").glob("test_*"))[:7]
    texts = ["a red circle", "a small blue square left of a star", "two circles", "a star", "a green cross", "a", "b"]
    dataset = ImageTextDataset(paths, texts, 64)
    plain, summed = similarities_with_parts(model, tokenizer, dataset, texts, [name])
    monkeypatch.setattr("helpers.regularizer_report.IMAGES_AT_ONCE", 3)
    in_blocks = similarities_with_parts(model, tokenizer, dataset, texts, [name])
    torch.testing.assert_close((plain, summed), in_blocks, atol=1e-5, rtol=0)
    assert (summed - plain).abs().max() > 0.01
    nothing = similarities_with_parts(model, tokenizer, dataset, texts, [])
    assert torch.equal(*nothing)


def test_costs_take_turns_and_know_the_memory(folder: Path) -> None:
    arms = [parse_arm(text) for text in ("plain", "half: --batch-size 128", "pyramid: --regularizer pyramid")]
    arms = [arm._replace(recipe=arm.recipe | {"batch_size": arm.recipe["batch_size"] // 8}) for arm in arms]
    plain, half, pyramid = costs(folder / "scenes", arms, folder / "cache", rounds=2)
    assert plain == {"time": 1, "memory": 1}
    assert 0.4 < half["memory"] < 0.7
    assert 1.2 < pyramid["memory"] < 2.5
    assert half["time"] > 0


@pytest.mark.parametrize("seeds", [2, 5, 9])
def test_intervals_are_those_of_a_paired_t_test(seeds: int) -> None:
    values, baseline = torch.rand(2, seeds, generator=torch.Generator().manual_seed(seeds)).mul(100).tolist()
    found = difference(values, baseline)
    theirs = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high))
    assert found["mean"] == pytest.approx((found["low"] + found["high"]) / 2)


def test_a_verdict_needs_an_interval_clear_of_zero() -> None:
    assert verdict(difference([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])) == "better"
    assert verdict(difference([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])) == "worse"
    assert verdict(difference([3.0, 1.0, 5.0], [1.0, 2.0, 3.0])) == "undecided"
    assert verdict({"mean": 0.5, "low": 0.0, "high": 1.0}) == "undecided"


@pytest.mark.parametrize(("values", "baseline"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_an_interval_needs_two_pairs(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match="seed by seed; got"):
        difference(values, baseline)


def test_seeds_are_compared_in_pairs() -> None:
    """Where the seeds differ much and the arms little, only pairs show it."""
    arms = [parse_arm("plain"), parse_arm("other")]
    seeds = [10.0, 50.0, 90.0]
    measures = {"plain": [{"x": value} for value in seeds], "other": [{"x": value + 1} for value in seeds]}
    found = summary(arms, measures)["other"]["x"]
    assert found["mean"] == 51
    assert found["difference"] == {"mean": 1, "low": 1, "high": 1, "verdict": "better"}


def test_an_arm_is_a_name_and_options() -> None:
    arm = parse_arm("warm: --regularizer token_wise:0.5 --regularizer word_dropout:0.1 --temperature linear:0.1:0.05")
    assert (arm.name, arm.recipe["temperature"]) == ("warm", "linear:0.1:0.05")
    assert arm.recipe["regularizers"] == ["token_wise:0.5", "word_dropout:0.1"]
    assert parse_arm(" plain ").recipe == parse_arm("plain:").recipe
    assert parse_arm("plain").options == ""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("plain", "needs two arms or more"),
        ("", "needs two arms or more"),
        ("plain\nplain: --batch-size 8", "a name of its own"),
        ("plain\n: --batch-size 8", "an arm is NAME or NAME: OPTIONS"),
        ("plain\n../up: --batch-size 8", "with letters, digits, spaces"),
        ("plain\nx: --regularizer tokenwise", "did you mean 'token_wise'"),
        ("plain\nx: --temperature cosin:1:2", "arm 'x'"),
        ("plain\nx: --regularizer 'open", "arm 'x'"),
    ],
)
def test_bad_arms_are_refused_in_words(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "arms.txt").write_text(lines)
    with pytest.raises(InputError) as refused:
        read_arms(tmp_path / "arms.txt")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seeds", "1"], "--seeds must be 2 or more"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--epochs", "0"], "--epochs must be above 0"),
        (["--arms", "missing.txt"], "cannot read the arms in"),
        (["--data", "missing"], "missing"),
        (["--data", "photographs"], "holds no scenes with minimal pairs"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    folder: Path, tmp_path: Path, given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "photographs" in given:
        write_like_photographs(folder / "scenes", tmp_path / "photographs")
    place = {"--arms": folder / "arms.txt", "--data": folder / "scenes"}
    options, number = dict(zip(given[::2], given[1::2], strict=True)), ("--seeds", "--jobs", "--epochs")
    place |= {key: value if key in number else tmp_path / value for key, value in options.items()}
    out = {"--out": tmp_path / "out" / "x.json", "--runs": tmp_path / "runs"}
    assert main([str(part) for pair in (place | out).items() for part in pair]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()


def write_like_photographs(scenes: Path, to: Path) -> None:
    """The same images and captions, without what only scenes have."""
    (to / "annotations").mkdir(parents=True)
    (to / "images").symlink_to(scenes / "images")
    for split in ("train", "val", "test"):
        content = json.loads((scenes / "annotations" / f"captions_{split}.json").read_text())
        for image in content["images"]:
            image.pop("things")
        (to / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))


def test_an_option_that_training_does_not_know_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "arms.txt").write_text("plain\nx: --no-such-option")
    with pytest.raises(SystemExit) as ended:
        read_arms(tmp_path / "arms.txt")
    assert ended.value.code == 2
