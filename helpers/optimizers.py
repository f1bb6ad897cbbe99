"""The optimizer Muon, in float32: torch's own computes in bfloat16, which most laptop processors do very slowly."""

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with all its singular values moved close to 1 (between about 0.7 and 1.2), by matrix products alone.

    Newton-Schulz: ``x = (a I + b S + c S S) x`` with ``S = x x^T``, an odd polynomial of the matrix, acts on each
    singular value by itself, and this one, applied five times, sends everything from about 0.001 to 1 near 1. All those
    factors are polynomials of the first S and can change places, so they are gathered in ``factor`` first. Then only
    two products have the matrix's long side, where the plain form has ten. In float32 the two agree within 0.001.

    Args:
        matrix: ``[rows, columns]``.
        steps: how often the polynomial is applied, 1 or more.

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
    """Momentum whose update is orthogonalised: every direction of a weight matrix is moved by the same amount.

    For weights of two dimensions or more (a convolution counts as a matrix with a row for each output channel). The
    update is scaled to the size AdamW's has, so that learning rates and weight decay mean what they mean there.

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
                buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"]).flatten(1)  # [rows, columns]
                scale = 0.2 * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalize(update).view_as(weight), alpha=-group["lr"] * scale)
