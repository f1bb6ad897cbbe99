"""Every kind of image file becomes RGB, and what is none is refused in words."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from helpers.files import InputError
from helpers.sources.images import read_image, read_square


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def smooth(width: int, height: int) -> Image.Image:
    return noise(12, 9).resize((width, height), Image.Resampling.BICUBIC)


def png_that_claims(width: int, height: int) -> bytes:
    """A small file whose header says that it has so many pixels, one bit each."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("RGB", (200, 10, 3), "png", (200, 10, 3)),
        ("RGBA", (200, 0, 0, 255), "png", (200, 0, 0)),
        ("RGBA", (200, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), "webp", (204, 204, 204)),
        ("LA", (9, 255), "png", (9, 9, 9)),
        ("LA", (9, 0), "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("L", 77, "bmp", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("1", 0, "tiff", (0, 0, 0)),
        ("I;16", 40000, "png", (156, 156, 156)),
        ("I;16", 300, "png", (1, 1, 1)),
        ("I;16", 65535, "tiff", (255, 255, 255)),
        ("I", 40000, "tiff", (156, 156, 156)),
        ("CMYK", (0, 0, 0, 0), "jpg", (255, 255, 255)),
        ("CMYK", (0, 0, 0, 255), "tiff", (0, 0, 0)),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(tmp_path: Path, mode, colour, kind: str, expected) -> None:
    path = tmp_path / f"image.{kind}"
    Image.new(mode, (50, 40), colour).save(path, **({"lossless": True} if kind == "webp" else {}))
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (50, 40))
    assert image.getpixel((20, 20)) == expected
    assert read_square(path, 32).getpixel((9, 9)) == expected


def test_a_palette_and_its_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([250, 20, 30, 1, 2, 3])
    image.putpixel((5, 5), 1)
    for kind in ("png", "gif"):
        image.save(tmp_path / f"solid.{kind}")
        image.save(tmp_path / f"clear.{kind}", transparency=1)
        assert read_image(tmp_path / f"solid.{kind}").getpixel((5, 5)) == (1, 2, 3)
        assert read_image(tmp_path / f"clear.{kind}").getpixel((5, 5)) == (255, 255, 255)
        assert read_image(tmp_path / f"clear.{kind}").getpixel((0, 0)) == (250, 20, 30)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(values).save(tmp_path / "ramp.png")
    read = np.asarray(read_image(tmp_path / "ramp.png"))
    assert np.array_equal(read[0, :, 0], np.arange(256))


@pytest.mark.parametrize(("mode", "value"), [("I", 2**20), ("I", -5), ("F", 0.5)])
def test_grey_values_without_a_known_white_are_refused(tmp_path: Path, mode: str, value: float) -> None:
    Image.new(mode, (4, 4), value).save(tmp_path / "depth.tiff")
    with pytest.raises(InputError, match="depth.tiff: its grey values .* which of them is white"):
        read_image(tmp_path / "depth.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_turned_back(tmp_path: Path, orientation: int) -> None:
    """Whatever the note says, the viewer sees a picture whose top left quarter alone is dark."""
    seen = Image.new("RGB", (48, 32), "white")
    seen.paste("black", (0, 0, 24, 16))
    to_stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the number of the turn that undoes each note
    stored = seen if orientation == 1 else seen.transpose(Image.Transpose(to_stored[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "phone.jpg")
    assert image.size == (48, 32)
    assert [image.getpixel(at)[0] > 128 for at in ((5, 5), (40, 5), (5, 27), (40, 27))] == [False, True, True, True]


def test_the_content_tells_the_kind_not_the_name(tmp_path: Path) -> None:
    noise(9, 7).save(tmp_path / "a.jpg", format="png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.jpg")), np.asarray(noise(9, 7)))
    smooth(9, 7).save(tmp_path / "b.txt", format="jpeg")
    assert read_image(str(tmp_path / "b.txt")).size == (9, 7)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3, 1)])
