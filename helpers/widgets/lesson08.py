"""The figures of lesson 08: what a larger batch brings, and what it costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers.experiments import difference

COST_STYLES = {"plain": "C3o", "checkpointed": "C1s", "blockwise": "C0D", "blockwise, two ranks": "C2^"}


def batch_figure(recalls: Mapping[str, Sequence[float]], chance: float) -> Figure:
    """Plot the R@1 of each seed as a ring, and the mean with its 95 % interval, one row per way to use the pairs."""
    figure, axis = plt.subplots(figsize=(7.2, 2.6), facecolor="white", layout="constrained")
    for row, values in enumerate(recalls.values()):
        interval = difference(values, [0.0] * len(values))
        axis.plot([interval["low"], interval["high"]], [row, row], color="C0", linewidth=2)
        axis.plot(interval["mean"], row, "o", color="C0")
        axis.plot(values, [row + 0.25] * len(values), "o", color="0.45", markerfacecolor="none", markersize=4)
    axis.axvline(chance, linestyle=":", color="0.35")
    axis.annotate(" chance", (chance, 1), xycoords=("data", "axes fraction"), verticalalignment="top")
    axis.set(xlabel="test R@1, mean of both directions, %", ylabel="batch", xlim=(-2, None))
    axis.set(yticks=range(len(recalls)), yticklabels=list(recalls), ylim=(len(recalls) - 0.4, -0.6))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def cost_figure(rows: Sequence[Mapping]) -> Figure:
    """Plot memory, and time relative to the plain loss, against the batch, for each way to compute the loss."""
    figure, (memory, time) = plt.subplots(1, 2, figsize=(9.6, 3.6), dpi=90, facecolor="white", layout="constrained")
    plain = {row["pairs"]: row["milliseconds"] for row in rows if row["way"] == "plain"}
    for way, style in COST_STYLES.items():
        own = [row for row in rows if row["way"] == way]
        pairs = [row["pairs"] for row in own]
        memory.plot(pairs, [row["megabytes"] for row in own], style + "-", label=way)
        time.plot(pairs, [row["milliseconds"] / plain[row["pairs"]] for row in own], style + "-", label=way)
    memory.set(yscale="log", ylabel="memory of loss and gradients, MB")
    memory.yaxis.set_major_formatter("{x:,.0f}")
    time.set(ylabel="time divided by the time of plain", ylim=(0, None))
    for axis in (memory, time):
        axis.set(xscale="log", xlabel="pairs in the batch")
        axis.set_xticks(pairs, [f"{count:,}" for count in pairs], fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.minorticks_off()
    time.legend(frameon=False, fontsize=9)
    return figure
