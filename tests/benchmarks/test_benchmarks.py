"""Benchmarks are run by hand; here, that they run and say what they say they do."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.encoders import DualEncoder
from helpers.scenes.render import write_scenes
from helpers.temperature import LearnedTemperature


def test_the_loader_is_measured_against_its_rivals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    main = importlib.import_module("loader").main
    write_scenes(tmp_path / "scenes", {"train": 64, "val": 4, "test": 4})
    given = ["--data", tmp_path / "scenes", "--out", tmp_path / "results", "--batch-size", 4, "--rounds", 1]
    assert main(list(map(str, given))) == 0
    report = json.loads((tmp_path / "results" / "loader_scenes.json").read_text())
    assert report["data"] == "scenes"
    for row in report["results"]:
        assert all(rate > 0 for rate in row["batches_per_second"].values())
        assert row["ratio_to"].keys() == {"memory", "decoding"}
    assert str(tmp_path) not in (tmp_path / "results" / "loader_scenes.json").read_text()
    assert (tmp_path / "results" / "loader_scenes.md").read_text() in capsys.readouterr().out
    assert main(["--data", str(tmp_path / "scenes"), "--out", str(tmp_path / "results"), "--batch-size", "256"]) == 2
    assert "4,096" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.browser
def test_the_explorer_is_measured_against_a_rival(tmp_path: Path) -> None:
    rivals = ["Output", "explorer as a page"]
    few = ["--pairs", 8, "--moves", 2, "--rounds", 1, "--seconds", 0.5]
    given = ["--out", tmp_path, *few, *[part for rival in rivals for part in ("--rival", rival)]]
    # A process of its own: beside the browser of the other tests Playwright starts no second one.
    command = [sys.executable, Path(__file__).parents[1] / "benchmarks" / "explorer.py", *given]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if "no browser found" in result.stderr and os.environ.get("CI") != "true":
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "explorer.json").read_text())
    (row,) = report["results"]
    assert row["pairs"] == 8
    assert list(row["rivals"]) == rivals
    for measured in row["rivals"].values():
        assert len(measured["latencies_ms"]) == report["moves"] == 2
        assert 0 < measured["median_ms"] <= measured["p95_ms"]
        assert 0 < measured["frames_with_new_picture_percent"] <= 100
        assert measured["moves_per_second"] > 0
    assert 0 <= row["rivals"]["explorer as a page"]["idle_percent"] < 100
    assert str(tmp_path) not in (tmp_path / "explorer.json").read_text()
    assert (tmp_path / "explorer.md").read_text() in result.stdout


@pytest.mark.long
def test_the_losses_are_measured_in_time_and_memory_and_a_step_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    loss = importlib.import_module("loss")
    loss.run(tmp_path, {2048: 1}, alone=[2048], steps=[(1024, 1024), (1024, 64)], dim=16)
    report = json.loads((tmp_path / "loss.json").read_text())
    (row,) = report["results"]
    assert row["pairs"] == 2048
    assert row["ratio_of_time_to"].keys() == {"open_clip", "four products"}
    assert all(ratio > 0 for ratio in row["ratio_of_time_to"].values())
    assert row["ratio_of_memory_to"]["open_clip"] < 0.5
    assert report["largest_error"]["blockwise"] < 2e-6
    whole, in_parts = report["steps"]
    assert in_parts["memory_mb"] < whole["memory_mb"] / 4
    assert str(tmp_path) not in (tmp_path / "loss.json").read_text()
    assert (tmp_path / "loss.md").read_text() in capsys.readouterr().out


@pytest.mark.long
def test_the_training_minute_is_measured_choice_by_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("training")
    few = {name: module.CHOICES[name] for name in (module.OURS, "AdamW alone, 0.001")}
    monkeypatch.setattr(module, "CHOICES", few)
    write_scenes(tmp_path / "scenes", {"train": 512, "val": 16, "test": 16})
    given = ["--data", tmp_path / "scenes", "--out", tmp_path / "results", "--seconds", 6]
    assert module.main(list(map(str, given))) == 0
    report = json.loads((tmp_path / "results" / "training.json").read_text())
    assert [row["choice"] for row in report["results"]] == [*few, module.LONGER, module.BUSY]
    for row in report["results"]:
        assert row["steps"] > 0
        assert 0 <= row["exact"] <= row["exact ceiling"] <= 100
        assert row["baseline"] == (module.LONGER if row["choice"] == module.BUSY else module.OURS)
    assert report["results"][0]["difference"] == 0
    assert str(tmp_path) not in (tmp_path / "results" / "training.json").read_text()
    assert (tmp_path / "results" / "training.md").read_text() in capsys.readouterr().out
    assert module.main([*map(str, given), "--seeds", "0"]) == 2


def test_without_muon_every_weight_has_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("training")
    model, temperature = DualEncoder(10, 5), LearnedTemperature(0.1)
    (optimizer,) = module.CHOICES["AdamW alone, 0.003"]["optimizers"](model, temperature)
    assert isinstance(optimizer, torch.optim.AdamW)
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert held == {id(weight) for part in (model, temperature) for weight in part.parameters()}


def test_the_page_gathers_the_ratios_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    main = importlib.import_module("page").main
    assert main(["--out", str(tmp_path)]) == 2
    assert "no results of a benchmark" in capsys.readouterr().err
    machine = {"cores": 2, "torch": "2.0"}
    loss = {
        "results": [
            {
                "pairs": 4096,
                "ratio_of_time_to": {"open_clip": 0.5},
                "memory_mb": {"blockwise": 10, "open_clip": 120},
            }
        ],
        "alone": [{"pairs": 8192, "memory_mb": 20}],
        "steps": [{"pairs": 512, "part": 64, "memory_mb": 30}],
    }
    training = {"results": [{"choice": "ours", "steps": 7, "exact": 50.0, "exact ceiling": 90.0}]}
    for name, report in (("loss", loss), ("training", training)):
        (tmp_path / f"{name}.json").write_text(json.dumps(machine | report))
    assert main(["--out", str(tmp_path)]) == 0
    text = (tmp_path / "benchmark.md").read_text()
    for figure in ("0.50 times", "1/12", "20 MB", "30 MB", "50.0 of 90.0", "2 cores, torch 2.0"):
        assert figure in text
    assert text in capsys.readouterr().out