def test_the_smallest_images_are_images(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").size == size
    assert read_square(tmp_path / "dot.png", 64).getpixel((63, 63)) == (1, 2, 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (255, 200), (30, 20), (255, 400), (2000, 100)])
def test_a_square_is_pillows_own_unless_the_image_is_four_times_as_large(tmp_path: Path, kind: str, size) -> None:
    path = tmp_path / f"image.{kind}"
    noise(*size).save(path)
    with Image.open(path) as image:
        expected = image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(read_square(path, 64), int) - np.asarray(expected, int))
    if max(size) < 4 * 64:
        assert difference.max() == 0
    assert difference.mean() < 3


def test_a_large_image_is_read_coarsely_and_looks_the_same(tmp_path: Path) -> None:
    for kind in ("jpg", "png"):
        path = tmp_path / f"large.{kind}"
        smooth(1600, 1200).save(path)
        expected = np.asarray(read_image(path).resize((64, 64), Image.Resampling.BILINEAR), int)
        assert np.abs(np.asarray(read_square(path, 64), int) - expected).max() <= 6


def test_a_picture_of_48_million_pixels_is_no_bomb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth(8000, 6000).save(tmp_path / "phone.jpg", quality=60, exif=exif)
    square = read_square(tmp_path / "phone.jpg", 64)
    turned = smooth(800, 600).transpose(Image.Transpose.ROTATE_270).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(square, int) - np.asarray(turned, int)).mean() < 3


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (20_000, 20_000), (2_000_000, 2_000_000)])
def test_a_decompression_bomb_is_refused(tmp_path: Path, width: int, height: int) -> None:
    """Pillow warns of the first and raises an error for the others; here all are errors."""
    (tmp_path / "bomb.png").write_bytes(png_that_claims(width, height))
    for read in (read_image, lambda path: read_square(path, 32)):
        with pytest.raises(
            InputError, match="bomb.png: it says that it has more than 89 million pixels.* save it smaller"
        ):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "cut.jpg"
    noise(80, 60).save(path, format=kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cannot read the image .*cut.jpg: .*(replace|fetch|save)"):
        read_image(path)
    with pytest.raises(InputError, match="cut.jpg"):
        read_square(path, 16)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty .0 bytes."),
        (b"no image", "it is not an image"),
        (b"<html><body>404</body></html>", "it is not an image"),
        (b"\x89PNG\r\n\x1a\n broken", "bad.jpg: .*; replace the file or remove its entry"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "bad.jpg: .*; replace the file or remove its entry"),
        *(
            (b"\0\0\0\x18ftyp" + brand + bytes(40), "in the format HEIC.*save it as JPEG")
            for brand in (b"heic", b"heix", b"mif1")
        ),
        (b"\0\0\0\x18ftypavif" + bytes(40), "in the format AVIF.*save it as JPEG"),
    ],
)
def test_what_is_no_image_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "bad.jpg")


def test_what_is_no_file_is_refused_in_words(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path, f"{tmp_path}/a\0b.jpg"):
        with pytest.raises(InputError, match="there is no such file"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about notes in the file that it passes over
def test_bytes_changed_at_random_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for kind in ("jpeg", "png", "gif", "webp", "tiff"):
        path = tmp_path / f"changed.{kind}"
        exif = Image.Exif()
        exif[0x0112] = 6
        smooth(40, 30).save(path, format=kind, **({} if kind == "gif" else {"exif": exif}))
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            content = whole.copy()
            content[generator.integers(0, len(whole), 8)] = generator.integers(0, 256, 8)
            path.write_bytes(content.tobytes())
            try:
                assert read_square(path, 16).size == (16, 16)
            except InputError as error:
                assert path.name in str(error)  # noqa: PT017


def test_reading_images_needs_no_torch() -> None:
    script = "import sys, helpers.images, helpers.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
