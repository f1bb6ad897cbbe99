"""Contrastive losses: how one number tells matched image-text pairs from mismatched ones.

Every loss takes features first and the temperature last. Row i of ``image_features`` and row i of ``text_features``
are a matched pair; all other combinations in the batch are taken as mismatched, unless the loss is told which image
each row comes from. All give one tensor with no dimensions, computed in float32 at least, and in nats where they are
cross entropies. Unless its docstring says otherwise, a loss L2-normalises the features, so only their directions count,
and is symmetric: the mean of image to text and text to image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def check_temperature(temperature: float | Tensor) -> None:
    """Raise ``ValueError`` unless the temperature is one finite number above zero."""
    value = one_number("temperature", temperature)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"temperature must be a finite number above 0, not {value:g}; 0.07 is a usual start")


def one_number(name: str, value: float | Tensor) -> float:
    """The value of a number or of a tensor of one element; ``ValueError`` for a tensor of more or of none."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number, not a tensor of shape {list(value.shape)}")
        value = value.item()
    return float(value)


def check_side(name: str, features: Tensor) -> None:
    """Raise ``ValueError`` unless the features of one side are a finite ``[batch, dim]`` tensor."""
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"{name} must have the shape [batch, dim], not {list(features.shape)}")
    if not features.is_floating_point():
        raise ValueError(f"{name} must be floating point numbers, not {features.dtype}")
    if not torch.isfinite(features).all():
        raise ValueError(f"{name} holds NaN or infinite values; look for the layer that made them")


def check_features(image_features: Tensor, text_features: Tensor, pairs: bool = True) -> None:
    """Raise ``ValueError`` unless both are finite ``[batch, dim]`` tensors of one dim and, for pairs, of one length."""
    check_side("image_features", image_features)
    check_side("text_features", text_features)
    if pairs and len(image_features) != len(text_features):
        raise ValueError(
            f"image_features and text_features must be pairs, row by row: "
            f"got {len(image_features)} images and {len(text_features)} texts"
        )
    if image_features.shape[1] != text_features.shape[1]:
        raise ValueError(
            f"image_features and text_features must have the same dim: "
            f"got {image_features.shape[1]} and {text_features.shape[1]}"
        )


def check_image_ids(name: str, image_ids: Tensor, features_name: str, features: Tensor) -> None:
    """Raise ``ValueError`` unless the ids are whole numbers ``[batch]``, one for each row of the features."""
    if not isinstance(image_ids, Tensor) or image_ids.is_floating_point() or image_ids.dtype == torch.bool:
        kind = image_ids.dtype if isinstance(image_ids, Tensor) else type(image_ids).__name__
        raise ValueError(f"{name} must be a tensor of whole numbers, such as a batch's image_ids, not {kind}")
    if image_ids.ndim != 1 or len(image_ids) != len(features):
        raise ValueError(
            f"{name} must hold one id for each row of {features_name}: "
            f"got the shape {list(image_ids.shape)} for {len(features)} rows"
        )


def at_least_float32(features: Tensor) -> Tensor:
    """Half precision to float32, since half the digits are not enough for a softmax; float64 stays as it is."""
    return features if features.dtype == torch.float64 else features.float()


def in_full_precision(features: Tensor) -> torch.autocast:
    """Inside, autocast does not turn products to bfloat16, whose two or three digits are not enough for a softmax."""
    return torch.autocast(features.device.type, enabled=False)


def cosine_similarities(image_features: Tensor, text_features: Tensor) -> Tensor:
    """The cosine of every image with every text, ``[image, text]``, in float32 at least."""
    image_features = F.normalize(at_least_float32(image_features), dim=1)
    text_features = F.normalize(at_least_float32(text_features), dim=1)
    with in_full_precision(image_features):
        return image_features @ text_features.T


