"""The checks of lesson 06: the paired interval, in-batch accuracy and the sign-flip test."""

import itertools

import torch
from scipy import stats
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise
from helpers.losses import cosine_similarities


def paired_values(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    seeds = 3 + case % 6
    common = 50 + 5 * torch.randn(seeds, generator=generator, dtype=torch.float64)  # each seed shifts both arms
    return tuple(common + torch.randn(2, seeds, generator=generator))


@exercise("paired_interval", paired_values)
def check_paired_interval(values: Tensor, baseline: Tensor) -> Values:
    differences, n = values - baseline, len(values)
    mean, spread = differences.mean(), differences.std()
    error = spread / n**0.5
    unpaired = ((values.var() + baseline.var()) / n).sqrt()
    t = float(stats.t.ppf(0.975, n - 1))

    def ends(half: Tensor) -> Tensor:
        return torch.stack([mean, mean - half, mean + half])

    return ends(t * error), {
        "this is baseline minus values; a gain over the baseline should be positive": -ends(t * error)[[0, 2, 1]],
        "this is an unpaired interval; take the difference of each seed first": ends(t * unpaired),
        "the standard deviation is not divided by the square root of the number of seeds": ends(t * spread),
        "the variance divides by n; for a sample, divide by n - 1": ends(t * error * ((n - 1) / n) ** 0.5),
        "1.96 is for a normal distribution; with so few seeds use Student's t": ends(1.96 * error),
        "the degrees of freedom should be n - 1": ends(stats.t.ppf(0.975, n) * error),
        "the quantile at 0.95 leaves 5 % on each side; use 0.975": ends(stats.t.ppf(0.95, n - 1) * error),
        "this is one standard error to each side; multiply by the quantile of t": ends(error),
    }


def pairs_of_batches(generator: Generator, case: int) -> tuple[Tensor, Tensor, int]:
    batch_size = 8 + case % 5
    pairs = 7 * batch_size + batch_size // 2  # the last batch is incomplete
    images, noise = torch.randn(2, pairs, 6, generator=generator)
    lengths = torch.linspace(0.3, 3, pairs)[torch.randperm(pairs, generator=generator)]
    return images, (images + 0.8 * noise) * lengths[:, None], batch_size


def diagonal_wins(similarity: Tensor, size: int) -> Tensor:
    """100 where the diagonal is the highest in its row (and in its column) of a batch, else 0: ``[pairs, 2]``."""
    starts = range(0, len(similarity), size)
    blocks = [similarity[start : start + size, start : start + size] for start in starts]
    hits = [torch.stack([block.argmax(dim) == torch.arange(len(block)) for dim in (1, 0)], 1) for block in blocks]
    return 100 * torch.cat(hits).double()


@exercise("batch_accuracy", pairs_of_batches)
def check_in_batch_accuracy(images: Tensor, texts: Tensor, batch_size: int) -> Values:
    similarity, whole = cosine_similarities(images, texts), len(images) // batch_size * batch_size
    hits_with_rest = diagonal_wins(similarity, batch_size)  # [pairs, 2]
    hits = hits_with_rest[:whole]
    of_all, raw = diagonal_wins(similarity, len(images)), diagonal_wins(images @ texts.T, batch_size)[:whole]
    return hits.mean(), {
        "this is a share from 0 to 1; accuracy is asked for in percent": hits.mean() / 100,
        "the features are not normalised; compare cosines": raw.mean(),
        "this is image to text only; take the mean of both directions": hits[:, 0].mean(),
        "this is text to image only; take the mean of both directions": hits[:, 1].mean(),
        "all pairs are compared, as in recall at 1; compare within batches": of_all.mean(),
        "the last, incomplete batch counts too; it is easier, so leave it out": hits_with_rest.mean(),
        "a pair counts only if both directions are right; count each direction separately": hits.amin(1).mean(),
    }


def seed_differences(generator: Generator, case: int) -> tuple[Tensor]:
    shift = (0.0, 0.8, -0.8)[case % 3]
    differences = torch.randn(3 + case % 5, generator=generator, dtype=torch.float64) + shift
    return (differences.sign() if case == CASES - 1 else differences,)  # the last case has many equal means


@exercise("sign_flip_p_value", seed_differences)
def check_sign_flip_p_value(differences: Tensor) -> Values:
    n, seen = len(differences), differences.mean()
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=n))).double()  # [2 ** seeds, seeds]
    means, one_flipped = (signs * differences).mean(1), ((1 - 2 * torch.eye(n)) * differences).mean(1)
    as_far, farther = ((means.abs() >= seen.abs() + rounding).double() for rounding in (-1e-9, 1e-9))
    one_as_far, p = (one_flipped.abs() >= seen.abs() - 1e-9).double(), as_far.mean()
    return p, {
        "this is a one-sided test; count means as far below zero too": (means >= seen - 1e-9).double().mean(),
        "only means farther from zero are counted; count those equally far too": farther.mean(),
        "this is a number of sign choices; divide by the number of all choices": as_far.sum(),
        "this is one minus the p-value; count the means at least as far from zero": 1 - p,
        "all signs are flipped together; each seed has a sign of its own": 1.0,
        "this flips one sign at a time; use all 2 ** seeds combinations": one_as_far.mean(),
    }
