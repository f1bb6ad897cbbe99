"""A toy in which a modality gap lowers the loss: nine pairs on a sphere, two of them with swapped texts."""

import math

import torch
from torch import Tensor

from helpers.losses import contrastive_loss

DEGREES = (0, 180, 90, 270, 45, 135, 315, 225, 275.4)  # the direction of each pair
TWINS = (3, 8)  # these two pairs lie 5.4 degrees apart; all others are 45 degrees from their neighbours


def nine_pairs(swapped: bool, gap: float = 0.0) -> tuple[Tensor, Tensor]:
    """Generate image and text features ``[9, 3]``: a circle of images above the equator, one of texts below it.

    ``gap``, from 0 to 2, is the distance between the circles, as :func:`helpers.diagnostics.modality_gap` measures it;
    at 0 each image lies on its own text. ``swapped`` exchanges the texts of the two closest pairs, a mistake in the
    data. The features are float64 of length 1.
    Source: Liang et al., 2022, "Mind the Gap", the points of ``mismatched_simulation.ipynb`` in its repository.
    """
    angles = torch.tensor(DEGREES, dtype=torch.float64).deg2rad()  # [9]
    height = torch.full((9,), gap / 2, dtype=torch.float64)
    radius = math.sqrt(1 - gap**2 / 4)
    images = torch.stack([radius * angles.cos(), radius * angles.sin(), height], dim=1)  # [9, 3]
    texts = images * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    if swapped:
        texts[list(TWINS)] = texts[list(reversed(TWINS))]
    return images, texts


def best_gap(temperature: float, swapped: bool) -> float:
    """Find the gap with the lowest loss, to 0.01: 0 for clean pairs, and for swapped ones at temperatures above 0.041.

    A gap shrinks the differences between similarities by the factor ``1 - gap ** 2 / 4``, as a higher temperature does.
    Clean pairs never gain from it. Swapped pairs have a best temperature, about 0.041: below it, certainty about the
    wrong text costs more than it gains elsewhere, and only a gap makes the model less certain.
    """
    gaps = [step / 100 for step in range(201)]
    return min(gaps, key=lambda gap: float(contrastive_loss(*nine_pairs(swapped, gap), temperature)))
