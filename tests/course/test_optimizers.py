"""Muon's orthogonalisation against the form in which it was published."""

import pytest
import torch
from torch import Tensor

from helpers.encoders import DualEncoder
from helpers.optimizers import learning_rate_factor, make_optimizers, orthogonalize, set_learning_rate
from helpers.temperature import LearnedTemperature

SHAPES = [(1, 1), (64, 64), (128, 192), (192, 128), (64, 576), (128, 2048)]


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """As Jordan et al. print it, for no more rows than columns."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


def matrices(rows: int, columns: int) -> dict[str, Tensor]:
    """Of full rank, of rank 2, with singular values down to a ten-thousandth, and tiny."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(rows, columns, generator=generator)
    left, _, right = torch.linalg.svd(dense, full_matrices=False)
    low = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    steep = left * torch.logspace(0, -4, left.shape[1]) @ right
    return {"dense": dense, "rank 2": low, "steep": steep, "tiny": 1e-5 * dense}


@pytest.mark.parametrize("shape", SHAPES)
def test_gathered_factors_equal_newton_schulz(shape: tuple[int, int]) -> None:
    for name, matrix in matrices(*shape).items():
        wide = matrix if shape[0] <= shape[1] else matrix.T
        exact = newton_schulz(wide.double()) if shape[0] <= shape[1] else newton_schulz(wide.double()).T
        for result, tolerance in ((orthogonalize(matrix), 1e-3), (orthogonalize(matrix.double()), 1e-9)):
            assert float((result - exact).norm() / exact.norm()) < tolerance, name


def test_singular_values_from_a_thousandth_up_end_near_one() -> None:
    left, _, right = torch.linalg.svd(torch.randn(64, 576, generator=torch.Generator().manual_seed(1)), False)
    before = torch.logspace(0, -2, 64)
    after = torch.linalg.svdvals(orthogonalize(left * before @ right))
    assert 0.65 < float(after.min()) < float(after.max()) < 1.25
    assert torch.linalg.svdvals(orthogonalize(torch.zeros(3, 5))).max() == 0


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [learning_rate_factor(k / 100) for k in range(101)]
    assert factors[0] > 0
    assert max(factors) == pytest.approx(1) == factors[5]
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_the_learning_rate_of_every_group_follows_its_own_base() -> None:
    model = DualEncoder(words=10, max_length=4, dim=8)
    optimizers = make_optimizers(model, LearnedTemperature(), factor=2)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == 1 + sum(
        parameter.numel() for parameter in model.parameters()
    )
    set_learning_rate(optimizers, 0.5)
    assert [group["lr"] for group in groups] == [base * learning_rate_factor(0.5) for base in (0.018, 0.006, 0.006)]
    assert groups[-1]["weight_decay"] == 0
