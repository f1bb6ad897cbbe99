import pytest
import torch

from helpers.losses import contrastive_loss
from helpers.regularizers import multi_scale_regularization, parse_regularizer, pooled_to_one_regularization


def scales(seed: int, batch: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, dim, generator=generator, dtype=torch.float64) for dim in (3, 8, 20)]


def test_multi_scale_is_the_weighted_sum() -> None:
    images, texts = scales(0), scales(1)
    terms = [contrastive_loss(x, y, 0.2) for x, y in zip(images, texts, strict=True)]
    torch.testing.assert_close(multi_scale_regularization(images, texts, 0.2), sum(terms))
    weighted = multi_scale_regularization(images, texts, 0.2, [1, 0, 0.5])
    torch.testing.assert_close(weighted, terms[0] + 0.5 * terms[2])


@pytest.mark.parametrize(
    ("images", "texts", "weights", "words"),
    [
        ([], [], None, "at least one: got 0 and 0"),
        (scales(0), scales(1)[:2], None, "got 3 and 2"),
        (scales(0), scales(1), [1.0], "1 weights for 3 scales"),
        (scales(0), scales(1), [1.0, -1.0, 1.0], "0 or above"),
        (scales(0), scales(1), [1.0, float("nan"), 1.0], "finite"),
        (scales(0), scales(1, batch=5), None, "6 images and 5 texts"),
    ],
)
def test_bad_scales_are_refused_in_words(images, texts, weights, words) -> None:
    with pytest.raises(ValueError, match=words):
        multi_scale_regularization(images, texts, 0.1, weights)


@pytest.mark.parametrize("batch", [4, 16, 64])
def test_the_pooled_term_is_blind(batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    images, texts = (torch.nn.functional.normalize(torch.randn(batch, 128, generator=generator)) for _ in range(2))
    logits = images.mean(1, keepdim=True) @ texts.mean(1, keepdim=True).T / 0.07  # [image, text]
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(batch))
    torch.testing.assert_close(pooled_to_one_regularization(images, texts, 0.07), expected)
    assert torch.linalg.matrix_rank(logits.double(), rtol=1e-6) == 1
    assert len(set(logits.argmax(1).tolist())) <= 2


def test_the_pooled_term_hardly_pulls() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(64, 128, generator=generator, requires_grad=True) for _ in range(2))
    unit_images, unit_texts = (torch.nn.functional.normalize(side) for side in (images, texts))
    norms = [
        torch.autograd.grad(loss(unit_images, unit_texts, 0.07), images, retain_graph=True)[0].norm()
        for loss in (pooled_to_one_regularization, contrastive_loss)
    ]
    assert norms[0] < 1e-3 * norms[1]


def test_one_dimensional_features_are_refused() -> None:
    with pytest.raises(ValueError, match="batch, dim"):
        pooled_to_one_regularization(torch.ones(4), torch.ones(4))


def test_names_and_weights() -> None:
    assert parse_regularizer("multi_scale") == ("multi_scale", 1.0)
    assert parse_regularizer("pooled_to_one:0.5") == ("pooled_to_one", 0.5)
    for text, words in (
        ("nope", "there are: multi_scale"),
        ("multi_scale:x", "no number"),
        ("multi_scale:-1", "0 or ab"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_regularizer(text)
