"""What the benchmarks share: facts about the machine, and how a report is written."""

import json
import os
from pathlib import Path

import torch

from helpers.files import DATA

RESULTS = DATA / "results"


def machine() -> dict[str, int | str]:
    """The facts about this machine that every report has."""
    return {"cores": os.cpu_count() or 1, "threads": torch.get_num_threads(), "torch": torch.__version__}


def write_report(out: Path, name: str, report: dict, table: str) -> None:
    """Print a table and write it, and everything that was measured, into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)
