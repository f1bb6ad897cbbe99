"""The page that gathers the headline ratios of all benchmarks.

``python tests/benchmarks/page.py`` reads what the others wrote into ``data/results`` and writes ``benchmark.md`` there.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.cli import CommandLine
from helpers.files import InputError
from helpers.sources.coco import DATA

Row = tuple[str, str, str]  # what, beside what, the figure


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
        way = "in one graph" if row["part"] >= row["pairs"] else f"in parts of {row['part']}, gradients cached"
        yield f"training step of {row['pairs']:,} pairs", way, f"{row['memory_mb']:,.0f} MB"


def loader_rows(report: dict) -> Iterator[Row]:
    for row in report["results"]:
        what = f"batches of {report['data']} from the cache, {row['image_size']} pixels"
        yield what, "from memory", f"{row['ratio_to']['memory']:.2f} times as many a second"
        yield what, "decoding each time", f"{row['ratio_to']['decoding']:.1f} times as many a second"


def explorer_rows(report: dict) -> Iterator[Row]:
    row = report["results"][-1]
    own_name = next(name for name in row["rivals"] if name.startswith("explorer"))
    own = row["rivals"][own_name]["p95_ms"]
    for name, measured in row["rivals"].items():
        if name != own_name:
            yield f"{own_name}, {row['pairs']} pairs, 95 % of moves", name, f"{own / measured['p95_ms']:.2f} times"


def training_rows(report: dict) -> Iterator[Row]:
    for row in report["results"]:
        of_ceiling = f"{row['exact']:.1f} of {row['exact ceiling']:.1f}"
        yield f"R@1 over exact captions, {row['steps']:.0f} steps", row["choice"], of_ceiling


GATHERED: dict[str, Callable[[dict], Iterator[Row]]] = {
    "loss": loss_rows,
    "loader_*": loader_rows,
    "explorer": explorer_rows,
    "training": training_rows,
}


def page(folder: Path) -> str:
    """The page in Markdown.

    Raises:
        InputError: if no benchmark has written into the folder.
    """
    reports = {path: rows for name, rows in GATHERED.items() for path in sorted(folder.glob(f"{name}.json"))}
    if not reports:
        raise InputError(f"{folder} has no results of a benchmark; make benchmark writes them")
    lines, machines = [], set()
    for path, rows in reports.items():
        report = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            f"| {what} | {beside} | {figure} | [{path.stem}]({path.stem}.md) |" for what, beside, figure in rows(report)
        ]
        machines |= {f"{report['cores']} cores"} | ({f"torch {report['torch']}"} if "torch" in report else set())
    head = (
        "Written by `make benchmark`. A ratio is of one run, in which all rivals took turns; times and memory of the "
        f"course come first, so below 1 is less than the rival. Measured with {', '.join(sorted(machines))}."
    )
    return (
        "\n".join(["# Benchmarks", "", head, "", "| what | beside | | all of it |", "|:---|:---|---:|:---|", *lines])
        + "\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python tests/benchmarks/page.py", description="Gather the results of all benchmarks.")
    parser.add_argument("--out", type=Path, default=DATA / "results", help="where they are (default data/results)")
    options = parser.parse_args(arguments)

    def command() -> None:
        text = page(options.out)
        (options.out / "benchmark.md").write_text(text, encoding="utf-8")
        print(text)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
