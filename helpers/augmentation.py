"""Pairs changed a little in each epoch, so that they stay true: crops, and flips that mind what the caption says.

A mirrored picture of "a red circle left of a blue square" shows a red circle *right* of it. So a flip looks at the
caption first: it leaves such a pair as it is, or exchanges the words.
"""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from helpers.files import InputError

OTHER_SIDE = {"left": "right", "right": "left", "左": "右", "右": "左"}
# Not within another word ("bright", "leftover"), but with what makes a side of it: "leftmost", "right-handed".
SIDE = re.compile(
    r"左右|左|右|(?<![a-z])(?:left|right)(?=(?:most|wards?|side|hand(?:ed|er|side)?)?(?![a-z]))", re.IGNORECASE
)
LEAST_SHARE = 0.5  # of the area, that a crop keeps where nothing else is said
NARROWEST = 3 / 4  # a crop's width over its height, both as shares of the image's; the widest is one over it


def says_side(caption: str) -> bool:
    """Whether a caption has a word for left or right, in English or Chinese, whatever it means there."""
    return SIDE.search(caption) is not None


def exchange_sides(caption: str) -> str:
    """The caption with left and right exchanged, in English and Chinese; twice gives the caption again.

    Right where the words are sides, as in scenes; wrong where "left" is a verb and "right" means correct. 左右, "left
    and right" or "about", stays.

    >>> exchange_sides("a red circle left of a blue square at the top right")
    'a red circle right of a blue square at the top left'
    """

    def other(match: re.Match) -> str:
        word = match[0]
        exchanged = OTHER_SIDE.get(word.lower(), word)
        if word.isupper():
            return exchanged.upper()
        return exchanged.title() if word.istitle() else exchanged

    return SIDE.sub(other, caption)


def draw_box(generator: random.Random, height: int, width: int, least_share: float) -> tuple[int, int, int, int]:
    """A part of an image for a random resized crop: top, left, height and width in pixels.

    Its share of the area is drawn evenly from ``least_share`` to 1 and never less; its shape, relative to the image's,
    from 3:4 to 4:3, evenly in the logarithm, as far as it fits; its place evenly (Szegedy et al., "Going Deeper with
    Convolutions", CVPR 2015, section 6, but without their way of drawing again what does not fit).
    """
    share = generator.uniform(least_share, 1)
    narrowest = max(NARROWEST, share)  # a narrower one of this area would be higher than the image
    shape = math.exp(generator.uniform(math.log(narrowest), -math.log(narrowest)))
    box_height = min(height, math.ceil(height * math.sqrt(share / shape)))
    box_width = min(width, math.ceil(width * math.sqrt(share * shape)))
    top, left = generator.randint(0, height - box_height), generator.randint(0, width - box_width)
    return top, left, box_height, box_width


def resize(images: Tensor, size: int) -> Tensor:
    """Images uint8 ``[batch, 3, height, width]`` to squares of ``size`` pixels, averaged where they become smaller."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a pair.

    Attributes:
        flip: None, or what a flip, which half of all pairs get, does with a caption that says left or right:
            ``"skip"`` leaves the pair as it is, safe for every caption; ``"exchange"`` exchanges the words.
        crop: None, or the least share of its area that an image keeps, above 0 and at most 1. What is cut off may be
            what the caption names, and the more so the smaller the share.
    """

    flip: str | None = None
    crop: float | None = None

    def __post_init__(self) -> None:
        if self.flip not in (None, "skip", "exchange"):
            raise InputError(f"flip must be 'skip' or 'exchange', not {self.flip!r}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(
                f"crop, the least share of the area that is kept, must be above 0 and at most 1, not {self.crop}"
            )

    def __call__(self, image: Tensor, caption: str, size: int, generator: random.Random) -> tuple[Tensor, str]:
        """A pair, changed as the generator draws it, the image a square of ``size`` pixels.

        Args:
            image: uint8 ``[3, height, width]``.
        """
        if self.crop is not None:
            top, left, height, width = draw_box(generator, *image.shape[1:], self.crop)
            image = image[:, top : top + height, left : left + width]
        image = resize(image[None], size)[0]
        if self.flip is not None and generator.random() < 0.5 and not (self.flip == "skip" and says_side(caption)):
            image, caption = image.flip(-1), exchange_sides(caption)
        return image, caption


def parse_augmentation(texts: Sequence[str]) -> Augmentation | None:
    """What a command line asks for: ``flip`` (or ``flip:skip``), ``flip:exchange``, ``crop``, ``crop:0.6``.

    Raises:
        InputError: for anything else, or for one of them twice.
    """
    chosen: dict[str, str | float] = {}
    for text in texts:
        name, _, value = text.partition(":")
        if name not in ("flip", "crop"):
            raise InputError(f"there is no augmentation {text!r}; there are flip, flip:exchange, crop and crop:SHARE")
        if name in chosen:
            raise InputError(f"the augmentation {name} is given twice; give it once")
        if ":" in text and not value:
            raise InputError(f"the augmentation {text!r} ends in a colon; write {name}, or a value after it")
        if name == "flip":
            chosen[name] = value or "skip"
        else:
            try:
                chosen[name] = float(value) if value else LEAST_SHARE
            except ValueError:
                raise InputError(
                    f"the augmentation {text!r} needs a number, the least share of the area to keep, as crop:0.6"
                ) from None
    return Augmentation(**chosen) if chosen else None
