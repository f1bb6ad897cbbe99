"""The checks of lesson 05: recall with several captions, ranks with ties, a learning rate that warms up."""

import math

import torch
from torch import Generator, Tensor

from helpers.checks.core import CASES, Values, exercise


def owners(images: int, generator: Generator) -> Tensor:
    """The row of each caption's image, ``[3 * images]``, in random order; every image has two captions or more."""
    rows = torch.cat([torch.arange(images).repeat(2), torch.randint(images, (images,), generator=generator)])
    return rows[torch.randperm(3 * images, generator=generator)]


def scores(generator: Generator, case: int) -> tuple[Tensor, Tensor, int]:
    image_of_caption = owners(24, generator)
    own = image_of_caption == torch.arange(24)[:, None]  # [images, captions]
    return torch.randn(24, 72, generator=generator) + 2 * own, image_of_caption, 5 - case % 5


@exercise("image_to_text_recall", scores)
def check_recall_at_k(similarity: Tensor, image_of_caption: Tensor, k: int) -> Values:
    rows = torch.arange(len(similarity))[:, None]
    best, worst = similarity.topk(k).indices, (-similarity).topk(k).indices  # [images, k]
    matches = (image_of_caption[best] == rows).double()  # [images, k]
    share = matches.sum(1) / (image_of_caption == rows).sum(1)

    def percent(hits: Tensor, dim: int = 1) -> Tensor:
        return 100 * hits.any(dim).double().mean()

    recall, diagonal, lowest = percent(matches), percent(best == rows), percent(image_of_caption[worst] == rows)
    text_to_image = percent(similarity.topk(k, dim=0).indices == image_of_caption, 0)
    return recall, {
        "this is a share from 0 to 1; recall is asked for in percent": recall / 100,
        "this divides the matches by the number of the image's captions; one match is enough": 100 * share.mean(),
        "this counts every match; an image with two of them counts once": 100 * matches.sum(1).mean(),
        "this divides the matches by k; one match is enough": 100 * matches.mean(),
        "row i does not belong to column i, since images have several captions; use image_of_caption": diagonal,
        "this is text to image, the other direction; rank all captions for each image": text_to_image,
        "these are the captions that score lowest; sort in descending order": lowest,
        "only the first caption counts here; any of the first k may be the image's own": 100 * matches[:, 0].mean(),
    }


def scores_with_ties(generator: Generator, case: int) -> tuple[Tensor, Tensor]:
    similarity = torch.randint(-3, 4, (6, 18), generator=generator) / 4
    return similarity * (case < CASES - 1), owners(6, generator)  # the last similarities are all zero


@exercise("text_to_image_ranks", scores_with_ties)
def check_rank_with_ties(similarity: Tensor, image_of_caption: Tensor) -> Values:
    captions = torch.arange(len(image_of_caption))
    right = similarity[image_of_caption, captions]  # [captions]
    own = image_of_caption == torch.arange(len(similarity))[:, None]  # [images, captions]
    ranks = 1 + ((similarity >= right) & ~own).sum(0)
    order = similarity.argsort(dim=0, descending=True, stable=True)  # [images, captions]
    sorted_ranks = 1 + order.argsort(dim=0)[image_of_caption, captions]
    in_row = (similarity[image_of_caption] >= right[:, None]).sum(1)
    best_own = similarity.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    return ranks, {
        "a tie counts in the model's favour; count images that score at least as high": 1 + (similarity > right).sum(0),
        "a rank begins at 1, not at 0": ranks - 1,
        "the right image is counted twice; leave it out of the comparison, or do not add 1": ranks + 1,
        "this is the order of a sort, which breaks ties by position; count scores at least as high": sorted_ranks,
        "this counts images that score lower; count those at least as high": 1 + (similarity < right).sum(0),
        "this counts captions in the right image's row; count images in the text's column": in_row,
        "these are ranks from image to text, the other direction": 1 + ((similarity >= best_own) & ~own).sum(1),
    }


def moments(generator: Generator, case: int) -> tuple[float, float]:
    share, warm_up = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    warm_up = 0.1 + 0.4 * warm_up
    progress = warm_up + share * (1 - warm_up) if case % 2 else share * warm_up  # rising and falling in turn
    return {CASES - 3: 0.0, CASES - 2: warm_up, CASES - 1: 1.0}.get(case, progress), warm_up


@exercise("warm_up_then_cosine", moments)
def check_warm_up(progress: float, warm_up: float) -> Values:
    rising, line, since = progress < warm_up, progress / warm_up, (progress - warm_up) / (1 - warm_up)

    def half(share: float) -> float:
        return (1 + math.cos(math.pi * share)) / 2

    def then(falling: float) -> float:
        return line if rising else falling

    fall = half(since)
    return then(fall), {
        "the cosine begins too early; up to warm_up the factor is a straight line": fall,
        "after the warm-up the factor stays at 1; it should fall along half a cosine": min(line, 1.0),
        "the cosine begins at progress 0, so the factor jumps at warm_up; begin it there": then(half(progress)),
        "the warm-up is missing: the factor should rise from 0 to 1 first": half(progress),
        "this falls in a straight line; half a cosine is slow at both ends": then(1 - since),
        "a cosine runs from 1 to -1, a negative learning rate; (1 + cosine) / 2 runs from 1 to 0": then(2 * fall - 1),
        "the factor does not reach 0; divide by 1 - warm_up": then(half(progress - warm_up)),
        "the rise ends below 1; divide the progress by warm_up": progress if rising else fall,
    }
