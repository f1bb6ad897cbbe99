"""The checks of notebook 03 accept the right answer and name the mistake in typical wrong ones."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from answers import assert_named, assert_right
from helpers.checks.core.core import (
    check_anchor_loss,
    check_cosine_schedule,
    check_effective_negatives,
    check_gradient_shares,
)
from torch import Tensor

from helpers.temperature import CosineDecay

HIDE = float("-inf")


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def cosines(image_features: Tensor, text_features: Tensor) -> Tensor:
    return F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T  # [image, text]


def entropies(logits: Tensor) -> Tensor:
    return torch.special.entr(logits.softmax(1)).sum(1)  # [image]


def entropy_without_care(image_features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    probabilities = (cosines(image_features, text_features) / temperature).softmax(1)
    return (-(probabilities * probabilities.log()).sum(1)).exp().mean()


def entropy_by_log_softmax(image_features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    log_probabilities = (cosines(image_features, text_features) / temperature).log_softmax(1)
    return (-(log_probabilities.exp() * log_probabilities).sum(1)).exp().mean()


def own(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=torch.bool)


def shares(similarity: Tensor, temperature: float, dim: int = 1) -> Tensor:
    return (similarity / temperature).masked_fill(own(similarity), HIDE).softmax(dim)


def shares_by_loops(similarity: Tensor, temperature: float) -> Tensor:
    result = torch.zeros_like(similarity)
    for i in range(len(similarity)):
        negatives = [j for j in range(len(similarity)) if j != i]
        result[i, negatives] = (similarity[i, negatives] / temperature).softmax(0)
    return result


def shares_by_division(similarity: Tensor, temperature: float) -> Tensor:
    probabilities = (similarity / temperature).softmax(1)
    return probabilities.masked_fill(own(similarity), 0.0) / (1 - probabilities.diagonal())[:, None]


def shares_in_place(similarity: Tensor, temperature: float) -> Tensor:
    return similarity.div_(temperature).masked_fill_(own(similarity), HIDE).softmax(1)


def cosine(progress: float, start: float, end: float) -> float:
    return CosineDecay(start, end)(progress)


def cosine_unguarded(progress: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def directed(logits: Tensor) -> Tensor:
    """The mean loss of each row finding the entry on the diagonal."""
    return F.cross_entropy(logits, torch.arange(len(logits)))


def both(to_texts: Tensor, to_images: Tensor) -> Tensor:
    """The mean of both directions, from the logits of each, the anchors in rows."""
    return (directed(to_texts) + directed(to_images)) / 2


def anchored(image_features: Tensor, text_features: Tensor, of_images: Tensor, of_texts: Tensor) -> Tensor:
    s = cosines(image_features, text_features)
    return both(s / of_images[:, None], s.T / of_texts[:, None])


def anchored_in_place(image_features: Tensor, text_features: Tensor, of_images: Tensor, of_texts: Tensor) -> Tensor:
    """Each side's features divided by its temperatures first, and the text direction by a softmax over columns."""
    images, texts = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    to_texts = (images / of_images[:, None]) @ texts.T
    to_images = images @ (texts / of_texts[:, None]).T
    own = torch.arange(len(images))
    return (F.cross_entropy(to_texts, own) - to_images.log_softmax(0).diagonal().mean()) / 2


