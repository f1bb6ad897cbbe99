"""Photographs with captions: a learner's own, COCO's, and a look at what a folder has.

::

    python -m helpers.sources.photographs mine FOLDER --out data/mine         the learner's own, with captions in a file
    python -m helpers.sources.photographs coco --out data/coco --split val    downloads COCO's
    python -m helpers.sources.photographs look FOLDER                         which layout, which splits, some captions
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from helpers.cli import CommandLine
from helpers.files import InputError, atomic_folder, counted, listed
from helpers.sources.coco import Record, check_caption, check_file_name, reading, write_annotations
from helpers.sources.folders import (
    PLAIN,
    TABLE,
    Row,
    Splits,
    draw_splits,
    file_named,
    find_layout,
    images_lie_in,
    images_of,
    only,
    plain_places,
    plain_rows,
    split_order,
    splits_of_files,
    table_rows,
    texts_beside,
)
from helpers.sources.folders import Pairs as Pairs
from helpers.sources.folders import open_pairs as open_pairs
from helpers.sources.images import read_image

LONGER_SIDE = 1024  # pixels
QUALITY = 90  # of JPEG


class Photograph(NamedTuple):
    """A learner's photograph: its file, its captions, and its split if one is named."""

    path: Path
    captions: Sequence[str]
    split: str | None = None


def write_own_pairs(captions: Mapping[Path | str, Sequence[str]], out: Path | str) -> Splits:
    """Write photographs with their captions as a set of the course, in the COCO Captions layout.

    Each is turned upright, scaled down so that its longer side has at most 1,024 pixels, and saved as JPEG without
    what the camera noted, the place included. The splits are drawn as :func:`helpers.sources.folders.draw_splits` does. The
    folder appears when it is complete, never half.

    Args:
        captions: for each file its captions, ``{"photos/dog.jpg": ["a dog on a beach"]}``.
        out: the folder to write, which must not exist yet.

    Raises:
        InputError: if ``out`` exists, there are fewer than three photographs, or some cannot be used: all of these
            are told of together, and nothing is written.
    """
    if not isinstance(captions, Mapping):
        raise InputError(f"captions must be a dict, for each file the list of its captions, not {captions!r:.60}")
    photographs = [
        Photograph(Path(path), [of_path] if isinstance(of_path, str) else list(of_path or ()))
        for path, of_path in captions.items()
    ]
    return write_photographs(photographs, [], Path(out))


def write_photographs(photographs: Sequence[Photograph], faults: Sequence[str], out: Path) -> Splits:
    """As :func:`write_own_pairs`, with splits that may be named, and faults that were found before."""
    if os.path.exists(out):  # unlike Path.exists, False where it may not look: writing there says why
        raise InputError(f"{out} exists already; remove it, or write to another folder")
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        records, unreadable = save_images(photographs, partial / "images")
        faults = [*unreadable, *faults, *caption_faults(photographs)]
        if faults:
            raise InputError("; ".join([*faults, "nothing was written"]))
        by_split = split_up(photographs, records)
        write_annotations(partial, by_split)
    for record in records:
        record.path = out / "images" / record.path.name
    return by_split


def caption_faults(photographs: Sequence[Photograph]) -> list[str]:
    """A sentence for photographs without a caption, for captions that cannot be used, and for a file named twice."""
    without = [photograph.path.name for photograph in photographs if not photograph.captions]
    times = Counter(os.path.abspath(photograph.path) for photograph in photographs)
    twice = [os.path.basename(file) for file, count in times.items() if count > 1]
    broken = []
    for photograph in photographs:
        for number, caption in enumerate(photograph.captions, start=1):
            try:
                check_caption(caption)
            except InputError as error:
                broken.append(f"number {number} of {photograph.path.name} {error}")
    return [
        f"{counted(len(names), thing)} {words}: {listed(names)}"
        for names, thing, words in (
            (without, "photograph", "without a caption, write one for each"),
            (twice, "photograph", "named twice, give each one entry with all its captions"),
            (broken, "caption", "that cannot be used"),
        )
        if names
    ]


def save_images(photographs: Sequence[Photograph], folder: Path) -> tuple[list[Record], list[str]]:
    """Save each photograph that can be read, and the faults of those that cannot, in one sentence."""
    records: list[Record] = []
    unreadable: list[str] = []
    names: set[str] = set()
    count = 0
    for photograph in tqdm(photographs, desc="reading photographs", unit="image", leave=False, disable=None):
        try:
            image = read_image(photograph.path)
        except InputError as error:
            unreadable.append(str(error))
            continue
        image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
        pixels_only = Image.new("RGB", image.size)
        pixels_only.paste(image)
        name = free_name(photograph.path.stem, names)
        pixels_only.save(folder / name, quality=QUALITY)
        entry = {"id": len(records), "file_name": name, "width": image.width, "height": image.height}
        annotations = [
            {"id": count + k, "image_id": len(records), "caption": text} for k, text in enumerate(photograph.captions)
        ]
        records.append(Record(entry, folder / name, annotations))
        count += len(annotations)
    told = [f"{len(unreadable)} of {len(photographs)} photographs cannot be used: {listed(unreadable)}"]
    return records, told if unreadable else []


