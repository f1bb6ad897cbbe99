import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.files import DATA, InputError
from helpers.scenes import (
    COLOURS,
    EASY,
    HARD,
    LEVELS,
    SHAPES,
    Scene,
    Thing,
    ceiling,
    fit_matrix,
    fits,
    read_truth,
    render_scene,
    write_scenes,
)
from helpers.scenes.render import SPLITS, false_caption
from helpers.sources import read_annotations, read_captions

SMALL = {"train": 60, "val": 20, "test": 20}
SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
ROW_WORDS = {"top": 0, "upper": 0, "bottom": 2, "lower": 2}
COLUMN_WORDS = {"left": 0, "right": 2}
PIXELS = {place: (12 + 20 * (n % 3), 12 + 20 * (n // 3)) for n, place in enumerate(
    ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"))}  # fmt: skip
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis of the pixels, sign
RELATIONS |= {"higher than": RELATIONS["above"], "lower than": RELATIONS["below"]}


def answers(words: list[str], thing: Thing) -> bool:
    """Whether a thing matches a bag of words, with places as pixels; independent of the module's own reading."""
    if not {*SHAPES}.intersection(words) <= {thing.shape} or not {*COLOURS}.intersection(words) <= {thing.colour}:
        return False
    if any(SIZE_WORDS[word] != thing.size for word in words if word in SIZE_WORDS):
        return False
    places = [word for word in words if word in {*ROW_WORDS, *COLUMN_WORDS, "middle", "centre"}]
    row = next((ROW_WORDS[word] for word in places if word in ROW_WORDS), 1)
    column = next((COLUMN_WORDS[word] for word in places if word in COLUMN_WORDS), 1)
    return not places or PIXELS[thing.place] == (12 + 20 * column, 12 + 20 * row)


def fits_by_geometry(caption: str, scene: Scene) -> bool:
    """A second implementation of ``fits``, from bags of words and pixels."""
    text = caption.replace("to the left of", "left of").replace("to the right of", "right of")
    for words, (axis, sign) in RELATIONS.items():
        if f" {words} " in text:
            first, second = (part.split() for part in text.split(f" {words} "))
            return any(
                answers(first, a) and answers(second, b) and sign * (PIXELS[a.place][axis] - PIXELS[b.place][axis]) > 0
                for a, b in itertools.permutations(scene, 2)
            )
    parts = [part.split() for part in re.split(", | and ", text)]
    return any(
        all(answers(part, thing) for part, thing in zip(parts, chosen, strict=True))
        for chosen in itertools.permutations(scene, len(parts))
    )


def read(root: Path, split: str) -> tuple[list[Scene], list[list[str]]]:
    """The scenes of a split and the captions of each."""
    return read_truth(root, split), read_captions(root, split)[1]


def levels(root: Path, split: str) -> set[tuple[str, ...]]:
    """The levels of the captions of an image, in order: one tuple if all images have the same."""
    return {tuple(a["level"] for a in record.annotations) for record in read_annotations(root, split)}


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "hard"
    write_scenes(root, {"train": 1500, "val": 300, "test": 300}, difficulty=HARD)
    return root


@pytest.fixture(params=["easy", "hard"])
def root(request: pytest.FixtureRequest, hard: Path) -> Path:
    """The folder of the course's easy scenes, then one of hard scenes."""
    return DATA / "scenes" if request.param == "easy" else hard


@pytest.mark.parametrize("split", [*SPLITS, "minimal"])
def test_every_caption_is_true_of_its_own_scene(root: Path, split: str) -> None:
    for row, (scene, captions) in enumerate(zip(*read(root, split), strict=True)):
        assert all(fits(caption, scene) for caption in captions)
        assert row >= 2000 or all(fits_by_geometry(caption, scene) for caption in captions)


def test_fits_agrees_with_geometry(root: Path) -> None:
    scenes, captions = read(root, "val")
    generator = random.Random(0)
    verdicts = []
    for _ in range(2000):
        caption, scene = generator.choice(generator.choice(captions)), generator.choice(scenes)
        verdicts.append(fits(caption, scene))
        assert verdicts[-1] == fits_by_geometry(caption, scene), (caption, scene)
    assert 100 < sum(verdicts) < 1900  # both answers occur


def test_the_fit_matrix_agrees_with_fits(root: Path) -> None:
    scenes, captions = read(root, "val")
    flat = [*itertools.chain(*captions[:60]), "a circle and a circle", "a circle, a star and a cross"]
    assert fit_matrix(flat, scenes[:60]).tolist() == [[fits(text, scene) for text in flat] for scene in scenes[:60]]
    with pytest.raises(ValueError, match="cannot read"):
        fit_matrix(["a red circle and a circle above a star"], scenes)
    assert fit_matrix(["a circle"], []).shape == (0, 1)


def test_each_level_has_several_wordings_and_all_of_them_occur() -> None:
    vague, coloured, related, exact = zip(*read_captions(DATA / "scenes", "train")[1], strict=True)
    for level, captions in (
        (vague, ("a circle", "there is a circle", "a picture of a circle")),
        (coloured, ("a red circle", "there is a red circle", "a circle that is red")),
    ):
        assert all(level.count(caption) > 10 for caption in captions)
    for level, phrases in (
        (related, ("to the left of", "left of", "right of", "above", "higher than", "below", "lower than")),
        (exact, ("a small", "a little", "a large", "a big", "in the middle", "in the centre", "in the upper left")),
    ):
        assert all(sum(f" {phrase} " in f" {caption}" for caption in level) > 100 for phrase in phrases)
    assert 0.2 < sum(caption.startswith(("at ", "on ", "in ")) for caption in exact) / len(exact) < 0.45


def test_a_minimal_pair_cannot_be_told_apart_by_a_bag_of_words(root: Path) -> None:
    records = read_annotations(root, "minimal")
    scenes, captions = read(root, "minimal")
    kinds = []
    for first in range(0, len(scenes), 2):
        pair = [*captions[first], *captions[first + 1]]
        for judge in (fits, fits_by_geometry):
            truth = [[judge(caption, scene) for caption in pair] for scene in scenes[first : first + 2]]
            assert truth == [[True, False], [False, True]]
        assert records[first].image["pair"] == records[first + 1].image["pair"] == first // 2
        kinds.append(records[first].image["kind"])
        if kinds[-1] == "colours":  # the same words in another order
            assert sorted(pair[0].replace("an ", "a ").split()) == sorted(pair[1].replace("an ", "a ").split())
        else:  # only "left" and "right" exchanged
            assert re.sub("left|right", "", pair[0]) == re.sub("left|right", "", pair[1])
    assert kinds.count("colours") == kinds.count("sides") == len(kinds) / 2


SCENE = (Thing("circle", "red", "small", "left"), Thing("circle", "red", "large", "right"))


def test_left_of_means_at_least_18_pixels() -> None:
    generator = random.Random(0)
    for _ in range(200):
        scene = (Thing("square", "blue", "small", "left"), Thing("square", "red", "small", "middle"))
        pixels = np.array(render_scene(scene, generator)).astype(int)
        blue, red = (np.flatnonzero((pixels[:, :, a] - pixels[:, :, b] > 60).any(0)) for a, b in ((2, 0), (0, 2)))
        assert (red[0] + red[-1]) / 2 - (blue[0] + blue[-1]) / 2 >= 17.5  # 18, up to rounding to whole pixels


def test_things_are_where_the_caption_says() -> None:
    for place, (x, y) in PIXELS.items():
        pixels = render_scene((Thing("square", "blue", "large", place),), random.Random(place)).convert("L")
        left, top, right, bottom = pixels.point(lambda value: 255 * (value < 200)).getbbox()
        assert abs((left + right) / 2 - x) <= 1.5
        assert abs((top + bottom) / 2 - y) <= 1.5


TRUE = ("A red circle.", "there is a circle that is red", "a circle and a circle", "a red circle left of a red circle",
    "a big circle to the right of a little circle", "at the left a little red circle and on the right a big red circle",
    "a small red circle on the left and a large red circle on the right")  # fmt: skip
FALSE = ("an orange circle", "a circle in the centre", "a picture of a circle that is blue", "a circle above a circle",
    "a small circle and a small circle", "a small circle right of a large circle",
    "a circle, a circle and a circle")  # fmt: skip
UNREADABLE = ("", "a dog", "a 圆", "red circle", "there is", "a circle near a square", "a circle a square",
    "a red circle that is blue", "at the top a circle on the left")  # fmt: skip


def test_fits_on_a_scene_of_two_circles() -> None:
    for verdict, captions in ((True, TRUE), (False, FALSE)):
        for caption in captions:
            assert fits(caption, SCENE) is fits(caption, [tuple(thing) for thing in SCENE]) is verdict, caption
    for caption in UNREADABLE:
        with pytest.raises(ValueError, match="cannot read"):
            fits(caption, SCENE)


def test_the_ceiling_of_two_scenes_by_hand() -> None:
    one = (Thing("circle", "red", "small", "left"),)
    two = (Thing("circle", "red", "small", "left"), Thing("star", "blue", "small", "right"))
    # Scene one gets "a circle" twice as often as scene two, so it is the better answer, right two times in three.
    assert ceiling([one, two], [["a circle"], ["a circle"]]) == pytest.approx(
        {"text_to_image": 100 * 2 / 3, "image_to_text": 100 * (2 / 3 + 1 / 3) / 2}
    )
    # Only scene two can be called a star. The exact caption is true of scene two, but only made for scene one.
    exact = "a small red circle on the left"
    assert fits(exact, two)
    assert ceiling([one, two], [[exact], ["a star"]]) == pytest.approx({"text_to_image": 100, "image_to_text": 100})


def test_no_two_scenes_are_equal_and_only_scenes_have_their_truth_stored() -> None:
    scenes = [scene for split in [*SPLITS, "minimal"] for scene in read_truth(DATA / "scenes", split)]
    assert len(set(scenes)) == len(scenes)
    assert levels(DATA / "scenes", "test") == {LEVELS}
    assert {len(scene) for scene in scenes} == {1, 2, 3}
    assert read_truth(DATA / "emoji", "val") is None


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name, seed in (("once", 3), ("again", 3), ("other", 4)):
        write_scenes(tmp_path / name, SMALL, seed)
        paths = (tmp_path / name).rglob("*.*")
        files.append({path.relative_to(tmp_path / name): path.read_bytes() for path in paths})
    once, again, other = files
    assert once == again != other
    assert once.keys() == other.keys()
    assert len(once) == sum(SMALL.values()) + 4 + 2 * 20  # images, annotation files, minimal pairs


def test_held_out_pairs_are_new_at_test(hard: Path) -> None:
    new = json.loads((hard / "annotations" / "captions_test.json").read_text())["info"]["held_out"]
    assert len({colour for colour, _ in new}) == len({shape for _, shape in new}) == len(new) == 6
    held_out = {}
    for split in SPLITS:
        scenes = read_truth(hard, split)
        held_out[split] = [any([thing.colour, thing.shape] in new for thing in scene) for scene in scenes]
        assert held_out[split] == [record.image["held_out"] for record in read_annotations(hard, split)]
        assert {word for scene in scenes for thing in scene for word in thing[:2]} == {*SHAPES, *COLOURS}
        assert {len(scene) for scene in scenes} == {3, 4, 5, 6}
    assert not any(held_out["train"] + held_out["val"])
    assert 0.3 < sum(held_out["test"]) / len(held_out["test"]) < 0.6


def test_wrong_captions_are_in_training_only_and_as_many_as_asked(tmp_path: Path) -> None:
    root = tmp_path / "noisy"
    write_scenes(root, {"train": 1000, "val": 50, "test": 50}, difficulty=EASY._replace(wrong=0.1))
    scenes, captions = read(root, "train")
    records = read_annotations(root, "train")
    wrong = [[annotation.get("wrong", False) for annotation in record.annotations] for record in records]
    assert wrong == [[not fits(text, scene) for text in own] for own, scene in zip(captions, scenes, strict=True)]
    assert 0.08 < np.mean(wrong) < 0.12
    assert levels(root, "train") == {LEVELS}
    for split in ("val", "test"):
        annotations = itertools.chain(*(record.annotations for record in read_annotations(root, split)))
        assert not any("wrong" in annotation for annotation in annotations)


def test_a_caption_stays_true_if_all_others_are_true_too() -> None:
    every_shape = tuple(Thing(shape, "red", "small", place) for shape, place in zip(SHAPES, PIXELS, strict=False))
    captions = [f"a {shape}" for shape in SHAPES]
    assert false_caption(every_shape, captions, random.Random(0)) is None
    assert false_caption(every_shape[:-1], captions, random.Random(0)) == "a cross"


def test_impossible_requests_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for sizes, difficulty in ({"train": 0}, EASY), ({}, EASY._replace(wrong=1)):
        with pytest.raises(InputError, match="at least one scene" if sizes else "at least 0 and below 1"):
            write_scenes(tmp_path / "new", SMALL | sizes, difficulty=difficulty)
    assert not any(tmp_path.iterdir())
