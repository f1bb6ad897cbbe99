"""Your own photographs: describe a folder of them, and write a copy in the COCO Captions layout."""

import shlex
import textwrap
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from helpers.files import InputError, atomic_folder, counted, listed
from helpers.sources.coco import Record, write_annotations
from helpers.sources.folders import SPLITS, images_without_captions, open_pairs
from helpers.sources.images import read_image
from helpers.text import WordTokenizer

LONGER_SIDE = 1024  # pixels
QUALITY = 90  # of the JPEG files


def look(folder: Path, language: str | None = None) -> str:
    """Describe a folder of pairs: its layout, its splits, three captions, and anything odd."""
    pairs = open_pairs(folder, language)
    lines = [pairs.layout, counts(pairs.by_split)]
    for record in pairs.records(pairs.splits[0])[:3]:
        lines.append(f"{record.image['file_name']}: {textwrap.shorten(record.annotations[0]['caption'], 100)}")
    lines += [f"odd: {path.name} has no caption" for path in images_without_captions(pairs.by_split)[:20]]
    lines += [f"odd: no images are in the split {split}" for split in SPLITS if split not in pairs.splits]
    lines += [f"odd: {remark}" for remark in WordTokenizer.fit(pairs.captions(pairs.splits[0])[1])[1]]
    for path in [record.path for records in pairs.by_split.values() for record in records[:100]]:
        try:
            picture = read_image(path, LONGER_SIDE)
        except InputError as error:
            lines.append(f"odd: {error}")
        else:
            lines += [f"odd: {path.name} has one colour only"] if picture.getcolors(1) else []
    return "\n".join(lines)


def counts(by_split: dict[str, list[Record]]) -> str:
    """The number of images and captions in each split."""
    parts = []
    for split, records in by_split.items():
        captions = sum(len(record.annotations) for record in records)
        parts.append(f"{counted(len(records), 'image')} with {counted(captions, 'caption')} in {split}")
    return ", ".join(parts)


def prepare_photographs(folder: Path, out: Path, language: str | None = None) -> str:
    """Write photographs as a set of the course: upright JPEG files of at most 1,024 pixels on their longer side."""
    pairs = open_pairs(folder, language)
    uncaptioned = [path.name for path in images_without_captions(pairs.by_split)]
    if uncaptioned:
        raise InputError(f"{folder} has photographs without a caption: {listed(uncaptioned)}; write one for each")
    missing = [split for split in SPLITS if split not in pairs.splits]
    if missing:
        hint = f"move some images to {listed(missing)}, or use three or more images and no splits"
        raise InputError(f"{folder} has photographs for {listed(pairs.splits)} only; {hint}")
    with atomic_folder(out) as partial:
        (partial / "images").mkdir()
        photographs = [record for records in pairs.by_split.values() for record in records]
        for record in tqdm(photographs, "reading photographs", leave=False, disable=None):
            save_photograph(record, partial / "images")
        write_annotations(partial, pairs.by_split)
    command = f"python -m helpers train --data {shlex.quote(str(out))} --out {shlex.quote(f'runs/{out.name}')}"
    return f"{out} has {counts(pairs.by_split)}. Train on it: {command}"


def save_photograph(record: Record, folder: Path) -> None:
    """Save a photograph, and update its record to the new file."""
    image = read_image(record.path, LONGER_SIDE)
    image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    pixels = Image.new("RGB", image.size)  # a new image has none of the camera's notes
    pixels.paste(image)
    path, copies = folder / f"{record.path.stem}.jpg", 1
    while path.exists():  # dog.jpg and dog.png
        copies += 1
        path = folder / f"{record.path.stem}-{copies}.jpg"
    pixels.save(path, quality=QUALITY)
    record.path = path
    record.image = {"id": record.image["id"], "file_name": path.name, "width": image.width, "height": image.height}
