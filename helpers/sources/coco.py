"""The one layout on disk: images and captions in the COCO Captions layout, read, checked and written.

::

    data/<name>/images/*.png|jpg
    data/<name>/annotations/captions_{train,val,test}.json
        {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"id", "image_id", "caption"}]}

COCO's own folders are read as they unpack: ``annotations/captions_{train,val}2017.json`` (or 2014), with the images in
``train2017/`` and ``val2017/``. Other layouts: :mod:`helpers.sources.folders`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from helpers.files import DATA as DATA
from helpers.files import InputError

OFFICIAL = re.compile(r"(train|val|test)(2014|2017)")  # how COCO itself names its splits
PLAIN_NAME = re.compile(r"\w[\w-]*\.\w+", re.ASCII)  # of a file, which needs no closer look


@dataclass
class Record:
    """An image's entry in an annotation file, where the image lies, and the entries of its captions."""

    image: dict
    path: Path
    annotations: list[dict] = field(default_factory=list)


def read_annotations(root: Path | str, split: str) -> list[Record]:
    """The images of a split with their captions, in the order of the file, checked.

    In COCO's own folders the split "train" is ``train2017``, or ``train2014`` where only that is there; its full name
    may be given too.

    Raises:
        InputError: naming the file and what is wrong in it: no such folder or split, broken JSON, missing keys, a
            repeated id, a path that leaves the folder, a caption without an image, an image without a caption.
    """
    with reading(root):
        path, folder = find_split(Path(root), split)
    content = read_json(path)
    if not (isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))):
        raise InputError(f"{path} must hold an object with two lists, 'images' and 'annotations'")
    if not content["images"]:
        raise InputError(f"{path} has no images; a split needs at least one")
    records: dict[int | str, Record] = {}
    for number, image in enumerate(content["images"]):
        try:
            image_id, file_name = entry_values(image, ("id", "file_name"))
            check_id(image_id, "id")
            if image_id in records:
                raise InputError(f"repeats the id {image_id!r}; every image needs its own")
            check_file_name(file_name, folder)
        except InputError as error:
            raise InputError(f"{path}: image {number} {error}") from None
        records[image_id] = Record(image, folder / file_name)
    add_captions(records, content["annotations"], path)
    check_captions_are_there(records.values(), path)
    return list(records.values())


def add_captions(records: dict[int | str, Record], annotations: list, path: Path) -> None:
    """Give each image, found by its id, the entries of its captions."""
    seen: set[int | str] = set()
    for number, annotation in enumerate(annotations):
        try:
            image_id, caption = entry_values(annotation, ("image_id", "caption"))
            check_id(image_id, "image_id")
            if image_id not in records:
                raise InputError(
                    f"belongs to image {image_id!r}, which is not in 'images'{other_way(image_id, records)}"
                )
            check_caption(caption)
            if "id" in annotation:
                check_id(annotation["id"], "id")
                if annotation["id"] in seen:
                    raise InputError(f"repeats the id {annotation['id']!r}; every annotation needs its own, or none")
                seen.add(annotation["id"])
        except InputError as error:
            raise InputError(f"{path}: annotation {number} {error}") from None
        records[image_id].annotations.append(annotation)


def other_way(image_id: int | str, records: dict[int | str, Record]) -> str:
    """A hint where an id is written as a number in one list and as text in the other."""
    alike = [known for known in records if str(known) == str(image_id)]
    return f"; 'images' has {alike[0]!r}: write ids alike, all as numbers or all as text" if alike else ""


def find_split(root: Path, split: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its images."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; `make pairs` draws data/scenes")
    there = annotation_files(root)
    official = [name for name in there if OFFICIAL.fullmatch(name) and name[:-4] == split]
    if split not in there and len(official) > 1:
        raise InputError(f"{root} has {' and '.join(official)}; ask for one of them in place of {split!r}")
    if split not in there and not official:
        names = dict.fromkeys(OFFICIAL.sub(r"\1", name) for name in there)
        hint = f"its splits are: {', '.join(names)}" if there else "it needs annotations/captions_train.json and so on"
        raise InputError(f"{root} has no split {split!r}; {hint}")
    name = split if split in there else official[0]
    folder = images_folder(root, name)
    if OFFICIAL.fullmatch(name) and not folder.is_dir():
        raise InputError(f"{root} has captions for {name} but no folder {folder}; unpack its images there")
    return there[name], folder


