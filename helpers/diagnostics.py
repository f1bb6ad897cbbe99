"""Diagnostics of a batch: which negatives push, how many of them count, how the L2-normalised features lie."""

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.losses import check_features, check_side, check_temperature, without_diagonal


def gradient_shares(similarities: Tensor, temperature: float | Tensor) -> Tensor:
    """How the image-to-text contrastive loss divides the repulsion of each image among its negatives, ``[image,
    text]``.

    Its gradient pushes image i from text j by ``p_ij / temperature``, where p is the softmax of the logits, so text j
    has the share ``p_ij / (1 - p_ii)``. A row sums to 1, or to 0 without any negative; pairs set to -inf count as
    masked. For text to image, pass ``similarities.T``.
    Source: Wang and Liu, 2021, "Understanding the Behaviour of Contrastive Loss", the relative penalty of section 3.
    """
    check_temperature(temperature)
    # Without any negative the softmax is 0 / 0.
    return torch.softmax(without_diagonal(similarities / temperature), dim=1).nan_to_num(0.0)


def effective_negatives(similarities: Tensor, temperature: float | Tensor) -> Tensor:
    """How many texts each image effectively chooses from: the exponential of the entropy of its softmax, ``[batch]``.

    It is 1 if one text has all the probability and ``batch`` if all texts have the same; the match counts too.
    """
    check_temperature(temperature)
    probabilities = torch.softmax(similarities / temperature, dim=1)  # [image, text]
    return torch.special.entr(probabilities).sum(1).exp()


def alignment(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far images lie from their texts: the mean squared distance of matched pairs, ``2 - 2 * cosine``, from 0 to 4.

    It is also 0 if all features have collapsed to one point, so read it together with :func:`uniformity`.
    Source: Wang and Isola, 2020, "... Alignment and Uniformity on the Hypersphere", section 4.1 (alpha = 2).
    """
    check_features(image_features, text_features)
    return (F.normalize(image_features, dim=1) - F.normalize(text_features, dim=1)).square().sum(1).mean()


def uniformity(features: Tensor) -> Tensor:
    """How evenly features of one modality cover the sphere: ``ln`` of the mean of ``exp(-2 * squared distance)``.

    The more even, the lower: 0 if all features are equal (or there is only one), -4 if all are at right angles.
    Source: Wang and Isola, 2020, section 4.1 (t = 2).
    """
    check_side("features", features)
    if len(features) == 1:
        return features.new_zeros(())
    squared_distances = torch.pdist(F.normalize(features, dim=1)).square()  # [batch * (batch - 1) / 2]
    return torch.exp(-2 * squared_distances).mean().log()


def modality_gap(image_features: Tensor, text_features: Tensor) -> Tensor:
    """The distance between the mean of the images and the mean of the texts, from 0 to 2; their numbers may differ.

    Source: Liang et al., 2022, "Mind the Gap", section 4.2.
    """
    check_features(image_features, text_features, pairs=False)
    centres = [F.normalize(side, dim=1).mean(0) for side in (image_features, text_features)]  # [dim] each
    return torch.linalg.vector_norm(centres[0] - centres[1])
