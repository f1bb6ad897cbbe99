"""What the contrastive loss costs at each batch size, measured, and what a cost model makes of larger ones.

``python -m helpers.scale.costs --out data/results/scaling.json`` measures on this machine's CPU; with ``--device cuda`` on
its GPU.
"""

import ctypes
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from helpers.cli import CommandLine
from helpers.files import InputError
from helpers.losses import check_features, check_temperature, contrastive_loss
from helpers.scale.blockwise import BLOCK, blockwise_contrastive_loss, scaled_sides
from helpers.scale.distributed import local_contrastive_loss

SIZES = {"cpu": (1024, 2048, 4096, 8192, 16_384), "cuda": (4096, 8192, 16_384, 32_768, 65_536, 131_072)}
DIM = 512
TWO_RANKS = "blockwise, two ranks"
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h: memory of this size and more is asked of the system by itself


def checkpointed_contrastive_loss(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """:func:`helpers.losses.contrastive_loss` whose graph keeps no logits: blocks of rows under PyTorch's checkpoint.

    Args, returns and raises as :func:`helpers.losses.contrastive_loss`.

    Source: Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    images, texts = scaled_sides(image_features, text_features, temperature)

    def sums_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = rows @ texts.T  # [block, batch]
        return logits.logsumexp(1), logits.logsumexp(0)

    blocks = [checkpoint(sums_of, rows, use_reentrant=False) for rows in images.split(BLOCK)]
    of_rows, of_columns = zip(*blocks, strict=True)
    of_images, of_texts = torch.cat(of_rows), torch.stack(of_columns).logsumexp(0)  # [batch] each
    return ((of_images + of_texts) / 2 - (images * texts).sum(1)).mean()


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "plain": contrastive_loss,
    "checkpointed": checkpointed_contrastive_loss,
    "blockwise": blockwise_contrastive_loss,
    TWO_RANKS: local_contrastive_loss,
}


def random_pairs(pairs: int, dim: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Image features ``[pairs, dim]``, and text features that are these with three times as much noise."""
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randn(pairs, dim, generator=generator, device=device)
    return images, torch.randn(pairs, dim, generator=generator, device=device).mul_(3).add_(images)


def with_gradients(way: str, images: Tensor, texts: Tensor) -> list[Tensor]:
    """The value of the loss, and its gradients by images, texts and temperature."""
    temperature = torch.tensor(0.07, dtype=images.dtype, device=images.device, requires_grad=True)
    inputs = (images.requires_grad_(), texts.requires_grad_(), temperature)
    value = WAYS[way](*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def extra_megabytes(run: Callable[[], object], device: str = "cpu") -> float:
    """By how many MB the memory of this process, or of its GPU, is larger at its peak during ``run`` than before.

    Linux tells it exactly. macOS says by how much the process outgrows its largest size so far, Windows nothing: NaN.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if Path("/proc/self/clear_refs").exists():
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)  # what is freed is given back: glibc may hold far more than is in use
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the largest size, begins again at VmRSS, the present one
        before = resident("VmRSS")
        run()
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # as glibc itself would have set it by now
        return resident("VmHWM") - before
    try:
        import resource  # not above: Windows has none, and no other way to tell that is as simple
    except ImportError:
        run()
        return math.nan
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6  # macOS counts bytes


def resident(field: str) -> float:
    """MB of this process in memory, as Linux tells it: ``VmRSS`` now, ``VmHWM`` at its largest."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024 / 1e6


def least_milliseconds(run: Callable[[], object], rounds: int, device: str) -> float:
    """Of ``rounds`` runs the fastest, since what else the machine does can only slow one down."""
    seconds = []
    for _ in range(rounds):
        if dist.is_initialized():
            dist.barrier()
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds)


def measure_here(way: str, pairs: int, dim: int = DIM, rounds: int = 3, device: str = "cpu") -> dict[str, float]:
    """MB and milliseconds of one loss with its gradients in this process, after a warm-up with 256 pairs."""
    with_gradients(way, *random_pairs(256, dim, device))
    images, texts = random_pairs(pairs, dim, device)
    megabytes = extra_megabytes(lambda: with_gradients(way, images, texts), device)
    milliseconds = least_milliseconds(lambda: with_gradients(way, images, texts), rounds, device)
    return {"megabytes": megabytes, "milliseconds": milliseconds}


def measure_rank(rank: int, ranks: int, meeting: str, threads: int, *what: Any) -> dict[str, float]:
    """As :func:`measure_here`, in one of ``ranks`` processes that find each other by the file ``meeting``."""
    torch.set_num_threads(max(1, threads // ranks))
    if ranks == 1:
        return measure_here(*what)
    dist.init_process_group("gloo", init_method=Path(meeting).as_uri(), rank=rank, world_size=ranks)
    try:
        return measure_here(*what)
    finally:
        dist.destroy_process_group()


def measure(way: str, pairs: int, dim: int = DIM, rounds: int = 3) -> dict[str, float]:
    """``megabytes`` beyond the features, and ``milliseconds``, of one loss with its gradients on this machine's CPU.

    In a process of its own, so that nothing else is counted; ``two ranks`` in two, which share the pairs and the
    threads, and of which the larger numbers count.
    """
    ranks = 2 if way == TWO_RANKS else 1
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(ranks, mp_context=get_context("spawn")) as pool:
        common = (ranks, str(Path(folder, "meeting")), torch.get_num_threads(), way, pairs // ranks, dim, rounds)
        found = [task.result() for task in [pool.submit(measure_rank, rank, *common) for rank in range(ranks)]]
    return {name: max(each[name] for each in found) for name in found[0]}


def measure_all(device: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Every way at every size; on a GPU those of one process, each up to the size that its memory cannot hold."""
    rows = []
    for way in [way for way in WAYS if device == "cpu" or way != TWO_RANKS]:
        for pairs in sorted(sizes):
            try:
                found = measure(way, pairs) if device == "cpu" else measure_here(way, pairs, device=device)
            except torch.cuda.OutOfMemoryError:
                print(f"{pairs:8,} pairs  {way:20s}  out of memory", flush=True)
                break
            rows.append({"pairs": pairs, "way": way} | found)
            print(
                f"{pairs:8,} pairs  {way:20s} {found['megabytes']:10,.1f} MB {found['milliseconds']:10,.1f} ms",
                flush=True,
            )
    return rows


def fit(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The ``a`` and ``b``, neither below 0, with which ``a * size ** 2 + b * size`` comes closest to the values.

    Closest by the squares of relative errors, so that small sizes count as much as large ones.
    """
    size, value = (torch.tensor(numbers, dtype=torch.float64) for numbers in (sizes, values))
    terms = torch.stack([size**2, size], 1) / value[:, None]  # [sizes, 2], which should add up to 1
    both = torch.linalg.lstsq(terms, torch.ones_like(value)[:, None]).solution[:, 0]
    if (both >= 0).all():
        return tuple(both.tolist())
    alone = terms.sum(0) / terms.square().sum(0)  # [2], what each would be without the other
    left_over = (1 - terms * alone).square().sum(0)
    return tuple(torch.where(left_over == left_over.min(), alone, 0.0).tolist())


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.scale.costs", description="Measure what the contrastive loss costs.")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, JSON")
    parser.add_argument("--device", choices=sorted(SIZES), default="cpu", help="default cpu")
    parser.add_argument("--pairs", type=int, nargs="+", metavar="N", help="batch sizes, even numbers")
    options = parser.parse_args(arguments)

    def command() -> None:
        sizes = options.pairs or SIZES[options.device]
        if any(pairs < 2 or pairs % 2 for pairs in sizes):
            raise InputError("--pairs must be even numbers from 2 up, since two processes share them")
        if options.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: PyTorch finds no GPU here; leave it out to measure on the CPU")
        report = {
            "device": torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} CPU cores",
            "torch": torch.__version__,
            "dim": DIM,
            "rows": measure_all(options.device, sizes),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """The bytes of each storage that what runs inside keeps for its backward pass, by its place in memory."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept
