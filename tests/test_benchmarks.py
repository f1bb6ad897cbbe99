"""Benchmarks are run by hand; here, that they run and say what they say they do."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.scenes import write_scenes


def test_the_loader_is_measured_against_its_rivals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
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
    command = [sys.executable, Path(__file__).parent / "benchmarks" / "explorer.py", *given]
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
