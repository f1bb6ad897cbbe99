"""Regularizers: what is added to the contrastive loss, each looked up by name on the command line.

A regularizer is a plain function of tensors, features first and the temperature, where it has one, last. What a model
can give of a batch is listed in :class:`Views`, and ``REGULARIZERS`` says which of it each term gets. Terms that are
contrastive losses at heart are means over their scales, so that the weight 1 means as much as the main loss, and stand
at ``ln(batch)`` when nothing is learned; only :func:`multi_scale_regularization`, where each scale has its own weight,
is a sum.
"""

import difflib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.diagnostics import uniformity
from helpers.losses import (
    at_least_float32,
    check_features,
    check_side,
    check_temperature,
    contrastive_loss,
    cosine_similarities,
    in_full_precision,
    one_way_contrastive_loss,
    symmetric_cross_entropy,
)

GROUP = 16  # pairs that token-wise terms compare with each other; all pairs of a batch would take longer than the rest
PREFIXES = (8, 16, 32, 64)


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


def token_wise_similarities(regions: Tensor, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """How well each text fits each image, part by part, in both directions.

    Args:
        regions: ``[images, regions, dim]``; L2-normalised here, as the words are.
        words: ``[texts, length, dim]``.
        padding: bool ``[texts, length]``, True where no word is; what stands there counts nowhere.

    Returns:
        Two matrices ``[image, text]``: the mean over regions of each region's cosine with its best word, and the mean
        over words of each word's cosine with its best region.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, or a text of nothing but padding.

    Source: Yao et al., 2022, "FILIP: Fine-grained Interactive Language-Image Pre-Training", section 3.1.
    """
    check_tokens(regions, words, padding)
    spoken = (~padding).any(0)  # places that are padding in every text need no time
    words, padding = words[:, spoken], padding[:, spoken]
    # A padded place becomes a copy of a word of its text, which changes no maximum and costs less than a mask.
    some_word = words[torch.arange(len(words), device=words.device), (~padding).int().argmax(1)]  # [texts, dim]
    words = torch.where(padding[:, :, None], some_word[:, None], words)
    regions, words = F.normalize(at_least_float32(regions), dim=2), F.normalize(at_least_float32(words), dim=2)
    with in_full_precision(regions):
        similarities = regions.flatten(0, 1) @ words.flatten(0, 1).T  # [images * regions, texts * length]
    similarities = similarities.view(*regions.shape[:2], *words.shape[:2])  # [image, region, text, word]
    of_regions = similarities.max(3).values.mean(1)  # [image, text]
    best_region = similarities.max(1).values.masked_fill(padding, 0.0)  # [image, text, word]
    return of_regions, best_region.sum(2) / (~padding).sum(1)


def check_tokens(regions: Tensor, words: Tensor, padding: Tensor) -> None:
    """Raise ``ValueError`` unless regions, words and padding fit each other and every text has a word."""
    for name, parts in (("regions", regions), ("words", words)):
        if parts.ndim != 3:
            raise ValueError(f"{name} must have the shape [batch, {name}, dim], not {list(parts.shape)}")
        check_side(name, parts.flatten(1))
    if regions.shape[2] != words.shape[2]:
        raise ValueError(f"regions and words must have the same dim: got {regions.shape[2]} and {words.shape[2]}")
    if padding.shape != words.shape[:2] or padding.dtype != torch.bool:
        raise ValueError(
            f"padding must be bool {list(words.shape[:2])}, one a word, not {padding.dtype} {list(padding.shape)}"
        )
    if padding.all(1).any():
        raise ValueError(
            f"text {int(padding.all(1).nonzero()[0])} is nothing but padding: the mask hides all its words"
        )


def token_wise_regularization(
    regions: Tensor, words: Tensor, padding: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """A contrastive loss whose similarities are made of parts: each word seeks its region, each region its word.

    Two vectors of a whole image and a whole text cannot say which word speaks of which place; here a text scores high
    only if each of its words finds a region that answers. With ``s`` the cosine of a region r and a word w, an image
    ranks texts by ``mean_r max_w s`` and a text ranks images by ``mean_w max_r s``. All pairs of parts are compared, so
    time and memory grow with ``batch ** 2 * regions * length``. Chance is ``ln(batch)``.

    Args, raises: as :func:`token_wise_similarities`, where row i of the words belongs to image i; the temperature as
        :func:`helpers.losses.contrastive_loss`.

    Returns:
        The mean of both directions, no dimensions.

    Source: Yao et al., 2022, "FILIP: Fine-grained Interactive Language-Image Pre-Training", section 3.1, without its
    prompts and with all tokens.
    """
    if len(regions) != len(words):
        raise ValueError(
            f"regions and words must be pairs, row by row: got {len(regions)} images and {len(words)} texts"
        )
    check_temperature(temperature)
    of_regions, of_words = token_wise_similarities(regions, words, padding)  # [image, text] each
    labels = torch.arange(len(regions), device=regions.device)
    loss_images = F.cross_entropy(of_regions / temperature, labels)
    loss_texts = F.cross_entropy(of_words.T / temperature, labels)
    return (loss_images + loss_texts) / 2


def pyramid_regularization(
    regions: Tensor,
    sentences: Tensor,
    phrases: Tensor,
    words: Tensor,
    padding: Tensor,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """Three grids of regions, each with its own contrastive term: the coarser the grid, the longer the text beside it.

    The mean of all regions seeks the sentence; each quarter of the image its phrase, and each phrase its quarter; each
    region its word, and each word its region, as :func:`token_wise_regularization` says. It is the dearest term: even
    among groups of 16 pairs a step takes about 1.6 times as long (one thread, 256 scenes a batch; token-wise 1.4).

    Args:
        regions: ``[batch, regions, dim]``, a square grid of 2 x 2, 4 x 4, 6 x 6, ... in reading order.
        sentences: ``[batch, dim]``.
        phrases, words: ``[batch, length, dim]``.
        padding: bool ``[batch, length]``, True where no word is.
        temperature: of each term.

    Returns:
        The mean of the three terms, no dimensions.

    Raises:
        ValueError: as :func:`token_wise_regularization`, and for regions that cannot be pooled to 2 x 2.

    Source: Gao et al., 2022, "PyramidCLIP: Hierarchical Feature Alignment for Vision-language Model Pretraining": its
    levels, but without its detected objects, its summaries and its softened targets.
    """
    terms = [
        contrastive_loss(regions.mean(1), sentences, temperature),
        token_wise_regularization(pool_regions(regions, 2), phrases, padding, temperature),
        token_wise_regularization(regions, words, padding, temperature),
    ]
    return torch.stack(terms).mean()


def pool_regions(regions: Tensor, grid: int) -> Tensor:
    """A square of regions ``[batch, side * side, dim]`` to the means of its blocks, ``[batch, grid * grid, dim]``."""
    side = math.isqrt(regions.shape[1])
    if side * side != regions.shape[1] or side % grid:
        raise ValueError(f"{regions.shape[1]} regions are no square that can be cut into {grid} x {grid} blocks")
    blocks = regions.unflatten(1, (grid, side // grid, grid, side // grid))  # [batch, grid, rows, grid, columns, dim]
    return blocks.mean((2, 4)).flatten(1, 2)


def nested_prefix_regularization(
    image_features: Tensor,
    text_features: Tensor,
    prefixes: Sequence[int] = PREFIXES,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """A contrastive loss on the first components of the features alone, the mean over several numbers of them.

    Nothing in the main loss gives the components an order: turn both sides by one rotation, and it stays the same. This
    term puts what matters most first, so that a prefix is a small embedding of its own. Each prefix is L2-normalised.

    Args:
        image_features, text_features: ``[batch, dim]``.
        prefixes: how many components each scale keeps, from 1 to dim.
        temperature: of every prefix.

    Returns:
        ``mean_k contrastive_loss(image_features[:, :k], text_features[:, :k], temperature)``, no dimensions.

    Raises:
        ValueError: as :func:`helpers.losses.contrastive_loss`, for no prefix, or one that is not from 1 to dim.

    Source: Kusupati et al., 2022, "Matryoshka Representation Learning", equation 1, with equal weights that add up to 1
    and a contrastive loss for the classifier's.
    """
    check_features(image_features, text_features)
    dim = image_features.shape[1]
    if len(prefixes) == 0 or not all(isinstance(prefix, int) and 1 <= prefix <= dim for prefix in prefixes):
        raise ValueError(f"prefixes must be whole numbers from 1 to the {dim} components there are, not {prefixes}")
    weights = [1 / len(prefixes)] * len(prefixes)
    image_scales, text_scales = ([side[:, :k] for k in prefixes] for side in (image_features, text_features))
    return multi_scale_regularization(image_scales, text_scales, temperature, weights)


def crop_regularization(
    image_features: Tensor,
    text_features: Tensor,
    local_features: Tensor,
    short_text_features: Tensor,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    """The whole image beside a shortened caption, and a part of the image beside the whole caption.

    A caption often says less than the image shows, and an image may show less than the caption says; neither should
    make them strangers. What a cut takes away may be just what the other side names, and a place named in a caption is
    another place in a part of the image: such pairs are noise that the term pays for its views.

    Args:
        image_features, text_features: ``[batch, dim]``, of the whole images and captions.
        local_features: ``[batch, dim]``, of a part of each image.
        short_text_features: ``[batch, dim]``, of each caption shortened.
        temperature: of both terms.

    Returns:
        The mean of both contrastive losses, no dimensions.

    Raises:
        ValueError: as :func:`helpers.losses.contrastive_loss`.

    Source: Gao et al., 2022, "PyramidCLIP: Hierarchical Feature Alignment for Vision-language Model Pretraining", the
    peer-level alignment of section 3, where a trained summariser shortens the captions.
    """
    image_views, text_views = [image_features, local_features], [short_text_features, text_features]
    return multi_scale_regularization(image_views, text_views, temperature, weights=[0.5, 0.5])


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


def feature_norm_penalty(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far the lengths of the features are from 1: the mean of ``(length - 1) ** 2``, both sides alike.

    The soft form of L2 normalisation, for a loss that does not normalise. Beside one that does it can turn no feature:
    its gradient runs along the feature, the other's across it.

    Args:
        image_features, text_features: ``[batch, dim]``, as the encoders give them, not normalised.

    Returns:
        From 0 up, no dimensions.

    Raises:
        ValueError: for shapes that are not pairs, or values that are not finite.

    Source: Zheng et al., 2018, "Ring Loss: Convex Feature Normalization for Face Recognition", section 3, twice its
    value, and with the radius 1 where the paper learns one.
    """
    check_features(image_features, text_features)
    lengths = torch.cat([at_least_float32(side).norm(dim=1) for side in (image_features, text_features)])
    return (lengths - 1).square().mean()


def uniformity_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How unevenly the features cover the sphere, the mean of both sides: lower is more even.

    It pushes all images apart from each other, and all texts, and does not ask which belong together.

    Args:
        image_features, text_features: ``[batch, dim]``.

    Returns:
        The mean of :func:`helpers.diagnostics.uniformity`, which is 0 at most, no dimensions.

    Raises:
        ValueError: for shapes that are not pairs, or values that are not finite.

    Source: Wang and Isola, 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", section 4.1 (t = 2).
    """
    check_features(image_features, text_features)
    return (uniformity(image_features) + uniformity(text_features)) / 2


def cyclic_cross_modal_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How much it matters which of two pairs gives the image: ``sum_jk (s(x_j, y_k) - s(x_k, y_j)) ** 2 / batch``.

    With s the cosine. It is 0 where the matrix of similarities is its own mirror image, matched or not.

    Args:
        image_features, text_features: ``[batch, dim]``.

    Returns:
        From 0 up, no dimensions.

    Raises:
        ValueError: for shapes that are not pairs, or values that are not finite.

    Source: Goel et al., 2022, "CyCLIP: Cyclic Contrastive Language-Image Pretraining", the cross-modal term of section
    3, there with the weight 0.25.
    """
    check_features(image_features, text_features)
    similarities = cosine_similarities(image_features, text_features)  # [image, text]
    return (similarities - similarities.T).square().sum() / len(similarities)


def cyclic_in_modal_regularization(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How differently two images and their two texts lie: ``sum_jk (s(x_j, x_k) - s(y_j, y_k)) ** 2 / batch``.

    With s the cosine. It is 0 where the texts are the images turned by a rotation, matched or not.

    Args, returns and raises as :func:`cyclic_cross_modal_regularization`.

    Source: Goel et al., 2022, "CyCLIP", the in-modal term of section 3, there with the weight 0.25.
    """
    check_features(image_features, text_features)
    of_images, of_texts = (cosine_similarities(side, side) for side in (image_features, text_features))  # [pair, pair]
    return (of_images - of_texts).square().sum() / len(of_images)


def decorrelation_regularization(
    image_features: Tensor, text_features: Tensor, variance: float = 1.0, covariance: float = 0.04
) -> Tensor:
    """Each component of the features should vary over the batch, and no two together; the mean of both sides.

    Args:
        image_features, text_features: ``[batch, dim]`` of two pairs or more, as the encoders give them: their length
            counts, since each component is asked for a standard deviation of 1.
        variance: weight of ``mean_d max(0, 1 - sqrt(var_d + 0.0001))``.
        covariance: weight of the squared covariances of different components, summed and divided by dim.

    Returns:
        From 0 up, no dimensions.

    Raises:
        ValueError: for shapes that are not pairs, a single pair, or values that are not finite.

    Source: Bardes et al., 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    equations 1 to 4; the weights have its ratio of 25 to 1.
    """
    check_features(image_features, text_features)
    if len(image_features) < 2:
        raise ValueError("decorrelation needs two pairs or more: one pair has no variance")
    total = torch.zeros((), device=image_features.device)
    for side in (image_features, text_features):
        side = at_least_float32(side)
        deviations = side - side.mean(0)
        with in_full_precision(side):
            covariances = deviations.T @ deviations / (len(side) - 1)  # [dim, dim]
        spread = (1 - (covariances.diagonal() + 1e-4).sqrt()).clamp_min(0).mean()
        together = (covariances - covariances.diagonal().diag()).square().sum() / side.shape[1]
        total = total + (variance * spread + covariance * together) / 2
    return total


def label_smoothing_regularization(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """Cross entropy against a target that is spread evenly over the batch, both ways: a price on being sure.

    Added with the weight w to the contrastive loss it makes ``1 + w`` times
    :func:`helpers.losses.label_smoothed_contrastive_loss` with the smoothing ``w / (1 + w)``. By itself it is least,
    ``ln(batch)``, where all similarities are equal, so it aligns nothing.

    Args, returns and raises as :func:`helpers.losses.contrastive_loss`.

    Source: Szegedy et al., 2016, "Rethinking the Inception Architecture for Computer Vision", section 7, where it is
    the second of the two terms.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    return symmetric_cross_entropy(logits_per_image, label_smoothing=1.0)


def soft_target_regularization(
    image_features: Tensor, text_features: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """Cross entropy against what the model itself takes for alike: two images, and two texts, that lie close together.

    The target of row i is the softmax of the mean of both in-modal cosines, over the temperature. So a pair much like
    another one is not pushed away as if it were a stranger. The targets are detached: they are where the features
    should go, and do not themselves come to meet them. The floor is their mean entropy.

    Args, returns and raises as :func:`helpers.losses.contrastive_loss`.

    Source: Gao et al., 2024, "SoftCLIP: Softer Cross-modal Alignment Makes CLIP Stronger", the softened targets of its
    method, here from the features themselves, both sides together.
    """
    check_features(image_features, text_features)
    check_temperature(temperature)
    logits_per_image = cosine_similarities(image_features, text_features) / temperature  # [image, text]
    with torch.no_grad():
        alike = (
            cosine_similarities(image_features, image_features) + cosine_similarities(text_features, text_features)
        ) / 2
        targets = torch.softmax(alike / temperature, dim=1)  # [pair, pair]
    loss_images, loss_texts = (F.cross_entropy(logits, targets) for logits in (logits_per_image, logits_per_image.T))
    return (loss_images + loss_texts) / 2


def remove_mean(
    image_features: Tensor, text_features: Tensor, image_mean: Tensor, text_mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Features without the mean of their side, which closes the modality gap; for after training, and no term.

    L2-normalised, less the mean, L2-normalised again. The means come from other pairs than those that are measured, the
    training set's, say, and are means of normalised features: ``F.normalize(features, dim=1).mean(0)``. During training
    it would work against the loss, which at a small temperature is least with a gap (Liang et al., 2022, "Mind the Gap:
    Understanding the Modality Gap in Multi-modal Contrastive Representation Learning").

    Args:
        image_features: ``[images, dim]``.
        text_features: ``[texts, dim]``, which may be more or fewer.
        image_mean, text_mean: ``[dim]``.

    Returns:
        Image features and text features, L2-normalised.

    Raises:
        ValueError: for shapes that do not fit, or values that are not finite.

    Source: Li et al., 2025, "Closing the Modality Gap for Mixed Modality Search" (GR-CLIP).
    """
    check_features(image_features, text_features, pairs=False)
    centred = []
    for name, features, mean in (("image", image_features, image_mean), ("text", text_features, text_mean)):
        if mean.shape != features.shape[1:] or not torch.isfinite(mean).all():
            raise ValueError(
                f"{name}_mean must be finite and have the shape [dim], here [{features.shape[1]}], "
                f"not {list(mean.shape)}"
            )
        centred.append(F.normalize(F.normalize(at_least_float32(features), dim=1) - mean, dim=1))
    return centred[0], centred[1]


class Views(Protocol):
    """What a term may ask for of one batch, computed when it is asked for.

    :meth:`helpers.encoders.DualEncoder.views` gives it. None of it is normalised. B pairs, R regions an image, L words
    a text at most, D components.
    """

    image_features: Tensor  # [B, D], those of the main loss
    text_features: Tensor  # [B, D]
    image_scales: Sequence[Tensor]  # [B, D] each, coarse to fine, the last being the image features
    text_scales: Sequence[Tensor]  # [B, D] each: words, phrases, sentence, the last being the text features
    regions: Tensor  # [B, R, D], a square in reading order
    words: Tensor  # [B, L, D], each by itself
    phrases: Tensor  # [B, L, D], each word with its neighbours
    padding: Tensor  # bool [B, L], True where no word is
    local_features: Tensor  # [B, D], of a part of each image
    short_text_features: Tensor  # [B, D], of each text shortened


def in_groups(term: Callable[..., Tensor], temperature: float | Tensor, *features: Tensor) -> Tensor:
    """A term of parts among each ``GROUP`` pairs of the batch, the mean over pairs; chance is ``ln(GROUP)``.

    Among all of a batch of 256 it would take several times as long as the rest of the step.
    """
    groups = zip(*(side.split(GROUP) for side in features), strict=True)
    losses = [len(group[0]) * term(*group, temperature) for group in groups]
    return sum(losses[1:], start=losses[0]) / len(features[0])


Regularizer = Callable[[Views, float | Tensor], Tensor]

REGULARIZERS: dict[str, Regularizer] = {
    "multi_scale": lambda views, temperature: multi_scale_regularization(
        views.image_scales[:-1], views.text_scales[:-1], temperature
    ),
    "pyramid": lambda views, temperature: in_groups(
        pyramid_regularization,
        temperature,
        *(views.regions, views.text_features, views.phrases, views.words, views.padding),
    ),
    "token_wise": lambda views, temperature: in_groups(
        token_wise_regularization, temperature, views.regions, views.phrases, views.padding
    ),
    "nested_prefixes": lambda views, temperature: nested_prefix_regularization(
        views.image_features, views.text_features, PREFIXES, temperature
    ),
    "crops": lambda views, temperature: crop_regularization(
        views.image_features, views.text_features, views.local_features, views.short_text_features, temperature
    ),
    "pooled_to_one": lambda views, temperature: pooled_to_one_regularization(*of_both(views), temperature),
    "feature_norm": lambda views, _: feature_norm_penalty(*of_both(views)),
    "uniformity": lambda views, _: uniformity_regularization(*of_both(views)),
    "cyclic_cross_modal": lambda views, _: cyclic_cross_modal_regularization(*of_both(views)),
    "cyclic_in_modal": lambda views, _: cyclic_in_modal_regularization(*of_both(views)),
    "decorrelation": lambda views, _: decorrelation_regularization(*of_both(views)),
    "label_smoothing": lambda views, temperature: label_smoothing_regularization(*of_both(views), temperature),
    "soft_targets": lambda views, temperature: soft_target_regularization(*of_both(views), temperature),
}

# What is no term but a rate of the encoders, from 0 to below 1, and how DualEncoder calls it.
RATES = {"text_dropout": "dropout", "word_dropout": "word_dropout", "patch_dropout": "patch_dropout"}


def of_both(views: Views) -> tuple[Tensor, Tensor]:
    """The features of the main loss."""
    return views.image_features, views.text_features


def check_name(name: str, names: Collection[str]) -> None:
    """Raise ``ValueError``, which offers the nearest name there is, unless the name is one of these."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no regularizer {name!r}; {hint}there are: {', '.join(names)}")


def parse_regularizer(text: str) -> tuple[str, float]:
    """Name and weight from ``NAME`` or ``NAME:WEIGHT``, where the weight is 1 if none is given; or ``RATE:SHARE``.

    Raises:
        ValueError: for a name that is not known, a weight that is no finite number of 0 or above, or a rate that is not
            from 0 to below 1.
    """
    name, _, number = text.partition(":")
    check_name(name, [*REGULARIZERS, *RATES])
    is_rate = name in RATES
    if is_rate and not number:
        raise ValueError(f"{name} is a rate and needs its share; write for example {name}:0.1")
    what = "rate" if is_rate else "weight"
    try:
        value = float(number) if number else 1.0
    except ValueError:
        raise ValueError(
            f"the {what} in {text!r} is no number; write for example {name}:{0.1 if is_rate else 0.5}"
        ) from None
    if is_rate and not 0 <= value < 1:
        raise ValueError(f"the rate in {text!r} must be from 0 to below 1")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"the weight in {text!r} must be finite and 0 or above")
    return name, value


def parse_regularizers(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The weight of each term, by its name, and each rate, by the name that DualEncoder has for it.

    Raises:
        ValueError: as :func:`parse_regularizer`, and for a name that is given twice.
    """
    pairs = [parse_regularizer(text) for text in texts]
    chosen = dict(pairs)
    if len(chosen) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the regularizer {max(names, key=names.count)} is given twice; give it once")
    weights = {name: value for name, value in pairs if name in REGULARIZERS}
    rates = {RATES[name]: value for name, value in pairs if name in RATES}
    return weights, rates
