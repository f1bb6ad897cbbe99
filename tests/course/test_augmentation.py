"""Augmented captions stay true of their images."""

import random

import pytest
import torch

from helpers.augmentation import (
    LEAST_SHARE,
    Augmentation,
    exchange_sides,
    parse_augmentation,
    resize,
    sample_box,
    says_side,
)
from helpers.files import DATA, InputError
from helpers.scenes.render import fits, read_truth
from helpers.sources.coco import read_captions

SIDES = {  # captions, and the same captions with left and right exchanged
    "a red circle left of a blue square": "a red circle right of a blue square",
    "a star at the top right and a cross on the left": "a star at the top left and a cross on the right",
    "Left, LEFT and right.": "Right, RIGHT and left.",
    "the left-hand glove": "the right-hand glove",
    "a right-handed, lefthanded pair": "a left-handed, righthanded pair",
    "the leftmost dog looks rightwards": "the rightmost dog looks leftwards",
    "left": "right",
    "turn left/right": "turn right/left",
    "一个红色的圆在蓝色方块的左边": "一个红色的圆在蓝色方块的右边",
    "左上角的星星, right": "右上角的星星, left",
    "在left边": "在right边",
    "left🙂": "right🙂",
    "五十人左右, 在左边": "五十人左右, 在右边",  # about fifty people, on the left
}
WITHOUT_SIDES = [
    "a bright light upright on a copyright sign",
    "leftovers, a leftist and a frightened playwright",
    "two dogs on the beach",
    "一只狗",
    "لا شيء",
    "🙂",
    "",
]


@pytest.mark.parametrize(("caption", "exchanged"), SIDES.items())
def test_exchanging_left_and_right_twice_gives_the_caption_back(caption: str, exchanged: str) -> None:
    assert says_side(caption)
    assert exchange_sides(caption) == exchanged
    assert exchange_sides(exchanged) == caption


@pytest.mark.parametrize("caption", WITHOUT_SIDES)
def test_words_without_a_side_stay(caption: str) -> None:
    assert not says_side(caption)
    assert exchange_sides(caption) == caption


IMAGE = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def samples(augment: Augmentation, caption: str, size: int = 20, times: int = 40) -> list[tuple[torch.Tensor, str]]:
    changed = [augment(IMAGE, [caption], size, random.Random(seed)) for seed in range(times)]
    return [(image, text) for image, (text,) in changed]


def test_flip_skips_captions_that_name_a_side() -> None:
    for image, text in samples(Augmentation(flip="skip"), "a boy left the house"):
        assert torch.equal(image, IMAGE)
        assert text == "a boy left the house"


def test_flip_exchanges_the_words_only_if_it_flips_the_image() -> None:
    flipped = 0
    for image, text in samples(Augmentation(flip="exchange"), "a circle left of a star"):
        flipped += text == "a circle right of a star"
        assert torch.equal(image, IMAGE.flip(-1) if text != "a circle left of a star" else IMAGE)
    assert 10 < flipped < 30


@pytest.mark.parametrize("flip", ["skip", "exchange"])
def test_half_of_the_pairs_without_a_side_are_flipped(flip: str) -> None:
    images = [image for image, _ in samples(Augmentation(flip=flip), "a dog", times=400)]
    assert 160 < sum(torch.equal(image, IMAGE.flip(-1)) for image in images) < 240


@pytest.mark.parametrize("least_share", [0.05, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 90), (1, 1), (2, 7)])
def test_crop_box_is_inside_the_image_and_large_enough(height: int, width: int, least_share: float) -> None:
    generator = random.Random(0)
    boxes = [sample_box(generator, height, width, least_share) for _ in range(500)]
    for top, left, box_height, box_width in boxes:
        assert min(top, left) >= 0
        assert 1 <= box_height <= height - top
        assert 1 <= box_width <= width - left
        assert box_height * box_width >= least_share * height * width * (1 - 1e-9)
    if least_share == 1:
        assert set(boxes) == {(0, 0, height, width)}