def anchored_by_exponentials(
    image_features: Tensor, text_features: Tensor, of_images: Tensor, of_texts: Tensor
) -> Tensor:
    s = cosines(image_features, text_features)
    rows, columns = (s / of_images[:, None]).exp(), (s / of_texts).exp()
    return -((rows.diagonal() / rows.sum(1)).log() + (columns.diagonal() / columns.sum(0)).log()).mean() / 2


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_effective_negatives, lambda x, y, t: entropies(cosines(x, y) / t).exp().mean()),
        (check_effective_negatives, entropy_by_log_softmax),
        (check_gradient_shares, shares),
        (check_gradient_shares, shares_by_loops),
        (check_cosine_schedule, cosine),
        (check_cosine_schedule, lambda p, a, b: torch.tensor(cosine(p, a, b))),
        (check_anchor_loss, anchored),
        (check_anchor_loss, anchored_in_place),
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
        (lambda x, y, t: None, "is a return missing"),
        (lambda x, y, t: entropies(cosines(x, y) / t).mean(), "this is the entropy"),
        (lambda x, y, t: entropies(cosines(x, y) / t).mean().exp(), "exp of the mean entropy"),
        (lambda x, y, t: entropies(cosines(x, y) / t).exp(), "one number for each image"),
        (lambda x, y, t: entropies(cosines(y, x) / t).exp().mean(), "softmax over columns"),
        (lambda x, y, t: entropies(x @ y.T / t).exp().mean(), "not normalised"),
        (lambda x, y, t: entropies(cosines(x, y) * t).exp().mean(), "multiplies by the temperature"),
        (lambda x, y, t: entropies(cosines(x, y)).exp().mean(), "temperature is not used"),
        (lambda x, y, t: (-entropies(cosines(x, y) / t)).exp().mean(), "minus sign"),
        (
            lambda x, y, t: entropies((cosines(x, y) / t).masked_fill(own(x), HIDE)).exp().mean(),
            "leaves the image's own text out",
        ),
        (lambda x, y, t: (entropies(cosines(x, y) / t) / math.log(2)).exp().mean(), "log2 and exp"),
        (entropy_without_care, "0 * ln 0"),
        (lambda x, y, t: cosines(x, y), "it should be []"),
        (lambda x, y, t: float(entropies(cosines(x, y) / t).exp().mean()), "must return a tensor"),
        (lambda x, y, t: cosines(x, y.T), "stopped with RuntimeError"),
    ],
)
def test_effective_negatives_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_effective_negatives, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda s, t: None, "is a return missing"),
        (lambda s, t: (s / t).softmax(1), "matched text is still in the softmax"),
        (lambda s, t: (s / t).softmax(1).masked_fill(own(s), 0.0), "do not sum to 1"),
        (lambda s, t: (s / t).masked_fill(own(s), 0.0).softmax(1), "e**0 = 1"),
        (lambda s, t: ((s / t).softmax(1) - own(s).float()) / t, "the gradient itself"),
        (lambda s, t: shares(s, t, dim=0), "softmax over columns"),
        (lambda s, t: shares(s, 1.0), "temperature is not used"),
        (lambda s, t: shares(s, 1 / t), "multiplies by the temperature"),
        (lambda s, t: (~own(s)).float() / (len(s) - 1), "same share"),
        (shares_by_division, "nothing is left to divide by"),
        (shares_in_place, "changes the similarities"),
        (lambda s, t: shares(s, t)[~own(s)].view(len(s), -1), "it should be"),
        (lambda s, t: shares(s, t) / 2, "entry"),
    ],
)
def test_gradient_shares_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_gradient_shares, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda p, a, b: None, "is a return missing"),
        (lambda p, a, b: cosine(p, b, a), "from end to start"),
        (lambda p, a, b: b + (a - b) * (1 + math.cos(2 * math.pi * p)) / 2, "whole period"),
        (lambda p, a, b: a + (b - a) * p, "straight line"),
        (lambda p, a, b: b + (a - b) * (1 + math.cos(p)) / 2, "pi is missing"),
        (lambda p, a, b: b + (a - b) * math.cos(math.pi * p), "(1 + cosine) / 2"),
        (lambda p, a, b: b + (a - b) * math.cos(math.pi * p / 2), "quarter of a cosine"),
        (lambda p, a, b: b + a * (1 + math.cos(math.pi * p)) / 2, "counted from 0"),
        (lambda p, a, b: cosine(p, a, b) + 1, "the number is"),
        (lambda p, a, b: cosine_unguarded(min(max(p, 0.0), 1.0), a, b), "raise a ValueError"),
        (cosine_unguarded, "raise a ValueError"),
        (lambda p, a, b: [cosine(p, a, b)], "must return"),
        (lambda p, a, b: cosine(p, a), "stopped with TypeError"),
    ],
)
def test_cosine_schedule_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_cosine_schedule, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda x, y, a, b: None, "is a return missing"),
        (lambda x, y, a, b: both(cosines(x, y) / a, cosines(x, y).T / b), "[N] is taken as a row, [1, N]"),
        (lambda x, y, a, b: both(cosines(x, y) / a, cosines(x, y).T / b[:, None]), "image to text is divided by"),
        (lambda x, y, a, b: both(cosines(x, y) / a[:, None], cosines(x, y).T / b), "text to image is divided by"),
        (lambda x, y, a, b: anchored(x, y, b, a), "are exchanged"),
        (lambda x, y, a, b: both(cosines(x, y) / b, cosines(x, y).T / a), "of the other side"),
        (
            lambda x, y, a, b: both(cosines(x, y) / a[:, None], (cosines(x, y) / a[:, None]).T),
            "both directions are divided by the temperatures of the images",
        ),
        (
            lambda x, y, a, b: both(cosines(x, y) / b, (cosines(x, y) / b).T),
            "both directions are divided by the temperatures of the texts",
        ),
        (
            lambda x, y, a, b: both(cosines(x, y) / a[:, None] / b, (cosines(x, y) / a[:, None] / b).T),
            "divided by both temperatures",
        ),
        (lambda x, y, a, b: directed(cosines(x, y) / a[:, None]), "this is image to text only"),
        (lambda x, y, a, b: directed(cosines(x, y).T / b[:, None]), "this is text to image only"),
        (lambda x, y, a, b: 2 * anchored(x, y, a, b), "this is the sum of both"),
        (
            lambda x, y, a, b: (
                (
                    -(cosines(x, y) / a[:, None]).log_softmax(1).diagonal()
                    - (cosines(x, y) / b).log_softmax(0).diagonal()
                )
                / 2
            ),
            "one loss for each pair",
        ),
        (lambda x, y, a, b: both(x @ y.T / a[:, None], y @ x.T / b[:, None]), "not normalised"),
        (lambda x, y, a, b: anchored(x, y, 1 / a, 1 / b), "multiplies by the temperatures"),
        (lambda x, y, a, b: anchored(x, y, a.mean().expand_as(a), b.mean().expand_as(b)), "one temperature for all"),
        (lambda x, y, a, b: anchored(x, y, torch.ones_like(a), torch.ones_like(b)), "temperatures are not used"),
        (anchored_by_exponentials, "an exponential was too large"),
        (lambda x, y, a, b: anchored(x, y, a, b) + 1, "the number is"),
        (lambda x, y, a, b: float(anchored(x, y, a, b)), "must return a tensor"),
        (lambda x, y, a, b: cosines(x, y) / a[:, None], "it should be []"),
        (lambda x, y, a, b: anchored(x, y, a[:, None], b), "stopped with"),
    ],
)
def test_anchor_loss_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_anchor_loss, answer, words)
