"""Which region answers to a word: against drawn pixels, against maps made by hand, and after a short training."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from helpers.data import ImageTextDataset, read_captions
from helpers.encoders import DualEncoder
from helpers.grounding import covered, pointing_accuracy, region_scores
from helpers.runs import load_checkpoint, restore_model
from helpers.scenes.render import COLOURS, PLACES, SHAPES, SIZES, Scene, Thing, read_truth, render_scene, write_scenes
from helpers.text import WordTokenizer
from helpers.training import train

TOKENIZER = WordTokenizer.build([f"a {colour} {shape} left of" for colour in COLOURS for shape in SHAPES])


class Centred(random.Random):
    """Draws no jitter: a thing is drawn at the centre of its place."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def model_that_answers(regions: Tensor, phrases: Tensor) -> DualEncoder:
    """An encoder whose regions ``[images or 1, 16, dim]`` and phrases ``[1, words, dim]`` are given by hand."""
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length)
    model.image_encoder.regions = lambda region_map: regions.expand(len(region_map), -1, -1)
    model.text_encoder.phrases = lambda words, padding: phrases
    return model


def overlapped(span: tuple[int, int], grid: int) -> Tensor:
    """bool ``[grid]``: which of so many equal parts of 64 pixels hold one from the first to the last, both included."""
    side = 64 // grid
    return torch.tensor([part * side <= span[1] and (part + 1) * side > span[0] for part in range(grid)])


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_covered_regions_are_those_of_the_drawn_box(shape: str, size: str, scale: float) -> None:
    for place in PLACES:
        thing = Thing(shape, "black", size, place)
        ink = pil_to_tensor(render_scene((thing,), Centred(), scale))[0] < 255  # [64, 64]
        rows, columns = (ink.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        for grid in (1, 2, 4):
            # A pixel at the edge may be only touched, so the box without its edge is the least there must be.
            least, most = (
                overlapped((rows[edge], rows[-1 - edge]), grid)[:, None]
                & overlapped((columns[edge], columns[-1 - edge]), grid)
                for edge in (1, 0)
            )
            found = covered(thing, grid, scale)
            assert (least <= found).all(), f"{place}, {grid} x {grid}"
            assert (found <= most).all(), f"{place}, {grid} x {grid}"


def test_the_best_region_of_each_word_is_found_where_it_was_put() -> None:
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(3, 16, 128, generator=generator)
    places = torch.randint(16, (3, 5), generator=generator)
    words = torch.stack([5 * regions[0, place] for place in places[0]])[None]  # the regions of image 0, longer
    model = model_that_answers(regions, words)
    found, scores = region_scores(model, TOKENIZER, torch.zeros(3, 3, 64, 64), "A red circle, left of")
    assert found == ["a", "red", "circle", "left", "of"]
    assert scores.shape == (3, 5, 4, 4)
    assert torch.equal(scores[0].flatten(1).argmax(1), places[0])
    by_hand = F.cosine_similarity(words[0][None, :, None], regions[:, None], dim=3)  # [image, word, region]
    torch.testing.assert_close(scores.flatten(2), by_hand)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_coarser_scores_are_those_of_the_mean_of_a_block(grid: int) -> None:
    generator = torch.Generator().manual_seed(grid)
    regions = torch.randn(2, 4, 4, 128, generator=generator)
    phrases = torch.randn(1, 2, 128, generator=generator)
    model = model_that_answers(regions.flatten(1, 2), phrases)
    _, scores = region_scores(model, TOKENIZER, torch.zeros(2, 3, 64, 64), "red circle", grid)
    side = 4 // grid
    for row in range(grid):
        for column in range(grid):
            block = regions[:, row * side : (row + 1) * side, column * side : (column + 1) * side].mean((1, 2))
            wanted = F.cosine_similarity(block[:, None], phrases, dim=2)  # [image, word]
            torch.testing.assert_close(scores[:, :, row, column], wanted)


def test_scores_leave_no_gradient_and_no_dropout() -> None:
    torch.manual_seed(0)
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length, dropout=0.5, patch_dropout=0.5).train()
    images = torch.randn(2, 3, 64, 64)
    first, second = (region_scores(model, TOKENIZER, images, "a red circle")[1] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("text", "grid", "words"),
    [
        ("...", 4, "1 to 5 words, not 0"),
        ("a red circle left of a square", 4, "1 to 5 words, not 7"),
        ("a red hexagon", 4, "no word 'hexagon'"),
        ("a red circle", 3, "3 x 3"),
    ],
)
def test_texts_and_grids_that_cannot_be_are_refused_in_words(text: str, grid: int, words: str) -> None:
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length)
    with pytest.raises(ValueError, match=words):
        region_scores(model, TOKENIZER, torch.zeros(1, 3, 64, 64), text, grid)


