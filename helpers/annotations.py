"""The one layout on disk: images and captions in the COCO Captions layout, read and checked.

::

    data/<name>/images/*.png|jpg
    data/<name>/annotations/captions_{train,val,test}.json
        {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"id", "image_id", "caption"}]}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from helpers.command_line import InputError

DATA = Path(__file__).resolve().parents[1] / "data"  # where the course keeps its pairs


@dataclass
class Record:
    """An image's entry in an annotation file, where the image lies, and the entries of its captions."""

    image: dict
    path: Path
    annotations: list[dict] = field(default_factory=list)


def read_annotations(root: Path | str, split: str) -> list[Record]:
    """The images of a split with their captions, in the order of the file, checked.

    Raises:
        InputError: naming the file and what is wrong in it: no such folder or split, broken JSON, missing keys, a
            repeated id, a path that leaves the folder, a caption without an image, an image without a caption.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; `make scenes` makes data/scenes")
    path = root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        there = sorted(file.stem.removeprefix("captions_") for file in root.glob("annotations/captions_*.json"))
        hint = f"its splits are: {', '.join(there)}" if there else "it needs annotations/captions_train.json and so on"
        raise InputError(f"{root} has no split {split!r}; {hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    if not (isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))):
        raise InputError(f"{path} must hold an object with two lists, 'images' and 'annotations'")
    if not content["images"]:
        raise InputError(f"{path} has no images; a split needs at least one")
    records: dict[object, Record] = {}
    for number, image in enumerate(content["images"]):
        image_id, file_name = entry_values(image, ("id", "file_name"), f"{path}: image {number}")
        if image_id in records:
            raise InputError(f"{path}: image {number} repeats the id {image_id!r}; every image needs its own")
        inside = PurePosixPath(str(file_name))
        if inside.is_absolute() or ".." in inside.parts or not inside.name:
            raise InputError(f"{path}: the file_name {file_name!r} must lie inside {root / 'images'}")
        records[image_id] = Record(image, root / "images" / inside)
    for number, annotation in enumerate(content["annotations"]):
        image_id, caption = entry_values(annotation, ("image_id", "caption"), f"{path}: annotation {number}")
        if image_id not in records:
            raise InputError(f"{path}: annotation {number} belongs to image {image_id!r}, which is not in 'images'")
        if not (isinstance(caption, str) and caption.strip()):
            raise InputError(f"{path}: annotation {number} has an empty caption; write one or remove it")
        records[image_id].annotations.append(annotation)
    without = [record for record in records.values() if not record.annotations]
    if without:
        raise InputError(
            f"{path}: {len(without)} of {len(records)} images have no caption, first {without[0].path.name}"
        )
    return list(records.values())


def entry_values(entry: object, keys: tuple[str, str], where: str) -> tuple[object, object]:
    """The values of two keys of a JSON entry; a number as text stays text, so ids must be written alike."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object, not {type(entry).__name__}")
    for key in keys:
        if key not in entry:
            raise InputError(f"{where} has no {key!r}")
        if isinstance(entry[key], (list, dict)):
            raise InputError(f"{where} has a {key!r} that is no number or text")
    return entry[keys[0]], entry[keys[1]]


def read_captions(root: Path | str, split: str) -> tuple[list[Path], list[list[str]]]:
    """The pairs of a split in the COCO Captions layout: the path of each image, and the list of its captions.

    Raises:
        InputError: as :func:`read_annotations`.
    """
    records = read_annotations(root, split)
    captions = [[annotation["caption"] for annotation in record.annotations] for record in records]
    return [record.path for record in records], captions
