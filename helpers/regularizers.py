"""Regularizers: what is added to the contrastive loss, looked up by name on the command line."""

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from helpers.losses import check_features, contrastive_loss, one_way_contrastive_loss


def multi_scale_regularization(
    image_scales: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    temperature: float | Tensor = 0.07,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """A contrastive loss at each scale, weighted and summed.

    Scale k of the images is aligned with scale k of the texts: what is in a picture, wherever it is, with the words;
    the rough arrangement with the phrases; the full one with the sentence. Each scale is L2-normalised by its loss.

    Args:
        image_scales: one tensor ``[batch, dim_k]`` a scale.
        text_scales: one tensor ``[batch, dim_k]`` a scale, as many as ``image_scales``.
        temperature: of every term.
        weights: one number a scale, 0 or above; None means all ones.

    Returns:
        ``sum_k weights[k] * contrastive_loss(image_scales[k], text_scales[k], temperature)``, no dimensions.

    Raises:
        ValueError: for no scale, unequal numbers of scales, weights that do not fit, or what a term refuses.

    Source: the idea of Gao et al., 2022, "PyramidCLIP: Hierarchical Feature Alignment for Vision-language Model
    Pretraining", reduced to its core.
    """
    if len(image_scales) == 0 or len(image_scales) != len(text_scales):
        raise ValueError(
            f"give as many image scales as text scales, at least one: got {len(image_scales)} and {len(text_scales)}"
        )
    weights = [1.0] * len(image_scales) if weights is None else list(weights)
    if len(weights) != len(image_scales):
        raise ValueError(f"give one weight a scale: got {len(weights)} weights for {len(image_scales)} scales")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be finite and 0 or above, got {weights}")
    terms = [
        weight * contrastive_loss(image_features, text_features, temperature)
        for weight, image_features, text_features in zip(weights, image_scales, text_scales, strict=True)
    ]
    return sum(terms[1:], start=terms[0])


def pooled_to_one_regularization(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """A negative control: a contrastive loss on each feature vector pooled to its mean, one number an image or text.

    It was proposed as a second "scale", but one number has no direction to align. The logits are an outer product,
    so their rank is one, the best match of every row is one of two columns, and recall at 1 is 2 / batch at most,
    whatever the features. Notebook 04 shows it.

    Args:
        image_features: ``[batch, dim]``, used as they are: normalising one number would leave only its sign.
        text_features: ``[batch, dim]``.
        temperature: what the products of the two means are divided by.

    Returns:
        The image-to-text contrastive loss of the pooled features, no dimensions.

    Raises:
        ValueError: as :func:`helpers.losses.one_way_contrastive_loss`.
    """
    check_features(image_features, text_features)
    pooled_images = F.adaptive_avg_pool1d(image_features, 1)  # [batch, 1]
    pooled_texts = F.adaptive_avg_pool1d(text_features, 1)  # [batch, 1]
    return one_way_contrastive_loss(pooled_images, pooled_texts, temperature)


Regularizer = Callable[[Sequence[Tensor], Sequence[Tensor], float | Tensor], Tensor]

# Each takes the scales of a batch, coarse to fine, the finest being the features of the main loss itself.
REGULARIZERS: dict[str, Regularizer] = {
    "multi_scale": lambda images, texts, temperature: multi_scale_regularization(images[:-1], texts[:-1], temperature),
    "pooled_to_one": lambda images, texts, temperature: pooled_to_one_regularization(
        images[-1], texts[-1], temperature
    ),
}


def parse_regularizer(text: str) -> tuple[str, float]:
    """Name and weight from ``NAME`` or ``NAME:WEIGHT``; the weight is 1 where none is given.

    Raises:
        ValueError: for a name that is not known, or a weight that is no finite number of 0 or above.
    """
    name, _, number = text.partition(":")
    if name not in REGULARIZERS:
        raise ValueError(f"no regularizer {name!r}; there are: {', '.join(REGULARIZERS)}")
    try:
        weight = float(number) if number else 1.0
    except ValueError:
        raise ValueError(f"the weight in {text!r} is no number; write for example {name}:0.5") from None
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight in {text!r} must be finite and 0 or above")
    return name, weight
