"""One image file to RGB pixels: upright, without transparency, with 8 bits per channel."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import InputError

REDUCED = 2.0  # a large image is first reduced coarsely to no less than this multiple of the wanted size


def read_image(path: Path | str) -> Image.Image:
    """Read an image file, or the first picture of an animation, as RGB: upright, and white where it is transparent.

    An ``InputError`` is raised if it is missing, broken, not an image, in another format, or far too large.
    """
    return read_rgb(Path(path), None)


def read_square(path: Path | str, size: int) -> Image.Image:
    """Read an image file as an RGB square of ``size`` pixels, squashed rather than cropped.

    Equal to ``read_image(path).resize((size, size), BILINEAR)``, except that an image four or more times as large is
    first reduced in a coarser way, which is much faster for large JPEG files.
    """
    image = read_rgb(Path(path), int(REDUCED * size))
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=REDUCED)


def read_rgb(path: Path, side: int | None) -> Image.Image:
    """Read an image as RGB; with ``side``, a JPEG file may be decoded at a half, a quarter or an eighth of its size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if side is not None:
                    image.draft(None, (side, side))
                return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's readers raise nearly any exception for a broken file
        hint = "save it as JPEG" if path.suffix.lower() in (".heic", ".heif", ".avif") else "replace it"
        raise InputError(f"cannot read the image {path} ({error}); {hint}, or remove its entry") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode == "F" or (image.mode == "I" and not 0 <= min(image.getextrema()) <= max(image.getextrema()) < 2**16):
        raise ValueError("its pixels are not whole numbers of 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip every value above 255 to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")
