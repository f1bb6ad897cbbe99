"""Lesson 01: pairs of two sources, and which captions fit which scenes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from helpers.data import ImageTextDataset
from helpers.files import DATA
from helpers.sources import read_captions
from helpers.widgets.figures import pair_sheet

FITS = ListedColormap(["white", "#D55E00", "#0072B2"])  # false, a false negative, a pair


def pairs_of_two_sources() -> Figure:
    """Plot six training pairs of the scenes and six of the emoji, each with one English caption."""
    images, texts = [], []
    for source, rows, level in (("scenes", (154, 0, 2, 6, 32, 9), 2), ("emoji", (2, 5, 10, 15, 22, 29), 0)):
        paths, captions = read_captions(DATA / source, "train")
        dataset = ImageTextDataset(paths, captions, image_size=96)
        images += [dataset.decode(row) for row in rows]
        texts += [captions[row][level] for row in rows]
    return pair_sheet(images, texts)


def fit_figure(tables: Mapping[str, np.ndarray]) -> Figure:
    """Plot tables ``[image, caption]``, one per level: pairs in blue and false negatives in orange."""
    figure, axes = plt.subplots(1, len(tables), figsize=(9, 2.8), facecolor="white", layout="constrained")
    for axis, (level, fits) in zip(axes, tables.items(), strict=True):
        axis.imshow(fits + np.eye(len(fits)), cmap=FITS, vmin=0, vmax=2)
        axis.set(title=f"{level}\n{fits.sum() - len(fits)} false negatives", xlabel="captions", xticks=[], yticks=[])
    axes[0].set_ylabel("images")
    return figure
