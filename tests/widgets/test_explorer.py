"""The temperature explorer in Python: its numbers, its stored state, and its errors."""

import io
import json
import math
from pathlib import Path

import explorer_view
import pytest
import torch
import traitlets
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from helpers import diagnostics
from helpers.losses import contrastive_loss, one_way_contrastive_loss
from helpers.widgets.explorer import TemperatureExplorer


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
    return torch.randint(256, (pairs, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 2.0])
def test_numbers_are_those_of_the_losses(temperature: float) -> None:
    images, texts = features()
    numbers = explorer(temperature=temperature).numbers()
    similarities = torch.nn.functional.cosine_similarity(images.double()[:, None], texts.double()[None], dim=2)
    probabilities = (similarities / temperature).softmax(1)
    entropy = -(probabilities * probabilities.clamp_min(1e-300).log()).sum(1)  # [pairs]
    own = torch.arange(16)
    accuracy = [(similarities.argmax(dim) == own).double().mean() for dim in (0, 1)]
    assert numbers["temperature"] == temperature
    assert numbers["loss"] == pytest.approx(float(contrastive_loss(images.double(), texts.double(), temperature)), 1e-5)
    assert numbers["accuracy"] == pytest.approx(float(sum(accuracy) / 2))
    assert numbers["effective_negatives"] == pytest.approx(float(entropy.exp().mean()), 1e-5)
    assert numbers["entropy"] == pytest.approx(float(entropy.mean()), 1e-5, 1e-12)


def test_direction_picks_one_side() -> None:
    images, texts = features(8)
    widget, swapped = TemperatureExplorer(images, texts), TemperatureExplorer(texts, images)
    widget.direction = "text to image"
    numbers, loss = widget.numbers(), one_way_contrastive_loss(texts, images, normalize=True)
    assert numbers["loss"] == pytest.approx(float(loss), 1e-5)
    assert numbers["effective_negatives"] == pytest.approx(swapped.numbers()["effective_negatives"], 1e-5)


