"""Nine pairs on a sphere: when a gap between images and texts lowers the loss, and that it does so as a temperature."""

import pytest
import torch

from helpers.diagnostics import modality_gap
from helpers.gap_toy import TWINS, best_gap, nine_pairs
from helpers.losses import contrastive_loss


def test_a_gap_never_helps_correct_pairs() -> None:
    for temperature in (0.001, 0.01, 0.02, 0.03, 0.04, 0.0425, 0.1, 1.0):
        assert best_gap(temperature, swapped=False) == 0


def test_a_gap_helps_swapped_pairs_below_a_threshold_temperature_as_in_the_paper() -> None:
    for temperature in (0.0425, 0.05, 0.07, 0.1, 1.0):
        assert best_gap(temperature, swapped=True) == 0
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
    half_apart = contrastive_loss(*nine_pairs(True, gap=0.5), 0.02)
    torch.testing.assert_close(half_apart, contrastive_loss(*touching, 0.02 / (1 - 0.5**2 / 4)))


@pytest.mark.parametrize("swapped", [False, True])
def test_points_lie_on_the_sphere_with_the_given_gap(swapped: bool) -> None:
    for gap in (0.0, 0.7, 2.0):
        images, texts = nine_pairs(swapped, gap)
        assert images.shape == texts.shape == (9, 3)
        torch.testing.assert_close(images.norm(dim=1), torch.ones(9, dtype=torch.float64))
        torch.testing.assert_close(texts.norm(dim=1), torch.ones(9, dtype=torch.float64))
        assert float(modality_gap(images, texts)) == pytest.approx(gap, abs=1e-9)


def test_two_pairs_exchange_their_texts() -> None:
    (images, clean), (same_images, swapped) = nine_pairs(False), nine_pairs(True)
    assert torch.equal(images, same_images)
    changed = torch.where((clean != swapped).any(1))[0].tolist()
    assert tuple(changed) == TWINS
    assert torch.equal(clean[changed], swapped[changed[::-1]])
    torch.testing.assert_close(clean, images)  # without a gap, each image has the position of its text
