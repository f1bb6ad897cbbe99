"""The checks of lesson 07: class vectors, near duplicates, fine-tuning, and a question."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import Choice, Setting, Values, exercise


def sample_features(generator: Generator, *shape: int) -> Tensor:
    """Sample vectors of very different lengths, all leaning to one side, as real features do."""
    vectors = torch.randn(shape, generator=generator) + 0.5
    return vectors * torch.randn((*shape[:-1], 1), generator=generator).exp()


def nearest(queries: Tensor, candidates: Tensor) -> Tensor:
    return (F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T).argmax(1)


@exercise("classify", lambda generator, case: (sample_features(generator, 30, 4), sample_features(generator, 5, 4, 4)))
def check_classify(images: Tensor, prompts: Tensor) -> Values:
    means = F.normalize(prompts, dim=2).mean(1)  # [labels, dim]
    best_prompt = (F.normalize(images, dim=1) @ F.normalize(prompts, dim=2).mT).amax(2).argmax(0)  # [images]
    return nearest(images, means), {
        "a long prompt counts more than a short one; normalise before the mean": nearest(images, prompts.mean(1)),
        "normalise the means too; prompts that disagree have a short mean": (images @ means.T).argmax(1),
        "nothing is normalised; the label needs the largest cosine": (images @ prompts.mean(1).T).argmax(1),
        "this takes the mean over the labels, dimension 0": nearest(images, F.normalize(prompts, dim=2).mean(0)),
        "this is the label with the best single prompt; compare with the mean of its prompts": best_prompt,
        "this is an image for each label; choose a label for each image": nearest(means, images),
    }


@exercise("suspects", lambda generator, case: (sample_features(generator, 9, 4), sample_features(generator, 7, 4), 4))
def check_suspects(train: Tensor, test: Tensor, count: int) -> Values:
    cosines = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T  # [test, train]

    def pairs(scores: Tensor, width: int = len(train)) -> Tensor:
        positions = scores.flatten().topk(count).indices
        return torch.stack([positions // width, positions % width], dim=1)

    best_only = cosines.where(cosines == cosines.amax(1, keepdim=True), -2.0)
    return pairs(cosines), {
        "the row of the test image comes first, then the row of the training image": pairs(cosines).flip(1),
        "these are the least similar pairs": pairs(-cosines),
        "similar means a large cosine; normalise both sides": pairs(test @ train.T),
        "a test image can have several near duplicates; take the largest cosines of all": pairs(best_only),
        "a row of the matrix has one entry per training image; divide by their number": pairs(cosines, len(test)),
    }


check_fine_tuning = Setting(
    name="fine_tuning",
    low=85,
    high=130,
    too_low="below 85 %: if the new words fail, take more steps; if the old search does, lower the learning rate",
    too_high="above 130 % cannot be right",
    right="30 images taught the model three words, and it still knows the old ones.",
)

check_is_it_zero_shot = Choice(
    "is_it_zero_shot",
    right="b",
    a="the heads are only a part of the model; which labels has the encoder below them seen?",
    b="the encoder below the heads has seen labelled images of these breeds, and CLIP has not",
    c="one prompt per label is enough for zero-shot; an ensemble is only better",
    d="a linear probe is trained with labelled images, and the heads were trained with captions",
)
