"""The figures of lesson 03: softmax matrices at several temperatures, curves, and shares of the repulsion."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from helpers.widgets.figures import PROBABILITY_COLOURS, to_pixels, wrap

STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)))


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


def line_panels(x: Sequence, panels: Mapping[str, Mapping], label: str, chance: float = 0, log: bool = False) -> Figure:
    """Plot panels side by side, each a mapping of names to lines; a chance above 0 is a dotted line in the first."""
    figure, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.4), dpi=90, squeeze=False, layout="constrained")
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for style, (name, y) in zip(STYLES, lines.items(), strict=False):
            axis.plot(x, y, label=name, linestyle=style, linewidth=2)
        axis.set(title=title, xlabel=label, ylim=(0, None))
        if log:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
    if chance:
        axes[0, 0].axhline(chance, linestyle=":", color="0.35")
        axes[0, 0].annotate("chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes[0, 0].set_ylim(0, 1.3 * chance)
    if len(lines) > 1:
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
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
