import json
import pickle
import random
import subprocess
import sys
from collections import Counter
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
)
from helpers.files import InputError
from helpers.sources.coco import read_captions
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


def write_layout(root: Path, images: object, annotations: object) -> Path:
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "captions_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations}), encoding="utf-8"
    )
    return root


IMAGE = {"id": 1, "file_name": "a.png"}
CAPTION = {"id": 1, "image_id": 1, "caption": "a dog"}


def test_the_layout_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "b.png"}, IMAGE]
    annotations = [
        CAPTION,
        {"id": 2, "image_id": 7, "caption": "一只猫"},
        {"id": 3, "image_id": 1, "caption": "a hound"},
    ]
    root = write_layout(tmp_path / "set", images, annotations)
    paths, captions = read_captions(root, "val")
    assert paths == [root / "images" / "b.png", root / "images" / "a.png"]
    assert captions == [["一只猫"], ["a dog", "a hound"]]
    assert read_captions(str(root), "val") == (paths, captions)


@pytest.mark.parametrize(
    ("images", "annotations", "words"),
    [
        ([], [], "has no images"),
        ({}, [], "two lists"),
        ([IMAGE], None, "two lists"),
        ([IMAGE, {"id": 2, "file_name": "b.png"}], [CAPTION], "1 of 2 images have no caption, first b.png"),
        ([IMAGE], [CAPTION, {"image_id": 9, "caption": "x"}], "annotation 1 belongs to image 9"),
        ([IMAGE], [{"image_id": "1", "caption": "x"}], "belongs to image '1'"),
        ([IMAGE], [{"image_id": 1, "caption": "  "}], "empty caption"),
        ([IMAGE], [{"image_id": 1, "caption": 3}], "empty caption"),
        ([IMAGE], [{"image_id": 1}], "annotation 0 has no 'caption'"),
        ([IMAGE], ["a dog"], "must be an object, not str"),
        ([{"id": 1}], [CAPTION], "image 0 has no 'file_name'"),
        ([{"id": [1], "file_name": "a.png"}], [CAPTION], "no number or text"),
        ([IMAGE, IMAGE], [CAPTION], "image 1 repeats the id 1"),
        ([{"id": 1, "file_name": "../a.png"}], [CAPTION], "must lie inside"),
        ([{"id": 1, "file_name": "/etc/a.png"}], [CAPTION], "must lie inside"),
        ([{"id": 1, "file_name": ""}], [CAPTION], "must lie inside"),
    ],
)
def test_a_faulty_file_is_refused_in_words(tmp_path: Path, images: object, annotations: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_captions(write_layout(tmp_path / "set", images, annotations), "val")


def test_missing_folders_and_broken_json_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        read_captions(tmp_path / "nowhere", "val")
    with pytest.raises(InputError, match="it needs annotations"):
        read_captions(tmp_path, "val")
    root = write_layout(tmp_path / "set", [IMAGE], [CAPTION])
    with pytest.raises(InputError, match="no split 'train'; its splits are: val"):
        read_captions(root, "train")
    for content in (b'{"images": [', b"\xff\xfe", b""):
        (root / "annotations" / "captions_val.json").write_bytes(content)
        with pytest.raises(InputError, match="not valid JSON"):
            read_captions(root, "val")


def test_an_item_is_normalised_by_hand_arithmetic(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=32)
    item = dataset[3]
    assert item["image"].shape == (3, 32, 32)
    assert item["image"].dtype == torch.float32
    assert item["image"][0, 5, 5] == pytest.approx((60 / 255 - 0.485) / 0.229, rel=1e-5)
    assert item["image"][2, 0, 0] == pytest.approx((7 / 255 - 0.406) / 0.225, rel=1e-5)
    assert (item["text"], item["image_id"]) == ("caption 0 of image 3", 3)
    assert torch.equal(dataset[-1]["image"], dataset[11]["image"])
    assert ImageTextDataset(*pairs)[0]["image"].shape == (3, 224, 224)


def test_normalising_is_torchvisions() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = torchvision.transforms.v2.functional.normalize(pixels / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalize(pixels), theirs)


def test_normalising_leaves_the_pixels_alone() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256).contiguous()
    normalize(pixels)
    assert torch.equal(pixels[0, 0], torch.arange(256, dtype=torch.uint8))


