"""The checks of lesson 08: log-sum-exp in parts, and the bytes that a rank receives."""

import torch
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise


def blocks_of_logits(generator: Generator, case: int) -> tuple[list[Tensor]]:
    widths = torch.randint(1, 6, (3,), generator=generator).tolist()
    scale = 2 if case < CASES // 2 else 400  # the last ones are too large for exp
    return ([scale * torch.randn(5, width, generator=generator) for width in widths],)


@exercise("online_logsumexp", blocks_of_logits)
def check_online_logsumexp(blocks: list[Tensor]) -> Values:
    logits = torch.cat(blocks, 1)  # [rows, columns]
    by_block = torch.stack([block.logsumexp(1) for block in blocks])  # [blocks, rows]
    largest = torch.stack([block.amax(1) for block in blocks]).cummax(0).values  # [blocks, rows], so far
    unscaled = sum((block - top[:, None]).exp().sum(1) for block, top in zip(blocks, largest, strict=True))
    unscaled_end = largest[-1] + unscaled.log()
    below = (logits - logits.amax(1, keepdim=True)).exp().sum(1)  # [rows]
    return logits.logsumexp(1), {
        "exp of a logit overflows float32; subtract the largest logit first": logits.exp().sum(1).log(),
        "when a larger logit comes, the sum so far must shrink by exp(old largest - new largest)": unscaled_end,
        "the largest logit was subtracted but not added again at the end": below.log(),
        "this is the sum of the exponentials; take its logarithm, and add the largest": below,
        "this adds the log-sum-exps of the blocks; add their exponentials instead": by_block.sum(0),
        "this is the log-sum-exp of the last block only": by_block[-1],
    }


def sums_of_ranks(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    ranks = int(torch.randint(2, 5, (), generator=generator))
    logits = 3 * torch.randn(ranks, 6, 4, generator=generator) + (0.0, 1000.0, -1000.0)[case % 3]
    largest = logits.amax(1)  # [ranks, columns]
    return largest, (logits - largest[:, None]).exp().sum(1)


@exercise("merge_ranks", sums_of_ranks)
def check_merge_ranks(largest: Tensor, totals: Tensor) -> Values:
    top, by_rank = largest.amax(0), largest + totals.log()  # [columns], [ranks, columns]
    right, unscaled = by_rank.logsumexp(0), top + totals.sum(0).log()
    overflow = (totals * largest.exp()).sum(0).log()
    return right, {
        "the ranks subtracted different largest logits; scale their sums to a common one before adding": unscaled,
        "exp of the largest logits overflows float32; subtract the largest of all ranks first": overflow,
        "the largest logit of all ranks is not added again at the end": right - top,
        "this adds the log-sum-exps of the ranks; add their exponentials instead": by_rank.sum(0),
        "this is the largest of the ranks' log-sum-exps; the other ranks count too": by_rank.amax(0),
        "this is the log-sum-exp of the largest logits alone; totals is not used": largest.logsumexp(0),
    }


def cluster(generator: Generator, case: int) -> tuple[int, int, int]:
    per_rank, dim = torch.randint(16, 1024, (2,), generator=generator).tolist()
    ranks = 3 + case % 6
    return ranks * per_rank, dim, ranks


@exercise("bytes_received", cluster)
def check_bytes_received(batch: int, dim: int, ranks: int) -> Values:
    others = batch - batch // ranks
    right = 2 * 2 * 4.0 * others * dim
    return right, {
        "a rank already has its own features; count only the features of the others": 16.0 * batch * dim,
        "these are the rank's own features; count the features of the others": 16.0 * batch // ranks * dim,
        "this is half the bytes: two sides are gathered, and the backward pass doubles the traffic": right / 2,
        "this is a quarter of the bytes: a float32 has four, and two sides travel forward and back": right / 4,
        "this is what all ranks together receive; one rank is asked for": right * ranks,
    }
