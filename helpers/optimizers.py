"""Muon for the weight matrices, AdamW for the rest, and the learning rate over a training."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Move all singular values of a matrix close to 1 (between about 0.7 and 1.2), by matrix products alone.

    Newton-Schulz: ``x = (a I + b S + c S S) x`` with ``S = x x^T`` acts on each singular value by itself. The small
    factors are multiplied first. torch's own Muon computes in bfloat16, which most laptop processors do very slowly.
    Source: Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks", with its coefficients.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # so that the squares below are small
    x = x / (x.norm() + 1e-7)
    identity, square = torch.eye(len(x)).to(x), x @ x.T  # [rows, rows] each
    polynomial = factor = a * identity + b * square + c * square @ square
    for _ in range(steps - 1):
        square = polynomial @ square @ polynomial
        polynomial = a * identity + b * square + c * square @ square
        factor = polynomial @ factor
    x = factor @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: every direction of a weight matrix moves by the same amount.

    For weights of two dimensions or more; a convolution counts as a matrix with one row per output channel.
    Source: Jordan et al., 2024; the scale from Liu et al., 2025, "Muon is Scalable for LLM Training", section 2.2.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                buffer = self.state[weight]["momentum_buffer"]
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"]).flatten(1)  # Nesterov momentum, [rows, columns]
                scale = 0.2 * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalize(update).view_as(weight), alpha=-group["lr"] * scale)


def make_optimizers(model: nn.Module, temperature: object = None, factor: float = 1.0) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices and convolutions; AdamW for embeddings, the first layer, biases and norms.

    A learned temperature gets AdamW without weight decay. ``factor`` multiplies all learning rates.
    """
    first = {"image_encoder.stem.0.weight", "text_encoder.embedding.weight"}
    inner = [p for name, p in model.named_parameters() if p.ndim >= 2 and name not in first]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or name in first]
    groups = [{"params": others, "weight_decay": 0.01}]
    if isinstance(temperature, nn.Module):
        groups.append({"params": temperature.parameters(), "weight_decay": 0.0})
    muon = Muon(inner, lr=0.009 * factor, momentum=0.8, weight_decay=0.1)
    optimizers = [muon, torch.optim.AdamW(groups, lr=0.003 * factor)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(progress: float) -> float:
    """Rise to 1 over the first twentieth of training, then fall to 0 along half a cosine."""
    warm_up = 0.05
    if progress < warm_up:
        return (progress + 0.005) / (warm_up + 0.005)  # not 0 at the very first step
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], progress: float) -> None:
    """Multiply the base learning rate of every parameter by :func:`learning_rate_factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_factor(progress)
