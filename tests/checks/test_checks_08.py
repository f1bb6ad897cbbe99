"""The checks of notebook 08 accept the right answer and name the mistake in typical wrong ones."""

import math
from collections.abc import Callable

import pytest
import torch
from answers import assert_named, assert_right
from helpers.checks.core.core import check_bytes_received, check_merge_ranks, check_online_logsumexp
from torch import Tensor


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def running(blocks: list[Tensor], shrink: bool = True, add: bool = True, log: bool = True) -> Tensor:
    largest, total = torch.full((5,), -math.inf), torch.zeros(5)
    for block in blocks:
        before, largest = largest, torch.maximum(largest, block.amax(1))
        total = total * (before - largest).exp() if shrink else total
        total = total + (block - largest[:, None]).exp().sum(1)
    total = total.log() if log else total
    return largest + total if add else total


def by_loops(blocks: list[Tensor]) -> Tensor:
    of_rows = []
    for row in range(5):
        logits = [logit for block in blocks for logit in block[row].tolist()]
        of_rows.append(max(logits) + math.log(sum(math.exp(logit - max(logits)) for logit in logits)))
    return torch.tensor(of_rows)


def merged(largest: Tensor, totals: Tensor) -> Tensor:
    of_all = largest.amax(0)
    return of_all + (totals * (largest - of_all).exp()).sum(0).log()


def received(batch: int, dim: int, ranks: int) -> int:
    return 16 * dim * (batch - batch // ranks)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_online_logsumexp, running),
        (check_online_logsumexp, by_loops),
        (check_online_logsumexp, lambda blocks: torch.stack([b.logsumexp(1) for b in blocks]).logsumexp(0)),
        (check_merge_ranks, merged),
        (check_merge_ranks, lambda largest, totals: (largest + totals.log()).logsumexp(0)),
        (check_bytes_received, received),
        (check_bytes_received, lambda batch, dim, ranks: 2 * 2 * 4 * dim * batch * (1 - 1 / ranks)),
    ],
)
def test_right_answers_pass_in_one_line(
    check: Callable[[Callable], None], answer: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_right(check, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda blocks: None, "is a return missing"),
        (lambda blocks: sum(block.exp().sum(1) for block in blocks).log(), "subtract the largest"),
        (lambda blocks: running(blocks, shrink=False), "must shrink"),
        (lambda blocks: running(blocks, add=False), "not added again"),
        (lambda blocks: running(blocks, add=False, log=False), "take its logarithm"),
        (lambda blocks: torch.cat(blocks, 1).amax(1), "the largest logit alone"),
        (lambda blocks: sum(block.logsumexp(1) for block in blocks), "their exponentials add up"),
        (lambda blocks: blocks[-1].logsumexp(1), "the last block only"),
        (lambda blocks: torch.cat(blocks, 1).logsumexp(0), "should be [5]"),
        (lambda blocks: torch.cat(blocks, 0), "stopped with"),
        (lambda blocks: running(blocks) + 1, "should be"),
    ],
)
def test_online_logsumexp_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_online_logsumexp, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda largest, totals: None, "is a return missing"),
        (lambda largest, totals: largest.amax(0) + totals.sum(0).log(), "shrink to one measure"),
        (lambda largest, totals: (totals * largest.exp()).sum(0).log(), "subtract the largest of all ranks"),
        (lambda largest, totals: merged(largest, totals) - largest.amax(0), "not added again"),
        (lambda largest, totals: (largest + totals.log()).sum(0), "their exponentials add up"),
        (lambda largest, totals: (largest + totals.log()).amax(0), "the others count too"),
        (lambda largest, totals: largest.logsumexp(0), "totals is not used"),
        (lambda largest, totals: merged(largest, totals) - math.log(len(totals)), "the mean over the ranks"),
        (lambda largest, totals: largest + totals.log(), "it should be [4]"),
    ],
)
def test_merge_ranks_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_merge_ranks, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda batch, dim, ranks: None, "is a return missing"),
        (lambda batch, dim, ranks: 16 * batch * dim, "only those of the others do"),
        (lambda batch, dim, ranks: 16 * (batch // ranks) * dim, "in place of those of the others"),
        (lambda batch, dim, ranks: received(batch, dim, ranks) // 2, "this is half of it"),
        (lambda batch, dim, ranks: received(batch, dim, ranks) // 4, "a quarter of it"),
        (lambda batch, dim, ranks: received(batch, dim, ranks) * ranks, "all ranks receive together"),
        (lambda batch, dim, ranks: received(batch * ranks, dim, ranks), "batch counts the pairs of all"),
        (lambda batch, dim, ranks: received(batch, dim, ranks) * 8, "these are bits"),
        (lambda n, dim, ranks: 2 * (4 * dim * (n - n // ranks) + 8 * n * (ranks - 1)), "our own way"),
        (lambda batch, dim, ranks: 0, "should be"),
        (lambda batch, dim, ranks: batch // 0, "stopped with ZeroDivisionError"),
    ],
)
def test_bytes_received_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_bytes_received, answer, words)
