"""Measure what each choice of the course's recipe contributes when all variants train for the same time.

``python tests/benchmarks/training.py`` writes a table into ``data/results``. The wall time of a variant includes
loading and the last validation. The last row is the course's own recipe, trained four times as long.
"""

import statistics
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

OURS, LONGER = "the course's own", "the same, four times as long"
WAYS = ("image_to_text", "text_to_image")


def adamw_alone(rate: float) -> Callable[[nn.Module, object], list[torch.optim.Optimizer]]:
    """A replacement for :func:`helpers.optimizers.make_optimizers` that gives every weight to AdamW."""

    def make_optimizers(model: nn.Module, temperature: object) -> list[torch.optim.Optimizer]:
        groups = [{"params": model.parameters(), "weight_decay": 0.01, "base_lr": rate}]
        if isinstance(temperature, LearnedTemperature):
            groups.append({"params": temperature.parameters(), "weight_decay": 0.0, "base_lr": rate})
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
    """Train and evaluate one variant: its number of steps, its scores, and the ceilings of R@1."""
    settings = dict(variant)
    optimizers = settings.pop("optimizers", training.make_optimizers)
    with TemporaryDirectory() as folder, mock.patch.object(training, "make_optimizers", optimizers):
        records = training.train(data, Path(folder) / "run", Recipe(seconds=seconds, seed=seed, **settings))
        result = evaluate_split(load_checkpoint(find_checkpoint(Path(folder) / "run")), data, "test")
    scores = {"steps": records[-1]["step"]}
    for name, metrics in (("exact", result["exact"]), ("all", result)):
        scores[name] = statistics.mean(metrics[way]["R@1"] for way in WAYS)
        scores[f"{name} ceiling"] = statistics.mean(metrics[way]["ceiling"] for way in WAYS)
    scores["minimal"] = statistics.mean(kind[way] for kind in result["minimal_pairs"].values() for way in WAYS)
    return scores


def table(report: dict) -> Iterator[str]:
    """The lines of the report in Markdown."""
    first = report["results"][0]
    yield f"Trained on {report['data']} for {report['seconds']:g} s of wall time each, the mean of"
    yield f"{counted(report['seeds'], 'seed')}; {report['cores']} cores, {report['threads']} threads, torch"
    yield f"{report['torch']}. In percent of the test split: R@1, the mean of both directions, with a ceiling of"
    yield f"{first['exact ceiling']:.1f} over the exact captions and {first['all ceiling']:.1f} over all captions; and"
    yield "the share of minimal pairs in which the right one is chosen (chance is 50).\n"
    yield "| variant | steps | exact captions | all captions | minimal pairs |\n|:---|---:|---:|---:|---:|"
    for row in report["results"]:
        scores = " | ".join(f"{row[name]:.1f}" for name in ("exact", "all", "minimal"))
        yield f"| {row['choice']} | {row['steps']:.0f} | {scores} |"


def run(data: Path = DATA / "scenes", out: Path = RESULTS, seconds: float = 15.0, seeds: int = 1) -> None:
    """Measure all variants on scenes and write the report."""
    for size in {variant.get("image_size", (64,)) for variant in VARIANTS.values()}:
        with TemporaryDirectory() as folder:  # one step, which decodes the images into the cache
            training.train(data, Path(folder) / "run", Recipe(epochs=1e-6, image_size=size))
    report = {"data": data.name, "seconds": seconds, "seeds": seeds, **machine(), "results": []}
    plans = [(name, seconds, variant) for name, variant in VARIANTS.items()]
    for name, duration, variant in [*plans, (LONGER, 4 * seconds, {})]:
        runs = [measure(data, duration, seed, variant) for seed in range(seeds)]
        means = {key: statistics.mean(scores[key] for scores in runs) for key in runs[0]}
        report["results"].append({"choice": name, **means})
    write_report(out, "training", report, table(report))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run()
