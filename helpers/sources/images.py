"""One image file to RGB pixels, whatever a camera, a phone or a program has written into it."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import InputError

# The brands that stand at the front of a HEIF file, which is how phones save photographs unless told otherwise.
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
SIXTEEN_BITS = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # Pillow's modes; "I" has room for more
SPARE = 2.0  # how many times the wanted side an image keeps when it is first read or averaged down coarsely


def read_image(path: Path | str) -> Image.Image:
    """An image file as RGB: upright, as its EXIF note says, and laid over white where it is transparent.

    The kind of file is told by its content, whatever its name ends in. Grey images of 16 bits are scaled to 8. Of an
    animation, the first picture is taken.

    Raises:
        InputError: if the file is missing, empty, cut short, no image, in a format that Pillow cannot read (HEIC), or
            of so many pixels that it may be an attack on the memory; it names the file.
    """
    return read_at_least(Path(path), None)


def read_square(path: Path | str, size: int) -> Image.Image:
    """An image file as an RGB square of ``size`` pixels, whatever its shape was; it is squashed, not cropped.

    The same as ``read_image(path).resize((size, size), BILINEAR)``, but that a side four or more times as
    long is first brought to twice ``size`` or more in a coarser way, which for large JPEGs is much quicker.

    Raises:
        InputError: as :func:`read_image`.
    """
    image = read_at_least(Path(path), int(SPARE * size))
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=SPARE)


def read_at_least(path: Path, side: int | None) -> Image.Image:
    """The image as RGB; with ``side``, a JPEG may come smaller, by a half, a quarter or an eighth, but not below it."""
    if not path.is_file():
        raise InputError(f"cannot read the image {path}: there is no such file; put it there or remove its entry")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if side is not None:
                    image.draft(None, (side, side))
                return to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(
            f"cannot read the image {path}: it says that it has more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million "
            "pixels, which a small file can claim to fill the memory; save it smaller"
        ) from None
    except Exception as error:  # a broken file makes Pillow's many readers raise nearly anything
        raise InputError(f"cannot read the image {path}: {what_is_wrong(path, error)}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes to RGB.

    Raises:
        ValueError: if the grey values are of a kind whose white is not known.
    """
    if image.mode in SIXTEEN_BITS:
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("its grey values have more than 16 bits, and nothing says which of them is white")
        # Pillow's own conversion would make white of everything above 255.
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its grey values are fractions, and nothing says which of them is white")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")


def what_is_wrong(path: Path, error: Exception) -> str:
    """What is wrong with a file that Pillow cannot read, and what to do about it."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as refusal:
        return f"{refusal.strerror}; change that or remove its entry"
    if not start:
        return "it is empty (0 bytes); fetch it again or remove its entry"
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS | AVIF_BRANDS:
        kind = "AVIF" if start[8:12] in AVIF_BRANDS else "HEIC"
        return f"it is in the format {kind}, which cannot be read here; save it as JPEG"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image; replace the file or remove its entry"
    return f"{str(error).rstrip('.') or type(error).__name__}; replace the file or remove its entry"
