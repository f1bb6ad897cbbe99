"""Lesson 01: pairs of two sources, which captions fit which scenes, and one pair under augmentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from helpers.augmentation import Augmentation
from helpers.data import ImageTextDataset
from helpers.files import DATA
from helpers.sources import open_pairs
from helpers.widgets.figures import live_figure, pair_sheet, to_pixels, wrap

FITS = ListedColormap(["white", "#D55E00", "#0072B2"])  # false, a false negative, a pair


def pairs_of_two_sources() -> Figure:
    """Plot six training pairs of the scenes and six of the emoji, each with one English caption."""
    rows = {"scenes": (154, 0, 2, 6, 32, 9), "emoji": (2, 5, 10, 15, 22, 29)}
    levels = {"scenes": (2, 0, 1, 3, 3, 2), "emoji": (0,) * 6}
    records = [open_pairs(DATA / name).records("train")[row] for name in rows for row in rows[name]]
    chosen = zip(records, [*levels["scenes"], *levels["emoji"]], strict=True)
    captions = [record.annotations[level]["caption"] for record, level in chosen]
    sheet = ImageTextDataset([record.path for record in records], captions, image_size=96)
    return pair_sheet([sheet.decode(row) for row in range(len(sheet))], captions)


def fit_figure(fits_of_level: Mapping[str, np.ndarray]) -> Figure:
    """Plot matrices ``[image, caption]``, one per level: pairs in blue and false negatives in orange."""
    figure, axes = plt.subplots(1, len(fits_of_level), figsize=(9, 2.8), facecolor="white", layout="constrained")
    for axis, (level, fits) in zip(axes, fits_of_level.items(), strict=True):
        axis.imshow(fits + np.eye(len(fits)), cmap=FITS, vmin=0, vmax=2)
        axis.set(title=f"{level}\n{fits.sum() - len(fits)} false negatives", xlabel="captions", xticks=[], yticks=[])
    axes[0].set_ylabel("images")
    return figure


def explore_augmentation(path: Path, captions: Sequence[str]) -> ipywidgets.VBox:
    """A slider for the epoch and buttons for the augmentation, above the pair as the dataset gives it."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    kinds = {"nothing": None, "flip": Augmentation(flip="exchange"), "crop": Augmentation(crop=0.6)}
    kinds["both"] = Augmentation(flip="exchange", crop=0.6)
    datasets = {kind: ImageTextDataset([path], [captions], 64, augment=augment) for kind, augment in kinds.items()}
    shown = figure.subplots().imshow(to_pixels(datasets["nothing"][0]["image"]))
    shown.axes.set(xticks=[], yticks=[])

    def show(epoch: int, kind: str) -> None:
        datasets[kind].set_epoch(epoch)
        item = datasets[kind][0]
        shown.set_data(to_pixels(item["image"]))
        shown.axes.set_title(wrap(item["text"], width=52, lines=3), fontsize=9)

    epoch = ipywidgets.IntSlider(0, 0, 20, description="epoch")
    kind = ipywidgets.ToggleButtons(options=list(kinds), value="both", description="changed by")
    return live_figure(figure, show, epoch=epoch, kind=kind)
