"""The contrastive loss without its matrix: block by block, in the forward and in the backward pass."""

import math
from typing import Any

import torch
from torch import Tensor

from helpers.losses import at_least_float32, check_features, check_temperature, in_full_precision


class RowsOfLength(torch.autograd.Function):
    """``length * F.normalize(features, dim=1)``, with a backward pass that takes one tensor of this size, not four."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, length: Tensor) -> Tensor:
        scale = length / features.norm(dim=1, keepdim=True).clamp_min(1e-12)  # [batch, 1]
        rows = features * scale
        ctx.save_for_backward(rows, scale, length)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, scale, length = ctx.saved_tensors
        along = (gradient * rows).sum(1, keepdim=True) / length  # [batch, 1], of the gradient along its row
        return torch.addcmul(gradient, rows, along / length, value=-1).mul_(scale), along.sum()


BLOCK = 256  # rows of the matrix that are held at a time; with 16,384 columns these are 16 MB, which a cache can hold
BITS = 1 / math.log(2)  # a nat in bits: powers of two take half the time of powers of e
MILD = 60.0  # bits; powers of two of up to so many, and sums of very many of them, are well inside float32


def two_blocks(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Room for two blocks of ``a @ b.T``, filled again and again: asking the system for it anew takes time."""
    return a.new_empty(min(BLOCK, len(a)), len(b)), a.new_empty(min(BLOCK, len(a)), len(b))


def powers(logits: Tensor, row_tops: Tensor, column_tops: Tensor, room: Tensor, mild: bool) -> tuple[Tensor, Tensor]:
    """Two to the power of the logits below their row's top, and below their column's; the logits are overwritten.

    Where all are mild no top is taken off, and one tensor is both.
    """
    if mild:
        return logits.exp2_(), logits
    return torch.sub(logits, row_tops[:, None], out=room).exp2_(), logits.sub_(column_tops).exp2_()


class BlockwiseLogSumExp(torch.autograd.Function):
    """Log-sum-exp of each row and each column of ``a @ b.T``, of which no more than ``BLOCK`` rows are ever held.

    ``BlockwiseLogSumExp.apply(a [rows, dim], b [columns, dim], first)`` gives ``[rows]``, ``[columns]``, and the
    matched logits ``[rows]``: row i belongs to column ``first + i``. All are float64, since a small loss is the
    difference of large logits.

    No logit is larger than the longest row of a times that of b, which for features of length 1 is one over the
    temperature. From a temperature of about 0.024 up one power of two then serves both directions. When it is colder,
    each needs its own: a row is done within its block; a column runs through all blocks with its largest logit so far
    and the sum of the powers below it, which shrinks whenever a larger logit comes.

    The backward pass computes each block again: the gradient of a logit is its softmax in its row and in its column,
    each times what this row or column receives, and at a match what that receives besides.

    Source: Milakov and Gimelshein, 2018, "Online normalizer calculation for softmax", algorithm 3; computed again in
    the backward pass as by Cheng et al., 2024, "Breaking the Memory Barrier" (Inf-CL).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        mild = bool(a.norm(dim=1).max() * b.norm(dim=1).max() * BITS < MILD)
        row_tops, column_tops = a.new_zeros(len(a)), b.new_full((len(b),), 0.0 if mild else -torch.inf)
        row_sums, column_sums, matched = (a.new_zeros(n, dtype=torch.float64) for n in (len(a), len(b), len(a)))
        rooms = two_blocks(a, b)
        with torch.autocast(a.device.type, enabled=False):  # half the digits are not enough for a softmax
            for start in range(0, len(a), BLOCK):
                rows = slice(start, start + BLOCK)
                logits, room = (room[: len(a[rows])] for room in rooms)  # [block, columns] each
                torch.mm(BITS * a[rows], b.T, out=logits)
                matched[rows] = logits.diagonal(first + start)
                if not mild:
                    row_tops[rows] = logits.amax(1)
                    before, column_tops = column_tops, torch.maximum(column_tops, logits.amax(0))
                    column_sums.mul_((before - column_tops).exp2_())
                of_rows, of_columns = powers(logits, row_tops[rows], column_tops, room, mild)
                row_sums[rows] = of_rows.sum(1).double()
                column_sums.add_(of_columns.sum(0))
        ctx.save_for_backward(a, b, row_tops, row_sums, column_tops, column_sums)
        ctx.first, ctx.mild = first, mild
        return (row_tops + row_sums.log2()) / BITS, (column_tops + column_sums.log2()) / BITS, matched / BITS

    @staticmethod
    def backward(ctx: Any, to_rows: Tensor, to_columns: Tensor, to_matched: Tensor) -> tuple[Tensor, Tensor, None]:
        if torch.is_grad_enabled():  # only with create_graph=True
            raise RuntimeError(
                "the blockwise loss has no second derivative, since it keeps no graph of its gradient; "
                "use contrastive_loss where create_graph=True is needed"
            )
        a, b, row_tops, row_sums, column_tops, column_sums = ctx.saved_tensors
        # Divided by the sums, so that a power becomes a softmax.
        received = (to_rows / row_sums, to_columns / column_sums, to_matched)
        to_rows, to_columns, to_matched = (given.to(a.dtype) for given in received)
        a_gradient, b_gradient = torch.empty_like(a), torch.zeros_like(b)
        rooms = two_blocks(a, b)
        with torch.autocast(a.device.type, enabled=False):
            for start in range(0, len(a), BLOCK):
                rows = slice(start, start + BLOCK)
                logits, room = (room[: len(a[rows])] for room in rooms)  # [block, columns] each
                torch.mm(BITS * a[rows], b.T, out=logits)
                of_rows, of_columns = powers(logits, row_tops[rows], column_tops, room, ctx.mild)
                gradient = torch.mul(of_rows, to_rows[rows, None], out=room).addcmul_(of_columns, to_columns)
                # Matches apart: among thousands of small terms, a large one would round them all.
                matches = gradient.diagonal(ctx.first + start)
                own = slice(ctx.first + start, ctx.first + start + len(logits))
                to_match = (matches + to_matched[rows])[:, None]  # [block, 1]
                matches.zero_()
                a_gradient[rows] = (gradient @ b).addcmul_(to_match, b[own])
                b_gradient.addmm_(gradient.T, a[rows])
                b_gradient[own].addcmul_(to_match, a[rows])
        return a_gradient, b_gradient, None


def scaled_sides(image_features: Tensor, text_features: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in float32 at least, texts of length 1, images of ``1 / temperature``: their products are logits."""
    images, texts = at_least_float32(image_features), at_least_float32(text_features)
    logit_scale = torch.as_tensor(1 / temperature, dtype=images.dtype, device=images.device).reshape(())
    return RowsOfLength.apply(images, logit_scale), RowsOfLength.apply(texts, torch.ones_like(logit_scale))


def blockwise_contrastive_loss(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """:func:`contrastive_loss`, value and gradients, without ever holding the matrix of all similarities.

    Memory grows with ``batch * dim``, not with ``batch ** 2``. It takes four matrix products, of which one is the
    matrix computed again for the backward pass. It cannot be differentiated twice.

    Args, returns and raises as :func:`contrastive_loss`; and ``RuntimeError`` for ``create_graph=True``.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    with in_full_precision(image_features):
        images, texts = scaled_sides(image_features, text_features, temperature)
        of_images, of_texts, matched = BlockwiseLogSumExp.apply(images, texts)  # [batch] each
    loss = ((of_images - matched).mean() + (of_texts - matched).mean()) / 2
    return loss.to(texts.dtype)
