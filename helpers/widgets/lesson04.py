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


def plot_answer(axis: Axes, model: DualEncoder, tokenizer: WordTokenizer, image: Tensor, text: str) -> None:
    """Plot an image in grey, coloured by what each region adds for a text, with a frame at the best region."""
    scores = region_contributions(model, tokenizer, image[None], text)[0]  # [grid, grid]
    extent = (0, len(scores), len(scores), 0)  # one region is 1 x 1
    axis.imshow(to_pixels(image).mean(2), cmap="gray", vmin=0, vmax=1, extent=extent)
    axis.imshow(scores, cmap="RdBu", vmin=-0.15, vmax=0.15, alpha=0.6, extent=extent)
    row, column = divmod(int(scores.argmax()), len(scores))
    axis.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, linewidth=3))
    axis.set(xticks=[], yticks=[], title=f"{text}\nadds {scores.max():.2f}")


def answers_figure(models: dict[str, DualEncoder], tokenizer: WordTokenizer, image: Tensor, texts: list[str]) -> Figure:
    """Plot one row per model (two): the image ``[3, height, width]``, then how its regions answer the three texts."""
    figure, axes = plt.subplots(2, 4, figsize=(8.6, 4.6), layout="constrained", facecolor="white")
    for row, (name, model) in zip(axes, models.items(), strict=True):
        row[0].imshow(to_pixels(image))
        row[0].set(xticks=[], yticks=[], ylabel=name)
        for axis, text in zip(row[1:], texts, strict=True):
            plot_answer(axis, model, tokenizer, image, text)
    figure.colorbar(axes[0, 1].images[1], ax=axes, label="added to the cosine", shrink=0.8)
    return figure


def live_answers(model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset) -> ipywidgets.VBox:
    """Show an image and the answer of its regions, with controls for the image and the text."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")

    def update(image: int, colour: str, shape: str) -> None:
        picture = dataset[image]["image"]
        figure.clear()
        left, right = figure.subplots(1, 2)
        left.imshow(to_pixels(picture))
        left.set(xticks=[], yticks=[], title="the image")
        plot_answer(right, model, tokenizer, picture, describe(Thing(shape, colour, "large", "middle"), "colour"))

    number = ipywidgets.IntSlider(value=0, min=0, max=19, description="Image")
    colours = ipywidgets.Dropdown(value="black", options=list(COLOURS), description="Colour")
    shapes = ipywidgets.Dropdown(value="square", options=list(SHAPES), description="Shape")
    return live_figure(figure, update, image=number, colour=colours, shape=shapes)
