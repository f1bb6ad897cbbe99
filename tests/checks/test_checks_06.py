"""The checks of notebook 06 accept the right answer and name the mistake in typical wrong ones."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from answers import assert_named, assert_right
from helpers.checks.core.core import check_in_batch_accuracy, check_paired_interval, check_sign_flip_p_value
from scipy import stats
from torch import Tensor

from helpers.evaluation import metrics_in_folds
from helpers.experiments import difference


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def interval(half: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean difference, and this much to each side of it."""
    return lambda a, b: (a - b).mean() + half(a, b) * torch.tensor([0.0, -1.0, 1.0])


def t(seeds: int, probability: float = 0.975) -> float:
    return float(stats.t.ppf(probability, seeds - 1))


def by_scipy(values: Tensor, baseline: Tensor) -> Tensor:
    found = stats.ttest_rel(values.numpy(), baseline.numpy()).confidence_interval(0.95)
    return torch.tensor([(found.low + found.high) / 2, found.low, found.high])


def by_helper(values: Tensor, baseline: Tensor) -> Tensor:
    return torch.tensor(list(difference(values.tolist(), baseline.tolist()).values()))


def hits(x: Tensor, y: Tensor, size: int) -> Tensor:
    """``[2, whole batches, size]``: whether the diagonal wins its row, and its column."""
    whole = len(x) // size * size
    cosines = F.normalize(x[:whole]).view(-1, size, x.shape[1]) @ F.normalize(y[:whole]).view(-1, size, y.shape[1]).mT
    return torch.stack([cosines.argmax(2) == torch.arange(size), cosines.argmax(1) == torch.arange(size)]).double()


def by_folds(x: Tensor, y: Tensor, size: int) -> float:
    whole = len(x) // size * size
    sides = F.normalize(x[:whole]), F.normalize(y[:whole])
    found = metrics_in_folds(*sides, torch.arange(whole), whole // size)
    return sum(found[way]["R@1"] for way in found) / 2


def flipped(differences: Tensor) -> Tensor:
    """The mean for each choice of signs, ``[2 ** seeds]``."""
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=len(differences))))
    return (signs * differences).mean(1)


def by_permutation_test(differences: Tensor) -> float:
    found = stats.permutation_test((differences.numpy(),), lambda d, axis: d.mean(axis), permutation_type="samples")
    return float(found.pvalue)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_paired_interval, by_scipy),
        (check_paired_interval, by_helper),
        (check_paired_interval, interval(lambda a, b: t(len(a)) * (a - b).std() / len(a) ** 0.5)),
        (check_in_batch_accuracy, by_folds),
        (check_in_batch_accuracy, lambda x, y, size: 100 * hits(x, y, size).mean()),
        (check_sign_flip_p_value, by_permutation_test),
        (check_sign_flip_p_value, lambda d: (flipped(d).abs() >= d.mean().abs() - 1e-9).double().mean()),
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
        (lambda a, b: None, "is a return missing"),
        (lambda a, b: by_scipy(b, a), "baseline minus values"),
        (interval(lambda a, b: t(len(a)) * ((a.var() + b.var()) / len(a)).sqrt()), "unpaired"),
        (interval(lambda a, b: t(len(a)) * (a - b).std()), "not divided by the square root"),
        (interval(lambda a, b: t(len(a)) * (a - b).std() / len(a)), "divide by its square root"),
        (interval(lambda a, b: t(len(a)) * (a - b).std(correction=0) / len(a) ** 0.5), "divide by n - 1"),
        (interval(lambda a, b: 1.96 * (a - b).std() / len(a) ** 0.5), "take Student's t"),
        (interval(lambda a, b: t(len(a) + 1) * (a - b).std() / len(a) ** 0.5), "number of seeds less one"),
        (interval(lambda a, b: t(len(a), 0.95) * (a - b).std() / len(a) ** 0.5), "take 0.975"),
        (interval(lambda a, b: (a - b).std() / len(a) ** 0.5), "one standard error"),
        (lambda a, b: by_scipy(a, b)[[0, 2, 1]], "changed places"),
        (lambda a, b: by_scipy(a, b)[1:], "returned the shape [2]"),
        (lambda a, b: by_scipy(a, b) + 0.1, "entry [0] is"),
    ],
)
def test_paired_interval_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_paired_interval, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda x, y, size: None, "is a return missing"),
        (lambda x, y, size: hits(x, y, size).mean(), "a share from 0 to 1"),
        (lambda x, y, size: 100 * hits(x, y, size)[0].mean(), "image to text alone"),
        (lambda x, y, size: 100 * hits(x, y, size)[1].mean(), "text to image alone"),
        (lambda x, y, size: 100 * hits(x, y, size).amin(0).mean(), "only when both directions"),
        (lambda x, y, size: by_folds(x, y, len(x)), "which is recall at 1"),
        (lambda x, y, size: 100 * hits(x[:size], y[:size], size).mean(), "only the first batch"),
        (lambda x, y, size: 100 * hits(x, y, size)[:, -1].mean(), "only the last batch"),
        (
            lambda x, y, size: (
                100
                * torch.cat(
                    [hits(a, b, len(a)).flatten() for a, b in zip(x.split(size), y.split(size), strict=True)]
                ).mean()
            ),
            "left over at the end",
        ),
        (
            lambda x, y, size: (
                100
                * sum(
                    (block.argmax(dim) == torch.arange(size)).double().mean()
                    for i in range(len(x) // size)
                    for block in [x[i * size : (i + 1) * size] @ y[i * size : (i + 1) * size].T]
                    for dim in (0, 1)
                )
                / (2 * (len(x) // size))
            ),
            "not normalised",
        ),
        (lambda x, y, size: x @ y, "stopped with RuntimeError"),
        (lambda x, y, size: 100 * hits(x, y, size).mean() + 1, "the number is"),
    ],
)
def test_in_batch_accuracy_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_in_batch_accuracy, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda d: None, "is a return missing"),
        (lambda d: (flipped(d) >= d.mean() - 1e-9).double().mean(), "one side only"),
        (lambda d: (flipped(d).abs() > d.mean().abs() + 1e-9).double().mean(), "lie farther out"),
        (lambda d: (flipped(d).abs() >= d.mean().abs() - 1e-9).sum().double(), "divide by the number of all"),
        (lambda d: (flipped(d).abs() < d.mean().abs() - 1e-9).double().mean(), "the share of the others"),
        (lambda d: 1.0, "all signs are flipped together"),
        (
            lambda d: (((1 - 2 * torch.eye(len(d))) * d).mean(1).abs() >= d.mean().abs() - 1e-9).double().mean(),
            "one sign at a time",
        ),
        (lambda d: stats.ttest_1samp(d.numpy(), 0).pvalue.item(), "the number is"),
    ],
)
def test_sign_flip_p_value_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_sign_flip_p_value, answer, words)
