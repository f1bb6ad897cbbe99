"""The same pairs are read alike from every layout, and each common mistake has a clear message."""

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from helpers.files import InputError
from helpers.sources import open_pairs, read_annotations, read_captions
from helpers.sources.folders import images_without_captions

Set = dict[str, list[tuple[Path, list[str]]]]  # for each split, images with their captions
CAPTIONS = ['a "red" square, on its own', "一个红色的方块", "مربع أحمر", "a square 🟥", "#1 | a square; or 'not'"]
CAPTIONS += ["two\u2028parts, one caption"]


def split_by_hash(pairs: list[tuple[Path, list[str]]]) -> Set:
    """The documented rule, written a second time."""
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].stem.encode()).hexdigest())
    tenth = max(1, int(len(pairs) / 10 + 0.5))
    return {"train": ranked[2 * tenth :], "val": ranked[:tenth], "test": ranked[tenth : 2 * tenth]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Set:
    """Seventeen images of one colour each, with one to three captions, in the splits that the rule chooses."""
    folder = tmp_path_factory.mktemp("made")
    captions = itertools.cycle(CAPTIONS)
    pairs = []
    for index in range(17):
        path = folder / f"image_{index:02d}.jpg"
        Image.new("RGB", (20 + index, 12), (15 * index, 255 - 15 * index, 7)).save(path)
        pairs.append((path, [f"{next(captions)} {index}" for _ in range(1 + index % 3)]))
    return split_by_hash(pairs)


def link_images(pairs: Iterable[tuple[Path, list[str]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, _ in pairs:
        (folder / path.name).symlink_to(path.resolve())


def write_coco(root: Path, made: Set, year: str = "") -> None:
    (root / "annotations").mkdir(parents=True)
    for split, pairs in made.items():
        link_images(pairs, root / (f"{split}{year}" if year else "images"))
        images = [{"id": index, "file_name": path.name} for index, (path, _) in enumerate(pairs)]
        annotations = [{"image_id": index, "caption": text} for index, (_, own) in enumerate(pairs) for text in own]
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}{year}.json").write_text(content)


def write_official(root: Path, made: Set) -> None:
    write_coco(root, {split: made[split] for split in made if split != "test"}, "2017")


def write_table(root: Path, made: Set, name: str, columns: list[str], folder: str = "images", bom: str = "") -> None:
    text = io.StringIO()
    writer = csv.writer(text, "excel-tab" if name.endswith(".tsv") else "excel")
    writer.writerow(columns)
    link_images(itertools.chain(*made.values()), root / folder)
    for split, pairs in made.items():
        for path, captions in pairs:
            for caption in captions:
                row = {"split": split, "caption": caption, "title": caption, "extra": 3}
                writer.writerow([row.get(column, path.name) for column in columns])
    (root / name).write_bytes((bom + text.getvalue()).encode())


def write_plain(root: Path, made: Set) -> None:
    link_images(itertools.chain(*made.values()), root)
    for path, captions in itertools.chain(*made.values()):
        (root / f"{path.stem}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Set], None]] = {
    "COCO Captions layout": write_coco,
    "COCO's own folders": write_official,
    "Kaggle's Flickr8k": lambda root, made: write_table(root, made, "captions.txt", ["image", "caption"], "Images"),
    "CSV": lambda root, made: write_table(root, made, "captions.csv", ["file", "caption"], "", "\ufeff"),
    "CSV with splits": lambda root, made: write_table(root, made, "pairs.csv", ["split", "extra", "file", "caption"]),
    "TSV with splits": lambda root, made: write_table(root, made, "pairs.tsv", ["title", "filepath", "split"]),
    "plain folder": write_plain,
}
WITHOUT_SPLITS = {"Kaggle's Flickr8k", "CSV", "plain folder"}


def contents(paths: list[Path], captions: list[list[str]]) -> list[tuple[bytes, list[str]]]:
    """Pairs by the content of the image files, in an order that is the same for all layouts."""
    return sorted((path.read_bytes(), own) for path, own in zip(paths, captions, strict=True))


def expected(made: Set) -> dict[str, list[tuple[bytes, list[str]]]]:
    return {split: contents([path for path, _ in pairs], [own for _, own in pairs]) for split, pairs in made.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_pairs_are_read_from_every_layout(tmp_path: Path, made: Set, name: str) -> None:
    WRITERS[name](tmp_path, made)
    pairs = open_pairs(tmp_path)
    truth = expected(made)
    if name == "COCO's own folders":
        del truth["test"]
    assert pairs.splits == tuple(truth)
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == truth
    assert f": {len(truth)} splits" in pairs.layout
    assert ("chosen by file name" in pairs.layout) == (name in WITHOUT_SPLITS)
    assert all({"id", "file_name"} <= record.image.keys() for record in pairs.records("train"))
    with pytest.raises(InputError, match="no split 'night', only train, val"):
        pairs.records("night")


def test_cocos_own_folders_are_read_by_the_names_of_the_course(tmp_path: Path, made: Set) -> None:
    write_official(tmp_path, made)
    paths, captions = read_captions(tmp_path, "val")
    assert contents(paths, captions) == expected(made)["val"]
    assert read_captions(tmp_path, "val2017") == (paths, captions)
    with pytest.raises(InputError, match="no split 'test'; its splits are: train, val"):
        read_captions(tmp_path, "test")
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"captions for train2017 but no folder .*train2017"):
        read_captions(tmp_path, "train")
    assert open_pairs(tmp_path).layout == "COCO's own folders: 1 split"


@pytest.mark.parametrize(("images", "sizes"), [(1, [1]), (2, [2]), (3, [1, 1, 1]), (5, [3, 1, 1]), (25, [19, 3, 3])])
def test_chosen_splits_are_never_empty_from_three_images_on(tmp_path: Path, images: int, sizes: list[int]) -> None:
    for index in range(images):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"caption {index}")
    pairs = open_pairs(tmp_path)
    assert [len(pairs.records(split)) for split in pairs.splits] == sizes


def test_a_table_may_have_quotes_and_line_breaks(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "c.csv").write_text('"file","Caption"\r\na.png,"two\nlines, ""quoted"""\n\n./a.png,short\n', newline="")
    assert open_pairs(tmp_path).captions("train")[1] == [['two\nlines, "quoted"', "short"]]


def test_an_image_without_a_text_file_is_left_out(tmp_path: Path, made: Set) -> None:
    write_plain(tmp_path, made)
    (tmp_path / "image_03.txt").unlink()
    pairs = open_pairs(tmp_path)
    assert sum(len(pairs.records(split)) for split in pairs.splits) == 16
    assert images_without_captions(pairs.by_split) == [tmp_path / "image_03.jpg"]


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / name).read_bytes().decode()
        assert old in text
        (root / name).write_bytes(text.replace(old, new, 1).encode())

    return damage


def append(name: str, content: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes() + content.encode())


def write(name: str, content: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(content, encoding)


COCO, JSON = "COCO Captions layout", "annotations/captions_train.json"
TABLE, CSV, PLAIN = "CSV with splits", "pairs.csv", "plain folder"
MISTAKES = [  # the layout, what is changed, and what the message says
    (COCO, write(JSON, '{"images": [], "annotations": []}'), "captions_train.json has no images"),
    (COCO, change(JSON, '"file_name": "image', '"file_name": "../image'), "image 0 .*must lie inside"),
    (COCO, change(JSON, '"file_name"', '"name"'), "image 0 does not have the form"),
    (COCO, change(JSON, '"id": 1,', '"id": 0,'), "image 1 repeats the id 0"),
    (COCO, change(JSON, '"image_id": 0', '"image_id": 99'), "annotation 0 belongs to image 99; add it to"),
    (COCO, change(JSON, '"image_id": 0', '"image_id": 1'), "images have no caption, first image_"),
    (COCO, change(JSON, '"caption": "', '"caption": " ", "was": "'), "annotation 0 has an empty caption"),
    (TABLE, write(CSV, "image_00.jpg,a dog\nb.jpg,a cat\n"), "pairs.csv has the columns 'image_00.jpg', 'a dog'"),
    (TABLE, write(CSV, "file,caption\n"), "pairs.csv has no captions"),
    (TABLE, append(CSV, "train,3,a.jpg,one,two\r\n"), "line 35 has too many .*put quotes"),
    (TABLE, append(CSV, 'train,3,a.jpg,"one\r\n'), "unexpected end of data after row 34; put quotes"),
    (TABLE, append(CSV, "trian,3,a.jpg,one\r\n"), "line 35 has the split 'trian'; write train"),
    (TABLE, append(CSV, "test,3,a.jpg,one\r\nval,3,a.jpg,one\r\n"), "a.jpg is in two splits, test and val"),
    (TABLE, append(CSV, "test,3,../a.jpg,one\r\n"), "line 35 .*must lie inside"),
    (TABLE, append(CSV, "test,3,a.jpg,\r\n"), "line 35 has an empty caption"),
    (TABLE, append(CSV, "test,3,gone.jpg,one\r\n"), "1 image file missing, first .*gone.jpg"),
    (TABLE, write("more.csv", "file,caption\n"), "more.csv, pairs.csv.*keep one"),
    ("CSV", write("image_00.txt", "a dog"), r"more than one layout: table .*captions.csv.*image_00.jpg"),
    (PLAIN, write("image_03.txt", "\n"), "image_03.txt is empty"),
]


@pytest.mark.parametrize(("layout", "damage", "message"), MISTAKES)
def test_a_mistake_has_a_message_of_one_sentence(
    tmp_path: Path, made: Set, layout: str, damage: Callable, message: str
) -> None:
    WRITERS[layout](tmp_path, made)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        open_pairs(tmp_path)
    assert "\n" not in str(error.value)


def test_an_image_in_train_and_in_test_is_refused(tmp_path: Path, made: Set) -> None:
    WRITERS[COCO](tmp_path, made)
    name, other = (made[split][0][0].name for split in ("train", "test"))
    change("annotations/captions_test.json", other, name)(tmp_path)
    with pytest.raises(InputError, match=f"{name} listed twice"):
        open_pairs(tmp_path)


def test_a_folder_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        open_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no split 'train'; it needs annotations/captions_train.json"):
        read_annotations(tmp_path, "train")
    Image.new("RGB", (4, 4)).save(tmp_path / "dog.png")
    with pytest.raises(InputError, match=r'has 1 image but no captions.csv; write .*"file,caption"'):
        open_pairs(tmp_path)
