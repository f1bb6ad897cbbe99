"""Recognise the layout of a folder of pairs, and read and check its images and captions.

It knows the layouts of :mod:`helpers.sources.coco`; a table (CSV, TSV, JSONL or ``captions.txt``) of files, captions
and perhaps splits; and images with a ``.txt`` of the same name each. ``data/README.md`` describes them.
"""

import ast
import csv
import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import helpers.sources.coco as coco
from helpers.files import InputError, counted, listed, read_text
from helpers.sources.coco import OFFICIAL, Record

Row = tuple[str, str, str | None]  # the file name of an image, a caption, and a split

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation", "dev"), "val")
IMAGE_FOLDERS = ("", "images", "Images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
FILE_COLUMNS = ("file", "file_name", "filename", "image", "image_name", "image_path", "filepath", "path")
DELIMITERS = ",\t;|"
CAPTION_COLUMNS = ("caption", "text", "comment", "sentence", "title")  # also in the plural, or numbered
TRANSLATION = re.compile(r"([a-z]{2,3})(?:[_@]\w+)*\.utf8\s*=\s*(.*)")  # such as "de.utf8=ein Hund"
NEXT_ROW = re.compile(r"\n[^\n]*\.(jpe?g|png|webp|gif|bmp|tiff?)[\",;\t|]", re.IGNORECASE)  # swallowed by an open quote
HIDDEN = (".", "__MACOSX", "~$")  # prefixes of hidden files, and of those of macOS and Office
COCO, OFFICIAL_COCO = "COCO Captions layout", "COCO's own folders"
TABLE, PLAIN = "table of files and captions", "folder of images with a text file for each"
csv.field_size_limit(10**8)  # a long caption is cut later, with a remark


@dataclass(frozen=True)
class Pairs:
    """Images and captions by split, and a sentence that describes their layout."""

    folder: Path
    layout: str
    by_split: dict[str, list[Record]]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.by_split)

    def records(self, split: str) -> list[Record]:
        if split not in self.by_split:
            hint = f"move some images to {split}, or name the split of each"
            raise InputError(f"{self.folder} has no split {split!r}, only {', '.join(self.by_split)}; {hint}")
        return self.by_split[split]

    def captions(self, split: str) -> tuple[list[Path], list[list[str]]]:
        """The path of each image of a split, and the list of its captions."""
        return coco.paths_and_captions(self.records(split))


def open_pairs(path: Path | str, language: str | None = None) -> Pairs:
    """Recognise the layout of a folder and read its pairs; ``language`` chooses among translations in text files."""
    folder = Path(path)
    layout, files = find_layout(folder)
    note = f" in {files[0].name}" if layout == TABLE else ""
    if layout in (COCO, OFFICIAL_COCO):
        names = list(coco.annotation_files(folder))
        if layout == OFFICIAL_COCO:  # its annotations come for all splits at once, its images one split at a time
            names = [name for name in names if (folder / name).is_dir()] or names[:1]
        by_split = {OFFICIAL.sub(r"\1", name): coco.read_annotations(folder, name) for name in names}
    else:
        tables = [row for file in files for row in read_table(file, folder)] if layout == TABLE else []
        rows = tables or read_plain(files, folder, language)
        by_split = group_rows(rows, folder)
        if rows[0][2] is None:
            note += ", chosen by file name (a tenth val, a tenth test, the rest train)"
    by_split = {split: by_split[split] for split in dict.fromkeys([*SPLITS, *by_split]) if split in by_split}
    find_similar_names(folder, [record for records in by_split.values() for record in records])
    paths = [record.path for records in by_split.values() for record in records]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:  # perhaps in train and in test, where it would make a model look better than it is
        raise InputError(f"{folder}: {listed(path.name for path in twice)} listed twice; give each image one entry")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        files = counted(len(missing), "image file")
        raise InputError(f"{folder}: {files} missing, first {missing[0]}; copy the files, or remove their captions")
    return Pairs(folder, f"{layout}: {counted(len(by_split), 'split')}{note}", by_split)


