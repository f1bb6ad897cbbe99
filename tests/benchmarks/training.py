"""The training minute: what the course's training reaches in a minute, and what each of its choices brings.

``python tests/benchmarks/training.py`` prints a table and writes it, with all that was measured, to ``data/results``.
Every choice is trained for the same wall time, loading and the last validation included, with as many threads, one
after the other, seed by seed; then the course's own choices four times as long, alone and beside another process that
is busy all the time. Measured on the test split, in percent: R@1, the mean of both directions, over the exact captions
and over all, and how often the right one of a minimal pair is chosen.
"""

import contextlib
import json
import os
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
from torch import nn

from helpers import training
from helpers.cli import CommandLine
from helpers.files import InputError, counted
from helpers.report import evaluate_split
from helpers.runs import find_checkpoint, load_checkpoint
from helpers.sources.coco import DATA
from helpers.temperature import LearnedTemperature

OURS, LONGER, BUSY = "the course's own", "the same, four times as long", "and beside a busy process"


def adamw_alone(rate: float) -> Callable[[nn.Module, object], list[torch.optim.Optimizer]]:
    """In the place of :func:`helpers.training.make_optimizers`."""

    def make_optimizers(model: nn.Module, temperature: object) -> list[torch.optim.Optimizer]:
        groups = [{"params": model.parameters(), "weight_decay": 0.01}]
        if isinstance(temperature, LearnedTemperature):
            groups.append({"params": temperature.parameters(), "weight_decay": 0.0})
        return [torch.optim.AdamW(groups, lr=rate)]

    return make_optimizers


CHOICES: dict[str, dict[str, Any]] = {
    OURS: {},
    "AdamW alone, 0.001": {"optimizers": adamw_alone(0.001)},
    "AdamW alone, 0.003": {"optimizers": adamw_alone(0.003)},
    "batch of 128": {"batch_size": 128},
    "batch of 512": {"batch_size": 512},
    "one caption an image": {"captions": 1},
    "temperature 0.07, fixed": {"temperature": "0.07"},
    "temperature learned from 0.07": {"temperature": "learned:0.07"},
    "48 pixels": {"image_size": 48},
    "text dropout of a tenth": {"regularizers": ["text_dropout:0.1"]},
    "flipped with its words": {"augment": ["flip:exchange"]},
}


def measure(data: Path, seconds: float, seed: int, choice: dict[str, Any]) -> dict[str, float]:
    """Train and evaluate: the steps made, the wall seconds, each measure, and the ceilings of R@1."""
    settings = dict(choice)
    optimizers = settings.pop("optimizers", training.make_optimizers)
    with TemporaryDirectory() as folder, mock.patch.object(training, "make_optimizers", optimizers):
        began = time.perf_counter()
        records = training.train(data, Path(folder) / "run", seconds=seconds, seed=seed, **settings)
        passed = time.perf_counter() - began
        result = evaluate_split(load_checkpoint(find_checkpoint(Path(folder) / "run")), data, "test")
    found = {"steps": records[-1]["step"], "seconds": passed}
    for name, metrics in (("exact", result["exact"]), ("all", result)):
        for key, of_name in (("R@1", name), ("ceiling", f"{name} ceiling")):
            found[of_name] = statistics.mean(metrics[way][key] for way in ("image_to_text", "text_to_image"))
    found["minimal"] = statistics.mean(
        kind[way] for kind in result["minimal_pairs"].values() for way in ("image_to_text", "text_to_image")
    )
    return found


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Another process that keeps one core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def warm_up(data: Path) -> None:
    """One step of each image size: decodes the images into the cache, and imports what the first training imports."""
    for size in {choice.get("image_size", 64) for choice in CHOICES.values()}:
        with TemporaryDirectory() as folder:
            training.train(data, Path(folder) / "run", epochs=1e-6, image_size=size)


def measure_all(data: Path, seconds: float, seeds: int) -> list[dict[str, Any]]:
    """Of each choice the mean over the seeds, and the measurement of each seed."""
    warm_up(data)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*CHOICES, LONGER, BUSY)}
    for seed in range(seeds):
        for name, choice in CHOICES.items():
            measured[name].append(measure(data, seconds, seed, choice))
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
        f"{report['torch']}. In percent of the test split: R@1, the mean of both directions, of which perfect "
        f"knowledge of the scenes reaches {first['exact ceiling']:.1f} over the exact captions and "
        f"{first['all ceiling']:.1f} over all; and how often the right one of a minimal pair is chosen, by chance 50.",
        "",
        "| choice | steps | exact captions | more or less | all captions | minimal pairs |",
        "|:---|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        beside = f"{row['difference']:+.1f}" if row["choice"] not in (OURS, LONGER) else ""
        lines.append(
            f"| {row['choice']} | {row['steps']:.0f} | {row['exact']:.1f} | {beside} | {row['all']:.1f} "
            f"| {row['minimal']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def run(data: Path, out: Path, seconds: float, seeds: int) -> None:
    """Measure, print and write.

    Raises:
        InputError: without a seed, or for pairs that are not scenes with minimal pairs.
    """
    if seeds < 1:
        raise InputError(f"--seeds must be 1 or more, not {seeds}")
    if not (data / "annotations" / "captions_minimal.json").is_file():
        raise InputError(f"{data} has no minimal pairs; give a folder that python -m helpers.scenes.render has drawn")
    report = {
        "data": data.resolve().name,
        "seconds": seconds,
        "seeds": seeds,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "results": measure_all(data, seconds, seeds),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "training.md").write_text(table(report), encoding="utf-8")
    print(table(report))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python tests/benchmarks/training.py", description="Measure the training minute.")
    parser.add_argument("--data", type=Path, default=DATA / "scenes", help="drawn scenes (default data/scenes)")
    parser.add_argument("--out", type=Path, default=DATA / "results", help="where to write (default data/results)")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of each training (default 15)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="default 1")
    options = parser.parse_args(arguments)

    def command() -> None:
        torch.set_num_threads(min(2, torch.get_num_threads()))
        run(options.data, options.out, options.seconds, options.seeds)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
