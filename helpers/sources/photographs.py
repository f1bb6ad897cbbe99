"""Your own photographs: a look at what a folder has, and a set in the COCO Captions layout made from it."""

import textwrap
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from helpers.files import InputError, atomic_folder, counted, listed
from helpers.sources.coco import make_record, write_annotations
from helpers.sources.folders import SPLITS, Pairs, Splits, images_without_captions, open_pairs
from helpers.sources.images import read_image

LONGER_SIDE = 1024  # pixels
QUALITY = 90  # of the JPEG files


def look(folder: Path) -> str:
    """Describe a folder of pairs: its layout, its splits, three captions, and anything odd."""
    pairs = open_pairs(folder)
    examples = [
        f"{record.image['file_name']}: {textwrap.shorten(record.annotations[0]['caption'], 100)}"
        for record in pairs.records(pairs.splits[0])[:3]
    ]
    return "\n".join([pairs.layout, counts(pairs.by_split), *examples, *oddities(pairs)])


def counts(by_split: Splits) -> str:
    """The number of images and captions in each split."""
    return ", ".join(
        f"{split}: {counted(len(records), 'image')} with "
        f"{counted(sum(len(record.annotations) for record in records), 'caption')}"
        for split, records in by_split.items()
    )


def oddities(pairs: Pairs) -> list[str]:
    """One line for each thing that a learner may want to repair; only the first 100 images of a split are opened."""
    lines = []
    uncaptioned = images_without_captions(pairs.by_split)
    if uncaptioned:
        lines.append(f"odd: {counted(len(uncaptioned), 'image')} without a caption: {names(uncaptioned)}")
    missing = [split for split in SPLITS if split not in pairs.splits]
    if missing:
        lines.append(f"odd: there is no split {' and no split '.join(missing)}")
    for records in pairs.by_split.values():
        for record in records[:100]:
            try:
                read_image(record.path)
            except InputError as error:
                lines.append(f"odd: {error}")
    return lines


def prepare_photographs(folder: Path, out: Path) -> str:
    """Write photographs with captions as a set of the course, and report what was written.

    Each photograph is turned upright, scaled down to at most 1,024 pixels on its longer side, and saved as a JPEG file
    without the camera's notes, such as the place where it was taken.

    Raises:
        InputError: if a photograph cannot be read or has no caption, a split is empty, or ``out`` exists already.
    """
    pairs = open_pairs(folder)
    uncaptioned = images_without_captions(pairs.by_split)
    if uncaptioned:
        number = counted(len(uncaptioned), "photograph")
        raise InputError(f"{folder} has {number} without a caption: {names(uncaptioned)}; write one for each")
    missing = [split for split in SPLITS if split not in pairs.splits]
    if missing:
        raise InputError(
            f"{folder} has no photographs for {' and '.join(missing)}; give three or more, and name every split or none"
        )
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        write_annotations(partial, save_photographs(pairs.by_split, partial / "images"))
    return f"{out} has {counts(pairs.by_split)}. Train on it: python -m helpers train --data {out} --out runs/{out.name}"


def names(paths: list[Path]) -> str:
    return listed(path.name for path in paths)


def save_photographs(by_split: Splits, folder: Path) -> Splits:
    """Save every photograph, and return its record in the new folder; all that cannot be read are reported together."""
    saved: Splits = {split: [] for split in by_split}
    taken: set[str] = set()
    broken: list[str] = []
    photographs = [(split, record) for split, records in by_split.items() for record in records]
    for number, (split, record) in enumerate(tqdm(photographs, "reading photographs", leave=False, disable=None)):
        try:
            image = read_image(record.path)
        except InputError as error:
            broken.append(str(error))
            continue
        image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
        pixels = Image.new("RGB", image.size)  # a new image has none of the camera's notes
        pixels.paste(image)
        stem = record.path.stem
        name = f"{stem}-{number}.jpg" if stem.casefold() in taken else f"{stem}.jpg"
        taken.add(stem.casefold())
        pixels.save(folder / name, quality=QUALITY)
        captions = [annotation["caption"] for annotation in record.annotations]
        new = make_record(number, name, folder / name, captions)
        new.image |= {"width": image.width, "height": image.height}
        saved[split].append(new)
    if broken:
        raise InputError(f"{len(broken)} of {len(photographs)} photographs cannot be used: {listed(broken)}")
    return saved
