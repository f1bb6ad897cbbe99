"""The figures of lesson 06: bets on claims, verdicts on a simulated arm, and the results of the study."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.experiments import Row, difference, judge
from helpers.widgets.figures import STYLES, live_figure

COLOURS = {"better": "#009E73", "worse": "#D55E00", "equivalent": "#0072B2", "undecided": "0.3"}


def bets(arms: Sequence[str]) -> ipywidgets.GridBox:
    """Show a drop-down list per arm; its ``value`` is the bet."""
    options, style = ["no bet yet", *COLOURS], {"description_width": "160px"}
    return ipywidgets.GridBox([ipywidgets.Dropdown(description=arm, options=options, style=style) for arm in arms])


def plot_cell(axis: Axes, row: float, cell: Row) -> None:
    """Plot a cell's margin, its interval and a ring for each seed, as far as the axis goes; write the verdict."""
    colour = COLOURS.get(cell["verdict"], "0.55")
    axis.axvspan(-cell["margin"], cell["margin"], color="0.9", zorder=0)
    axis.axvline(0, color="0.35", linewidth=0.5)
    axis.plot([cell["low"], cell["high"]], [row, row], color=colour, linewidth=2)
    axis.plot(cell["mean"], row, "o", color=colour, markersize=5)
    axis.plot(cell["differences"], [row + 0.25] * cell["n"], "o", color="0.5", markerfacecolor="none", markersize=2.5)
    words = (f"{cell['mean']:+.1f}, " if cell["n"] > 1 else "") + cell["verdict"]
    star = " \u2605" if cell.get("role") == "primary" else ""
    axis.text(1.02, row, words + star, color=colour, fontsize=8, va="center", transform=axis.get_yaxis_transform())


def forest(cells: Sequence[Row], claimed: Mapping[str, float], limits: Mapping[str, tuple[float, float]]) -> Figure:
    """Plot the difference of each arm (row) from the baseline on each source (panel), with its simultaneous interval.

    The band is the margin, a diamond a ``claimed`` difference, a star a primary cell, an arrow a mean below the
    ``limits`` of the source.
    """
    arms, sources = (list(dict.fromkeys(cell[name] for cell in cells)) for name in ("arm", "source"))
    arms.sort(key=lambda arm: any(cell["role"] == "control" for cell in cells if cell["arm"] == arm))  # these come last
    size = (1.8 + 3.1 * len(sources), 1 + 0.34 * len(arms))  # inches
    figure, axes = plt.subplots(1, len(sources), figsize=size, dpi=90, sharey=True, squeeze=False, layout="constrained")
    for axis, source in zip(axes[0], sources, strict=True):
        own = [cell for cell in cells if cell["source"] == source]
        for cell in own:
            row = arms.index(cell["arm"])
            plot_cell(axis, row, cell)
            if cell["mean"] < limits[source][0]:
                axis.plot(limits[source][0], row, "<", color=COLOURS.get(cell["verdict"], "0.55"), clip_on=False)
        axis.plot(list(claimed.values()), [arms.index(arm) for arm in claimed], "D", color="k", markerfacecolor="none")
        axis.set_title(f"{source} (baseline {own[0]['baseline']:.1f} %)", fontsize=10)
        axis.set(xlabel="difference in R@1, points", xlim=limits[source], ylim=(len(arms) - 0.5, -0.5))
        axis.set_yticks(range(len(arms)), arms)
    return figure


def over_time(effects: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Plot, for each source (panel), the difference of each arm from the baseline by epoch."""
    figure, axes = plt.subplots(1, len(effects), figsize=(10.5, 3.6), dpi=90, layout="constrained")
    for axis, (source, arms) in zip(axes, effects.items(), strict=True):
        for (arm, differences), style in zip(arms.items(), cycle(STYLES), strict=False):
            axis.plot(differences, label=arm, linestyle=style)
        axis.axhline(0, color="0.35", linewidth=0.5)
        axis.set(title=source, xlabel="epoch", ylabel="difference in R@1, points")
        axis.locator_params(axis="x", integer=True)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8, frameon=False, ncols=2)
    return figure


def verdict_figure() -> ipywidgets.VBox:
    """Show the differences of simulated pairs, their interval, and the verdict for a margin of 1.5 points."""
    figure, noise = Figure(figsize=(7, 2), layout="constrained"), np.random.default_rng(4).normal(0, 1.3, 40)
    axis = figure.subplots()

    def update(effect: int, seeds: int) -> None:
        differences = effect / 2 + noise[:seeds]
        (verdict,), interval = judge([differences], [1.5]), difference(differences, np.zeros(seeds))
        axis.clear()
        plot_cell(axis, 0, interval | dict(differences=differences, verdict=verdict, n=seeds, margin=1.5))
        axis.set(xlim=(-6, 6), ylim=(0.6, -0.4), yticks=[], xlabel="difference in points")
        axis.set_title(f"true effect {effect / 2:+.1f}, {seeds} seeds: {verdict}")

    sliders = {"effect": ipywidgets.IntSlider(0, -6, 6, description="Effect x 2")}
    return live_figure(figure, update, **sliders, seeds=ipywidgets.IntSlider(8, 2, 40, description="Seeds"))


def heat_maps(grids: Mapping[str, Mapping[tuple[str, str], Sequence[float]]]) -> ipywidgets.VBox:
    """Show R@1 by temperature and a second option; a grid maps (temperature, option) to R@1 after each epoch."""
    figure = Figure(figsize=(8, 3), layout="constrained")

    def update(epoch: int) -> None:
        figure.clear()
        for axis, (title, grid) in zip(figure.subplots(1, len(grids)), grids.items(), strict=True):
            rows, columns = (list(dict.fromkeys(names)) for names in zip(*grid, strict=True))
            recalls = np.array([[grid[row, column][epoch] for column in columns] for row in rows])
            axis.imshow(recalls, cmap="Blues", vmin=0, vmax=100, aspect="auto")
            for (row, column), recall in np.ndenumerate(recalls):
                axis.text(column, row, f"{recall:.0f}", ha="center", va="center", color="w" if recall > 55 else "k")
            axis.set(xlabel=title, ylabel="temperature", xticks=range(len(columns)), xticklabels=columns)
            axis.set_yticks(range(len(rows)), rows)
        figure.suptitle(f"validation R@1 in % after epoch {epoch}")

    last = min(len(recalls) for grid in grids.values() for recalls in grid.values()) - 1
    return live_figure(figure, update, epoch=ipywidgets.IntSlider(last, 0, last, description="Epoch"))
