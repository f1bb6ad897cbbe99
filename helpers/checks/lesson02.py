"""The checks of lesson 02: normalising, one direction of the loss, and several pairs of one image."""

from math import inf

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise
from helpers.losses import cosine_similarities


def surprises(logits: Tensor, dim: int) -> Tensor:
    """Minus the log probability of each matched pair, ``[batch]``, with the softmax along ``dim``."""
    return logits.logsumexp(dim) - logits.diagonal()


def vectors(generator: Generator, case: int) -> tuple[Tensor]:
    shape = torch.randint(2, 7, (2 + case % 2,), generator=generator).tolist()  # [batch, dim] or [batch, words, dim]
    features = 3 * torch.randn(shape, generator=generator)
    features[0] *= case < CASES - 2  # vectors of zeros come last
    return (features,)


@exercise("l2_normalize", vectors)
def check_l2_normalize(x: Tensor) -> Values:
    squares = x.square().sum(-1, keepdim=True)
    return F.normalize(x, dim=-1), {
        "this divides by the squared length; take the square root of the sum of squares": x / squares,
        "this divides by the sum of absolute values (L1); L2 is the root of the sum of squares": F.normalize(x, 1, -1),
        "this gives length 1 to the columns; each vector lies along the last dimension, dim=-1": F.normalize(x, dim=0),
        "this divides all by one length; each vector has its own: sum over dim=-1 with keepdim=True": x / x.norm(),
        "this sums over dim 1, which is right for [batch, dim] only; the last is dim=-1": F.normalize(x, dim=1),
        "a vector of zeros became NaN, as 0 / 0 is undefined; divide by at least 1e-12": x / squares.sqrt(),
    }


def random_pairs(generator: Generator, case: int) -> tuple[Tensor, Tensor, float]:
    """Features ``[batch, dim]`` of images and texts, not normalised, and a temperature."""
    batch, dim = torch.randint(3, 9, (2,), generator=generator).tolist()
    images, noise = 2 * torch.randn(2, batch, dim, generator=generator)
    return images, images + noise, 0.05 + 0.4 * torch.rand((), generator=generator).item()


@exercise("text_to_image_loss", random_pairs)
def check_text_to_image_loss(images: Tensor, texts: Tensor, temperature: float) -> Values:
    similarity = cosine_similarities(images, texts)  # [image, text]
    losses, other_way = surprises(similarity / temperature, 0), surprises(similarity / temperature, 1).mean()
    loss = losses.mean()
    return loss, {
        "this is image to text, the other direction; each text should be compared with all images": other_way,
        "this is the mean of both directions; only text to image is asked for": (loss + other_way) / 2,
        "the features are not normalised; their lengths count": surprises(images @ texts.T / temperature, 0).mean(),
        "this multiplies by the temperature; divide by it": surprises(similarity * temperature, 0).mean(),
        "the temperature is not used; divide the similarities by it": surprises(similarity, 0).mean(),
        "this is the sum over the batch; take the mean": losses.sum(),
        "the minus sign is missing; the loss is minus the log of a probability": -loss,
        "this is one loss per text; take their mean": losses,
    }


def logits_and_ids(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    batch = int(torch.randint(5, 10, (), generator=generator))
    logits = 5 * torch.randn(batch, batch, generator=generator)
    return logits, 10 * torch.randint(4, (batch,), generator=generator)


@exercise("mask_same_image", logits_and_ids)
def check_mask_same_image(logits: Tensor, image_ids: Tensor) -> Values:
    same_image = image_ids[:, None] == image_ids  # [batch, batch]
    hidden = same_image & ~torch.eye(len(image_ids), dtype=torch.bool)
    above, below = (logits.masked_fill(half, -inf) for half in (hidden.triu(), hidden.tril()))
    return logits.masked_fill(hidden, -inf), {
        "the diagonal is hidden too, with every matched pair; keep entry [i, i]": logits.masked_fill(same_image, -inf),
        "the entries of different images are hidden; hide the same image": logits.masked_fill(~same_image, -inf),
        "a hidden logit of 0 still adds e**0 = 1 to the sum of its row; put -inf": logits.masked_fill(hidden, 0),
        "this puts a large negative number; put -inf itself, float('-inf')": logits.masked_fill(hidden, -1e9),
        "this hides entries above the diagonal only; [i, j] and [j, i] are both of the same image": above,
        "this hides entries below the diagonal only; [i, j] and [j, i] are both of the same image": below,
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
    z, right = logits, (image_ids[:, None] == text_image_ids).float()  # [images, texts]
    for_images, for_texts = right / right.sum(1, keepdim=True), right / right.sum(0, keepdim=True)  # targets
    to_texts, to_images = -z.log_softmax(1), -z.log_softmax(0)  # surprises

    def both(by_image: Tensor, by_text: Tensor) -> Tensor:
        return (by_image.sum(1).mean() + by_text.sum(0).mean()) / 2

    image_losses, text_losses = (for_images * to_texts).sum(1), (for_texts * to_images).sum(0)
    sums = image_losses.sum() + text_losses.sum()
    loss = both(for_images * to_texts, for_texts * to_images)
    wrong_axes = both(for_images * to_images, for_texts * to_texts)
    log_of_sum = -((right * z.softmax(1)).sum(1).log().mean() + (right * z.softmax(0)).sum(0).log().mean()) / 2
    diagonal = loss  # unless images and texts come in pairs
    if len(image_ids) == len(text_image_ids):
        diagonal = (surprises(z, 1).mean() + surprises(z, 0).mean()) / 2
    return loss, {
        "this is image to text only; take the mean with text to image": image_losses.mean(),
        "this is text to image only; take the mean with image to text": text_losses.mean(),
        "this is the sum of both directions; take their mean": 2 * loss,
        "the minus sign is missing; the loss is minus the log of a probability": -loss,
        "this is the sum over images and over texts; take the mean of each": sums / 2,
        "the targets sum to the number of right answers; divide by it": both(right * to_texts, right * to_images),
        "the targets of text to image are the transposed ones of image to text, and do not sum to 1; "
        "divide by the number of images of each text": both(for_images * to_texts, for_images * to_images),
        "this is the log of a sum of probabilities, for which one probable right answer is enough; "
        "sum the logs of the probabilities, each times its target": log_of_sum,
        "each softmax goes along the wrong axis; image to text is over the texts, dim=1": wrong_axes,
        "only the diagonal counts as right; every text of the same image does": diagonal,
    }
