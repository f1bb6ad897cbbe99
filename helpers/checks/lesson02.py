"""The checks of lesson 02: normalisation, the symmetric loss, several pairs of one image, and bugs in four logs."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import CASES, Choice, Values, exercise
from helpers.losses import cosine_similarities, symmetric_cross_entropy, without_diagonal


def vectors(generator: Generator, case: int) -> tuple[Tensor]:
    shape = (5, 4) if case % 2 else (3, 5, 4)  # [batch, dim] or [batch, words, dim]
    features = 3 * torch.randn(shape, generator=generator)
    features[0] *= case < CASES - 2  # the last cases have vectors of zeros
    return (features,)


@exercise("l2_normalize", vectors, trains=True)
def check_l2_normalize(x: Tensor) -> Values:
    squares = x.square().sum(-1, keepdim=True)
    return F.normalize(x, dim=-1), {
        "this divides by the squared length; take the square root of the sum of squares": x / squares,
        "this gives length 1 to the columns; each vector lies along the last dimension, dim=-1": F.normalize(x, dim=0),
        "this divides by one length for all; each vector has its own: sum over dim=-1 with keepdim=True": x / x.norm(),
        "this sums over dim=1, which is right for [batch, dim] only; use dim=-1": F.normalize(x, dim=1),
        "a vector of zeros became NaN, because 0 / 0 is undefined; divide by at least 1e-12": x / squares.sqrt(),
    }


def sample_pairs(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    """Sample features ``[batch, dim]`` of images and texts, not normalised, and a temperature."""
    images, noise = 2 * torch.randn(2, 5 + case % 3, 4, generator=generator)
    return images, images + noise, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("symmetric_loss", sample_pairs, trains=True)
def check_symmetric_loss(images: Tensor, texts: Tensor, temperature: float) -> Values:
    similarity, labels = cosine_similarities(images, texts), torch.arange(len(images))  # [image, text], [image]
    logits = similarity / temperature
    loss = symmetric_cross_entropy(logits)
    to_texts, to_images = F.cross_entropy(logits, labels), F.cross_entropy(logits.T, labels)
    others = without_diagonal(logits)
    without_own = ((others.logsumexp(1) + others.logsumexp(0)) / 2 - logits.diagonal()).mean()
    twice = [F.cross_entropy(z.softmax(1), labels) for z in (logits, logits.T)]
    return loss, {
        "this is image to text only, or twice; give cross_entropy the transposed logits for the other half": to_texts,
        "this is text to image only, or twice; the other half needs the logits as they are": to_images,
        "this is the sum of both directions; take their mean": 2 * loss,
        "the features are not normalised; compare cosines": symmetric_cross_entropy(images @ texts.T / temperature),
        "only the images are normalised": symmetric_cross_entropy(F.normalize(images) @ texts.T / temperature),
        "this multiplies by the temperature; divide by it": symmetric_cross_entropy(similarity * temperature),
        "cross_entropy gets probabilities, so there are two softmaxes; give it the logits": sum(twice) / 2,
        "the matched pair is missing in the denominator; its sum is over all texts": without_own,
        "this is the sum over the batch; take the mean": len(images) * loss,
    }


def logits_and_ids(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    size = 7 + case % 3
    return 5 * torch.randn(size, size, generator=generator), 10 * torch.randint(4, (size,), generator=generator)


@exercise("mask_same_image", logits_and_ids, trains=True)
def check_mask_same_image(logits: Tensor, image_ids: Tensor) -> Values:
    same_image = image_ids[:, None] == image_ids  # [batch, batch]
    hidden = same_image & ~torch.eye(len(image_ids), dtype=torch.bool)
    return logits.masked_fill(hidden, -torch.inf), {
        "the diagonal is hidden too; keep entry [i, i]": logits.masked_fill(same_image, -torch.inf),
        "the entries of different images are hidden; hide the same image": logits.masked_fill(~same_image, -torch.inf),
        "a hidden logit of 0 still adds e**0 = 1 to the sum of its row; use -inf": logits.masked_fill(hidden, 0),
        "the hidden logits are a large negative number; use float('-inf')": logits.masked_fill(hidden, -1e9),
        "minus infinity times 0 is NaN, which spreads; use masked_fill": logits + hidden.float() * -torch.inf,
        "only one triangle is hidden; hide [j, i] as well as [i, j]": logits.masked_fill(hidden.triu(), -torch.inf),
    }


def logits_and_owners(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor]:
    image_ids = 10 * torch.randperm(9, generator=generator)[:3]
    text_image_ids = image_ids.repeat_interleave(torch.tensor([1, 2, 3]))[torch.randperm(6, generator=generator)]
    if case % 2:  # pairs: as many images as texts, some of them the same
        image_ids = text_image_ids
    return 3 * torch.randn(len(image_ids), len(text_image_ids), generator=generator), image_ids, text_image_ids


@exercise("multi_positive_loss", logits_and_owners, trains=True)
def check_multi_positive_loss(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Values:
    right = (image_ids[:, None] == text_image_ids).float()  # [image, text]
    for_images, for_texts = right / right.sum(1, keepdim=True), right / right.sum(0)  # targets

    def both(by_image: Tensor, by_text: Tensor) -> Tensor:
        return (F.cross_entropy(logits, by_image) + F.cross_entropy(logits.T, by_text)) / 2

    log_of_sum = -sum((right * logits.softmax(dim)).sum(dim).log().mean() for dim in (0, 1)) / 2
    diagonal = -sum(logits.log_softmax(dim).diagonal().mean() for dim in (0, 1)) / 2
    return both(for_images, for_texts.T), {
        "this is image to text only; take the mean with text to image": F.cross_entropy(logits, for_images),
        "this sums over the right answers; divide each row of targets by its sum": both(right, right.T),
        "this is the log of a sum of probabilities; sum the log probabilities, each times its target": log_of_sum,
        "the targets of the texts are divided by the sums of the rows; transpose first": both(for_images, for_images.T),
        "only the first right answer counts; share the target among all": both(right.argmax(1), right.argmax(0)),
        "only the diagonal counts as right; every text of the same image is right": diagonal,
    }


check_find_the_bug = Choice(
    "find_the_bug",
    right="c",
    a="Logs 2 and 3 are exchanged: captions out of step raise both directions, and log 2 raises only one.",
    b="Logs 1 and 4 are exchanged: log 1 stays at chance, ln 64 = 4.16, and log 4 ends near ln 4 = 1.39.",
    c="Log 1 stays at ln 64, log 2 is bad in one direction, log 3 rises above chance, log 4 stops near ln 4.",
    d="Logs 1 and 3 are exchanged: tiny logits keep log 1 at chance; confident mistakes lift log 3 above it.",
)
