import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2
from PIL import Image

from helpers.augmentation import Augmentation, exchange_sides
from helpers.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Collate,
    EpochBatches,
    ImageTextDataset,
    captions_by_image,
    make_loader,
    normalize,
    read_captions,
)
from helpers.files import InputError
from helpers.text import WordTokenizer

Pairs = tuple[list[Path], list[list[str]]]


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    """Twelve images of one colour each, with one to three captions."""
    paths, captions = [], []
    for index in range(12):
        paths.append(tmp_path / f"image{index}.png")
        Image.new("RGB", (40 + index, 30), (20 * index, 255 - 20 * index, 7)).save(paths[-1])
        captions.append([f"caption {number} of image {index}" for number in range(1 + index % 3)])
    return paths, captions


def test_captions_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}]
    captions = [(1, "a dog"), (7, "一只猫"), (1, "a hound")]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(captions)]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    content = json.dumps({"images": images, "annotations": annotations})
    (tmp_path / "annotations" / "captions_val.json").write_text(content, encoding="utf-8")
    expected = [tmp_path / "images" / "b.png", tmp_path / "images" / "a.png"], [["一只猫"], ["a dog", "a hound"]]
    assert read_captions(tmp_path, "val") == expected
    assert read_captions(str(tmp_path), "val") == expected


def test_an_item_is_normalised_as_by_hand(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=32)
    item = dataset[3]
    assert item["image"].shape == (3, 32, 32)
    assert item["image"].dtype == torch.float32
    assert item["image"][0, 5, 5] == pytest.approx((60 / 255 - 0.485) / 0.229, rel=1e-5)
    assert item["image"][2, 0, 0] == pytest.approx((7 / 255 - 0.406) / 0.225, rel=1e-5)
    assert (item["text"], item["image_id"]) == ("caption 0 of image 3", 3)
    assert torch.equal(dataset[-1]["image"], dataset[11]["image"])
    assert ImageTextDataset(*pairs)[0]["image"].shape == (3, 224, 224)


def test_normalize_equals_torchvision() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    theirs = torchvision.transforms.v2.functional.normalize(pixels / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalize(pixels), theirs)
    assert torch.equal(pixels, before)


def test_cached_pixels_give_the_same_items(pairs: Pairs, tmp_path: Path) -> None:
    settings = {"image_size": (48, 32), "augment": Augmentation("exchange", 0.5)}
    fresh, cached = ImageTextDataset(*pairs, **settings), ImageTextDataset(*pairs, **settings)
    cached.use_cache(tmp_path / "cache")
    for index in range(12):
        assert torch.equal(fresh[index]["image"], cached[index]["image"])
        assert fresh[index]["text"] == cached[index]["text"]