def free_name(stem: str, names: set[str]) -> str:
    """A name that every system can have, made from a file's own, and not among ``names``, which it joins."""
    plain = re.sub(r"[^\w-]+", "_", stem)[:50]
    name, number = plain, 1
    while name.casefold() in names:
        number += 1
        name = f"{plain}-{number}"
    names.add(name.casefold())
    return f"{name}.jpg"


def split_up(photographs: Sequence[Photograph], records: Sequence[Record]) -> Splits:
    """The splits that are named, or drawn ones; lessons need all three."""
    if len(records) < 3:
        raise InputError(
            f"there are only {counted(len(records), 'photograph')}; give three or more, so that each split has one"
        )
    if photographs[0].split is None:
        return draw_splits(records)
    by_split: Splits = {}
    for photograph, record in zip(photographs, records, strict=True):
        by_split.setdefault(photograph.split, []).append(record)
    lacking = [split for split in ("train", "val", "test") if split not in by_split]
    if lacking:
        raise InputError(
            f"no photograph is named for {' and '.join(lacking)}; name some, or name no splits, and they are drawn"
        )
    return {split: by_split[split] for split in sorted(by_split, key=split_order)}


def read_own(folder: Path) -> tuple[list[Photograph], list[str]]:
    """A learner's photographs with their captions, and what is at fault with the folder: files that are alone.

    Raises:
        InputError: if there are no captions, saying how to write them, with lines for two photographs that are there.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one that has your photographs and their captions")
    layout, files = find_layout(folder, (TABLE, PLAIN))
    if layout is PLAIN:
        places = plain_places(folder)
        besides = {place: texts_beside(place) for place in places}
        rows = [row for place, beside in besides.items() for row in plain_rows(folder, place, beside)]
        alone = [image for beside in besides.values() for image in beside.images_alone]
        missing = [f"of {text.name}" for beside in besides.values() for text in beside.texts_alone]
        base = folder
    else:
        rows = table_rows(only(files))
        base = images_lie_in([folder], [row.file_name for row in rows])
        named = {base / row.file_name for row in rows}
        missing = list(dict.fromkeys(row.file_name for row in rows if not is_there(base, row)))
        alone = [image for image in images_of(base) if image not in named]
    faults = []
    if missing:
        absent = f"{counted(len(missing), 'photograph')} not in {base}, though there are captions"
        faults.append(f"{absent}, add them or remove those: {listed(missing)}")
    if alone:
        names = listed(image.name for image in alone)
        faults.append(f"{counted(len(alone), 'photograph')} without a caption, write one for each: {names}")
    return photographs_of([row for row in rows if is_there(base, row)], base), faults


def is_there(base: Path, row: Row) -> bool:
    try:
        check_file_name(row.file_name, base)
    except InputError as error:
        raise InputError(f"{row.place} {error}") from None
    return (base / row.file_name).is_file()


def photographs_of(rows: Sequence[Row], base: Path) -> list[Photograph]:
    split_of = splits_of_files(rows)
    captions: dict[str, list[str]] = {name: [] for name in split_of}
    for row in rows:
        captions[file_named(row)].append(row.caption.strip())
    return [Photograph(base / name, of_name, split_of[name]) for name, of_name in captions.items()]


def write_mine(folder: Path, out: Path) -> None:
    if os.path.exists(out):  # unlike Path.exists, False where it may not look: writing there says why
        raise InputError(f"{out} exists already; remove it, or write to another folder")
    with reading(folder):
        photographs, faults = read_own(folder)
    by_split = write_photographs(photographs, faults, out)
    print(f"{out} has {counts(by_split)}. Train on them: python -m helpers.training --data {out} --out runs/{out.name}")


def counts(by_split: Splits) -> str:
    """How many images and captions each split has, in words."""
    return ", ".join(
        f"{counted(len(records), 'image')} with "
        f"{counted(sum(len(record.annotations) for record in records), 'caption')} in {split}"
        for split, records in by_split.items()
    )


def look(folder: Path) -> None:
    pairs = open_pairs(folder)
    print(pairs.layout)
    print(counts(pairs.by_split))
    for record in pairs.records(pairs.splits[0])[:3]:
        caption = record.annotations[0]["caption"]
        print(f"{record.image['file_name']}: {caption if len(caption) <= 100 else caption[:100] + ' ...'}")


def download(out: Path, split: str) -> None:
    from helpers.sources.download import download_coco

    download_coco(out, split)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.sources.photographs", description="Photographs with captions.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="mine|coco|look")
    mine = commands.add_parser("mine", help="make a set of your own photographs, with captions in captions.csv")
    mine.add_argument("folder", type=Path, help="your photographs with captions.csv, or with a .txt beside each")
    mine.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist yet")
    coco = commands.add_parser("coco", help="download photographs and captions of COCO 2017")
    coco.add_argument("--out", type=Path, required=True, help="the folder to download into")
    coco.add_argument("--split", choices=("val", "train"), default="val", help="val: 1 GB; train: 19 GB (default val)")
    seen = commands.add_parser("look", help="say which layout a folder has, and show some of its captions")
    seen.add_argument("folder", type=Path, help="any folder of images with captions")
    options = parser.parse_args(arguments)
    if options.command == "mine":
        return parser.run(lambda: write_mine(options.folder, options.out))
    if options.command == "coco":
        return parser.run(lambda: download(options.out, options.split))
    return parser.run(lambda: look(options.folder))


if __name__ == "__main__":
    sys.exit(main())
