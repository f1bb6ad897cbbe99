"""The study of lesson 06, by the protocol in ``data/results/study/PROTOCOL.md``; ``make experiments`` runs it.

``python tests/benchmarks/study.py scenes emoji`` runs these parts; it adds a row to a CSV file after each run, so it
continues where it was stopped. ``--photographs DIR`` is the folder for the part ``photographs``. Without a part, it
prints the verdicts of the rows that are there.
"""

import argparse
import csv
import itertools
import math
import random
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from helpers import pretrained
from helpers.cli import read_arms
from helpers.data import DATA
from helpers.experiments import Row, bootstrap, hit_differences, read_rows, read_study, run_experiment
from helpers.files import atomic_folder
from helpers.report import aligned
from helpers.scenes.render import Difficulty, write_scenes
from helpers.sources import open_pairs
from helpers.sources.coco import write_annotations

STUDY = DATA / "results" / "study"
CROWDED = Difficulty(shapes=(3, 4), scale=0.6, held_out=6)
SCENES = {"train": 2000, "val": 500, "test": 2000}
RATES = ("0.5", "1", "2")  # factors on the learning rates, of which each arm gets the best
CONTROLS = {"other seeds": "--seed 5000", "perturbed": "--temperature 0.1000001", "harmed": "--temperature 1"}


class Part(NamedTuple):
    pairs: str  # the name of its pairs, of which each seed has its own
    seeds: int  # from 0 on
    tuning_seeds: int  # from 1000 on; 0 for no tuning
    options: str  # of all arms


PARTS = {
    "scenes": Part("scenes", 16, 3, "--batch-size 128 --epochs 12"),
    "emoji": Part("emoji", 16, 3, "--batch-size 128 --epochs 12"),
    "photographs": Part("photographs", 10, 3, "--batch-size 128 --epochs 5 --encoder lite0 --text bag"),
    "regularizers": Part("scenes", 8, 2, "--batch-size 128 --epochs 12"),
    "batch": Part("scenes", 3, 0, "--epochs 12"),
    "wrong 0.1": Part("wrong 0.1", 3, 0, "--batch-size 128 --epochs 12"),
    "wrong 0.3": Part("wrong 0.3", 3, 0, "--batch-size 128 --epochs 12"),
}


def resplit(data: Path, out: Path, seed: int, val: int, test: int) -> None:
    """Split all pairs of a folder again, at random, into ``out``, which links to the images."""
    pairs = open_pairs(data)
    records = [record for split in pairs.splits for record in pairs.records(split)]
    records.sort(key=lambda record: record.image["file_name"])
    random.Random(f"{seed}/split").shuffle(records)
    for number, record in enumerate(records):
        record.image["id"] = number
        record.annotations = [a | {"id": f"{number}/{k}", "image_id": number} for k, a in enumerate(record.annotations)]
    by_split = {"train": records[val + test :], "val": records[:val], "test": records[val : val + test]}
    with atomic_folder(out) as partial:
        (partial / "images").symlink_to((data / "images").resolve())
        write_annotations(partial, by_split)


def cut_features(photographs: Path, folder: Path, encoder: str) -> None:
    """Put the frozen features of each split into the cache, cut from those of all photographs, computed once."""
    pairs = open_pairs(photographs)
    paths = sorted(path for split in pairs.splits for path in pairs.captions(split)[0])
    features = pretrained.image_features(paths, encoder, DATA / "cache")  # [photographs, crops, width]
    row_of = {path.name: row for row, path in enumerate(paths)}

    def write(file: Path, own: Sequence[str], name: str) -> None:
        np.save(file, features[[row_of[Path(path).name] for path in own]])

    split_again = open_pairs(folder)
    with patch.object(pretrained, "write_features", write):
        for split in split_again.splits:
            pretrained.image_features(split_again.captions(split)[0], encoder, DATA / "cache")


def prepare(name: str, seed: int, photographs: Path | None) -> None:
    """Write the pairs of a seed, unless they are there."""
    folder = DATA / "study" / f"{name}-{seed}"
    if folder.exists():
        return
    if name == "emoji":
        resplit(DATA / "emoji", folder, seed, val=188, test=565)
    elif name == "photographs":
        resplit(photographs, folder, seed, val=1000, test=1000)
        cut_features(photographs, folder, "lite0")
    else:
        wrong = float(name.removeprefix("wrong ")) if name != "scenes" else 0.0
        write_scenes(folder, SCENES, seed, CROWDED._replace(wrong=wrong))


