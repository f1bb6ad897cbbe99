"""Contrastive losses: how one number tells matched image-text pairs from mismatched ones.

Every loss takes features first and the temperature last. Row i of ``image_features`` and row i of ``text_features``
are a matched pair; all other combinations in the batch are taken as mismatched.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def check_temperature(temperature: float | Tensor) -> None:
    """Raise ``ValueError`` unless the temperature is one finite number above zero."""
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ValueError(f"temperature must be one number, not a tensor of shape {list(temperature.shape)}")
        temperature = temperature.item()
    value = float(temperature)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"temperature must be a finite number above 0, not {value:g}; 0.07 is a usual start")


def check_features(image_features: Tensor, text_features: Tensor) -> None:
    """Raise ``ValueError`` unless both are finite ``[batch, dim]`` tensors of the same shape."""
    for name, features in (("image_features", image_features), ("text_features", text_features)):
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(f"{name} must have the shape [batch, dim], not {list(features.shape)}")
        if not features.is_floating_point():
            raise ValueError(f"{name} must be floating point numbers, not {features.dtype}")
        if not torch.isfinite(features).all():
            raise ValueError(f"{name} holds NaN or infinite values; look for the layer that made them")
    if len(image_features) != len(text_features):
        raise ValueError(
            f"image_features and text_features must be pairs, row by row: "
            f"got {len(image_features)} images and {len(text_features)} texts"
        )
    if image_features.shape[1] != text_features.shape[1]:
        raise ValueError(
            f"image_features and text_features must have the same dim: "
            f"got {image_features.shape[1]} and {text_features.shape[1]}"
        )


def contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    """Symmetric contrastive loss of a batch of matched pairs: the mean of image-to-text and text-to-image.

    Features are L2-normalised here, so only their directions count. Chance is ``ln(batch)``.

    Args:
        image_features: ``[batch, dim]``.
        text_features: ``[batch, dim]``, row i belonging to image i.
        temperature: what the similarities are divided by; a number, or a tensor of one element.

    Returns:
        The loss, a tensor with no dimensions, in nats. It is computed in float32 at least.

    Raises:
        ValueError: for shapes that are not pairs, values that are not finite, or a temperature not above 0.

    Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 3.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    image_features = F.normalize(at_least_float32(image_features), dim=1)
    text_features = F.normalize(at_least_float32(text_features), dim=1)
    logits_per_image = image_features @ text_features.T / temperature  # [image, text]
    labels = torch.arange(len(logits_per_image), device=logits_per_image.device)
    loss_images = F.cross_entropy(logits_per_image, labels)
    loss_texts = F.cross_entropy(logits_per_image.T, labels)
    return (loss_images + loss_texts) / 2


def one_way_contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    temperature: float | Tensor = 0.07,
    normalize: bool = False,
) -> Tensor:
    """Image-to-text contrastive loss only, by default on raw dot products: a form often met, kept for comparison.

    It never asks whether a text finds its image, and without ``normalize`` the length of the features acts as a second,
    hidden temperature: ``loss(x, y, t) == loss(2 * x, y, 2 * t)``.

    Args, returns and raises as :func:`contrastive_loss`, and ``normalize``: L2-normalise both sides first.

    Source: the image half of van den Oord et al., 2018, "Representation Learning with Contrastive Predictive Coding",
    equation 4.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    image_features, text_features = at_least_float32(image_features), at_least_float32(text_features)
    if normalize:
        image_features, text_features = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    logits_per_image = image_features @ text_features.T / temperature  # [image, text]
    labels = torch.arange(len(logits_per_image), device=logits_per_image.device)
    return F.cross_entropy(logits_per_image, labels)


def at_least_float32(features: Tensor) -> Tensor:
    """Half precision to float32, since half the digits are not enough for a softmax; float64 stays as it is."""
    return features if features.dtype == torch.float64 else features.float()
