import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from untrained import write_untrained_run

from helpers import evaluation, search
from helpers.data import ImageTextDataset
from helpers.files import InputError
from helpers.runs import load_checkpoint, restore_model
from helpers.search import Found, ImageSearch, encode_images, encode_texts, found_sheet, unknown_words, zero_shot
from helpers.sources.coco import read_captions


@pytest.fixture(scope="module")
def checkpoint(untrained_run: Path) -> dict:
    return load_checkpoint(untrained_run / "last.pt")


@pytest.fixture(scope="module")
def dataset(sixty_scenes: Path) -> ImageTextDataset:
    return ImageTextDataset(*read_captions(sixty_scenes, "test"), image_size=64)


def test_search_ranks_all_images_by_their_cosine(checkpoint: dict, dataset: ImageTextDataset) -> None:
    found = ImageSearch(checkpoint, dataset)("a red circle", top=100)
    model, tokenizer = restore_model(checkpoint)
    with torch.no_grad():
        query = F.normalize(model.text_encoder(*tokenizer(["a red circle"])), dim=1)[0]
        images = F.normalize(model.image_encoder(torch.stack([item["image"] for item in dataset])), dim=1)
    expected = {path: float(image @ query) for path, image in zip(dataset.image_paths, images, strict=True)}
    assert {image.path: image.score for image in found} == pytest.approx(expected, abs=1e-5)
    assert [image.score for image in found] == sorted((image.score for image in found), reverse=True)
    assert ImageSearch(checkpoint, dataset)("a red circle", top=3) == found[:3]


def test_what_was_found_can_be_shown(dataset: ImageTextDataset) -> None:
    found = [Found(path, score) for path, score in zip(dataset.image_paths, (0.5, 0.25, 0.125), strict=False)]
    figure = found_sheet(found, "a red circle")
    assert [axis.get_title() for axis in figure.axes] == ["0.500", "0.250", "0.125"]
    assert figure.get_suptitle() == "a red circle"
    assert all(axis.images for axis in figure.axes)


