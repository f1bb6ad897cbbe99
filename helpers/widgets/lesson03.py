"""The figure of lesson 03: softmax matrices at several temperatures."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from helpers.widgets.figures import PROBABILITY_COLOURS, wrap


def softmax_matrices(similarity: Tensor, temperatures: tuple[float, ...], captions: list[str]) -> Figure:
    """Plot the softmax of each row of ``[image, text]`` at each temperature; text j is the caption of image j."""
    figure, axes = plt.subplots(1, len(temperatures), figsize=(11.4, 3.8), dpi=90, sharey=True, layout="constrained")
    for axis, temperature in zip(axes, temperatures, strict=True):
        probabilities = (similarity / temperature).softmax(1)  # [image, text]
        axis.imshow(probabilities, **PROBABILITY_COLOURS)
        axis.set(title=f"temperature {temperature:g}", xlabel="text", xticks=range(len(captions)))
        for row, column in (probabilities >= 0.005).nonzero().tolist():
            p = probabilities[row, column].item()
            axis.text(column, row, f"{p:.2f}", ha="center", va="center", fontsize=8, color="w" if p > 0.55 else "k")
    labels = [wrap(f"image {row}: {text}", 28, 2) for row, text in enumerate(captions)]
    axes[0].set_yticks(range(len(captions)), labels, fontsize=9)
    return figure