def annotation_files(root: Path) -> dict[str, Path]:
    """The annotation files of a folder by the name of their split, in the order of their names."""
    files = sorted(root.glob("annotations/captions_*.json"))
    return {file.stem.removeprefix("captions_"): file for file in files}


def images_folder(root: Path, split: str) -> Path:
    """Where the images of a split lie: ``images``, but ``train2017`` for COCO's own, there or inside ``images``."""
    if not OFFICIAL.fullmatch(split):
        return root / "images"
    inside = root / "images" / split
    return inside if inside.is_dir() and not (root / split).is_dir() else root / split


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Says in words which file or folder may not be read."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{where} cannot be read ({error.strerror}); see that it is there and yours to read") from None


def read_json(path: Path) -> object:
    try:
        return json.loads(read_text(path, "JSON"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not valid JSON: {error}; correct it there, or fetch the file again") from None


def read_text(path: Path, kind: str = "text") -> str:
    """A text file in UTF-8, with or without the mark (BOM) that Excel and Windows' editor put before it.

    Raises:
        InputError: if it cannot be read, or is not UTF-8.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not valid {kind}: line {line} is not UTF-8; save the file as UTF-8") from None


def entry_values(entry: object, keys: tuple[str, str]) -> tuple[object, object]:
    """The values of two keys of a JSON entry; a number as text stays text, so ids must be written alike."""
    if not isinstance(entry, dict):
        raise InputError(f"must be an object, not {type(entry).__name__}")
    for key in keys:
        if key not in entry:
            raise InputError(f"has no {key!r}")
        if isinstance(entry[key], (list, dict)):
            raise InputError(f"has a {key!r} that is no number or text")
    return entry[keys[0]], entry[keys[1]]


def check_id(value: object, key: str) -> None:
    """An id is a whole number or a text; ``true`` would pass for 1, and 1.0 too."""
    if type(value) not in (int, str):
        raise InputError(f"has the {key} {value!r}; an id is a whole number or a text")


def check_file_name(file_name: object, folder: Path) -> None:
    """A file name must lie inside its folder on every system: no absolute path, no "..", no drive, no backslash."""
    if not isinstance(file_name, str):
        raise InputError(f"has the file_name {file_name!r}, which is no text")
    if PLAIN_NAME.fullmatch(file_name):
        return
    inside = PurePosixPath(file_name)
    if inside.is_absolute() or ".." in inside.parts or not inside.name or PureWindowsPath(file_name).drive:
        raise InputError(f"has the file_name {file_name!r}, which must lie inside {folder}; move the file there")
    if "\\" in file_name:
        raise InputError(f"has the file_name {file_name!r} with a backslash; write / between folders")
    if not writable_text(file_name):
        raise InputError(f"has the file_name {file_name!r} with a null byte or half a character; rename the file")


def check_caption(caption: object) -> None:
    if not (isinstance(caption, str) and caption.strip()):
        raise InputError("has an empty caption; write one or remove it")
    if not writable_text(caption):
        raise InputError("has a caption with a null byte or half a character in it; write it anew")


def writable_text(text: str) -> bool:
    """Whether a text has no null byte and none of the halves of a character that JSON can hold and UTF-8 cannot."""
    if text.isascii():
        return "\0" not in text
    return re.search("[\0\ud800-\udfff]", text) is None


def check_captions_are_there(records: Iterable[Record], path: Path) -> None:
    records = list(records)
    without = [record for record in records if not record.annotations]
    if without:
        raise InputError(
            f"{path}: {len(without)} of {len(records)} images have no caption, first {without[0].path.name}; "
            "write one, or remove their entries"
        )


def read_captions(root: Path | str, split: str) -> tuple[list[Path], list[list[str]]]:
    """The pairs of a split in the COCO Captions layout: the path of each image, and the list of its captions.

    Raises:
        InputError: as :func:`read_annotations`.
    """
    return paths_and_captions(read_annotations(root, split))


def paths_and_captions(records: list[Record]) -> tuple[list[Path], list[list[str]]]:
    captions = [[annotation["caption"] for annotation in record.annotations] for record in records]
    return [record.path for record in records], captions


def write_annotations(root: Path, by_split: dict[str, list[Record]]) -> None:
    """The annotation files of the COCO Captions layout."""
    (root / "annotations").mkdir()
    for split, records in by_split.items():
        annotations = [annotation for record in records for annotation in record.annotations]
        content = {"images": [record.image for record in records], "annotations": annotations}
        path = root / "annotations" / f"captions_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
