"""The layout of a folder of pairs is recognised, and its images and captions are read and checked.

| layout | how it is recognised |
|---|---|
| COCO Captions, the course's own | ``annotations/captions_train.json`` and so on, ``images/`` |
| COCO's official folders | ``annotations/captions_train2017.json`` (or 2014), ``train2017/``, ``val2017/`` |
| Karpathy's splits | ``dataset_coco.json``, ``dataset_flickr8k.json`` or ``dataset_flickr30k.json`` next to the images |
| a table | a CSV or TSV file whose header names a file and a caption, and optionally a split |
| a plain folder | images, each with a ``.txt`` of the same name that has one caption per line |

Where nothing names the splits, they follow from the SHA-256 of each file name without its folder and ending: in that
order the first tenth of the images is val, the second tenth test (rounded, at least one image each), and the rest
train. The same photographs therefore get the same splits in every layout.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from helpers.files import InputError, counted, listed, read_text
from helpers.sources.coco import (
    OFFICIAL,
    SPLIT_NAMES,
    Record,
    annotation_files,
    check_caption,
    check_file_name,
    find_image,
    images_folder,
    make_record,
    paths_and_captions,
    read_annotations,
    read_karpathy,
)

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
FILE_COLUMNS = ("file", "file_name", "filename", "image", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
COCO, OFFICIAL_COCO, KARPATHY = "COCO Captions layout", "COCO's own folders", "Karpathy's splits"
TABLE, PLAIN = "table of files and captions", "folder of images with a text file for each"
BY_NAME = ", chosen by file name (a tenth val, a tenth test, the rest train)"

Splits = dict[str, list[Record]]


@dataclass(frozen=True)
class Pairs:
    """Images and captions by split, and a sentence that describes their layout."""

    layout: str
    by_split: Splits

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.by_split)

    def records(self, split: str) -> list[Record]:
        """The images of a split with their captions, in the order of the source."""
        if split not in self.by_split:
            raise InputError(f"there is no split {split!r}; the splits are: {', '.join(self.by_split)}")
        return self.by_split[split]

    def captions(self, split: str) -> tuple[list[Path], list[list[str]]]:
        """The path of each image of a split, and the list of its captions."""
        return paths_and_captions(self.records(split))


class Row(NamedTuple):
    """One caption of a table or a text file."""

    file_name: str
    caption: str
    where: str  # for error messages
    split: str | None = None


def open_pairs(path: Path | str) -> Pairs:
    """Recognise the layout of a folder, or of one file in it, and read all its pairs.

    Raises:
        InputError: if the folder has no layout or more than one, or if its pairs cannot be used.
    """
    path = Path(path)
    layout, files = find_layout(path)
    folder = path if path.is_dir() else path.parent
    if layout in (KARPATHY, TABLE) and len(files) > 1:
        raise InputError(f"{folder} has more than one such file: {listed(f.name for f in files)}; keep one, or name it")
    note = ""
    if layout == COCO:
        names = [file.stem.removeprefix("captions_") for file in files]
        by_split = {name: read_annotations(folder, name) for name in names}
    elif layout == OFFICIAL_COCO:
        by_split, note = read_official(folder, files)
    elif layout == KARPATHY:
        by_split, note = read_karpathy(files[0]), f" in {files[0].name}"
    else:
        rows = read_table(files[0]) if layout == TABLE else read_plain(folder)
        note = f" in {files[0].name}" if layout == TABLE else ""
        note += BY_NAME if rows[0].split is None else ""
        by_split = group_rows(rows, folder)
    by_split = {split: by_split[split] for split in sorted(by_split, key=split_order)}
    check_images(by_split)
    return Pairs(f"{layout}: {counted(len(by_split), 'split')}{note}", by_split)


def find_layout(path: Path) -> tuple[str, list[Path]]:
    """The layout of a folder, and the files that show it."""
    if not path.exists():
        raise InputError(f"there is no folder {path}; name one that has images and captions")
    folder = path if path.is_dir() else path.parent
    annotations = annotation_files(folder)
    karpathy = sorted(folder.glob("dataset_*.json"))
    tables = [file for file in sorted(folder.iterdir()) if file.suffix in (".csv", ".tsv") or file.name == "captions.txt"]
    found = {
        COCO: [file for split, file in annotations.items() if not OFFICIAL.fullmatch(split)],
        OFFICIAL_COCO: [file for split, file in annotations.items() if OFFICIAL.fullmatch(split) and not karpathy],
        KARPATHY: karpathy,
        TABLE: [file for file in tables if table_columns(first_cells(file))],
        PLAIN: [text for place in split_folders(folder) for text in texts_with_images(place)][:1],
    }
    if path.is_file():
        found = {layout: [path] for layout, files in found.items() if path in files}
    found = {layout: files for layout, files in found.items() if files}
    if len(found) > 1:
        seen = "; ".join(f"{layout} ({listed(file.name for file in files)})" for layout, files in found.items())
        raise InputError(f"{path} has more than one layout: {seen}; name one of these files, or keep one layout")
    if not found and tables:
        return TABLE, tables[:1]  # reading it says what is wrong
    if not found:
        raise InputError(f"{path} has {what_is_there(folder)}")
    return next(iter(found.items()))


def what_is_there(folder: Path) -> str:
    images = images_in(folder)
    if not images:
        return (
            "no images with captions; name a folder that has images and a captions.csv, "
            "or annotations/captions_train.json"
        )
    example = f"{images[0].name},what it shows"
    return (
        f"{counted(len(images), 'image')} but no captions.csv; write one there "
        f'with the first line "file,caption" and lines like "{example}"'
    )


def read_official(folder: Path, files: Sequence[Path]) -> tuple[Splits, str]:
    """Read the splits whose images are unpacked."""
    names = [file.stem.removeprefix("captions_") for file in files]
    unpacked = [name for name in names if images_folder(folder, name).is_dir()]
    if not unpacked:
        raise InputError(f"{folder} has no folder {' or '.join(names)}; unpack the images there")
    by_split = {OFFICIAL.fullmatch(name)[1]: read_annotations(folder, name) for name in unpacked}
    absent = [name for name in names if name not in unpacked]
    return by_split, f"; there is no folder {' or '.join(absent)}" if absent else ""


def read_table(path: Path) -> list[Row]:
    """Read a CSV or TSV file whose header names a column of files, one of captions and perhaps one of splits."""
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; put quotes round a whole caption, not inside") from None
    columns = table_columns(lines[0][1]) if lines else None
    if columns is None:
        raise InputError(f"{path} has no header; write file,caption as its first line")
    if len(lines) == 1:
        raise InputError(f"{path} has no captions; write one line per caption")
    file, caption, split = columns
    width = len(lines[0][1])
    rows = []
    for number, cells in lines[1:]:
        where = f"{path}: line {number}"
        if len(cells) != width:
            raise InputError(
                f"{where} has {counted(len(cells), 'column')} where the header has {width}; "
                "put quotes round a caption that holds a comma"
            )
        name = None if split is None else cells[split].strip().lower()
        if name is not None and name not in SPLIT_NAMES:
            raise InputError(f"{where} has the split {cells[split]!r}; write train, val or test")
        check_file_name(cells[file].strip(), where)
        check_caption(cells[caption], where)
        rows.append(Row(cells[file].strip(), cells[caption].strip(), where, SPLIT_NAMES.get(name)))
    return rows


def table_columns(header: Sequence[str]) -> tuple[int, int, int | None] | None:
    """The columns of files, captions and splits; None if the header does not name the first two."""
    column = {name.strip().lower(): number for number, name in enumerate(header)}
    files = [column[name] for name in FILE_COLUMNS if name in column]
    captions = [column[name] for name in CAPTION_COLUMNS if name in column]
    return (files[0], captions[0], column.get("split")) if files and captions else None


def first_cells(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        text = file.read(4096).lstrip()
    return next(csv.reader(text.splitlines()[:1], delimiter=delimiter_of(text)), [])


def delimiter_of(text: str) -> str:
    header = text.lstrip().partition("\n")[0]
    return max(",\t;", key=header.count)


def read_plain(folder: Path) -> list[Row]:
    """Read images that each have a ``.txt`` of the same name, one caption per line, in folders train, val and test or
    in one folder."""
    rows = []
    for place in split_folders(folder):
        images = images_in(place)
        captions = {text.stem: caption_lines(text) for text in visible(place.glob("*.txt"))}
        if not images:
            raise InputError(f"{place} has no images; put some there, or remove the folder")
        silent = [image.name for image in images if not captions.get(image.stem)]
        if silent:
            raise InputError(f"{place} has images without a caption: {listed(silent)}; write a .txt for each")
        lonely = [f"{stem}.txt" for stem in captions if stem not in {image.stem for image in images}]
        if lonely:
            raise InputError(f"{place} has captions without an image: {listed(lonely)}; add the image, or remove them")
        split = SPLIT_NAMES[place.name] if place != folder else None
        rows += [
            Row(image.relative_to(folder).as_posix(), caption, str(image), split)
            for image in images
            for caption in captions[image.stem]
        ]
    return rows


def caption_lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def split_folders(folder: Path) -> list[Path]:
    """The folders of a plain folder's splits, or the folder itself if it has none."""
    inner = [entry for entry in sorted(folder.iterdir()) if entry.name in SPLIT_NAMES and entry.is_dir()]
    inner = [entry for entry in inner if any(entry.glob("*.txt"))]
    if inner and texts_with_images(folder):
        raise InputError(f"{folder} has images next to the folder {inner[0].name}; move them into one of the splits")
    return inner or [folder]


