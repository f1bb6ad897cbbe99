"""The figures of lesson 02, and the table of its exercise on bugs."""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from helpers.sources.snapshots import Snapshots
from helpers.widgets.figures import SIMILARITY_COLOURS, to_pixels, wrap


def table(values: Tensor, captions: list[str], height: float) -> tuple[Figure, Axes]:
    """Plot numbers from -1 to 1 in colour, one column per text, with the number and the caption of each text above."""
    figure, axis = plt.subplots(figsize=(8.4, height), facecolor="white", layout="constrained")
    axis.imshow(values, aspect="auto", **SIMILARITY_COLOURS)
    for row, numbers in enumerate(values.tolist()):
        for column, number in enumerate(numbers):
            colour = "white" if abs(number) > 0.6 else "black"
            axis.text(column, row, f"{number:z.2f}", ha="center", va="center", color=colour)
    texts = [f"text {column}\n{wrap(caption, 12, 5)}" for column, caption in enumerate(captions)]
    axis.set_xticks(range(len(texts)), texts, fontsize=8)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure, axis


def similarity_table(similarity: Tensor, images: Tensor, captions: list[str]) -> Figure:
    """Plot similarities ``[image, text]`` with thumbnails and captions, the diagonal framed."""
    figure, axis = table(similarity, captions, height=7)
    size = len(similarity)
    for row, image in enumerate(images):
        axis.add_patch(plt.Rectangle((row - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor="black", linewidth=2))
        thumbnail = axis.inset_axes((-0.125, 1 - (row + 0.97) / size, 0.94 / size, 0.94 / size), xticks=[], yticks=[])
        thumbnail.imshow(to_pixels(image))
        thumbnail.set_ylabel(f"image {row}", rotation=0, ha="right", va="center")
    axis.set_yticks([])
    return figure


def circle(axis: Axes, angle: float) -> None:
    """Plot an image, its matched text at an angle in degrees, and three other texts, with their probabilities."""
    axis.clear()
    axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.8"))
    axis.plot([0, 1], [0, 0], color="#0072B2", linewidth=3, marker="o", markevery=[1])
    axis.text(0.6, -0.08, "image", color="#0072B2", ha="center", va="top")
    angles = torch.tensor([angle, -60, 150, 250]).deg2rad()  # [4], the matched text first
    probabilities = (angles.cos() / 0.07).softmax(dim=0)  # [4]
    for text, (x, y) in enumerate(zip(angles.cos().tolist(), angles.sin().tolist(), strict=True)):
        name, colour = (f"text {text}", "#D55E00") if text else ("matched text", "#009E73")
        axis.plot([0, x], [0, y], color=colour, marker="o", markevery=[1])
        axis.text(1.5 * x, 1.5 * y, f"{name}\n{probabilities[text]:.2f}", color=colour, ha="center", va="center")
    title = f"{angle:.0f} degrees: loss {-probabilities[0].log():.2f}"
    axis.set(xlim=(-2.1, 2.1), ylim=(-1.9, 1.9), aspect="equal", title=title)
    axis.axis("off")


def four_logs(snapshots: Snapshots) -> str:
    """Make the table of exercise 5: both directions of the loss, each log with a mistake of its own."""
    offset = 5 * torch.randn(64, 1, generator=torch.Generator().manual_seed(0))  # [64, 1]
    copies = torch.arange(16).repeat_interleave(4)  # [64]
    cosines = snapshots.image_features @ snapshots.text_features.mT  # [moment, image, text]
    logits = cosines / 0.07
    logs = (cosines * 0.07, logits + offset, logits.roll(8, 2), logits[:, copies][:, :, copies])
    lines = ["log  direction     " + "".join(f"{f'step {step}':>10s}" for step in snapshots.steps)]
    for number, log in enumerate(logs, start=1):
        for direction, moments in {"image to text": log, "text to image": log.mT}.items():
            losses = [F.cross_entropy(moment, torch.arange(64)).item() for moment in moments]
            lines.append(f"{number}    {direction}  " + "".join(f"{loss:10.2f}" for loss in losses))
    return "\n".join(lines)
