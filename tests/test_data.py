import json
from pathlib import Path

import pytest
import torch
import torchvision.transforms.v2
from PIL import Image

from helpers.annotations import read_captions
from helpers.command_line import InputError
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
from helpers.text import WordTokenizer


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[list[Path], list[list[str]]]:
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


def test_an_item_is_normalised_by_hand_arithmetic(pairs: tuple[list[Path], list[list[str]]]) -> None:
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


def test_kept_pixels_give_the_same_items(pairs: tuple[list[Path], list[list[str]]]) -> None:
    fresh, kept = ImageTextDataset(*pairs, image_size=48), ImageTextDataset(*pairs, image_size=48)
    kept.keep_decoded()
    for index in range(12):
        assert torch.equal(fresh[index]["image"], kept[index]["image"])


def test_every_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    made = {"RGBA": (200, 0, 0, 255), "L": 200, "P": 3, "CMYK": (0, 0, 0, 0), "I;16": 40000, "1": 1, "LA": (9, 255)}
    for mode, colour in made.items():
        path = tmp_path / f"{mode.replace(';', '')}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (50, 40), colour).save(path)
        assert ImageTextDataset([path], ["x"], image_size=32)[0]["image"].shape == (3, 32, 32)


def test_a_turned_photograph_is_turned_back(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))  # the left half; stored with "turn by 90 degrees clockwise to view"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.png", exif=exif)
    pixels = ImageTextDataset([tmp_path / "phone.png"], ["x"], image_size=32).decode(0)
    assert pixels[:, :12].max() < 50  # now the top half
    assert pixels[:, 20:].min() > 200


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
def test_broken_pixels_are_named_when_they_are_read(pairs, content: bytes) -> None:
    pairs[0][4].write_bytes(content)
    dataset = ImageTextDataset(*pairs, image_size=32)
    with pytest.raises(InputError, match="cannot read the image .*image4.png"):
        dataset[4]
    with pytest.raises(InputError, match="image4.png"):
        dataset.keep_decoded()
    with pytest.raises(IndexError):
        dataset[12]


def test_a_truncated_image_is_refused(pairs) -> None:
    path = pairs[0][4]
    noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="image4.png"):
        ImageTextDataset(*pairs, image_size=32)[4]


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


def batches_of(pairs, workers: int, context: str | None, epochs: int = 2) -> list[dict]:
    dataset = ImageTextDataset(*pairs, image_size=32, seed=5)
    tokenizer = WordTokenizer.build([caption for own in pairs[1] for caption in own])
    loader = make_loader(dataset, tokenizer, batch_size=5, seed=5, workers=workers)
    loader.multiprocessing_context = context
    batches = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_change_nothing(pairs, context: str) -> None:
    alone, helped = batches_of(pairs, 0, None), batches_of(pairs, 2, context)
    assert len(alone) == len(helped) == 4  # two whole batches of five an epoch
    for one, other in zip(alone, helped, strict=True):
        assert one["texts"] == other["texts"]
        for key in ("images", "token_ids", "padding", "image_ids"):
            assert torch.equal(one[key], other[key])
    assert alone[0]["texts"] != alone[2]["texts"]


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


def test_captions_by_image() -> None:
    flat, image_of_caption = captions_by_image([["a", "b"], ["c"]])
    assert flat == ["a", "b", "c"]
    assert image_of_caption.tolist() == [0, 0, 1]
