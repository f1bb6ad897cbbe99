"""The training loop on several processes and on other devices: the same run, started by another command line."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import training
from helpers.data import Collate, ImageTextDataset, read_captions
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.runs import load_checkpoint
from helpers.scale.distributed import PartOfBatch, device_named, mean_over_ranks
from helpers.scenes.render import write_scenes
from helpers.temperature import LearnedTemperature
from helpers.text import WordTokenizer
from helpers.training import BatchLoss, train

SETTINGS = ["--epochs", "3", "--image-size", "32", "--batch-size", "24"]  # 4 steps an epoch


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, {"train": 100, "val": 20, "test": 20})
    return root


def command(scenes: Path, out: Path, ranks: int, *more: str) -> list[str]:
    start = [sys.executable, "-m"]
    start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    paths = ["--data", str(scenes), "--out", str(out), "--cache", str(out.parent / "cache")]
    return [*start, "helpers.training", *paths, *SETTINGS, *more]


def trained(scenes: Path, out: Path, ranks: int, *more: str) -> subprocess.CompletedProcess:
    ran = subprocess.run(command(scenes, out, ranks, *more), capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran


def log_of(out: Path) -> list[dict]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.fixture(scope="module")
def alone(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    trained(scenes, out, 1)
    return out


@pytest.mark.long  # lesson 08 trains on two ranks in every test run
@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_make_the_run_of_one_process(scenes: Path, alone: Path, tmp_path: Path, ranks: int) -> None:
    """Muon makes a whole step of every direction, also of one that is nothing but rounding: so by losses."""
    ran = trained(scenes, tmp_path / "run", ranks)
    assert ran.stdout.count("epoch     3") == 1  # one rank speaks
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
    for ours, theirs in zip(log_of(tmp_path / "run"), log_of(alone), strict=True):
        assert ours["step"] == theirs["step"]
        if ours["loss"] is not None:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01)
            assert ours["temperature"] == pytest.approx(theirs["temperature"], rel=1e-3)


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_ranks_and_says_so(scenes: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    trained(scenes, whole, 2, "--regularizer", "text_dropout:0.1")
    stop_at_an_epoch(scenes, out)
    assert load_checkpoint(out / "last.pt")["ranks"] == 2
    step = load_checkpoint(out / "last.pt")["step"]
    ran = trained(scenes, out, 1, "--regularizer", "text_dropout:0.1", "--resume")
    assert f"had 2 ranks until step {step} and has 1 from there" in ran.stderr
    assert log_of(out)[-1]["step"] == 12
    assert log_of(out)[: step // 4 + 1] == log_of(whole)[: step // 4 + 1]


@pytest.mark.long
def test_two_ranks_that_are_stopped_go_on_to_the_same_bits(scenes: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    trained(scenes, whole, 2, "--regularizer", "text_dropout:0.1")
    stop_at_an_epoch(scenes, out)
    ran = trained(scenes, out, 2, "--regularizer", "text_dropout:0.1", "--resume")
    assert "ranks until step" not in ran.stderr
    assert log_of(out) == log_of(whole)
    ours, theirs = (load_checkpoint(folder / "last.pt")["model"] for folder in (out, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def stop_at_an_epoch(scenes: Path, out: Path) -> None:
    """SIGTERM to torchrun, as a cluster sends it, once the first epoch is saved."""
    process = subprocess.Popen(
        command(scenes, out, 2, "--regularizer", "text_dropout:0.1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0, "the run was done before it could be stopped"


@pytest.mark.long
def test_a_batch_that_ranks_cannot_share_is_refused_and_nothing_is_written(scenes: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [*command(scenes, tmp_path / "run", 2), "--batch-size", "25"], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode != 0
    assert "a batch of 25 pairs cannot be shared equally by 2 processes" in ran.stderr
    assert not (tmp_path / "run").exists()


def test_all_parts_of_a_batch_have_the_images_size_of_the_whole(scenes: Path) -> None:
    paths, captions = read_captions(scenes, "train")
    dataset = ImageTextDataset(paths, captions, image_size=[32, 40, 48])
    sizes = set()
    for first in range(12):
        whole = dataset.__getitems__([first, 30, 40, 50]).images
        part = dataset.__getitems__(PartOfBatch([40, 50], first)).images
        assert torch.equal(part, whole[2:])
        sizes.add(whole.shape[-1])
    assert sizes == {32, 40, 48}


def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == torch.device("cpu")
    for name in ("tpu", "meta", "cuda:x", ""):
        with pytest.raises(InputError, match="choose cpu, cuda, or one GPU"):
            device_named(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("cuda") == torch.device("cuda", 0)
    assert device_named("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="needs 3 GPUs .* here are 2"):
        device_named("cuda:2")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert device_named("cuda") == torch.device("cuda", 1)


@pytest.fixture
def batch(scenes: Path) -> tuple[dict, WordTokenizer]:
    paths, captions = read_captions(scenes, "train")
    dataset = ImageTextDataset(paths, captions, image_size=32, captions_per_image=2)
    tokenizer = WordTokenizer.build(caption for of_image in captions for caption in of_image)
    return Collate(tokenizer)(dataset.__getitems__(range(16))), tokenizer


def in_half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def test_in_bfloat16_losses_and_terms_stay_near_and_are_float32(batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that a GPU takes, on the CPU: layers in bfloat16, similarities and losses in float32."""
    batch, tokenizer = batch
    torch.manual_seed(0)
    model = DualEncoder(len(tokenizer), tokenizer.max_length)
    weights = dict.fromkeys(training.REGULARIZERS, 0.1)
    batch_loss = BatchLoss(model, LearnedTemperature(0.1), weights)

    def found() -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        total, parts = batch_loss(batch, 0.0)
        assert total.dtype == torch.float32
        total.backward()
        return parts, model.image_encoder.down1[0].weight.grad.clone()

    whole, gradient = found()
    monkeypatch.setattr(training, "in_bfloat16", in_half)
    half, half_gradient = found()
    assert any(not torch.equal(half[name], whole[name]) for name in whole)  # it did compute in another way
    for name, value in whole.items():
        assert half[name].dtype == torch.float32, name
        torch.testing.assert_close(
            half[name], value, rtol=0.03, atol=0.01, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), half_gradient.flatten(), dim=0) > 0.99


