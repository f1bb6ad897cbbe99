"""A toy in which a modality gap pays: nine pairs on a sphere, one of them swapped with its neighbour."""

import math

import torch
from torch import Tensor

from helpers.losses import contrastive_loss

TWINS = (3, 8)  # two pairs that lie 5.4 degrees apart, where all the others are 45 degrees from their neighbours


def nine_pairs(swapped: bool, gap: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Image and text features on the sphere: a circle of images above the equator, one of texts below it.

    Eight pairs stand every 45 degrees around the circle, the ninth 5.4 degrees from the fourth. The gap is the distance
    of the two circles, as :func:`helpers.diagnostics.modality_gap` measures it; with gap 0 each image lies on its own
    text. The seed turns the whole sphere, gives the pairs another order and moves each along the circle by up to
    0.1 degrees; seed 0 leaves everything as in the source.

    Args:
        swapped: the two closest pairs have each other's text, as if one of nine captions were mislabelled.
        gap: from 0 to 2, where both circles have shrunk to the poles.
        seed: 0 or above.

    Returns:
        ``image_features`` and ``text_features``, each ``[9, 3]``, float64, of length 1, row by row pairs.

    Raises:
        ValueError: for a gap outside 0 to 2.

    Source: Liang et al., 2022, "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
    Learning", the points of ``Figure_3_Contrastive_Learning/mismatched_simulation.ipynb`` in its repository.
    """
    if not 0 <= gap <= 2:
        raise ValueError(f"the gap of two circles on a sphere is from 0 to 2, not {gap:g}")
    degrees = torch.tensor([0, 180, 90, 270, 45, 135, 315, 225, 275.4], dtype=torch.float64)
    rotation, order = torch.eye(3, dtype=torch.float64), torch.arange(9)
    if seed:
        generator = torch.Generator().manual_seed(seed)
        degrees = degrees + 0.2 * torch.rand(9, generator=generator, dtype=torch.float64) - 0.1
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        order = torch.randperm(9, generator=generator)
    angles, height = degrees.deg2rad(), torch.full((9,), gap / 2, dtype=torch.float64)
    radius = math.sqrt(1 - gap**2 / 4)
    images = torch.stack([radius * angles.cos(), radius * angles.sin(), height], dim=1)  # [9, 3]
    texts = images * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    if swapped:
        texts[list(TWINS)] = texts[list(reversed(TWINS))]
    return images[order] @ rotation, texts[order] @ rotation


def loss_over_gap(temperature: float, swapped: bool, seed: int = 0, steps: int = 201) -> tuple[Tensor, Tensor]:
    """The landscape: the contrastive loss of the nine pairs at each of so many gaps from 0 to 2.

    Returns:
        The gaps and the losses, ``[steps]`` each.
    """
    gaps = torch.linspace(0, 2, steps, dtype=torch.float64)
    return gaps, torch.stack([contrastive_loss(*nine_pairs(swapped, float(gap), seed), temperature) for gap in gaps])


def best_gap(temperature: float, swapped: bool, seed: int = 0) -> float:
    """The gap with the least loss, to 0.01: 0 for clean pairs at every temperature, and for swapped ones above 0.041.

    A gap brings the similarities of a row closer together by the factor ``1 - gap ** 2 / 4``, which is what a larger
    temperature does. While every pair is right, the loss wants the opposite. With two pairs swapped there is a best
    temperature, about 0.041; below it, being so sure of the wrong text costs more than it gains elsewhere, and only a
    gap makes the model less sure.
    """
    gaps, losses = loss_over_gap(temperature, swapped, seed)
    return float(gaps[losses.argmin()])