def test_rows_of_one_image_share_its_id_and_its_place_in_the_cache(pairs: Pairs, tmp_path: Path) -> None:
    paths = [path for path in pairs[0] for _ in range(3)]
    dataset = ImageTextDataset(paths, ["x"] * 36, image_size=16)
    assert dataset.image_ids == [3 * (row // 3) for row in range(36)]
    dataset.use_cache(tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.npy")
    assert len(np.load(file)) == 12
    for index in range(36):
        assert torch.equal(dataset[index]["image"], normalize(dataset.decode(index)))


def test_a_dataset_pickles_without_its_pixels(pairs: Pairs, tmp_path: Path) -> None:
    dataset = ImageTextDataset(*pairs, image_size=256)
    dataset.use_cache(tmp_path / "cache")
    dataset.set_epoch(3)
    packed = pickle.dumps(dataset)
    assert len(packed) < 10_000
    unpacked = pickle.loads(packed)
    for index in range(12):
        assert torch.equal(unpacked[index]["image"], dataset[index]["image"])
        assert unpacked[index]["text"] == dataset[index]["text"]


def test_each_batch_has_one_size_by_seed_and_epoch_and_first_row(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=(16, 32, 24), seed=4)
    assert dataset.image_size == 32
    assert dataset.decode(0).shape == (3, 32, 32)
    shapes = []
    for epoch in range(20):
        dataset.set_epoch(epoch)
        shapes.append(dataset.batch([5, 1, 2])["images"].shape[1:])
        assert dataset.batch([5, 9])["images"].shape[1:] == shapes[-1]
    assert set(shapes) == {(3, 16, 16), (3, 24, 24), (3, 32, 32)}
    again = ImageTextDataset(*pairs, image_size=(16, 32, 24), seed=4)
    again.set_epoch(19)
    assert again[5]["image"].shape == shapes[-1]


def test_augmentation_depends_on_seed_epoch_and_row_alone(pairs: Pairs) -> None:
    paths = pairs[0]
    for path in paths:
        Image.effect_noise((50, 40), 60).convert("RGB").save(path)
    texts = [f"dog {index} on the left" for index in range(12)]

    def items(seed: int, epoch: int, order: list[int]) -> dict[int, tuple[bytes, str]]:
        dataset = ImageTextDataset(paths, texts, 32, seed, Augmentation("exchange", 0.3))
        dataset.set_epoch(epoch)
        batch = dataset.batch(order)
        return {
            row: (image.numpy().tobytes(), captions[0])
            for row, image, captions in zip(order, batch["images"], batch["texts"], strict=True)
        }

    one = items(0, 0, list(range(12)))
    assert items(0, 0, list(range(11, -1, -1))) == one
    assert {row: items(0, 0, [row])[row] for row in range(12)} == one
    for other in (items(1, 0, list(range(12))), items(0, 1, list(range(12)))):
        assert sum(other[row][0] != one[row][0] for row in range(12)) > 9
        assert 0 < sum(other[row][1] != one[row][1] for row in range(12)) < 12
    exchanged = [row for row in range(12) if one[row][1] == f"dog {row} on the right"]
    assert 0 < len(exchanged) < 12


def test_the_sampled_caption_is_the_one_augmented(pairs: Pairs) -> None:
    captions = [[f"{number} left", f"{number} a dog", f"{number} right"] for number in range(12)]
    dataset = ImageTextDataset(pairs[0], captions, 32, augment=Augmentation(flip="exchange"))
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for row in range(12):
            (sampled,) = dataset.sample_captions(row)
            assert dataset[row]["text"] in (sampled, exchange_sides(sampled))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda paths, texts: (paths, texts[:-1]), "12 images and 11 texts"),
        (lambda paths, texts: (paths[:-1], texts), "11 images and 12 texts"),
        (lambda paths, texts: ([], []), "no pairs"),
        (lambda paths, texts: ([*paths[:-1], paths[0].with_name("gone.png")], texts), "1 of 12 image files"),
        (lambda paths, texts: (paths, [*texts[:-1], []]), "text 11 .of image11.png. has an empty caption"),
        (lambda paths, texts: (paths, [*texts[:-1], ["fine", " "]]), "text 11"),
        (lambda paths, texts: (paths, [*texts[:-1], [None]]), "text 11"),
        (lambda paths, texts: (paths, "twelve texts"), "not one string"),
    ],
)
def test_lists_that_are_not_pairs_are_refused(pairs: Pairs, change, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ImageTextDataset(*change(*pairs))


@pytest.mark.parametrize("image_size", [0, -1, [], [64, 0], [32.5], "64"])
def test_impossible_image_sizes_are_refused(pairs: Pairs, image_size: object) -> None:
    with pytest.raises(InputError, match="image_size must be a whole number of pixels"):
        ImageTextDataset(*pairs, image_size=image_size)


def test_a_broken_image_is_named_when_it_is_read(pairs: Pairs, tmp_path: Path) -> None:
    pairs[0][4].write_bytes(b"not an image")
    dataset = ImageTextDataset(*pairs, image_size=32)
    with pytest.raises(InputError, match=r"image4\.png"):
        dataset[4]
    with pytest.raises(InputError, match=r"image4\.png"):
        dataset.use_cache(tmp_path / "cache")
    with pytest.raises(IndexError):
        dataset[12]


def test_captions_of_every_script_pass_through(pairs: Pairs) -> None:
    captions = [
        "word " * 10_000,
        "كلب على اليسار",
        "שני כלבים",
        "🐶🐕‍🦺 👍🏽",
        "e\u0301te\u0301",
        "\u202edesrever",
        "两只狗",
        "a",
    ]
    dataset = ImageTextDataset(pairs[0][:8], captions, image_size=32, augment=Augmentation("skip", 0.5))
    batch = Collate(WordTokenizer.build(captions))(dataset.__getitems__(range(8)))
    assert batch["texts"] == captions
    assert len(batch["token_ids"]) == len(batch["images"]) == 8


def test_captions_are_sampled_by_seed_and_epoch(pairs: Pairs) -> None:
    def sample(seed: int, epoch: int) -> list[str]:
        dataset = ImageTextDataset(*pairs, image_size=32, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset.sample_captions(index)[0] for index in range(12)]

    assert sample(0, 1) == sample(0, 1)
    assert len({tuple(sample(seed, epoch)) for seed in range(2) for epoch in range(4)}) > 5
    seen = {sample(0, epoch)[2] for epoch in range(30)}
    assert seen == {f"caption {number} of image 2" for number in range(3)}


def test_several_captions_per_image_differ_and_longer_ones_come_first_more_often(pairs: Pairs) -> None:
    captions = [["one", "two words", "now four words here"]] * 12
    dataset = ImageTextDataset(pairs[0], captions, image_size=32, captions_per_image=2)
    first = []
    for epoch in range(100):
        dataset.set_epoch(epoch)
        for row in range(12):
            sampled = dataset.sample_captions(row)
            assert len(set(sampled)) == 2
            first.append(sampled[0])
    shares = [first.count(caption) / len(first) for caption in captions[0]]
    assert shares == pytest.approx([1 / 21, 4 / 21, 16 / 21], abs=0.05)  # weights 1, 4 and 16: words squared
    item = dataset[0]
    assert [item["text"], *item["further_texts"]] == dataset.sample_captions(0)


def batches_of(
    pairs: Pairs, workers: int, context: str | None, epochs: int = 2, cache: Path | None = None
) -> list[dict]:
    varied = {"image_size": (32, 24), "augment": Augmentation("exchange", 0.5)} if cache else {"image_size": 32}
    dataset = ImageTextDataset(*pairs, seed=5, **varied)
    if cache:
        dataset.use_cache(cache)
    tokenizer = WordTokenizer.build([caption for own in pairs[1] for caption in own])
    loader = make_loader(dataset, tokenizer, batch_size=5, seed=5, workers=workers)
    loader.multiprocessing_context = context
    batches = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.mark.parametrize(
    ("context", "cached", "epochs"),
    [("fork", False, 2), ("fork", True, 2), ("spawn", True, 1)],  # a spawned worker takes seconds to start
)
def test_workers_change_nothing(pairs: Pairs, tmp_path: Path, context: str, cached: bool, epochs: int) -> None:
    cache = tmp_path / "cache" if cached else None
    alone, helped = (batches_of(pairs, *workers, epochs, cache) for workers in ((0, None), (2, context)))
    assert len(alone) == len(helped) == 2 * epochs  # two full batches of five per epoch
    for one, other in zip(alone, helped, strict=True):
        assert one["texts"] == other["texts"]
        for key in ("images", "token_ids", "padding", "image_ids"):
            assert torch.equal(one[key], other[key])
    assert alone[0]["texts"] != alone[-2]["texts"] or epochs == 1


def test_running_workers_see_the_epoch_change(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=32)
    tokenizer = WordTokenizer.build([caption for own in pairs[1] for caption in own])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=12, collate_fn=Collate(tokenizer), num_workers=1, persistent_workers=True
    )
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert next(iter(loader))["texts"] == [dataset.sample_captions(index)[0] for index in range(12)]


