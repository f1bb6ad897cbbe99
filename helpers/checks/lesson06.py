"""The checks of lesson 06: the paired interval, in-batch accuracy, the sign-flip test."""

import itertools

import torch
from scipy import stats
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise
from helpers.losses import cosine_similarities


def paired_values(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    seeds = 3 + case % 6
    common = 50 + 5 * torch.randn(seeds, generator=generator, dtype=torch.float64)  # what a seed does to both arms
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
        "this treats the two sides as unpaired; take the differences first, seed by seed": ends(t * unpaired),
        "the spread of the differences is not divided by the square root of the number of seeds": ends(t * spread),
        "the spread is divided by the number of seeds; divide by its square root": ends(t * spread / n),
        "the standard deviation divides by n; for a sample, divide by n - 1": ends(t * error * ((n - 1) / n) ** 0.5),
        "1.96 belongs to the normal distribution; with so few seeds take Student's t": ends(1.96 * error),
        "the degrees of freedom are the number of seeds less one": ends(stats.t.ppf(0.975, n) * error),
        "the quantile at 0.95 leaves 5 % on each side; take 0.975": ends(stats.t.ppf(0.95, n - 1) * error),
        "this is one standard error to each side; multiply by the quantile of t": ends(error),
        "the ends have changed places; low comes first": ends(-t * error),
    }


def pairs_of_batches(generator: Generator, case: int) -> tuple[Tensor, Tensor, int]:
    batch_size = 8 + case % 5
    pairs = 7 * batch_size + batch_size // 2  # some are left over
    images, noise = torch.randn(2, pairs, 6, generator=generator)
    lengths = torch.linspace(0.3, 3, pairs)[torch.randperm(pairs, generator=generator)]
    return images, (images + 0.8 * noise) * lengths[:, None], batch_size


def diagonal_wins(similarity: Tensor, size: int) -> Tensor:
    """100 where the diagonal has the highest value of its row, and of its column, in batches: ``[pairs, 2]``."""
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
        "this is a share from 0 to 1; percent is asked for": hits.mean() / 100,
        "the features are not normalised, so the longest text wins; compare cosines": raw.mean(),
        "this is image to text alone; take the mean of both directions": hits[:, 0].mean(),
        "this is text to image alone; take the mean of both directions": hits[:, 1].mean(),
        "all pairs are compared, as for recall at 1; stay within a batch": of_all.mean(),
        "the pairs left over at the end are a smaller, easier batch; leave them out": hits_with_rest.mean(),
        "only the first batch counts here; is the return inside the loop?": hits[:batch_size].mean(),
        "only the last batch counts here; collect the hits of each": hits[-batch_size:].mean(),
        "a pair counts here only if both directions are right; count each direction separately": hits.amin(1).mean(),
    }


def seed_differences(generator: Generator, case: int) -> tuple[Tensor]:
    shift = (0.0, 0.8, -0.8)[case % 3]
    differences = torch.randn(3 + case % 5, generator=generator, dtype=torch.float64) + shift
    return (differences.sign() if case == CASES - 1 else differences,)  # at last many means are alike


@exercise("sign_flip_p_value", seed_differences)
def check_sign_flip_p_value(differences: Tensor) -> Values:
    n, seen = len(differences), differences.mean()
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=n))).double()  # [2 ** seeds, seeds]
    means, one_flipped = (signs * differences).mean(1), ((1 - 2 * torch.eye(n)) * differences).mean(1)
    as_far, farther = ((means.abs() >= seen.abs() + rounding).double() for rounding in (-1e-9, 1e-9))
    one_as_far, p = (one_flipped.abs() >= seen.abs() - 1e-9).double(), as_far.mean()
    return p, {
        "this looks at one side only; a mean as far below zero counts too": (means >= seen - 1e-9).double().mean(),
        "only means farther out are counted; those as far out, such as the one seen, count too": farther.mean(),
        "this is how many ways there are; divide by the number of all ways": as_far.sum(),
        "the p-value is the share of means as far out as the one seen; this is the share of the others": 1 - p,
        "all signs are flipped together here; each seed has a sign of its own": 1.0,
        "this flips one sign at a time; every seed has two choices, so there are 2 ** seeds ways": one_as_far.mean(),
    }
