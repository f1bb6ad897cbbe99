"""The checks of lesson 03: effective negatives, shares of the repulsion, a schedule, and reading loss curves."""

import math

import torch
from torch import Generator, Tensor

from helpers.checks.core import CASES, Choice, Setting, Values, exercise
from helpers.checks.lesson02 import random_pairs
from helpers.losses import cosine_similarities, without_diagonal
from helpers.temperature import CosineDecay


def pairs_at_low_temperature(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    images, texts, temperature = random_pairs(generator, case)
    return images, texts, 0.005 if case >= CASES - 2 else temperature  # some probabilities are rounded to 0


@exercise("effective_negatives_of_batch", pairs_at_low_temperature)
def check_effective_negatives_of_batch(images: Tensor, texts: Tensor, temperature: float) -> Values:
    similarity = cosine_similarities(images, texts)  # [image, text]
    logits = similarity / temperature

    def entropies(logits: Tensor) -> Tensor:  # of each image, then of each text, [2 * batch]
        both = torch.cat([logits.double().softmax(1), logits.double().T.softmax(1)])
        return torch.special.entr(both).sum(1)

    def number(logits: Tensor) -> Tensor:
        return entropies(logits).exp().mean()

    of_images, of_texts = entropies(logits).chunk(2)
    p, q = logits.softmax(1), logits.softmax(0)
    undefined = ((-p * p.log()).sum(1).exp().mean() + (-q * q.log()).sum(0).exp().mean()) / 2
    return number(logits), {
        "this is image to text only; take the mean with text to image": of_images.exp().mean(),
        "this is text to image only; take the mean with image to text": of_texts.exp().mean(),
        "this is the sum of both directions; take their mean": 2 * number(logits),
        "this is the entropy; the effective number is its exponential": entropies(logits).mean(),
        "this is exp of the mean entropy; take exp of each entropy first": entropies(logits).mean().exp(),
        "this is one number per image and per text; take their mean": entropies(logits).exp(),
        "the features are not normalised; compare cosines": number(images @ texts.T / temperature),
        "this multiplies by the temperature; divide by it": number(similarity * temperature),
        "the temperature is not used; divide the similarities by it": number(similarity),
        "this leaves out the matched pairs; they count here": number(without_diagonal(logits)),
        "NaN at a low temperature, because 0 * ln 0 is undefined; use torch.special.entr or log_softmax": undefined,
    }


def similarities(generator: Generator, case: int) -> tuple[Tensor, float]:
    similarity = torch.rand(6, 6, generator=generator) - 0.5
    if case >= CASES - 2:  # the matched texts have all of the probability
        return similarity / 10 + torch.eye(6), 0.005
    return similarity, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("repulsion_shares", similarities)
def check_repulsion_shares(similarity: Tensor, temperature: float) -> Values:
    logits, own = similarity / temperature, torch.eye(len(similarity))
    p = logits.softmax(1)
    negatives = p * (1 - own)
    divided = negatives / (1 - p.diagonal())[:, None]
    return without_diagonal(logits).softmax(1), {
        "the matched text is still in the softmax; only the negatives are pushed away": p,
        "the diagonal is 0, but the rows do not sum to 1; leave the matched text out of the denominator too": negatives,
        "a logit of 0 still has a weight of e**0 = 1; give the matched text -inf": (logits * (1 - own)).softmax(1),
        "this is the gradient; a share has no factor 1 / temperature and no matched text": (p - own) / temperature,
        "this is the softmax over columns; compare each image with all texts": without_diagonal(logits).softmax(0),
        "the temperature is not used; divide the similarities by it": without_diagonal(similarity).softmax(1),
        "this multiplies by the temperature; divide by it": without_diagonal(similarity * temperature).softmax(1),
        "the matched text has all of the probability, so nothing is left to divide by; give it the logit -inf": divided,
    }


def schedules(generator: Generator, case: int) -> tuple[float, float, float]:
    progress, start, end = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return {CASES - 2: 0.0, CASES - 1: 1.0}.get(case, progress), start, end


@exercise("cosine_schedule", schedules, refused=((-0.1, 0.2, 0.05), (1.5, 0.2, 0.05)))
def check_cosine_schedule(progress: float, start: float, end: float) -> Values:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be from 0 to 1, not {progress}")
    angle, way = math.pi * progress, start - end
    remaining = (1 + math.cos(angle)) / 2
    return CosineDecay(start, end)(progress), {
        "this goes from end to start; at progress 0 the temperature is start": start - way * remaining,
        "this is a full period, which returns to start; use half of one": end + way * (1 + math.cos(2 * angle)) / 2,
        "this is a straight line; half a cosine is slow at both ends": start - way * progress,
        "a cosine runs from 1 to -1; (1 + cosine) / 2 runs from 1 to 0": end + way * math.cos(angle),
        "this is a quarter of a cosine, slow at its start only; use half of one": end + way * math.cos(angle / 2),
        "this scales start itself; scale the difference, start - end": end + start * remaining,
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
    sentences={
        "a": "an over-fitted model becomes too sure of its answers, but here the effective negatives jump up",
        "b": "a training that diverges loses its accuracy, but here the accuracy goes on rising; look once more",
        "c": "the temperature went from 0.07 to 0.3, so the two parts of the loss curve cannot be compared.",
        "d": "false negatives put a floor under the loss from the first step on; they cannot raise it after step 64",
    },
)

check_scale_bug = Choice(
    "scale_bug",
    right="b",
    sentences={
        "a": "the features rank 89 % of the matches first, so they are good; look at what happens to the similarities",
        "b": "exp(ln 0.07) is 0.07, so the similarities are multiplied by the temperature; start at ln(1 / 0.07).",
        "c": "a clamp limits a logit scale above 100, and this one is far below; print it",
        "d": "without exp the similarities would be multiplied by ln 0.07, a negative number that reverses the ranking",
    },
)
