"""Measure what the course's training reaches in 15 seconds, and what each choice of its recipe contributes.

``python tests/benchmarks/training.py`` writes a table into ``data/results``. All variants train for the same wall time,
including loading and the last validation. The course's own recipe is also trained four times as long, alone and while
another process is busy.
"""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from report import RESULTS, machine, write_report
from torch import nn

from helpers import training
from helpers.files import DATA, counted
from helpers.report import evaluate_split
from helpers.runs import find_checkpoint, load_checkpoint
from helpers.temperature import LearnedTemperature
from helpers.training import Recipe

OURS, LONGER, BUSY = "the course's own", "the same, four times as long", "and next to a busy process"
WAYS = ("image_to_text", "text_to_image")


def adamw_alone(rate: float) -> Callable[[nn.Module, object], list[torch.optim.Optimizer]]:
    """A replacement for :func:`helpers.optimizers.make_optimizers` that gives every weight to AdamW."""

    def make_optimizers(model: nn.Module, temperature: object) -> list[torch.optim.Optimizer]:
        groups = [{"params": model.parameters(), "weight_decay": 0.01}]
        if isinstance(temperature, LearnedTemperature):
            groups.append({"params": temperature.parameters(), "weight_decay": 0.0})
        return [torch.optim.AdamW(groups, lr=rate)]

    return make_optimizers


VARIANTS: dict[str, dict[str, Any]] = {
    OURS: {},
    "AdamW alone, 0.001": {"optimizers": adamw_alone(0.001)},
    "AdamW alone, 0.003": {"optimizers": adamw_alone(0.003)},
    "batch of 128": {"batch_size": 128},
    "batch of 512": {"batch_size": 512},
    "one caption per image": {"captions": 1},
    "temperature 0.07, fixed": {"temperature": "0.07"},
    "temperature learned from 0.07": {"temperature": "learned:0.07"},
    "48 pixels": {"image_size": (48,)},
    "text dropout of 0.1": {"regularizers": ("text_dropout:0.1",)},
    "flipped together with left and right": {"augment": ("flip:exchange",)},
}


def measure(data: Path, seconds: float, seed: int, variant: dict[str, Any]) -> dict[str, float]:
    """Train and evaluate one variant: its steps, wall seconds and scores, and the ceilings of R@1."""
    settings = dict(variant)
    optimizers = settings.pop("optimizers", training.make_optimizers)
    with TemporaryDirectory() as folder, mock.patch.object(training, "make_optimizers", optimizers):
        start = time.perf_counter()
        records = training.train(data, Path(folder) / "run", Recipe(seconds=seconds, seed=seed, **settings))
        scores = {"steps": records[-1]["step"], "seconds": time.perf_counter() - start}
        result = evaluate_split(load_checkpoint(find_checkpoint(Path(folder) / "run")), data, "test")
    for name, metrics in (("exact", result["exact"]), ("all", result)):
        scores[name] = statistics.mean(metrics[way]["R@1"] for way in WAYS)
        scores[f"{name} ceiling"] = statistics.mean(metrics[way]["ceiling"] for way in WAYS)
    scores["minimal"] = statistics.mean(kind[way] for kind in result["minimal_pairs"].values() for way in WAYS)
    return scores


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy with another process."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def measure_all(data: Path, seconds: float, seeds: int) -> list[dict[str, Any]]:
    """For each variant, the means over the seeds and the scores of each seed."""
    for size in {variant.get("image_size", (64,)) for variant in VARIANTS.values()}:
        with TemporaryDirectory() as folder:  # one step, which decodes the images into the cache
            training.train(data, Path(folder) / "run", Recipe(epochs=1e-6, image_size=size))
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*VARIANTS, LONGER, BUSY)}
    for seed in range(seeds):
        for name, variant in VARIANTS.items():
            measured[name].append(measure(data, seconds, seed, variant))
        measured[LONGER].append(measure(data, 4 * seconds, seed, {}))
        with busy_process():
            measured[BUSY].append(measure(data, 4 * seconds, seed, {}))
    rows = [
        {"choice": name, **{key: statistics.mean(run[key] for run in runs) for key in runs[0]}, "runs": runs}
        for name, runs in measured.items()
    ]
    exact = {row["choice"]: row["exact"] for row in rows}
    for row in rows:
        row["baseline"] = LONGER if row["choice"] == BUSY else OURS
        row["difference"] = row["exact"] - exact[row["baseline"]]
    return rows


def table(report: dict) -> str:
    """The report in Markdown."""
    first = report["results"][0]
    lines = [
        f"Trained on {report['data']} for {report['seconds']:g} s of wall time each, the mean of "
        f"{counted(report['seeds'], 'seed')}; {report['cores']} cores, {report['threads']} threads, torch "
        f"{report['torch']}. In percent of the test split: R@1, the mean of both directions, with a ceiling of "
        f"{first['exact ceiling']:.1f} over the exact captions and {first['all ceiling']:.1f} over all captions; and "
        "the share of minimal pairs in which the right one is chosen (chance is 50).",
        "",
        "| variant | steps | exact captions | difference | all captions | minimal pairs |",
        "|:---|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        difference = f"{row['difference']:+.1f}" if row["choice"] not in (OURS, LONGER) else ""
        lines.append(
            f"| {row['choice']} | {row['steps']:.0f} | {row['exact']:.1f} | {difference} | {row['all']:.1f} "
            f"| {row['minimal']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def run(data: Path = DATA / "scenes", out: Path = RESULTS, seconds: float = 15.0, seeds: int = 1) -> None:
    """Measure all variants on scenes and write the report."""
    report = {"data": data.name, "seconds": seconds, "seeds": seeds, **machine()}
    report["results"] = measure_all(data, seconds, seeds)
    write_report(out, "training", report, table(report))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run()
