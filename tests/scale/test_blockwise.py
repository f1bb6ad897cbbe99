"""The loss that never holds its matrix: as exact as the plain one, and lean.

``test_losses.py`` puts it through everything that is asked of every loss, in batches of one block. Here are several.
"""

import importlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.losses import contrastive_loss
from helpers.scale.blockwise import BLOCK, BlockwiseLogSumExp, blockwise_contrastive_loss


def batch(size: int, dim: int, noise: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images ``[size, dim]``, and texts that are these with noise."""
    images, texts = torch.randn(2, size, dim, generator=torch.Generator().manual_seed(seed))
    return images, images + noise * texts


def with_gradients(loss, images: Tensor, texts: Tensor, temperature: float, dtype: torch.dtype) -> list[Tensor]:
    """Value, and gradients of images, texts and temperature."""
    temperature_tensor = torch.tensor(temperature, dtype=dtype, requires_grad=True)
    inputs = (*(side.to(dtype).clone().requires_grad_() for side in (images, texts)), temperature_tensor)
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """The largest error of each, relative to the largest element."""
    return [
        float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in zip(found, exact, strict=True)
    ]


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 77])
def test_blocks_that_come_out_even_and_uneven_are_exact_in_float64(size: int) -> None:
    for temperature in (0.01, 0.07, 2.0):
        images, texts = batch(size, 16)
        exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
        found = with_gradients(blockwise_contrastive_loss, images, texts, temperature, torch.float64)
        assert max(errors(found, exact)) < 1e-12


@pytest.mark.parametrize("temperature", [0.05, 0.07, 0.1, 1.0])
@pytest.mark.parametrize(("size", "dim", "noise"), [(1000, 128, 3.0), (700, 512, 100.0), (600, 64, 2.0)])
def test_float32_is_within_two_millionths_of_float64(size: int, dim: int, noise: float, temperature: float) -> None:
    images, texts = batch(size, dim, noise)
    exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
    found = with_gradients(blockwise_contrastive_loss, images, texts, temperature, torch.float32)
    assert max(errors(found, exact)) < 2e-6


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.03])  # only the last has one power for both directions
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0, 100.0])
def test_when_it_is_cold_it_is_as_exact_as_the_plain_loss_in_float32(noise: float, temperature: float) -> None:
    """Logits are up to 100 then, and float32 knows them to about 4e-6; a loss near 0 is what is left of their
    difference. The errors of three batches are taken together, and still the luckier one is ahead now and then."""
    ours, plain = [], []
    for seed in range(3):
        images, texts = batch(400, 32, noise, seed)
        exact = with_gradients(contrastive_loss, images, texts, temperature, torch.float64)
        for found, loss in ((ours, blockwise_contrastive_loss), (plain, contrastive_loss)):
            found.append(errors(with_gradients(loss, images, texts, temperature, torch.float32), exact)[:3])
    for of_ours, of_plain in zip(zip(*ours, strict=True), zip(*plain, strict=True), strict=True):
        assert max(of_ours) < 4 * max(of_plain) + 1e-7


def test_a_text_far_from_every_image_has_its_column_all_the_same() -> None:
    """Where one exponential serves both directions, this column underflows to the logarithm of 0."""
    images = torch.eye(8)[[0] * 300]
    texts = images.clone()
    texts[5] = -texts[5]
    exact = with_gradients(contrastive_loss, images, texts, 0.01, torch.float64)
    found = with_gradients(blockwise_contrastive_loss, images, texts, 0.01, torch.float32)
    assert math.isfinite(float(found[0]))
    assert errors(found, exact)[0] < 1e-6


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for given in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(given, Tensor):
                self.elements = max(self.elements, given.numel())
        return result


@pytest.mark.parametrize(
    ("loss", "holds"), [(contrastive_loss, 1500 * 1500), (blockwise_contrastive_loss, 1500 * BLOCK)]
)
def test_only_the_plain_loss_holds_the_matrix(loss, holds: int) -> None:
    images, texts = (side.requires_grad_() for side in batch(1500, 8))
    temperature = torch.tensor(0.07, requires_grad=True)
    with LargestTensor() as largest:
        loss(images, texts, temperature).backward()
    assert largest.elements == holds


@pytest.mark.parametrize("length", [0.1, 1.0, 10.0])  # of which only the last is far from mild
def test_a_part_of_the_rows_knows_which_columns_it_matches(length: float) -> None:
    """Rows 300 to 700 of a batch of 1,000, as one of several processes has them."""
    images, texts = (length * side.double() for side in batch(1000, 12))
    part = images[300:700].clone().requires_grad_()
    of_rows, of_columns, matched = BlockwiseLogSumExp.apply(part, texts, 300)
    logits = images[300:700] @ texts.T
    for found, expected in ((of_rows, logits.logsumexp(1)), (of_columns, logits.logsumexp(0))):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(matched, (images * texts).sum(1)[300:700])
    weights = [torch.randn(len(found), generator=torch.Generator().manual_seed(1)) for found in (of_rows, of_columns)]
    value = (of_rows * weights[0]).sum() + (of_columns * weights[1]).sum() + (matched * weights[0].exp()).sum()
    again = part.detach().clone().requires_grad_()
    logits = again @ texts.T
    expected = (logits.logsumexp(1) * weights[0]).sum() + (logits.logsumexp(0) * weights[1]).sum()
    expected = expected + (logits.diagonal(300) * weights[0].exp()).sum()
    torch.testing.assert_close(*(torch.autograd.grad(v, p)[0] for v, p in ((value, part), (expected, again))))


def test_differentiating_twice_is_refused_in_words() -> None:
    images, texts = (side.requires_grad_() for side in batch(4, 3))
    value = blockwise_contrastive_loss(images, texts)
    with pytest.raises(RuntimeError, match="no second derivative.*use contrastive_loss"):
        torch.autograd.grad(value, images, create_graph=True)


def test_autocast_does_not_take_digits_from_it() -> None:
    images, texts = batch(300, 16)
    expected = with_gradients(blockwise_contrastive_loss, images, texts, 0.05, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(blockwise_contrastive_loss, images, texts, 0.05, torch.float32)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.long
def test_65536_pairs_take_less_than_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole process, features and libraries included. The plain loss would hold 17 GB a matrix."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    loss = importlib.import_module("loss")
    with loss.own_process() as call:
        costs = call(loss.costs_of_loss, "blockwise", 65_536, 512)
    assert costs["process_mb"] < 2000


@pytest.mark.long
def test_twice_the_pairs_take_at_most_twice_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    loss = importlib.import_module("loss")
    memory = []
    for pairs in (4096, 8192):
        with loss.own_process() as call:
            memory.append(call(loss.costs_of_loss, "blockwise", pairs, 256)["memory_mb"])
    assert memory[1] < 2.1 * memory[0]
