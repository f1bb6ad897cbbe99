"""A learner's own photographs become a set of the course."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.files import InputError
from helpers.sources import open_pairs, read_captions
from helpers.sources.photographs import look, prepare_photographs

SPLITS = ("train", "val", "test")


def halves(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """The left half dark, the right half light."""
    pixels = np.full((size[1], size[0]), 230, np.uint8)
    pixels[:, : size[0] // 2] = 20
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert("RGB").convert(mode)


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Ten unusual photographs, with one caption or two for each."""
    folder = tmp_path / "phone"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0)})
    halves().save(folder / "turned.JPG", exif=exif, comment=b"Ulm")
    transparent = halves("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    transparent.save(folder / "see through.png")
    modes = {"grey.jpg": "L", "print.jpeg": "CMYK", "deep.png": "I;16", "palette.png": "P", "grey.png": "RGB"}
    for name, mode in modes.items():
        halves(mode).save(folder / name)
    halves(size=(8000, 30)).save(folder / "wide.jpg")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    halves("P").save(folder / "moving.gif", save_all=True, append_images=[Image.new("P", (60, 40))])
    (folder / "._grey.jpg").write_bytes(b"macOS puts such files next to others")
    rows = [("file", "caption")]
    for image in sorted(folder.glob("[!.]*")):
        rows += [(image.name, f'a "half", named {image.stem}')] + [(image.name, "另一句话")] * (image.suffix == ".png")
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_photographs_are_turned_shrunk_stripped_and_split(phone: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "mine"
    report = prepare_photographs(phone, out)
    assert report.startswith(f"{out} has 8 images with ")
    assert f"python -m helpers train --data {out}" in report
    original = open_pairs(phone)
    for split in SPLITS:  # the splits are those that the folder itself is read with
        assert read_captions(out, split)[1] == original.captions(split)[1]
    paths = [path for split in SPLITS for path in read_captions(out, split)[0]]
    assert len(set(paths)) == 10  # grey.jpg and grey.png stay apart
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert not image.getexif()
            assert "comment" not in image.info
            pixels = np.asarray(image).astype(int)
        width, height = {"turned": (40, 60), "wide": (1024, 4), "dot": (1, 1)}.get(path.stem, (60, 40))
        assert pixels.shape == (height, width, 3)
        if path.stem == "turned":  # the left half is now the top half
            assert pixels[:20].mean() < 60 < 190 < pixels[40:].mean()
        elif path.stem != "dot":
            assert pixels[:, : width // 4].mean() < 60 < 190 < pixels[:, 3 * width // 4 :].mean(), path
    assert open_pairs(out).layout == "COCO Captions layout: 3 splits"
    with pytest.raises(InputError, match="exists already"):
        prepare_photographs(phone, out)


def keep_two(folder: Path) -> None:
    for image in {*folder.glob("[!.]*")} - {folder / "dot.png", folder / "deep.png"}:
        image.unlink()
    (folder / "captions.csv").write_text("file,caption\ndot.png,a dot\ndeep.png,deep\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "wide.jpg").write_bytes(b"no image"), "cannot read the image .*wide.jpg"),
        (lambda folder: (folder / "grey.jpg").unlink(), "1 image file missing, first .*grey.jpg"),
        (lambda folder: halves().save(folder / "new.png"), "photographs without a caption: new.png"),
        (lambda folder: (folder / "captions.csv").unlink(), "10 images but no captions.csv"),
        (keep_two, "photographs for train only"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(phone: Path, tmp_path: Path, damage, message: str) -> None:
    damage(phone)
    with pytest.raises(InputError, match=message):
        prepare_photographs(phone, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [phone]


def test_look_describes_a_folder(phone: Path) -> None:
    halves().save(phone / "new.png")
    (phone / "wide.jpg").write_bytes(b"no image")
    lines = look(phone).splitlines()
    assert lines[0].startswith("table of files and captions: 3 splits in captions.csv, chosen by file name")
    assert lines[1].startswith("8 images with ")
    assert sum('a "half", named' in line for line in lines) == 3
    odd = [line for line in lines if line.startswith("odd: ")]
    assert any("new.png has no caption" in line for line in odd)
    assert any("cannot read the image" in line and "wide.jpg" in line for line in odd)
