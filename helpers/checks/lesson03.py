"""The checks of lesson 03: effective negatives, shares of the repulsion, schedules and one temperature per anchor."""

import math

import torch
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise
from helpers.checks.lesson02 import random_pairs, surprises
from helpers.losses import cosine_similarities, without_diagonal
from helpers.temperature import CosineDecay


def pairs_at_low_temperature(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    images, texts, temperature = random_pairs(generator, case)
    return images, texts, 0.005 if case >= CASES - 2 else temperature  # some probabilities are rounded to 0


@exercise("effective_negatives", pairs_at_low_temperature)
def check_effective_negatives(images: Tensor, texts: Tensor, temperature: float) -> Values:
    similarity = cosine_similarities(images, texts)  # [image, text]
    logits = similarity / temperature
    p = logits.softmax(1)
    entropy = torch.special.entr(p.double()).sum(1)  # [image]
    undefined = (-p * p.log()).sum(1).exp().mean()

    def number(logits: Tensor) -> Tensor:
        return torch.special.entr(logits.double().softmax(1)).sum(1).exp().mean()

    return number(logits), {
        "this is the entropy; the effective number of texts is its exponential": entropy.mean(),
        "this is exp of the mean entropy; take exp of each row's entropy first": entropy.mean().exp(),
        "this is one number per image; take their mean": entropy.exp(),
        "this is the softmax over columns; compare each image with all texts": number(logits.T),
        "the features are not normalised; compare cosines": number(images @ texts.T / temperature),
        "this multiplies by the temperature; divide by it": number(similarity * temperature),
        "the temperature is not used; divide the similarities by it": number(similarity),
        "this leaves out the image's own text; it counts here": number(without_diagonal(logits)),
        "NaN at a low temperature, because 0 * ln 0 is undefined; use torch.special.entr or log_softmax": undefined,
    }


def similarities(generator: Generator, case: int) -> tuple[Tensor, float]:
    similarity = torch.rand(6, 6, generator=generator) - 0.5
    if case >= CASES - 2:  # the matched texts have all of the probability
        return similarity / 10 + torch.eye(6), 0.005
    return similarity, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("gradient_shares", similarities)
def check_gradient_shares(similarity: Tensor, temperature: float) -> Values:
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


def pairs_with_temperatures(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, texts, _ = random_pairs(generator, case)
    temperatures = 0.05 + 0.4 * torch.rand(2, len(images), generator=generator)
    # Some temperatures are so low that an exponential of a logit overflows.
    return images, texts, *(temperatures / (100 if case >= CASES - 2 else 1))


@exercise("anchor_loss", pairs_with_temperatures)
def check_anchor_loss(images: Tensor, texts: Tensor, of_images: Tensor, of_texts: Tensor) -> Values:
    s, dots = cosine_similarities(images, texts), images @ texts.T  # [image, text]
    a, b = of_images[:, None], of_texts[:, None]  # columns; b.T is a row

    def both(to_texts: Tensor, to_images: Tensor) -> Tensor:
        return (surprises(to_texts, 1) + surprises(to_images, 0)).mean() / 2

    rows, columns = (s / a).exp(), (s / b.T).exp()
    overflow = -(rows.diagonal() / rows.sum(1) * columns.diagonal() / columns.sum(0)).log().mean() / 2
    return both(s / a, s / b.T), {
        "both directions divide columns instead of rows; write image_temperatures[:, None]": both(s / a.T, s / b),
        "image to text divides columns instead of rows; write image_temperatures[:, None]": both(s / a.T, s / b.T),
        "text to image divides by the temperatures of other texts; each text has its own": both(s / a, s / b),
        "the two sets of temperatures are exchanged; images have image_temperatures": both(s / b, s / a.T),
        "both directions use the temperatures of the images; texts have their own": both(s / a, s / a),
        "this is image to text only; take the mean with text to image": surprises(s / a, 1).mean(),
        "this is text to image only; take the mean with image to text": surprises(s / b.T, 0).mean(),
        "this is the sum of both directions; take their mean": 2 * both(s / a, s / b.T),
        "the features are not normalised; compare cosines": both(dots / a, dots / b.T),
        "this multiplies by the temperatures; divide by them": both(s * a, s * b.T),
        "NaN or infinity at a low temperature: an exponential was too large; use cross_entropy": overflow,
    }
