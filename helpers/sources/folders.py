"""Layouts of pairs on disk: which one a folder has, and its images and captions, checked.

| layout | what it is known by |
|---|---|
| COCO Captions, the course's own | ``annotations/captions_train.json`` and so on, ``images/`` |
| COCO's own folders | ``annotations/captions_train2017.json`` (or 2014), ``train2017/``, ``val2017/`` |
| Karpathy's split file | ``dataset_coco.json``, ``dataset_flickr8k.json`` or ``dataset_flickr30k.json`` |
| Flickr8k | ``Flickr8k.token.txt``, with ``Flickr_8k.trainImages.txt`` and so on where they are there |
| Flickr30k | ``results_20130124.token`` |
| Flickr30k from Kaggle | ``results.csv`` with the header ``image_name| comment_number| comment`` |
| a table | a CSV or TSV file with a header that names a file and a caption, and a split if there is one |
| a plain folder | images with a ``.txt`` of the same name beside each, a caption a line |

Karpathy's file is an addition to the others: where it is there, its splits are taken ("restval" belongs to train).

Where nothing names splits, they are drawn by image: in the order of the SHA-256 of the file names, without folders and
endings, the first tenth is val, the second tenth test (rounded, at least one image each), the rest train. Fewer than
three images are all train. So the same photographs get the same splits in every layout.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from helpers.files import InputError, counted
from helpers.files import listed as some
from helpers.sources.coco import (
    OFFICIAL,
    Record,
    annotation_files,
    check_caption,
    check_captions_are_there,
    check_file_name,
    check_id,
    entry_values,
    images_folder,
    paths_and_captions,
    read_annotations,
    read_json,
    read_text,
    reading,
)

SPLIT_NAMES = {"train": "train", "training": "train", "restval": "train", "val": "val", "valid": "val"}
SPLIT_NAMES |= {"validation": "val", "dev": "val", "test": "test", "testing": "test"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
IMAGE_FOLDERS = ("", "images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images")
IMAGE_FOLDERS += ("flickr30k_images", "flickr30k_images/flickr30k_images")
FILE_COLUMNS = ("file", "file_name", "filename", "image", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
TOKEN_LINE = re.compile(r"(?P<name>[^\t]+)#(?P<number>\d+)\t(?P<caption>.*)")
# In one line of Kaggle's file the second bar is missing: "2199200615.jpg| 4   A dog runs across the grass ."
KAGGLE_LINE = re.compile(r"(?P<name>[^|]+)\|\s*(?P<number>\d+)(?:\s*\||\s)(?P<caption>.*)")
FLICKR_LISTS = {"train": "train", "val": "dev", "test": "test"}  # Flickr_8k.devImages.txt
DRAWN = ", drawn by file name (a tenth val, a tenth test, at least one each, the rest train)"

Splits = dict[str, list[Record]]


@dataclass(frozen=True)
class Pairs:
    """What :func:`open_pairs` found: a sentence that says which layout, and the records of each split."""

    layout: str
    by_split: Splits

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.by_split)

    def records(self, split: str) -> list[Record]:
        """The images of a split with their captions, in the order of the source.

        Raises:
            InputError: if there is no such split.
        """
        if split not in self.by_split:
            raise InputError(f"there is no split {split!r}; the splits are: {', '.join(self.by_split)}")
        return self.by_split[split]

    def captions(self, split: str) -> tuple[list[Path], list[list[str]]]:
        """The path of each image of a split, and the list of its captions."""
        return paths_and_captions(self.records(split))


class Row(NamedTuple):
    """One caption of a text file: of which image, where it stands, and the split if it is named there."""

    file_name: str
    caption: str
    place: str
    split: str | None = None


class Layout(NamedTuple):
    name: str
    find: Callable[[Path], list[Path]]  # the files in a folder by which the layout is known; none: another layout
    read: Callable[[Path, list[Path]], tuple[Splits, str]]  # their pairs, and what else the sentence says


def open_pairs(path: Path | str) -> Pairs:
    """Find out which layout a folder, or a file in it, has, and read all its pairs, checked.

    Every split has at least one image, every image a file and a caption, and no image stands twice or in two splits.

    Raises:
        InputError: naming the file and what to do: a folder with no layout or with several, and whatever is wrong in
            the files of its layout.
    """
    path = Path(path)
    with reading(path):
        layout, files = find_layout(path, LAYOUTS)
        by_split, note = layout.read(path if path.is_dir() else path.parent, files)
        by_split = {split: by_split[split] for split in sorted(by_split, key=split_order) if by_split[split]}
        check_images(by_split)
    return Pairs(f"{layout.name}: {counted(len(by_split), 'split')}{note}", by_split)


def find_layout(path: Path, layouts: Sequence[Layout]) -> tuple[Layout, list[Path]]:
    """The one layout among ``layouts`` that a folder or a file has, and the files by which it is known."""
    if not path.exists():
        raise InputError(f"there is no folder or file {path}; give one that has images and captions")
    found = {layout: layout.find(path if path.is_dir() else path.parent) for layout in layouts}
    if path.is_file():
        found = {layout: [path] for layout, files in found.items() if path in files}
    found = {layout: files for layout, files in found.items() if files}
    if KARPATHY in found:
        found = {layout: files for layout, files in found.items() if layout not in BESIDE_KARPATHY}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        seen = "; ".join(f"{layout.name} ({listed(file.name for file in files)})" for layout, files in found.items())
        raise InputError(f"{path} has more than one layout: {seen}; name one of these files, or keep one layout")
    tables = [path] if path.is_file() else tables_of(path)
    if TABLE in layouts and tables and tables[0].suffix.lower() in (".csv", ".tsv"):
        return TABLE, tables[:1]  # one without a header, say: reading it tells what is wrong
    raise InputError(nothing_found(path))


def nothing_found(path: Path) -> str:
    if path.is_file():
        return f"{path} is in no layout that is known here; give the folder that has the images and their captions"
    images = images_of(path)
    if images:
        example = ["file,caption", *(f"{image.name},what {image.name} shows" for image in images[:2])]
        return (
            f"{path} has {counted(len(images), 'image')} but no captions; "
            f"write them into {path / 'captions.csv'}, like this:\n" + "\n".join(example)
        )
    seen = some(sorted(entry.name for entry in path.iterdir())) or "nothing at all"
    return (
        f"{path} is in no layout that is known here; it has {seen}. "
        "Give a folder that has images with a captions.csv, or annotations/captions_train.json"
    )


def split_order(split: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order), split)


def check_images(by_split: Splits) -> None:
    """Every image has a file, and stands once in one split."""
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
                    f"the image {record.path} stands twice, in {seen[record.path]} and in {split}; "
                    "give it one entry with all its captions"
                )
            seen[record.path] = split


def draw_splits(records: Sequence[Record]) -> Splits:
    """Train, val and test by image, as the head of this file says; each keeps the order of ``records``."""
    if len(records) < 3:
        return {"train": list(records)}

    def rank(index: int) -> tuple[bytes, str]:
        name = PurePosixPath(records[index].image["file_name"])
        return hashlib.sha256(name.stem.encode()).digest(), str(name)

    order = sorted(range(len(records)), key=rank)
    tenth = max(1, (len(records) + 5) // 10)
    chosen = {"train": order[2 * tenth :], "val": order[:tenth], "test": order[tenth : 2 * tenth]}
    return {split: [records[index] for index in sorted(indices)] for split, indices in chosen.items()}


def drawn(by_split: Splits) -> str:
    """What the sentence about a layout says of splits that nothing named."""
    return DRAWN if len(by_split) > 1 else ", since fewer than three images are not split"


def gather(rows: Sequence[Row], source: Path, places: Sequence[Path]) -> dict[str, Record]:
    """The records of rows by file name, in order of first appearance; the images lie in one of ``places``."""
    if not rows:
        raise InputError(f"{source} has no captions; write at least one")
    folder = images_lie_in(places, [row.file_name for row in rows[:20]])
    records: dict[str, Record] = {}
    for number, row in enumerate(rows):
        try:
            check_file_name(row.file_name, folder)
            check_caption(row.caption)
        except InputError as error:
            raise InputError(f"{row.place} {error}") from None
        name = file_named(row)
        record = records.setdefault(name, Record({"id": len(records), "file_name": name}, folder / name))
        annotation = {"id": number, "image_id": record.image["id"], "caption": row.caption.strip()}
        record.annotations.append(annotation)
    return records


def images_lie_in(places: Sequence[Path], file_names: Sequence[str]) -> Path:
    """The first of some folders that has one of the files; where none has, the first, for the error to name."""
    folders = [place / name for place in places for name in IMAGE_FOLDERS]
    safe = [name for name in file_names if "\0" not in name]
    return next((folder for folder in folders if any((folder / name).is_file() for name in safe)), folders[0])


def read_coco(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    names = [file.stem.removeprefix("captions_") for file in files]
    return {name: read_annotations(folder, name) for name in names}, ""


def read_official(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    """COCO's annotations hold all splits in one archive, its images come one by one: those that are there are read."""
    names = [file.stem.removeprefix("captions_") for file in files]
    if len({OFFICIAL.fullmatch(name)[2] for name in names}) > 1:
        raise InputError(
            f"{folder} has more than one layout: {listed(file.name for file in files)}; "
            "keep the annotations of one year, or put Karpathy's dataset_coco.json beside them"
        )
    there = [name for name in names if images_folder(folder, name).is_dir()]
    if not there:
        raise InputError(f"{folder} has no folder {' or '.join(names)}; unpack the images there")
    left = [name for name in names if name not in there]
    by_split = {OFFICIAL.fullmatch(name)[1]: read_annotations(folder, name) for name in there}
    return by_split, f"; there is no folder {' or '.join(left)}" if left else ""


