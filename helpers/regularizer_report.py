"""What a regularizer really does, in one table: what it can tell apart, how hard it pulls, where it ends by itself."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.evaluation import DIRECTIONS, retrieval_metrics
from helpers.losses import contrastive_loss, cosine_similarities
from helpers.regularizers import (
    PREFIXES,
    REGULARIZERS,
    Views,
    check_name,
    pool_regions,
    token_wise_similarities,
)
from helpers.text import WordTokenizer

MAIN = "main loss"
IMAGES_AT_ONCE = 50  # token by token, a thousand images beside a thousand texts would fill a gigabyte


def scale_by_scale(image_scales: Sequence[Tensor], text_scales: Sequence[Tensor]) -> list[Tensor]:
    """The cosines ``[image, text]`` at each scale."""
    return [cosine_similarities(*scale) for scale in zip(image_scales, text_scales, strict=True)]


def of_features(views: Views) -> list[Tensor]:
    """The cosines ``[image, text]`` that the main loss has."""
    return [cosine_similarities(views.image_features, views.text_features)]


# The matrices [image, text] that a term compares; terms that compare no image with a text are not here.
SIMILARITIES: dict[str, Callable[[Views], Sequence[Tensor]]] = {
    MAIN: of_features,
    "multi_scale": lambda views: scale_by_scale(views.image_scales[:-1], views.text_scales[:-1]),
    "pyramid": lambda views: [
        cosine_similarities(views.regions.mean(1), views.text_features),
        *token_wise_similarities(pool_regions(views.regions, 2), views.phrases, views.padding),
        *token_wise_similarities(views.regions, views.words, views.padding),
    ],
    "token_wise": lambda views: token_wise_similarities(views.regions, views.phrases, views.padding),
    "nested_prefixes": lambda views: scale_by_scale(
        [views.image_features[:, :k] for k in PREFIXES], [views.text_features[:, :k] for k in PREFIXES]
    ),
    "crops": lambda views: scale_by_scale(
        [views.image_features, views.local_features], [views.short_text_features, views.text_features]
    ),
    "pooled_to_one": lambda views: [torch.outer(views.image_features.mean(1), views.text_features.mean(1))],
    "label_smoothing": of_features,
    "soft_targets": of_features,
}

# Terms that bring scales or parts of their own, with which one may also search.
PART_SIMILARITIES = ("multi_scale", "pyramid", "token_wise", "nested_prefixes")


@torch.no_grad()
def similarities_with_parts(
    model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset, texts: Sequence[str], names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Similarities ``[images, texts]``: the cosines of the features, and these plus what the terms compare.

    A term adds the mean of its matrices, as its loss is the mean over them: so the sum is what a training with the term
    at weight 1 makes right. It costs memory and time at search: of each image all regions are kept.

    Args:
        names: of ``PART_SIMILARITIES``; of none, both matrices are equal.
    """
    model.eval()
    ids, padding = tokenizer(texts)
    rows = []
    for start in range(0, len(dataset), IMAGES_AT_ONCE):
        images = dataset.__getitems__(range(start, min(start + IMAGES_AT_ONCE, len(dataset)))).images
        views = model.views(images, ids, padding)
        plain = of_features(views)[0]
        parts = [torch.stack(list(SIMILARITIES[name](views))).mean(0) for name in names]
        rows.append((plain, sum(parts, start=plain)))
    plain, summed = (torch.cat(side) for side in zip(*rows, strict=True))
    return plain, summed


def term(name: str) -> Callable[[Views, float | Tensor], Tensor]:
    """The term of that name, or the main loss."""
    if name == MAIN:
        return lambda views, temperature: contrastive_loss(views.image_features, views.text_features, temperature)
    return REGULARIZERS[name]


