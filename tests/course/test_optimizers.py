"""Muon's orthogonalisation against the form in which it was published."""

import pytest
import torch
from torch import Tensor

from helpers.optimizers import orthogonalize

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
    return {"dense": dense, "of rank 2": low, "steep": steep, "tiny": 1e-5 * dense}


@pytest.mark.parametrize("shape", SHAPES)
def test_gathered_factors_give_what_newton_schulz_gives(shape: tuple[int, int]) -> None:
    for name, matrix in matrices(*shape).items():
        wide = matrix if shape[0] <= shape[1] else matrix.T
        exact = newton_schulz(wide.double()) if shape[0] <= shape[1] else newton_schulz(wide.double()).T
        for found, tolerance in ((orthogonalize(matrix), 1e-3), (orthogonalize(matrix.double()), 1e-9)):
            assert float((found - exact).norm() / exact.norm()) < tolerance, name


def test_singular_values_from_a_thousandth_up_end_near_one() -> None:
    left, _, right = torch.linalg.svd(torch.randn(64, 576, generator=torch.Generator().manual_seed(1)), False)
    before = torch.logspace(0, -2, 64)
    after = torch.linalg.svdvals(orthogonalize(left * before @ right))
    assert 0.65 < float(after.min()) < float(after.max()) < 1.25
    assert torch.linalg.svdvals(orthogonalize(torch.zeros(3, 5))).max() == 0
