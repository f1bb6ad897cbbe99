"""What a regularizer really does: how much it can distinguish, how strong its gradient is, and what it learns alone."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from helpers.encoders import BatchViews, DualEncoder
from helpers.evaluation import DIRECTIONS, retrieval_metrics
from helpers.losses import contrastive_loss
from helpers.regularizers import REGULARIZERS, Regularizer, cosines, features

MAIN = "main loss"
TEMPERATURE = 0.07
MAIN_LOSS = Regularizer(lambda views, temperature: contrastive_loss(*features(views), temperature), cosines)


def regularizer_report(
    names: Sequence[str], model: DualEncoder, images: Tensor, token_ids: Tensor, padding: Tensor, steps: int = 100
) -> list[dict[str, Any]]:
    """Measure on one batch, without training, which regularizers have an effect.

    Returns a row for the main loss and one for each name: its ``value``; the ``ranks`` of its matrices ``[image,
    text]``, or None; the norm of its ``gradient``, relative to the main loss; and ``alone_recall``, by
    :func:`recall_alone`.
    """
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        views = model.views(images, token_ids, padding)
        main = MAIN_LOSS.loss(views, TEMPERATURE)
        parameters = list(model.parameters())
        main_gradients = torch.autograd.grad(main, parameters, retain_graph=True, allow_unused=True)
        parameters = [p for p, gradient in zip(parameters, main_gradients, strict=True) if gradient is not None]
        main_norm = gradient_norm(main, parameters)
        for name, term in ({MAIN: MAIN_LOSS} | {name: REGULARIZERS[name] for name in names}).items():
            torch.manual_seed(0)  # the same dropout and crops for each term
            value = term.loss(views, TEMPERATURE)
            matrices = term.similarities(views) if term.similarities else []
            row = {"name": name, "value": value.item()}
            row["ranks"] = [int(torch.linalg.matrix_rank(matrix.detach())) for matrix in matrices] or None
            row["gradient"] = gradient_norm(value, parameters) / main_norm
            rows.append(row | {"alone_recall": recall_alone(term, views, steps)})
    return rows


def gradient_norm(value: Tensor, parameters: Sequence[Tensor]) -> float:
    """Return the norm of the gradient of a value by the parameters that it depends on."""
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return float(get_total_norm([gradient for gradient in gradients if gradient is not None]))


class FreeViews:
    """Random tensors to optimise, in the shapes of the given views; each is created on first use."""

    def __init__(self, views: BatchViews) -> None:
        self.views, self.leaves = views, []

    def __getattr__(self, name: str) -> Tensor | list[Tensor]:
        given = getattr(self.views, name)
        free = [self.leaf(scale) for scale in given] if isinstance(given, list) else self.leaf(given)
        setattr(self, name, free)  # so that __getattr__ is called once per name
        return free

    def leaf(self, given: Tensor) -> Tensor:
        if not given.is_floating_point():
            return given  # padding
        self.leaves.append(torch.randn(given.shape).requires_grad_())
        return self.leaves[-1]


def recall_alone(term: Regularizer, views: BatchViews, steps: int) -> float:
    """Return the mean R@1 of both directions, in percent, that the term reaches if Adam changes the features freely."""
    free: Any = FreeViews(views)
    term.loss(free, TEMPERATURE)  # creates the numbers
    optimizer = torch.optim.Adam(free.leaves, lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        term.loss(free, TEMPERATURE).backward()
        optimizer.step()
    with torch.no_grad():
        matrices = (term.similarities or cosines)(free)
    own = torch.arange(len(matrices[0]))
    recalls = [retrieval_metrics(matrix, own)[direction]["R@1"] for matrix in matrices for direction in DIRECTIONS]
    return statistics.mean(recalls)