def test_crop_boxes_have_all_sizes_and_aspect_ratios() -> None:
    generator = random.Random(0)
    boxes = [sample_box(generator, 1000, 1000, 0.2) for _ in range(4000)]
    shares = torch.tensor([height * width / 1e6 for _, _, height, width in boxes])
    shapes = torch.tensor([width / height for _, _, height, width in boxes])
    assert shares.mean().item() == pytest.approx(0.6, abs=0.02)
    assert (shares.min().item(), shares.max().item()) == (pytest.approx(0.2, abs=0.01), pytest.approx(1, abs=0.01))
    assert shapes.min() < 0.76
    assert shapes.max() > 1.31
    assert shapes.log().mean().item() == pytest.approx(0, abs=0.01)
    assert {top == 0 for top, *_ in boxes} == {True, False}


def test_crop_is_a_part_of_the_image() -> None:
    columns = torch.arange(40, dtype=torch.uint8).expand(3, 40, 40) * 6  # from left to right, 0 to 234
    seen = set()
    for seed in range(20):
        image, (text,) = Augmentation(crop=0.4)(columns, ["a dog"], 40, random.Random(seed))
        assert image.shape == (3, 40, 40)
        assert image.dtype == torch.uint8
        assert (image.int().diff(dim=2) >= 0).all()
        assert int(image.int()[0, 0, -1] - image.int()[0, 0, 0]) >= 234 * 0.4 * 0.75
        assert text == "a dog"
        seen.add((int(image[0, 0, 0]), int(image[0, 0, -1])))
    assert len(seen) > 10


def test_only_the_given_generator_decides() -> None:
    augment = Augmentation(flip="exchange", crop=0.5)
    first = [(image.tolist(), text) for image, text in samples(augment, "left", size=12)]
    random.seed(1)
    torch.manual_seed(1)
    assert first == [(image.tolist(), text) for image, text in samples(augment, "left", size=12)]
    assert len({str(image) for image, _ in first}) > 30


def test_resizing_to_a_smaller_size_averages_pixels() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    assert resize(stripes, 64) is stripes
    smaller = resize(stripes, 16)
    assert smaller.shape == (1, 3, 16, 16)
    assert (smaller.int() - 100).abs().max() < 15  # without averaging: all 0 or all 200
    assert resize(stripes[:, :, :50, :40], 70).shape == (1, 3, 70, 70)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["flip"], Augmentation(flip="skip")),
        (["flip:exchange"], Augmentation(flip="exchange")),
        (["crop"], Augmentation(crop=LEAST_SHARE)),
        (["crop:0.6", "flip"], Augmentation(flip="skip", crop=0.6)),
    ],
)
def test_augmentations_are_parsed(texts: list[str], expected: Augmentation | None) -> None:
    assert parse_augmentation(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mirror"], "cannot use the augmentation 'mirror'"),
        (["flip", "flip:exchange"], "'flip:exchange'; .* once"),
        (["flip:naive"], "flip must be 'skip' or 'exchange', not 'naive'"),
        (["crop:much"], "'crop:much' needs a number"),
        (["crop:1.1"], "must be in .0, 1., not 1.1"),
    ],
)
def test_invalid_augmentations_are_rejected(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_augmentation(texts)


def test_flipped_captions_are_true_of_mirrored_scenes() -> None:
    scenes, captions = read_truth(DATA / "scenes", "test"), read_captions(DATA / "scenes", "test")[1]
    assert scenes is not None
    with_sides = 0
    for scene, own in list(zip(scenes, captions, strict=True))[:200]:
        mirrored = tuple(thing._replace(place=exchange_sides(thing.place)) for thing in scene)
        assert all(fits(exchange_sides(caption), mirrored) for caption in own)
        with_sides += sum(map(says_side, own))
    assert with_sides > 100
