"""The memory of a loss is measured correctly."""

import pytest
import torch

from helpers.losses import contrastive_loss
from helpers.scale import costs
from helpers.scale.blockwise import blockwise_contrastive_loss


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def hold_one_of_three() -> None:
        for _ in range(3):
            torch.ones(1_000_000)  # freed before the next

    def hold_three() -> None:
        assert len([torch.ones(1_000_000) for _ in range(3)]) == 3

    assert costs.peak_megabytes(hold_one_of_three) == pytest.approx(4, rel=0.01)
    assert costs.peak_megabytes(hold_three) == pytest.approx(12, rel=0.01)


@pytest.mark.parametrize(("loss", "matrices"), [(contrastive_loss, 6.0), (blockwise_contrastive_loss, 0.55)])
def test_the_plain_loss_holds_six_matrices_and_the_blockwise_loss_two_blocks(loss, matrices: float) -> None:
    held = costs.measure(loss, 1024, dim=16, rounds=1)
    assert held["megabytes"] / (4e-6 * 1024**2) == pytest.approx(matrices, rel=0.1)
    assert held["milliseconds"] > 0
