"""Regularizers: terms added to the contrastive loss, each with a name for the command line.

``REGULARIZERS`` says which features of a batch each term gets.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.diagnostics import uniformity
from helpers.encoders import BatchViews
from helpers.files import InputError
from helpers.losses import (
    Number,
    check_features,
    contrastive_loss,
    cosine_similarities,
    one_way_contrastive_loss,
    symmetric_cross_entropy,
)

GROUP = 16  # token-wise terms compare pairs within groups: comparing a whole batch would take longer than all the rest


def multi_scale_regularization(
    image_scales: Sequence[Tensor],
    text_scales: Sequence[Tensor],
    temperature: Number = 0.07,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Return ``sum_k weights[k] * contrastive_loss(image_scales[k], text_scales[k], temperature)``.

    Scale k of images and texts is ``[batch, dim_k]``. Without ``weights`` all are 1.
    Source: the core idea of Gao et al., 2022, "PyramidCLIP: Hierarchical Feature Alignment ...".
    """
    weights = [1.0] * len(image_scales) if weights is None else weights
    scales = zip(weights, image_scales, text_scales, strict=True)
    return sum(weight * contrastive_loss(images, texts, temperature) for weight, images, texts in scales)


def token_wise_similarities(regions: Tensor, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Return how well each text fits each image, part by part, as two matrices ``[image, text]``.

    The first is ``mean_r max_w s`` and the second ``mean_w max_r s``, where s is the cosine of region r and word w.
    Regions ``[images, regions, dim]``, words ``[texts, length, dim]``, padding ``[texts, length]`` (True: no word).
    Source: Yao et al., 2022, "FILIP: Fine-grained Interactive Language-Image Pre-Training", section 3.1.
    """
    used = ~padding.all(0)  # skip positions that are padding in every text
    words, padding = words[:, used], padding[:, used]
    # Copying a word of the same text to the padded positions changes no maximum, and is faster than a mask.
    first_word = words[torch.arange(len(words), device=words.device), (~padding).int().argmax(1)]  # [texts, dim]
    words = torch.where(padding[:, :, None], first_word[:, None], words)
    regions, words = F.normalize(regions, dim=2), F.normalize(words, dim=2)
    similarities = regions.flatten(0, 1) @ words.flatten(0, 1).T  # [images * regions, texts * length]
    similarities = similarities.view(*regions.shape[:2], *words.shape[:2])  # [image, region, text, word]
    by_region = similarities.max(3).values.mean(1)  # [image, text]
    best_region = similarities.max(1).values.masked_fill(padding, 0.0)  # [image, text, word]
    return by_region, best_region.sum(2) / (~padding).sum(1)


def token_wise_regularization(regions: Tensor, words: Tensor, padding: Tensor, temperature: Number = 0.07) -> Tensor:
    """Return a contrastive loss in which each word looks for its region, and each region for its word.

    Images rank texts by the first matrix of :func:`token_wise_similarities`, and texts rank images by the second. Time
    and memory grow with ``batch ** 2 * regions * length``.
    """
    by_region, by_word = token_wise_similarities(regions, words, padding)  # [image, text] each
    labels = torch.arange(len(regions), device=regions.device)
    return (F.cross_entropy(by_region / temperature, labels) + F.cross_entropy(by_word.T / temperature, labels)) / 2


def pooled_to_one_regularization(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """Return the image-to-text contrastive loss of features ``[batch, dim]`` pooled to their mean: a negative control.

    It was proposed as a second "scale". The logits are an outer product, so their rank is one, the best match of every
    row is one of two columns, and recall at 1 is 2 / batch at most, whatever the features.
    """
    check_features(image_features, text_features)
    pooled_images = F.adaptive_avg_pool1d(image_features, 1)  # [batch, 1]
    pooled_texts = F.adaptive_avg_pool1d(text_features, 1)  # [batch, 1]
    return one_way_contrastive_loss(pooled_images, pooled_texts, temperature)


def feature_norm_penalty(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the mean of ``(length - 1) ** 2`` over all features ``[batch, dim]``: L2 normalisation as a penalty.

    Source: Zheng et al., 2018, "Ring Loss", section 3: twice its value, with radius 1 where the paper learns one.
    """
    lengths = torch.cat([side.norm(dim=1) for side in (image_features, text_features)])
    return (lengths - 1).square().mean()


def cyclic_cross_modal_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return ``sum_jk (s(x_j, y_k) - s(x_k, y_j)) ** 2 / batch`` for features ``[batch, dim]``, where s is the cosine.

    It is 0 if the matrix of similarities is symmetric, whether or not the pairs match.
    Source: Goel et al., 2022, "CyCLIP", section 3, where the term has the weight 0.25.
    """
    similarities = cosine_similarities(image_features, text_features)  # [image, text]
    return (similarities - similarities.T).square().sum() / len(similarities)


def cyclic_in_modal_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return ``sum_jk (s(x_j, x_k) - s(y_j, y_k)) ** 2 / batch`` for features ``[batch, dim]``, where s is the cosine.

    It is 0 if a rotation turns the images into the texts, whether or not the pairs match. Source: also CyCLIP.
    """
    of_images = cosine_similarities(image_features, image_features)  # [image, image]
    of_texts = cosine_similarities(text_features, text_features)  # [text, text]
    return (of_images - of_texts).square().sum() / len(of_images)


def decorrelation_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return a penalty on components that vary too little over the batch, or vary together; the mean of both sides.

    ``mean_d max(0, 1 - sqrt(var_d + 0.0001)) + 0.04 * sum_(d != e) cov_de ** 2 / dim``, of raw features ``[batch,
    dim]``.
    Source: Bardes et al., 2022, "VICReg", equations 1 to 4; 0.04 is its ratio of 1 to 25.
    """
    total = torch.zeros((), device=image_features.device)
    for side in (image_features, text_features):
        deviations = side - side.mean(0)
        covariances = deviations.T @ deviations / (len(side) - 1)  # [dim, dim]
        spread = (1 - (covariances.diagonal() + 1e-4).sqrt()).clamp_min(0).mean()
        together = (covariances - covariances.diagonal().diag()).square().sum() / side.shape[1]
        total = total + (spread + 0.04 * together) / 2
    return total


def label_smoothing_regularization(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """Return the cross entropy of features ``[batch, dim]`` against a target spread evenly over the batch, both ways.

    The contrastive loss plus w times it is ``1 + w`` times the label-smoothed loss with smoothing ``w / (1 + w)``.
    Source: Szegedy et al., 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.
    """
    return symmetric_cross_entropy(cosine_similarities(image_features, text_features) / temperature, 1.0)


class Regularizer(NamedTuple):
    """A term of the loss, and the matrices ``[image, text]`` that it is made of, if it compares images with texts."""

    loss: Callable[[BatchViews, Number], Tensor]
    similarities: Callable[[BatchViews], Sequence[Tensor]] | None = None


def features(views: BatchViews) -> tuple[Tensor, Tensor]:
    """Return the features of the main loss."""
    return views.image_features, views.text_features


def cosines(views: BatchViews) -> list[Tensor]:
    """Return the similarities of the main loss."""
    return [cosine_similarities(*features(views))]


def in_groups(term: Callable[..., Tensor], temperature: Number, *inputs: Tensor) -> Tensor:
    """Apply a term within groups of ``GROUP`` pairs and return the mean over pairs; chance is ``ln(GROUP)``."""
    groups = zip(*(side.split(GROUP) for side in inputs), strict=True)
    losses = [len(group[0]) * term(*group, temperature) for group in groups]
    return sum(losses) / len(inputs[0])


# v are the views of a batch, t is the temperature.
REGULARIZERS: dict[str, Regularizer] = {
    "multi_scale": Regularizer(  # without the finest scale, which is the main loss
        lambda v, t: multi_scale_regularization(v.image_scales[:-1], v.text_scales[:-1], t),
        lambda v: list(map(cosine_similarities, v.image_scales[:-1], v.text_scales[:-1])),
    ),
    "token_wise": Regularizer(
        lambda v, t: in_groups(token_wise_regularization, t, v.regions, v.phrases, v.padding),
        lambda v: token_wise_similarities(v.regions, v.phrases, v.padding),
    ),
    "pooled_to_one": Regularizer(
        lambda v, t: pooled_to_one_regularization(*features(v), t),
        lambda v: [torch.outer(v.image_features.mean(1), v.text_features.mean(1))],
    ),
    "feature_norm": Regularizer(lambda v, t: feature_norm_penalty(*features(v))),
    # It pushes all images apart, and all texts, and ignores which of them belong together.
    "uniformity": Regularizer(lambda v, t: (uniformity(v.image_features) + uniformity(v.text_features)) / 2),
    "cyclic_cross_modal": Regularizer(lambda v, t: cyclic_cross_modal_regularization(*features(v))),
    "cyclic_in_modal": Regularizer(lambda v, t: cyclic_in_modal_regularization(*features(v))),
    "decorrelation": Regularizer(lambda v, t: decorrelation_regularization(*features(v))),
    "label_smoothing": Regularizer(lambda v, t: label_smoothing_regularization(*features(v), t), cosines),
}

# Rates of the encoders, from 0 to below 1, with the name of DualEncoder's parameter.
RATES = {"text_dropout": "dropout"}


def parse_regularizers(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Read ``NAME``, ``NAME:WEIGHT`` or ``RATE:SHARE`` into weights by term and rates by DualEncoder's parameter."""
    known = (*REGULARIZERS, *RATES)
    values: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition(":")
        if name not in known:
            raise InputError(f"there is no regularizer {name!r}; choose from {', '.join(known)}")
        if name in values:
            raise InputError(f"the regularizer {name} is given twice; give it once")
        try:
            values[name] = float(number or 1)
        except ValueError:
            values[name] = math.nan
        if not 0 <= values[name] < (1 if name in RATES else math.inf):
            needed = "a rate of at least 0 and below 1" if name in RATES else "a weight of 0 or above"
            raise InputError(f"{text!r} needs {needed}, such as {name}:0.1")
    weights = {name: value for name, value in values.items() if name in REGULARIZERS}
    return weights, {RATES[name]: value for name, value in values.items() if name in RATES}
