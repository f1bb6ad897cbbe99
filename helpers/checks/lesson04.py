"""The checks of lesson 04: pooled regions, words and their best regions, nested prefixes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import Values, exercise
from helpers.losses import contrastive_loss, symmetric_cross_entropy


def region_maps(generator: Generator, case: int) -> tuple[Tensor, int]:
    return torch.randn(2, 3, 4, 4, generator=generator), (2, 1, 4)[case % 3]


@exercise("pool_regions", region_maps)
def check_pool_regions(regions: Tensor, grid: int) -> Values:
    side = 4 // grid
    means = F.adaptive_avg_pool2d(regions, grid)  # [batch, channels, grid, grid]
    far_apart = regions.unflatten(3, (side, grid)).unflatten(2, (side, grid)).mean((2, 4))
    return means.flatten(1), {
        "the result is not flattened; it should be [batch, channels * grid * grid]": means,
        "the channels of a region come together; put all regions of channel 0 first": means.flatten(2).mT.flatten(1),
        "this takes the largest value of each block; take the mean": F.adaptive_max_pool2d(regions, grid).flatten(1),
        "this takes the sum of each block; take the mean": means.flatten(1) * side**2,
        "this keeps one region of each block; take the mean of all": regions[:, :, ::side, ::side].flatten(1),
        "the averaged regions are not neighbours; split each axis into grid groups of 4 // grid": far_apart.flatten(1),
        "the grid is transposed: rows come before columns": means.mT.flatten(1),
        "the whole map is averaged; take one mean per block": regions.mean((2, 3)),
    }


def regions_and_words(generator: Generator, case: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample features of 9 regions in 3 images and of 6 words in 4 texts (also at padding), and the padding."""
    regions, words = 3 * torch.randn(3, 9, 5, generator=generator), 2 * torch.randn(4, 6, 5, generator=generator)
    counts = torch.randint(1, 6 + case % 2, (4,), generator=generator)  # words per text
    return regions, words, torch.arange(6) >= counts[:, None]


@exercise("token_wise_similarity", regions_and_words)
def check_token_wise_similarity(regions: Tensor, words: Tensor, padding: Tensor) -> Values:
    dots = torch.einsum("ird,twd->itrw", regions, words)  # [image, text, region, word]
    cosines = torch.einsum("ird,twd->itrw", F.normalize(regions, dim=2), F.normalize(words, dim=2))
    counts = (~padding).sum(1)  # [text]
    best_region = cosines.amax(2)  # [image, text, word]
    best_word = cosines.masked_fill(padding[:, None], -2.0).amax(3)  # [image, text, region]

    def mean(values: Tensor) -> Tensor:
        return values.masked_fill(padding, 0.0).sum(2) / counts  # [image, text]

    right = mean(best_region)
    infinite = best_region.masked_fill(padding, -torch.inf).mean(2)
    inverted = best_region.masked_fill(~padding, 0.0).sum(2) / padding.sum(1)
    by_length = right * counts / padding.shape[1]
    return right, {
        "padding is not masked; padded positions hold no words and must not count": best_region.mean(2),
        "padding is masked, but the mean divides by the padded length; divide by the number of words": by_length,
        "padded positions are minus infinity and still in the mean; set them to 0 after the maximum": infinite,
        "the mask is inverted: padding is True where there is no word": inverted,
        "this is the sum over words; take the mean, so that long texts do not win": right * counts,
        "this is each region's best word; each word needs its best region, a maximum over regions": best_word.mean(2),
        "regions and words are not normalised; compare their cosines": mean(dots.amax(2)),
        "this is the mean over all regions; take the best region of each word": mean(cosines.mean(2)),
        "the result is [texts, images]; images are rows": right.T,
    }


def features_and_prefixes(generator: Generator, case: int) -> tuple[Tensor, Tensor, list[int], float]:
    images, noise = torch.randn(2, 10, 16, generator=generator)
    return images, images + noise, [2, 4, 7], 0.1 + 0.4 * torch.rand((), generator=generator).item()


@exercise("nested_prefix_loss", features_and_prefixes)
def check_nested_prefix_loss(x: Tensor, y: Tensor, prefixes: list[int], t: float) -> Values:
    losses = torch.stack([contrastive_loss(x[:, :k], y[:, :k], t) for k in prefixes])
    u, v = F.normalize(x), F.normalize(y)

    def mean(loss: Callable[[int], Tensor]) -> Tensor:
        return torch.stack([loss(k) for k in prefixes]).mean()

    last = mean(lambda k: contrastive_loss(x[:, -k:], y[:, -k:], t))
    cut_late = mean(lambda k: symmetric_cross_entropy(u[:, :k] @ v[:, :k].T / t))
    default = mean(lambda k: contrastive_loss(x[:, :k], y[:, :k]))
    return losses.mean(), {
        "this is the sum over the prefixes; take the mean": losses.sum(),
        "this is one loss per prefix; take their mean": losses,
        "only the first prefix counts here; is the return inside the loop?": losses[0],
        "only the last prefix counts here; collect the loss of each": losses[-1],
        "these are the last k components; a prefix is the first k": last,
        "the features are normalised before they are cut; a cut vector is shorter than 1, so cut first": cut_late,
        "the temperature is not passed on, so 0.07 is used": default,
    }
