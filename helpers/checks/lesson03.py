"""The checks of lesson 03: effective negatives, shares of the repulsion, temperatures that change or differ."""

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

    def number(logits: Tensor) -> Tensor:
        return torch.special.entr(logits.double().softmax(1)).sum(1).exp().mean()

    return number(logits), {
        "this is the entropy; the number of texts it amounts to is its exponential": entropy.mean(),
        "this is exp of the mean entropy; take exp of each row's entropy first": entropy.mean().exp(),
        "this is one number per image; take their mean": entropy.exp(),
        "this is the softmax over columns; each image should be compared with all texts": number(logits.T),
        "the features are not normalised; their lengths count": number(images @ texts.T / temperature),
        "this multiplies by the temperature; divide by it": number(similarity * temperature),
        "the temperature is not used; divide the similarities by it": number(similarity),
        "the minus sign of the entropy is missing": (-entropy).exp().mean(),
        "this leaves the image's own text out; here it is counted with the others": number(without_diagonal(logits)),
        "log2 and exp do not belong together; use the natural logarithm": (entropy / math.log(2)).exp().mean(),
        "NaN at a low temperature: a probability was rounded to 0, and 0 * ln 0 is undefined; "
        "use torch.special.entr, or take the logarithm with log_softmax": (-p * p.log()).sum(1).exp().mean(),
    }


def similarities(generator: Generator, case: int) -> tuple[Tensor, float]:
    batch = int(torch.randint(3, 9, (), generator=generator))
    temperature = 0.05 + 0.4 * torch.rand((), generator=generator).item()
    similarity = torch.rand(batch, batch, generator=generator) - 0.5
    is_sharp = case >= CASES - 2  # the matched texts have all of the probability
    return (similarity / 10 + torch.eye(batch), 0.005) if is_sharp else (similarity, temperature)


@exercise("gradient_shares", similarities)
def check_gradient_shares(similarity: Tensor, temperature: float) -> Values:
    logits, own = similarity / temperature, torch.eye(len(similarity))
    p = logits.softmax(1)
    negatives = p * (1 - own)
    return without_diagonal(logits).softmax(1), {
        "the matched text is still in the softmax; only the negatives are pushed away": p,
        "the diagonal is 0, but the rows do not sum to 1; leave the matched text out of the denominator too": negatives,
        "a logit of 0 still has a weight of e**0 = 1; give the matched text -inf": (logits * (1 - own)).softmax(1),
        "this is the gradient itself; a share has no 1 / temperature and no matched text": (p - own) / temperature,
        "this is the softmax over columns; compare each image with all texts": without_diagonal(logits).softmax(0),
        "the temperature is not used; divide the similarities by it": without_diagonal(similarity).softmax(1),
        "this multiplies by the temperature; divide by it": without_diagonal(similarity * temperature).softmax(1),
        "every negative has the same share; near ones should have more": (1 - own) / (len(own) - 1),
        "NaN or infinity where the matched text has all of the probability: nothing is left to divide by; "
        "give it the logit -inf before the softmax": negatives / (1 - p.diagonal())[:, None],
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
        "this is a whole period, which returns to start; use half of one": end + way * (1 + math.cos(2 * angle)) / 2,
        "this is a straight line; the cosine is slow at both ends": start - way * progress,
        "pi is missing: progress 1 is an angle of pi": end + way * (1 + math.cos(progress)) / 2,
        "a cosine runs from 1 to -1; (1 + cosine) / 2 runs from 1 to 0": end + way * math.cos(angle),
        "this is a quarter of a cosine, slow at its start only; use half of one": end + way * math.cos(angle / 2),
        "the start is counted from 0; the cosine scales the difference, start - end": end + start * remaining,
    }


def pairs_with_temperatures(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, texts, _ = random_pairs(generator, case)
    temperatures = 0.05 + 0.4 * torch.rand(2, len(images), generator=generator)
    # Some temperatures are so low that an exponential of a logit overflows.
    return images, texts, *(temperatures / (100 if case >= CASES - 2 else 1))


@exercise("anchor_loss", pairs_with_temperatures)
def check_anchor_loss(images: Tensor, texts: Tensor, of_images: Tensor, of_texts: Tensor) -> Values:
    s, dots = cosine_similarities(images, texts), images @ texts.T  # [image, text]
    a, b = of_images[:, None], of_texts[:, None]  # as columns; the texts' row is b.T

    def both(to_texts: Tensor, to_images: Tensor) -> Tensor:
        return (surprises(to_texts, 1) + surprises(to_images, 0)) / 2  # [batch]

    rows, columns = (s / a).exp(), (s / b.T).exp()
    overflow = -(rows.diagonal() / rows.sum(1) * columns.diagonal() / columns.sum(0)).log().mean() / 2
    losses = both(s / a, s / b.T)
    return losses.mean(), {
        "the temperatures divide the candidates, not the anchors: [N] is taken as a row, [1, N]; "
        "write image_temperatures[:, None]": both(s / a.T, s / b).mean(),
        "image to text is divided by the temperatures of its columns; an image's temperature divides its row, "
        "image_temperatures[:, None]": both(s / a.T, s / b.T).mean(),
        "text to image is divided by the temperatures of its candidates; a text's temperature divides all "
        "similarities of this text": both(s / a, s / b).mean(),
        "the two sets of temperatures are exchanged: images have image_temperatures": both(s / b, s / a.T).mean(),
        "each direction is divided by the temperatures of the other side, its candidates": both(s / b.T, s / a).mean(),
        "both directions use the temperatures of the images; texts have their own": both(s / a, s / a).mean(),
        "both directions use the temperatures of the texts; images have their own": both(s / b.T, s / b.T).mean(),
        "each entry is divided by both temperatures; use the anchor's only": both(s / (a * b.T), s / (a * b.T)).mean(),
        "this is image to text only; take the mean with text to image": surprises(s / a, 1).mean(),
        "this is text to image only; take the mean with image to text": surprises(s / b.T, 0).mean(),
        "this is the sum of both directions; take their mean": 2 * losses.mean(),
        "this is one loss per pair; take their mean": losses,
        "the features are not normalised, so their lengths count": both(dots / a, dots / b.T).mean(),
        "this multiplies by the temperatures; divide by them": both(s * a, s * b.T).mean(),
        "one temperature, the mean, serves all; each anchor has its own": both(s / a.mean(), s / b.mean()).mean(),
        "the temperatures are not used; divide each anchor's similarities by its own": both(s, s).mean(),
        "NaN or infinity at a low temperature: an exponential was too large; use cross_entropy": overflow,
    }
