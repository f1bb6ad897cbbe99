"""Read and write pairs in the COCO Captions layout (see ``data/README.md``), and read COCO's own folders."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from helpers.files import InputError, read_text

OFFICIAL = re.compile(r"^(train|val|test)(2014|2017)$")  # the names of COCO's own splits


@dataclass
class Record:
    """An image's entry in an annotation file, the path of the image, and the entries of its captions."""

    image: dict
    path: Path
    annotations: list[dict] = field(default_factory=list)


def make_record(image_id: int | str, file_name: str, path: Path, captions: Sequence[str]) -> Record:
    """A record for an image whose captions do not come from an annotation file."""
    annotations = [{"image_id": image_id, "caption": caption} for caption in captions]
    return Record({"id": image_id, "file_name": file_name}, path, annotations)


def read_annotations(root: Path | str, split: str) -> list[Record]:
    """Read the images of a split with their captions, in the order of the annotation file."""
    path, folder = find_split(Path(root), split)
    records: dict[int | str, Record] = {}
    where = str(path)
    try:
        content = json.loads(read_text(path))
        for number, image in enumerate(content["images"]):
            where = f"{path}: image {number}"
            check_file_name(image["file_name"], where)
            if image["id"] in records:
                raise InputError(f"{where} repeats the id {image['id']!r}; every image needs its own")
            records[image["id"]] = Record(image, folder / image["file_name"])
        for number, annotation in enumerate(content["annotations"]):
            where = f"{path}: annotation {number}"
            check_caption(annotation["caption"], where)
            if annotation["image_id"] not in records:
                raise InputError(f"{where} belongs to image {annotation['image_id']!r}; add it to 'images'")
            records[annotation["image_id"]].annotations.append(annotation)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    except (KeyError, TypeError):
        raise InputError(f"{where} does not have the form that data/README.md shows; add what is missing") from None
    if not records:
        raise InputError(f"{path} has no images; a split needs at least one")
    uncaptioned = [record.path.name for record in records.values() if not record.annotations]
    if uncaptioned:
        count = f"{len(uncaptioned)} of {len(records)} images have no caption"
        raise InputError(f"{path}: {count}, first {uncaptioned[0]}; write one for each")
    return list(records.values())


def read_captions(root: Path | str, split: str) -> tuple[list[Path], list[list[str]]]:
    """The path of each image of a split, and the list of its captions."""
    return paths_and_captions(read_annotations(root, split))


def paths_and_captions(records: Sequence[Record]) -> tuple[list[Path], list[list[str]]]:
    captions = [[annotation["caption"] for annotation in record.annotations] for record in records]
    return [record.path for record in records], captions


def find_split(root: Path, split: str) -> tuple[Path, Path]:
    """The annotation file of a split and the folder of its images."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; `make pairs` generates data/scenes and data/emoji")
    files = annotation_files(root)
    # In COCO's own folders the split "train" is train2017, or train2014 if only that is there.
    name = next((name for name in (split, f"{split}2017", f"{split}2014") if name in files), None)
    if name is None:
        known = ", ".join(OFFICIAL.sub(r"\1", name) for name in files)
        hint = f"its splits are: {known}" if known else "it needs annotations/captions_train.json and so on"
        raise InputError(f"{root} has no split {split!r}; {hint}")
    folder = root / name if OFFICIAL.match(name) else root / "images"
    if not folder.is_dir():
        raise InputError(f"{root} has captions for {name} but no folder {folder}; put its images there")
    return files[name], folder


def annotation_files(root: Path) -> dict[str, Path]:
    """The annotation files of a folder by the name of their split."""
    return {file.stem.removeprefix("captions_"): file for file in sorted(root.glob("annotations/captions_*.json"))}


def check_file_name(file_name: str, where: str) -> None:
    path = Path(file_name)
    if len(path.name.encode(errors="surrogateescape")) > 255 or "\0" in file_name:
        raise InputError(f"{where} has the file name '{file_name[:40]}...', which is too long; check the columns")
    if not path.name:
        raise InputError(f"{where} has no file name; write one, or remove the line")
    if PureWindowsPath(file_name).anchor or ".." in path.parts:  # "/" counts as an anchor, too
        hint = f"write it relative to the folder, such as {path.name}"
        raise InputError(f"{where} has the file name {file_name!r}, which must lie inside the folder; {hint}")


def check_caption(caption: object, where: str) -> None:
    if not isinstance(caption, str) or not caption.strip():
        raise InputError(f"{where} has an empty caption; write one, or remove the entry")


def write_annotations(root: Path, by_split: dict[str, list[Record]], **first: dict) -> None:
    """Write the annotation files of the COCO Captions layout; ``first`` goes to the beginning of each file."""
    (root / "annotations").mkdir()
    for split, records in by_split.items():
        annotations = [annotation for record in records for annotation in record.annotations]
        annotations = [{"id": number, **annotation} for number, annotation in enumerate(annotations)]
        content = {**first, "images": [record.image for record in records], "annotations": annotations}
        path = root / "annotations" / f"captions_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
