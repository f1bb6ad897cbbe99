"""The figures of lesson 03: softmax matrices at several temperatures, and shares of the repulsion."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from helpers.widgets.figures import PROBABILITY_COLOURS, to_pixels, wrap


def softmax_matrices(similarity: Tensor, temperatures: Sequence[float], images: Tensor, captions: list[str]) -> Figure:
    """Plot the softmax of each row of ``[image, text]`` at each temperature; text j is the caption of image j."""
    figure, axes = plt.subplots(1, len(temperatures), figsize=(11.4, 3.7), dpi=90, facecolor="white")
    figure.subplots_adjust(left=0.26, right=0.99, top=0.92, bottom=0.13, wspace=0.06)
    size = len(similarity)
    for axis, temperature in zip(axes, temperatures, strict=True):
        probabilities = (similarity / temperature).softmax(1)  # [image, text]
        axis.imshow(probabilities, **PROBABILITY_COLOURS)
        axis.set(title=f"temperature {temperature:g}", xlabel="text", xticks=range(size), yticks=[])
        for row, column in (probabilities >= 0.005).nonzero().tolist():
            p = probabilities[row, column].item()
            axis.text(column, row, f"{p:.2f}", ha="center", va="center", fontsize=8, color="w" if p > 0.55 else "k")
    axes[0].set_yticks(range(size), [wrap(f"{row}: {text}", 28, 2) for row, text in enumerate(captions)], fontsize=9)
    axes[0].tick_params(axis="y", length=0, pad=36)
    for row, image in enumerate(images):  # between the captions and the first matrix
        bounds = (-0.14, 1 - (row + 0.96) / size, 0.92 / size, 0.92 / size)
        axes[0].inset_axes(bounds, xticks=[], yticks=[]).imshow(to_pixels(image))
    return figure


def share_bars(shares: Mapping[float, Tensor], captions: Sequence[str]) -> Figure:
    """Plot the share of each negative in the repulsion of one image at each temperature, the largest share first."""
    figure, axes = plt.subplots(1, len(shares), figsize=(9.6, 4), dpi=90, sharey=True, layout="constrained")
    order = next(iter(shares.values())).argsort(descending=True)[:-1]  # [negatives]; the last is the match
    for axis, (temperature, all_shares) in zip(axes, shares.items(), strict=True):
        axis.barh([captions[text] for text in order], all_shares[order], color="#D55E00")
        axis.set(title=f"temperature {temperature:g}", xlabel="share", xlim=(0, 1))
    axes[0].invert_yaxis()
    return figure
