"""Every kind of image file becomes RGB, and a file that cannot be read is named with the reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.files import InputError
from helpers.sources.images import read_image, read_square


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("RGB", (200, 10, 3), "png", (200, 10, 3)),
        ("RGBA", (200, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), "webp", (204, 204, 204)),
        ("L", 77, "bmp", (77, 77, 77)),
        ("I;16", 40000, "png", (156, 156, 156)),
        ("I;16", 65535, "tiff", (255, 255, 255)),
        ("I", 40000, "tiff", (156, 156, 156)),
        ("CMYK", (0, 0, 0, 0), "jpg", (255, 255, 255)),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(tmp_path: Path, mode: str, colour, kind: str, expected: tuple) -> None:
    path = tmp_path / f"image.{kind}"
    Image.new(mode, (50, 40), colour).save(path, **({"lossless": True} if kind == "webp" else {}))
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (50, 40))
    assert image.getpixel((20, 20)) == expected
    assert read_square(path, 32).getpixel((9, 9)) == expected


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path: Path, kind: str) -> None:
    image, path = Image.new("P", (8, 8), 0), tmp_path / f"clear.{kind}"
    image.putpalette([250, 20, 30, 1, 2, 3])
    image.putpixel((5, 5), 1)
    image.save(path, transparency=1)
    read = read_image(path)
    assert [read.getpixel(at) for at in ((5, 5), (0, 0))] == [(255, 255, 255), (250, 20, 30)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    """For every orientation the viewer sees a picture whose top left quarter alone is dark."""
    seen = Image.new("RGB", (48, 32), "white")
    seen.paste("black", (0, 0, 24, 16))
    to_stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each orientation
    stored = seen if orientation == 1 else seen.transpose(Image.Transpose(to_stored[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "phone.jpg")
    assert image.size == (48, 32)
    assert [image.getpixel(at)[0] > 128 for at in ((5, 5), (40, 5), (5, 27), (40, 27))] == [False, True, True, True]


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("size", [(64, 64), (255, 200), (30, 20), (1, 9), (2000, 100)])
def test_a_square_is_pillows_own_unless_the_image_is_four_times_as_large(tmp_path: Path, kind: str, size) -> None:
    noise(*size).save(tmp_path / f"image.{kind}")
    expected = read_image(tmp_path / f"image.{kind}").resize((64, 64), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(read_square(tmp_path / f"image.{kind}", 64), int) - np.asarray(expected, int))
    assert difference.max() == 0 if max(size) < 4 * 64 else difference.mean() < 3


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff", "gif"])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut.jpg"  # the content decides the format, not the name
    noise(80, 60).save(path, format=kind)
    assert read_image(path).size == (80, 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot read the image .*cut.jpg"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jpg", None, "No such file"),
        ("bad.jpg", b"", "cannot identify image file"),
        ("bad.jpg", b"<html><body>404</body></html>", "cannot identify image file"),
        ("phone.HEIC", b"\0\0\0\x18ftypheic" + bytes(40), "save it as JPEG"),
        ("huge.png", Image.new("1", (10_000, 10_000)), "pixels"),  # would fill the memory
        ("depth.tiff", Image.new("I", (4, 4), 2**20), "not whole numbers of 8 or 16 bits"),
        ("depth.tiff", Image.new("I", (4, 4), -5), "not whole numbers of 8 or 16 bits"),
        ("depth.tiff", Image.new("F", (4, 4), 0.5), "not whole numbers of 8 or 16 bits"),
    ],
)
def test_what_is_no_image_or_has_no_meaning_is_refused(tmp_path: Path, name: str, content, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        content.save(tmp_path / name)
    with pytest.raises(InputError, match=f"cannot read the image .*{name} .*{message}"):
        read_image(tmp_path / name)
