"""The cost of a loss is measured correctly, and the cost model finds laws that are known."""

import pytest
import torch

from helpers.losses import contrastive_loss
from helpers.scale import costs
from helpers.scale.blockwise import BLOCK_ROWS


@pytest.mark.parametrize("size", [5, BLOCK_ROWS, 2 * BLOCK_ROWS + 77])
@pytest.mark.parametrize("length", [1.0, 10.0])
def test_the_checkpointed_loss_equals_the_plain_loss(size: int, length: float) -> None:
    images, texts = (length * side.double() for side in costs.random_pairs(size, 16))
    ours, exact = (
        costs.with_gradients(loss, images, texts) for loss in (costs.checkpointed_contrastive_loss, contrastive_loss)
    )
    torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-12)


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def hold_one_of_three() -> None:
        for _ in range(3):
            torch.ones(1_000_000)  # freed before the next

    def hold_three() -> None:
        assert len([torch.ones(1_000_000) for _ in range(3)]) == 3

    assert costs.peak_megabytes(hold_one_of_three) == pytest.approx(4, rel=0.01)
    assert costs.peak_megabytes(hold_three) == pytest.approx(12, rel=0.01)


def test_the_plain_loss_holds_six_matrices_and_no_other_loss_holds_two() -> None:
    matrix = 4e-6 * 1024**2
    held = {way: costs.measure(way, 1024, dim=16, rounds=1)["megabytes"] / matrix for way in costs.WAYS}
    assert held.pop("plain") == pytest.approx(6, rel=0.05)
    assert max(held.values()) < 1.5


def test_only_tensors_kept_for_the_backward_pass_are_listed() -> None:
    x = torch.ones(1000, requires_grad=True)
    with costs.kept_for_backward() as kept:
        y = x.exp()  # keeps its result
        y.sum()  # keeps nothing
    assert kept == {y.data_ptr(): 4000}


@pytest.mark.parametrize("law", [(3.0, 2.0), (3.0, 0.0), (0.0, 2.0)])
def test_a_known_law_is_found(law: tuple[float, float]) -> None:
    sizes = [2.0**k for k in range(10, 16)]
    assert costs.fit(sizes, [law[0] * n**2 + law[1] * n for n in sizes]) == pytest.approx(law, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("power", "positive"), [(0.8, 1), (2.3, 0)])
def test_no_coefficient_is_negative(power: float, positive: int) -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    fitted = costs.fit(sizes, [n**power for n in sizes])
    assert fitted[positive] > 0
    assert fitted[1 - positive] == 0


def test_small_sizes_count_as_much_as_large_ones() -> None:
    sizes, factors = [1.0, 10.0, 100.0], [1.0, 1.2, 1.0]
    fitted = costs.fit(sizes, [5 * n * factor for n, factor in zip(sizes, factors, strict=True)])
    assert fitted[1] == pytest.approx(5, rel=0.1)
