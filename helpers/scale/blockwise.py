"""The contrastive loss without its matrix: block by block, in the forward and in the backward pass."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from helpers.losses import Number, check_features, check_temperature

BLOCK_ROWS = 256  # with 16,384 columns a block takes 16 MB, which fits into a processor's cache
LOG2_E = 1 / math.log(2)  # exp(x) == exp2(LOG2_E * x), and exp2 takes half the time of exp
SAFE_EXPONENT = 60.0  # 2**60, and sums of millions of them, fit float32


class NormalizeRows(torch.autograd.Function):
    """``length * F.normalize(features, dim=1)``, whose backward pass allocates one tensor of that size, not four."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, length: Tensor) -> Tensor:
        scale = length / features.norm(dim=1, keepdim=True).clamp_min(1e-12)  # [batch, 1]
        rows = features * scale  # [batch, dim]
        ctx.save_for_backward(rows, scale, length)
        return rows

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, Tensor]:
        rows, scale, length = ctx.saved_tensors
        grad_length = (grad_rows * rows).sum(1, keepdim=True) / length  # [batch, 1]
        grad_features = torch.addcmul(grad_rows, rows, grad_length / length, value=-1).mul_(scale)  # [batch, dim]
        return grad_features, grad_length.sum()


def logit_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield each block's rows, logits ``LOG2_E * a[rows] @ b.T`` and a buffer; the next block reuses both."""
    logits, buffer = (a.new_empty(min(BLOCK_ROWS, len(a)), len(b)) for _ in range(2))  # [block, columns] each
    for start in range(0, len(a), BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, len(a)))
        block = slice(0, rows.stop - rows.start)
        yield rows, torch.mm(LOG2_E * a[rows], b.T, out=logits[block]), buffer[block]


def exponentials(
    logits: Tensor, row_max: Tensor, column_max: Tensor, buffer: Tensor, safe: bool
) -> tuple[Tensor, Tensor]:
    """``exp2(logits - row_max)`` and ``exp2(logits - column_max)`` in place; if ``safe``, ``exp2(logits)`` twice."""
    if safe:
        return logits.exp2_(), logits
    return torch.sub(logits, row_max[:, None], out=buffer).exp2_(), logits.sub_(column_max).exp2_()


class BlockwiseLogSumExp(torch.autograd.Function):
    """Log-sum-exp of each row and each column of ``a @ b.T``, holding at most ``BLOCK_ROWS`` rows of it at a time.

    ``apply(a [rows, dim], b [columns, dim], first)`` returns the log-sum-exps of the ``[rows]`` and of the
    ``[columns]``, and the matched logits ``[rows]``, where row i matches column ``first + i``, all in float64. A column
    keeps its largest logit so far and a sum of exponentials, which shrinks when a larger logit arrives. Where no logit
    can exceed ``SAFE_EXPONENT`` no maximum is needed, and one exponential serves both directions. The backward pass
    computes each block again: the gradient of a logit is its softmax within its row and column, times the gradients of
    their log-sum-exps.
    Source: Milakov and Gimelshein, 2018, "Online normalizer calculation for softmax", algorithm 3; recomputation as in
    Cheng et al., 2024, "Breaking the Memory Barrier" (Inf-CL).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        safe = bool(a.norm(dim=1).max() * b.norm(dim=1).max() * LOG2_E < SAFE_EXPONENT)
        row_max, column_max = a.new_zeros(len(a)), b.new_full((len(b),), 0.0 if safe else -torch.inf)
        row_sum, column_sum, matched = (a.new_zeros(n, dtype=torch.float64) for n in (len(a), len(b), len(a)))
        for rows, logits, buffer in logit_blocks(a, b):
            matched[rows] = logits.diagonal(first + rows.start)
            if not safe:
                row_max[rows] = logits.amax(1)
                previous_max, column_max = column_max, torch.maximum(column_max, logits.amax(0))
                column_sum.mul_((previous_max - column_max).exp2_())
            row_exp, column_exp = exponentials(logits, row_max[rows], column_max, buffer, safe)
            row_sum[rows] = row_exp.sum(1).double()
            column_sum.add_(column_exp.sum(0))
        ctx.save_for_backward(a, b, row_max, row_sum, column_max, column_sum)
        ctx.first, ctx.safe = first, safe
        return (row_max + row_sum.log2()) / LOG2_E, (column_max + column_sum.log2()) / LOG2_E, matched / LOG2_E

    @staticmethod
    def backward(ctx: Any, grad_row_lse: Tensor, grad_column_lse: Tensor, grad_matched: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the blockwise loss cannot be differentiated twice; use contrastive_loss instead")
        a, b, row_max, row_sum, column_max, column_sum = ctx.saved_tensors
        row_weight = (grad_row_lse / row_sum).to(a.dtype)  # dividing by the sum turns exponentials into a softmax
        column_weight = (grad_column_lse / column_sum).to(a.dtype)
        grad_matched = grad_matched.to(a.dtype)
        grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b)
        for rows, logits, buffer in logit_blocks(a, b):
            row_exp, column_exp = exponentials(logits, row_max[rows], column_max, buffer, ctx.safe)
            grad_logits = torch.mul(row_exp, row_weight[rows, None], out=buffer).addcmul_(column_exp, column_weight)
            # The matches are added separately: one large term among thousands of small ones would round them off.
            diagonal = grad_logits.diagonal(ctx.first + rows.start)
            grad_match = (diagonal + grad_matched[rows])[:, None]  # [block, 1]
            diagonal.zero_()
            matches = slice(ctx.first + rows.start, ctx.first + rows.stop)
            grad_a[rows] = (grad_logits @ b).addcmul_(grad_match, b[matches])
            grad_b.addmm_(grad_logits.T, a[rows])
            grad_b[matches].addcmul_(grad_match, a[rows])
        return grad_a, grad_b, None


def scaled_features(images: Tensor, texts: Tensor, temperature: Number) -> tuple[Tensor, Tensor]:
    """Images of length ``1 / temperature`` and texts of length 1, whose products are the logits."""
    logit_scale = torch.as_tensor(1 / temperature, dtype=images.dtype, device=images.device).reshape(())
    return NormalizeRows.apply(images, logit_scale), NormalizeRows.apply(texts, torch.ones_like(logit_scale))


def blockwise_contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """Compute :func:`helpers.losses.contrastive_loss`, value and gradients, without its matrix of similarities.

    Memory grows with ``batch * dim``. It takes four matrix products, not three, and cannot be differentiated twice.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    images, texts = scaled_features(image_features, text_features, temperature)
    image_lse, text_lse, matched = BlockwiseLogSumExp.apply(images, texts)  # [batch] each
    loss = ((image_lse - matched).mean() + (text_lse - matched).mean()) / 2
    return loss.to(texts.dtype)
