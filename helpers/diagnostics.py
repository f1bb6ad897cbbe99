"""What can be read off a batch besides its loss: who pushes, how many negatives count, how two sets of features lie."""

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.losses import at_least_float32, check_features, check_side, check_temperature, without_diagonal


def gradient_shares(similarities: Tensor, temperature: float | Tensor) -> Tensor:
    """How the repulsion of each image is shared out among its negatives, by the image-to-text contrastive loss.

    The gradient of that loss pulls row i to its match by ``1 - p_ii`` and pushes it from negative j by ``p_ij``, both
    over the temperature, where p is the softmax of ``similarities / temperature``. The push adds up to the pull, so
    what is left to say is who does it. A small temperature gives it all to the hardest negative, a large one the same
    to each, which is ``1 / (batch - 1)``. For text to image pass ``similarities.T``.

    Args:
        similarities: ``[batch, batch]``, images in rows, matched pairs on the diagonal; -inf off the diagonal stands
            for a pair that a mask leaves out.
        temperature: a number above 0, or a tensor of one element.

    Returns:
        ``[batch, batch]``, from 0 to 1: the diagonal is 0, each row adds up to 1, or is 0 where no negative is left.

    Raises:
        ValueError: for similarities that are not a finite square matrix, or a temperature not above 0.

    Source: Wang and Liu, 2021, "Understanding the Behaviour of Contrastive Loss", the relative penalty of section 3.
    """
    check_similarities(similarities)
    check_temperature(temperature)
    # Where no negative is left the softmax is 0 / 0.
    return torch.softmax(without_diagonal(at_least_float32(similarities) / temperature), dim=1).nan_to_num(0.0)


def effective_negatives(similarities: Tensor, temperature: float | Tensor) -> Tensor:
    """How many texts each image effectively chooses among: the exponential of the entropy of its softmax.

    1 when one text takes all the probability, ``batch`` when all have the same. The match is one of those counted.

    Args, raises as :func:`gradient_shares`.

    Returns:
        ``[batch]``, from 1 to ``batch``.
    """
    check_similarities(similarities)
    check_temperature(temperature)
    probabilities = torch.softmax(at_least_float32(similarities) / temperature, dim=1)  # [image, text]
    return torch.special.entr(probabilities).sum(1).exp()


def alignment(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far the two sides of a pair lie apart: the mean squared distance of L2-normalised pairs.

    0 when each image lies on its text, 2 when they are at right angles in the mean, 4 when they are opposite. It is
    ``2 - 2 * cosine``, and 0 also when everything has collapsed to one point, so read it beside :func:`uniformity`.

    Args:
        image_features, text_features: ``[batch, dim]``, row by row pairs.

    Returns:
        A tensor with no dimensions.

    Raises:
        ValueError: for shapes that are not pairs, or values that are not finite.

    Source: Wang and Isola, 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", section 4.1 (alpha = 2).
    """
    check_features(image_features, text_features)
    return (directions(image_features) - directions(text_features)).square().sum(1).mean()


def uniformity(features: Tensor) -> Tensor:
    """How evenly L2-normalised features cover the sphere: ``ln`` of the mean of ``exp(-2 * squared distance)``.

    0 when all are at one point, the largest value; the more evenly they are spread, the lower: about -4 when all are at
    right angles to each other. Below that only few can be: -8 for two opposite points.

    Args:
        features: ``[batch, dim]``, one side.

    Returns:
        A tensor with no dimensions, the mean taken over all ``batch * (batch - 1) / 2`` pairs of different rows; 0 for
        a single row, which has no such pair.

    Raises:
        ValueError: for a shape that is not ``[batch, dim]``, or values that are not finite.

    Source: Wang and Isola, 2020, section 4.1 (t = 2).
    """
    check_side("features", features)
    if len(features) == 1:
        return at_least_float32(features).new_zeros(())
    squared_distances = torch.pdist(directions(features)).square()  # [batch * (batch - 1) / 2]
    return torch.exp(-2 * squared_distances).mean().log()


def modality_gap(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far the centre of the images lies from the centre of the texts: the distance of the two means.

    0 when both centres are one point, 2 when all images are at one point and all texts at the opposite one. It sees the
    centres alone: two sets of different shape around one centre have no such gap, but a :func:`distribution_gap`.

    Args:
        image_features: ``[images, dim]``; normalised here.
        text_features: ``[texts, dim]``, which may be more or fewer.

    Returns:
        A tensor with no dimensions.

    Raises:
        ValueError: for shapes that do not fit, or values that are not finite.

    Source: Liang et al., 2022, "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
    Learning", section 4.2.
    """
    check_features(image_features, text_features, pairs=False)
    return torch.linalg.vector_norm(directions(image_features).mean(0) - directions(text_features).mean(0))


def distribution_gap(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How different the cloud of images is from the cloud of texts, in centre or shape: their energy distance.

    Twice the mean distance of an image from a text, less the mean distance of two images and of two texts, each with
    all its pairs, those of a row with itself among them. 0 exactly when both sets are the same points, in any order; it
    grows with the square of a small shift; 4 when all images are at one point and all texts at the opposite one.

    Args, returns and raises as :func:`modality_gap`.

    Source: Székely and Rizzo, 2013, "Energy statistics: A class of statistics based on distances", on L2-normalised
    features.
    """
    check_features(image_features, text_features, pairs=False)
    images, texts = directions(image_features), directions(text_features)
    return 2 * mean_distance(images, texts) - mean_distance(images, images) - mean_distance(texts, texts)


def effective_rank(features: Tensor) -> Tensor:
    """How many directions the L2-normalised features use: the exponential of the entropy of their singular values.

    1 when all lie on one line, ``min(batch, dim)`` when they use every direction alike. The mean is not taken away, so
    a common direction counts as one.

    Args:
        features: ``[batch, dim]``, one side.

    Returns:
        A tensor with no dimensions.

    Raises:
        ValueError: for a shape that is not ``[batch, dim]``, or values that are not finite.

    Source: Roy and Vetterli, 2007, "The effective rank: a measure of effective dimensionality", definition 1.
    """
    check_side("features", features)
    singular_values = torch.linalg.svdvals(directions(features))  # [min(batch, dim)]
    return torch.special.entr(F.normalize(singular_values, p=1, dim=0)).sum().exp()


def directions(features: Tensor) -> Tensor:
    """The features L2-normalised, in float32 at least."""
    return F.normalize(at_least_float32(features), dim=1)


def mean_distance(one: Tensor, other: Tensor) -> Tensor:
    """The mean distance of every row of one set from every row of the other, ``[rows, dim]`` each."""
    # Distances by matrix products are quicker, but lose the digits of small ones: equal rows would be apart.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").mean()


def check_similarities(similarities: Tensor) -> None:
    """Raise ``ValueError`` unless the similarities are a square matrix, finite but for pairs that a mask leaves out."""
    if similarities.ndim == 2 and similarities.shape[0] != similarities.shape[1]:
        raise ValueError(f"similarities must be square, one row and one column a pair, not {list(similarities.shape)}")
    left_out = torch.isneginf(similarities)
    if similarities.ndim == 2:
        left_out = left_out & ~torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    check_side("similarities", similarities.masked_fill(left_out, 0.0))
