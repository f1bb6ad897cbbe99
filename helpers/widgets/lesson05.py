"""The figure of an exercise in lesson 05: four toy trainings, each with a mistake."""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from helpers.losses import contrastive_loss
from helpers.widgets import figures


def toy_training(mistake: str) -> dict[str, list[float]]:
    """Train a linear layer per view on noisy pairs of views, with a mistake; return both losses of each step."""
    generator = torch.Generator().manual_seed(0)
    hidden, views = torch.randn(2064, 24, generator=generator), torch.randn(2, 24, 64, generator=generator)
    pairs = torch.tanh(hidden @ views / 24**0.5) + 0.5 * torch.randn(2, 2064, 64, generator=generator)
    training, validation = pairs[:, :2000].clone(), pairs[:, 2000:]
    if mistake == "wrong pairs":
        training[1] = training[1].roll(1, 0)
    weights = (torch.randn(2, 64, 128, generator=generator) / 8).requires_grad_()
    watched = weights.detach().clone().requires_grad_() if mistake == "other parameters" else weights
    optimizer = torch.optim.AdamW([watched], lr=0.003)
    temperature = 10.0 if mistake == "temperature" else 0.1  # times 0.1, in place of divided by 0.1
    pool = {"wrong pairs": 128, "one batch": 64}.get(mistake, 2000)
    losses = {"training": [], "validation": []}
    for _ in range(100):
        rows = torch.randperm(pool, generator=generator)[:64]
        loss = contrastive_loss(*(training[:, rows] @ weights), temperature)
        losses["training"].append(loss.item())
        losses["validation"].append(contrastive_loss(*(validation @ weights), temperature).item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def faulty_trainings() -> Figure:
    """Plot training and validation loss of four toy trainings, each with a mistake."""
    mistakes = ("other parameters", "wrong pairs", "temperature", "one batch")
    curves = {f"panel {number}": toy_training(mistake) for number, mistake in enumerate(mistakes, start=1)}
    figure = figures.panels(range(100), curves, "step", dict.fromkeys(curves, math.log(64)))
    plt.setp(figure.axes, ylim=(0, 6))
    figure.axes[0].set_ylabel("loss")
    return figure
