"""The checks of notebook 04 accept the right answer and name the mistake in typical wrong ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from answers import assert_named, assert_right
from helpers.checks.core.core import check_nested_prefix_loss, check_pool_regions, check_token_wise_similarity
from torch import Tensor

from helpers.losses import contrastive_loss, one_way_contrastive_loss
from helpers.regularizers import token_wise_similarities


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def blocks(regions: Tensor, grid: int) -> Tensor:
    """``[batch, channels, grid, rows, grid, columns]``."""
    side = 4 // grid
    return regions.reshape(*regions.shape[:2], grid, side, grid, side)


def turned(regions: Tensor, grid: int) -> Tensor:
    """``grid`` and the rows of a block mixed up, so that regions far apart are averaged."""
    side = 4 // grid
    return regions.reshape(*regions.shape[:2], side, grid, side, grid).mean((2, 4)).flatten(1)


def nested(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mean over prefixes of a loss of ``(image_features, text_features, k, temperature)``."""
    return lambda x, y, prefixes, t: torch.stack([loss(x, y, k, t) for k in prefixes]).mean()


def cosines(regions: Tensor, words: Tensor) -> Tensor:
    """``[image, text, region, word]``."""
    return torch.einsum("ird,twd->itrw", F.normalize(regions, dim=2), F.normalize(words, dim=2))


def best_regions(regions: Tensor, words: Tensor) -> Tensor:
    """``[image, text, word]``."""
    return cosines(regions, words).amax(2)


def masked_mean(values: Tensor, padding: Tensor) -> Tensor:
    """``[image, text, word]`` to ``[image, text]``."""
    return values.masked_fill(padding, 0.0).sum(2) / (~padding).sum(1)


def of_regions_with_padding(regions: Tensor, words: Tensor, padding: Tensor) -> Tensor:
    return cosines(regions, words).amax(3).mean(2)


