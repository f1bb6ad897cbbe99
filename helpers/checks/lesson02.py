"""The checks of lesson 02: normalisation, the symmetric loss, several pairs of one image, and bugs in four logs."""

from math import inf

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import CASES, Choice, Values, exercise
from helpers.losses import cosine_similarities


def surprises(logits: Tensor, dim: int) -> Tensor:
    """Minus the log probability of each matched pair, ``[batch]``, with the softmax along ``dim``."""
    return logits.logsumexp(dim) - logits.diagonal()


def vectors(generator: Generator, case: int) -> tuple[Tensor]:
    shape = (5, 4) if case % 2 else (3, 5, 4)  # [batch, dim] or [batch, words, dim]
    features = 3 * torch.randn(shape, generator=generator)
    features[0] *= case < CASES - 2  # the last cases have vectors of zeros
    return (features,)


@exercise("l2_normalize", vectors)
def check_l2_normalize(x: Tensor) -> Values:
    squares = x.square().sum(-1, keepdim=True)
    return F.normalize(x, dim=-1), {
        "this divides by the squared length; take the square root of the sum of squares": x / squares,
        "this divides by the sum of absolute values (L1); L2 is the root of the sum of squares": F.normalize(x, 1, -1),
        "this gives length 1 to the columns; each vector lies along the last dimension, dim=-1": F.normalize(x, dim=0),
        "this divides by one length for all; each vector has its own: sum over dim=-1 with keepdim=True": x / x.norm(),
        "this sums over dim=1, which is right for [batch, dim] only; use dim=-1": F.normalize(x, dim=1),
        "a vector of zeros became NaN, because 0 / 0 is undefined; divide by at least 1e-12": x / squares.sqrt(),
    }