def texts_with_images(folder: Path) -> list[Path]:
    stems = {image.stem for image in images_in(folder)}
    return [text for text in visible(folder.glob("*.txt")) if text.stem in stems]


def images_in(folder: Path) -> list[Path]:
    return visible(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def visible(files: Iterable[Path]) -> list[Path]:
    """Files in the order of their names, without the hidden ones that macOS adds."""
    return sorted(file for file in files if not file.name.startswith("."))


def group_rows(rows: Sequence[Row], folder: Path) -> Splits:
    """Records with all captions of each image, in the splits that the rows name, or else by file name."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    for row in rows:
        name = str(PurePosixPath(row.file_name))
        if splits.setdefault(name, row.split) != row.split:
            raise InputError(f"{row.where} puts {name} into {row.split}, an earlier line into {splits[name]}")
        captions.setdefault(name, []).append(row.caption)
    records = [
        make_record(number, name, find_image(folder, name), captions[name]) for number, name in enumerate(captions)
    ]
    if rows[0].split is None:
        return split_by_name(records)
    by_split: Splits = {}
    for record in records:
        by_split.setdefault(splits[record.image["file_name"]], []).append(record)
    return by_split


def split_by_name(records: Sequence[Record]) -> Splits:
    """Choose train, val and test by the SHA-256 of the file names; fewer than three images are all train."""
    if len(records) < 3:
        return {"train": list(records)}

    def rank(index: int) -> tuple[bytes, str]:
        name = PurePosixPath(records[index].image["file_name"])
        return hashlib.sha256(name.stem.encode()).digest(), str(name)

    order = sorted(range(len(records)), key=rank)
    tenth = max(1, (len(records) + 5) // 10)
    chosen = {"train": order[2 * tenth :], "val": order[:tenth], "test": order[tenth : 2 * tenth]}
    return {split: [records[index] for index in sorted(indices)] for split, indices in chosen.items()}


def split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def check_images(by_split: Splits) -> None:
    """Raise an error if an image file is missing, or if an image is in two splits or twice in one."""
    seen: dict[Path, str] = {}
    for split, records in by_split.items():
        missing = [record.path for record in records if not record.path.is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(records)} image files of {split} are missing, first {missing[0]}; "
                "put them there, or remove their entries"
            )
        for record in records:
            if record.path in seen:
                raise InputError(
                    f"the image {record.path} is listed twice, in {seen[record.path]} and in {split}; "
                    "give it one entry with all its captions"
                )
            seen[record.path] = split


def images_without_captions(by_split: Splits) -> list[Path]:
    """Images in the same folders as the images of the splits, but without a caption."""
    named = {record.path for records in by_split.values() for record in records}
    folders = sorted({path.parent for path in named})
    return [image for folder in folders for image in images_in(folder) if image not in named]