def test_cached_pixels_give_the_same_items(pairs: Pairs, tmp_path: Path) -> None:
    settings = {"image_size": (48, 32), "augment": Augmentation("exchange", 0.5)}
    fresh, cached = ImageTextDataset(*pairs, **settings), ImageTextDataset(*pairs, **settings)
    cached.use_cache(tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").glob("*px*")] == [".npy"]
    for index in range(12):
        assert torch.equal(fresh[index]["image"], cached[index]["image"])
        assert fresh[index]["text"] == cached[index]["text"]


def test_rows_that_share_an_image_share_its_place_in_the_cache(pairs: Pairs, tmp_path: Path) -> None:
    paths = [path for path in pairs[0] for _ in range(3)]
    dataset = ImageTextDataset(paths, ["x"] * 36, image_size=16)
    dataset.use_cache(tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.npy")
    assert len(np.load(file)) == 12
    for index in range(36):
        assert torch.equal(dataset[index]["image"], normalize(dataset.decode(index)))


def test_a_dataset_travels_without_its_pixels(pairs: Pairs, tmp_path: Path) -> None:
    dataset = ImageTextDataset(*pairs, image_size=256)
    dataset.use_cache(tmp_path / "cache")
    dataset.set_epoch(3)
    packed = pickle.dumps(dataset)
    assert len(packed) < 10_000
    unpacked = pickle.loads(packed)
    for index in range(12):
        assert torch.equal(unpacked[index]["image"], dataset[index]["image"])
        assert unpacked[index]["text"] == dataset[index]["text"]


def test_memory_does_not_grow_while_a_cache_is_read_again_and_again(tmp_path: Path) -> None:
    """In a process of its own, whose memory no other test has used. The cache is 75 MB, a batch of floats 5 MB."""
    paths = []
    for index in range(500):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (8, 8), (index % 256, 0, 0)).save(paths[-1])
    script = """
import sys
from pathlib import Path
from helpers.data import ImageTextDataset, make_loader
from helpers.text import WordTokenizer
folder = Path(sys.argv[1])
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
dataset = ImageTextDataset(sorted(folder.glob("*.png")), ["a dog"] * 500, image_size=224)
dataset.use_cache(folder / "cache")
loader = make_loader(dataset, WordTokenizer.build(["a dog"]), batch_size=8)
next(iter(loader))
before = resident()
grown = []
for epoch in range(5):
    dataset.set_epoch(epoch)
    loader.batch_sampler.set_epoch(epoch)
    for batch in loader:
        pass
    del batch
    grown.append(resident() - before)
print(max(grown))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert float(answer.stdout) < 50


def test_one_size_a_batch_by_seed_and_epoch_and_first_row(pairs: Pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=(16, 32, 24), seed=4)
    assert dataset.image_size == 32
    assert dataset.decode(0).shape == (3, 32, 32)
    met = []
    for epoch in range(20):
        dataset.set_epoch(epoch)
        items = dataset.__getitems__([5, 1, 2])
        sizes = {tuple(item["image"].shape) for item in items}
        assert len(sizes) == 1
        met += sizes
        assert dataset.__getitems__([5, 9])[0]["image"].shape == items[0]["image"].shape
    assert set(met) == {(3, 16, 16), (3, 24, 24), (3, 32, 32)}
    again = ImageTextDataset(*pairs, image_size=(16, 32, 24), seed=4)
    again.set_epoch(19)
    assert tuple(again.__getitems__([5])[0]["image"].shape) == met[-1]


def test_smaller_sizes_are_made_from_the_largest_with_averaging(tmp_path: Path) -> None:
    stripes = torch.zeros(64, 64, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes.numpy()).save(tmp_path / "stripes.png")
    dataset = ImageTextDataset([tmp_path / "stripes.png"], ["x"], image_size=[64, 16])
    images = []
    for epoch in range(12):
        dataset.set_epoch(epoch)
        images.append(dataset[0]["image"])
    small = next(image for image in images if image.shape[-1] == 16)
    grey = normalize(torch.full((3, 16, 16), 128, dtype=torch.uint8))
    assert (small - grey).abs().max() < 0.3  # all black or all white without averaging, more than 1.5 off


@pytest.mark.parametrize("image_size", [0, -1, [], [64, 0], [32.5], "64", ["64"]])
def test_sizes_that_are_none_are_refused(pairs: Pairs, image_size: object) -> None:
    with pytest.raises(InputError, match="image_size must be a whole number of pixels"):
        ImageTextDataset(*pairs, image_size=image_size)


def test_augmentation_is_drawn_by_seed_epoch_and_row(pairs: Pairs) -> None:
    def items(seed: int, epoch: int, order: list[int]) -> dict[int, tuple[bytes, str]]:
        dataset = ImageTextDataset(paths, texts, 32, seed, Augmentation("exchange", 0.3))
        dataset.set_epoch(epoch)
        made = dataset.__getitems__(order)
        return {row: (item["image"].numpy().tobytes(), item["text"]) for row, item in zip(order, made, strict=True)}

    paths = pairs[0]
    for path in paths:
        Image.effect_noise((50, 40), 60).convert("RGB").save(path)
    texts = [f"dog {index} on the left" for index in range(12)]
    one = items(0, 0, list(range(12)))
    assert items(0, 0, list(range(11, -1, -1))) == one
    assert {row: items(0, 0, [row])[row] for row in range(12)} == one
    for other in (items(1, 0, list(range(12))), items(0, 1, list(range(12)))):
        assert sum(other[row][0] != one[row][0] for row in range(12)) > 9
        assert 0 < sum(other[row][1] != one[row][1] for row in range(12)) < 12
    exchanged = [row for row in range(12) if one[row][1] == f"dog {row} on the right"]
    assert 0 < len(exchanged) < 12


def test_the_caption_drawn_is_the_one_augmented(pairs: Pairs) -> None:
    captions = [[f"{number} left", f"{number} a dog", f"{number} right"] for number in range(12)]
    dataset = ImageTextDataset(pairs[0], captions, 32, augment=Augmentation(flip="exchange"))
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for row in range(12):
            assert dataset[row]["text"] in (dataset.draw_caption(row), exchange_sides(dataset.draw_caption(row)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda paths, texts: (paths, texts[:-1]), "12 images and 11 texts"),
        (lambda paths, texts: (paths[:-1], texts), "11 images and 12 texts"),
        (lambda paths, texts: ([], []), "no pairs"),
        (
            lambda paths, texts: ([*paths[:-1], paths[0].with_name("gone.png")], texts),
            "1 of 12 image files are missing",
        ),
        (lambda paths, texts: (paths, [*texts[:-1], []]), "text 11 .of image11.png. has an empty caption"),
        (lambda paths, texts: (paths, [*texts[:-1], ["fine", " "]]), "text 11"),
        (lambda paths, texts: (paths, [*texts[:-1], ""]), "text 11"),
        (lambda paths, texts: (paths, [*texts[:-1], [None]]), "text 11"),
        (lambda paths, texts: (paths, "twelve texts"), "not one string"),
    ],
)
def test_pairs_that_are_none_are_refused_when_the_dataset_is_made(pairs, change, words) -> None:
    with pytest.raises(InputError, match=words):
        ImageTextDataset(*change(*pairs))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_broken_pixels_are_named_when_they_are_read(pairs: Pairs, tmp_path: Path, content: bytes) -> None:
    pairs[0][4].write_bytes(content)
    dataset = ImageTextDataset(*pairs, image_size=32)
    with pytest.raises(InputError, match="cannot read the image .*image4.png"):
        dataset[4]
    with pytest.raises(InputError, match="image4.png"):
        dataset.use_cache(tmp_path / "cache")
    with pytest.raises(IndexError):
        dataset[12]


def test_a_truncated_image_is_refused(pairs) -> None:
    path = pairs[0][4]
    noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="image4.png"):
        ImageTextDataset(*pairs, image_size=32)[4]


def test_captions_of_every_kind_pass_through(pairs: Pairs) -> None:
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


def test_captions_are_drawn_by_seed_and_epoch(pairs) -> None:
    def drawn(seed: int, epoch: int) -> list[str]:
        dataset = ImageTextDataset(*pairs, image_size=32, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset.draw_caption(index) for index in range(12)]

    assert drawn(0, 1) == drawn(0, 1)
    assert len({tuple(drawn(seed, epoch)) for seed in range(2) for epoch in range(4)}) > 5
    met = {drawn(0, epoch)[2] for epoch in range(30)}
    assert met == {f"caption {number} of image 2" for number in range(3)}


def test_rows_of_one_image_share_its_id(pairs) -> None:
    paths = [pairs[0][0], pairs[0][1], pairs[0][0]]
    assert ImageTextDataset(paths, ["x", "y", "z"]).image_ids == [0, 1, 0]


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
    [("fork", False, 2), ("fork", True, 2), ("spawn", True, 1)],  # a worker that starts anew takes seconds
)
def test_workers_change_nothing(pairs: Pairs, tmp_path: Path, context: str, cached: bool, epochs: int) -> None:
    cache = tmp_path / "cache" if cached else None
    alone, helped = (batches_of(pairs, *workers, epochs, cache) for workers in ((0, None), (2, context)))
    assert len(alone) == len(helped) == 2 * epochs  # two whole batches of five an epoch
    for one, other in zip(alone, helped, strict=True):
        assert one["texts"] == other["texts"]
        for key in ("images", "token_ids", "padding", "image_ids"):
            assert torch.equal(one[key], other[key])
    assert alone[0]["texts"] != alone[-2]["texts"] or epochs == 1


def test_running_workers_see_the_epoch_change(pairs) -> None:
    dataset = ImageTextDataset(*pairs, image_size=32)
    tokenizer = WordTokenizer.build([caption for own in pairs[1] for caption in own])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=12, collate_fn=Collate(tokenizer), num_workers=1, persistent_workers=True
    )
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert next(iter(loader))["texts"] == [dataset.draw_caption(index) for index in range(12)]


def test_a_batch_is_ready_for_the_encoders(pairs) -> None:
    batch = batches_of(pairs, 0, None, epochs=1)[0]
    assert batch["images"].shape == (5, 3, 32, 32)
    assert batch["token_ids"].shape == batch["padding"].shape
    assert batch["padding"].dtype == torch.bool
    assert len(batch["texts"]) == len(batch["image_ids"]) == 5
    for text, image_id in zip(batch["texts"], batch["image_ids"].tolist(), strict=True):
        assert text.endswith(f"of image {image_id}")


def test_epochs_shuffle_without_repeats_and_go_on_where_they_stopped() -> None:
    batches = EpochBatches(10, 3, seed=1)
    first = list(batches)
    assert len(first) == len(batches) == 3
    assert len({row for batch in first for row in batch}) == 9
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0, first_batch=2)
    assert list(batches) == first[2:]
    assert list(EpochBatches(2, 256)) in ([[0, 1]], [[1, 0]])


def test_a_batch_of_images_is_not_copied_unless_the_items_were_changed(pairs: Pairs) -> None:
    dataset, collate = ImageTextDataset(*pairs, image_size=32), Collate(WordTokenizer.build(["a"]))
    items = dataset.__getitems__(range(12))
    assert collate(items)["images"].data_ptr() == items[0]["image"].data_ptr()
    stacked = torch.stack([item["image"] for item in items])
    assert torch.equal(collate(items)["images"], stacked)
    assert torch.equal(collate(list(items))["images"], stacked)
    items[3] = items[3] | {"image": torch.zeros(3, 32, 32)}
    assert collate(items)["images"][3].abs().sum() == 0
    items = dataset.__getitems__(range(12))
    items[4]["image"] = items[4]["image"].flip(-1) + 1
    assert torch.equal(collate(items)["images"][4], items[4]["image"])
    items = dataset.__getitems__(range(12))
    items.reverse()
    assert torch.equal(collate(items)["images"], stacked.flip(0))
    assert len(collate(items[:5])["images"]) == 5
    del items[0]
    assert len(collate(items)["images"]) == 11


def five_captions(images: int) -> list[int]:
    return [image for image in range(images) for _ in range(5)]


def test_rows_of_one_image_meet_in_a_batch_unless_they_are_kept_apart() -> None:
    image_ids = five_captions(60)

    def doubles(batches: EpochBatches) -> int:
        return sum(len(batch) - len({image_ids[row] for row in batch}) for batch in batches)

    assert doubles(EpochBatches(300, 30)) > 5
    apart = EpochBatches(300, 30, image_ids=image_ids)
    for epoch in range(10):
        apart.set_epoch(epoch)
        batches = list(apart)
        assert len(batches) == len(apart) == 10
        assert doubles(apart) == 0
        assert {len(batch) for batch in batches} == {30}
        assert len({row for batch in batches for row in batch}) == 300
        apart.set_epoch(epoch, first_batch=7)
        assert list(apart) == batches[7:]
    assert list(EpochBatches(300, 30, seed=1, image_ids=image_ids)) != list(EpochBatches(300, 30, image_ids=image_ids))


def test_rows_that_need_not_wait_keep_their_order() -> None:
    assert list(EpochBatches(100, 10, seed=3, image_ids=range(100))) == list(EpochBatches(100, 10, seed=3))


def most_by_trying(rows_of_images: list[int], batch_size: int) -> int:
    """The most batches there can be: always take the images with most rows left, which is known to be best."""
    left, batches = sorted(rows_of_images, reverse=True), 0
    while len(left) >= batch_size and left[batch_size - 1] > 0:
        left = sorted([*(rows - 1 for rows in left[:batch_size]), *left[batch_size:]], reverse=True)
        batches += 1
    return batches


def test_as_many_batches_as_can_be_are_made_whatever_the_numbers_of_rows() -> None:
    generator = random.Random(0)
    tried = 0
    for _ in range(400):
        rows_of_images = [generator.choice((1, 1, 2, 5, 12)) for _ in range(generator.randint(2, 14))]
        image_ids = [image for image, rows in enumerate(rows_of_images) for _ in range(rows)]
        size = generator.randint(2, len(rows_of_images))
        batches = EpochBatches(len(image_ids), size, seed=generator.random(), image_ids=image_ids)
        made = list(batches)
        assert len(made) == len(batches) == most_by_trying(rows_of_images, size)
        assert all(len({image_ids[row] for row in batch}) == len(batch) == size for batch in made)
        assert max(Counter(row for batch in made for row in batch).values()) == 1
        tried += len(batches) < len(image_ids) // size
    assert tried > 50  # images with so many rows that some must be dropped


def test_batches_that_cannot_be_kept_apart_are_refused(pairs: Pairs) -> None:
    with pytest.raises(
        InputError, match="a batch of 30 rows without two of one image needs .* there are 20; choose smaller"
    ):
        EpochBatches(100, 30, image_ids=five_captions(20))
    with pytest.raises(InputError, match="got 100 rows and 99 ids"):
        EpochBatches(100, 30, image_ids=range(99))
    dataset = ImageTextDataset([pairs[0][0], *pairs[0]], ["x"] * 13, image_size=32)
    tokenizer = WordTokenizer.build(["x"])
    assert len(list(make_loader(dataset, tokenizer, 6, distinct_images=True))) == 2
    with pytest.raises(InputError, match="choose smaller batches"):
        make_loader(dataset, tokenizer, 13, distinct_images=True)
    assert len(list(make_loader(dataset, tokenizer, 13))) == 1


def test_captions_by_image() -> None:
    flat, image_of_caption = captions_by_image([["a", "b"], ["c"]])
    assert flat == ["a", "b", "c"]
    assert image_of_caption.tolist() == [0, 0, 1]
