"""One image file to RGB pixels: upright, without transparency, with 8 bits per channel."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import InputError

# The brands at the front of HEIF files, which is how many phones save photographs, and of AVIF files.
UNREADABLE = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}
SIXTEEN_BITS = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # modes of Pillow; "I" has room for more
REDUCED = 2.0  # a large image is first reduced coarsely to no less than this multiple of the wanted size


def read_image(path: Path | str) -> Image.Image:
    """Read an image file, or the first picture of an animation, as RGB: upright, and white where it is transparent.

    Raises:
        InputError: if the file is missing, broken, not an image, in a format that cannot be read, or far too large.
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
    if not path.is_file():
        raise InputError(f"cannot read the image {path}: there is no such file; put it there, or remove its entry")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if side is not None:
                    image.draft(None, (side, side))
                return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's readers raise nearly any exception for a broken file
        raise InputError(f"cannot read the image {path}: {what_is_wrong(path, error)}, or remove its entry") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode in SIXTEEN_BITS:
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("its grey values have more than 16 bits, and which of them is white is unknown")
        # Pillow's own conversion would clip every value above 255 to white.
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its grey values are fractions, and which of them is white is unknown")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")


def what_is_wrong(path: Path, error: Exception) -> str:
    """Why Pillow cannot read a file, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return "it is empty; copy it again"
    if start[4:8] == b"ftyp" and start[8:12] in UNREADABLE:
        return "it is in the format HEIC or AVIF, which cannot be read here; save it as JPEG"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"it has more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels; save it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image; replace it"
    return f"{str(error).rstrip('.') or type(error).__name__}; replace it"
