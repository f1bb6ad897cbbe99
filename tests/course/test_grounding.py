"""Which region matches a word: against rendered pixels, hand-set features, and a short training."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from helpers import training
from helpers.data import ImageTextDataset, read_captions
from helpers.encoders import DualEncoder
from helpers.grounding import covered, pointing_accuracy, region_contributions, region_scores
from helpers.runs import load_checkpoint, load_model, restore_model
from helpers.scenes.render import COLOURS, PLACES, SHAPES, SIZES, Scene, Thing, read_truth, render_scene, write_scenes
from helpers.text import WordTokenizer

TOKENIZER = WordTokenizer.build([f"a {colour} {shape} left of" for colour in COLOURS for shape in SHAPES])


class Centred(random.Random):
    """A generator without randomness: each thing is rendered at the centre of its cell."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def model_with(regions: Tensor, phrases: Tensor) -> DualEncoder:
    """A model with the given regions ``[images or 1, 16, dim]`` and phrases ``[1, words, dim]``."""
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length)
    model.views = lambda images, *_: SimpleNamespace(regions=regions.expand(len(images), -1, -1), phrases=phrases)
    return model


def overlapped(span: tuple[int, int]) -> Tensor:
    """Which of four equal parts of 64 pixels overlap the span, both ends included: bool ``[4]``."""
    return torch.tensor([part * 16 <= span[1] and (part + 1) * 16 > span[0] for part in range(4)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_covered_regions_match_the_rendered_pixels(shape: str, size: str) -> None:
    for place in PLACES:
        thing = Thing(shape, "black", size, place)
        ink = pil_to_tensor(render_scene((thing,), Centred()))[0] < 255  # [64, 64]
        rows, columns = (ink.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        # The outline may cover a pixel at the edge only in part, so the box without its edge is the minimum.
        least, most = (
            overlapped((rows[edge], rows[-1 - edge]))[:, None] & overlapped((columns[edge], columns[-1 - edge]))
            for edge in (1, 0)
        )
        regions = covered(thing)
        assert (least <= regions).all(), place
        assert (regions <= most).all(), place


def test_each_word_scores_highest_at_its_region() -> None:
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(3, 16, 128, generator=generator)
    indices = torch.randint(16, (5,), generator=generator)
    words = 5 * regions[:1, indices]  # [1, 5, 128], regions of image 0, longer
    model = model_with(regions, words)
    scores = region_scores(model, TOKENIZER, torch.zeros(3, 3, 64, 64), "A red circle, left of")
    assert scores.shape == (3, 5, 4, 4)
    assert torch.equal(scores[0].flatten(1).argmax(1), indices)
    by_hand = F.cosine_similarity(words[0][None, :, None], regions[:, None], dim=3)  # [image, word, region]
    torch.testing.assert_close(scores.flatten(2), by_hand)


def test_scores_have_no_gradient_and_no_dropout() -> None:
    torch.manual_seed(0)
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length, dropout=0.5).train()
    images = torch.randn(2, 3, 64, 64)
    first, second = (region_scores(model, TOKENIZER, images, "a red circle") for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def rendered(folder: Path, scenes: list[Scene]) -> ImageTextDataset:
    paths = [folder / f"{number}.png" for number in range(len(scenes))]
    for path, scene in zip(paths, scenes, strict=True):
        render_scene(scene, Centred()).save(path)
    return ImageTextDataset(paths, ["a scene"] * len(paths), 64)


def test_pointing_accuracy_by_hand(tmp_path: Path) -> None:
    phrases, regions = torch.zeros(1, 3, 128), torch.zeros(1, 16, 128)
    phrases[0, 1, 0] = 1.0  # the phrase of the colour
    regions[0, :, 1] = 1.0
    regions[0, 0, 0] = 1.0  # in every image the best region is at the top left
    model = model_with(regions, phrases)
    scenes = [
        (Thing("circle", "red", "small", "top left"), Thing("star", "blue", "large", "middle")),
        (Thing("circle", "red", "small", "bottom right"), Thing("square", "red", "small", "left")),
        (Thing("cross", "pink", "small", "top left"), Thing("cross", "pink", "large", "left")),  # the same phrase
    ]
    things = [thing for scene in scenes[:2] for thing in scene]
    result = pointing_accuracy(model, TOKENIZER, rendered(tmp_path, scenes), scenes)
    share = sum(float(covered(thing).double().mean()) for thing in things) / 4
    assert result == {"accuracy": 25.0, "chance": pytest.approx(100 * share), "things": 4}


def test_the_contributions_of_all_regions_and_the_bias_add_up_to_the_cosine() -> None:
    torch.manual_seed(0)
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length).double()
    images = torch.randn(3, 3, 64, 64).double()
    contributions = region_contributions(model, TOKENIZER, images, "a red circle")
    views = model.views(images, *TOKENIZER(["a red circle"]))
    text = F.normalize(views.text_features, dim=1)  # [1, dim]
    of_bias = text @ model.image_encoder.projections[-1].bias / views.image_features.norm(dim=1)
    cosine = F.cosine_similarity(views.image_features, text)
    torch.testing.assert_close(contributions.sum((1, 2)) + of_bias, cosine)


def test_the_model_of_the_course_points_by_contributions_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", {"train": 2, "val": 2, "test": 100}, seed=1)
    paths, captions = read_captions(tmp_path / "scenes", "test")
    dataset, scenes = ImageTextDataset(paths, captions, 64), read_truth(tmp_path / "scenes", "test")
    model, tokenizer = load_model()
    by_parts = pointing_accuracy(model, tokenizer, dataset, scenes)
    by_contributions = pointing_accuracy(model, tokenizer, dataset, scenes, contributions=True)
    assert by_contributions["accuracy"] >= 75
    assert abs(by_parts["accuracy"] - by_parts["chance"]) < 12


@pytest.mark.long
def test_only_a_trained_model_points_better_than_chance(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", {"train": 1500, "val": 64, "test": 300})
    recipe = training.Recipe(epochs=6, batch_size=48, regularizers=("token_wise:2",))
    training.train(tmp_path / "scenes", tmp_path / "run", recipe, cache=tmp_path / "cache")
    model, tokenizer = restore_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    paths, captions = read_captions(tmp_path / "scenes", "test")
    dataset, scenes = ImageTextDataset(paths, captions, 64), read_truth(tmp_path / "scenes", "test")
    trained = pointing_accuracy(model, tokenizer, dataset, scenes)
    torch.manual_seed(0)
    untrained = pointing_accuracy(DualEncoder(len(tokenizer), tokenizer.max_length), tokenizer, dataset, scenes)
    assert trained["accuracy"] >= 70
    assert abs(untrained["accuracy"] - untrained["chance"]) < 12
    assert 20 < trained["chance"] == untrained["chance"] < 30
