"""The kernel's half of the temperature explorer: what it holds, what it refuses, and the numbers it vouches for."""

import io
import json
import math

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
    return torch.rand(pairs, 3, 64, 64, generator=torch.Generator().manual_seed(1))


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
    widget = explorer(8)
    widget.direction = "image to text"
    of_images = widget.numbers()
    widget.direction = "text to image"
    of_texts = widget.numbers()
    assert of_images["loss"] == pytest.approx(float(one_way_contrastive_loss(images, texts, normalize=True)), 1e-5)
    assert of_texts["loss"] == pytest.approx(float(one_way_contrastive_loss(texts, images, normalize=True)), 1e-5)
    swapped = TemperatureExplorer(texts, images).numbers()
    assert of_texts["effective_negatives"] == pytest.approx(swapped["effective_negatives"], 1e-5)


@pytest.mark.parametrize("direction", ["both", "image to text", "text to image"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_pull_push_and_shares_are_the_gradient_of_the_loss(direction: str, normalize: bool, mask: bool) -> None:
    ids = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4])
    images, texts = (side.double() for side in features(8, dim=6))
    widget = TemperatureExplorer(images, texts, temperature=0.3, image_ids=ids)
    widget.set_trait("direction", direction)
    widget.normalize, widget.mask, widget.selected = normalize, mask, 5
    if normalize:
        images, texts = (side / side.norm(dim=1, keepdim=True) for side in (images, texts))
    similarity = (images @ texts.T).requires_grad_()
    left_out = (ids[:, None] == ids) & ~torch.eye(8, dtype=torch.bool) if mask else torch.zeros(8, 8, dtype=torch.bool)
    logits = (similarity / 0.3).masked_fill(left_out, -math.inf)
    loss = {
        "image to text": (logits.logsumexp(1) - logits.diagonal()).mean(),
        "text to image": (logits.logsumexp(0) - logits.diagonal()).mean(),
    }
    loss["both"] = (loss["image to text"] + loss["text to image"]) / 2
    (gradient,) = torch.autograd.grad(8 * loss[direction], similarity)
    assert widget.numbers()["loss"] == pytest.approx(loss[direction].item(), rel=1e-5)
    torch.testing.assert_close(widget.gradient(), gradient, rtol=1e-4, atol=1e-5)
    pushes = (logits.T if direction == "text to image" else logits).detach()[5].exp()
    pushes[5] = 0
    torch.testing.assert_close(widget.shares(), pushes / pushes.sum(), rtol=1e-4, atol=1e-6)


def test_shares_need_a_selected_row_and_a_negative() -> None:
    widget = explorer(3, image_ids=[7, 7, 7])
    with pytest.raises(ValueError, match=r"explorer.selected = 0"):
        widget.shares()
    widget.selected, widget.mask = 1, True
    assert widget.shares().tolist() == [0, 0, 0]
    assert widget.numbers()["loss"] == 0


def test_copies_have_their_floor_and_a_mask_takes_it_away() -> None:
    same = torch.eye(6).repeat_interleave(2, dim=0)
    widget = TemperatureExplorer(same, same, temperature=0.01, image_ids=torch.arange(6).repeat_interleave(2))
    assert widget.numbers()["loss"] == pytest.approx(math.log(2))
    assert widget.numbers()["accuracy"] == 0
    widget.mask = True
    assert widget.numbers()["loss"] == pytest.approx(0)
    assert widget.numbers()["accuracy"] == 1


def test_without_normalisation_length_counts() -> None:
    images, texts = features(8)
    widget = TemperatureExplorer(images, texts)
    widget.normalize = False
    assert widget.numbers()["loss"] == pytest.approx(
        float(one_way_contrastive_loss(images, texts) + one_way_contrastive_loss(texts, images)) / 2, rel=1e-5
    )
    doubled = TemperatureExplorer(2 * images, texts, temperature=0.14)
    doubled.normalize = False
    assert doubled.numbers()["loss"] == pytest.approx(widget.numbers()["loss"], rel=1e-6)
    normalised = widget.numbers()["alignment"]
    widget.normalize = True
    assert widget.numbers()["alignment"] == normalised  # these are of the normalised features in any case


