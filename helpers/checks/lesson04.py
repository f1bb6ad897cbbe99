"""The checks of lesson 04: pooled regions, words and their best regions, the loss over scales, and two questions."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import Choice, Values, exercise
from helpers.losses import contrastive_loss


@exercise(
    "pool_regions",
    lambda generator, case: (torch.randn(2, 3 + case % 2, 4, 4, generator=generator), (2, 1, 4)[case % 3]),
)
def check_pool_regions(regions: Tensor, grid: int) -> Values:
    means = F.adaptive_avg_pool2d(regions, grid)  # [batch, channels, grid, grid]
    apart = regions.unflatten(3, (grid, -1)).unflatten(2, (grid, -1)).mean((2, 4))
    return means.flatten(1), {
        "the result is not flattened; it should be [batch, channels * grid * grid]": means,
        "the channels of a region come together; put all regions of channel 0 first": means.flatten(2).mT.flatten(1),
        "this takes the sum of each block; take the mean": means.flatten(1) * (4 // grid) ** 2,
        "the averaged regions are not neighbours; split into (grid, 4 // grid), average axes 3 and 5": apart.flatten(1),
        "this is the maximum of each block; take the mean": F.adaptive_max_pool2d(regions, grid).flatten(1),
        "this is one region of each block; take the mean": regions[:, :, :: 4 // grid, :: 4 // grid].flatten(1),
        "rows and columns of the map are exchanged": means.mT.flatten(1),
        "the whole map is averaged; take one mean per block": regions.mean((2, 3)),
    }


def regions_and_words(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample features of 9 regions in 3 images and of 6 words in 4 texts (also at padding), and the padding."""
    regions = 3 * torch.randn(3 + case % 3, 9, 5, generator=generator)
    words = 2 * torch.randn(4, 6, 5, generator=generator)
    counts = torch.randint(1, 6 + case % 2, (4,), generator=generator)  # words per text
    return regions, words, torch.arange(6) >= counts[:, None]


@exercise("token_wise_similarity", regions_and_words, trains=True)
def check_token_wise_similarity(regions: Tensor, words: Tensor, padding: Tensor) -> Values:
    dots = torch.einsum("ird,twd->itrw", regions, words)  # [image, text, region, word]
    cosines = torch.einsum("ird,twd->itrw", F.normalize(regions, dim=2), F.normalize(words, dim=2))
    best, counts = cosines.amax(2), (~padding).sum(1)  # [image, text, word] and [text]
    total = best.masked_fill(padding, 0.0).sum(2)  # [image, text]
    return total / counts, {
        "padding is not masked; padded positions hold no words and must not count": best.mean(2),
        "the mean divides by the padded length; divide by the number of words": total / padding.shape[1],
        "padding is in the sum; set padded positions to 0 after the maximum": best.sum(2) / counts,
        "padded positions are minus infinity in the mean; set them to 0": best.masked_fill(padding, -torch.inf).mean(2),
        "the mask is inverted: padding is True where there is no word": (best.sum(2) - total) / padding.sum(1),
        "this is the sum over words; take the mean, so that long texts do not win": total,
        "the maximum is over words; take it over regions": cosines.masked_fill(padding[:, None], -2).amax(3).mean(2),
        "this is the mean over regions; take the maximum": cosines.mean(2).masked_fill(padding, 0.0).sum(2) / counts,
        "regions and words are not normalised": dots.amax(2).masked_fill(padding, 0.0).sum(2) / counts,
    }


def scales_and_weights(generator: Generator, case: int) -> tuple[list[Tensor], list[Tensor], float, list[float] | None]:
    """Sample two or three scales with their own dims, each with noisy pairs, and in most cases weights."""
    dims = [4, 6, 6][: 2 + case % 2]
    images = [2 * torch.randn(6, dim, generator=generator) for dim in dims]
    texts = [side + torch.randn(side.shape, generator=generator) for side in images]
    temperature, *weights = (0.1 + torch.rand(1 + len(dims), generator=generator)).tolist()
    return images, texts, temperature, None if case % 4 == 3 else weights


@exercise("multi_scale_loss", scales_and_weights, trains=True)
def check_multi_scale_loss(images: list, texts: list, temperature: float, weights: list | None) -> Values:
    pairs = list(zip(images, texts, strict=True))
    factors = torch.ones(len(images)) if weights is None else torch.tensor(weights)
    losses = torch.stack([contrastive_loss(x, y, temperature) for x, y in pairs])
    default = torch.stack([contrastive_loss(x, y) for x, y in pairs])
    weighted, total = factors * losses, factors @ losses
    return total, {
        "without weights this is the mean; take the sum": total / (len(images) if weights is None else 1),
        "this is the mean of the weighted losses; take their sum": weighted.mean(),
        "the weights are not used; multiply the loss of each scale by its weight": losses.sum(),
        "this divides by the sum of the weights; take the sum": total / factors.sum(),
        "only the first scale counts here; is the return inside the loop?": weighted[0],
        "only the last scale counts here; add each loss to the sum": weighted[-1],
        "the temperature is not passed on, so 0.07 is used": factors @ default,
    }


check_wrong_axis = Choice(
    "wrong_axis",
    right="b",
    a="another temperature changes the value, but shuffling the images would still not change it",
    b="mean(dim=0) runs over the images; it fits only because images and regions are both 16. Use mean(dim=1).",
    c="with normalised regions the mean would still run over the wrong axis",
    d="only texts have padding; look at what happens to the images",
)

check_read_report = Choice(
    "read_report",
    right="c",
    a="A has a large gradient, but it reaches 100 % alone, so it does see the pairs",
    b="B reaches 100 % alone, so it does see the pairs, and its gradient is no larger than the main loss's",
    c="C stays at chance alone, but its gradient is 18 times the main loss's. At weight 1 it would take over.",
    d="D does not see the pairs, but its gradient is a twentieth of the main loss's; it cannot take over",
)