def find_layout(folder: Path) -> tuple[str, list[Path]]:
    """The layout of a folder, and the files that show it."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name one that has images and captions")
    annotations = coco.annotation_files(folder)
    kind = OFFICIAL_COCO if any(map(OFFICIAL.match, annotations)) else COCO
    layouts = {kind: list(annotations.values()), TABLE: tables_in(folder), PLAIN: with_text(folder)}
    if not any(layouts.values()):
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.lower() in SPLIT_NAMES)
        layouts[TABLE] = [table for each in inner for table in tables_in(each)]
    if not annotations and not tables_in(folder):
        layouts[PLAIN] = with_text(folder, "**/*")
    layouts = {layout: files for layout, files in layouts.items() if files}
    if not layouts:
        hint = 'write one with the first line "file,caption" and lines such as "dog.jpg,a dog on a beach"'
        if nested := [each for each in visible(folder, "*/") if tables_in(each)]:
            hint = f"name the folder {nested[0]} instead"
        raise InputError(f"{folder} has {counted(len(images_in(folder, '**/*')), 'image')} but no captions.csv; {hint}")
    layout, files = next(iter(layouts.items()))
    two_tables = layout == TABLE and len({file.parent for file in files}) < len(files)
    if len(layouts) > 1 or two_tables:
        names = "; ".join(f"{layout} ({listed(file.name for file in files)})" for layout, files in layouts.items())
        raise InputError(f"{folder} has more than one layout: {names}; keep one of them")
    return layout, files


def read_table(path: Path, folder: Path) -> list[Row]:
    """Read a table with a column of files, one of captions or several numbered ones, and perhaps one of splits."""
    inner = path.parent.relative_to(folder)
    rows = []
    try:
        for where, cells in table_rows(path):
            file_column = next((name for name in FILE_COLUMNS if name in cells), None)
            patterns = (rf"{name}s?[ _]?\d*" for name in CAPTION_COLUMNS)
            matches = ([name for name in cells if re.fullmatch(pattern, name)] for pattern in patterns)
            captions = [cells[name] for name in next(filter(None, matches), ())]
            if file_column is None or not captions:
                hint = "it needs the columns 'file' and 'caption'"
                raise InputError(f"{path} has the columns {', '.join(map(repr, cells))}; {hint}")
            file_name = cells[file_column].strip().replace("\\", "/")  # as Windows writes folders
            coco.check_file_name(file_name, where)
            captions = [caption.strip() for cell in captions for caption in python_list(cell)] or [""]
            coco.check_caption(captions[0], where)
            split = cells.get("split", "").strip().lower()
            if "split" in cells and split not in SPLIT_NAMES:
                raise InputError(f"{where} has the split {split!r}; write train, val or test")
            split = SPLIT_NAMES.get(split) or split_of_folder(inner / file_name)
            rows += [((inner / file_name).as_posix(), caption, split) for caption in captions]
    except csv.Error as error:
        hint = "put quotes around the whole caption, and double each quote inside it"
        raise InputError(f"{path}: {error} after row {1 + len(rows)}; {hint}") from None
    if not rows:
        raise InputError(f"{path} has no captions; write one line per caption below the names of the columns")
    return rows


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV, TSV or JSONL file: its file and line, and its cells by lower-case column name."""
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{path}: line {number}"
                try:
                    values = {name.lower(): v if isinstance(v, list) else [v] for name, v in json.loads(line).items()}
                except (ValueError, AttributeError):
                    raise InputError(f'{where} is not JSON such as {{"file_name": ..., "text": ...}}') from None
                named = ((f"{name}{k or ''}", v) for name, own in values.items() for k, v in enumerate(own))
                yield where, {name: "" if v is None else str(v) for name, v in named}
        return
    lines = text.split("\n")
    if text.lower().startswith("sep="):  # Excel's own first line
        delimiter, lines[0] = text[4:5].strip("\n") or ",", ""
    else:
        first = next((line for line in lines if any(map(line.count, DELIMITERS))), "")
        delimiter = max(DELIMITERS, key=first.count)
    filled = (k for k, line in enumerate(lines) if sum(map(bool, map(str.strip, line.split(delimiter)))) > 1)
    skipped = next(filled, 0)  # a title above the names of the columns
    content = io.StringIO("\n".join(lines[skipped:]), newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True, skipinitialspace=True)
    names = [name.strip().lower() for name in next(reader, [])]
    header = [f"{name}{names[:k].count(name) or ''}" for k, name in enumerate(names)]  # equal names get numbers
    for cells in reader:
        if not any(map(str.strip, cells)):
            continue
        where = f"{path}: line {skipped + reader.line_num}"
        if NEXT_ROW.search("".join(cells)):
            raise InputError(f"{where} ends a quote begun on an earlier line; close the quote where its caption ends")
        if len(cells) != len(header):
            raise InputError(f"{where} has too many or too few columns; put quotes around captions with commas")
        yield where, dict(zip(header, cells, strict=True))


