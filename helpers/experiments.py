"""Experiments: arms trained over paired seeds, one row per run in a CSV file, and a verdict on every difference."""

import csv
import hashlib
import io
import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.special import stdtr
from tqdm import tqdm

from helpers.evaluation import CONFIDENCE
from helpers.files import DATA, InputError, atomic_file, read_text
from helpers.report import measure
from helpers.runs import fingerprint, load_checkpoint, score
from helpers.sources import open_pairs
from helpers.training import Recipe, train

TEXTS = {"arm", "options", "data", "commit", "versions", "hits", "validation", "weights"}  # columns that hold no number

Row = dict[str, Any]


def difference(values: Sequence[float], baseline: Sequence[float], comparisons: int = 1) -> dict[str, float]:
    """The mean of the paired differences and its 95 % interval by Student's t: ``mean``, ``low``, ``high``.

    With several ``comparisons`` the interval is simultaneous (Bonferroni). It needs two seeds or more.
    """
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    mean, standard_error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    half_width = float(stats.t.isf((1 - CONFIDENCE) / 2 / comparisons, len(differences) - 1)) * standard_error
    return {"mean": mean, "low": mean - half_width, "high": mean + half_width}


def p_values(differences: Sequence[float], margin: float) -> tuple[float, float]:
    """The p-values of the paired t-test against zero, and of equivalence within ``margin``.

    Equivalence needs two one-sided t-tests, against ``-margin`` and ``margin``; the larger p-value counts (Schuirmann,
    1987). Both are 1 below two differences or without spread, but the second is 0 if several are all zero.
    """
    if len(differences) < 2:
        return 1.0, 1.0
    mean, standard_error = np.mean(differences), np.std(differences, ddof=1) / len(differences) ** 0.5
    if standard_error == 0:
        return 1.0, float(mean != 0)
    below = partial(stdtr, len(differences) - 1)  # the probability of a smaller t; Student's t is symmetric
    return float(2 * below(-abs(mean) / standard_error)), float(below((abs(mean) - margin) / standard_error))


def holm(p: Sequence[float]) -> np.ndarray:
    """Adjust the p-values of a family: at a level of 5 %, the probability of any false finding in it is at most 5 %.

    The smallest is multiplied by the number of tests, the next by one less, and so on. Source: Holm, 1979.
    """
    order, adjusted = np.argsort(p), np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def judge(family: Sequence[Sequence[float]], margins: Sequence[float]) -> list[str]:
    """A verdict on each comparison of a family: ``equivalent``, ``better``, ``worse`` or ``undecided``.

    ``family`` has the differences of the paired seeds for each comparison, ``margins`` its smallest difference of
    interest. ``equivalent`` means smaller than the margin, even where it is not zero. Holm adjusts both kinds of tests.
    """
    p = np.array([p_values(differences, margin) for differences, margin in zip(family, margins, strict=True)])
    different, equivalent = holm(p[:, 0]), holm(p[:, 1])
    signs = ["better" if sum(differences) > 0 else "worse" for differences in family]
    return [
        "equivalent" if same < 1 - CONFIDENCE else sign if other < 1 - CONFIDENCE else "undecided"
        for sign, other, same in zip(signs, different, equivalent, strict=True)
    ]


def compare(rows: Sequence[Row], baseline: str, roles: Mapping[str, str], margin: float) -> list[Row]:
    """One cell per arm: its ``role``, the baseline's R@1, and the ``differences`` from it for all paired seeds.

    Arms of one role are one family of tests. The interval is simultaneous over all arms, and NaN below two seeds.
    """
    values = {arm: {row["seed"]: row["R@1"] for row in rows if row["arm"] == arm} for arm in (baseline, *roles)}
    cells = []
    for arm, role in roles.items():
        seeds = sorted(values[arm].keys() & values[baseline].keys())
        own, other = ([values[name][seed] for seed in seeds] for name in (arm, baseline))
        differences = [a - b for a, b in zip(own, other, strict=True)]
        enough = len(seeds) > 1
        interval = difference(own, other, len(roles)) if enough else dict.fromkeys(("mean", "low", "high"), math.nan)
        baseline_recall = statistics.mean(other) if other else math.nan
        cell = {"arm": arm, "role": role, "n": len(seeds), **interval, "margin": margin, "baseline": baseline_recall}
        cells.append(cell | {"differences": differences})
    return cells


def verdicts(cells: Sequence[Row]) -> list[Row]:
    """Add the ``verdict`` to cells, which may come from several sources; the cells of each role are a family."""
    judged = list(cells)
    for role in {cell["role"] for cell in cells}:
        numbers = [number for number, cell in enumerate(cells) if cell["role"] == role]
        family, margins = ([cells[number][name] for number in numbers] for name in ("differences", "margin"))
        for number, verdict in zip(numbers, judge(family, margins), strict=True):
            judged[number] = cells[number] | {"verdict": verdict}
    return judged


