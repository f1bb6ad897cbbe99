"""Augmentations that keep captions true: random crops, and flips that read the caption first."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from helpers.files import InputError

OTHER_SIDE = {"left": "right", "right": "left", "左": "右", "右": "左"}
# Not within another word ("bright", "leftover"), but with an ending that makes it a side: "leftmost", "right-handed".
SIDE = re.compile(r"(?i)左右|左|右|(?<![a-z])(?:left|right)(?=(?:most|wards?|side|hand(?:ed|er|side)?)?(?![a-z]))")
LEAST_SHARE = 0.5  # of the area, which a crop keeps by default
NARROWEST = 3 / 4  # width over height of a crop, relative to the image; the widest is 4 / 3


def says_side(caption: str) -> bool:
    """Whether a caption has a word for left or right, in English or Chinese, in any of its meanings."""
    return SIDE.search(caption) is not None


def exchange_sides(caption: str) -> str:
    """Exchange left and right in a caption, in English and Chinese; twice gives the caption back.

    Meant for positions; it errs where "left" is a verb or "right" means correct. 左右 ("about") stays.
    """

    def other_side(match: re.Match) -> str:
        exchanged = OTHER_SIDE.get(match[0].lower(), match[0])
        return exchanged.upper() if match[0].isupper() else exchanged.title() if match[0].istitle() else exchanged

    return SIDE.sub(other_side, caption)


def sample_box(generator: random.Random, height: int, width: int, least_share: float) -> tuple[int, int, int, int]:
    """Sample a box for a random resized crop: top, left, height and width in pixels.

    Its share of the area is uniform from ``least_share`` to 1, its shape relative to the image log-uniform from 3:4 to
    4:3 as far as it fits, its position uniform. Source: Szegedy et al., 2015, "Going Deeper with Convolutions", sec. 6.
    """
    share = generator.uniform(least_share, 1)
    narrowest = max(NARROWEST, share)  # a narrower box with this area would be higher than the image
    shape = math.exp(generator.uniform(math.log(narrowest), -math.log(narrowest)))
    box_height = min(height, math.ceil(height * math.sqrt(share / shape)))
    box_width = min(width, math.ceil(width * math.sqrt(share * shape)))
    top, left = generator.randint(0, height - box_height), generator.randint(0, width - box_width)
    return top, left, box_height, box_width


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images ``[batch, 3, height, width]`` to squares of ``size`` pixels, averaging where they shrink."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a pair.

    ``flip`` mirrors half of all images. If a caption says left or right, ``"skip"`` leaves the pair unchanged, which is
    always safe, and ``"exchange"`` exchanges the words. ``crop`` is the least share of the area that an image keeps.
    """

    flip: str | None = None
    crop: float | None = None

    def __post_init__(self) -> None:
        if self.flip not in (None, "skip", "exchange"):
            raise InputError(f"flip must be 'skip' or 'exchange', not {self.flip!r}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(f"crop, the least share of the area to keep, must be in (0, 1], not {self.crop}")

    def __call__(
        self, image: Tensor, captions: list[str], size: int, generator: random.Random
    ) -> tuple[Tensor, list[str]]:
        """Change an image, uint8 ``[3, height, width]``, and its captions; the result is a square of ``size``."""
        if self.crop is not None:
            top, left, height, width = sample_box(generator, *image.shape[1:], self.crop)
            image = image[:, top : top + height, left : left + width]
        image = resize(image[None], size)[0]
        if self.flip is not None and generator.random() < 0.5:
            if self.flip == "exchange":
                image, captions = image.flip(-1), [exchange_sides(caption) for caption in captions]
            elif not any(map(says_side, captions)):
                image = image.flip(-1)
        return image, captions


def parse_augmentation(texts: Sequence[str]) -> Augmentation | None:
    """Build an augmentation from texts: ``flip`` (that is ``flip:skip``), ``flip:exchange``, ``crop``, ``crop:0.6``."""
    chosen: dict[str, str | float] = {}
    for text in texts:
        name, _, value = text.partition(":")
        if name not in ("flip", "crop") or name in chosen:
            hint = "write flip, flip:exchange or crop:SHARE, once each"
            raise InputError(f"cannot use the augmentation {text!r}; {hint}")
        try:
            chosen[name] = (value or "skip") if name == "flip" else float(value or LEAST_SHARE)
        except ValueError:
            raise InputError(f"the augmentation {text!r} needs a number, such as crop:0.6") from None
    return Augmentation(**chosen) if chosen else None
