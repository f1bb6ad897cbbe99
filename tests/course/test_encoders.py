"""The two encoders and their views: scales, regions, words and dropout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helpers.encoders import DualEncoder, ImageEncoder
from helpers.text import WordTokenizer

TEXTS = ["a red circle left of a blue square", "a blue square left of a red circle", "a star"]


@pytest.fixture
def model() -> tuple[DualEncoder, tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(0)
    tokenizer = WordTokenizer.build(TEXTS, max_length=12)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return DualEncoder(len(tokenizer), tokenizer.max_length, dim=16, dropout=0.1), (images, *tokenizer(TEXTS))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 80), (224, 224)])
def test_image_encoder_takes_any_size_and_its_last_scale_is_the_feature(size: tuple[int, int]) -> None:
    encoder = ImageEncoder(dim=16).eval()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    features, scales = encoder(images), encoder.scales(images)
    assert features.shape == (3, 16)
    assert [scale.shape for scale in scales] == [(3, 16)] * 3
    assert torch.equal(scales[-1], features)


def test_image_features_do_not_depend_on_the_batch() -> None:
    encoder = ImageEncoder(dim=16)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]))


def test_small_images_and_long_texts_are_rejected() -> None:
    model = DualEncoder(words=5, max_length=8)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        model.image_encoder(torch.zeros(1, 3, 31, 64))
    with pytest.raises(ValueError, match="at most 8 words"):
        model.text_encoder(torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.bool))


def test_padding_does_not_change_text_features(model: tuple) -> None:
    encoder, (_, token_ids, padding) = model
    encoder = encoder.text_encoder.eval()
    together = encoder.scales(token_ids, padding)
    assert torch.equal(together[-1], encoder(token_ids, padding))
    alone = encoder.scales(token_ids[2:, :2], padding[2:, :2])  # the text of two words
    for in_batch, by_itself in zip(together, alone, strict=True):
        torch.testing.assert_close(in_batch[2:], by_itself)


def test_word_scale_ignores_the_order_of_words(model: tuple) -> None:
    encoder, (_, *texts) = model
    words, phrases, sentence = encoder.text_encoder.eval().scales(*texts)
    torch.testing.assert_close(words[0], words[1])
    assert not torch.allclose(phrases[0], phrases[1], atol=1e-4)
    assert not torch.allclose(sentence[0], sentence[1], atol=1e-4)


def test_dropout_is_active_only_in_training(model: tuple) -> None:
    encoder, (_, *texts) = model
    assert not torch.equal(encoder.text_encoder(*texts), encoder.text_encoder(*texts))
    encoder.eval()
    assert torch.equal(encoder.text_encoder(*texts), encoder.text_encoder(*texts))


def test_views_equal_the_outputs_of_the_encoders(model: tuple) -> None:
    encoder, batch = model
    encoder.eval()
    views = encoder.views(*batch)
    image_features, text_features = encoder(*batch)
    assert torch.equal(views.image_features, image_features)
    assert torch.equal(views.text_features, text_features)
    assert all(map(torch.equal, views.image_scales, encoder.image_encoder.scales(batch[0])))
    assert all(map(torch.equal, views.text_scales, encoder.text_encoder.scales(*batch[1:])))
    assert image_features.shape == text_features.shape == (3, 16)
    assert len(views.image_scales) == len(views.text_scales) == 3
    assert views.regions.shape == (3, 16, 16)
    assert views.words.shape == views.phrases.shape == (*batch[1].shape, 16)
    torch.testing.assert_close(views.regions.mean(1), views.image_scales[0])
    used = ~batch[2]
    for row, bag, mean_phrase in zip(range(3), *views.text_scales[:2], strict=True):
        torch.testing.assert_close(views.words[row, used[row]].mean(0), bag)
        torch.testing.assert_close(views.phrases[row, used[row]].mean(0), mean_phrase)


def test_regions_are_in_reading_order(model: tuple) -> None:
    encoder, batch = model
    views = encoder.views(*batch)
    first_row_last_column = encoder.image_encoder.projections[0](views.region_map[:, :, 0, 3])
    torch.testing.assert_close(views.regions[:, 3], first_row_last_column)


def test_each_view_is_computed_once_when_first_used(model: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, (images, token_ids, padding) = model
    encoder.eval()
    calls: list[str] = []

    def counted(name: str, method: Callable) -> Callable:
        return lambda *arguments: calls.append(name) or method(*arguments)

    image_encoder, text_encoder = encoder.image_encoder, encoder.text_encoder
    for part, name in ((image_encoder, "region_map"), (text_encoder, "words"), (text_encoder, "sentence")):
        monkeypatch.setattr(part, name, counted(name, getattr(part, name)))
    views = encoder.views(images, token_ids, padding)
    assert calls == []
    for name in ("image_features", "text_features", "regions", "phrases", "words"):
        assert getattr(views, name) is getattr(views, name)
    assert views.image_scales[-1] is views.image_features
    assert views.text_scales[-1] is views.text_features
    assert calls == ["region_map", "words", "sentence"]
    others = views.with_texts(token_ids.flip(0), padding.flip(0))
    assert others.image_features is views.image_features
    torch.testing.assert_close(others.text_features, views.text_features.flip(0))
    assert calls == ["region_map", *["words", "sentence"] * 2]


def test_views_use_the_same_dropout_as_the_forward_pass(model: tuple) -> None:
    """A run with a regularizer therefore starts with the same main loss as a run without one."""
    encoder, batch = model
    encoder.train()
    torch.manual_seed(3)
    image_features, text_features = encoder(*batch)
    torch.manual_seed(3)
    views = encoder.views(*batch)
    assert torch.equal(views.image_features, image_features)
    assert torch.equal(views.text_features, text_features)


def test_without_dropout_no_random_number_is_used(model: tuple) -> None:
    encoder, batch = model
    encoder.text_encoder.dropout.p = 0.0
    state = torch.get_rng_state()
    views = encoder.train().views(*batch)
    for name in ("image_scales", "text_scales", "regions", "words", "phrases", "padding"):
        getattr(views, name)
    assert torch.equal(torch.get_rng_state(), state)
