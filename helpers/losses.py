"""Contrastive losses: how one number tells matched image-text pairs from mismatched ones.

Each loss takes ``image_features`` and ``text_features``, ``[batch, dim]``, in which row i of both is a matched pair,
L2-normalises them unless its docstring says otherwise, and returns a tensor with no dimensions. ``temperature`` is a
positive number or a tensor with one element. In the formulas ``s_ij`` is the cosine of image i and text j, ``z_ij =
s_ij / temperature``, and the loss is the mean of ``loss_i`` over all images and, exchanged, over all texts.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Number = float | Tensor  # a temperature, which may be learned


def check_temperature(temperature: Number) -> None:
    """Raise ``ValueError`` unless the temperature is a positive number or a tensor with one element."""
    if isinstance(temperature, Tensor):  # its value is not read, since that would wait for the GPU
        if temperature.numel() != 1:
            raise ValueError(f"temperature must have one element, got a tensor of shape {list(temperature.shape)}")
    elif not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a finite number above 0, got {temperature}; try 0.07")


def check_side(name: str, features: Tensor) -> None:
    """Raise ``ValueError`` unless the features have the shape ``[batch, dim]`` and are not empty."""
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"{name} must have the shape [batch, dim], got {list(features.shape)}")


def check_features(image_features: Tensor, text_features: Tensor, pairs: bool = True) -> None:
    """Raise ``ValueError`` unless both are ``[batch, dim]`` with the same dim and, for pairs, the same batch."""
    check_side("image_features", image_features)
    check_side("text_features", text_features)
    (images, image_dim), (texts, text_dim) = image_features.shape, text_features.shape
    if pairs and images != texts:
        raise ValueError(f"image_features and text_features must be pairs: got {images} images and {texts} texts")
    if image_dim != text_dim:
        raise ValueError(f"image_features and text_features must have the same dim: got {image_dim} and {text_dim}")


def check_image_ids(image_ids: Tensor, features: Tensor) -> None:
    """Raise ``ValueError`` unless there is one id for each row of the features."""
    if image_ids.shape != features.shape[:1]:
        raise ValueError(
            f"image_ids must have the shape [{len(features)}], one id per row, got {list(image_ids.shape)}"
        )


def cosine_similarities(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Compute the cosine of every image with every text, ``[image, text]``."""
    return F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T


def cosine_logits(image_features: Tensor, text_features: Tensor, temperature: Number) -> Tensor:
    """Check the arguments of a loss and compute its logits ``[image, text]``: cosines over the temperature."""
    check_features(image_features, text_features)
    check_temperature(temperature)
    return cosine_similarities(image_features, text_features) / temperature


def without_diagonal(logits: Tensor) -> Tensor:
    """Set the logits of the matched pairs to minus infinity, so that only the negatives remain in a softmax."""
    return logits.masked_fill(torch.eye(len(logits), device=logits.device, dtype=torch.bool), -torch.inf)


def symmetric_cross_entropy(logits_per_image: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Average the cross entropy of the rows and of the columns; the diagonal holds the right answers."""
    labels = torch.arange(len(logits_per_image), device=logits_per_image.device)
    loss_images = F.cross_entropy(logits_per_image, labels, label_smoothing=label_smoothing)
    loss_texts = F.cross_entropy(logits_per_image.T, labels, label_smoothing=label_smoothing)
    return (loss_images + loss_texts) / 2


def contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """Symmetric contrastive loss: the mean of the image-to-text and the text-to-image cross entropy.

    ``loss_i = -z_ii + ln sum_j exp(z_ij)``, in nats. Chance is ``ln(batch)`` and the floor is 0; m copies of every pair
    raise the floor to ``ln(m)``.
    Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 3.
    """
    logits_per_image = cosine_logits(image_features, text_features, temperature)  # [image, text]
    return symmetric_cross_entropy(logits_per_image)


def one_way_contrastive_loss(
    image_features: Tensor, text_features: Tensor, temperature: Number = 0.07, normalize: bool = False
) -> Tensor:
    """Image-to-text contrastive loss, by default on raw dot products: a common form, kept for comparison.

    ``loss_i = -z_ii + ln sum_j exp(z_ij)`` with ``z_ij = image_i @ text_j / temperature``, or with cosines if
    ``normalize``. The length of raw features is a second temperature: ``loss(x, y, t) == loss(2 * x, y, 2 * t)``.
    Source: van den Oord et al., 2018, "Representation Learning with Contrastive Predictive Coding", equation 4.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    if normalize:
        image_features, text_features = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    logits_per_image = image_features @ text_features.T / temperature  # [image, text]
    labels = torch.arange(len(logits_per_image), device=logits_per_image.device)
    return F.cross_entropy(logits_per_image, labels)


def dot_product_contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: Number = 0.07) -> Tensor:
    """:func:`contrastive_loss` without L2 normalisation: the logits are dot products over the temperature."""
    check_features(image_features, text_features)
    check_temperature(temperature)
    return symmetric_cross_entropy(image_features @ text_features.T / temperature)


