"""What the benchmarks share: facts about the machine, timing by turns, and how a report is written."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from helpers.files import DATA

RESULTS = DATA / "results"


def machine() -> dict[str, int | str]:
    """The facts about this machine that every report has."""
    return {"cores": os.cpu_count() or 1, "threads": torch.get_num_threads(), "torch": torch.__version__}


def take_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each run in each round. The order alternates, since the first to run finds cold caches."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in sorted(runs, reverse=turn % 2 == 1):
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratios(measured: dict[str, list[float]], ours: str) -> dict[str, float]:
    """The median, over the rounds, of what was measured for ``ours`` divided by that of each other run."""
    others = {name: zip(measured[ours], values, strict=True) for name, values in measured.items() if name != ours}
    return {name: statistics.median(our / other for our, other in rounds) for name, rounds in others.items()}


def write_report(out: Path, name: str, report: dict, lines: Iterable[str]) -> None:
    """Print the lines of a table and write them, and everything that was measured, into the folder ``out``."""
    table = "\n".join(lines) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)
