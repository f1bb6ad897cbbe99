"""Memory and time of a contrastive loss, measured with all its gradients."""

import os
import timeit
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

DIM = 512


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


def peak_megabytes(run: Callable[[], object], device: str = "cpu") -> float:
    """The peak memory of tensors during ``run``, in MB (10^6 bytes), beyond what existed before."""
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


def measure(
    loss: Callable[..., Tensor], pairs: int, dim: int = DIM, rounds: int = 3, device: str = "cpu"
) -> dict[str, float]:
    """Measure the ``megabytes`` and ``milliseconds`` of a loss with its gradients; the fastest round counts."""
    with_gradients(loss, *random_pairs(256, dim, device))  # warm up
    images, texts = random_pairs(pairs, dim, device)

    def run() -> None:
        with_gradients(loss, images, texts)
        if device == "cuda":
            torch.cuda.synchronize()

    megabytes = peak_megabytes(run, device)
    return {"megabytes": megabytes, "milliseconds": 1000 * min(timeit.repeat(run, number=1, repeat=rounds))}
