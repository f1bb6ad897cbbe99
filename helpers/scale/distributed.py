"""Training on several processes, as ``torchrun`` starts them: each has a part of every batch, all have one loss.

``torchrun --nproc-per-node 2 …`` starts the same program twice and tells each copy its rank, from 0. Each computes the
features of its own part, sees all the others' as negatives, and after the gradients are averaged, as PyTorch's
``DistributedDataParallel`` does, holds the gradient of the whole batch.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from helpers.files import InputError
from helpers.losses import check_features, check_temperature, in_full_precision
from helpers.scale.blockwise import BlockwiseLogSumExp, scaled_sides

LOST = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "Socket closed")  # in gloo's errors


@dataclass(frozen=True)
class World:
    """Who this process is: its ``rank`` among ``size``, and its ``local_rank`` on this machine, which picks its GPU."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def world() -> World:
    """What ``torchrun`` has put into the environment; without it, one process.

    Raises:
        InputError: for an environment that ``torchrun`` does not make.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [os.environ.get(name) for name in names]
    if given[:2] == [None, None]:
        return World()
    try:
        rank, size, local_rank = (int(text or 0) for text in given)
    except ValueError:
        rank, size, local_rank = -1, 0, 0
    if None in given[:2] or not 0 <= rank < size or local_rank < 0:
        said = ", ".join(f"{name}={text}" for name, text in zip(names, given, strict=True) if text is not None)
        raise InputError(f"the environment says {said}, which is no process of several; start them with torchrun")
    return World(rank, size, local_rank)


def parse_device(name: str) -> torch.device:
    """The device that a command line names: ``cpu``; ``cuda``, of several processes each having one; ``cuda:1``.

    Raises:
        InputError: if there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"there is no device {name!r}; choose cpu, cuda, or one GPU of several such as cuda:1")
    if device.type == "cpu":
        return device
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = world().local_rank if device.index is None else device.index
    if number >= there:
        raise InputError(f"--device {name} needs {number + 1} GPUs that PyTorch can use, and here are {there}; try cpu")
    return torch.device("cuda", number)


@contextmanager
def process_group(device: str = "cpu") -> Iterator[World]:
    """Join the other processes, over gloo on CPU and NCCL on GPUs, and leave them at the end. Alone, nothing is joined.

    When another process has ended, the next exchange ends this one too: in one sentence, with the exit code 1.
    """
    here = world()
    if here.size == 1:
        yield here
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(here.local_rank)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", rank=here.rank, world_size=here.size)
    try:
        yield here
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST):
            raise
        raise SystemExit(
            f"rank {here.rank} of {here.size} stops: another process has ended; what ended it stands in its own message"
        ) from None
    finally:
        dist.destroy_process_group()


class GatherRows(torch.autograd.Function):
    """The rows of all ranks one below the other. Back come the gradients of all ranks, summed, for one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty((dist.get_world_size() * len(rows), *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty((len(gradient) // dist.get_world_size(), *gradient.shape[1:]))
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def broadcast(value: Any) -> Any:
    """What rank 0 gives, on every rank; each must call it."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_ranks(values: dict[str, Tensor]) -> dict[str, float]:
    """Numbers that every rank has, each the mean over the ranks."""
    stacked = torch.stack([value.detach() for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    return dict(zip(values, stacked.tolist(), strict=True))


def gather_features(features: Tensor) -> Tensor:
    """The features of all ranks, ``[ranks * batch, ...]``, in the order of the ranks, with gradients.

    Every rank must give as many rows, and all must call this equally often. What any rank does with the rows of this
    one comes back in its gradient. In a single process the features come back as they are.
    """
    return GatherRows.apply(features) if dist.is_initialized() else features


def local_contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    """This rank's share of :func:`helpers.losses.contrastive_loss` over the batch of all ranks.

    Averaged over the ranks, the values are the loss of the whole batch, and the gradients of the parameters, as
    ``DistributedDataParallel`` averages them, its gradients; also that of a learned temperature. Each rank computes the
    rows of its own images against all texts, block by block. Of each column it has a part then, and the ranks exchange
    the log-sum-exps of the parts: one number a column. So images are never exchanged, no logit is computed twice in
    the forward pass, and no rank holds its part of the matrix.

    Args, returns and raises as :func:`helpers.losses.blockwise_contrastive_loss`, for ``[batch / ranks, dim]``, equally
    many on every rank.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    first = dist.get_rank() * len(text_features) if dist.is_initialized() else 0
    with in_full_precision(image_features):
        images, texts = scaled_sides(image_features, text_features, temperature)
        of_images, parts, matched = BlockwiseLogSumExp.apply(images, gather_features(texts), first)
    of_texts = gather_features(parts).view(-1, len(parts)).logsumexp(0)  # [batch], of all texts
    loss = ((of_images - matched).mean() + (of_texts[first : first + len(texts)] - matched).mean()) / 2
    return loss.to(texts.dtype)


def rank_slice(rows: Sequence[int], rank: int, size: int) -> Sequence[int]:
    """The part of a batch that is this rank's: the parts of all ranks in their order make the batch again.

    Raises:
        InputError: if the ranks cannot share the rows equally.
    """
    share, left_over = divmod(len(rows), size)
    if left_over or share == 0:
        raise InputError(
            f"a batch of {len(rows)} pairs cannot be shared equally by {size} processes; "
            f"choose a batch size such as {max(share, 1) * size}"
        )
    return rows[rank * share : (rank + 1) * share]
