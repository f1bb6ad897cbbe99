"""The checks of lesson 08: columns in parts, a sigmoid loss in blocks, and three questions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from helpers.checks.core import Check, Choice, Setting, Values, exercise
from helpers.losses import sigmoid_loss


def sums_of_ranks(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    ranks = int(torch.randint(2, 5, (), generator=generator))
    shift = 1000 * (torch.randint(3, (4,), generator=generator) - 1)  # each column has its own size
    logits = 3 * torch.randn(ranks, 6, 4, generator=generator) + shift
    largest = logits.amax(1)  # [ranks, columns]
    return largest, (logits - largest[:, None]).exp().sum(1)


@exercise("merge_ranks", sums_of_ranks)
def check_merge_ranks(largest: Tensor, totals: Tensor) -> Values:
    top, by_rank = largest.amax(0), largest + totals.log()  # [columns], [ranks, columns]
    rest = (totals * (largest - top).exp()).sum(0).log()  # [columns]
    right, unscaled = by_rank.logsumexp(0), top + totals.sum(0).log()
    one_top = largest.max() + (totals * (largest - largest.max()).exp()).sum(0).log()
    overflow, swapped = (totals * largest.exp()).sum(0).log(), top + (totals * (top - largest).exp()).sum(0).log()
    return right, {
        "the ranks subtracted different largest logits; scale their sums to a common one before adding": unscaled,
        "exp of the largest logits overflows float32; subtract the largest of all ranks first": overflow,
        "the exponent has the wrong sign; a sum must shrink, by the exponential of largest - top": swapped,
        "the logarithm of the sum is missing": top + rest.exp(),
        "the largest logit of all ranks is not added again at the end": rest,
        "sum over the ranks, dimension 0": by_rank.logsumexp(1),
        "one maximum for all columns makes the sums of others 0; take one per column": one_top,
        "only the first two ranks count here; there can be more": by_rank[:2].logsumexp(0),
        "this is the largest of the ranks' log-sum-exps; the other ranks count too": by_rank.amax(0),
    }


def pairs_and_block(generator: Generator, case: int) -> tuple[Tensor, Tensor, float, float, int]:
    """Sample normalised features of 7 or 11 pairs, whose last block is not complete."""
    images = torch.randn(7 + 4 * (case % 2), 2, generator=generator)
    texts = images + torch.randn(images.shape, generator=generator)
    temperature, bias = (0.1 + torch.rand(2, generator=generator)).tolist()
    return F.normalize(images, dim=1), F.normalize(texts, dim=1), temperature, -5 * bias, 3


class OnlyBlocks(TorchFunctionMode):
    """Refuses tensors that depend on the features and have more elements than a block of logits."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = elements

    def __torch_function__(self, call: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = call(*args, **(kwargs or {}))
        fits = not isinstance(result, Tensor) or not result.requires_grad or result.numel() <= self.elements
        assert fits, "more than block rows of logits are computed at a time"
        return result


class BlockCheck(Check):
    def attempt(self, answer: Callable, inputs: tuple) -> object:
        with OnlyBlocks(inputs[-1] * len(inputs[0])):
            return super().attempt(answer, inputs)


def sigmoid_values(images: Tensor, texts: Tensor, temperature: float, bias: float, block: int) -> Values:
    size, cosines = len(images), images @ texts.T  # [image, text]
    logits, signs = cosines / temperature + bias, 2 * torch.eye(size) - 1
    losses = -F.logsigmoid(signs * logits)  # [image, text]
    scaled, multiplied = (cosines + bias) / temperature, cosines * temperature + bias
    column_0 = torch.cat([signs[:block]] * size)[:size]  # the matches of each block begin at column 0 again
    own_only = sum(losses[i : i + block, i : i + block].sum() for i in range(0, size, block))
    return sigmoid_loss(images, texts, bias, temperature), {
        "in each block the matches begin at column 0; row i of a block that starts at s matches text s + i": (
            -F.logsigmoid(column_0 * logits).sum() / size
        ),
        "the signs are swapped: 1 for matches, -1 for all others": -F.logsigmoid(-signs * logits).sum() / size,
        "this is the mean over all combinations; divide the sum by the number of pairs": losses.mean(),
        "this is the sum; divide it by the number of pairs": losses.sum(),
        "this is divided by the size of a block; divide by the number of pairs": losses.sum() / block,
        "each block sees its own texts only; compare its images with all texts": own_only / size,
        "the bias is subtracted; add it": -F.logsigmoid(signs * (logits - 2 * bias)).sum() / size,
        "the bias is divided by the temperature too; add it after": -F.logsigmoid(signs * scaled).sum() / size,
        "the temperature multiplies here; divide by it": -F.logsigmoid(signs * multiplied).sum() / size,
        "the last block is not complete, and is left out here": losses[: size - size % block].sum() / size,
    }


check_sigmoid_loss_in_blocks = BlockCheck("sigmoid_loss_in_blocks", pairs_and_block, sigmoid_values, trains=True)

check_held_memory = Choice(
    "held_memory",
    right="c",
    a="logsumexp returns one number per row, and its working memory is freed at once",
    b="torch.cat copies 2,048 numbers twice, which is 0.02 MB",
    c="diagonal returns a view. A view shares the memory of its block, so as long as the list holds the view, "
    "the block cannot be freed. The fix is logits.diagonal(start).clone().",
    d="smaller blocks would be kept just as long, and together they would take the same memory",
)

check_divided_loss = Choice(
    "divided_loss",
    right="b",
    a="then the temperature's gradient is right, but the encoders' is 4 times too small",
    b="The loss stays as it is, so the encoders' gradient is right, and the temperature's gradient, which was "
    "added 4 times, is divided by 4.",
    c="the factors cancel: the encoders' gradient is right, and the temperature's is 4 times too large again",
    d="the temperature is a value in the loss; dividing it changes the loss itself, and every gradient",
)

check_break_even_ranks = Setting(
    name="break_even_ranks",
    low=256,
    high=256,
    too_low="with so few ranks, texts and column parts are still fewer bytes; compare 8 D + 16 W with 16 D",
    too_high="with so many ranks, texts and column parts are already more bytes; compare 8 D + 16 W with 16 D",
    right="both receive the same when 8 D + 16 W = 16 D: at W = D / 2 = 256 ranks. With more, our way receives more.",
)
