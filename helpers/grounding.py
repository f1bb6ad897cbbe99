"""Grounding: which region of an image answers to which words of a text, and whether it is the right one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.encoders import GRID, DualEncoder
from helpers.regularizers import pool_regions
from helpers.scenes.captions import Scene, Thing, describe, position
from helpers.scenes.render import CELL, IMAGE_SIZE, RADIUS, outline
from helpers.text import UNKNOWN, WordTokenizer, split_words


@torch.no_grad()
def region_scores(
    model: DualEncoder, tokenizer: WordTokenizer, images: Tensor, text: str, grid: int = GRID
) -> tuple[list[str], Tensor]:
    """How well each region of each image answers to each word of a text, a word taken with its neighbours.

    Args:
        model: put into evaluation mode. Only a training with a term of parts, such as ``token_wise``, asks its regions
            to answer to words; of any other the scores mean nothing.
        images: ``[images, 3, height, width]``, normalised, as :class:`helpers.data.ImageTextDataset` gives them.
        text: one to ``max_length`` words, all of which the tokenizer knows.
        grid: 1, 2 or 4: the map of 4 x 4 regions is pooled to ``grid`` x ``grid`` before it is compared.

    Returns:
        The words, and the cosine of each word's phrase (the word before it, the word, the one after) with each region,
        ``[images, words, grid, grid]``, from -1 to 1.

    Raises:
        ValueError: for a text without a word, with too many, or with one that the tokenizer does not know; for images
            of the wrong shape; for a grid that does not divide 4.
    """
    words = split_words(text)
    if not 1 <= len(words) <= tokenizer.max_length:
        raise ValueError(f"give a text of 1 to {tokenizer.max_length} words, not {len(words)}: {text!r}")
    token_ids, padding = tokenizer([text])  # [1, words]
    for word, token_id in zip(words, token_ids[0], strict=True):
        if token_id == UNKNOWN:
            raise ValueError(f"the training had no word {word!r}, so no region can answer to it")
    views = model.eval().views(images, token_ids, padding)
    phrases = F.normalize(views.phrases[0], dim=1)  # [words, dim]
    regions = F.normalize(pool_regions(views.regions, grid), dim=2)  # [images, grid * grid, dim]
    return words, (phrases @ regions.mT).unflatten(2, (grid, grid))


def covered(thing: Thing, grid: int = GRID, scale: float = 1.0) -> Tensor:
    """Which regions of a scene the bounding box of a thing overlaps.

    Args:
        thing: taken to sit at the centre of its place, from which it is drawn up to a pixel off.
        grid: regions a side.
        scale: the difficulty's, by which things are smaller; 0.6 in the hard scenes.

    Returns:
        bool ``[grid, grid]``, rows from the top.
    """
    corners = torch.tensor([(-0.9, -0.9), (0.9, 0.9)] if thing.shape == "circle" else outline(thing.shape))
    centre = IMAGE_SIZE / 2 + (torch.tensor(position(thing)) - 1) * CELL  # [2], x and y in pixels
    low, high = (centre + side * RADIUS[thing.size] * scale for side in (corners.amin(0), corners.amax(0)))
    edges = torch.linspace(0, IMAGE_SIZE, grid + 1)
    columns, rows = ((edges[:-1] < high[axis]) & (edges[1:] > low[axis]) for axis in (0, 1))  # [grid] each
    return rows[:, None] & columns


def pointing_accuracy(
    model: DualEncoder,
    tokenizer: WordTokenizer,
    dataset: ImageTextDataset,
    scenes: Sequence[Scene],
    scale: float = 1.0,
) -> dict[str, float]:
    """The pointing game: is the region that answers best to a thing's colour and shape one that the thing lies in?

    Asked of every thing that no other of its scene shares both with. The text is "a red circle", and its phrase the
    one in the middle, that of the colour, which holds all three words.

    Args:
        model, tokenizer: as :func:`region_scores`.
        dataset: images of scenes; its texts are not looked at.
        scenes: what is in each, in the same order, as :func:`helpers.scenes.render.read_truth` gives them.
        scale: as :func:`covered`.

    Returns:
        ``accuracy`` in percent; ``chance`` in percent, what a region picked blindly gets: the mean share of regions
        that a thing overlaps; and ``things``, how many were asked for.

    Raises:
        ValueError: for unequal numbers of images and scenes, for scenes without a thing of its own colour and shape, or
            for what :func:`region_scores` refuses.

    Source: Zhang et al., 2016, "Top-down Neural Attention by Excitation Backprop", section 4.1, the pointing game.
    """
    if len(dataset) != len(scenes):
        raise ValueError(f"give one scene an image: got {len(dataset)} images and {len(scenes)} scenes")
    asked: dict[str, list[tuple[int, Tensor]]] = {}  # under each text, the images and the regions that are right
    for image, scene in enumerate(scenes):
        texts = [describe(thing, "colour") for thing in scene]
        for thing, text in zip(scene, texts, strict=True):
            if texts.count(text) == 1:
                asked.setdefault(text, []).append((image, covered(thing, GRID, scale).flatten()))
    hits, shares = [], []
    for text, things in asked.items():
        images = dataset.__getitems__([image for image, _ in things]).images
        _, scores = region_scores(model, tokenizer, images, text)
        best = scores[:, 1].flatten(1).argmax(1)  # [things]
        hits += [right[region].item() for region, (_, right) in zip(best, things, strict=True)]
        shares += [right.float().mean().item() for _, right in things]
    if not hits:
        raise ValueError("there is no thing to ask for: in these scenes none is alone with its colour and shape")
    return {"accuracy": 100 * sum(hits) / len(hits), "chance": 100 * sum(shares) / len(shares), "things": len(hits)}
