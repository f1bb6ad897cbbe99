"""The kernel's half of the temperature explorer: what it holds, what it refuses, and the numbers it vouches for."""

import io
import json
import math

import pytest
import torch
import traitlets
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from helpers.explorer import TemperatureExplorer
from helpers.losses import contrastive_loss, one_way_contrastive_loss


def features(pairs: int = 16, dim: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that match in part: the texts are the images and noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(pairs, dim, generator=generator)
    return images, images + 2 * torch.randn(pairs, dim, generator=generator)


def explorer(pairs: int = 16, **given: object) -> TemperatureExplorer:
    return TemperatureExplorer(*features(pairs), **given)


def held(widget: TemperatureExplorer) -> torch.Tensor:
    return torch.frombuffer(bytearray(widget.features), dtype=torch.float32).view(2 * widget.pairs, -1)


def noise_pictures(pairs: int) -> torch.Tensor:
    return torch.rand(pairs, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 2.0])
def test_numbers_are_those_of_the_losses(temperature: float) -> None:
    images, texts = features()
    numbers = explorer(temperature=temperature).numbers()
    similarities = torch.nn.functional.cosine_similarity(images.double()[:, None], texts.double()[None], dim=2)
    probabilities = (similarities / temperature).softmax(1)
    entropy = -(probabilities * probabilities.clamp_min(1e-300).log()).sum(1)
    own = torch.arange(16)
    accuracy = [(similarities.argmax(dim) == own).double().mean() for dim in (0, 1)]
    assert numbers["temperature"] == temperature
    assert numbers["loss"] == pytest.approx(float(contrastive_loss(images.double(), texts.double(), temperature)), 1e-5)
    assert numbers["accuracy"] == pytest.approx(float(sum(accuracy) / 2))
    assert numbers["effective_negatives"] == pytest.approx(float(entropy.exp().mean()), 1e-5)


def test_direction_picks_one_side() -> None:
    images, texts = features(8)
    widget = explorer(8)
    widget.direction = "image to text"
    of_images = widget.numbers()
    widget.direction = "text to image"
    of_texts = widget.numbers()
    assert of_images["loss"] == pytest.approx(float(one_way_contrastive_loss(images, texts, normalize=True)), 1e-5)
    assert of_texts["loss"] == pytest.approx(float(one_way_contrastive_loss(texts, images, normalize=True)), 1e-5)
    swapped = TemperatureExplorer(texts, images).numbers()
    assert of_texts["effective_negatives"] == pytest.approx(swapped["effective_negatives"], 1e-5)


def test_extremes_of_temperature() -> None:
    widget = explorer(16)
    widget.temperature = 1e6
    assert widget.numbers()["loss"] == pytest.approx(math.log(16), 1e-5)
    assert widget.numbers()["effective_negatives"] == pytest.approx(16, 1e-5)
    widget.temperature = 1e-6
    assert widget.numbers()["effective_negatives"] == pytest.approx(1)


def test_a_tie_is_wrong() -> None:
    same = torch.ones(5, 3)
    assert TemperatureExplorer(same, same).numbers()["accuracy"] == 0
    images = torch.eye(4)
    images[1] = images[0]  # image 0 and image 1 are one picture, so text 0 has two best matches
    assert TemperatureExplorer(images, torch.eye(4)).numbers()["accuracy"] == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_one_pair_is_enough() -> None:
    numbers = explorer(1).numbers()
    assert (numbers["loss"], numbers["accuracy"], numbers["effective_negatives"]) == (0, 1, 1)


def test_fewer_dimensions_leave_every_dot_product() -> None:
    images, texts = features(4, dim=512)
    widget = TemperatureExplorer(images, texts)
    both = torch.cat([images, texts])
    assert held(widget).shape == (8, 8)
    torch.testing.assert_close(held(widget) @ held(widget).T, both @ both.T, rtol=1e-5, atol=1e-3)
    assert held(explorer(64)).shape == (128, 128)


def test_features_may_be_half_precision_arrays_or_need_a_gradient() -> None:
    images, texts = features(4)
    expected = explorer(4).numbers()["loss"]
    arrays = TemperatureExplorer(images.half().numpy(), texts.half().numpy())
    assert arrays.numbers()["loss"] == pytest.approx(expected, 1e-2)
    assert TemperatureExplorer(images.requires_grad_(), texts).numbers()["loss"] == pytest.approx(expected)


