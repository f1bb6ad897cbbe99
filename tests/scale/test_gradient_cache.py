"""A step in parts against one graph over the whole batch, with dropout on."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from helpers.encoders import DualEncoder
from helpers.losses import contrastive_loss
from helpers.scale.blockwise import blockwise_contrastive_loss
from helpers.scale.gradient_cache import gradient_cached_step
from helpers.temperature import LearnedTemperature

PART_SIZES = (3, 4, 2)


class Learner(nn.Module):
    """A dual encoder with dropout and a learned temperature, in float64, with a batch in parts and a loss."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = DualEncoder(20, 6, 16, dropout)
        self.temperature = LearnedTemperature(0.1)
        self.double()
        self.parts = [
            (
                torch.randn(size, 3, 32, 32).double(),
                torch.randint(2, 20, (size, 6)),
                torch.arange(6).expand(size, 6) > 4,
            )
            for size in PART_SIZES
        ]

    def encode(self, part: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.model(*part)

    def loss(self, images: Tensor, texts: Tensor) -> Tensor:
        return contrastive_loss(images, texts, self.temperature(0.0))

    def gradients(self, step: Callable[["Learner"], Tensor], seed: int = 2) -> tuple[float, dict[str, Tensor]]:
        self.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        value = float(step(self))
        return value, {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


def cached(learner: Learner) -> Tensor:
    return gradient_cached_step(learner.encode, learner.parts, learner.loss)


def whole_batch(learner: Learner) -> Tensor:
    """One graph over all parts, encoded one after the other."""
    features = [learner.encode(part) for part in learner.parts]
    value = learner.loss(*map(torch.cat, zip(*features, strict=True)))
    value.backward()
    return value.detach()


def naively_accumulated(learner: Learner) -> Tensor:
    """A common way to accumulate: compute the full loss once per part, with a graph for the features of that part."""
    with torch.no_grad():
        features = [learner.encode(part) for part in learner.parts]
    for index, part in enumerate(learner.parts):
        mixed = [*features[:index], learner.encode(part), *features[index + 1 :]]
        value = learner.loss(*map(torch.cat, zip(*mixed, strict=True)))
        value.backward()
    return value.detach()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference relative to the largest gradient of each parameter; both have the same parameters."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_equal_those_of_the_whole_batch(dropout: float) -> None:
    learner = Learner(dropout).train()
    value, gradients = learner.gradients(cached)
    expected_value, expected = learner.gradients(whole_batch)
    assert "temperature.log_logit_scale" in gradients
    assert value == pytest.approx(expected_value, rel=1e-12)
    assert largest_difference(gradients, expected) < 1e-10
    if dropout:  # negative control: other dropout changes the gradients
        _, others = learner.gradients(whole_batch, seed=3)
        assert largest_difference(others, expected) > 0.01


def test_in_float32_gradients_agree_within_a_millionth_of_the_largest() -> None:
    learner = Learner().float().train()
    learner.parts = [(images.float(), *text) for images, *text in learner.parts]
    _, gradients = learner.gradients(cached)
    _, expected = learner.gradients(whole_batch)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in gradients.items():
        assert float((gradient - expected[name]).abs().max()) < 1e-6 * largest, name


def test_naive_accumulation_multiplies_the_gradient_of_the_temperature_by_the_number_of_parts() -> None:
    learner = Learner(dropout=0.0)
    _, expected = learner.gradients(whole_batch)
    _, naive = learner.gradients(naively_accumulated)
    _, ours = learner.gradients(cached)
    name = "temperature.log_logit_scale"
    assert float(naive[name] / expected[name]) == pytest.approx(len(PART_SIZES))
    assert float(ours[name] / expected[name]) == pytest.approx(1)
    del naive[name], expected[name]
    assert largest_difference(naive, expected) < 1e-10  # the gradients of the encoders are right


def test_random_numbers_after_a_step_continue_as_after_one_pass() -> None:
    learner = Learner().train()
    torch.manual_seed(2)
    cached(learner)
    after = torch.rand(3)
    torch.manual_seed(2)
    with torch.no_grad():
        for part in learner.parts:
            learner.encode(part)
    assert torch.equal(after, torch.rand(3))


def test_gradients_are_added_to_grad() -> None:
    learner = Learner(dropout=0.0)
    _, once = learner.gradients(cached)
    cached(learner)
    assert all(torch.allclose(p.grad, 2 * once[n]) for n, p in learner.named_parameters() if p.grad is not None)


def test_it_works_with_the_blockwise_loss() -> None:
    learner = Learner().train()
    _, expected = learner.gradients(cached)
    learner.loss = lambda images, texts: blockwise_contrastive_loss(images, texts, learner.temperature(0.0))
    _, gradients = learner.gradients(cached)
    assert largest_difference(gradients, expected) < 1e-10
