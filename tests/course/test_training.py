import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from harness import log_of, same_weights

from helpers import runs
from helpers.data import Collate, ImageTextDataset, read_captions
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.losses import LOSSES
from helpers.optimizers import learning_rate_factor
from helpers.regularizers import RATES, REGULARIZERS
from helpers.runs import load_checkpoint, restore_model
from helpers.temperature import LearnedTemperature
from helpers.text import WordTokenizer
from helpers.training import BatchLoss, Recipe, train

RECIPE = Recipe(epochs=3, image_size=32, batch_size=24)  # 4 steps per epoch of the hundred scenes


class StoppedError(Exception):
    """Ends a training in the middle."""


def stop_at(last_step: int):
    def on_step(step: int, *_: object) -> None:
        if step == last_step:
            raise StoppedError

    return on_step


@pytest.fixture(scope="module")
def run(hundred_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(hundred_scenes, out, RECIPE)


def test_a_run_leaves_its_log_and_checkpoints(run: tuple[Path, list[dict]]) -> None:
    out, records = run
    assert sorted(path.name for path in out.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
    assert [record["step"] for record in records] == [0, 4, 8, 12]
    assert [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] == records
    assert records[0]["loss"] is None
    assert records[-1]["learning_rate"] == pytest.approx(0)
    assert records[1]["learning_rate"] == pytest.approx(0.009 * learning_rate_factor(1 / 3))
    assert records[-1]["loss"] < records[1]["loss"]


def test_a_checkpoint_loads_weights_only_and_gives_the_model_back(run: tuple[Path, list[dict]]) -> None:
    content = torch.load(run[0] / "last.pt", weights_only=True)
    assert content["step"] == 12
    assert Recipe(**content["recipe"]) == RECIPE
    model, tokenizer = restore_model(content)
    assert "circle" in tokenizer.vocabulary
    assert not model.training


def test_the_same_seed_gives_the_same_bits(hundred_scenes: Path, run: tuple, tmp_path: Path) -> None:
    train(hundred_scenes, tmp_path / "again", RECIPE)
    assert same_weights(run[0], tmp_path / "again")
    assert log_of(tmp_path / "again") == log_of(run[0])
    train(hundred_scenes, tmp_path / "other", dataclasses.replace(RECIPE, seed=1))
    assert not same_weights(run[0], tmp_path / "other")


@pytest.mark.parametrize("last_step", [4, 5, 6, 8])
def test_a_stopped_run_resumes_to_the_same_bits(
    hundred_scenes: Path, run: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_step: int
) -> None:
    monkeypatch.setattr(runs, "SAVE_EVERY", 0.0)  # save before every step
    with pytest.raises(StoppedError):
        train(hundred_scenes, tmp_path / "run", RECIPE, on_step=stop_at(last_step))
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == last_step - 1
    train(hundred_scenes, tmp_path / "run", RECIPE, resume=True)
    assert same_weights(run[0], tmp_path / "run")
    assert log_of(tmp_path / "run") == log_of(run[0])


def test_a_run_saves_at_the_end_of_an_epoch_and_otherwise_once_a_minute(hundred_scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(hundred_scenes, tmp_path / "run", RECIPE, on_step=stop_at(7))
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 4
    assert runs.SAVE_EVERY == 60


def test_a_finished_run_stays_finished(hundred_scenes: Path, run: tuple, tmp_path: Path) -> None:
    before = (run[0] / "last.pt").read_bytes()
    assert train(hundred_scenes, run[0], RECIPE, resume=True) == run[1]
    assert (run[0] / "last.pt").read_bytes() == before


def test_regularizers_and_schedules_are_part_of_the_run(hundred_scenes: Path, run: tuple, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, temperature="cosine:0.2:0.05", regularizers=["multi_scale:0.5"])
    records = train(hundred_scenes, tmp_path / "run", recipe)
    assert records[0]["temperature"] == pytest.approx(0.2)
    assert records[-1]["temperature"] == pytest.approx(0.05)
    assert records[-1]["multi_scale"] > 0
    assert not same_weights(run[0], tmp_path / "run")


def test_every_regularizer_is_trained_logged_and_resumed(
    hundred_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regularizers = [f"{name}:0.01" for name in REGULARIZERS] + [f"{name}:0.2" for name in RATES]
    recipe = dataclasses.replace(RECIPE, regularizers=regularizers)
    records = train(hundred_scenes, tmp_path / "complete", recipe)
    monkeypatch.setattr(runs, "SAVE_EVERY", 0.0)
    with pytest.raises(StoppedError):
        train(hundred_scenes, tmp_path / "stopped", recipe, on_step=stop_at(7))
    train(hundred_scenes, tmp_path / "stopped", recipe, resume=True)
    assert same_weights(tmp_path / "complete", tmp_path / "stopped")
    assert log_of(tmp_path / "complete") == log_of(tmp_path / "stopped")
    assert all(math.isfinite(records[-1][name]) for name in REGULARIZERS)
    assert not records[-1].keys() & RATES.keys()
    model, _ = restore_model(load_checkpoint(tmp_path / "complete" / "last.pt"))
    assert model.text_encoder.dropout.p == 0.2


def test_seconds_end_the_run_and_its_schedules(hundred_scenes: Path, tmp_path: Path) -> None:
    recipe = Recipe(seconds=3, image_size=32, batch_size=24, temperature="linear:0.2:0.1")
    records = train(hundred_scenes, tmp_path / "run", recipe)
    assert records[-1]["step"] > 0
    assert [record["temperature"] for record in records] == sorted((r["temperature"] for r in records), reverse=True)
    assert records[-1]["temperature"] < 0.15  # the time may be up before one more step


def test_too_few_seconds_are_refused_and_nothing_is_written(hundred_scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="went by before the first step"):
        train(hundred_scenes, tmp_path / "run", Recipe(seconds=0.001, image_size=32))
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_has_all_of_it(
    hundred_scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = train(hundred_scenes, tmp_path / "run", Recipe(epochs=2, image_size=32, batch_size=101))
    assert [record["step"] for record in records] == [0, 1, 2]
    assert "so each batch has all of them" in capsys.readouterr().err


@pytest.mark.parametrize("at", [2, 8])
def test_a_run_that_diverges_stops_and_keeps_the_last_good_model(hundred_scenes: Path, tmp_path: Path, at: int) -> None:
    def spoil(step: int, model: torch.nn.Module, _: object) -> None:
        if step == at:
            with torch.no_grad():
                model.text_encoder.hidden.weight[0, 0] = math.nan

    with pytest.raises(InputError, match=f"diverged by step {4 * math.ceil(at / 4)}: .*last.pt has the last good"):
        train(hundred_scenes, tmp_path / "run", RECIPE, on_step=spoil)
    saved = load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["step"] == (4 if at > 4 else 1)  # the first step is saved, then each epoch
    assert all(weight.isfinite().all() for weight in saved["model"].values())


@pytest.mark.parametrize(
    ("changed", "was"),
    [
        ({"epochs": 4}, "epochs 3"),
        ({"epochs": None, "seconds": 3}, "epochs 3, seconds None"),
        ({"temperature": "0.07"}, "temperature learned:0.1"),
        ({"image_size": 48}, r"image_size \(32,\)"),
        ({"regularizers": ["uniformity"]}, r"regularizers \(\)"),
        ({"batch_size": 25, "seed": 2}, "seed 0, batch_size 24"),
    ],
)
def test_another_recipe_does_not_resume_a_run(hundred_scenes: Path, run: tuple, changed: dict, was: str) -> None:
    before = (run[0] / "last.pt").read_bytes()
    with pytest.raises(InputError, match=f"was started with {was}; resume it with the same recipe"):
        train(hundred_scenes, run[0], dataclasses.replace(RECIPE, **changed), resume=True)
    assert (run[0] / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either --epochs N or --seconds S"),
        ({"epochs": 1, "seconds": 1}, "not both"),
        ({"epochs": 0}, "--epochs must be a finite number above 0"),
        ({"seconds": -1}, "--seconds must be a finite number above 0"),
        ({"seconds": math.nan}, "--seconds must be a finite number above 0"),
        ({"epochs": 1, "image_size": 16}, "from 32 to 1024 pixels"),
        ({"epochs": 1, "image_size": ()}, "from 32 to 1024 pixels"),
        ({"epochs": 1, "batch_size": 1}, "2 or more"),
        ({"epochs": 1, "captions": 0}, "1 or more"),
        ({"epochs": 1, "loss": "two_way"}, "contrastive, one_way, dot_product"),
        ({"epochs": 1, "learning_rate": 0}, "--learning-rate must be a finite number above 0"),
        ({"epochs": 1, "temperature": "0"}, "above 0"),
        ({"epochs": 1, "temperature": "cosin:0.1:0.05"}, "cosine"),
        ({"epochs": 1, "regularizers": ["token-wise:0.5"]}, "token_wise"),
        ({"epochs": 1, "augment": ["flop"]}, "flip"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_where_it_is_written(fields: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Recipe(**fields)


@pytest.fixture
def batch(hundred_scenes: Path) -> tuple[dict, WordTokenizer]:
    paths, captions = read_captions(hundred_scenes, "train")
    dataset = ImageTextDataset(paths, captions, image_size=32, captions_per_image=2)
    tokenizer = WordTokenizer.build(caption for image_captions in captions for caption in image_captions)
    return Collate(tokenizer)(dataset.__getitems__(range(16))), tokenizer


def test_the_loss_of_two_captions_is_the_mean_of_both(batch: tuple[dict, WordTokenizer]) -> None:
    batch, tokenizer = batch
    torch.manual_seed(0)
    model = DualEncoder(len(tokenizer), tokenizer.max_length)
    batch_loss = BatchLoss(model, LearnedTemperature(0.1), {"multi_scale": 0.5})
    both, _ = batch_loss(batch, 0.0)
    each = []
    for texts in (batch, *batch["further_texts"]):
        one = {"images": batch["images"], "token_ids": texts["token_ids"], "padding": texts["padding"]}
        each.append(batch_loss(one, 0.0)[0])
    assert len(each) == 2
    torch.testing.assert_close(both, sum(each) / 2)
    assert not math.isclose(each[0].item(), each[1].item(), rel_tol=1e-3)


def test_the_total_is_the_loss_plus_the_weighted_terms(batch: tuple[dict, WordTokenizer]) -> None:
    batch, tokenizer = batch
    weights = {"multi_scale": 0.5, "uniformity": 0.1}
    batch_loss = BatchLoss(DualEncoder(len(tokenizer), tokenizer.max_length), LearnedTemperature(0.1), weights)
    total, parts = batch_loss(batch, 0.0)
    expected = parts["loss"] + 0.5 * parts["multi_scale"] + 0.1 * parts["uniformity"]
    torch.testing.assert_close(total.detach(), expected)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_that_the_recipe_names_is_minimised(batch: tuple[dict, WordTokenizer], name: str) -> None:
    batch, tokenizer = batch
    model = DualEncoder(len(tokenizer), tokenizer.max_length)
    total, _ = BatchLoss(model, lambda progress: 0.1, {}, name)(batch, 0.0)
    losses = [
        LOSSES[name](*model(batch["images"], texts["token_ids"], texts["padding"]), 0.1)
        for texts in (batch, *batch["further_texts"])
    ]
    torch.testing.assert_close(total, sum(losses) / 2)


@pytest.mark.gpu
def test_a_gpu_trains_the_same_run(hundred_scenes: Path, tmp_path: Path) -> None:
    records = {device: train(hundred_scenes, tmp_path / device, RECIPE, device=device) for device in ("cpu", "cuda")}
    for ours, theirs in zip(records["cuda"], records["cpu"], strict=True):
        assert ours["loss"] is None or ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)
    assert train(hundred_scenes, tmp_path / "cuda", RECIPE, resume=True) == records["cuda"]