def test_a_batch_has_the_images_and_captions_of_its_items(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=32, captions_per_image=2)
    items = [dataset[row] for row in (3, 1, 2)]
    assert all(item["text"].endswith(f"of image {item['image_id']}") for item in items)
    batch = Collate(WordTokenizer.build([caption for own in pairs[1] for caption in own]))(items)
    assert torch.equal(batch["images"], dataset.batch([3, 1, 2])["images"])
    assert batch["image_ids"].tolist() == [3, 1, 2]
    assert batch["texts"] == [item["text"] for item in items]
    (further,) = batch["further_texts"]
    assert further["texts"] == [item["further_texts"][0] for item in items]
    assert further["token_ids"].shape == further["padding"].shape
    assert torch.equal(torch.stack([item["image"] for item in dataset.__getitems__([3, 1, 2])]), batch["images"])


def test_epochs_shuffle_without_repeats_and_resume_in_the_middle() -> None:
    batches = EpochBatches(10, 3, seed=1)
    first = list(batches)
    assert len(first) == len(batches) == 3
    assert len({row for batch in first for row in batch}) == 9
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0, first_batch=2)
    assert list(batches) == first[2:]
    assert list(EpochBatches(2, 256)) in ([[0, 1]], [[1, 0]])


def test_ranks_share_each_batch(pairs: Pairs) -> None:
    complete = EpochBatches(20, 6, seed=1)
    parts = [list(EpochBatches(20, 6, seed=1, rank=rank, ranks=3)) for rank in range(3)]
    for batch, *shares in zip(complete, *parts, strict=True):
        assert [row for share in shares for row in share] == batch
    with pytest.raises(InputError, match="a batch of 6 pairs cannot be shared equally by 4 processes"):
        EpochBatches(20, 6, rank=0, ranks=4)


def test_captions_by_image() -> None:
    all_captions, image_of_caption = captions_by_image([["a", "b"], ["c"]])
    assert all_captions == ["a", "b", "c"]
    assert image_of_caption.tolist() == [0, 0, 1]
