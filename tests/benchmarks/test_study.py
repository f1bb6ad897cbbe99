"""The study's script: splits, tuning, and the way from the arms to the verdicts."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from test_benchmarks import benchmark

from helpers.cli import read_arms
from helpers.experiments import write_rows
from helpers.scenes import write_scenes
from helpers.sources import open_pairs
from helpers.training import Recipe


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("study", monkeypatch)


def test_alternatives_are_written_out(study: ModuleType) -> None:
    assert study.alternatives("--temperature 0.1") == ["--temperature 0.1"]
    assert study.alternatives("--a {1|2} --b {x y|z}") == [
        "--a 1 --b x y",
        "--a 1 --b z",
        "--a 2 --b x y",
        "--a 2 --b z",
    ]


def test_the_best_variant_on_val_at_the_end_is_chosen(study: ModuleType) -> None:
    validation = {
        "cold, variant 0": ("9 50.0", "9 40.0"),
        "cold, variant 1": ("9 47.0", "9 46.0"),
        "other, variant 0": ("1",),
    }
    rows = [{"arm": arm, "validation": text} for arm, texts in validation.items() for text in texts]
    assert study.choose({"cold": ["--a", "--b"], "other": ["--c"]}, rows) == {"cold": "--b", "other": "--c"}


def test_a_seed_splits_all_pairs_again(study: ModuleType, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", {"train": 12, "val": 4, "test": 4})
    (tmp_path / "scenes" / "annotations" / "captions_minimal.json").unlink()
    captions = {}
    for seed in (0, 1):
        study.resplit(tmp_path / "scenes", tmp_path / str(seed), seed, val=3, test=5)
        pairs = open_pairs(tmp_path / str(seed))
        assert {split: len(pairs.records(split)) for split in pairs.splits} == {"test": 5, "train": 12, "val": 3}
        captions[seed] = {
            r.path.name: pairs.captions(split)[1][i]
            for split in pairs.splits
            for i, r in enumerate(pairs.records(split))
        }
        assert all(record.path.is_file() for split in pairs.splits for record in pairs.records(split))
    assert captions[0] == captions[1]
    assert list(captions[0]) != list(captions[1])


def test_every_arm_of_the_protocol_can_be_read_and_every_cell_has_an_arm(study: ModuleType, tmp_path: Path) -> None:
    cells = [line.split(",")[:3] for line in (study.STUDY / "cells.csv").read_text().splitlines()[1:]]
    for name, part in study.PARTS.items():
        arms = study.read_options(study.STUDY / f"{name.split()[0]}_arms.txt")
        every = {
            f"{arm}, {n}": f"{part.options} {o}"
            for arm, text in arms.items()
            for n, o in enumerate(study.alternatives(text))
        }
        study.write_options(tmp_path / "arms.txt", every)
        assert len(read_arms(tmp_path / "arms.txt", 1)) == len(every)
        planned = {arm for source, arm, role in cells if source == name and role != "struck"}
        controls = set() if name == "regularizers" else study.CONTROLS.keys()
        assert not planned or planned == (arms.keys() | controls) - {"baseline"}


def quick_experiment(
    data: Path, arms: dict[str, Recipe], out: Path, seeds: Sequence[int], *others: object
) -> list[dict]:
    """In place of trainings: what an arm reaches follows from its temperature."""
    rows = []
    for seed, (arm, recipe) in itertools.product(seeds, arms.items()):
        assert Path(str(data).replace("{seed}", str(seed))).is_dir()
        recall = 50 + 100 * float(recipe.temperature) + random.Random(f"{arm} {seed}").random() / 10
        row = {"arm": arm, "seed": seed, "options": "{}", "data": "1a", "R@1": recall, "validation": f"0 {recall}"}
        rows.append(row | {"captions": 1, "hits": "012"})
    write_rows(out, rows)
    return rows


def test_a_part_goes_from_its_arms_to_its_verdicts(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "scenes_arms.txt").write_text("baseline: --temperature 0.1\ncold: --temperature {0.02|0.05}\n")
    (results / "cells.csv").write_text(
        "source,arm,role,margin\nscenes,cold,primary,1.5\nscenes,perturbed,control,1.5\nscenes,harmed,control,1.5\n"
    )
    parts = {"scenes": study.Part("scenes", 4, 2, "--batch-size 24 --epochs 1")}
    controls = {"perturbed": "--temperature 0.1000001", "harmed": "--temperature 0.01"}
    changed = {"STUDY": results, "DATA": tmp_path, "SCENES": {"train": 4, "val": 2, "test": 2}, "CONTROLS": controls}
    for name, value in (changed | {"PARTS": parts, "run_experiment": quick_experiment}).items():
        monkeypatch.setattr(study, name, value)
    for arguments in (["scenes"], []):
        monkeypatch.setattr("sys.argv", ["study.py", *arguments])
        study.main()
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (header[0], header[-1]) == ("source", "verdict")
    assert [(line[1], line[-1]) for line in lines] == [
        ("cold", "worse"),
        ("perturbed", "equivalent"),
        ("harmed", "worse"),
    ]
    chosen = read_arms(results / "scenes_chosen.txt", 12)
    assert chosen["cold"].temperature == "0.05"
    assert chosen["baseline"].batch_size == 24
    assert chosen["perturbed"] == replace(chosen["baseline"], temperature="0.1000001")
    assert (results / "verdicts.csv").read_text().splitlines()[2].startswith("scenes,perturbed,control,4,")