def random_pairs(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    """Sample features ``[batch, dim]`` of images and texts, not normalised, and a temperature."""
    images, noise = 2 * torch.randn(2, 6, 4, generator=generator)
    return images, images + noise, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("symmetric_loss", random_pairs, trains=True)
def check_symmetric_loss(images: Tensor, texts: Tensor, temperature: float) -> Values:
    def both(logits: Tensor) -> Tensor:
        return (surprises(logits, 1) + surprises(logits, 0)) / 2

    similarity = cosine_similarities(images, texts)  # [image, text]
    logits = similarity / temperature
    losses, to_texts, to_images = both(logits), surprises(logits, 1).mean(), surprises(logits, 0).mean()
    by_column = F.normalize(images, dim=0) @ F.normalize(texts, dim=0).T / temperature
    softmax_twice = (surprises(logits.softmax(1), 1) + surprises(logits.softmax(0), 0)).mean() / 2
    loss = losses.mean()
    return loss, {
        "this is image to text only, or twice; give cross_entropy the transposed logits for the other half": to_texts,
        "this is text to image only, or twice; the other half needs the logits as they are": to_images,
        "this is the sum of both directions; take their mean": 2 * loss,
        "the features are not normalised; compare cosines": both(images @ texts.T / temperature).mean(),
        "each column was given length 1; each vector is a row, so normalise along dim=1": both(by_column).mean(),
        "this multiplies by the temperature; divide by it": both(similarity * temperature).mean(),
        "the temperature is not used; divide the similarities by it": both(similarity).mean(),
        "the temperature is always 0.07; use the one that is given": both(similarity / 0.07).mean(),
        "cross_entropy gets probabilities, so there are two softmaxes; give it the logits": softmax_twice,
        "this is the sum over the batch; take the mean": losses.sum(),
        "the minus sign is missing; the loss is minus the log of a probability": -loss,
        "this is one loss per pair; take their mean": losses,
    }


def logits_and_ids(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    return 5 * torch.randn(8, 8, generator=generator), 10 * torch.randint(4, (8,), generator=generator)


@exercise("mask_same_image", logits_and_ids)
def check_mask_same_image(logits: Tensor, image_ids: Tensor) -> Values:
    same_image = image_ids[:, None] == image_ids  # [batch, batch]
    hidden = same_image & ~torch.eye(len(image_ids), dtype=torch.bool)
    above = logits.masked_fill(hidden.triu(), -inf)
    return logits.masked_fill(hidden, -inf), {
        "the diagonal is hidden too, with every matched pair; keep entry [i, i]": logits.masked_fill(same_image, -inf),
        "the entries of different images are hidden; hide the same image": logits.masked_fill(~same_image, -inf),
        "a hidden logit of 0 still adds e**0 = 1 to the sum of its row; use -inf": logits.masked_fill(hidden, 0),
        "the hidden logits are a large negative number; use float('-inf')": logits.masked_fill(hidden, -1e9),
        "minus infinity times 0 is NaN, which spreads; use masked_fill": logits + hidden.float() * -inf,
        "this hides entries above the diagonal only; hide [j, i] as well as [i, j]": above,
    }


def logits_and_owners(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor]:
    if case % 2:  # pairs, some of them of the same image
        image_ids = text_image_ids = 10 * torch.randint(4, (7,), generator=generator)
    else:  # three images with one to three texts each, in any order
        image_ids = 10 * torch.randperm(9, generator=generator)[:3]
        owners = image_ids.repeat_interleave(1 + torch.randperm(3, generator=generator))
        text_image_ids = owners[torch.randperm(6, generator=generator)]
    return 3 * torch.randn(len(image_ids), len(text_image_ids), generator=generator), image_ids, text_image_ids


@exercise("multi_positive_loss", logits_and_owners)
def check_multi_positive_loss(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Values:
    right = (image_ids[:, None] == text_image_ids).float()  # [images, texts]
    for_images, for_texts = right / right.sum(1, keepdim=True), right / right.sum(0)  # targets
    to_texts, to_images = -logits.log_softmax(1), -logits.log_softmax(0)  # surprises

    def both(by_image: Tensor, by_text: Tensor) -> Tensor:
        return (by_image.sum(1).mean() + by_text.sum(0).mean()) / 2

    loss = both(for_images * to_texts, for_texts * to_images)
    image_p, text_p = (right * logits.softmax(1)).sum(1), (right * logits.softmax(0)).sum(0)
    log_of_sum = -(image_p.log().mean() + text_p.log().mean()) / 2
    diagonal = (to_texts.diagonal().mean() + to_images.diagonal().mean()) / 2
    wrong_axes = both(for_images * to_images, for_texts * to_texts)
    return loss, {
        "this is image to text only; take the mean with text to image": (for_images * to_texts).sum(1).mean(),
        "this is text to image only; take the mean with image to text": (for_texts * to_images).sum(0).mean(),
        "this is the sum of both directions; take their mean": 2 * loss,
        "the minus sign is missing; the loss is minus the log of a probability": -loss,
        "the targets sum to the number of right answers; divide by it": both(right * to_texts, right * to_images),
        "this is the log of a sum of probabilities; sum the log probabilities, each times its target": log_of_sum,
        "the targets of the texts are divided by the sums of the rows; divide again after transposing": both(
            for_images * to_texts, for_images * to_images
        ),
        "each softmax is along the wrong axis; image to text is over the texts, dim=1": wrong_axes,
        "only the diagonal counts as right; every text of the same image is right": diagonal,
    }


check_find_the_bug = Choice(
    "find_the_bug",
    "c",
    {
        "a": "Logs 2 and 3 are exchanged: captions out of step raise both directions, and log 2 raises only one.",
        "b": "Logs 1 and 4 are exchanged: log 1 stays at chance, ln 64 = 4.16, and log 4 ends near ln 4 = 1.39.",
        "c": "Log 1 stays at ln 64, log 2 is bad in one direction, log 3 rises above chance, log 4 stops near ln 4.",
        "d": "Logs 1 and 3 are exchanged: tiny logits keep log 1 at chance; confident mistakes lift log 3 above it.",
    },
)
