"""Features of 64 test pairs at several moments of one training; the lessons use them before lesson 05 trains."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers.files import DATA


class Snapshots(NamedTuple):
    """L2-normalised features of the same pairs at each moment of one training, untrained first."""

    steps: list[int]
    image_features: Tensor  # [moments, pairs, dim], float32
    text_features: Tensor  # [moments, pairs, dim], float32
    images: Tensor  # [pairs, 3, height, width], uint8
    captions: list[str]


def load_snapshots() -> Snapshots:
    """Load the snapshots that come with the course."""
    with np.load(DATA / "features.npz", allow_pickle=False) as file:
        features = [torch.from_numpy(file[name]).float() for name in ("image_features", "text_features")]
        return Snapshots(file["steps"].tolist(), *features, torch.from_numpy(file["images"]), file["captions"].tolist())
