"""Shards hold every pair once, and ranks and workers divide them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data import Collate, ImageTextDataset, normalize
from helpers.files import InputError
from helpers.scale.shards import shard_loader, write_shards
from helpers.text import WordTokenizer

CAPTIONS = [[f"image {index}", f"picture {index}"] for index in range(24)]
COLLATE = Collate(WordTokenizer.build(caption for captions in CAPTIONS for caption in captions))


@pytest.fixture(scope="module")
def image_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 images of random pixels, of several shapes."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(24):
        pixels = generator.integers(256, size=(20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def shards(image_paths: list[Path]) -> list[Path]:
    """Six shards of four images."""
    return write_shards(image_paths, CAPTIONS, image_paths[0].parent / "shards", image_size=16, images_per_shard=4)


def image_ids(shards: list[Path], **options) -> list[list[int]]:
    """The image ids of each batch."""
    return [batch["image_ids"].tolist() for batch in shard_loader(shards, 3, COLLATE, normalize, **options)]


def test_batches_are_those_of_the_dataset(shards: list[Path], image_paths: list[Path]) -> None:
    dataset = ImageTextDataset(image_paths, CAPTIONS, image_size=16)
    for batch in shard_loader(shards, 5, COLLATE, normalize):
        expected = COLLATE([dataset[index] for index in batch["image_ids"].tolist()])
        assert batch.keys() == expected.keys()
        assert torch.equal(batch["images"], expected["images"])
        for text, token_ids, index in zip(batch["texts"], batch["token_ids"], batch["image_ids"], strict=True):
            assert text in CAPTIONS[index]
            assert COLLATE.tokenizer.decode(token_ids.tolist()) == text


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_every_pair_once_and_is_shuffled_from_seed_and_epoch(shards: list[Path], workers: int) -> None:
    first = image_ids(shards, workers=workers, seed=1, epoch=3)
    assert sorted(itertools.chain(*first)) == list(range(24))
    assert image_ids(shards, workers=workers, seed=1, epoch=3) == first
    assert image_ids(shards, workers=workers, seed=1, epoch=4) != first
    assert image_ids(shards, workers=workers, seed=3, epoch=1) != first


def test_each_epoch_chooses_among_the_captions(shards: list[Path]) -> None:
    epochs = [shard_loader(shards, 24, COLLATE, normalize, epoch=epoch) for epoch in range(10)]
    texts = {text for loader in epochs for batch in loader for text in batch["texts"]}
    assert texts == {caption for captions in CAPTIONS for caption in captions}


def test_ranks_divide_the_shards(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    ranks = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        ranks.append(image_ids(shards, workers=2))
    assert [len(batches) for batches in ranks] == [4, 4, 4]  # two workers with batches of 3 and 1
    assert sorted(index for batches in ranks for batch in batches for index in batch) == list(range(24))


def test_shards_that_cannot_be_shared_equally_are_refused(shards: list[Path]) -> None:
    with pytest.raises(InputError, match=r"number of shards \(6\) must be a multiple of ranks times workers \(4\)"):
        shard_loader(shards, 3, COLLATE, normalize, workers=4)
