"""The checks of notebook 02 accept the right answer and name the mistake in typical wrong ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from answers import assert_named, assert_right
from helpers.checks.core.core import (
    check_l2_normalize,
    check_mask_same_image,
    check_multi_positive_loss,
    check_text_to_image_loss,
)
from torch import Tensor

HIDE = float("-inf")


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def cosines(image_features: Tensor, text_features: Tensor) -> Tensor:
    return F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T  # [image, text]


def diagonal_loss(logits: Tensor, dim: int) -> Tensor:
    return -logits.log_softmax(dim).diagonal().mean()


def symmetric(image_features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    logits = cosines(image_features, text_features) / temperature
    return (diagonal_loss(logits, 0) + diagonal_loss(logits, 1)) / 2


def same_image(image_ids: Tensor) -> Tensor:
    return image_ids[:, None] == image_ids  # [batch, batch]


def off_diagonal(image_ids: Tensor) -> Tensor:
    return same_image(image_ids) & ~torch.eye(len(image_ids), dtype=torch.bool)


def mask_by_loops(logits: Tensor, image_ids: Tensor) -> Tensor:
    masked = logits.clone()
    for i in range(len(logits)):
        for j in range(len(logits)):
            if i != j and image_ids[i] == image_ids[j]:
                masked[i, j] = HIDE
    return masked


def right_answers(image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    return (image_ids[:, None] == text_image_ids).float()  # [image, text]


def uniform(right: Tensor, dim: int) -> Tensor:
    return right / right.sum(dim, keepdim=True)


def one_direction(logits: Tensor, right: Tensor, dim: int) -> Tensor:
    return -(uniform(right, dim) * logits.log_softmax(dim)).sum(dim).mean()


def multi_positive(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    return (one_direction(logits, right, 1) + one_direction(logits, right, 0)) / 2


def multi_positive_by_library(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    to_texts = F.cross_entropy(logits, uniform(right, 1))
    return (to_texts + F.cross_entropy(logits.T, uniform(right.T, 1))) / 2


def targets_transposed(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    targets = uniform(right_answers(image_ids, text_image_ids), 1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def summed_inside(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    return -sum((right * logits.softmax(dim)).sum(dim).log().mean() for dim in (0, 1)) / 2


def targets_too_large(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    return -sum((right * logits.log_softmax(dim)).sum(dim).mean() for dim in (0, 1)) / 2


def wrong_axes(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    return -sum((uniform(right, dim) * logits.log_softmax(1 - dim)).sum(dim).mean() for dim in (0, 1)) / 2


def summed_over_the_batch(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    right = right_answers(image_ids, text_image_ids)
    return sum(one_direction(logits, right, dim) * logits.shape[1 - dim] for dim in (0, 1)) / 2


def diagonal_only(logits: Tensor, image_ids: Tensor, text_image_ids: Tensor) -> Tensor:
    if logits.shape[0] != logits.shape[1]:  # an answer that was only ever tried on pairs is right where these are not
        return multi_positive(logits, image_ids, text_image_ids)
    return (diagonal_loss(logits, 0) + diagonal_loss(logits, 1)) / 2


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_l2_normalize, lambda x: F.normalize(x, dim=-1)),
        (check_l2_normalize, lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)),
        (check_text_to_image_loss, lambda x, y, t: diagonal_loss(cosines(x, y) / t, 0)),
        (check_text_to_image_loss, lambda x, y, t: F.cross_entropy(cosines(y, x) / t, torch.arange(len(x)))),
        (check_mask_same_image, mask_by_loops),
        (check_mask_same_image, lambda logits, ids: logits.masked_fill(off_diagonal(ids), HIDE)),
        (check_multi_positive_loss, multi_positive),
        (check_multi_positive_loss, multi_positive_by_library),
    ],
)
def test_right_answers_pass_in_one_line(
    check: Callable[[Callable], None], answer: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_right(check, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda x: None, "is a return missing"),
        (lambda x: x, "entry"),
        (lambda x: x / x.square().sum(-1, keepdim=True), "squared length"),
        (lambda x: F.normalize(x, p=1, dim=-1), "L1"),
        (lambda x: F.normalize(x, dim=0), "dim 0"),
        (lambda x: F.normalize(x, dim=1), "right for [batch, dim] only"),
        (lambda x: x / x.norm(), "each vector has its own"),
        (lambda x: x / x.norm(dim=-1, keepdim=True), "NaN"),
        (lambda x: x / x.norm(dim=-1), "stopped with RuntimeError"),
        (lambda x: x.norm(dim=-1), "it should be"),
    ],
)
def test_l2_normalize_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_l2_normalize, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda x, y, t: diagonal_loss(cosines(x, y) / t, 1), "the other direction"),
        (lambda x, y, t: diagonal_loss(cosines(y, x) / t, 0), "the other direction"),
        (symmetric, "mean of both directions"),
        (lambda x, y, t: diagonal_loss(x @ y.T / t, 0), "not normalised"),
        (lambda x, y, t: diagonal_loss(cosines(x, y) * t, 0), "multiplies by the temperature"),
        (lambda x, y, t: diagonal_loss(cosines(x, y), 0), "temperature is not used"),
        (lambda x, y, t: len(x) * diagonal_loss(cosines(x, y) / t, 0), "take the mean"),
        (lambda x, y, t: -diagonal_loss(cosines(x, y) / t, 0), "minus sign"),
        (lambda x, y, t: -(cosines(x, y) / t).log_softmax(0).diagonal(), "one loss for each text"),
        (lambda x, y, t: cosines(x, y), "it should be []"),
        (lambda x, y, t: float(diagonal_loss(cosines(x, y) / t, 0)), "must return a tensor"),
    ],
)
def test_text_to_image_loss_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_text_to_image_loss, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda logits, ids: logits.masked_fill(same_image(ids), HIDE), "the diagonal is hidden too"),
        (lambda logits, ids: logits.masked_fill(~same_image(ids), HIDE), "of different images"),
        (lambda logits, ids: logits.masked_fill(off_diagonal(ids), 0.0), "still adds e**0"),
        (lambda logits, ids: logits.masked_fill(off_diagonal(ids), -1e9), "large negative number"),
        (lambda logits, ids: logits.masked_fill(off_diagonal(ids).triu(), HIDE), "above the diagonal only"),
        (lambda logits, ids: logits.masked_fill(off_diagonal(ids).tril(), HIDE), "below the diagonal only"),
        (lambda logits, ids: logits.masked_fill_(off_diagonal(ids), HIDE), "changes the logits"),
        (lambda logits, ids: logits * HIDE, "entry"),
        (lambda logits, ids: off_diagonal(ids), "entry"),
        (lambda logits, ids: logits[off_diagonal(ids)], "it should be"),
    ],
)
def test_mask_same_image_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_mask_same_image, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda logits, ids, of_text: None, "is a return missing"),
        (lambda logits, ids, of_text: one_direction(logits, right_answers(ids, of_text), 1), "image to text only"),
        (lambda logits, ids, of_text: one_direction(logits, right_answers(ids, of_text), 0), "text to image only"),
        (lambda logits, ids, of_text: 2 * multi_positive(logits, ids, of_text), "sum of both directions"),
        (lambda logits, ids, of_text: -multi_positive(logits, ids, of_text), "minus sign"),
        (summed_over_the_batch, "take the mean of each"),
        (targets_too_large, "number of right answers"),
        (targets_transposed, "transposed, and do not sum to 1"),
        (summed_inside, "log of a sum of probabilities"),
        (wrong_axes, "along the wrong axis"),
        (diagonal_only, "only the diagonal counts"),
        (lambda logits, ids, of_text: symmetric(logits, logits, 1.0), "the number is"),
        (lambda logits, ids, of_text: diagonal_loss(logits[ids == of_text], 1), "stopped with RuntimeError"),
        (lambda logits, ids, of_text: uniform(right_answers(ids, of_text), 1), "it should be []"),
    ],
)
def test_multi_positive_loss_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_multi_positive_loss, answer, words)
