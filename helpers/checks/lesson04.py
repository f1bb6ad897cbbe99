"""The checks of lesson 04: the loss over scales, pooled regions, words and their best regions, and two questions."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from helpers.checks.core import Choice, Values, exercise
from helpers.losses import contrastive_loss, one_way_contrastive_loss


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


def scales_and_weights(generator: Generator, case: int) -> tuple[list[Tensor], list[Tensor], float, list[float] | None]:
    """Sample two or three scales with their own dims, each with noisy pairs, and in most cases weights."""
    dims = [4, 6, 9][: 2 + case % 2]
    images = [2 * torch.randn(6, dim, generator=generator) for dim in dims]
    texts = [side + torch.randn(side.shape, generator=generator) for side in images]
    temperature, *weights = (0.1 + torch.rand(1 + len(dims), generator=generator)).tolist()
    return images, texts, temperature, None if case % 4 == 3 else weights


@exercise("multi_scale_loss", scales_and_weights)
def check_multi_scale_loss(
    images: list[Tensor], texts: list[Tensor], temperature: float, weights: list[float] | None
) -> Values:
    known = [1.0] * len(images) if weights is None else weights
    losses = torch.stack([contrastive_loss(x, y, temperature) for x, y in zip(images, texts, strict=True)])
    default = torch.stack([contrastive_loss(x, y) for x, y in zip(images, texts, strict=True)])
    one_way = [one_way_contrastive_loss(x, y, temperature, True) for x, y in zip(images, texts, strict=True)]
    weighted = torch.tensor(known) * losses
    return weighted.sum(), {
        "the weights are not used; multiply the loss of each scale by its weight": losses.sum(),
        "this is the mean of the weighted losses; take their sum": weighted.mean(),
        "this divides by the sum of the weights; take the plain sum": weighted.sum() / sum(known),
        "this is one loss per scale; take their sum": weighted,
        "only the first scale counts here; is the return inside the loop?": weighted[0],
        "only the last scale counts here; add each loss to the sum": weighted[-1],
        "the temperature is not passed on, so 0.07 is used": (torch.tensor(known) * default).sum(),
        "this is image to text only; contrastive_loss has both directions": torch.tensor(known) @ torch.stack(one_way),
        "the weights are in the wrong order; weights[k] belongs to scale k": torch.tensor(known[::-1]) @ losses,
    }


check_wrong_axis = Choice(
    name="wrong_axis",
    right="b",
    sentences={
        "a": "another temperature changes the value, but shuffling the images would still not change it",
        "b": "mean(dim=0) runs over the 16 images. The shapes fit only because there are 16 images and 16 regions; "
        "the fix is mean(dim=1).",
        "c": "with normalised regions the mean would still run over the wrong axis",
        "d": "only texts have padding; look at what happens to the images",
    },
)

check_read_report = Choice(
    name="read_report",
    right="c",
    sentences={
        "a": "A has a large gradient, but it reaches 100 % alone, so it does see the pairs",
        "b": "B reaches 100 % alone, so it does see the pairs, and its gradient is no larger than the main loss's",
        "c": "C reaches chance alone, so it does not see the pairs, and its gradient is 18 times the main loss's. "
        "At weight 1 it would take over.",
        "d": "D does not see the pairs, but its gradient is a twentieth of the main loss's; it cannot take over",
    },
)
