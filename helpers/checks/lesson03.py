"""The checks of lesson 03: effective negatives, shares of the repulsion, a schedule, and reading loss curves."""

import math

import torch
from torch import Generator, Tensor

from helpers.checks.core import CASES, Choice, Setting, Values, exercise
from helpers.checks.lesson02 import sample_pairs
from helpers.losses import cosine_similarities, without_diagonal
from helpers.temperature import cosine_decay


def pairs_at_low_temperature(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    images, texts, temperature = sample_pairs(generator, case)
    return images, texts, 0.005 if case >= CASES - 2 else temperature  # some probabilities are rounded to 0


@exercise("effective_negatives_of_batch", pairs_at_low_temperature)
def check_effective_negatives_of_batch(images: Tensor, texts: Tensor, temperature: float) -> Values:
    def probabilities(logits: Tensor) -> Tensor:  # of each image, then of each text, [2 * batch, batch]
        return torch.cat([logits.softmax(1), logits.T.softmax(1)])

    p = probabilities(cosine_similarities(images, texts) / temperature)
    entropy = torch.special.entr(p).sum(1)  # [2 * batch]
    numbers, undefined = entropy.exp(), (-p * p.log()).sum(1).exp()
    multiplied = torch.special.entr(probabilities(cosine_similarities(images, texts) * temperature)).sum(1).exp()
    of_lengths = torch.special.entr(probabilities(images @ texts.T / temperature)).sum(1).exp()
    return numbers.mean(), {
        "this is image to text only; take the mean with text to image": numbers[: len(images)].mean(),
        "this is the sum; take the mean": numbers.sum(),
        "this is the entropy; the effective number is its exponential": entropy.mean(),
        "this is exp of the mean entropy; take exp of each entropy first": entropy.mean().exp(),
        "the features are not normalised; compare cosines": of_lengths.mean(),
        "the temperature multiplies here; divide by it": multiplied.mean(),
        "NaN at a low temperature, because 0 * ln 0 is undefined; use torch.special.entr": undefined.mean(),
    }


def similarities(generator: Generator, case: int) -> tuple[Tensor, float]:
    similarity = torch.rand(5 + case % 3, 5 + case % 3, generator=generator) - 0.5
    if case >= CASES - 2:  # the matched texts have all of the probability
        return similarity / 10 + torch.eye(len(similarity)), 0.005
    return similarity, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("repulsion_shares", similarities)
def check_repulsion_shares(similarity: Tensor, temperature: float) -> Values:
    logits, own = similarity / temperature, torch.eye(len(similarity))
    p = logits.softmax(1)
    negatives, rest = p * (1 - own), 1 - p.diagonal()
    return without_diagonal(logits).softmax(1), {
        "the matched text is still in the softmax; only the negatives are pushed away": p,
        "the diagonal is 0, but the rows do not sum to 1; leave the matched text out of the denominator too": negatives,
        "the match has all of the probability, so nothing is left to divide by; set its logit to -inf": negatives
        / rest[:, None],
        "this divides columns; to divide rows, write (1 - p.diagonal())[:, None]": negatives / rest,
        "the temperature multiplies here; divide by it": without_diagonal(similarity * temperature).softmax(1),
        "these are shares of columns; each row sums to 1": without_diagonal(logits).softmax(0),
        "a logit of 0 still has a weight of e**0 = 1; give the matched text -inf": (logits * (1 - own)).softmax(1),
    }


def schedules(generator: Generator, case: int) -> tuple[float, float, float]:
    if case == 0:
        return 0.5, 0.2, 0.05  # the example in the task
    progress, start, end = (torch.randint(1, 100, (3,), generator=generator).double() / 100).tolist()
    return {CASES - 2: 0.0, CASES - 1: 1.0}.get(case, progress), start, end


@exercise("cosine_schedule", schedules, refused=((-0.1, 0.2, 0.05), (1.5, 0.2, 0.05)))
def check_cosine_schedule(progress: float, start: float, end: float) -> Values:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be from 0 to 1, not {progress}")
    angle, way = math.pi * progress, start - end
    remaining = (1 + math.cos(angle)) / 2
    return cosine_decay(progress, start, end), {
        "this goes from end to start; at progress 0 the temperature is start": start - way * remaining,
        "this is a full period, which returns to start; use half of one": end + way * (1 + math.cos(2 * angle)) / 2,
        "this is a straight line; half a cosine is slow at both ends": start - way * progress,
        "this is a quarter of a cosine, slow at its start only; use half of one": end + way * math.cos(angle / 2),
        "this is a geometric decay; half a cosine is slow at both ends": start * (end / start) ** progress,
        "this is a cosine of degrees; math.cos expects radians": end + way * (1 + math.cos(180 * progress)) / 2,
        "1 + cosine runs from 2 to 0; divide it by 2": end + 2 * way * remaining,
        "end is not added; at progress 1 the temperature is end": way * remaining,
        "a cosine runs from 1 to -1; (1 + cosine) / 2 runs from 1 to 0": end + way * math.cos(angle),
    }


check_ten_negatives = Setting(
    "ten_negatives",
    low=0.265,
    high=0.295,
    too_low="at this temperature fewer than ten texts count; go higher",
    too_high="at this temperature more than ten texts count; go lower",
    right="about ten of the sixteen texts count.",
)

check_rising_loss = Choice(
    "rising_loss",
    right="c",
    a="an over-fitted model becomes too sure of its answers, but here the effective negatives jump up",
    b="a training that diverges loses its accuracy, but here the accuracy goes on rising; look once more",
    c="the temperature went from 0.07 to 0.3, so the two parts of the loss curve cannot be compared.",
    d="false negatives put a floor under the loss from the first step on; they cannot raise it after step 64",
)

check_scale_bug = Choice(
    "scale_bug",
    right="b",
    a="the features rank 89 % of the matches first, so they are good; look at what happens to the similarities",
    b="exp(ln 0.07) is 0.07, so the similarities are multiplied by the temperature; start at ln(1 / 0.07).",
    c="a clamp limits a logit scale above 100, and this one is far below; print it",
    d="without exp the similarities would be multiplied by ln 0.07, a negative number that reverses the ranking",
)
