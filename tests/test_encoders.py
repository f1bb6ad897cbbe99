import pytest
import torch

from helpers.encoders import DualEncoder, ImageEncoder, TextEncoder
from helpers.text import WordTokenizer

TEXTS = ["a red circle left of a blue square", "a blue square left of a red circle", "a star"]


@pytest.fixture
def text_encoder() -> tuple[TextEncoder, WordTokenizer]:
    torch.manual_seed(0)
    tokenizer = WordTokenizer.build(TEXTS, max_length=12)
    return TextEncoder(len(tokenizer), tokenizer.max_length, dim=16, dropout=0.5).eval(), tokenizer


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 80), (224, 224)])
def test_images_of_any_size_and_the_finest_scale_is_the_feature(size: tuple[int, int]) -> None:
    encoder = ImageEncoder(dim=16).eval()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    features, scales = encoder(images), encoder.scales(images)
    assert features.shape == (3, 16)
    assert [scale.shape for scale in scales] == [(3, 16)] * 3
    assert torch.equal(scales[-1], features)


def test_an_image_does_not_depend_on_its_batch() -> None:
    encoder = ImageEncoder(dim=16)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]))


def test_small_or_misshapen_images_are_refused() -> None:
    for shape in ((1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(ValueError, match="from 32 pixels up"):
            ImageEncoder()(torch.zeros(shape))


def test_padding_changes_no_text(text_encoder: tuple[TextEncoder, WordTokenizer]) -> None:
    encoder, tokenizer = text_encoder
    together, alone = tokenizer(TEXTS), tokenizer(TEXTS[2:])
    assert torch.equal(encoder.scales(*together)[-1], encoder(*together))
    for in_batch, by_itself in zip(encoder.scales(*together), encoder.scales(*alone), strict=True):
        torch.testing.assert_close(in_batch[2:], by_itself)


def test_only_finer_scales_see_the_order_of_words(text_encoder: tuple[TextEncoder, WordTokenizer]) -> None:
    encoder, tokenizer = text_encoder
    words, phrases, sentence = encoder.scales(*tokenizer(TEXTS))
    torch.testing.assert_close(words[0], words[1])
    assert not torch.allclose(phrases[0], phrases[1], atol=1e-4)
    assert not torch.allclose(sentence[0], sentence[1], atol=1e-4)


def test_dropout_acts_in_training_only(text_encoder: tuple[TextEncoder, WordTokenizer]) -> None:
    encoder, tokenizer = text_encoder
    batch = tokenizer(TEXTS)
    assert torch.equal(encoder(*batch), encoder(*batch))
    encoder.train()
    assert not torch.equal(encoder(*batch), encoder(*batch))


def test_texts_longer_than_the_encoder_are_refused(text_encoder: tuple[TextEncoder, WordTokenizer]) -> None:
    encoder, _ = text_encoder
    with pytest.raises(ValueError, match="length up to 8"):
        encoder(torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.bool))


def test_both_sides_meet_in_one_space() -> None:
    tokenizer = WordTokenizer.build(TEXTS)
    model = DualEncoder(len(tokenizer), tokenizer.max_length, dim=16)
    images = torch.randn(3, 3, 64, 64)
    image_features, text_features = model(images, *tokenizer(TEXTS))
    assert image_features.shape == text_features.shape == (3, 16)
    image_scales, text_scales = model.scales(images, *tokenizer(TEXTS))
    assert torch.equal(image_scales[-1], image_features)
    assert torch.equal(text_scales[-1], text_features)
    assert len(image_scales) == len(text_scales) == 3