def symmetric_cross_entropy(logits_per_image: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy with the diagonal as the right answer, the mean of the rows' and the columns'.

    Args:
        logits_per_image: ``[batch, batch]``, matched pairs on the diagonal.
        label_smoothing: the share of each target that is spread over the whole batch.
    """
    labels = torch.arange(len(logits_per_image), device=logits_per_image.device)
    loss_images = F.cross_entropy(logits_per_image, labels, label_smoothing=label_smoothing)
    loss_texts = F.cross_entropy(logits_per_image.T, labels, label_smoothing=label_smoothing)
    return (loss_images + loss_texts) / 2


def contrastive_loss(image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    """Symmetric contrastive loss of a batch of matched pairs: the mean of image-to-text and text-to-image.

    Features are L2-normalised here, so only their directions count. Chance is ``ln(batch)``, the floor 0; m copies of
    every pair lift the floor to ``ln(m)``.

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
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    return symmetric_cross_entropy(logits_per_image)


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


def masked_contrastive_loss(
    image_features: Tensor, text_features: Tensor, image_ids: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """:func:`contrastive_loss` in which the other pairs of the same image are no negatives: they are left out.

    A second caption of an image fits that image, so calling it a mismatch is false. With m pairs of every image the
    floor is 0 again, where the plain loss cannot fall below ``ln(m)``. A row whose every negative is left out counts 0
    and has no gradient. Where all ids differ it is the plain loss.

    Args:
        image_features, text_features, temperature: as :func:`contrastive_loss`.
        image_ids: ``[batch]``, whole numbers; pairs that share one come from the same image.

    Raises:
        ValueError: as :func:`contrastive_loss`, and for image_ids that are not one whole number a pair.

    Source: the sum over negatives of Radford et al., 2021, without those that Li et al., 2021, "Align before Fuse",
    count as matches by their image id when fine-tuning for retrieval.
    """
    check_features(image_features, text_features)
    check_image_ids("image_ids", image_ids, "image_features", image_features)
    check_temperature(temperature)
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    false_negatives = image_ids[:, None] == image_ids  # [image, text]
    false_negatives.fill_diagonal_(False)
    return symmetric_cross_entropy(logits_per_image.masked_fill(false_negatives, -torch.inf))


def multi_positive_contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    image_ids: Tensor,
    text_image_ids: Tensor | None = None,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """Symmetric cross entropy against all texts of an image, and all images of a text, in equal shares.

    The target of a row is ``1 / positives`` at each of its positives, so the loss cannot fall below the mean entropy of
    the targets: ``ln(m)`` with m positives each. What counts as learned is the distance from that floor. Where all ids
    differ it is :func:`contrastive_loss`.

    Args:
        image_features: ``[images, dim]``.
        text_features: ``[texts, dim]``, which may be more or fewer than the images.
        image_ids: ``[images]``, whole numbers.
        text_image_ids: ``[texts]``, the id of the image that each text belongs to; None means the same as image_ids.
        temperature: as :func:`contrastive_loss`.

    Raises:
        ValueError: as :func:`contrastive_loss`, for ids that are not one whole number a row, and for an image without
            a text or a text without an image.

    Source: Khosla et al., 2020, "Supervised Contrastive Learning", equation 2 (the mean over positives outside the
    logarithm), between images and texts as in Yang et al., 2022, "Unified Contrastive Learning in Image-Text-Label
    Space".
    """
    check_features(image_features, text_features, pairs=text_image_ids is None)
    text_image_ids = image_ids if text_image_ids is None else text_image_ids
    check_image_ids("image_ids", image_ids, "image_features", image_features)
    check_image_ids("text_image_ids", text_image_ids, "text_features", text_features)
    check_temperature(temperature)
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    positives = (image_ids[:, None] == text_image_ids).to(logits_per_image.dtype)  # [image, text]
    if not (positives.any(1).all() and positives.any(0).all()):
        raise ValueError("every image needs a text of its id among text_image_ids, and every text an image")
    loss_images = F.cross_entropy(logits_per_image, F.normalize(positives, p=1, dim=1))
    loss_texts = F.cross_entropy(logits_per_image.T, F.normalize(positives.T, p=1, dim=1))
    return (loss_images + loss_texts) / 2


def sigmoid_loss(
    image_features: Tensor,
    text_features: Tensor,
    bias: float | Tensor = -10.0,
    temperature: float | Tensor = 0.1,
) -> Tensor:
    """Each image-text combination of the batch judged by itself: matched or not, by a sigmoid. No softmax.

    There are ``batch`` matches among ``batch ** 2`` combinations. With the bias at 0 the mismatches carry nearly all of
    the gradient at the start; a bias of -10 makes all combinations look mismatched, which is nearly right, and leaves
    the gradient to the matches. Measured on 512 pairs of random features of 512 dimensions, temperature 0.1: the bias
    -10 takes the loss from 367 to 10.0 and the matches' share of the gradient from 0.002 to 0.975. The sum over all
    combinations is divided by ``batch`` alone, so a larger batch weighs its mismatches more. The floor is 0.

    Args:
        image_features, text_features, temperature: as :func:`contrastive_loss`.
        bias: what is added to every logit; a number, or a tensor of one element (in the paper both are learned).

    Raises:
        ValueError: as :func:`contrastive_loss`, and for a bias that is not one finite number.

    Source: Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", algorithm 1; the bias: section 3.2.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    if not math.isfinite(one_number("bias", bias)):
        raise ValueError(f"bias must be a finite number, not {one_number('bias', bias):g}; -10 is the usual start")
    logits_per_image = cosine_similarities(image_features, text_features) / temperature + bias  # [image, text]
    signs = 2 * torch.eye(len(logits_per_image)).to(logits_per_image) - 1  # 1 for matches, -1 for mismatches
    return -F.logsigmoid(signs * logits_per_image).sum() / len(logits_per_image)


def decoupled_contrastive_loss(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """:func:`contrastive_loss` with the match left out of the denominator.

    In the plain loss a match that is already good shrinks the whole gradient of its row; here attraction and repulsion
    no longer touch each other, which helps small batches. Chance is ``ln(batch - 1)``. The loss falls below 0, for two
    opposite pairs to ``-2 / temperature``. A single pair has no negative, and only the attraction is left.

    Args, returns and raises as :func:`contrastive_loss`.

    Source: Yeh et al., 2022, "Decoupled Contrastive Learning" (DCL, there between two views of images), with the
    negatives of the other modality alone, as in the plain loss.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    similarities = cosine_similarities(image_features, text_features)  # [image, text]
    matched = similarities.diagonal()  # [batch]
    if len(similarities) == 1:
        return (-matched / temperature).mean()
    # The match is subtracted first: float32 would lose digits in the difference of a large pull and a large push.
    loss_images = without_diagonal((similarities - matched[:, None]) / temperature).logsumexp(1).mean()
    loss_texts = without_diagonal((similarities - matched) / temperature).logsumexp(0).mean()
    return (loss_images + loss_texts) / 2


def label_smoothed_contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    smoothing: float = 0.1,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """:func:`contrastive_loss` against targets of which a share is spread evenly over the whole batch.

    It keeps the model from being sure of a match that may be false. The floor is the entropy of the targets, and it is
    reached with finite logits: driving the similarities further apart makes the loss larger again. Chance is
    ``ln(batch)``; with smoothing 0 it is the plain loss.

    Args:
        image_features, text_features, temperature: as :func:`contrastive_loss`.
        smoothing: the share that is spread, from 0 to below 1; each mismatch gets ``smoothing / batch`` of the target.

    Raises:
        ValueError: as :func:`contrastive_loss`, and for a smoothing outside 0 to below 1.

    Source: Szegedy et al., 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be from 0 to below 1, not {smoothing:g}; 0.1 is usual")
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    return symmetric_cross_entropy(logits_per_image, label_smoothing=smoothing)


def hard_negative_contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    hardness: float = 0.5,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """:func:`contrastive_loss` with negatives weighted by how similar they are.

    The weights of a row's negatives are ``(batch - 1) * softmax(hardness * logits)``: 1 in the mean, more for the
    negatives that are hard to tell from the match. They carry a gradient too. Chance is ``ln(batch)``, the floor 0.
    With hardness 0 it is the plain loss. False negatives are the hardest, and so weigh most: copies of a pair can lift
    the floor to ``ln(batch)``.

    Args:
        image_features, text_features, temperature: as :func:`contrastive_loss`.
        hardness: from 0 up, how strongly similar negatives are favoured.

    Raises:
        ValueError: as :func:`contrastive_loss`, and for a hardness that is negative or not finite.

    Source: Radenovic et al., 2023, "Filtering, Distillation, and Hard Negatives for Vision-Language Pre-Training",
    HN-NCE with alpha 1, after Robinson et al., 2021, "Contrastive Learning with Hard Negative Samples".
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    if not 0 <= hardness < math.inf:
        raise ValueError(f"hardness must be a finite number from 0 up, not {hardness:g}; 0 is the plain loss")
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    losses = [hardened_cross_entropy(logits, hardness) for logits in (logits_per_image, logits_per_image.T)]
    return (losses[0] + losses[1]) / 2


def hardened_cross_entropy(logits: Tensor, hardness: float) -> Tensor:
    """One direction of :func:`hard_negative_contrastive_loss`, from logits ``[batch, batch]``."""
    labels = torch.arange(len(logits), device=logits.device)
    if len(logits) > 1:  # a single pair has no negatives to weigh
        log_weights = torch.log_softmax(without_diagonal(hardness * logits), dim=1) + math.log(len(logits) - 1)
        logits = logits + log_weights.masked_fill(torch.eye(len(logits), device=logits.device, dtype=torch.bool), 0.0)
    return F.cross_entropy(logits, labels)


def max_violation_loss(image_features: Tensor, text_features: Tensor, margin: float = 0.2) -> Tensor:
    """The hinge on the hardest negative: how far it comes within the margin of the match, or past it.

    Only the hardest negative of each row and column counts, and none that stays a margin below its match. This is what
    a temperature near 0 does to ``temperature * ln(1 + sum(exp((margin + negative - match) / temperature)))``, so there
    is no temperature left to give. The unit is cosine similarity; random features in many dimensions give about
    ``margin``, the floor is 0, and a batch in which all features are equal gives exactly ``margin``.

    Args:
        image_features, text_features: as :func:`contrastive_loss`.
        margin: from 0 up, by how much a match should beat every negative.

    Returns:
        The mean over pairs and over both directions, a tensor with no dimensions (the paper sums them).

    Raises:
        ValueError: as :func:`contrastive_loss`, and for a margin that is negative or not finite.

    Source: Faghri et al., 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", equation 6.
    """
    check_features(image_features, text_features)
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be a finite number from 0 up, not {margin:g}; 0.2 is usual")
    similarities = cosine_similarities(image_features, text_features)  # [image, text]
    matched, negatives = similarities.diagonal(), without_diagonal(similarities)
    loss_images = (margin + negatives.amax(1) - matched).clamp_min(0).mean()
    loss_texts = (margin + negatives.amax(0) - matched).clamp_min(0).mean()
    return (loss_images + loss_texts) / 2


def without_diagonal(logits: Tensor) -> Tensor:
    """The negatives alone: ``[batch, batch]`` with minus infinity where the matched pairs stand."""
    return logits.masked_fill(torch.eye(len(logits), device=logits.device, dtype=torch.bool), -torch.inf)
