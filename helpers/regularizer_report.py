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
    """Measure on one batch, without training, which regularizers can do something.

    Returns one row for the main loss, as the baseline, and one for each name: its ``value``; the ``ranks`` of its
    matrices ``[image, text]``, or None; ``gradient``, ``image_gradient`` and ``text_gradient``, the norm of its
    gradient over that of the main loss, for all parameters and each encoder; and the result of :func:`reach_alone`.
    """
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        views = model.views(images, token_ids, padding)
        main_gradients = gradients(model, MAIN_LOSS(views, TEMPERATURE))
        for name, term in ({MAIN: MAIN_LOSS} | {name: REGULARIZERS[name] for name in names}).items():
            torch.manual_seed(0)  # the same dropout and crops for each term
            value = term(views, TEMPERATURE)
            matrices = term.similarities(views) if term.similarities else []
            ranks = [int(torch.linalg.matrix_rank(matrix.detach())) for matrix in matrices]
            row = {"name": name, "value": value.item(), "ranks": ranks or None}
            row |= relative_norms(gradients(model, value), main_gradients)
            rows.append(row | reach_alone(term, views, steps))
    return rows


def gradients(model: DualEncoder, value: Tensor) -> dict[str, Tensor]:
    """Return the gradient of each parameter that the value depends on, by name."""
    parameters = dict(model.named_parameters())
    all_gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(parameters, all_gradients, strict=True) if g is not None}


def relative_norms(of_term: dict[str, Tensor], of_main: dict[str, Tensor]) -> dict[str, Any]:
    """Return the norm of a term's gradient over the norm of the main loss's, if it has one: of all, per encoder."""

    def ratio(prefix: str) -> float:
        names = [name for name in of_main if name.startswith(prefix)]
        own, main = [of_term[name] for name in names if name in of_term], [of_main[name] for name in names]
        return float(get_total_norm(own) / get_total_norm(main))

    prefixes = {"gradient": "", "image_gradient": "image_encoder.", "text_gradient": "text_encoder."}
    return {name: ratio(prefix) for name, prefix in prefixes.items()}


class FreeViews:
    """Views of free numbers: random ones in the shape of the given views, created when first used."""

    def __init__(self, views: BatchViews) -> None:
        self.views = views
        self.leaves: list[Tensor] = []

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


def reach_alone(term: Regularizer, views: BatchViews, steps: int) -> dict[str, float]:
    """Return what the term reaches by itself when Adam changes the features freely, as if they were parameters.

    ``alone`` is its value, and ``alone_recall`` the recall at 1 in percent, the mean over both directions.
    """
    free: Any = FreeViews(views)
    value = term(free, TEMPERATURE)
    optimizer = torch.optim.Adam(free.leaves, lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value = term(free, TEMPERATURE)
    with torch.no_grad():
        matrices = (term.similarities or cosines)(free)
    own = torch.arange(len(matrices[0]))
    recalls = [retrieval_metrics(matrix, own)[direction]["R@1"] for matrix in matrices for direction in DIRECTIONS]
    return {"alone": value.item(), "alone_recall": statistics.mean(recalls)}