def masked_contrastive_loss(
    image_features: Tensor, text_features: Tensor, image_ids: Tensor, temperature: Number = 0.07
) -> Tensor:
    """Contrastive loss that leaves out false negatives: other pairs with the same number in ``image_ids [batch]``.

    With m pairs per image the floor is 0, where :func:`contrastive_loss` has ``ln(m)``. A row without any negative is 0
    and has no gradient. The mask by image id is the course's own.
    """
    check_image_ids(image_ids, image_features)
    logits_per_image = cosine_logits(image_features, text_features, temperature)  # [image, text]
    false_negatives = image_ids[:, None] == image_ids  # [image, text]
    false_negatives.fill_diagonal_(False)
    return symmetric_cross_entropy(logits_per_image.masked_fill(false_negatives, -torch.inf))


def multi_positive_contrastive_loss(
    image_features: Tensor, text_features: Tensor, image_ids: Tensor, temperature: Number = 0.07
) -> Tensor:
    """Contrastive loss with several right answers, in equal shares: all pairs with the same number in ``image_ids``.

    ``loss_i = mean over positives p of i of (-z_ip) + ln sum_j exp(z_ij)``; its floor is ``ln(m)`` with m positives.
    Source: Khosla et al., 2020, "Supervised Contrastive Learning", equation 2; between images and texts as in Li et
    al., 2021, "Align before Fuse".
    """
    check_image_ids(image_ids, image_features)
    logits_per_image = cosine_logits(image_features, text_features, temperature)  # [image, text]
    positives = (image_ids[:, None] == image_ids).to(logits_per_image.dtype)  # [image, text]
    targets = positives / positives.sum(1, keepdim=True)  # the same for images and texts
    return (F.cross_entropy(logits_per_image, targets) + F.cross_entropy(logits_per_image.T, targets)) / 2


def sigmoid_loss(
    image_features: Tensor, text_features: Tensor, bias: Number = -10.0, temperature: Number = 0.1
) -> Tensor:
    """Sigmoid loss: each of the ``batch ** 2`` combinations is classified on its own as matched or mismatched.

    ``loss_i = -sum_j ln sigmoid(y_ij * (z_ij + bias))``, where y is 1 for a match and -1 otherwise; the floor is 0. A
    bias of -10 starts with everything classified as mismatched, which leaves the gradient to the matches.
    Source: Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", algorithm 1 (bias: section 3.2).
    """
    logits_per_image = cosine_logits(image_features, text_features, temperature) + bias  # [image, text]
    matches = torch.eye(len(logits_per_image), dtype=logits_per_image.dtype, device=logits_per_image.device)
    signs = 2 * matches - 1  # 1 for matches, -1 for mismatches
    return -F.logsigmoid(signs * logits_per_image).sum() / len(logits_per_image)


LOSSES = {  # what training can minimise, by name
    "contrastive": contrastive_loss,
    "one_way": partial(one_way_contrastive_loss, normalize=True),
    "dot_product": dot_product_contrastive_loss,
}
