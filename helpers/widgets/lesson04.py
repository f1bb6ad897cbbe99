"""The figures of lesson 04: which region of an image answers to a text."""

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.grounding import region_contributions
from helpers.scenes.captions import Thing, describe
from helpers.scenes.render import COLOURS, SHAPES
from helpers.text import WordTokenizer
from helpers.widgets.figures import live_figure, to_pixels


def plot(axis: Axes, image: Tensor, scores: Tensor | None = None) -> None:
    """Plot an image; with scores ``[grid, grid]``, in grey, coloured by them, with a frame at the best region."""
    axis.clear()
    axis.set(xticks=[], yticks=[])
    if scores is None:
        axis.imshow(to_pixels(image))
        return
    side, width = image.shape[1], image.shape[1] / len(scores)
    extent = (0, side, side, 0)
    axis.imshow(to_pixels(image).mean(2), cmap="gray", vmin=0, vmax=1, extent=extent)
    axis.imshow(scores, cmap="RdBu", vmin=-0.15, vmax=0.15, alpha=0.6, extent=extent)
    row, column = divmod(int(scores.argmax()), len(scores))
    axis.add_patch(plt.Rectangle((width * column, width * row), width, width, fill=False, linewidth=3))


def answers_figure(image: Tensor, answers: dict[str, dict[str, Tensor]]) -> Figure:
    """Plot one row per model: the image, then for each text the scores ``[grid, grid]`` of its regions."""
    size = (8.6, 2.1 * len(answers))
    figure, axes = plt.subplots(len(answers), 4, figsize=size, layout="constrained", facecolor="white")
    for (first, *others), (model, of_texts) in zip(axes, answers.items(), strict=True):
        plot(first, image)
        first.set_ylabel(model)
        for axis, (text, scores) in zip(others, of_texts.items(), strict=True):
            plot(axis, image, scores)
            axis.set_title(text, fontsize=11)
    figure.colorbar(axes[0, 1].images[1], ax=axes, label="added to the cosine", shrink=0.8)
    return figure


def live_answers(model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset) -> ipywidgets.VBox:
    """Show an image and the answers of its regions, with controls for the image and the text."""
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)

    def update(image: int, colour: str, shape: str) -> None:
        picture = dataset[image]["image"]
        text = describe(Thing(shape, colour, "large", "middle"), "colour")  # "an orange star"
        scores = region_contributions(model, tokenizer, picture[None], text)[0]  # [grid, grid]
        plot(left, picture)
        plot(right, picture, scores)
        figure.suptitle(f"{text}: the best region adds {scores.max():.2f}", fontsize=11)

    number = ipywidgets.IntSlider(value=0, min=0, max=19, description="Image")
    colours = ipywidgets.Dropdown(value="black", options=list(COLOURS), description="Colour")
    shapes = ipywidgets.Dropdown(value="square", options=list(SHAPES), description="Shape")
    return live_figure(figure, update, image=number, colour=colours, shape=shapes)
