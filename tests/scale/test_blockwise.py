"""The blockwise loss is as exact as the plain loss, and never holds its matrix.

``test_losses.py`` tests it like every other loss, in batches of one block. Here batches have several blocks.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.losses import contrastive_loss
from helpers.scale.blockwise import BLOCK_ROWS, BlockwiseLogSumExp, blockwise_contrastive_loss
from helpers.scale.costs import measure


def sample_features(size: int, dim: int, noise: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images ``[size, dim]``, and texts that equal them plus noise."""
    images, texts = torch.randn(2, size, dim, generator=torch.Generator().manual_seed(seed))
    return images, images + noise * texts


def with_gradients(loss, images: Tensor, texts: Tensor, temperature: float, dtype: torch.dtype) -> list[Tensor]:
    """The value, and the gradients of images, texts and temperature."""
    learned = torch.tensor(temperature, dtype=dtype, requires_grad=True)
    inputs = (*(side.to(dtype).clone().requires_grad_() for side in (images, texts)), learned)
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def errors(results: list[Tensor], exact: list[Tensor]) -> list[float]:
    """The largest error of each result, relative to its largest element."""
    return [
        float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-300))
        for a, b in zip(results, exact, strict=True)
    ]


@pytest.mark.parametrize("temperature", [0.01, 0.07, 2.0])
@pytest.mark.parametrize("size", [BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS, 3 * BLOCK_ROWS + 77])
def test_complete_and_incomplete_blocks_are_exact_in_float64(size: int, temperature: float) -> None:
    images, texts = sample_features(size, 16)
    exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
    ours = with_gradients(blockwise_contrastive_loss, images, texts, temperature, torch.float64)
    assert max(errors(ours, exact)) < 1e-12


@pytest.mark.parametrize("temperature", [0.05, 0.07, 0.1, 1.0])
@pytest.mark.parametrize(("size", "dim", "noise"), [(1000, 128, 3.0), (700, 512, 100.0), (600, 64, 2.0)])
def test_float32_is_within_two_millionths_of_float64(size: int, dim: int, noise: float, temperature: float) -> None:
    images, texts = sample_features(size, dim, noise)
    exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
    ours = with_gradients(blockwise_contrastive_loss, images, texts, temperature, torch.float32)
    assert max(errors(ours, exact)) < 2e-6


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.03])  # one exponential serves both directions only in the last
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0, 100.0])
def test_at_low_temperature_it_is_as_exact_as_the_plain_loss_in_float32(noise: float, temperature: float) -> None:
    """Logits are then up to 100, with a rounding error of about 4e-6, and a loss near 0 is their small difference.

    Chance decides which of the two losses is closer in one batch, so the errors of three batches are compared.
    """
    ours, plain = [], []
    for seed in range(3):
        images, texts = sample_features(400, 32, noise, seed)
        exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
        for results, loss in ((ours, blockwise_contrastive_loss), (plain, contrastive_loss)):
            results.append(errors(with_gradients(loss, images, texts, temperature, torch.float32), exact)[:3])
    for our_errors, plain_errors in zip(zip(*ours, strict=True), zip(*plain, strict=True), strict=True):
        assert max(our_errors) < 4 * max(plain_errors) + 1e-7


def test_the_column_of_a_text_far_from_every_image_does_not_underflow() -> None:
    """With one exponential for both directions, this column would be the logarithm of 0."""
    images = torch.eye(8)[[0] * 300]
    texts = images.clone()
    texts[5] = -texts[5]
    exact = with_gradients(contrastive_loss, images, texts, 0.01, torch.float64)
    ours = with_gradients(blockwise_contrastive_loss, images, texts, 0.01, torch.float32)
    assert math.isfinite(float(ours[0]))
    assert errors(ours, exact)[0] < 1e-6


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(
    ("loss", "elements"), [(contrastive_loss, 1500 * 1500), (blockwise_contrastive_loss, 1500 * BLOCK_ROWS)]
)
def test_only_the_plain_loss_holds_the_matrix(loss, elements: int) -> None:
    images, texts = (side.requires_grad_() for side in sample_features(1500, 8))
    temperature = torch.tensor(0.07, requires_grad=True)
    with LargestTensor() as largest:
        loss(images, texts, temperature).backward()
    assert largest.elements == elements


@pytest.mark.parametrize("length", [0.1, 1.0, 10.0])  # the logits are safe for all but the last
def test_some_rows_of_a_batch_know_which_columns_they_match(length: float) -> None:
    """Rows 300 to 700 of a batch of 1,000, as one of several processes has them."""
    images, texts = (length * side.double() for side in sample_features(1000, 12))
    part = images[300:700].clone().requires_grad_()
    row_lse, column_lse, matched = BlockwiseLogSumExp.apply(part, texts, 300)
    part_again = images[300:700].clone().requires_grad_()
    logits = part_again @ texts.T
    expected = (logits.logsumexp(1), logits.logsumexp(0), logits.diagonal(300))
    weights = [torch.randn(size, generator=torch.Generator().manual_seed(1)).double() for size in (400, 1000, 400)]
    values = []
    for results in ((row_lse, column_lse, matched), expected):
        values.append(sum((result * weight).sum() for result, weight in zip(results, weights, strict=True)))
    torch.testing.assert_close((row_lse, column_lse, matched), expected)
    (ours,), (exact,) = torch.autograd.grad(values[0], part), torch.autograd.grad(values[1], part_again)
    torch.testing.assert_close(ours, exact)


def test_differentiating_twice_is_refused() -> None:
    images, texts = (side.requires_grad_() for side in sample_features(4, 3))
    loss = blockwise_contrastive_loss(images, texts)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice; use contrastive_loss"):
        torch.autograd.grad(loss, images, create_graph=True)


def test_memory_grows_with_the_batch_and_not_with_its_square() -> None:
    small, large = (measure(blockwise_contrastive_loss, pairs, dim=64, rounds=1)["megabytes"] for pairs in (1024, 2048))
    assert large < 2.1 * small


@pytest.mark.long
def test_65536_pairs_take_less_than_a_gigabyte() -> None:
    """The plain loss would hold six matrices of 17 GB."""
    assert measure(blockwise_contrastive_loss, 65_536, dim=512, rounds=1)["megabytes"] < 1000