def cosine_loss_without_normalising(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    logits, labels = x @ y.T / temperature, torch.arange(len(x))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def cut_late(x: Tensor, y: Tensor, k: int, temperature: float) -> Tensor:
    return cosine_loss_without_normalising(F.normalize(x)[:, :k], F.normalize(y)[:, :k], temperature)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_pool_regions, lambda m, grid: F.adaptive_avg_pool2d(m, grid).flatten(1)),
        (check_pool_regions, lambda m, grid: blocks(m, grid).mean((3, 5)).flatten(1)),
        (check_token_wise_similarity, lambda r, w, padding: token_wise_similarities(r, w, padding)[1]),
        (check_token_wise_similarity, lambda r, w, padding: masked_mean(best_regions(r, w), padding)),
        (check_token_wise_similarity, lambda r, w, p: masked_mean(best_regions(r, w * ~p[:, :, None]), p)),
        (check_nested_prefix_loss, nested(lambda x, y, k, t: contrastive_loss(x[:, :k], y[:, :k], t))),
        (
            check_nested_prefix_loss,
            lambda x, y, ks, t: sum(contrastive_loss(F.normalize(x)[:, :k], y[:, :k], t) for k in ks) / len(ks),
        ),
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
        (lambda m, grid: None, "is a return missing"),
        (F.adaptive_avg_pool2d, "not flattened"),
        (lambda m, grid: F.adaptive_max_pool2d(m, grid).flatten(1), "largest of each block"),
        (lambda m, grid: blocks(m, grid).sum((3, 5)).flatten(1), "sum of each block"),
        (lambda m, grid: m[:, :, :: 4 // grid, :: 4 // grid].flatten(1), "keeps one region"),
        (turned, "not neighbours"),
        (lambda m, grid: blocks(m, grid).mean((3, 5)).permute(0, 2, 3, 1).flatten(1), "stand together"),
        (lambda m, grid: blocks(m, grid).mean((3, 5)).transpose(2, 3).flatten(1), "transposed"),
        (lambda m, grid: blocks(m, grid).mean((1, 3, 5)).flatten(1), "channels are averaged"),
        (lambda m, grid: m.mean((2, 3)), "whatever the grid"),
        (lambda m, grid: m.flatten(1), "nothing is averaged"),
        (lambda m, grid: blocks(m, grid).mean((2, 4)).flatten(1), "not neighbours"),
        (lambda m, grid: m.reshape(len(m), 3, -1), "stopped with RuntimeError"),
    ],
)
def test_pool_regions_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_pool_regions, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda r, w, p: None, "is a return missing"),
        (lambda r, w, p: best_regions(r, w).mean(2), "padding is not masked"),
        (lambda r, w, p: best_regions(r, w).masked_fill(p, 0.0).mean(2), "divides by the padded length"),
        (lambda r, w, p: best_regions(r, w).masked_fill(p, -torch.inf).mean(2), "minus infinity"),
        (lambda r, w, p: masked_mean(best_regions(r, w), ~p), "wrong way round"),
        (lambda r, w, p: best_regions(r, w).masked_fill(p, 0.0).sum(2), "sum over words"),
        (lambda r, w, p: token_wise_similarities(r, w, p)[0], "each region's best word; each word seeks"),
        (of_regions_with_padding, "with padding as a word"),
        (lambda r, w, p: masked_mean(torch.einsum("ird,twd->itrw", r, w).amax(2), p), "words are not normalised"),
        (
            lambda r, w, p: masked_mean(torch.einsum("ird,twd->itrw", r, F.normalize(w, dim=2)).amax(2), p),
            "the regions are not normalised",
        ),
        (
            lambda r, w, p: masked_mean(torch.einsum("ird,twd->itrw", F.normalize(r, dim=2), w).amax(2), p),
            "the words are not normalised",
        ),
        (lambda r, w, p: masked_mean(cosines(r, w).mean(2), p), "mean over all regions"),
        (lambda r, w, p: best_regions(r, w).masked_fill(p, -torch.inf).amax(2), "one best word"),
        (lambda r, w, p: masked_mean(best_regions(r, w), p).T, "images are rows"),
        (lambda r, w, p: F.normalize(r) @ w.mT, "stopped with RuntimeError"),
        (lambda r, w, p: masked_mean(best_regions(r, w), p) + 0.01, "entry [0, 0] is"),
    ],
)
def test_token_wise_similarity_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_token_wise_similarity, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda x, y, ks, t: None, "is a return missing"),
        (lambda x, y, ks, t: sum(contrastive_loss(x[:, :k], y[:, :k], t) for k in ks), "sum over the prefixes"),
        (lambda x, y, ks, t: torch.stack([contrastive_loss(x[:, :k], y[:, :k], t) for k in ks]), "one loss a prefix"),
        (lambda x, y, ks, t: contrastive_loss(x[:, : ks[0]], y[:, : ks[0]], t), "first prefix"),
        (lambda x, y, ks, t: contrastive_loss(x[:, : ks[-1]], y[:, : ks[-1]], t), "last prefix"),
        (nested(lambda x, y, k, t: contrastive_loss(x[:, -k:], y[:, -k:], t)), "last k components"),
        (nested(lambda x, y, k, t: contrastive_loss(x[:, k : k + 1], y[:, k : k + 1], t)), "component k alone"),
        (nested(lambda x, y, k, t: contrastive_loss(x[:k], y[:k], t)), "first k rows"),
        (nested(cut_late), "before they are cut"),
        (nested(lambda x, y, k, t: contrastive_loss(x[:, :k], y[:, :k])), "temperature is not passed on"),
        (nested(lambda x, y, k, t: contrastive_loss(x, y, t)), "prefixes are not used"),
        (
            nested(lambda x, y, k, t: one_way_contrastive_loss(x[:, :k], y[:, :k], t, normalize=True)),
            "image to text only",
        ),
        (lambda x, y, ks, t: float(contrastive_loss(x, y, t)), "must return a tensor"),
    ],
)
def test_nested_prefix_loss_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_nested_prefix_loss, answer, words)
