"""Grounding: which region of an image matches which words of a text, and whether it is the right region."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.encoders import GRID, DualEncoder
from helpers.scenes.captions import Scene, Thing, describe, position
from helpers.scenes.render import CELL, IMAGE_SIZE, RADIUS, outline
from helpers.text import WordTokenizer


@torch.no_grad()
def region_scores(model: DualEncoder, tokenizer: WordTokenizer, images: Tensor, text: str) -> Tensor:
    """Return the cosine of each region with each word and its neighbours: ``[images, words, GRID, GRID]``.

    It means something only if the training compared regions with words, as ``token_wise`` does. ``images`` are
    normalised, ``[images, 3, height, width]``.
    """
    views = model.eval().views(images, *tokenizer([text]))
    phrases = F.normalize(views.phrases[0], dim=1)  # [words, dim]
    regions = F.normalize(views.regions, dim=2)  # [images, GRID * GRID, dim]
    return (phrases @ regions.mT).unflatten(2, (GRID, GRID))


@torch.no_grad()
def region_contributions(model: DualEncoder, tokenizer: WordTokenizer, images: Tensor, text: str) -> Tensor:
    """Return how much each region adds to the cosine of an image with a text: ``[images, GRID, GRID]``.

    The image features are a linear function of the regions, so the cosine is the sum of these numbers and one for the
    bias. Source: the class activation maps of Zhou et al., 2016, "Learning Deep Features for Discriminative
    Localization", with a text in place of a class.
    """
    views = model.eval().views(images, *tokenizer([text]))
    weights = model.image_encoder.projections[-1].weight.unflatten(1, (-1, GRID * GRID))  # [dim, channels, regions]
    directions = torch.einsum("d,dcr->cr", F.normalize(views.text_features[0], dim=0), weights)
    added = (views.region_map.flatten(2) * directions).sum(1)  # [images, regions]
    return (added / views.image_features.norm(dim=1, keepdim=True)).unflatten(1, (GRID, GRID))


def covered(thing: Thing) -> Tensor:
    """Return which regions overlap the bounding box of a thing at the centre of its cell: bool ``[GRID, GRID]``."""
    corners = torch.tensor([(-0.9, -0.9), (0.9, 0.9)] if thing.shape == "circle" else outline(thing.shape))
    centre = IMAGE_SIZE / 2 + (torch.tensor(position(thing)) - 1) * CELL  # x and y in pixels
    low = centre + corners.amin(0) * RADIUS[thing.size]  # x and y of the upper left corner
    high = centre + corners.amax(0) * RADIUS[thing.size]
    edges = torch.linspace(0, IMAGE_SIZE, GRID + 1)
    columns = (edges[:-1] < high[0]) & (edges[1:] > low[0])  # [GRID]
    rows = (edges[:-1] < high[1]) & (edges[1:] > low[1])  # [GRID]
    return rows[:, None] & columns


def pointing_accuracy(
    model: DualEncoder,
    tokenizer: WordTokenizer,
    dataset: ImageTextDataset,
    scenes: Sequence[Scene],
    contributions: bool = False,
) -> dict[str, float]:
    """Measure the pointing game: whether the region that best matches a thing is one that the thing overlaps.

    A thing whose colour and shape are unique in its scene is queried as "a red circle". Regions are scored by the
    middle word or, with ``contributions``, by :func:`region_contributions`. ``dataset`` has the images of ``scenes``.
    Returns ``accuracy`` and ``chance`` in percent, and the number of ``things``.
    Source: Zhang et al., 2016, "Top-down Neural Attention by Excitation Backprop", section 4.1.
    """
    asked: dict[str, list[tuple[int, Tensor]]] = {}  # by text: the index of the image, and the correct regions
    for image, scene in enumerate(scenes):
        texts = [describe(thing, "colour") for thing in scene]
        for thing, text in zip(scene, texts, strict=True):
            if texts.count(text) == 1:
                asked.setdefault(text, []).append((image, covered(thing).flatten()))
    hits, shares = [], []
    for text, things in asked.items():
        images = dataset.batch([image for image, _ in things])["images"]
        if contributions:
            scores = region_contributions(model, tokenizer, images, text)  # [things, GRID, GRID]
        else:
            scores = region_scores(model, tokenizer, images, text)[:, 1]  # [things, GRID, GRID]
        best = scores.flatten(1).argmax(1)  # [things]
        hits += [correct[region].item() for region, (_, correct) in zip(best, things, strict=True)]
        shares += [correct.float().mean().item() for _, correct in things]
    return {"accuracy": 100 * sum(hits) / len(hits), "chance": 100 * sum(shares) / len(shares), "things": len(hits)}
