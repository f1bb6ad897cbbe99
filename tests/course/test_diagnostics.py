"""Diagnostics against plain loops, at known values, and by the properties that the lessons teach."""

import itertools
import math
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.diagnostics import (
    alignment,
    effective_negatives,
    gradient_shares,
    modality_gap,
    uniformity,
)
from helpers.losses import contrastive_loss, one_way_contrastive_loss

PAIRED = [alignment, modality_gap]
ALL = [*PAIRED, lambda images, texts: uniformity(images)]
EAST, WEST, NORTH, SOUTH = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).split(1)


def random_features(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    batch, dim = (int(torch.randint(1, 13, (1,), generator=generator)) for _ in range(2))
    images, texts = 3 * torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    return images, images + texts if number % 2 else texts


def random_similarities(number: int, least: int = 1) -> tuple[Tensor, float]:
    generator = torch.Generator().manual_seed(number)
    batch = int(torch.randint(least, 13, (1,), generator=generator))
    similarities = 2 * torch.rand(batch, batch, generator=generator, dtype=torch.float64) - 1
    return similarities, 0.02 * 50 ** float(torch.rand(1, generator=generator))


def test_gradient_shares_equal_the_repulsion_from_autograd() -> None:
    for number in range(50):
        similarities, temperature = random_similarities(number, least=2)
        similarities.requires_grad_()
        # Rows of the identity as images make the dot products with these texts exactly the similarities.
        identity = torch.eye(len(similarities), dtype=torch.float64)
        one_way_contrastive_loss(identity, similarities.T, temperature).backward()
        push = similarities.grad.clone().fill_diagonal_(0)
        if float(push.sum(1).min()) < 1e-12:
            continue  # the match of a row has all the probability, and nothing is pushed away
        shares = gradient_shares(similarities.detach(), temperature)
        torch.testing.assert_close(shares, push / push.sum(1, keepdim=True))
        torch.testing.assert_close(push.sum(1), -similarities.grad.diagonal())  # the push adds up to the pull
        assert torch.equal(shares.diagonal(), torch.zeros(len(shares)))


def test_one_false_negative_takes_most_of_the_repulsion_at_a_low_temperature() -> None:
    """One match at 0.8, one false negative at 0.75, and 254 negatives at the quantiles of N(0.1, 0.1)."""
    quantiles = torch.special.ndtri((torch.arange(254, dtype=torch.float64) + 0.5) / 254)
    similarities = torch.zeros(256, 256, dtype=torch.float64)
    similarities[0] = torch.cat([torch.tensor([0.8, 0.75]), 0.1 + 0.1 * quantiles])
    taken = [float(gradient_shares(similarities, temperature)[0, 1]) for temperature in (0.05, 0.07, 0.1, 0.2)]
    assert taken == pytest.approx([0.997, 0.937, 0.636, 0.080], abs=0.03)


def test_temperature_moves_gradient_shares_from_the_hardest_alone_to_all_alike_and_never_changes_their_order() -> None:
    for number in range(50):
        similarities, _ = random_similarities(number, least=2)
        order = similarities.clone().fill_diagonal_(-torch.inf).argsort(dim=1, descending=True)
        for temperature in (0.01, 0.07, 1.0, 100.0):
            assert torch.equal(gradient_shares(similarities, temperature).argsort(dim=1, descending=True), order)
        cold, warm = (gradient_shares(similarities, temperature) for temperature in (1e-6, 1e6))
        torch.testing.assert_close(cold, F.one_hot(order[:, 0], len(cold)).double())
        even = (1 - torch.eye(len(warm), dtype=torch.float64)) / (len(warm) - 1)
        torch.testing.assert_close(warm, even, atol=1e-5, rtol=0)


def test_effective_negatives_are_the_exponential_of_the_entropy() -> None:
    for number in range(50):
        similarities, temperature = random_similarities(number)
        expected = []
        for row in similarities.tolist():
            weights = [math.exp((s - max(row)) / temperature) for s in row]
            shares = [weight / sum(weights) for weight in weights]
            expected.append(math.exp(-sum(p * math.log(p) for p in shares if p > 0)))
        assert effective_negatives(similarities, temperature).tolist() == pytest.approx(expected)


def test_effective_negatives_grow_from_1_to_all_with_temperature() -> None:
    for number in range(20):
        similarities, _ = random_similarities(number)
        counts = [effective_negatives(similarities, temperature) for temperature in (1e-6, 0.05, 0.1, 0.5, 1e6)]
        torch.testing.assert_close(counts[0], torch.ones_like(counts[0]))
        torch.testing.assert_close(counts[-1], torch.full_like(counts[-1], len(similarities)))
        assert all((more >= fewer - 1e-9).all() for fewer, more in itertools.pairwise(counts))


def unit_rows(features: Tensor) -> list[list[float]]:
    return [[value / math.hypot(*row) for value in row] for row in features.tolist()]


def test_alignment_uniformity_and_gap_against_plain_loops() -> None:
    for number in range(50):
        images, texts = random_features(number)
        x, y = unit_rows(images), unit_rows(texts)
        squared = [math.dist(a, b) ** 2 for a, b in zip(x, y, strict=True)]
        assert float(alignment(images, texts)) == pytest.approx(fmean(squared))
        if len(x) > 1:
            pairs = [math.exp(-2 * math.dist(a, b) ** 2) for a, b in itertools.combinations(x, 2)]
            assert float(uniformity(images)) == pytest.approx(math.log(fmean(pairs)))
        centres = [[fmean(column) for column in zip(*side, strict=True)] for side in (x, y)]
        assert float(modality_gap(images, texts)) == pytest.approx(math.dist(*centres))


@pytest.mark.parametrize(
    ("measure", "features", "expected"),
    [
        (alignment, (EAST, 3 * EAST), 0),
        (alignment, (EAST, 2 * NORTH), 2),
        (alignment, (EAST, 5 * WEST), 4),
        (uniformity, (torch.ones(5, 3),), 0),
        (uniformity, (torch.eye(5),), -4),
        (uniformity, (torch.cat([EAST, 2 * WEST]),), -8),
        (modality_gap, (EAST.repeat(3, 1), WEST.repeat(3, 1)), 2),
        # the same centre, but another distribution
        (modality_gap, (torch.cat([EAST, WEST]), torch.cat([NORTH, SOUTH])), 0),
        # different numbers of images and texts
        (modality_gap, (torch.eye(3), torch.eye(3).repeat(4, 1)), 0),
    ],
)
def test_known_values(measure: Callable, features: tuple[Tensor, ...], expected: float) -> None:
    assert float(measure(*features)) == pytest.approx(expected, abs=1e-6)


def test_the_gap_is_0_for_the_same_points_in_any_order() -> None:
    for number in range(20):
        images, _ = random_features(number)
        shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(number))]
        assert float(modality_gap(images, shuffled)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("measure", ALL)
def test_lengths_and_rotations_do_not_matter(measure: Callable) -> None:
    for number in range(20):
        images, texts = random_features(number)
        generator = torch.Generator().manual_seed(number)
        lengths = 0.1 + 9 * torch.rand(2, len(images), 1, generator=generator, dtype=torch.float64)
        square = torch.randn(images.shape[1], images.shape[1], generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(square).Q
        expected = measure(images, texts)
        torch.testing.assert_close(measure(images * lengths[0], texts * lengths[1]), expected)
        torch.testing.assert_close(measure(images @ rotation, texts @ rotation), expected, atol=1e-6, rtol=0)


def test_one_pair_gives_finite_numbers() -> None:
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, -1.0]])
    assert float(alignment(one, other)) == pytest.approx(2)
    assert float(uniformity(one)) == 0
    assert float(modality_gap(one, other)) == pytest.approx(math.sqrt(2))
    assert gradient_shares(torch.tensor([[0.5]]), 0.07).tolist() == [[0.0]]
    assert effective_negatives(torch.tensor([[0.5]]), 0.07).tolist() == [1.0]