def alternatives(options: str) -> list[str]:
    """Write out ``{a|b}``: one text for each choice."""
    parts = re.split(r"\{(.*?)\}", options)  # every second part is a choice
    return ["".join(chosen) for chosen in itertools.product(*(part.split("|") for part in parts))]


def read_options(file: Path) -> dict[str, str]:
    """The options of each arm, as text."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: options.strip() for name, _, options in (line.partition(":") for line in lines)}


def write_options(file: Path, arms: Mapping[str, str]) -> None:
    file.write_text("".join(f"{name}: {options}\n" for name, options in arms.items()), encoding="utf-8")


def choose(variants: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> dict[str, str]:
    """For each arm, the variant with the best R@1 on val at the end, as the mean over the tuning seeds."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["arm"], []).append(float(row["validation"].split()[-1]))
    best = {}
    for arm, own in variants.items():
        means = [statistics.mean(scores[f"{arm}, variant {number}"]) for number in range(len(own))]
        best[arm] = own[means.index(max(means))]
    return best


def tune(name: str, part: Part, jobs: int) -> dict[str, str]:
    """Train the variants of each arm on seeds of their own, and return the options of the best; controls are added."""
    variants = {
        arm: [f"{options} --learning-rate {rate}" for options in alternatives(text) for rate in RATES]
        for arm, text in read_options(STUDY / f"{name}_arms.txt").items()
    }
    named = {f"{arm}, variant {number}": text for arm, own in variants.items() for number, text in enumerate(own)}
    rows = run(name, "tuning", part, named, range(1000, 1000 + part.tuning_seeds), jobs)
    chosen = choose(variants, rows)
    if name != "regularizers":
        chosen |= {arm: f"{chosen['baseline']} {options}" for arm, options in CONTROLS.items()}
    return chosen


def run(name: str, stage: str, part: Part, arms: Mapping[str, str], seeds: Sequence[int], jobs: int) -> list[Row]:
    """Write the arms with all their options into a file, run them, and return the rows."""
    file = STUDY / f"{name}_{stage}.txt"
    write_options(file, {arm: f"{part.options} {options}" for arm, options in arms.items()})
    out = STUDY / (f"{name}_tuning.csv" if stage == "tuning" else f"{name}.csv")
    pairs = DATA / "study" / f"{part.pairs}-{{seed}}"
    return run_experiment(pairs, read_arms(file, 12), out, seeds, jobs, DATA / "cache")


def run_part(name: str, photographs: Path | None, jobs: int) -> None:
    part = PARTS[name]
    for seed in (*range(part.seeds), *range(1000, 1000 + part.tuning_seeds)):
        prepare(part.pairs, seed, photographs)
    arms = tune(name, part, jobs) if part.tuning_seeds else read_options(STUDY / f"{name.split()[0]}_arms.txt")
    run(name, "chosen", part, arms, range(part.seeds), jobs)


def gap_closed(rows: Sequence[Row], arm: str) -> float:
    """How far R@1 got from chance to the ceiling, in percent, the mean over the seeds; NaN without a ceiling."""
    if "ceiling" not in rows[0]:
        return math.nan
    own = [row for row in rows if row["arm"] == arm]
    return 100 * statistics.mean((r["R@1"] - r["chance"]) / (r["ceiling"] - r["chance"]) for r in own)


def judged() -> list[Row]:
    """The cells of the study; those with two seeds or more have a bootstrap and the gap that the arm closes."""
    cells = read_study(STUDY, {name: part.seeds for name, part in PARTS.items()})
    for cell in cells:
        cell["bootstrap low"] = cell["bootstrap high"] = cell["gap closed"] = math.nan
        if cell["n"] > 1:
            rows = read_rows(STUDY / f"{cell['source']}.csv")
            cell["bootstrap low"], cell["bootstrap high"] = bootstrap(hit_differences(rows, cell["arm"], "baseline"))
            cell["gap closed"] = gap_closed(rows, cell["arm"])
    return cells


def as_text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def print_verdicts() -> None:
    """Print the verdict table, and write it into ``verdicts.csv``."""
    columns = ("source", "arm", "role", "n", "mean", "low", "high", "bootstrap low", "bootstrap high")
    columns += ("gap closed", "margin", "verdict")
    table = [[as_text(cell[name]) for name in columns] for cell in judged()]
    print("\n".join(aligned([columns, *table])))
    with (STUDY / "verdicts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--photographs", type=Path, help="a folder of photographs with captions")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    for name in options.parts:
        run_part(name, options.photographs, options.jobs)
    if not options.parts:
        print_verdicts()


if __name__ == "__main__":
    main()
