"""Benchmarks are run by hand; here, that they run and say what they say they do."""

import importlib
import json
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
