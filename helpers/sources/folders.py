"""Recognise the layout of a folder of pairs, and read and check its images and captions.

| layout | how it is recognised |
|---|---|
| COCO Captions, the course's own | ``annotations/captions_train.json`` and so on, ``images/`` |
| COCO's own folders | ``annotations/captions_train2017.json`` (or 2014), ``train2017/``, ``val2017/`` |
| Karpathy's splits | ``dataset_coco.json``, ``dataset_flickr8k.json`` and so on, next to the images |
| table | ``captions.txt``, or a CSV or TSV file, whose header names a file, a caption and perhaps a split |
| plain folder | images, each with a ``.txt`` of the same name that has one caption per line |

Where nothing names the splits, images are sorted by the SHA-256 of their file name (without folder and ending). The
first tenth is then val, the second tenth test (rounded, at least one image each), and the rest train. The same
photographs therefore get the same splits in every layout.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import helpers.sources.coco as coco
from helpers.files import InputError, counted, listed, read_text
from helpers.sources.coco import OFFICIAL, SPLIT_NAMES, Record

Row = tuple[str, str, str | None]  # the file name of an image, a caption, and a split

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
FILE_COLUMNS = ("file", "file_name", "filename", "image", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
COCO, OFFICIAL_COCO, KARPATHY = "COCO Captions layout", "COCO's own folders", "Karpathy's splits"
TABLE, PLAIN = "table of files and captions", "folder of images with a text file for each"


@dataclass(frozen=True)
class Pairs:
    """Images and captions by split, and a sentence that describes their layout."""

    layout: str
    by_split: dict[str, list[Record]]

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
        return coco.paths_and_captions(self.records(split))


def open_pairs(path: Path | str) -> Pairs:
    """Recognise the layout of a folder and read all its pairs; ``InputError`` if there is none, or more than one."""
    folder = Path(path)
    layout, files = find_layout(folder)
    note = f" in {files[0].name}" if layout in (KARPATHY, TABLE) else ""
    if layout == COCO:
        by_split = {split: coco.read_annotations(folder, split) for split in coco.annotation_files(folder)}
    elif layout == OFFICIAL_COCO:
        # COCO's annotations come for all splits at once, its images one split at a time.
        names = list(coco.annotation_files(folder))
        names = [name for name in names if (folder / name).is_dir()] or names[:1]
        by_split = {OFFICIAL.sub(r"\1", name): coco.read_annotations(folder, name) for name in names}
    elif layout == KARPATHY:
        by_split = coco.read_karpathy(files[0])
    else:
        rows = read_table(files[0]) if layout == TABLE else read_plain(files)
        by_split = group_rows(rows, folder)
        if rows[0][2] is None:
            note += ", chosen by file name (a tenth val, a tenth test, the rest train)"
    by_split = {split: by_split[split] for split in dict.fromkeys([*SPLITS, *by_split]) if split in by_split}
    paths = [record.path for records in by_split.values() for record in records]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:  # perhaps in train and in test, where it would make a model look better than it is
        raise InputError(f"{folder}: {listed(path.name for path in twice)} listed twice; give each image one entry")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        files = counted(len(missing), "image file")
        raise InputError(f"{folder}: {files} missing, first {missing[0]}; copy the files, or remove their captions")
    return Pairs(f"{layout}: {counted(len(by_split), 'split')}{note}", by_split)


def find_layout(folder: Path) -> tuple[str, list[Path]]:
    """The layout of a folder, and the files that show it."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name one that has images and captions")
    annotations = coco.annotation_files(folder)
    karpathy = sorted(folder.glob("dataset_*.json"))
    official = any(OFFICIAL.fullmatch(name) for name in annotations)
    layouts = {
        COCO: [] if official else list(annotations.values()),
        OFFICIAL_COCO: list(annotations.values()) if official and not karpathy else [],
        KARPATHY: karpathy,
        TABLE: [file for file in visible(folder) if file.suffix in (".csv", ".tsv") or file.name == "captions.txt"],
        PLAIN: [image for image in images_in(folder) if image.with_suffix(".txt").is_file()],
    }
    layouts = {layout: files for layout, files in layouts.items() if files}
    if not layouts:
        hint = 'write one with the first line "file,caption" and lines such as "dog.jpg,a dog on a beach"'
        raise InputError(f"{folder} has {counted(len(images_in(folder)), 'image')} but no captions.csv; {hint}")
    layout, files = next(iter(layouts.items()))
    if len(layouts) > 1 or (layout in (TABLE, KARPATHY) and len(files) > 1):
        names = "; ".join(f"{layout} ({listed(file.name for file in files)})" for layout, files in layouts.items())
        raise InputError(f"{folder} has more than one layout: {names}; keep one of them")
    return layout, files


