"""One batch shared by several processes (ranks), which ``torchrun --nproc-per-node 2 ...`` starts.

Each rank compares its own images with the texts of all ranks; ``DistributedDataParallel`` averages gradients.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from helpers.files import InputError
from helpers.losses import Number, check_features, check_temperature
from helpers.scale.blockwise import BlockwiseLogSumExp, scaled_features


class World(NamedTuple):
    """This process: its ``rank`` among ``size`` processes, and its ``local_rank`` on this machine, which is its GPU."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def world() -> World:
    """Read the rank from the environment variables that ``torchrun`` sets; without them there is one process."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    return World(*(int(os.environ.get(name, default)) for name, default in names.items()))


def parse_device(name: str) -> torch.device:
    """Parse ``cpu``, ``cuda`` (with several processes, each takes its own GPU) or ``cuda:1``."""
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or not (number.isdecimal() or name == "cuda"):
        raise InputError(f"unknown device {name!r}; choose cpu, cuda, or one of several GPUs, such as cuda:1")
    index = int(number) if number else world().local_rank
    if index >= (gpus := torch.cuda.device_count()):
        raise InputError(f"device {name!r} needs {index + 1} GPUs, and PyTorch finds {gpus}; try cpu")
    return torch.device("cuda", index)


@contextmanager
def process_group(device: str = "cpu") -> Iterator[World]:
    """Join the other processes, over NCCL on GPUs and gloo on CPUs, and leave at the end; alone, do nothing."""
    ranks = world()
    if ranks.size == 1:
        yield ranks
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=ranks.rank, world_size=ranks.size)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def gather_features(features: Tensor) -> Tensor:
    """Gather the features of all ranks in rank order, ``[ranks * batch, ...]``, with gradients (a collective call).

    Every rank must pass the same number of rows. A single process gets its own features back.
    """
    return torch.cat(all_gather(features.contiguous())) if dist.is_initialized() else features


def local_contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """This rank's share of :func:`helpers.losses.contrastive_loss` over the batch of all ranks; their mean is the loss.

    Each rank computes the rows of its own images against all texts, block by block. It then holds part of each column;
    the ranks exchange the log-sum-exps of their parts, one number per column. No image features are exchanged.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    first = dist.get_rank() * len(text_features) if dist.is_initialized() else 0  # the column of this rank's first text
    images, texts = scaled_features(image_features, text_features, temperature)
    image_lse, column_parts, matched = BlockwiseLogSumExp.apply(images, gather_features(texts), first)
    column_lse = gather_features(column_parts).view(-1, len(column_parts)).logsumexp(0)  # [batch], of all texts
    text_lse = column_lse[first : first + len(texts)]  # [batch / ranks]
    loss = ((image_lse - matched).mean() + (text_lse - matched).mean()) / 2
    return loss.to(texts.dtype)


def broadcast(value: Any) -> Any:
    """Rank 0's value on every rank (a collective call)."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def mean_over_ranks(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each value over the ranks (a collective call)."""
    if not dist.is_initialized():
        return values
    stacked = torch.stack(list(values.values()))  # [values]
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / dist.get_world_size(), strict=True))


def rank_slice(rows: Sequence[int], rank: int, size: int) -> Sequence[int]:
    """This rank's part of a batch; the parts of all ranks, in order, are the batch."""
    share, remainder = divmod(len(rows), size)
    if remainder or share == 0:
        equal = f"choose a batch size such as {max(share, 1) * size}"
        raise InputError(f"a batch of {len(rows)} pairs cannot be shared equally by {size} processes; {equal}")
    return rows[rank * share : (rank + 1) * share]