def read_study(folder: Path, planned: Mapping[str, int]) -> list[Row]:
    """The cells of a study, judged. ``cells.csv`` has the source, the arm, the role and the margin of each.

    Until all seeds ``planned`` for its source have run, a cell counts in its family with p-values of 1, and its
    ``verdict`` says how many seeds there are. So later rows cannot undo a difference found in another cell.
    """
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        plan = [row for row in csv.DictReader(file) if row["role"] != "struck"]
    cells = []
    for source in dict.fromkeys(row["source"] for row in plan):
        own = [row for row in plan if row["source"] == source]
        roles, margin = {row["arm"]: row["role"] for row in own}, float(own[0]["margin"])
        compared = compare(read_rows(folder / f"{source}.csv"), "baseline", roles, margin)
        cells += [row | cell for row, cell in zip(own, compared, strict=True)]
    waiting = [cell["n"] < planned[cell["source"]] for cell in cells]
    judged = verdicts([cell | {"differences": []} if w else cell for cell, w in zip(cells, waiting, strict=True)])
    for cell, other, waits in zip(cells, judged, waiting, strict=True):
        so_far = f"{cell['n']} of {planned[cell['source']]} seeds" if cell["n"] else "not run yet"
        cell["verdict"] = so_far if waits else other["verdict"]
    return cells


def hit_differences(rows: Sequence[Row], arm: str, baseline: str) -> np.ndarray:
    """The differences of an arm to the baseline in points, per test image: ``[seeds, images]``; the mean is R@1's."""
    shares = {}
    for row in rows:
        hits = [int(digit, 16) for digit in row["hits"]]
        shares[row["arm"], row["seed"]] = 100 * np.array(hits) / (2 * row["captions"])
    seeds = sorted(seed for name, seed in shares if name == arm and (baseline, seed) in shares)
    return np.stack([shares[arm, seed] - shares[baseline, seed] for seed in seeds])


def bootstrap(differences: np.ndarray, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``[seeds, items]`` when seeds are resampled, and items within each seed."""
    generator = np.random.default_rng(seed)
    seeds, items = differences.shape
    means = []
    for _ in range(samples):
        chosen = generator.integers(seeds, size=(seeds, 1)), generator.integers(items, size=(seeds, items))
        means.append(differences[chosen].mean())
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def run_once(data: Path, recipe: Recipe, cache: Path | None) -> Row:
    """Train and measure one run. The same seed gives the same bits; ``weights`` is a hash of them."""
    started = time.monotonic()
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # the lines of two runs would mix
        records = train(data, Path(folder) / "run", recipe, cache=cache)
        checkpoint = load_checkpoint(Path(folder) / "run" / "last.pt")
    weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in checkpoint["model"].values())).hexdigest()
    validation = " ".join(f"{score(record):.2f}" for record in records)  # R@1 on val after each epoch
    seconds = round(time.monotonic() - started, 1)
    return measure(checkpoint, data) | {"validation": validation, "weights": weights[:16], "seconds": seconds}


def read_rows(file: Path) -> list[Row]:
    """The rows of an experiment, one per run; none if there is no file yet."""
    rows = list(csv.DictReader(io.StringIO(read_text(file)))) if file.exists() else []
    if file.exists() and not (rows and {"arm", "seed", "options", "data"} <= rows[0].keys()):
        raise InputError(f"{file} is not the file of an experiment; choose another name")
    if len({(row["arm"], row["seed"]) for row in rows}) < len(rows):
        raise InputError(f"{file} has the same arm and seed in two rows; remove one of them")
    return [{name: value if name in TEXTS else json.loads(value) for name, value in row.items()} for row in rows]


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(file) as target:
        target.write(text.getvalue().encode())


def provenance() -> Row:
    """The commit (with a plus if files in helpers differ from it) and the versions that made a row."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(DATA), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "../helpers") else "")
    return {"commit": commit, "versions": f"python {platform.python_version()}, torch {torch.__version__}"}


def run_experiment(
    data: Path | str, arms: dict[str, Recipe], out: Path, seeds: Sequence[int], jobs: int = 2, cache: Path | None = None
) -> list[Row]:
    """Train every arm with every seed; return one row per run. ``out`` keeps the rows, and only missing ones are run.

    ``{seed}`` in ``data`` stands for the seed, so that each seed can have its own pairs. The seed is added to the
    recipe's. ``jobs`` runs are trained at the same time, each in a process with one thread.
    """
    if len(arms) < 2 or len(seeds) < 2:
        raise InputError(f"an experiment needs two arms and two seeds or more, not {len(arms)} and {len(seeds)}")
    rows, missing, origin = read_rows(out), [], provenance()
    known = {(row["arm"], row["seed"]): row for row in rows}
    for seed in seeds:
        folder = Path(str(data).replace("{seed}", str(seed)))
        pairs = open_pairs(folder)
        data_hash = fingerprint(map(pairs.captions, pairs.splits))[:16]
        for arm, recipe in arms.items():
            defaults = {field.name: field.default for field in fields(Recipe)}
            options = json.dumps({name: value for name, value in vars(recipe).items() if value != defaults[name]})
            row = {"arm": arm, "seed": seed, "options": options, "data": data_hash, **origin}
            old_row = known.get((arm, seed))
            if old_row is None:
                missing.append((row, folder, replace(recipe, seed=recipe.seed + seed)))
            elif json.loads(old_row["options"]) != json.loads(options) or old_row["data"] != data_hash:
                old = f"{old_row['options']}, or with other images or captions"
                raise InputError(f"{out} has seed {seed} of {arm} with {old}; choose another --out, or remove its rows")
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        runs = {pool.submit(run_once, folder, recipe, cache): row for row, folder, recipe in missing}
        try:
            for run in tqdm(as_completed(runs), total=len(runs), unit="run", disable=None):
                rows.append(runs[run] | run.result())
                write_rows(out, rows)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, do not start the remaining runs
    return rows