def read_table(path: Path) -> list[Row]:
    """Read a CSV or TSV file whose header names a column of files, one of captions and perhaps one of splits."""
    text = read_text(path)
    delimiter = max(",\t;", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        file_column = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
        caption_column = next((columns[name] for name in CAPTION_COLUMNS if name in columns), None)
        if file_column is None or caption_column is None:
            raise InputError(f"{path} has no header; write file,caption as its first line")
        for cells in reader:
            where = f"{path}: line {reader.line_num}"
            if None in cells or None in cells.values():
                raise InputError(f"{where} has too many or too few columns; put quotes round a caption with a comma")
            file_name, caption = cells[file_column].strip(), cells[caption_column].strip()
            coco.check_file_name(file_name, where)
            coco.check_caption(caption, where)
            split = cells[columns["split"]].strip().lower() if "split" in columns else None
            if split is not None and split not in SPLIT_NAMES:
                raise InputError(f"{where} has the split {split!r}; write train, val or test")
            rows.append((file_name, caption, SPLIT_NAMES.get(split)))
    except csv.Error as error:
        raise InputError(f"{path}: {error} after line {reader.line_num}; put quotes round the whole caption") from None
    if not rows:
        raise InputError(f"{path} has no captions; write one line per caption")
    return rows


def read_plain(images: Sequence[Path]) -> list[Row]:
    """Read the text file next to each image, which has one caption per line."""
    rows = []
    for image in images:
        text = image.with_suffix(".txt")
        captions = [line.strip() for line in read_text(text).split("\n") if line.strip()]
        if not captions:
            raise InputError(f"{text} is empty; write one caption per line")
        rows += [(image.name, caption, None) for caption in captions]
    return rows


def images_in(folder: Path) -> list[Path]:
    return [file for file in visible(folder) if file.suffix.lower() in IMAGE_SUFFIXES]


def visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))  # macOS adds hidden files


def group_rows(rows: Sequence[Row], folder: Path) -> dict[str, list[Record]]:
    """Records with all captions of each image, in the splits that the rows name, or else by file name."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    for file_name, caption, split in rows:
        name = str(PurePosixPath(file_name))
        if splits.setdefault(name, split) != split:
            raise InputError(f"{name} is in two splits, {splits[name]} and {split}; choose one of them")
        captions.setdefault(name, []).append(caption)
    if rows[0][2] is None:
        splits = split_by_name(list(captions))
    by_split: dict[str, list[Record]] = {}
    for number, (name, own) in enumerate(captions.items()):
        record = coco.make_record(number, name, coco.find_image(folder, name), own)
        by_split.setdefault(splits[name], []).append(record)
    return by_split


def split_by_name(names: Sequence[str]) -> dict[str, str]:
    """Choose train, val or test for each image by the SHA-256 of its name; fewer than three images are all train."""
    order = sorted(names, key=lambda name: (hashlib.sha256(PurePosixPath(name).stem.encode()).digest(), name))
    tenth = max(1, (len(names) + 5) // 10) if len(names) >= 3 else 0
    return {name: "val" if k < tenth else "test" if k < 2 * tenth else "train" for k, name in enumerate(order)}


def images_without_captions(by_split: dict[str, list[Record]]) -> list[Path]:
    """Images without a caption, in the folders of the images that have one."""
    captioned = {record.path for records in by_split.values() for record in records}
    folders = sorted({path.parent for path in captioned})
    return [image for folder in folders for image in images_in(folder) if image not in captioned]