@pytest.mark.parametrize("direction", ["both", "image to text", "text to image"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pull_push_and_shares_are_the_gradient_of_the_loss(direction: str, normalize: bool) -> None:
    images, texts = (side.double() for side in features(8, dim=6))
    widget = TemperatureExplorer(images, texts, temperature=0.3)
    widget.set_trait("direction", direction)
    widget.normalize, widget.selected = normalize, 5
    if normalize:
        images, texts = (side / side.norm(dim=1, keepdim=True) for side in (images, texts))
    similarity = (images @ texts.T).requires_grad_()
    logits = similarity / 0.3
    loss = {
        "image to text": (logits.logsumexp(1) - logits.diagonal()).mean(),
        "text to image": (logits.logsumexp(0) - logits.diagonal()).mean(),
    }
    loss["both"] = (loss["image to text"] + loss["text to image"]) / 2
    (gradient,) = torch.autograd.grad(8 * loss[direction], similarity)
    assert widget.numbers()["loss"] == pytest.approx(loss[direction].item(), rel=1e-5)
    torch.testing.assert_close(explorer_view.gradient(widget), gradient, rtol=1e-4, atol=1e-5)
    pushes = (logits.T if direction == "text to image" else logits).detach()[5].exp()
    pushes[5] = 0
    torch.testing.assert_close(explorer_view.shares(widget), pushes / pushes.sum(), rtol=1e-4, atol=1e-6)


def test_without_normalisation_length_counts() -> None:
    images, texts = features(8)
    widget, doubled = TemperatureExplorer(images, texts), TemperatureExplorer(2 * images, texts, temperature=0.14)
    alignment = widget.numbers()["alignment"]
    widget.normalize = doubled.normalize = False
    assert doubled.numbers()["loss"] == pytest.approx(widget.numbers()["loss"], rel=1e-6)
    assert widget.numbers()["alignment"] == alignment  # this is of the normalised features in any case


def test_moments_of_a_training() -> None:
    first, last = features(6, seed=1), features(6, seed=2)
    named = TemperatureExplorer(*last, snapshots={0: first, "the end": last})
    assert (named.moments, named.moment) == (["0", "the end"], 1)
    assert named.numbers()["loss"] == pytest.approx(float(contrastive_loss(*last)), rel=1e-5)
    named.moment = 0
    assert named.numbers()["loss"] == pytest.approx(float(contrastive_loss(*first)), rel=1e-5)
    listed = TemperatureExplorer(*features(6), snapshots={"moment 0": first, "moment 1": last})
    assert (listed.moments, listed.moment) == (["moment 0", "moment 1", "now"], 2)
    assert listed.numbers()["loss"] == pytest.approx(float(contrastive_loss(*features(6))), rel=1e-5)
    assert explorer(4).moments == ["now"]


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_geometry_is_of_normalised_features(scale: float) -> None:
    images, texts = features(9)
    numbers = TemperatureExplorer(scale * images, texts).numbers()
    assert numbers["alignment"] == pytest.approx(float(diagnostics.alignment(images, texts)), rel=1e-5)
    uniform = (diagnostics.uniformity(images) + diagnostics.uniformity(texts)) / 2
    assert numbers["uniformity"] == pytest.approx(float(uniform), rel=1e-5)
    assert numbers["modality_gap"] == pytest.approx(float(diagnostics.modality_gap(images, texts)), rel=1e-5)


def test_extremes_of_temperature_and_of_size() -> None:
    hot, cold = (explorer(16, temperature=temperature).numbers() for temperature in (1e6, 1e-6))
    assert hot["loss"] == pytest.approx(math.log(16), 1e-5)
    assert hot["effective_negatives"] == pytest.approx(16, 1e-5)
    assert cold["effective_negatives"] == pytest.approx(1)
    one = explorer(1).numbers()
    assert (one["loss"], one["accuracy"], one["effective_negatives"]) == (0, 1, 1)
    assert all(math.isfinite(number) for number in one.values())


def test_a_tie_is_wrong() -> None:
    same = torch.ones(5, 3)
    assert TemperatureExplorer(same, same).numbers()["accuracy"] == 0
    images = torch.eye(4)
    images[1] = images[0]  # image 0 and image 1 are one picture, so text 0 has two best matches
    assert TemperatureExplorer(images, torch.eye(4)).numbers()["accuracy"] == pytest.approx((3 / 4 + 2 / 4) / 2)


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
    state = TemperatureExplorer(images, texts, noise_pictures(16), ["a large red circle left of a small square"] * 16)
    sizes = {k: len(v) * 4 / 3 if isinstance(v, bytes) else len(json.dumps(v)) for k, v in state.get_state().items()}
    program = sizes.pop("_esm") + sizes.pop("_css")
    assert sum(sizes.values()) < 75_000  # noise is the hardest picture to compress, and bytes are stored in base64
    assert program < 40_000


def test_thumbnails_are_in_the_order_of_the_pairs() -> None:
    colours = ["red", "lime", "blue", "yellow", "black"]
    pictures = [Image.new("RGB", (90, 60), colour) for colour in colours]
    tensors = torch.stack([pil_to_tensor(picture) for picture in pictures])
    for images in (pictures, tensors, tensors / 255):
        sheet = Image.open(io.BytesIO(explorer(5, images=images).thumbnails)).convert("RGB")
        assert sheet.size == (192, 192)
        for i, picture in enumerate(pictures):
            centre = sheet.getpixel((32 + i % 3 * 64, 32 + i // 3 * 64))
            assert centre == pytest.approx(picture.getpixel((0, 0)), abs=5)


def test_the_page_is_small_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "explorer.html"
    widget = explorer(16, images=noise_pictures(16), captions=["</script><script>alert(1)</script>"] * 16)
    assert widget.to_html(path) == path
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    assert text.count("</script>") == 2  # the page's own two; the captions hold none
    assert "://" not in text
    assert repr(widget) in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 0}, "temperature must"),
        ({"text_features": torch.ones(3, 8)}, "4 images and 3 texts"),
        ({"text_features": torch.full((4, 8), math.nan)}, "NaN"),
        ({"image_features": torch.ones(513, 2), "text_features": torch.ones(513, 2)}, "513 pairs are too many"),
        ({"images": noise_pictures(3)}, "images must have one entry per pair"),
        ({"captions": ["one", "two"]}, "captions must have one entry per pair"),
        ({"images": noise_pictures(4)[:, :1]}, "shape"),
        ({"images": noise_pictures(4) / 64 - 2}, "undo the normalisation"),
        ({"snapshots": {"early": features(6)}}, r"snapshot 'early' has the shape \[6, 128\], not \[4, 8\]"),
    ],
)
def test_wrong_arguments_are_named(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TemperatureExplorer(**{"image_features": torch.ones(4, 8), "text_features": torch.ones(4, 8), **given})


@pytest.mark.parametrize(("name", "value"), [("temperature", math.nan), ("selected", 4), ("moment", -1)])
def test_a_wrong_setting_leaves_the_old_one(name: str, value: float) -> None:
    widget = explorer(4)
    before = getattr(widget, name)
    with pytest.raises((traitlets.TraitError, ValueError), match=f"{name} must"):
        setattr(widget, name, value)
    assert getattr(widget, name) == before
