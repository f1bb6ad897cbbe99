import math

import open_clip.loss
import pytest
import torch
import torch.nn.functional as F

from helpers.losses import contrastive_loss, one_way_contrastive_loss


def reference(images: torch.Tensor, texts: torch.Tensor, temperature: float) -> float:
    """The symmetric loss in float64, written from its definition with log-sum-exp instead of cross entropy."""
    images, texts = images.double(), texts.double()
    images, texts = images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True)
    logits = images @ texts.T / temperature
    matched = logits.diagonal()
    return float(((logits.logsumexp(1) - matched).mean() + (logits.logsumexp(0) - matched).mean()) / 2)


def random_case(number: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(number)
    batch, dim = (int(torch.randint(1, high, (1,), generator=generator)) for high in (257, 513))
    temperature = 0.01 if number % 5 == 0 else float(torch.rand(1, generator=generator)) + 0.01
    images = torch.randn(batch, dim, generator=generator) * 3
    noise = torch.randn(batch, dim, generator=generator)
    return images, (noise if number % 2 else images + 0.3 * noise), temperature


@pytest.mark.parametrize("number", range(200))
def test_agrees_with_float64_and_open_clip(number: int) -> None:
    images, texts, temperature = random_case(number)
    loss = float(contrastive_loss(images, texts, temperature))
    expected = reference(images, texts, temperature)
    tolerance = 2e-6 * max(1, abs(expected))
    assert abs(loss - expected) <= tolerance
    theirs = open_clip.loss.ClipLoss()(F.normalize(images, dim=1), F.normalize(texts, dim=1), 1 / temperature)
    assert abs(loss - float(theirs)) <= tolerance


def test_gradients_and_learned_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_loss, (images, texts, temperature))
    assert torch.autograd.gradcheck(one_way_contrastive_loss, (images, texts, temperature))


def test_one_way_is_the_image_half_on_raw_products() -> None:
    images, texts, temperature = random_case(7)
    logits = images.double() @ texts.double().T / temperature
    expected = float((logits.logsumexp(1) - logits.diagonal()).mean())
    assert float(one_way_contrastive_loss(images, texts, temperature)) == pytest.approx(expected, rel=1e-5)
    both = one_way_contrastive_loss(images, texts, temperature, normalize=True)
    both = (both + one_way_contrastive_loss(texts, images, temperature, normalize=True)) / 2
    torch.testing.assert_close(both, contrastive_loss(images, texts, temperature))


def test_the_length_of_raw_features_is_a_hidden_temperature() -> None:
    images, texts, temperature = random_case(8)
    once = one_way_contrastive_loss(images, texts, temperature)
    torch.testing.assert_close(once, one_way_contrastive_loss(2 * images, texts, 2 * temperature))
    torch.testing.assert_close(
        contrastive_loss(images, texts, temperature), contrastive_loss(2 * images, texts, temperature)
    )


def test_equal_features_give_chance_and_copies_a_floor() -> None:
    same = torch.ones(32, 8)
    assert float(contrastive_loss(same, same)) == pytest.approx(math.log(32), abs=1e-5)
    distinct = torch.eye(8).repeat_interleave(4, dim=0)  # every pair stands there four times
    assert float(contrastive_loss(distinct, distinct, 0.01)) == pytest.approx(math.log(4), abs=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    images, texts, _ = random_case(9)
    for dtype in (torch.bfloat16, torch.float16):
        loss = contrastive_loss(images.to(dtype), texts.to(dtype), 0.01)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, contrastive_loss(images.to(dtype).float(), texts.to(dtype).float(), 0.01))


GOOD = torch.ones(3, 4)


@pytest.mark.parametrize("loss", [contrastive_loss, one_way_contrastive_loss])
@pytest.mark.parametrize(
    ("images", "texts", "temperature", "words"),
    [
        (GOOD, GOOD, 0.0, "above 0, not 0"),
        (GOOD, GOOD, -0.1, "above 0, not -0.1"),
        (GOOD, GOOD, math.nan, "finite number above 0"),
        (GOOD, GOOD, math.inf, "finite number above 0"),
        (GOOD, GOOD, torch.tensor([0.1, 0.2]), "one number, not a tensor of shape \\[2\\]"),
        (GOOD, torch.ones(2, 4), 0.1, "3 images and 2 texts"),
        (GOOD, torch.ones(3, 5), 0.1, "same dim: got 4 and 5"),
        (torch.ones(4), torch.ones(4), 0.1, "\\[batch, dim\\], not \\[4\\]"),
        (torch.ones(0, 4), torch.ones(0, 4), 0.1, "\\[batch, dim\\], not \\[0, 4\\]"),
        (GOOD, torch.full((3, 4), math.nan), 0.1, "text_features holds NaN"),
        (torch.full((3, 4), math.inf), GOOD, 0.1, "image_features holds NaN or infinite"),
        (GOOD.long(), GOOD, 0.1, "floating point numbers, not torch.int64"),
    ],
)
def test_bad_input_is_refused_in_words(loss, images, texts, temperature, words) -> None:
    with pytest.raises(ValueError, match=words):
        loss(images, texts, temperature)
