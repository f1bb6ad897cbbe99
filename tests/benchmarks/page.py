"""Write the reports of the benchmarks, and one page with the main ratios of all of them.

``python tests/benchmarks/page.py`` reads the JSON files in ``data/results`` and writes ``benchmark.md`` there.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from helpers.files import DATA, InputError, read_json

RESULTS = DATA / "results"
Row = tuple[str, str, str]  # what is measured, what it is compared with, the ratio


def machine() -> dict[str, int | str]:
    """The facts about this machine that every report has."""
    return {"cores": os.cpu_count() or 1, "threads": torch.get_num_threads(), "torch": torch.__version__}


def write_report(out: Path, name: str, report: dict, table: str) -> None:
    """Print a table and write it, and everything that was measured, into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)


def loss_rows(report: dict) -> Iterator[Row]:
    largest = report["results"][-1]
    pairs = f"{largest['pairs']:,} pairs"
    for rival, ratio in largest["ratio_of_time_to"].items():
        yield f"blockwise loss of {pairs}, time", rival, f"{ratio:.2f} times"
    memory, rival = largest["memory_mb"]["blockwise"], largest["memory_mb"]["open_clip"]
    yield f"blockwise loss of {pairs}, memory", "open_clip", f"1/{rival / memory:.0f}"
    for row in report["alone"]:
        yield f"blockwise loss of {row['pairs']:,} pairs", "", f"{row['memory_mb']:,.0f} MB"
    for row in report["steps"]:
        method = "in one graph" if row["part"] >= row["pairs"] else f"in parts of {row['part']}, gradients cached"
        yield f"training step of {row['pairs']:,} pairs", method, f"{row['memory_mb']:,.0f} MB"


def loader_rows(report: dict) -> Iterator[Row]:
    for row in report["results"]:
        what = f"batches per second of {report['data']} from the cache, {row['image_size']} pixels"
        yield what, "from memory", f"{row['ratio_to']['memory']:.2f} times"
        yield what, "decoding each time", f"{row['ratio_to']['decoding']:.1f} times"


def explorer_rows(report: dict) -> Iterator[Row]:
    row = report["results"][-1]
    own_name = next(name for name in row["rivals"] if name.startswith("explorer"))
    own = row["rivals"][own_name]["p95_ms"]
    for name, measured in row["rivals"].items():
        if name != own_name:
            yield f"{own_name}, {row['pairs']} pairs, 95 % of moves", name, f"{own / measured['p95_ms']:.2f} times"


def training_rows(report: dict) -> Iterator[Row]:
    for row in report["results"]:
        score = f"{row['exact']:.1f} of {row['exact ceiling']:.1f}"
        yield f"R@1 over exact captions, {row['steps']:.0f} steps", row["choice"], score


ROWS: dict[str, Callable[[dict], Iterator[Row]]] = {
    "loss": loss_rows,
    "loader_*": loader_rows,
    "explorer": explorer_rows,
    "training": training_rows,
}


def page(folder: Path) -> str:
    """The page in Markdown, from all reports in a folder."""
    paths = {path: rows for name, rows in ROWS.items() for path in sorted(folder.glob(f"{name}.json"))}
    if not paths:
        raise InputError(f"{folder} has no results of a benchmark; `make benchmark` writes them")
    reports = {path: read_json(path) for path in paths}
    lines = [
        f"| {what} | {rival} | {ratio} | [{path.stem}]({path.stem}.md) |"
        for path, report in reports.items()
        for what, rival, ratio in paths[path](report)
    ]
    machines = {f"{report['cores']} cores" for report in reports.values()}
    machines |= {f"torch {report['torch']}" for report in reports.values() if "torch" in report}
    head = (
        "Written by `make benchmark`. The rivals of one ratio took turns in one run. For time and memory, a ratio "
        f"below 1 means that the course needs less than the rival. Measured with {', '.join(sorted(machines))}."
    )
    columns = ["| what | compared with | | details |", "|:---|:---|---:|:---|"]
    return "\n".join(["# Benchmarks", "", head, "", *columns, *lines]) + "\n"


if __name__ == "__main__":
    (RESULTS / "benchmark.md").write_text(page(RESULTS), encoding="utf-8")