def find_coco(folder: Path) -> list[Path]:
    return [file for split, file in annotation_files(folder).items() if not OFFICIAL.fullmatch(split)]


def find_official(folder: Path) -> list[Path]:
    return [file for split, file in annotation_files(folder).items() if OFFICIAL.fullmatch(split)]


def read_karpathy(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    """Source: Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (2015)."""
    path = only(files)
    content = read_json(path)
    if not (isinstance(content, dict) and isinstance(content.get("images"), list) and content["images"]):
        raise InputError(f"{path} must hold an object with a list 'images' that is not empty; fetch the file again")
    found: list[tuple[str, dict, list[dict]]] = []
    seen: set[int | str] = set()
    sentence_ids: set[int | str] = set()
    for number, image in enumerate(content["images"]):
        try:
            _, split = entry_values(image, ("filename", "split"))
            check_file_name(karpathy_name(image), folder)
            image_id = image.get("imgid", number)
            check_id(image_id, "imgid")
            if image_id in seen:
                raise InputError(f"repeats the imgid {image_id!r}; every image needs its own")
            annotations = karpathy_captions(image, image_id, sentence_ids)
            found.append((split_called(split), {**image, "imgid": image_id}, annotations))
        except InputError as error:
            raise InputError(f"{path}: image {number} {error}") from None
        seen.add(image_id)
    place = karpathy_places(folder, [image for _, image, _ in found[:20]])
    by_split: Splits = {}
    for split, image, annotations in found:
        entry = {"id": image["imgid"], "file_name": place(image).relative_to(folder).as_posix()}
        by_split.setdefault(split, []).append(Record(entry, place(image), annotations))
    check_captions_are_there([record for records in by_split.values() for record in records], path)
    return by_split, f" of {path.name}"


def karpathy_name(image: dict) -> str:
    return f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"]


def karpathy_captions(image: dict, image_id: int | str, seen: set[int | str]) -> list[dict]:
    """The captions of an image; the ids of its sentences, where it has them, join ``seen``."""
    sentences = image.get("sentences")
    if not isinstance(sentences, list):
        raise InputError("has no list 'sentences'")
    annotations = []
    for sentence in sentences:
        caption, _ = entry_values(sentence, ("raw", "raw"))
        check_caption(caption)
        annotation = {"image_id": image_id, "caption": caption}
        if "sentid" in sentence:
            check_id(sentence["sentid"], "sentid")
            if sentence["sentid"] in seen:
                raise InputError(f"repeats the sentid {sentence['sentid']!r}; every sentence needs its own, or none")
            seen.add(sentence["sentid"])
            annotation["id"] = sentence["sentid"]
        annotations.append(annotation)
    return annotations


def karpathy_places(folder: Path, first: Sequence[dict]) -> Callable[[dict], Path]:
    """Where an image of Karpathy's file lies: as it says, or in COCO's folders of 2017, whose names are the ids."""
    base = images_lie_in([folder], [karpathy_name(image) for image in first])
    train, val = folder / "train2017", folder / "val2017"
    as_said = any((base / karpathy_name(image)).is_file() for image in first)
    if as_said or not (train.is_dir() or val.is_dir()):
        return lambda image: base / karpathy_name(image)
    in_val = set(os.listdir(val)) if val.is_dir() else set()

    def by_id(image: dict) -> Path:
        name = image["filename"].rpartition("_")[2]  # of COCO_val2014_000000391895.jpg
        return (val if name in in_val else train) / name

    return by_id


def find_karpathy(folder: Path) -> list[Path]:
    return sorted(folder.glob("dataset_*.json"))


def read_flickr(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    """Sources: Hodosh, Young and Hockenmaier (2013), Flickr8k; Young et al. (2014), Flickr30k."""
    path = only(files)
    kaggle = path.name == "results.csv"
    expected = "name.jpg| 0| caption" if kaggle else "name.jpg#0, a tab, and the caption"
    rows, seen = [], set()
    for number, line in lines_of(path):
        if kaggle and number == 1:
            continue
        parts = (KAGGLE_LINE if kaggle else TOKEN_LINE).fullmatch(line)
        if parts is None:
            raise InputError(f"{path}: line {number} must read {expected}, not {line[:60]!r}; mend or remove it")
        key = (parts["name"], parts["number"])
        if key in seen:
            raise InputError(f"{path}: line {number} repeats caption {key[1]} of {key[0]}; give it another number")
        seen.add(key)
        rows.append(Row(parts["name"].strip(), parts["caption"], f"{path}: line {number}"))
    records = gather(rows, path, [path.parent, folder])
    lists = {split: path.parent / f"Flickr_8k.{name}Images.txt" for split, name in FLICKR_LISTS.items()}
    lists = {split: file for split, file in lists.items() if file.is_file()}
    if not lists:
        by_split = draw_splits(list(records.values()))
        return by_split, drawn(by_split) + left_out(records)
    by_split = {split: [records[name] for name in listed(file, records, path)] for split, file in lists.items()}
    left = len(records) - sum(map(len, by_split.values()))
    return by_split, f"; {counted(left, 'image')} in none of them left out" if left else ""


def listed(file: Path, records: dict[str, Record], source: Path) -> list[str]:
    """The names in one of Flickr8k's lists of images, each once and with captions."""
    names: dict[str, int] = {}
    for number, line in lines_of(file):
        name = line.strip()
        if name not in records:
            raise InputError(f"{file}: line {number} names {name!r}, which has no caption in {source.name}; remove it")
        if name in names:
            raise InputError(f"{file}: line {number} repeats {name!r} of line {names[name]}; remove one of them")
        names[name] = number
    return list(names)


def find_flickr(folder: Path) -> list[Path]:
    names = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "results_20130124.token")
    tables = (folder / "results.csv", folder / "flickr30k_images" / "results.csv")
    return [folder / name for name in names if (folder / name).is_file()] + [
        file for file in tables if file.is_file() and first_line(file).startswith("image_name|")
    ]


def lines_of(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers.

    Not ``str.splitlines``, which also breaks at characters that may stand within a caption.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; write its lines, or remove it")
    return lines


def first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(4096).decode("utf-8-sig", errors="replace").strip()


def read_table(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    path = only(files)
    rows = table_rows(path)
    records = gather(rows, path, [path.parent])
    by_split, note = split_rows(rows, records)
    return by_split, f" in {path.name}{note}{left_out(records)}"


def split_rows(rows: Sequence[Row], records: dict[str, Record]) -> tuple[Splits, str]:
    """The splits that rows name; drawn ones where they name none."""
    if rows[0].split is None:
        by_split = draw_splits(list(records.values()))
        return by_split, drawn(by_split)
    by_split: Splits = {}
    for name, split in splits_of_files(rows).items():
        by_split.setdefault(split, []).append(records[name])
    return by_split, ""


def left_out(records: dict[str, Record]) -> str:
    """Words for the images that lie beside those of ``records`` and have no caption."""
    named = {record.path for record in records.values()}
    folders = {path.parent for path in named if path.parent.is_dir()}
    alone = sum(image not in named for folder in folders for image in images_of(folder))
    return f"; {counted(alone, 'image')} beside them without a caption left out" if alone else ""


def file_named(row: Row) -> str:
    return str(PurePosixPath(row.file_name))


def splits_of_files(rows: Sequence[Row]) -> dict[str, str | None]:
    """The split of each file that rows name, in order of first appearance; all rows of a file must agree."""
    first: dict[str, Row] = {}
    for row in rows:
        before = first.setdefault(file_named(row), row)
        if before.split != row.split:
            raise InputError(f"{row.place} puts {row.file_name} into {row.split}, an earlier one into {before.split}")
    return {name: row.split for name, row in first.items()}


def table_rows(path: Path) -> list[Row]:
    """The rows of a CSV or TSV file whose header names a column of files and one of captions.

    Raises:
        InputError: naming the line: no header, too few or too many columns, quotes that do not end, an unknown split.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty; write the header file,caption and a line a caption")
    header = text.lstrip().split("\n", 1)[0].strip()
    delimiter = next((d for d in (",", "\t", ";") if columns_of(header, d)), None)
    if delimiter is None:
        raise InputError(f"{path} has no header, its first line is {header[:60]!r}; write file,caption above it")
    file_column, caption_column, split_column, width = columns_of(header, delimiter)
    rows: list[Row] = []
    for line, cells in list(cells_of(path, text, delimiter))[1:]:
        place = f"{path}: line {line}"
        if len(cells) != width:
            hint = "put quotes round a caption that holds one" if len(cells) > width else "write the missing ones"
            raise InputError(f"{place} has {counted(len(cells), 'column')} where the header has {width}; {hint}")
        try:
            split = None if split_column is None else split_called(cells[split_column].strip())
        except InputError as error:
            raise InputError(f"{place} {error}") from None
        rows.append(Row(cells[file_column].strip(), cells[caption_column], place, split))
    return rows


def cells_of(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not blank, each with the number of the line it begins at."""
    csv.field_size_limit(2**31 - 1)  # the limit is 131,072 characters, which a caption of 10,000 words can pass
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    end = 0  # a caption in quotes may go over several lines
    try:
        for cells in reader:
            begin, end = end + 1, reader.line_num
            if any(cell.strip() for cell in cells):
                yield begin, cells
    except csv.Error as error:
        raise InputError(
            f"{path}: line {end + 1} has quotes that are not right ({error}); put them round a whole caption, "
            "and double those inside it"
        ) from None


def columns_of(header: str, delimiter: str) -> tuple[int, int, int | None, int] | None:
    """The numbers of the columns of files, captions and splits, and how many columns there are; None: no header."""
    names = [name.strip().strip('"').lower() for name in header.split(delimiter)]
    files, captions = ([n for n in names if n in known] for known in (FILE_COLUMNS, CAPTION_COLUMNS))
    if len(files) != 1 or len(captions) != 1:
        return None
    split = names.index("split") if "split" in names else None
    return names.index(files[0]), names.index(captions[0]), split, len(names)


def split_called(name: object) -> str:
    if not isinstance(name, str) or name.lower() not in SPLIT_NAMES:
        raise InputError(f"has the split {name!r}; write train, val or test")
    return SPLIT_NAMES[name.lower()]


def tables_of(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in (".csv", ".tsv") or file.name == "captions.txt"
    )


def find_table(folder: Path) -> list[Path]:
    headers = {file: first_line(file) for file in tables_of(folder) if file.is_file()}
    return [file for file, header in headers.items() if any(columns_of(header, delimiter) for delimiter in ",\t;")]


def only(files: list[Path]) -> Path:
    """The file of a layout that has just one. Raises InputError if there are several."""
    if len(files) > 1:
        folder = files[0].parent
        raise InputError(
            f"{folder} has more than one such file: {listed(file.name for file in files)}; keep one, or name it"
        )
    return files[0]


def images_of(folder: Path) -> list[Path]:
    """The image files of a folder by their names' endings; macOS puts others beside them that begin with a dot."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def split_folders(folder: Path) -> dict[Path, str]:
    there = sorted(entry for entry in folder.iterdir() if entry.name in SPLIT_NAMES and entry.is_dir())
    return {entry: SPLIT_NAMES[entry.name] for entry in there}


class Beside(NamedTuple):
    """The images of a plain folder with the text file beside each, and those of either that are alone."""

    texts: dict[Path, Path]
    images_alone: list[Path]
    texts_alone: list[Path]


def texts_beside(folder: Path) -> Beside:
    texts = {file.stem: file for file in sorted(folder.glob("*.txt")) if not file.name.startswith(".")}
    images = images_of(folder)
    stems = Counter(image.stem for image in images)
    for stem, text in texts.items():
        if stems[stem] > 1:
            twins = ", ".join(image.name for image in images if image.stem == stem)
            raise InputError(f"{text} is beside {twins}; rename one of them, and write a text for each")
    return Beside(
        {image: texts[image.stem] for image in images if image.stem in texts},
        [image for image in images if image.stem not in texts],
        [text for stem, text in texts.items() if stem not in stems],
    )


def plain_rows(root: Path, folder: Path, beside: Beside) -> list[Row]:
    split = SPLIT_NAMES[folder.name] if folder != root else None
    return [
        Row(image.relative_to(root).as_posix(), line, f"{text}: line {number}", split)
        for image, text in beside.texts.items()
        for number, line in lines_of(text)
    ]


def plain_places(folder: Path) -> list[Path]:
    """The folders of the splits where there are some, else the folder itself."""
    subfolders = split_folders(folder)
    if subfolders and images_of(folder):
        raise InputError(
            f"{folder} has images of its own beside {some(path.name for path in subfolders)}: "
            f"{some(image.name for image in images_of(folder))}; move them into one of these"
        )
    return list(subfolders) or [folder]


def read_plain(folder: Path, files: list[Path]) -> tuple[Splits, str]:
    rows: list[Row] = []
    for place in plain_places(folder):
        beside = texts_beside(place)
        if beside.images_alone:
            alone = some(image.name for image in beside.images_alone)
            raise InputError(
                f"{place} has images without a caption: {alone}; write a .txt of the same name beside each"
            )
        if beside.texts_alone:
            alone = some(text.name for text in beside.texts_alone)
            raise InputError(f"{place} has captions without an image: {alone}; add the image, or move the text away")
        rows += plain_rows(folder, place, beside)
    return split_rows(rows, gather(rows, folder, [folder]))


def find_plain(folder: Path) -> list[Path]:
    """One text file that lies beside an image is enough; where others are missing, reading says so."""
    for place in (folder, *split_folders(folder)):
        stems = {image.stem for image in images_of(place)}
        found = next((file for file in sorted(place.glob("*.txt")) if file.stem in stems), None)
        if found:
            return [found]
    return []


KARPATHY = Layout("Karpathy's splits", find_karpathy, read_karpathy)
TABLE = Layout("table of files and captions", find_table, read_table)
PLAIN = Layout("folder of images with a text file beside each", find_plain, read_plain)
BESIDE_KARPATHY = (
    Layout("COCO's own folders", find_official, read_official),
    Layout("Flickr's text files", find_flickr, read_flickr),
)
LAYOUTS = (
    Layout("COCO Captions layout", find_coco, read_coco),
    *BESIDE_KARPATHY,
    KARPATHY,
    TABLE,
    PLAIN,
)