def regularizer_report(
    names: Sequence[str],
    model: DualEncoder,
    images: Tensor,
    token_ids: Tensor,
    padding: Tensor,
    temperature: float = 0.07,
    steps: int = 100,
) -> list[dict[str, Any]]:
    """Diagnostics that tell a regularizer from a no-op, measured on one batch; nothing is trained.

    Args:
        names: of ``REGULARIZERS``.
        model: as it stands, trained or not, in training or evaluation mode.
        images, token_ids, padding: a batch.
        temperature: of the main loss and of all terms.
        steps: how long the features set free descend.

    Returns:
        One row for the main loss, as the baseline, and one for each name:

        - ``name``, and ``value``, of the term on this batch.
        - ``ranks``: of each matrix ``[image, text]`` that the term compares, the batch at most: how many independent
          things it can tell; None where it compares no image with a text.
        - ``gradient``, ``image_gradient``, ``text_gradient``: the norm of the term's gradient, over that of the main
          loss; of all parameters, and of each encoder's. Parameters that the main loss does not reach are left out.
        - ``layers``: the same for each layer, by its name.
        - ``alone``, ``alone_recall``: the value that the term reaches where the features are free numbers that minimise
          nothing else, from a random start, and the recall at 1 in percent that they then have, by the term's own
          similarities where it has such, else by the features' cosines; the mean of both directions.

    Raises:
        ValueError: for a name that is not known, or is a rate of an encoder, which has no gradient of its own.
    """
    for name in names:
        check_name(name, REGULARIZERS)
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what dropout and crops draw is the same each time
        views = model.views(images, token_ids, padding)
        main_gradients = gradients(model, term(MAIN)(views, temperature))
        for name in (MAIN, *names):
            torch.manual_seed(0)
            value = term(name)(views, temperature)
            ranks = [
                int(torch.linalg.matrix_rank(matrix.detach())) for matrix in SIMILARITIES.get(name, no_matrix)(views)
            ]
            alone, alone_recall = reach_alone(name, views, temperature, steps)
            row = {"name": name, "value": value.item(), "ranks": ranks or None}
            row |= relative_norms(gradients(model, value), main_gradients)
            rows.append(row | {"alone": alone, "alone_recall": alone_recall})
    return rows


def no_matrix(views: Views) -> list[Tensor]:
    """What is compared by a term that compares no image with a text."""
    return []


def gradients(model: DualEncoder, value: Tensor) -> dict[str, Tensor]:
    """The gradient of each parameter that the value depends on, by name."""
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def relative_norms(of_term: dict[str, Tensor], of_main: dict[str, Tensor]) -> dict[str, Any]:
    """The norms of a term's gradients over those of the main loss: all, each encoder, each layer."""

    def ratio(prefix: str) -> float:
        norms = [
            math.sqrt(
                sum(float(found[name].square().sum()) for name in of_main if name.startswith(prefix) and name in found)
            )
            for found in (of_term, of_main)
        ]
        return norms[0] / norms[1]

    layers = dict.fromkeys(".".join(name.split(".")[:2]) for name in of_main)
    return {
        "gradient": ratio(""),
        "image_gradient": ratio("image_encoder."),
        "text_gradient": ratio("text_encoder."),
        "layers": {layer: ratio(f"{layer}.") for layer in layers},
    }


class FreeViews:
    """Views whose numbers are free: for each that is asked for, random ones in the shape a model gave.

    Args:
        views: those of a model.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.leaves: list[Tensor] = []

    def __getattr__(self, name: str) -> Tensor | list[Tensor]:
        found = getattr(self.views, name)
        free = [self.leaf(scale) for scale in found] if isinstance(found, list) else self.leaf(found)
        setattr(self, name, free)  # so that the next time this is not called
        return free

    def leaf(self, found: Tensor) -> Tensor:
        """Free numbers for features; padding stays what it is."""
        if not found.is_floating_point():
            return found
        self.leaves.append(torch.randn(found.shape).requires_grad_())
        return self.leaves[-1]


def reach_alone(name: str, views: Views, temperature: float, steps: int) -> tuple[float, float]:
    """The value and the recall at 1, in percent, that a term reaches on free features, by Adam."""
    free: Any = FreeViews(views)
    value = term(name)(free, temperature)
    optimizer = torch.optim.Adam(free.leaves, lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value = term(name)(free, temperature)
    with torch.no_grad():
        matrices = SIMILARITIES.get(name, of_features)(free)
    own = torch.arange(len(matrices[0]))
    found = [retrieval_metrics(matrix, own)[direction]["R@1"] for matrix in matrices for direction in DIRECTIONS]
    return value.item(), sum(found) / len(found)


def print_report(rows: Sequence[dict[str, Any]]) -> None:
    """The rows of :func:`regularizer_report` as a table, but for the layers."""
    print(f"{'':22}{'':9}{'':26}{'gradient, relative to the main loss':^36}{'set free, alone':^18}")
    print(f"{'term':22}{'value':>9}{'rank':>26}{'whole':>12}{'images':>12}{'texts':>12}{'value':>10}{'R@1':>8}")
    for row in rows:
        ranks = "-" if row["ranks"] is None else ", ".join(map(str, row["ranks"]))
        shares = "".join(f"{row[key]:12.2g}" for key in ("gradient", "image_gradient", "text_gradient"))
        print(f"{row['name']:22}{row['value']:9.3f}{ranks:>26}{shares}{row['alone']:10.3f}{row['alone_recall']:8.1f}")
