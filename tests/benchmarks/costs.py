"""Memory and time of the contrastive loss by way and size: the rows of ``data/results/scaling.json``, for lesson 08.

``python tests/benchmarks/costs.py`` measures on the CPU, with ``cuda`` on a GPU, into ``scaling_gpu.json``. There, two
ranks are left out, and each way ends at the size that does not fit into memory.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from helpers.files import DATA
from helpers.losses import contrastive_loss
from helpers.scale import costs
from helpers.scale.blockwise import BLOCK_ROWS, blockwise_contrastive_loss, scaled_features
from helpers.scale.distributed import local_contrastive_loss

SIZES = {"cpu": (1024, 2048, 4096, 8192, 16_384), "cuda": (4096, 8192, 16_384, 32_768, 65_536, 131_072)}
ROUNDS = 3
TWO_RANKS = "blockwise, two ranks"


def checkpointed_contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: Tensor) -> Tensor:
    """Compute :func:`helpers.losses.contrastive_loss` from blocks of rows that PyTorch's checkpoint computes twice.

    Source: Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    images, texts = scaled_features(image_features, text_features, temperature)

    def log_sum_exps(rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = rows @ texts.T  # [block, batch]
        return logits.logsumexp(1), logits.logsumexp(0)

    blocks = [checkpoint(log_sum_exps, rows, use_reentrant=False) for rows in images.split(BLOCK_ROWS)]
    row_lses, column_lses = zip(*blocks, strict=True)
    image_lse, text_lse = torch.cat(row_lses), torch.stack(column_lses).logsumexp(0)  # [batch] each
    return ((image_lse + text_lse) / 2 - (images * texts).sum(1)).mean()


WAYS: dict[str, Callable[..., Tensor]] = {
    "plain": contrastive_loss,
    "checkpointed": checkpointed_contrastive_loss,
    "blockwise": blockwise_contrastive_loss,
    TWO_RANKS: local_contrastive_loss,
}


def measure_rank(rank: int, meeting: str, threads: int, pairs: int, dim: int) -> dict[str, float]:
    """Measure one of two processes, which share the threads and the pairs."""
    torch.set_num_threads(max(1, threads // 2))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    return costs.measure(local_contrastive_loss, pairs // 2, dim, ROUNDS)


def measure(way: str, pairs: int, dim: int = costs.DIM, device: str = "cpu") -> dict[str, float]:
    """Measure ``megabytes`` and ``milliseconds`` of a loss with its gradients; of two ranks, the larger numbers."""
    if way != TWO_RANKS:
        return costs.measure(WAYS[way], pairs, dim, ROUNDS, device)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        meeting = Path(folder, "meeting").as_uri()  # the file through which the ranks find each other
        setting = (meeting, torch.get_num_threads(), pairs, dim)
        ranks = [task.result() for task in [pool.submit(measure_rank, rank, *setting) for rank in (0, 1)]]
    return {name: max(rank[name] for rank in ranks) for name in ranks[0]}


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
    report = {"device": name, "torch": torch.__version__, "dim": costs.DIM, "rows": rows}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    write_costs(DATA / "results" / ("scaling.json" if device == "cpu" else "scaling_gpu.json"), device, SIZES[device])
