"""The benchmarks run by hand. These tests check that they run and write complete reports."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from helpers.losses import contrastive_loss
from helpers.scale.costs import random_pairs, with_gradients
from helpers.scenes import write_scenes


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module(name)


def test_loader_report_compares_three_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path / "scenes", {"train": 64, "val": 4, "test": 4})
    benchmark("loader", monkeypatch).run(tmp_path / "scenes", tmp_path, batch_size=4, rounds=1)
    report = json.loads((tmp_path / "loader_scenes.json").read_text())
    (row,) = report["results"]
    assert all(rate > 0 for rate in row["batches_per_second"].values())
    assert row["ratio_to"].keys() == {"memory", "decoding"}
    assert "| 64 |" in (tmp_path / "loader_scenes.md").read_text()


def test_the_costs_have_one_row_per_way_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = benchmark("costs", monkeypatch)
    monkeypatch.setattr(costs, "measure", lambda way, pairs, device: {"megabytes": 1.0, "milliseconds": 2.0})
    costs.write_costs(tmp_path / "scaling.json", "cpu", [4, 8])
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert [(row["way"], row["pairs"]) for row in rows] == [(way, pairs) for way in costs.WAYS for pairs in (4, 8)]


def test_the_checkpointed_loss_equals_the_plain_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointed = benchmark("costs", monkeypatch).checkpointed_contrastive_loss
    for pairs in (5, 300):
        images, texts = (10 * side.double() for side in random_pairs(pairs, 16))
        ours, exact = (with_gradients(loss, images, texts) for loss in (checkpointed, contrastive_loss))
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-12)


def test_the_batch_sizes_have_a_rate_and_a_recall_per_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_size = benchmark("batch_size", monkeypatch)
    batch_size.run(tmp_path / "batch_size.json", {"train": 256, "val": 50, "test": 50}, rates=(0.001,), seeds=(1, 2))
    report = json.loads((tmp_path / "batch_size.json").read_text())
    assert report["ways"].keys() == batch_size.WAYS.keys()
    assert all(way["rate"] == 0.001 and len(way["test"]) == 2 for way in report["ways"].values())


def test_one_group_is_the_usual_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = random_pairs(32, 8)
    group_loss = benchmark("batch_size", monkeypatch).group_loss
    torch.testing.assert_close(group_loss(images, texts, 32), contrastive_loss(images, texts, 0.1))
