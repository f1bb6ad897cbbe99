import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.files import InputError
from helpers.scenes.render import (
    EASY,
    HARD,
    LEVELS,
    SPLITS,
    Scene,
    Thing,
    ceiling,
    draw,
    fit_matrix,
    fits,
    held_out_pairs,
    main,
    read_truth,
    truth_oracle,
    write_scenes,
)
from helpers.sources.coco import DATA, read_annotations, read_captions

SMALL = {"train": 60, "val": 20, "test": 20}

SHAPE_WORDS = {"circle", "square", "triangle", "diamond", "star", "cross"}
COLOUR_WORDS = {"red", "orange", "yellow", "green", "blue", "purple", "pink", "black"}
SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
ROW_WORDS = {"top": 0, "upper": 0, "bottom": 2, "lower": 2}
COLUMN_WORDS = {"left": 0, "right": 2}
PIXELS = {place: (12 + 20 * (n % 3), 12 + 20 * (n // 3)) for n, place in enumerate(
    ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"))}  # fmt: skip
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis of the pixels, sign
RELATIONS |= {"higher than": RELATIONS["above"], "lower than": RELATIONS["below"]}


def answers(words: list[str], thing: Thing) -> bool:
    """Whether a thing is as a bag of words says; where it is, in pixels. Independent of the module's own reading."""
    if not SHAPE_WORDS.intersection(words) <= {thing.shape} or not COLOUR_WORDS.intersection(words) <= {thing.colour}:
        return False
    if any(SIZE_WORDS[word] != thing.size for word in words if word in SIZE_WORDS):
        return False
    said = [word for word in words if word in {*ROW_WORDS, *COLUMN_WORDS, "middle", "centre"}]
    row = next((ROW_WORDS[word] for word in said if word in ROW_WORDS), 1)
    column = next((COLUMN_WORDS[word] for word in said if word in COLUMN_WORDS), 1)
    return not said or PIXELS[thing.place] == (12 + 20 * column, 12 + 20 * row)


def fits_by_geometry(caption: str, scene: Scene) -> bool:
    """A second opinion, from the words as bags and the places as pixels."""
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


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "hard"
    write_scenes(root, {"train": 1500, "val": 300, "test": 300}, difficulty=HARD)
    return root


@pytest.mark.parametrize("split", [*SPLITS, "minimal"])
def test_every_caption_is_true_of_its_own_scene(split: str, hard: Path) -> None:
    for root in (DATA / "scenes", hard):
        scenes, _ = read_truth(root, split)
        _, captions = read_captions(root, split)
        assert all(fits(caption, scene) for scene, own in zip(scenes, captions, strict=True) for caption in own)
        assert all(
            fits_by_geometry(caption, scene)
            for scene, own in zip(scenes[:2000], captions, strict=False)
            for caption in own
        )


def test_fits_agrees_with_geometry(hard: Path) -> None:
    for root in (DATA / "scenes", hard):
        scenes, _ = read_truth(root, "val")
        _, captions = read_captions(root, "val")
        generator = random.Random(0)
        verdicts = []
        for _ in range(2000):
            caption, scene = generator.choice(generator.choice(captions)), generator.choice(scenes)
            verdicts.append(fits(caption, scene))
            assert verdicts[-1] == fits_by_geometry(caption, scene), (caption, scene)
        assert 100 < sum(verdicts) < 1900  # both answers were really met


def test_the_matrix_says_the_same_as_fits(hard: Path) -> None:
    for root in (DATA / "scenes", hard):
        scenes, _ = read_truth(root, "val")
        _, captions = read_captions(root, "val")
        flat = [caption for own in captions[:60] for caption in own]
        flat += ["a circle and a circle", "a circle, a star and a cross", "a red circle and a circle above a star"]
        matrix = fit_matrix(flat[:-1], scenes[:60])
        assert matrix.tolist() == [[fits(caption, scene) for caption in flat[:-1]] for scene in scenes[:60]]
        with pytest.raises(ValueError, match="cannot read"):
            fit_matrix(flat[-1:], scenes)
    assert fit_matrix(["a circle"], []).shape == (0, 1)


def test_each_level_has_several_wordings_and_all_of_them_are_made() -> None:
    _, captions = read_captions(DATA / "scenes", "train")
    vague, coloured, related, exact = zip(*captions, strict=True)
    for level, beginnings in (
        (vague, ("a circle", "there is a circle", "a picture of a circle")),
        (coloured, ("a red circle", "there is a red circle", "a circle that is red")),
    ):
        assert all(level.count(caption) > 10 for caption in beginnings)
    for of_level, words in (
        (related, ("to the left of", "left of", "right of", "above", "higher than", "below", "lower than")),
        (exact, ("a small", "a little", "a large", "a big", "in the middle", "in the centre", "in the upper left")),
    ):
        assert all(sum(f" {phrase} " in f" {caption}" for caption in of_level) > 100 for phrase in words)
    assert 0.2 < sum(caption.startswith(("at ", "on ", "in ")) for caption in exact) / len(exact) < 0.45


def test_each_minimal_pair_fits_one_image_of_its_two(hard: Path) -> None:
    for root in (DATA / "scenes", hard):
        records = read_annotations(root, "minimal")
        scenes, _ = read_truth(root, "minimal")
        _, captions = read_captions(root, "minimal")
        kinds = []
        for first in range(0, len(scenes), 2):
            ours = [caption for own in captions[first : first + 2] for caption in own]
            for judge in (fits, fits_by_geometry):
                assert [[judge(text, scene) for text in ours] for scene in scenes[first : first + 2]] == [
                    [True, False],
                    [False, True],
                ]
            assert records[first].image["pair"] == records[first + 1].image["pair"] == first // 2
            kinds.append(records[first].image["kind"])
            # The same words in another order, or one word of side exchanged: nothing that a bag of words can tell.
            if kinds[-1] == "colours":
                assert sorted(ours[0].replace("an ", "a ").split()) == sorted(ours[1].replace("an ", "a ").split())
            else:
                assert re.sub("left|right", "", ours[0]) == re.sub("left|right", "", ours[1])
        assert kinds.count("colours") == kinds.count("sides") == len(kinds) / 2


def test_what_lies_left_lies_left_by_the_margin_that_is_promised() -> None:
    generator = random.Random(0)
    for _ in range(200):
        pixels = np.array(draw((SQUARE, SQUARE._replace(colour="red", place="middle")), generator)).astype(int)
        # Blue where blue outweighs red, and the other way round; half-transparent edges belong to both sides alike.
        left, right = (np.flatnonzero((pixels[:, :, a] - pixels[:, :, b] > 60).any(0)) for a, b in ((2, 0), (0, 2)))
        assert (right[0] + right[-1]) / 2 - (left[0] + left[-1]) / 2 >= 17.5  # 18 but for the rounding to pixels


SQUARE = Thing("square", "blue", "small", "left")
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
        ("there is a circle that is red", True),
        ("a picture of a circle that is blue", False),
        ("at the left a little red circle and on the right a big red circle", True),
        ("a big circle to the right of a little circle", True),
        ("a circle in the centre", False),
    ],
)
def test_fits_on_a_scene_known_by_heart(caption: str, true: bool) -> None:
    assert fits(caption, SCENE) is true
    assert fits(caption, [tuple(thing) for thing in SCENE]) is true


@pytest.mark.parametrize(
    "caption", ["a dog", "red circle", "", "a circle near a square", "a circle a square", "there is", "a 圆"]
)
def test_captions_of_other_words_are_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        fits(caption, SCENE)


def test_what_is_said_twice_is_refused() -> None:
    for caption in ("a red circle that is blue", "at the top a circle on the left"):
        with pytest.raises(ValueError, match="twice"):
            fits(caption, SCENE)


def test_no_scene_stands_twice_and_levels_are_stored() -> None:
    scenes = [scene for split in [*SPLITS, "minimal"] for scene in read_truth(DATA / "scenes", split)[0]]
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
    assert (
        len(files["once"]) == sum(SMALL.values()) + 3 + 2 * 20 + 1
    )  # and as many minimal pairs as there are test scenes
    assert files["once"].keys() == files["other"].keys()
    assert files["once"] != files["other"]


def test_things_are_where_the_caption_says() -> None:
    for place, (x, y) in PIXELS.items():
        pixels = draw((Thing("square", "blue", "large", place),), random.Random(place)).convert("L")
        left, top, right, bottom = pixels.point(lambda value: 255 * (value < 200)).getbbox()
        assert abs((left + right) / 2 - x) <= 1.5
        assert abs((top + bottom) / 2 - y) <= 1.5


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


def test_one_that_knows_only_the_truth_stays_below_the_ceiling() -> None:
    scenes, _ = read_truth(DATA / "scenes", "val")
    _, captions = read_captions(DATA / "scenes", "val")
    scenes, captions = scenes[:150], captions[:150]
    flat = [caption for own in captions for caption in own]
    fit = np.array([[fits(caption, scene) for caption in flat] for scene in scenes])
    oracle = truth_oracle(fit, [index for index, own in enumerate(captions) for _ in own])
    assert oracle["text_to_image"] == pytest.approx(100 * np.mean([1 / column.sum() for column in fit.T]))
    assert oracle["image_to_text"] == pytest.approx(100 * np.mean([4 / row.sum() for row in fit]))
    assert all(oracle[direction] < value for direction, value in ceiling(scenes, captions).items())
    with pytest.raises(ValueError, match="true of its own image"):
        truth_oracle(~fit, [index for index, own in enumerate(captions) for _ in own])


def test_pairs_held_out_of_training_are_new_at_test(hard: Path) -> None:
    new = held_out_pairs(HARD.held_out, 0)
    assert len({colour for colour, _ in new}) == len({shape for _, shape in new}) == len(new) == 6
    having = {}
    for split in SPLITS:
        scenes, _ = read_truth(hard, split)
        having[split] = [any((thing.colour, thing.shape) in new for thing in scene) for scene in scenes]
        assert having[split] == [record.image["held_out"] for record in read_annotations(hard, split)]
        seen = {word for scene in scenes for thing in scene for word in thing[:2]}
        assert seen == SHAPE_WORDS | COLOUR_WORDS
        assert {len(scene) for scene in scenes} == {3, 4, 5, 6}
    assert not any(having["train"] + having["val"])
    assert 0.3 < sum(having["test"]) / len(having["test"]) < 0.6


def test_duplicates_and_wrong_captions_come_at_the_rate_asked_for_in_training_only(tmp_path: Path) -> None:
    sizes = {"train": 1000, "val": 50, "test": 50}
    write_scenes(tmp_path / "noisy", sizes, difficulty=EASY._replace(duplicates=0.2, wrong=0.1))
    scenes, levels = read_truth(tmp_path / "noisy", "train")
    records = read_annotations(tmp_path / "noisy", "train")
    wrong = [annotation.get("wrong", False) for record in records for annotation in record.annotations]
    captions = [annotation["caption"] for record in records for annotation in record.annotations]
    truth = [scene for scene in scenes for _ in LEVELS]
    assert [not fits(caption, scene) for caption, scene in zip(captions, truth, strict=True)] == wrong
    assert 0.08 < sum(wrong) / len(wrong) < 0.12
    assert 0.16 < 1 - len(set(scenes)) / len(scenes) < 0.24
    by_scene = dict(zip(scenes, ([*levels_of] for levels_of in levels), strict=True))
    assert all(levels_of == list(LEVELS) for levels_of in by_scene.values())
    one = next(row for row in range(1000) if scenes.count(scenes[row]) > 1)
    twins = [row for row, scene in enumerate(scenes) if scene == scenes[one]]
    pixels = [records[row].path.read_bytes() for row in twins]
    assert len(set(pixels)) == len(pixels)  # drawn anew, a little off
    for split in ("val", "test"):
        held = read_annotations(tmp_path / "noisy", split)
        assert not any("wrong" in annotation for record in held for annotation in record.annotations)
        assert not set(read_truth(tmp_path / "noisy", split)[0]) & set(scenes)


def test_impossible_captions_have_no_ceiling() -> None:
    with pytest.raises(ValueError, match="scene 0 cannot have got the caption 'a square'"):
        ceiling([SCENE], [["a square"]])
    with pytest.raises(ValueError, match="1 scenes and captions for 0"):
        ceiling([SCENE], [])


def test_the_command_refuses_in_words_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    for arguments, words in (
        (["--out", str(tmp_path / "file" / "new"), "--train", "9", "--val", "1", "--test", "1"], "cannot write"),
        (["--out", str(tmp_path / "there")], "exists already"),
        (["--out", str(tmp_path / "new"), "--train", "0"], "at least one scene"),
        (["--out", str(tmp_path / "new"), "--train", "200000"], "100,000 or fewer"),
        (["--out", str(tmp_path / "new"), "--shapes", "6-3"], "--shapes must be LOW-HIGH"),
        (["--out", str(tmp_path / "new"), "--shapes", "1-10"], "--shapes must be LOW-HIGH"),
        (["--out", str(tmp_path / "new"), "--shapes", "1-1"], "too few different scenes"),
        (["--out", str(tmp_path / "new"), "--scale", "0.1"], "--scale must be"),
        (["--out", str(tmp_path / "new"), "--held-out", "7"], "--held-out must be"),
        (["--out", str(tmp_path / "new"), "--wrong", "1"], "--wrong must be"),
        (["--out", str(tmp_path / "new"), "--duplicates", "-0.1"], "--duplicates must be"),
        (["--out", str(tmp_path / "new"), "--train", "1", "--wrong", "0.9"], "no wrong caption"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "there"]
    assert not any((tmp_path / "there").iterdir())


def test_truth_is_read_from_scenes_only(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", SMALL)
    path = tmp_path / "scenes" / "annotations" / "captions_val.json"
    content = json.loads(path.read_text())
    content["images"][0]["things"][0]["weight"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not as helpers.scenes writes it"):
        read_truth(tmp_path / "scenes", "val")
    for image in content["images"]:
        del image["things"]
    path.write_text(json.dumps(content))
    assert read_truth(tmp_path / "scenes", "val") is None