def test_stored_state_is_small() -> None:
    images, texts = features(16, dim=256)
    captions = ["a large red circle left of a small blue square"] * 16
    widget = TemperatureExplorer(images, texts, noise_pictures(16), captions)
    state = widget.get_state()
    size = sum(len(value) * 4 / 3 if isinstance(value, bytes) else len(json.dumps(value)) for value in state.values())
    assert size < 100_000  # noise is the hardest picture to compress, and bytes are stored in base64


@pytest.mark.parametrize("temperature", [0, -0.07, math.nan, math.inf])
def test_refuses_a_temperature_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        explorer(temperature=temperature)
    widget = explorer()
    with pytest.raises(traitlets.TraitError, match="temperature must be a finite number above 0"):
        widget.temperature = temperature
    assert widget.temperature == 0.07


def test_refuses_features_that_are_not_pairs() -> None:
    images, texts = features(4)
    broken = texts.clone()
    broken[2, 3] = math.nan
    for text_features, words in (
        (texts[:3], "4 images and 3 texts"),
        (texts[:, :5], "same dim"),
        (broken, "NaN"),
        (texts[0], "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            TemperatureExplorer(images, text_features)
    with pytest.raises(ValueError, match="shape"):
        TemperatureExplorer(torch.zeros(0, 8), torch.zeros(0, 8))
    with pytest.raises(ValueError, match="5000 pairs are too many"):
        TemperatureExplorer(torch.ones(5000, 2), torch.ones(5000, 2))


def test_refuses_pictures_that_do_not_fit() -> None:
    for images, words in (
        (noise_pictures(3), "images must be one a pair: got 3 for 4"),
        (noise_pictures(4)[:, :1], "shape"),
        (noise_pictures(4) * 4 - 2, r"0\.\.1.*normalised"),
        (torch.full((4, 3, 8, 8), math.nan), r"0\.\.1"),
        (["a.png", "b.png", "c.png", "d.png"], "PIL"),
    ):
        with pytest.raises(ValueError, match=words):
            explorer(4, images=images)
    with pytest.raises(ValueError, match="captions must be one a pair: got 2 for 4"):
        explorer(4, captions=["one", "two"])


def test_thumbnails_stand_in_the_order_of_the_pairs() -> None:
    colours = ["red", "lime", "blue", "yellow", "black"]
    pictures = [Image.new("RGB", (90, 60), colour) for colour in colours]
    tensors = torch.stack([pil_to_tensor(picture) for picture in pictures])
    for images in (pictures, tensors, tensors / 255):
        sheet = Image.open(io.BytesIO(explorer(5, images=images).thumbnails)).convert("RGB")
        assert sheet.size == (192, 192)
        centres = [sheet.getpixel((32 + i % 3 * 64, 32 + i // 3 * 64)) for i in range(5)]
        assert centres == [picture.getpixel((0, 0)) for picture in pictures]


def test_see_through_parts_are_white() -> None:
    sheet = Image.open(io.BytesIO(explorer(1, images=[Image.new("RGBA", (64, 64))]).thumbnails)).convert("RGB")
    assert sheet.getpixel((32, 32)) == (255, 255, 255)


def test_text_alternative_fits_what_a_notebook_keeps() -> None:
    widget = explorer(512, temperature=0.0123456)
    bundle = widget._repr_mimebundle_()[0]
    assert bundle["text/plain"] == repr(widget)
    assert "512 pairs" in repr(widget)
    assert "loss=" in repr(widget)


def test_page_is_small_and_whole(tmp_path) -> None:
    page = tmp_path / "new folder" / "explorer.html"
    widget = explorer(16, images=noise_pictures(16), captions=["</script><script>alert(1)</script>"] * 16)
    assert widget.to_html(page) == page
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 300_000
    assert text.count("</script>") == 2  # the page's own two; the captions hold none
    assert "://" not in text
    widget.to_html(str(page))
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(OSError, match="new folder"):
        widget.to_html(tmp_path / "new folder")
    assert [p.name for p in tmp_path.rglob("*")] == ["new folder", "explorer.html"]
