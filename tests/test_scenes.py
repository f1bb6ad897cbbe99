import itertools
import json
import random
from pathlib import Path

import pytest

from helpers.annotations import DATA, read_captions
from helpers.command_line import InputError
from helpers.scenes import LEVELS, SPLITS, Scene, Thing, ceiling, draw, fits, main, read_truth, write_scenes

SMALL = {"train": 60, "val": 20, "test": 20}

CELLS = {
    "top left": (0, 0), "top": (1, 0), "top right": (2, 0),
    "left": (0, 1), "middle": (1, 1), "right": (2, 1),
    "bottom left": (0, 2), "bottom": (1, 2), "bottom right": (2, 2),
}  # fmt: skip
WORDS_OF_PLACE = {"middle": "in the middle", "left": "on the left", "right": "on the right"}
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis, sign


def said_of(thing: Thing) -> list[str]:
    """Every way to describe a thing, written out; independent of the module's own reading of captions."""
    place = WORDS_OF_PLACE.get(thing.place, f"at the {thing.place}")
    ways = []
    for size, colour, where in itertools.product((False, True), repeat=3):
        words = [thing.size] * size + [thing.colour] * colour + [thing.shape] + [place] * where
        ways.append(f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}")
    return ways


def fits_by_geometry(caption: str, scene: Scene) -> bool:
    """A second opinion: some choice of different things is described part by part, relations read off the cells."""
    for words, (axis, sign) in SIDES.items():
        if f" {words} " in caption:
            first, second = caption.split(f" {words} ")
            return any(
                first in said_of(a)
                and second in said_of(b)
                and sign * (CELLS[a.place][axis] - CELLS[b.place][axis]) > 0
                for a, b in itertools.permutations(scene, 2)
            )
    parts = caption.replace(" and a", ", a").split(", ")
    return any(
        all(part in said_of(thing) for part, thing in zip(parts, chosen, strict=True))
        for chosen in itertools.permutations(scene, len(parts))
    )


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_true_of_its_own_scene(split: str) -> None:
    scenes, _ = read_truth(DATA / "scenes", split)
    _, captions = read_captions(DATA / "scenes", split)
    assert len(scenes) == SPLITS[split]
    assert all(fits(caption, scene) for scene, own in zip(scenes, captions, strict=True) for caption in own)


def test_fits_agrees_with_geometry() -> None:
    scenes, _ = read_truth(DATA / "scenes", "val")
    _, captions = read_captions(DATA / "scenes", "val")
    generator = random.Random(0)
    verdicts = []
    for _ in range(4000):
        caption, scene = generator.choice(generator.choice(captions)), generator.choice(scenes)
        verdicts.append(fits(caption, scene))
        assert verdicts[-1] == fits_by_geometry(caption, scene), (caption, scene)
    assert 200 < sum(verdicts) < 3800  # both answers were really met


SCENE = (Thing("circle", "red", "small", "left"), Thing("circle", "red", "large", "right"))


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a circle", True),
        ("A red circle.", True),
        ("a small red circle on the left and a large red circle on the right", True),
        ("a circle and a circle", True),
        ("a small circle and a small circle", False),  # there is one, and it cannot be named twice
        ("a red circle left of a red circle", True),
        ("a small circle right of a large circle", False),
        ("a circle above a circle", False),
        ("a circle, a circle and a circle", False),
        ("an orange circle", False),
    ],
)
def test_fits_on_a_scene_known_by_heart(caption: str, true: bool) -> None:
    assert fits(caption, SCENE) is true
    assert fits(caption, [tuple(thing) for thing in SCENE]) is true


@pytest.mark.parametrize("caption", ["a dog", "red circle", "", "a circle near a square", "a circle a square"])
def test_captions_of_other_words_are_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        fits(caption, SCENE)


def test_no_scene_stands_twice_and_levels_are_stored() -> None:
    scenes = [scene for split in SPLITS for scene in read_truth(DATA / "scenes", split)[0]]
    assert len(set(scenes)) == len(scenes)
    assert all(levels == list(LEVELS) for levels in read_truth(DATA / "scenes", "test")[1])
    assert {len(scene) for scene in scenes} == {1, 2, 3}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("once", 3), ("again", 3), ("other", 4)):
        write_scenes(tmp_path / name, SMALL, seed)
    files = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("once", "again", "other")
    }
    assert files["once"] == files["again"]
    assert len(files["once"]) == sum(SMALL.values()) + 3
    assert files["once"].keys() == files["other"].keys()
    assert files["once"] != files["other"]


def test_things_are_where_the_caption_says() -> None:
    for place, (across, down) in CELLS.items():
        pixels = draw((Thing("square", "blue", "large", place),), random.Random(place)).convert("L")
        left, top, right, bottom = pixels.point(lambda value: 255 * (value < 200)).getbbox()
        assert (int((left + right) / 2 // 22), int((top + bottom) / 2 // 22)) == (across, down)


def test_the_ceiling_on_scenes_worked_out_by_hand() -> None:
    one = (Thing("circle", "red", "small", "left"),)
    two = (Thing("circle", "red", "small", "left"), Thing("star", "blue", "small", "right"))
    # "a circle" is always said of the first, half of the time of the second: 1 against 1/2, so the first is the better
    # answer, right with probability 2/3.
    assert ceiling([one, two], [["a circle"], ["a circle"]]) == pytest.approx(
        {"text_to_image": 100 * 2 / 3, "image_to_text": 100 * (2 / 3 + 1 / 3) / 2}
    )
    # Only the second is ever called a star, and an exact caption of the first is never made for the second.
    exact = "a small red circle on the left"
    assert ceiling([one, two], [[exact], ["a star"]]) == pytest.approx({"text_to_image": 100, "image_to_text": 100})
    assert fits(exact, two)


def test_no_model_that_knows_only_the_truth_passes_the_ceiling() -> None:
    scenes, _ = read_truth(DATA / "scenes", "val")
    _, captions = read_captions(DATA / "scenes", "val")
    scenes, captions = scenes[:150], captions[:150]
    hits = [1 / sum(fits(caption, scene) for scene in scenes) for own in captions for caption in own]
    assert 100 * sum(hits) / len(hits) < ceiling(scenes, captions)["text_to_image"]


def test_impossible_captions_have_no_ceiling() -> None:
    with pytest.raises(ValueError, match="scene 0 cannot have got the caption 'a square'"):
        ceiling([SCENE], [["a square"]])
    with pytest.raises(ValueError, match="1 scenes and captions for 0"):
        ceiling([SCENE], [])


def test_the_command_refuses_in_words_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for arguments, words in (
        (["--out", str(tmp_path / "there")], "exists already"),
        (["--out", str(tmp_path / "new"), "--train", "0"], "at least one scene"),
        (["--out", str(tmp_path / "new"), "--train", "200000"], "100,000 or fewer"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]
    assert not any((tmp_path / "there").iterdir())


def test_truth_is_read_from_scenes_only(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", SMALL)
    path = tmp_path / "scenes" / "annotations" / "captions_val.json"
    content = json.loads(path.read_text())
    content["images"][0]["things"][0]["weight"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not as helpers.scenes writes them"):
        read_truth(tmp_path / "scenes", "val")
    for image in content["images"]:
        del image["things"]
    path.write_text(json.dumps(content))
    assert read_truth(tmp_path / "scenes", "val") is None