def test_the_loss_of_two_captions_is_the_mean_over_both(batch) -> None:
    batch, tokenizer = batch
    torch.manual_seed(0)
    model = DualEncoder(len(tokenizer), tokenizer.max_length)
    both, _ = BatchLoss(model, LearnedTemperature(0.1), {"multi_scale": 0.5})(batch, 0.0)
    each = []
    for texts in (batch, *batch["further_texts"]):
        one = {"images": batch["images"], "token_ids": texts["token_ids"], "padding": texts["padding"]}
        each.append(BatchLoss(model, LearnedTemperature(0.1), {"multi_scale": 0.5})(one, 0.0)[0])
    assert len(each) == 2
    torch.testing.assert_close(both, sum(each) / 2)
    assert not math.isclose(each[0].item(), each[1].item(), rel_tol=1e-3)


def test_alone_the_mean_over_ranks_is_the_value() -> None:
    assert mean_over_ranks({"loss": torch.tensor(2.0), "term": torch.tensor(0.5)}) == {"loss": 2.0, "term": 0.5}


@pytest.mark.gpu
def test_a_gpu_trains_the_same_run(scenes: Path, tmp_path: Path) -> None:
    kinds = {
        device: train(scenes, tmp_path / device, 3, image_size=32, batch_size=24, device=device, cache=tmp_path)
        for device in ("cpu", "cuda")
    }
    for ours, theirs in zip(kinds["cuda"], kinds["cpu"], strict=True):
        assert ours["loss"] is None or ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)
    resumed = train(scenes, tmp_path / "cuda", 3, image_size=32, batch_size=24, resume=True, cache=tmp_path)
    assert resumed == kinds["cuda"]
