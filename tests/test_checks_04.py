"""The checks of notebook 04 accept the right answer and name the mistake in typical wrong ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from answers import assert_named, assert_right
from torch import Tensor

from helpers.checks import check_distinct_best_matches, check_nested_prefix_loss, check_pool_regions
from helpers.losses import contrastive_loss, one_way_contrastive_loss


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
        (check_distinct_best_matches, lambda logits: len(set(logits.argmax(1).tolist()))),
        (check_distinct_best_matches, lambda logits: logits.argmax(1).unique().numel()),
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
        (lambda logits: None, "is a return missing"),
        (lambda logits: torch.tensor(len(logits.argmax(1).unique())), "must return an int, not Tensor"),
        (lambda logits: logits.argmax(1).unique(), "must return an int, not Tensor"),
        (lambda logits: len(logits.argmax(0).unique()), "best images of the texts"),
        (lambda logits: len(logits.argmax(1)), "count each column once"),
        (lambda logits: len(logits.amax(1).unique()), "count each column once"),
        (lambda logits: int(torch.linalg.matrix_rank(logits)), "rank"),
        (lambda logits: int((logits.argmax(1) == torch.arange(len(logits))).sum()), "the hits"),
        (lambda logits: -1, "it should be"),
    ],
)
def test_distinct_best_matches_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_distinct_best_matches, answer, words)


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
