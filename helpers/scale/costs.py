"""Memory and time of the contrastive loss, measured at several batch sizes, and a cost model for larger ones."""

import os
import tempfile
import timeit
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from scipy.optimize import nnls
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from helpers.losses import contrastive_loss
from helpers.scale.blockwise import BLOCK_ROWS, blockwise_contrastive_loss, scaled_features
from helpers.scale.distributed import local_contrastive_loss

DIM = 512
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


def random_pairs(pairs: int, dim: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Sample image features ``[pairs, dim]``, and text features that equal them plus three times as much noise."""
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randn(pairs, dim, generator=generator, device=device)
    return images, torch.randn(pairs, dim, generator=generator, device=device).mul_(3).add_(images)


def with_gradients(loss: Callable[..., Tensor], images: Tensor, texts: Tensor) -> list[Tensor]:
    """The value of a loss at temperature 0.07, and its gradients with respect to images, texts and temperature."""
    temperature = torch.tensor(0.07, dtype=images.dtype, device=images.device)
    inputs = [each.detach().requires_grad_() for each in (images, texts, temperature)]
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """Record the tensors that are kept for the backward pass: the bytes of each storage, by its address."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def peak_megabytes(run: Callable[[], object], device: str = "cpu") -> float:
    """MB (10^6 bytes) of tensors that ``run`` holds at its worst moment, beyond what existed before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to standard error
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum(changes).max()) / 1e6


def measure_here(way: str, pairs: int, dim: int, rounds: int, device: str = "cpu") -> dict[str, float]:
    """Measure a loss and its gradients in this process; the time is that of the fastest round."""
    with_gradients(WAYS[way], *random_pairs(256, dim, device))  # warm up
    images, texts = random_pairs(pairs, dim, device)

    def run() -> None:
        with_gradients(WAYS[way], images, texts)
        if device == "cuda":
            torch.cuda.synchronize()

    megabytes = peak_megabytes(run, device)
    wait = dist.barrier if dist.is_initialized() else "pass"  # the ranks start a round together
    return {"megabytes": megabytes, "milliseconds": 1000 * min(timeit.repeat(run, wait, number=1, repeat=rounds))}


def measure_rank(rank: int, meeting: str, threads: int, pairs: int, dim: int, rounds: int) -> dict[str, float]:
    """Measure one of two processes, which share the threads and the pairs."""
    torch.set_num_threads(max(1, threads // 2))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    return measure_here(TWO_RANKS, pairs // 2, dim, rounds)


def measure(way: str, pairs: int, dim: int = DIM, rounds: int = 3, device: str = "cpu") -> dict[str, float]:
    """Measure ``megabytes`` and ``milliseconds`` of a loss with its gradients; of two ranks, the larger numbers."""
    if way != TWO_RANKS:
        return measure_here(way, pairs, dim, rounds, device)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        meeting = Path(folder, "meeting").as_uri()  # the file through which the ranks find each other
        setting = (meeting, torch.get_num_threads(), pairs, dim, rounds)
        ranks = [task.result() for task in [pool.submit(measure_rank, rank, *setting) for rank in (0, 1)]]
    return {name: max(rank[name] for rank in ranks) for name in ranks[0]}


def fit(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Fit ``a * size ** 2 + b * size``, with a and b at least 0, to the values: least squares of relative errors."""
    size, value = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    terms = np.stack([size**2, size], axis=1) / value[:, None]  # [sizes, 2]; the sum of a row should be 1
    (a, b), _ = nnls(terms, np.ones(len(value)))
    return float(a), float(b)
