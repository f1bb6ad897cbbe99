"""The course's figures. Each function draws one new figure and returns it; a cell ends with ``plt.show()``.

Colour limits are fixed, so that two pictures compare; the colour maps are safe for colour-blind eyes; faces are white,
so that a dark theme leaves them readable.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import ipywidgets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from torch import Tensor

from helpers.data import IMAGENET_MEAN, IMAGENET_STD
from helpers.widgets.shared import one_a_cell

# The explorer's own colours: blue means alike in the one, and likely in the other.
SIMILARITY_COLOURS = {"cmap": "RdBu", "vmin": -1.0, "vmax": 1.0}
PROBABILITY_COLOURS = {"cmap": "Blues", "vmin": 0.0, "vmax": 1.0}


def to_pixels(image: Tensor) -> Tensor:
    """An image for ``imshow``, ``[height, width, 3]`` from 0 to 1.

    Args:
        image: ``[3, height, width]``, uint8, or float as :class:`helpers.data.ImageTextDataset` gives it (normalised).
    """
    if image.dtype == torch.uint8:
        pixels = image.float() / 255
    else:
        pixels = image * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    return pixels.clamp(0, 1).permute(1, 2, 0)  # [height, width, 3]


def pair_sheet(images: Sequence[Tensor], captions: Sequence[str], columns: int = 6, title: str = "") -> Figure:
    """Images in rows, each with its caption below it.

    Args:
        images: each ``[3, height, width]``, uint8 or normalised.
        captions: one an image; long ones are wrapped, and cut after four lines.
    """
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


def similarity_matrix(
    matrix: Tensor,
    images: Sequence[Tensor] | None = None,
    captions: Sequence[str] | None = None,
    title: str = "",
    probabilities: bool = False,
) -> Figure:
    """A matrix ``[image, text]`` with thumbnails on its rows and captions on its columns.

    Args:
        matrix: cosine similarities, drawn from -1 to 1; or probabilities, drawn from 0 to 1.
        images: each ``[3, height, width]``, uint8 or normalised.
        captions: one a column.
        title: above the matrix.
        probabilities: which of the two colour scales to use.
    """
    side = min(9.0, 3.0 + 0.32 * len(matrix))
    figure, axis = plt.subplots(figsize=(side + 0.8, side), facecolor="white", layout="constrained")
    draw_matrix(axis, matrix, images, captions, title, probabilities)
    return figure


def similarity_and_softmax(
    image_features: Tensor,
    text_features: Tensor,
    temperature: float,
    images: Sequence[Tensor] | None = None,
    captions: Sequence[str] | None = None,
) -> Figure:
    """The explorer's static twin: similarities, and each image's softmax over the texts at this temperature.

    Args:
        image_features, text_features: ``[batch, dim]``, normalised here.
        temperature: what the similarities are divided by.
        images, captions: as in :func:`similarity_matrix`.
    """
    similarity = F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T  # [image, text]
    side = min(7.0, 3.0 + 0.25 * len(similarity))
    figure, (left, right) = plt.subplots(1, 2, figsize=(2 * side, side), facecolor="white", layout="constrained")
    draw_matrix(left, similarity, images, captions, "cosine similarity")
    softmax = (similarity / temperature).softmax(1)
    draw_matrix(right, softmax, images, captions, f"softmax of each row at temperature {temperature:g}", True)
    return figure


def draw_matrix(
    axis: Axes,
    matrix: Tensor,
    images: Sequence[Tensor] | None,
    captions: Sequence[str] | None,
    title: str,
    probabilities: bool = False,
    limit: float = 1.0,
) -> None:
    """A matrix into an axis; numbers stand in the cells where it is small enough to read them.

    Similarities are drawn from ``-limit`` to ``limit``, probabilities from 0 to 1.
    """
    matrix = matrix.detach().numpy()
    size = len(matrix)
    colours = PROBABILITY_COLOURS if probabilities else {**SIMILARITY_COLOURS, "vmin": -limit, "vmax": limit}
    shown = axis.imshow(matrix, **colours)
    axis.figure.colorbar(shown, ax=axis, shrink=0.7)
    axis.set_title(title)
    axis.set_xlabel("texts")
    axis.set_ylabel("images")
    if images is not None:
        axis.yaxis.set_label_coords(-1.2 / size, 0.5)  # clear of the thumbnails
    axis.set_yticks([])
    axis.set_xticks([])
    if captions is not None and size <= 24:
        axis.set_xticks(range(size), [wrap(text, width=28, lines=2) for text in captions], rotation=90, fontsize=7)
        plt.setp(axis.get_xticklabels(), fontfamily=caption_fonts())
    if images is not None:
        for row, image in enumerate(images):
            box = axis.inset_axes((-1.05 / size, 1 - (row + 0.95) / size, 0.9 / size, 0.9 / size))
            box.imshow(to_pixels(image).numpy())
            box.set(xticks=[], yticks=[])
    if size <= 10:
        for row in range(size):
            for column in range(size):
                value = float(matrix[row, column])
                dark = value > 0.55 if probabilities else abs(value) > 0.6 * limit
                colour = "white" if dark else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    title: str = "",
    log_x: bool = False,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """Lines over a common x, told apart by style as well as colour; ``levels`` are dotted, such as chance."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), facecolor="white", layout="constrained")
    styles = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3))]
    for number, (name, y) in enumerate(lines.items()):
        axis.plot(x, y, label=name, linestyle=styles[number % len(styles)], color=f"C{number}", marker=".")
    for name, y in (levels or {}).items():
        axis.axhline(y, linestyle=":", color="0.35")
        axis.annotate(name, (1, y), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axis.set(xlabel=x_label, ylabel=y_label, title=title)
    if log_x:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    if y_limits is not None:
        axis.set_ylim(y_limits)
    if len(lines) > 1:
        axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def effect_sizes(
    intervals: Mapping[str, Mapping[str, Mapping[str, float]]],
    x_label: str,
    limits: tuple[float, float],
    claimed: Mapping[str, float],
) -> Figure:
    """Mean differences with their intervals, a row each, under the claim they belong to.

    A dot is filled where its interval does not hold zero. A diamond is what was claimed.

    Args:
        intervals: for each claim, and each row under it, ``mean``, ``low`` and ``high``, as
            :func:`helpers.experiments.difference` gives them.
        x_label: what was measured, and in which unit.
        limits: of the x axis; what reaches beyond goes on behind the frame.
        claimed: the difference that each claim promises; none where it promises no number.
    """
    rows = [
        row for claim, readings in intervals.items() for row in ((claim, ""), *((claim, name) for name in readings))
    ]
    figure, axis = plt.subplots(figsize=(7.2, 0.8 + 0.28 * len(rows)), facecolor="white", layout="constrained")
    for place, (claim, name) in enumerate(rows):
        if not name:
            continue
        found = intervals[claim][name]
        clear = found["low"] > 0 or found["high"] < 0
        colour = "C0" if clear else "0.45"
        axis.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
        axis.plot(found["mean"], place, "o", color=colour, markerfacecolor=colour if clear else "white")
        if claim in claimed:  # larger than the dot, so that neither hides the other
            axis.plot(claimed[claim], place, "D", color="C1", markerfacecolor="none", markersize=10, zorder=1)
    axis.axvline(0, color="0.35", linewidth=1)
    axis.set(xlabel=x_label, xlim=limits, yticks=range(len(rows)), yticklabels=[name or claim for claim, name in rows])
    axis.set_ylim(len(rows) - 0.3, -0.5)
    for label, (_, name) in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if name else "bold")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure


def live_figure(figure: Figure, update: Callable[..., None], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Controls above a picture that follows them; nothing else is redrawn, so nothing flickers.

    Args:
        figure: made with ``matplotlib.figure.Figure(...)``, not with pyplot, so that it belongs to this widget alone.
        update: called with the value of each control by name; changes the figure's artists.
        controls: each with a ``description``.

    Returns:
        A box whose attribute ``figure`` is the figure. Once the box is closed, the controls no longer draw.
    """
    width, height = (int(80 * inches) for inches in figure.get_size_inches())
    # Its own size, not the page's, and told beforehand, so that nothing moves while one picture follows another.
    picture = ipywidgets.Image(format="png", width=width, height=height, layout={"align_self": "flex-start"})
    # The tooltip is read out in place of the picture. The page looks for a description first, which an Image lacks.
    picture.add_traits(description=traitlets.Unicode("").tag(sync=True))

    def redraw(_: object = None) -> None:
        update(**{name: control.value for name, control in controls.items()})
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
        titles = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
        states = [f"{control.description} {getattr(control, 'label', control.value)}" for control in controls.values()]
        with picture.hold_sync():
            picture.value = buffer.getvalue()
            picture.tooltip = "; ".join(filter(None, [*states, *titles]))

    def let_go(change: Mapping[str, object]) -> None:
        if change["new"] is None:  # the box was closed: a control that serves another picture is left with that one
            for control in controls.values():
                control.unobserve(redraw, names="value")
            box.unobserve(let_go, names="comm")  # it holds the figure, and IPython's Out holds the box
            del box.figure

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    box = ipywidgets.VBox([*controls.values(), picture])
    box.figure = figure
    box.observe(let_go, names="comm")
    one_a_cell(box)
    return box


@cache
def caption_fonts() -> list[str]:
    """Matplotlib's own font, and one with Chinese characters where this machine has one."""
    chinese = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei")
    there = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in chinese if name in there][:1]]


def wrap(text: str, width: int, lines: int) -> str:
    """A text broken into lines, the last ending in an ellipsis when there is more."""
    return "\n".join(textwrap.wrap(text.replace("$", r"\$"), width, max_lines=lines, placeholder=" …"))
