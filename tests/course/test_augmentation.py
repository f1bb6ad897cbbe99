"""Augmented pairs stay pairs."""

import random
from collections.abc import Iterator

import pytest
import torch

from helpers.augmentation import (
    LEAST_SHARE,
    Augmentation,
    sample_box,
    exchange_sides,
    parse_augmentation,
    resize,
    says_side,
)
from helpers.files import InputError
from helpers.scenes.render import fits, read_truth
from helpers.sources.coco import DATA, read_captions

SIDES = {  # captions with a side, and with the sides exchanged
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
}
NONE = [
    "a bright light upright on a copyright sign",
    "leftovers, a leftist and a frightened playwright",
    "two dogs on the beach",
    "一只狗",
    "لا شيء",
    "🙂",
    "",
]


@pytest.mark.parametrize(("caption", "exchanged"), SIDES.items())
def test_sides_are_exchanged_and_exchanged_back(caption: str, exchanged: str) -> None:
    assert says_side(caption)
    assert exchange_sides(caption) == exchanged
    assert exchange_sides(exchanged) == caption


@pytest.mark.parametrize("caption", NONE)
def test_what_is_no_side_stays(caption: str) -> None:
    assert not says_side(caption)
    assert exchange_sides(caption) == caption


def test_left_and_right_in_one_chinese_word_stays() -> None:
    assert says_side("五十人左右")
    assert exchange_sides("五十人左右, 在左边") == "五十人左右, 在右边"


def test_long_captions_take_no_time_that_grows_with_their_square() -> None:
    assert exchange_sides("a cat left " * 100_000) == "a cat right " * 100_000


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(augment: Augmentation, caption: str, size: int = 20, times: int = 40) -> Iterator[tuple[torch.Tensor, str]]:
    for seed in range(times):
        yield augment(pictures(), caption, size, random.Random(seed))


def test_a_flip_skips_captions_that_say_a_side() -> None:
    for image, text in drawn(Augmentation(flip="skip"), "a boy left the house"):
        assert torch.equal(image, pictures())
        assert text == "a boy left the house"


def test_a_flip_exchanges_the_words_just_where_it_flips() -> None:
    flipped = 0
    for image, text in drawn(Augmentation(flip="exchange"), "a circle left of a star"):
        flipped += text == "a circle right of a star"
        assert torch.equal(image, pictures().flip(-1) if text != "a circle left of a star" else pictures())
    assert 10 < flipped < 30


@pytest.mark.parametrize("flip", ["skip", "exchange"])
def test_half_of_the_other_pairs_are_flipped(flip: str) -> None:
    flipped = [
        torch.equal(image, pictures().flip(-1)) for image, text in drawn(Augmentation(flip=flip), "a dog", times=400)
    ]
    assert 160 < sum(flipped) < 240


@pytest.mark.parametrize("least_share", [0.05, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 90), (1, 1), (2, 7)])
def test_a_box_lies_inside_and_keeps_its_share(height: int, width: int, least_share: float) -> None:
    generator = random.Random(0)
    boxes = [sample_box(generator, height, width, least_share) for _ in range(500)]
    for top, left, box_height, box_width in boxes:
        assert top >= 0
        assert left >= 0
        assert 1 <= box_height <= height - top
        assert 1 <= box_width <= width - left
        assert box_height * box_width >= least_share * height * width * (1 - 1e-9)
    if least_share == 1:
        assert set(boxes) == {(0, 0, height, width)}


def test_boxes_are_drawn_over_the_whole_range() -> None:
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


def test_a_crop_shows_a_part_of_the_image() -> None:
    columns = torch.arange(40, dtype=torch.uint8).expand(3, 40, 40) * 6  # from left to right, 0 to 234
    seen = set()
    for seed in range(20):
        image, text = Augmentation(crop=0.4)(columns, "a dog", 40, random.Random(seed))
        assert image.shape == (3, 40, 40)
        assert image.dtype == torch.uint8
        assert (image.int().diff(dim=2) >= 0).all()
        assert int(image.int()[0, 0, -1] - image.int()[0, 0, 0]) >= 234 * 0.4 * 0.75
        assert text == "a dog"
        seen.add((int(image[0, 0, 0]), int(image[0, 0, -1])))
    assert len(seen) > 10


def test_the_generator_alone_decides() -> None:
    augment = Augmentation(flip="exchange", crop=0.5)
    one = list(drawn(augment, "left", size=12))
    random.seed(1)
    torch.manual_seed(1)
    again = list(drawn(augment, "left", size=12))
    for (image, text), (same_image, same_text) in zip(one, again, strict=True):
        assert torch.equal(image, same_image)
        assert text == same_text
    assert len({image.numpy().tobytes() for image, _ in one}) > 30


def test_resizing_averages_what_becomes_smaller() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    assert resize(stripes, 64) is stripes
    smaller = resize(stripes, 16)
    assert smaller.shape == (1, 3, 16, 16)
    assert (smaller.int() - 100).abs().max() < 15  # without averaging, all 0 or all 200
    assert resize(stripes[:, :, :50, :40], 70).shape == (1, 3, 70, 70)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["flip"], Augmentation(flip="skip")),
        (["flip:skip"], Augmentation(flip="skip")),
        (["flip:exchange"], Augmentation(flip="exchange")),
        (["crop"], Augmentation(crop=LEAST_SHARE)),
        (["crop:0.6", "flip"], Augmentation(flip="skip", crop=0.6)),
        (["crop:1"], Augmentation(crop=1.0)),
    ],
)
def test_the_command_line_is_read(texts: list[str], expected: Augmentation | None) -> None:
    assert parse_augmentation(texts) == expected


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["mirror"], "no augmentation 'mirror'; there are flip"),
        ([""], "no augmentation ''"),
        (["Flip"], "no augmentation 'Flip'"),
        (["flip:naive"], "flip must be 'skip' or 'exchange', not 'naive'"),
        (["flip:"], "'flip:' ends in a colon"),
        (["flip", "flip:exchange"], "flip is given twice"),
        (["crop:much"], "'crop:much' needs a number"),
        (["crop:0"], "above 0 and at most 1, not 0"),
        (["crop:1.1"], "above 0 and at most 1, not 1.1"),
        (["crop:nan"], "above 0 and at most 1, not nan"),
        (["crop:0.5:0.6"], "needs a number"),
    ],
)
def test_anything_else_is_refused_in_words(texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_augmentation(texts)


def test_scenes_stay_true_when_they_are_flipped() -> None:
    truth, captions = read_truth(DATA / "scenes", "test"), read_captions(DATA / "scenes", "test")[1]
    assert truth is not None
    with_sides = 0
    for scene, own in list(zip(truth[0], captions, strict=True))[:200]:
        mirrored = tuple(thing._replace(place=exchange_sides(thing.place)) for thing in scene)
        assert all(fits(exchange_sides(caption), mirrored) for caption in own)
        with_sides += sum(map(says_side, own))
    assert with_sides > 100
