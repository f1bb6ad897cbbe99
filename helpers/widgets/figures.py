"""The course's figures. Each function plots one new figure and returns it; a cell ends with ``plt.show()``."""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import cycle

import ipywidgets
import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from torch import Tensor

from helpers.data import IMAGENET_MEAN, IMAGENET_STD
from helpers.widgets.shared import keep_one_per_cell

# The colours of the explorer, safe for colour-blind readers and with fixed limits: blue means similar, or likely.
SIMILARITY_COLOURS = {"cmap": "RdBu", "vmin": -1.0, "vmax": 1.0}
STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3)))
PROBABILITY_COLOURS = {"cmap": "Blues", "vmin": 0.0, "vmax": 1.0}

Lines = Mapping[str, Sequence[float]]  # by name, one value for each x


def to_pixels(image: Tensor) -> Tensor:
    """Convert an image ``[3, height, width]``, uint8 or normalised, for ``imshow``: ``[height, width, 3]``, 0 to 1."""
    if image.dtype == torch.uint8:
        return image.permute(1, 2, 0) / 255  # [height, width, 3]
    pixels = image.permute(1, 2, 0) * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)  # [height, width, 3]
    return pixels.clamp(0, 1)


def pair_sheet(images: Sequence[Tensor], captions: Sequence[str], columns: int = 6, title: str = "") -> Figure:
    """Plot images in rows, each with its caption below it; see :func:`to_pixels` for the images."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.75 * columns, 2.35 * rows), squeeze=False, facecolor="white")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(to_pixels(image))
        words = wrap(caption, width=24, lines=4)
        axis.set_title(words, fontsize=8, y=-0.06, verticalalignment="top", fontfamily=caption_fonts())
        axis.add_patch(plt.Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, edgecolor="0.8"))
    figure.suptitle(title)
    figure.tight_layout(h_pad=2.2)
    return figure


def panels(
    x: Sequence, by_title: Mapping[str, Lines], x_label: str, chance: Mapping | None = None, log_x: bool = False
) -> Figure:
    """Plot panels side by side, each with its lines by name; ``chance`` has a dotted level for some of them."""
    size = (9.6 if len(by_title) > 1 else 6.4, 3.2)  # inches
    figure, axes = plt.subplots(1, len(by_title), figsize=size, dpi=90, squeeze=False, layout="constrained")
    for axis, (title, lines) in zip(axes[0], by_title.items(), strict=True):
        for (name, y), style in zip(lines.items(), cycle(STYLES), strict=False):  # for readers who confuse the colours
            axis.plot(x, y, label=name, linestyle=style)
        level = (chance or {}).get(title)
        axis.set(title=title, xlabel=x_label, ylim=(0, 1.08 * max(axis.get_ylim()[1], level or 0)))
        if level is not None:
            axis.axhline(level, linestyle=":", color="0.35")
            axis.annotate("chance", (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        if log_x:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
        axis.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def softmax_matrices(similarity: Tensor, temperatures: Sequence[float], captions: Sequence[str]) -> Figure:
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


def live_figure(figure: Figure, update: Callable[..., None], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Show controls above a figure. When one changes, ``update`` gets their values by name and changes the figure.

    Make the figure with ``matplotlib.figure.Figure``, not with pyplot, and give each control a ``description``.
    """
    width, height = (int(80 * inches) for inches in figure.get_size_inches())
    # A fixed size, so that nothing moves while the figure changes.
    picture = ipywidgets.Image(format="png", width=width, height=height, layout={"align_self": "flex-start"})
    # Screen readers read the tooltip; the page looks for a description first, which an Image does not have.
    picture.add_traits(description=traitlets.Unicode("").tag(sync=True))

    def render(_: object = None) -> None:
        update(**{name: control.value for name, control in controls.items()})
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
        titles = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
        states = [f"{control.description} {getattr(control, 'label', control.value)}" for control in controls.values()]
        with picture.hold_sync():
            picture.value = buffer.getvalue()
            picture.tooltip = "; ".join(filter(None, [*states, *titles]))

    render()
    for control in controls.values():
        control.observe(render, names="value")
    box = ipywidgets.VBox([*controls.values(), picture])
    keep_one_per_cell(box)
    return box


@cache
def caption_fonts() -> list[str]:
    """Matplotlib's own font, and a font with Chinese characters if this machine has one."""
    chinese = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei")
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in chinese if name in installed][:1]]


def wrap(text: str, width: int, lines: int) -> str:
    """Break a text into lines of ``width`` characters; the last ends in an ellipsis if text is left."""
    return "\n".join(textwrap.wrap(text.replace("$", r"\$"), width, max_lines=lines, placeholder=" …"))