def drawn(folder: Path, scenes: list[Scene]) -> ImageTextDataset:
    """A dataset of these scenes."""
    paths = [folder / f"{number}.png" for number in range(len(scenes))]
    for path, scene in zip(paths, scenes, strict=True):
        render_scene(scene, Centred()).save(path)
    return ImageTextDataset(paths, ["a scene"] * len(paths), 64)


def test_pointing_counts_what_lies_under_the_best_region(tmp_path: Path) -> None:
    phrases, regions = torch.zeros(1, 3, 128), torch.zeros(1, 16, 128)
    phrases[0, 1, 0] = 1.0  # that of the colour
    regions[0, :, 1] = 1.0
    regions[0, 0, 0] = 1.0  # in every image the region at the top left answers best
    model = model_that_answers(regions, phrases)
    scenes = [
        (Thing("circle", "red", "small", "top left"), Thing("star", "blue", "large", "middle")),
        (Thing("circle", "red", "small", "bottom right"), Thing("square", "red", "small", "left")),
        (Thing("cross", "pink", "small", "top left"), Thing("cross", "pink", "large", "left")),  # neither is alone
    ]
    things = [thing for scene in scenes[:2] for thing in scene]
    found = pointing_accuracy(model, TOKENIZER, drawn(tmp_path, scenes), scenes)
    share = sum(float(covered(thing).double().mean()) for thing in things) / 4
    assert found == {"accuracy": 25.0, "chance": pytest.approx(100 * share), "things": 4}


def test_things_that_are_not_alone_cannot_be_asked_for(tmp_path: Path) -> None:
    twins = (Thing("cross", "pink", "small", "top"), Thing("cross", "pink", "large", "left"))
    model = DualEncoder(len(TOKENIZER), TOKENIZER.max_length)
    with pytest.raises(ValueError, match="none is alone"):
        pointing_accuracy(model, TOKENIZER, drawn(tmp_path, [twins]), [twins])
    with pytest.raises(ValueError, match="1 images and 2 scenes"):
        pointing_accuracy(model, TOKENIZER, drawn(tmp_path, [twins]), [twins, twins])


def test_a_model_trained_with_parts_points_right_and_an_untrained_one_by_chance(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", {"train": 1500, "val": 64, "test": 300})
    train(
        tmp_path / "scenes",
        tmp_path / "run",
        epochs=6,
        batch_size=48,
        regularizers=["token_wise:2"],
        cache=tmp_path / "cache",
    )
    model, tokenizer = restore_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    paths, captions = read_captions(tmp_path / "scenes", "test")
    dataset, scenes = ImageTextDataset(paths, captions, 64), read_truth(tmp_path / "scenes", "test")[0]
    trained = pointing_accuracy(model, tokenizer, dataset, scenes)
    torch.manual_seed(0)
    untrained = pointing_accuracy(DualEncoder(len(tokenizer), tokenizer.max_length), tokenizer, dataset, scenes)
    assert trained["accuracy"] >= 70
    assert abs(untrained["accuracy"] - untrained["chance"]) < 12
    assert 20 < trained["chance"] == untrained["chance"] < 30