def test_equal_points_have_a_finite_gradient() -> None:
    """The gradient of a distance is undefined at 0, where a regularizer could become NaN."""
    for measure in (*PAIRED, lambda images, texts: uniformity(images) + uniformity(texts)):
        images, texts = (torch.ones(4, 3, requires_grad=True) for _ in range(2))
        for gradient in torch.autograd.grad(measure(images, texts), (images, texts)):
            assert torch.isfinite(gradient).all()


def test_at_a_high_temperature_the_loss_separates_into_alignment_and_mean_cosine() -> None:
    """The loss is then ln(batch) + (mean of all cosines - mean of the matched cosines) / temperature."""
    images, texts = random_features(3)
    mean_cosine = (F.normalize(images) @ F.normalize(texts).T).mean()
    expected = math.log(len(images)) + (mean_cosine - (1 - alignment(images, texts) / 2)) / 100
    assert float(contrastive_loss(images, texts, 100.0)) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        *((measure, (torch.ones(3, 4), torch.ones(3, 5)), "same dim: got 4 and 5") for measure in PAIRED),
        (alignment, (torch.ones(3, 4), torch.ones(12, 4)), "3 images and 12 texts"),
        (effective_negatives, (torch.ones(3, 3), 0.0), "finite number above 0"),
    ],
)
def test_wrong_shapes_and_temperatures_are_rejected(measure: Callable, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(*arguments)