def python_list(cell: str) -> list[str]:
    """The captions in a cell: the items of a list as Python prints it, or the cell itself; empty ones are left out."""
    items = [cell]
    if cell.strip().startswith(("['", '["')):
        with suppress(ValueError, SyntaxError):
            items = ast.literal_eval(cell.strip())
    return [item for item in map(str, items) if item.strip()]


def read_plain(images: Sequence[Path], folder: Path, language: str | None) -> list[Row]:
    """Read the text file next to each image: one caption per line, or the first line and its translations."""
    rows = []
    for image in images:
        text, name = text_file(image), image.relative_to(folder)
        captions = [line.strip() for line in read_text(text).split("\n") if line.strip()]
        if not captions:
            raise InputError(f"{text} is empty; write one caption per line")
        translations = {match[1]: match[2] for line in captions[1:] if (match := TRANSLATION.fullmatch(line))}
        if translations or language:
            by_language = {"en": captions[0], None: captions[0]} | translations
            captions = list(filter(None, [by_language.get(language)]))
        rows += [(name.as_posix(), caption, split_of_folder(name)) for caption in captions]
    if not rows:
        raise InputError(f"{folder} has no captions in the language {language!r}; choose another, such as 'en'")
    return rows


def split_of_folder(name: Path) -> str | None:
    """The split that the first folder of a file's name stands for, such as ``Validation/``."""
    return SPLIT_NAMES.get(name.parts[0].lower()) if len(name.parts) > 1 else None


def tables_in(folder: Path) -> list[Path]:
    files = visible(folder)
    endings = (".csv", ".tsv", ".jsonl", ".csv.txt", ".tsv.txt")  # Notepad adds .txt
    return [file for file in files if file.name.lower().endswith(endings) or file.name.lower() == "captions.txt"]


def with_text(folder: Path, pattern: str = "*") -> list[Path]:
    return [image for image in images_in(folder, pattern) if text_file(image)]


def text_file(image: Path) -> Path | None:
    return next((text for suffix in (".txt", ".TXT") if (text := image.with_suffix(suffix)).is_file()), None)


def images_in(folder: Path, pattern: str = "*") -> list[Path]:
    return [file for file in visible(folder, pattern) if file.suffix.lower() in IMAGE_SUFFIXES]


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """The entries of a folder, without those that macOS and Office add."""
    found = ((entry, entry.relative_to(folder).parts) for entry in folder.glob(pattern))
    return sorted(entry for entry, parts in found if not any(part.startswith(HIDDEN) for part in parts))


def find_similar_names(folder: Path, records: Sequence[Record]) -> None:
    """Give a missing image the path of a file whose name differs only in case, encoding of accents, or suffix."""

    def same(path: Path) -> str:
        return unicodedata.normalize("NFC", str(path)).casefold()

    missing = [record for record in records if not record.path.is_file()]
    files = [file for file in visible(folder, "**/*") if file.is_file()] if missing else []
    similar = {same(file.with_suffix("")): file for file in files} | {same(file): file for file in files}
    for record in missing:
        record.path = similar.get(same(record.path), record.path)


def group_rows(rows: Sequence[Row], folder: Path) -> dict[str, list[Record]]:
    """Records with all captions of each image, in the splits that the rows name, or else by file name."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    for file_name, caption, split in rows:
        name = unicodedata.normalize("NFC", str(PurePosixPath(file_name)))
        if splits.setdefault(name, split) != split:
            raise InputError(f"{name} is in two splits, {splits[name]} and {split}; choose one of them")
        captions.setdefault(name, []).append(caption)
    if set(splits.values()) == {None}:
        splits = split_by_name(list(captions))
    elif None in splits.values():
        stray = next(name for name, split in splits.items() if split is None)
        raise InputError(f"{folder}: some images are in split folders, but {stray} is not; move it to one")
    by_split: dict[str, list[Record]] = {}
    for number, (name, own) in enumerate(captions.items()):
        candidates = [folder / inner / name for inner in IMAGE_FOLDERS]
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
        by_split.setdefault(splits[name], []).append(coco.make_record(number, name, path, own))
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