def test_moments_of_a_training() -> None:
    first, last = features(6, seed=1), features(6, seed=2)
    named = TemperatureExplorer(*last, snapshots={0: first, "the end": last})
    assert (named.moments, named.moment) == (["0", "the end"], 1)
    assert named.numbers()["loss"] == pytest.approx(float(contrastive_loss(*last)), rel=1e-5)
    named.moment = 0
    assert named.numbers()["loss"] == pytest.approx(float(contrastive_loss(*first)), rel=1e-5)
    listed = TemperatureExplorer(*features(6), snapshots=[first, last])
    assert (listed.moments, listed.moment) == (["moment 0", "moment 1", "now"], 2)
    assert listed.numbers()["loss"] == pytest.approx(float(contrastive_loss(*features(6))), rel=1e-5)
    assert explorer(4).moments == ["now"]


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        ({"early": features(4)}, r"snapshot 'early' must have the shape .* \[6, 128\], not \[4, 128\]"),
        ([(torch.ones(6, 128), torch.full((6, 128), math.nan))], "snapshot 'moment 0': text_features holds NaN"),
        ([(torch.ones(6, 128), torch.ones(5, 128))], "snapshot 'moment 0': .* 6 images and 5 texts"),
    ],
)
def test_refuses_snapshots_of_other_pairs(snapshots: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TemperatureExplorer(*features(6), snapshots=snapshots)


@pytest.mark.parametrize(("name", "value"), [("selected", 4), ("selected", -1), ("moment", 1), ("moment", -1)])
def test_refuses_a_row_or_a_moment_that_is_not_there(name: str, value: int) -> None:
    widget = explorer(4)
    before = getattr(widget, name)
    with pytest.raises(traitlets.TraitError, match=f"{name} runs from 0 to"):
        setattr(widget, name, value)
    assert getattr(widget, name) == before


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_geometry_is_of_normalised_features(scale: float) -> None:
    images, texts = features(9)
    numbers = TemperatureExplorer(scale * images, texts).numbers()
    assert numbers["alignment"] == pytest.approx(float(diagnostics.alignment(images, texts)), rel=1e-5)
    uniform = (diagnostics.uniformity(images) + diagnostics.uniformity(texts)) / 2
    assert numbers["uniformity"] == pytest.approx(float(uniform), rel=1e-5)
    assert numbers["modality_gap"] == pytest.approx(float(diagnostics.modality_gap(images, texts)), rel=1e-5)
    assert numbers["distribution_gap"] == pytest.approx(float(diagnostics.distribution_gap(images, texts)), rel=1e-4)


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
    assert all(math.isfinite(number) for number in numbers.values())


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
    sizes = {k: len(v) * 4 / 3 if isinstance(v, bytes) else len(json.dumps(v)) for k, v in state.items()}
    programme = sizes.pop("_esm") + sizes.pop("_css")
    assert sum(sizes.values()) < 75_000  # noise is the hardest picture to compress, and bytes are stored in base64
    assert programme < 40_000


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
    for name, given in (("captions", ["one", "two"]), ("image_ids", [3, 3])):
        with pytest.raises(ValueError, match=f"{name} must be one a pair: got 2 for 4"):
            explorer(4, **{name: given})


def test_thumbnails_stand_in_the_order_of_the_pairs() -> None:
    colours = ["red", "lime", "blue", "yellow", "black"]
    pictures = [Image.new("RGB", (90, 60), colour) for colour in colours]
    tensors = torch.stack([pil_to_tensor(picture) for picture in pictures])
    for images in (pictures, tensors, tensors / 255):
        sheet = Image.open(io.BytesIO(explorer(5, images=images).thumbnails)).convert("RGB")
        assert sheet.size == (192, 192)
        centres = [sheet.getpixel((32 + i % 3 * 64, 32 + i // 3 * 64)) for i in range(5)]
        assert centres == [picture.getpixel((0, 0)) for picture in pictures]


def test_without_javascript_there_is_a_picture_of_what_is_chosen() -> None:
    widget = explorer(5, images=noise_pictures(5), captions=["a"] * 5, temperature=0.5)
    seen = []
    for state in ({}, {"temperature": 0.05}, {"direction": "text to image"}, {"normalize": False}):
        for name, value in state.items():
            setattr(widget, name, value)
        seen.append(widget.still_picture())
        assert min(Image.open(io.BytesIO(seen[-1])).size) > 200
        assert len(seen[-1]) < 60_000
    assert len(set(seen)) == 4
    assert "Dot products of 5 images" in widget.description()


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
    assert widget.description() in text
    assert "://" not in text
    widget.to_html(str(page))
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(OSError, match="new folder"):
        widget.to_html(tmp_path / "new folder")
    assert [p.name for p in tmp_path.rglob("*")] == ["new folder", "explorer.html"]


def test_words_for_the_picture_name_the_chance_that_a_mask_leaves() -> None:
    widget = explorer(8, image_ids=[0, 0, 0, 0, 1, 1, 1, 1])
    assert f"chance {math.log(8):.3f}" in widget.description()
    widget.mask = True
    assert f"chance {math.log(5):.3f}" in widget.description()
