"""One image file to RGB pixels: upright, without transparency, with 8 bits per channel."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import InputError

REDUCED = 2.0  # a large image is first reduced coarsely to no less than this multiple of the wanted size
MAX_PIXELS = 90_000_000  # of an image as it is decoded; a larger one could fill the memory
Image.init()  # loads the formats, so that only those below are ever opened, whatever the name of a file says
FORMATS = [name for name in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN]


def read_image(path: Path | str, side: int | None = None) -> Image.Image:
    """Read an image file, or the first picture of an animation, as RGB: upright, and white where it is transparent."""
    path = Path(path)
    try:
        with open_image(path) as image:
            if side is not None:
                image.draft(None, (side, side))  # decodes a JPEG file at 1/2, 1/4 or 1/8, but no smaller than side
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return to_rgb(image)
    except Exception as error:  # Pillow's readers raise nearly any exception for a broken file
        hint = "save it as JPEG" if path.suffix.lower() in (".heic", ".heif", ".avif") else "fix or replace it"
        raise InputError(f"cannot read the image {path} ({error}); {hint}, or remove the file and its entry") from None


def open_image(path: Path) -> Image.Image:
    """Open a file of one of the formats; its pixels are not decoded yet, and may be too many for Pillow's own limit."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(path, formats=FORMATS)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_square(path: Path | str, size: int) -> Image.Image:
    """Read an image file as an RGB square of ``size`` pixels, squashed; a much larger one is first reduced coarsely."""
    image = read_image(path, int(REDUCED * size))
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=REDUCED)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright and convert it to RGB, from any of Pillow's modes."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or (image.mode == "I" and not 0 <= min(image.getextrema()) <= max(image.getextrema()) < 2**16):
        raise ValueError("its pixels are not whole numbers of 8 or 16 bits")
    if image.mode.startswith("I"):  # values of 8, 12 or 16 bits, stored in 16; Pillow would clip them
        values = np.asarray(image)
        bits = next(bits for bits in (8, 12, 16) if values.max() < 2**bits)
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")
