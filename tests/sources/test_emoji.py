"""The emoji: different drawings, clean captions in two languages, and the same bytes from the same seed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from helpers.sources import ATTRIBUTION, Record, emoji, read_annotations, read_captions
from helpers.sources.emoji import captions_of, look_alikes, read_names, write_emoji
from helpers.text import split_words

SPLITS = ("train", "val", "test")
FRANCE, FACE = "\U0001f1eb\U0001f1f7", "\U0001f600"
needs_raqm = pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no raqm library here")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "emoji"
    write_emoji(out)
    return out


@pytest.fixture(scope="module")
def records(written: Path) -> dict[str, list[Record]]:
    return {split: read_annotations(written, split) for split in SPLITS}


def test_the_drawings_are_many_and_different_and_lie_inside_the_image(records: dict[str, list[Record]]) -> None:
    images = np.stack([np.asarray(Image.open(one.path)) for split in SPLITS for one in records[split]])
    assert images.shape[1:] == (128, 128, 3)
    assert len(images) >= (1800 if features.check("raqm") else 1300)
    assert len(records["train"]) == round(0.8 * len(images))
    assert len({image.tobytes() for image in images}) == len(images)
    for image in images:
        assert (image != 255).any()
        assert all((edge == 255).all() for edge in (image[[0, -1]], image[:, [0, -1]]))


def test_captions_are_clean_and_fit_one_drawing_each(records: dict[str, list[Record]]) -> None:
    owners: dict[str, Path] = {}
    for record in (record for split in SPLITS for record in records[split]):
        assert {annotation["language"] for annotation in record.annotations} == {"en", "zh"}
        for annotation in record.annotations:
            caption = annotation["caption"]
            assert caption == caption.strip()
            assert not re.search(r"[_#*]|  ", caption), caption
            assert (annotation["language"] == "zh") >= (re.search(r"[\u4e00-\u9fff]", caption) is not None)
            assert owners.setdefault(" ".join(split_words(caption)), record.path) == record.path, caption


def test_every_emoji_is_listed_once_without_skin_tones(records: dict[str, list[Record]]) -> None:
    groups = [record.image["emoji"] for split in SPLITS for record in records[split]]
    sequences = [one for group in groups for one in group]
    assert FACE in sequences
    assert len(set(sequences)) == len(sequences)
    assert not any(0x1F3FB <= ord(character) <= 0x1F3FF for one in sequences for character in one)
    if features.check("raqm"):  # a mechanic and a man mechanic are the same drawing
        assert any({"\U0001f9d1\u200d\U0001f527", "\U0001f468\u200d\U0001f527"} <= set(group) for group in groups)


def test_the_attribution_comes_with_the_drawings(written: Path) -> None:
    text = (written / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert ATTRIBUTION in text
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in text


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = dict(list(read_names().items())[::40])
    monkeypatch.setattr(emoji, "read_names", lambda: some)
    contents = []
    for name, seed in (("once", 3), ("again", 3), ("other", 4)):
        write_emoji(tmp_path / name, seed)
        files = (tmp_path / name).rglob("*.*")
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    once, again, other = contents
    assert once == again != other
    assert once.keys() == other.keys()  # the same drawings in other splits


@needs_raqm
def test_look_alikes_are_one_drawing_with_all_their_captions(records: dict[str, list[Record]]) -> None:
    norway, svalbard, bouvet = "\U0001f1f3\U0001f1f4", "\U0001f1f8\U0001f1ef", "\U0001f1e7\U0001f1fb"
    pictures = [emoji.render_picture(one) for one in (norway, FACE, svalbard, bouvet)]
    assert look_alikes(pictures) == [0, 1, 0, 3]  # the blue of Bouvet Island differs
    both = next(one for split in SPLITS for one in records[split] if norway in one.image["emoji"])
    assert both.image["emoji"] == [norway, svalbard]
    texts = [annotation["caption"] for annotation in both.annotations]
    assert texts == ["flag: Norway", "挪威旗帜", "flag: Svalbard & Jan Mayen", "斯瓦尔巴和扬马延旗帜"]


def test_text_without_a_single_drawing_is_left_out() -> None:
    assert [emoji.render_picture(text) for text in (" ", "\U0010fffe", FACE + FACE)] == [None] * 3


def test_names_become_words_that_a_tokenizer_can_read() -> None:
    captions = {
        FRANCE: {"en": "flag: France", "zh": "法国旗帜"},
        FACE: {"en": "grinning face", "zh": "嘿嘿"},
        "\U0001f468\u200d\U0001f9b0": {"en": "man red hair", "zh": "男人，红发"},  # noqa: RUF001
        "#\ufe0f\u20e3": {"en": "keycap hash", "zh": "按键，井号"},  # noqa: RUF001
    }
    names = read_names()
    assert {one: captions_of(one, names[one]) for one in captions} == captions


@pytest.mark.long
@needs_raqm
def test_names_that_share_words_with_training_find_their_drawing(written: Path, tmp_path: Path) -> None:
    """Recall at 1 is ten times chance, over test captions that share a content word with the training captions."""
    from helpers.data import ImageTextDataset, captions_by_image
    from helpers.evaluation import encode_images, encode_texts, retrieval_metrics, retrieval_ranks
    from helpers.runs import load_checkpoint, restore_model
    from helpers.training import Recipe, train

    train(written, tmp_path / "run", Recipe(epochs=15), cache=tmp_path / "cache")
    model, tokenizer = restore_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    function_words = {"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"}
    trained = {word for own in read_captions(written, "train")[1] for text in own for word in split_words(text)}
    paths, captions = read_captions(written, "test")
    texts, image_of_caption = captions_by_image(captions)
    shares = torch.tensor([bool(trained & set(split_words(text)) - function_words) for text in texts])
    images = encode_images(model, ImageTextDataset(paths, captions, image_size=64))
    similarity = images @ encode_texts(model, tokenizer, texts).T
    ranks = retrieval_ranks(similarity, image_of_caption)["text_to_image"]
    chance = retrieval_metrics(similarity, image_of_caption)["text_to_image"]["chance"]
    assert 0.5 < shares.double().mean() < 0.95
    assert 100 * (ranks[shares] == 1).double().mean() >= 10 * chance
