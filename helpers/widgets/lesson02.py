"""The figures of lesson 02, and the table of its exercise on bugs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from helpers.sources.snapshots import Snapshots
from helpers.widgets import figures

OTHER_TEXTS = {"text 1": -60, "text 2": 150, "text 3": 250}  # degrees from the image


def label_texts(axis: Axes, captions: Sequence[str]) -> None:
    """Write the number and the caption of each text above its column."""
    texts = [f"text {column}\n{figures.wrap(caption, 12, 5)}" for column, caption in enumerate(captions)]
    axis.set_xticks(range(len(texts)), texts, fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)


def numbered_matrix(matrix: Tensor, images: Sequence[Tensor], captions: Sequence[str]) -> Figure:
    """Plot similarities ``[image, text]`` with numbered thumbnails and captions, the diagonal framed."""
    size = len(matrix)
    figure, axis = plt.subplots(figsize=(8.4, 7.0), facecolor="white", layout="constrained")
    axis.imshow(matrix, **figures.SIMILARITY_COLOURS)
    for row in range(size):
        axis.add_patch(plt.Rectangle((row - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor="black", linewidth=2))
        picture = axis.inset_axes((-0.125, 1 - (row + 0.97) / size, 0.94 / size, 0.94 / size))
        picture.imshow(figures.to_pixels(images[row]))
        picture.set(xticks=[], yticks=[])
        picture.set_ylabel(f"image {row}", rotation=0, ha="right", va="center")
        for column in range(size):
            value = matrix[row, column].item()
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if abs(value) > 0.6 else "k")
    axis.set_yticks([])
    label_texts(axis, captions)
    return figure


def circle(axis: Axes, angle: float, temperature: float = 0.07) -> None:
    """Plot an image, its matched text at an angle in degrees, and three other texts, with their probabilities."""
    axis.clear()
    axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.8"))
    degrees = torch.tensor([angle, *OTHER_TEXTS.values()])
    ends = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)  # [4, 2]
    names = ["matched text", *OTHER_TEXTS]
    probabilities = (ends[:, 0] / temperature).softmax(dim=0)  # [4]
    axis.plot([0, 1], [0, 0], color="#0072B2", linewidth=3, marker="o", markevery=[1])
    axis.text(1.1, 0, "image", color="#0072B2", va="center")
    for name, (x, y), probability in zip(names, ends.tolist(), probabilities.tolist(), strict=True):
        colour = "#009E73" if name == "matched text" else "#D55E00"
        axis.plot([0, x], [0, y], color=colour, marker="o", markevery=[1])
        side = "left" if x > 0.3 else "right" if x < -0.3 else "center"
        label = f"{name}\n{probability:.2f}"
        axis.text(1.12 * x, 1.12 * y, label, color=colour, ha=side, va="bottom" if y > 0 else "top")
    axis.set(xlim=(-2.1, 2.1), ylim=(-1.6, 1.6), aspect="equal")
    axis.set_title(f"{angle:.0f} degrees: loss {-probabilities[0].log():.2f}")
    axis.axis("off")


def pulls_and_pushes(pulls: Tensor, losses: Sequence[str], captions: Sequence[str]) -> Figure:
    """Plot minus the gradient of each loss by the logits of one image, ``[loss, text]``."""
    figure, axis = plt.subplots(figsize=(8.4, 4.2), layout="constrained", facecolor="white")
    axis.imshow(pulls, aspect="auto", **figures.SIMILARITY_COLOURS)
    for row in range(len(pulls)):
        for column, value in enumerate(pulls[row].tolist()):
            number = "0" if abs(value) < 0.005 else f"{value:.2f}"
            axis.text(column, row, number, ha="center", va="center", color="w" if abs(value) > 0.6 else "k")
    axis.set_yticks(range(len(losses)), losses)
    label_texts(axis, captions)
    return figure


def four_logs(snapshots: Snapshots, temperature: float = 0.07) -> str:
    """Make the table of exercise 5: both directions of the loss, each log with a mistake of its own."""
    offset = 5 * torch.randn(64, 1, generator=torch.Generator().manual_seed(0))  # [64, 1]
    copies = torch.arange(16).repeat_interleave(4)  # [64]
    lines = ["log  direction     " + "".join(f"{f'step {step}':>10s}" for step in snapshots.steps)]
    cosines = [x @ y.T for x, y in zip(snapshots.image_features, snapshots.text_features, strict=True)]
    logs = (
        [s * temperature for s in cosines],
        [s / temperature + offset for s in cosines],
        [s.roll(8, 1) / temperature for s in cosines],
        [s[copies][:, copies] / temperature for s in cosines],
    )
    for number, logits in enumerate(logs, start=1):
        ways = {"image to text": logits, "text to image": [z.T for z in logits]}
        for name, rows in ways.items():
            losses = [F.cross_entropy(z, torch.arange(64)).item() for z in rows]
            lines.append(f"{number}    {name}  " + "".join(f"{loss:10.2f}" for loss in losses))
    return "\n".join(lines)
