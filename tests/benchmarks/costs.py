"""Memory and time of the contrastive loss by way and size: the rows of ``data/results/scaling.json``, for lesson 08.

``python tests/benchmarks/costs.py`` measures on the CPU, with ``cuda`` on a GPU, into ``scaling_gpu.json``. There, two
ranks are left out, and each way ends at the size that does not fit into memory.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from helpers.files import DATA
from helpers.scale.costs import DIM, TWO_RANKS, WAYS, measure

SIZES = {"cpu": (1024, 2048, 4096, 8192, 16_384), "cuda": (4096, 8192, 16_384, 32_768, 65_536, 131_072)}


def write_costs(path: Path, device: str, sizes: Sequence[int]) -> None:
    """Measure every way at every size and write the table as JSON."""
    rows = []
    for way in [way for way in WAYS if device == "cpu" or way != TWO_RANKS]:
        try:
            for pairs in sizes:
                rows.append({"pairs": pairs, "way": way} | measure(way, pairs, device=device))
                print(rows[-1], flush=True)
        except torch.cuda.OutOfMemoryError:
            continue
    name = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    report = {"device": name, "torch": torch.__version__, "dim": DIM, "rows": rows}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    write_costs(DATA / "results" / ("scaling.json" if device == "cpu" else "scaling_gpu.json"), device, SIZES[device])
