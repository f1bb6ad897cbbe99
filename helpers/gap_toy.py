"""A toy in which a modality gap pays: nine pairs on a sphere, and two of the pairs have each other's text."""

import math

import torch
from torch import Tensor

from helpers.losses import contrastive_loss

TWINS = (3, 8)  # these two pairs lie 5.4 degrees apart; all others are 45 degrees from their neighbours


def nine_pairs(swapped: bool, gap: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Generate image and text features ``[9, 3]``: a circle of images above the equator, one of texts below it.

    ``gap``, from 0 to 2, is the distance between the circles, as :func:`helpers.diagnostics.modality_gap` measures it;
    at 0 each image lies on its own text. ``swapped`` exchanges the texts of the two closest pairs, a mistake in the
    data. A seed above 0 rotates the sphere, shuffles the pairs and moves each along the circle by up to 0.1 degrees;
    seed 0 gives the points of the source. The features are float64 of length 1.
    Source: Liang et al., 2022, "Mind the Gap", the points of ``mismatched_simulation.ipynb`` in its repository.
    """
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
    """Compute the contrastive loss of the nine pairs at ``steps`` gaps from 0 to 2: gaps and losses, ``[steps]``."""
    gaps = torch.linspace(0, 2, steps, dtype=torch.float64)
    return gaps, torch.stack([contrastive_loss(*nine_pairs(swapped, float(gap), seed), temperature) for gap in gaps])


def best_gap(temperature: float, swapped: bool, seed: int = 0) -> float:
    """Find the gap with the lowest loss, to 0.01: 0 for clean pairs, and for swapped ones at temperatures above 0.041.

    A gap shrinks the differences between similarities by the factor ``1 - gap ** 2 / 4``, as a higher temperature does.
    Clean pairs never gain from it. Swapped pairs have a best temperature, about 0.041: below it, certainty about the
    wrong text costs more than it gains elsewhere, and only a gap makes the model less certain.
    """
    gaps, losses = loss_over_gap(temperature, swapped, seed)
    return float(gaps[losses.argmin()])
