"""A figure follows its controls."""

import ipywidgets
from matplotlib.figure import Figure

from helpers.widgets import figures


def test_a_live_figure_follows_its_controls() -> None:
    figure = Figure(figsize=(2, 1))
    axis = figure.subplots()
    slider = ipywidgets.IntSlider(3, 0, 9, description="Angle")
    box = figures.live_figure(figure, lambda angle: axis.set_title(f"cosine {angle / 9:.2f}"), angle=slider)
    picture = box.children[-1]
    before = picture.value
    slider.value = 9
    assert picture.value != before
    assert picture.tooltip == "Angle 9; cosine 1.00"
