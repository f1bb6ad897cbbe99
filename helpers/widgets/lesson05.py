"""The figures of lesson 05, and the toy trainings of two exercises."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from helpers.evaluation import retrieval_metrics
from helpers.losses import contrastive_loss
from helpers.sources.snapshots import Snapshots
from helpers.temperature import CosineDecay
from helpers.widgets import figures


def recall_over_steps(snapshots: Snapshots) -> Figure:
    """Plot how many of the texts find their image, at each moment of the training that the snapshots come from."""
    matrices = snapshots.image_features @ snapshots.text_features.mT  # [moments, images, texts]
    own = torch.arange(matrices.shape[1])
    recalls = [retrieval_metrics(matrix, own)["text_to_image"]["R@1"] for matrix in matrices]
    chance, label = {"chance": 100 / len(own)}, "texts that find their image first, %"
    return figures.curves(snapshots.steps, {"": recalls}, "steps of training", label, chance, y_limits=(0, 104))


def run_panels(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Plot temperature and both validation recalls of several runs, from their records."""
    fields = {
        "temperature": "temperature",
        "R@1 image to text, %": "val_image_to_text",
        "R@1 text to image, %": "val_text_to_image",
    }
    steps = [record["step"] for record in next(iter(runs.values()))]
    curves = {
        title: {name: [record[field] for record in records] for name, records in runs.items()}
        for title, field in fields.items()
    }
    return figures.panels(steps, curves, "step")


def toy_pairs(seed: int, pairs: int) -> Tensor:
    """Two noisy views, ``[2, pairs, 64]``, of 24 hidden numbers per pair."""
    views = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(pairs, 24, generator=generator)
    return torch.tanh(hidden @ views / 24**0.5) + 0.5 * torch.randn(2, pairs, 64, generator=generator)


def toy_weights(generator: torch.Generator) -> Tensor:
    """A linear layer per view, ``[2, 64, 128]``."""
    return (torch.randn(2, 64, 128, generator=generator) / 8).requires_grad_()


def by_hand(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """The contrastive loss by ``-log(softmax)``, which is infinite where a probability is rounded to 0."""
    logits = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature
    return -(logits.softmax(1).diagonal().log() + logits.softmax(0).diagonal().log()).mean() / 2


def faulty_trainings(steps: int = 100) -> Figure:
    """Plot training and validation loss of four toy trainings on 64 pairs per batch, each with one mistake."""
    validation, curves = toy_pairs(2, 64), {}
    for number, mistake in enumerate(("other parameters", "wrong pairs", "log of softmax", "one batch"), start=1):
        training, generator = toy_pairs(1, 2000), torch.Generator().manual_seed(0)
        weights = toy_weights(generator)
        watched = weights.detach().clone().requires_grad_() if mistake == "other parameters" else weights
        optimizer = torch.optim.AdamW([watched], lr=0.003)
        if mistake == "wrong pairs":
            training[1] = training[1].roll(1, 0)
        pool = {"wrong pairs": 128, "one batch": 64}.get(mistake, 2000)
        losses, unseen = [], []
        for step in range(steps):
            temperature = max(0.1 - 0.002 * step, 0.001) if mistake == "log of softmax" else 0.1
            batch = training[:, torch.randperm(pool, generator=generator)[:64]] @ weights  # [2, 64, 128]
            loss = (by_hand if mistake == "log of softmax" else contrastive_loss)(*batch, temperature)
            losses.append(loss.item())
            unseen.append(contrastive_loss(*(validation @ weights), temperature).item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curves[f"panel {number}"] = {"training": losses, "validation": unseen}
    figure = figures.panels(range(steps), curves, "step", dict.fromkeys(curves, math.log(64)))
    plt.setp(figure.axes, xlim=(0, steps), ylim=(0, 6))
    figure.axes[0].set_ylabel("loss")
    return figure


def toy_log(epochs: int = 8, steps: int = 20, seed: int = 3) -> str:
    """The log of a toy training on 300 pairs with a cosine decay of the temperature, and 600 held-out pairs."""
    training, validation, test = (toy_pairs(3 * seed + part, 300) for part in (1, 2, 3))
    generator, own = torch.Generator().manual_seed(seed), torch.arange(300)
    weights, schedule = toy_weights(generator), CosineDecay(0.2, 0.03)
    optimizer = torch.optim.AdamW([weights], lr=0.01)
    lines = ["epoch  temperature  training loss  validation loss  validation R@1, %  test R@1, %"]
    for epoch in range(1, epochs + 1):
        total = 0.0
        for step in range(steps):
            temperature = schedule(((epoch - 1) * steps + step) / (epochs * steps - 1))
            rows = torch.randperm(300, generator=generator)[:64]
            loss = contrastive_loss(*(training[:, rows] @ weights), temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / steps
        with torch.no_grad():
            features = [F.normalize(split @ weights, dim=2) for split in (validation, test)]  # [2, 300, 128] each
            recalls = [100 * ((x @ y.T).argmax(1) == own).float().mean().item() for x, y in features]
            unseen = contrastive_loss(*features[0][:, :64], temperature).item()
        numbers = f"{temperature:11.2f}  {total:13.2f}  {unseen:15.2f}  {recalls[0]:17.1f}  {recalls[1]:11.1f}"
        lines.append(f"{epoch:5}  {numbers}")
    return "\n".join(lines)