def test_an_index_is_written_once_and_read_again(
    checkpoint: dict, dataset: ImageTextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index.npz"
    first = ImageSearch(checkpoint, dataset, index)
    assert [path.name for path in tmp_path.iterdir()] == ["index.npz"]
    monkeypatch.setattr(search, "encode_images", lambda *_: pytest.fail("the index was not used"))
    again = ImageSearch(checkpoint, dataset, index)
    assert torch.equal(again.features, first.features)
    assert again("a red circle") == first("a red circle")


def test_an_index_of_another_model_or_other_images_is_refused(
    sixty_scenes: Path, checkpoint: dict, dataset: ImageTextDataset, tmp_path: Path
) -> None:
    index = tmp_path / "index.npz"
    ImageSearch(checkpoint, dataset, index)
    before = index.read_bytes()
    other_model = load_checkpoint(write_untrained_run(sixty_scenes, tmp_path / "other", seed=1) / "last.pt")
    other_words = {**checkpoint, "vocabulary": [*checkpoint["vocabulary"][:-2], *checkpoint["vocabulary"][:-3:-1]]}
    for other in (other_model, other_words):
        with pytest.raises(InputError, match="made with another checkpoint; remove it"):
            ImageSearch(other, dataset, index)
    captions = dataset.captions
    for paths, size in ((dataset.image_paths[::-1], 64), (dataset.image_paths[:-1], 64), (dataset.image_paths, 32)):
        with pytest.raises(InputError, match="is of other images, or they have changed since"):
            ImageSearch(checkpoint, ImageTextDataset(paths, captions[: len(paths)], size), index)
    copies = [Path(shutil.copy2(path, tmp_path)) for path in dataset.image_paths]
    of_copies = ImageTextDataset(copies, captions, image_size=64)
    ImageSearch(checkpoint, of_copies, tmp_path / "copies.npz")
    shutil.copy(copies[0], copies[1])
    with pytest.raises(InputError, match="have changed since"):
        ImageSearch(checkpoint, of_copies, tmp_path / "copies.npz")
    assert index.read_bytes() == before


class Mischief:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("mischief",)


@pytest.mark.parametrize("kind", ["text", "empty", "array", "other names", "cut short", "code", "plain pickle"])
def test_what_is_no_index_is_refused_and_left_alone(
    checkpoint: dict, dataset: ImageTextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whatever code is in it is never run; that it would have, the last lines show."""
    monkeypatch.chdir(tmp_path)
    index = tmp_path / "index.npz"
    ImageSearch(checkpoint, dataset, index)
    whole = index.read_bytes()
    with index.open("wb") as file:
        if kind == "text":
            file.write(b"hello")
        elif kind == "array":
            np.save(file, np.ones(3))
        elif kind == "other names":
            np.savez(file, images=np.ones(3))
        elif kind == "cut short":
            file.write(whole[: len(whole) // 2])
        elif kind == "code":
            np.savez(file, features=np.array([Mischief()]), model="", images="")
        elif kind == "plain pickle":
            pickle.dump(Mischief(), file)
    before = index.read_bytes()
    with pytest.raises(InputError, match="is no index of image features; remove it, or name another file"):
        ImageSearch(checkpoint, dataset, index)
    assert index.read_bytes() == before
    assert not (tmp_path / "mischief").exists()
    if kind in ("code", "plain pickle"):
        loaded = np.load(index, allow_pickle=True)
        _ = loaded["features"] if kind == "code" else loaded
        assert (tmp_path / "mischief").is_dir()


def test_an_index_that_cannot_be_written_is_said_before_anything_is_computed(
    checkpoint: dict, dataset: ImageTextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "encode_images", lambda *_: pytest.fail("too late"))
    with pytest.raises(InputError, match="no folder that you may write in"):
        ImageSearch(checkpoint, dataset, tmp_path / "missing" / "index.npz")


def test_a_full_disk_leaves_no_half_an_index(
    checkpoint: dict, dataset: ImageTextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, **_: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=r"cannot write the index .* \(No space left on device\)"):
        ImageSearch(checkpoint, dataset, tmp_path / "index.npz")
    assert list(tmp_path.iterdir()) == []


def test_words_that_the_model_does_not_know(checkpoint: dict, dataset: ImageTextDataset) -> None:
    find = ImageSearch(checkpoint, dataset)
    assert unknown_words(find.tokenizer, "A zebra, a red ZEBRA and a panda") == ["zebra", "panda"]
    for query in ("zebra", "", " ... "):
        with pytest.raises(InputError, match="knows no word of the query"):
            find(query)
    with pytest.raises(InputError, match="at least one image, not 0"):
        find("a red circle", top=0)


def test_zero_shot_takes_the_mean_of_each_prompt_after_normalising(checkpoint: dict, dataset: ImageTextDataset) -> None:
    model, tokenizer = restore_model(checkpoint)
    with torch.no_grad():  # features of very different lengths, which the mean must not feel
        model.text_encoder.sentence_projection.bias.mul_(50)
    prompts = {"red": ["a red circle", "there is a red star"], "blue": ["a blue circle"]}
    scores = zero_shot(model, tokenizer, dataset, prompts)
    images = encode_images(model, dataset)
    red = F.normalize(encode_texts(model, tokenizer, prompts["red"]).sum(0), dim=0)
    blue = encode_texts(model, tokenizer, prompts["blue"])[0]
    torch.testing.assert_close(scores, torch.stack([images @ red, images @ blue], dim=1))
    for wrong, words in (
        ({}, "there are no classes"),
        ({"red": []}, "the class 'red' needs a list with at least one prompt"),
        ({"red": "a red circle"}, "the class 'red' needs a list"),
        ({"zebra": ["zebra"]}, "no word of the prompts of the class 'zebra'"),
    ):
        with pytest.raises(InputError, match=words):
            zero_shot(model, tokenizer, dataset, wrong)


def test_the_command_prints_the_best_images(
    sixty_scenes: Path,
    untrained_run: Path,
    checkpoint: dict,
    dataset: ImageTextDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    given = ["--checkpoint", str(untrained_run), "--data", str(sixty_scenes), "--query", "a red circle beside a zebra"]
    expected = ImageSearch(checkpoint, dataset)("a red circle beside a zebra", top=3)
    for _ in range(2):  # with a new index, and with one that is there
        assert evaluation.main([*given, "--top", "3", "--index", str(tmp_path / "index.npz")]) == 0
        unknown, *lines = capsys.readouterr().out.splitlines()
        assert unknown == "not known to the model: beside, zebra"
        assert [line.split() for line in lines] == [[f"{score:.3f}", str(path)] for path, score in expected]
    assert evaluation.main([*given, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["unknown_words"] == ["beside", "zebra"]
    assert [image["path"] for image in result["found"][:3]] == [str(path) for path, _ in expected]
    assert len(result["found"]) == 5


def test_the_command_refuses_an_index_in_one_sentence(
    sixty_scenes: Path, untrained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint", str(untrained_run), "--data", str(sixty_scenes), "--index", str(tmp_path / "i.npz")]
    given += ["--query", "a star"]
    assert evaluation.main(given) == 0
    capsys.readouterr()
    assert evaluation.main([*given, "--split", "val"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "is of other images" in printed.err
