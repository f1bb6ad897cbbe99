"""Nine pairs on a sphere: when a gap between images and texts lowers the loss, and that it does so as a temperature."""

import pytest
import torch

from helpers.diagnostics import modality_gap
from helpers.gap_toy import TWINS, best_gap, loss_over_gap, nine_pairs
from helpers.losses import contrastive_loss

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gap_never_helps_correct_pairs(seed: int) -> None:
    for temperature in (0.001, 0.01, 0.02, 0.03, 0.04, 0.0425, 0.1, 1.0):
        assert best_gap(temperature, swapped=False, seed=seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gap_helps_swapped_pairs_below_a_threshold_temperature(seed: int) -> None:
    for temperature in (0.0425, 0.05, 0.07, 0.1, 1.0):
        assert best_gap(temperature, swapped=True, seed=seed) == 0
    gaps = [best_gap(temperature, swapped=True, seed=seed) for temperature in (0.04, 0.03, 0.02, 0.01, 0.001)]
    assert gaps[0] > 0.15
    assert gaps == sorted(gaps)
    assert gaps[1:4] == pytest.approx([1.03, 1.43, 1.74], abs=0.03)


def test_seed_0_has_the_gaps_of_the_paper() -> None:
    gaps = [best_gap(temperature, swapped=True) for temperature in (0.0425, 0.04, 0.03, 0.02, 0.01)]
    assert gaps == pytest.approx([0, 0.28, 1.03, 1.43, 1.74], abs=0.011)


def test_a_gap_acts_as_a_higher_temperature() -> None:
    """The loss at gap g equals the loss without a gap at temperature / (1 - g^2 / 4)."""
    touching = nine_pairs(True)
    threshold = min((t / 10000 for t in range(300, 600)), key=lambda t: float(contrastive_loss(*touching, t)))
    assert threshold == pytest.approx(0.041, abs=0.0005)
    for temperature in (0.04, 0.03, 0.02, 0.01):
        expected = 2 * (1 - temperature / threshold) ** 0.5
        assert best_gap(temperature, swapped=True) == pytest.approx(expected, abs=0.02)
    gaps, losses = loss_over_gap(0.02, True)
    _, warmer = loss_over_gap(0.02 / (1 - 0.5**2 / 4), True)
    assert float(gaps[50]) == pytest.approx(0.5)
    assert float(losses[50]) == pytest.approx(float(warmer[0]))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_points_lie_on_the_sphere_with_the_given_gap(seed: int, swapped: bool) -> None:
    for gap in (0.0, 0.7, 2.0):
        images, texts = nine_pairs(swapped, gap, seed)
        assert images.shape == texts.shape == (9, 3)
        torch.testing.assert_close(images.norm(dim=1), torch.ones(9, dtype=torch.float64))
        torch.testing.assert_close(texts.norm(dim=1), torch.ones(9, dtype=torch.float64))
        assert float(modality_gap(images, texts)) == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_pairs_exchange_their_texts(seed: int) -> None:
    (images, clean), (same_images, swapped) = nine_pairs(False, seed=seed), nine_pairs(True, seed=seed)
    assert torch.equal(images, same_images)
    changed = torch.where((clean != swapped).any(1))[0].tolist()
    assert len(changed) == 2
    assert torch.equal(clean[changed], swapped[changed[::-1]])
    torch.testing.assert_close(clean, images)  # without a gap, each image has the position of its text
    if seed == 0:
        assert tuple(changed) == TWINS


def test_seeds_give_different_points_that_repeat() -> None:
    batches = [nine_pairs(True, 0.5, seed)[0] for seed in SEEDS]
    for seed, images in zip(SEEDS, batches, strict=True):
        assert torch.equal(images, nine_pairs(True, 0.5, seed)[0])
        for other in batches[:seed]:
            assert (images @ images.T - other @ other.T).abs().max() > 1e-4  # not a rotation of each other
