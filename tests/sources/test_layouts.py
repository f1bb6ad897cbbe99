"""The same pairs in every layout are read alike, and what is wrong in a layout is told in words."""

import csv
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

import helpers.sources.folders
from helpers.files import InputError
from helpers.sources.coco import read_captions
from helpers.sources.folders import open_pairs

Set = dict[str, list[tuple[Path, list[str]]]]  # for each split, images with their captions
CAPTIONS = [
    'a "red" square, on its own',
    "一个红色的方块",
    "مربع أحمر",
    "a square 🟥",
    "#1 | a square; or 'not'",
    "two\u2028lines, one caption",
]


@pytest.fixture(autouse=True)
def shards_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(helpers.layouts, "SHARDS", folder)
    return folder


def drawn_splits(pairs: list[tuple[Path, list[str]]]) -> Set:
    """The stated rule, written a second time."""
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].stem.encode()).hexdigest())
    tenth = max(1, int(len(pairs) / 10 + 0.5))
    return {"train": ranked[2 * tenth :], "val": ranked[:tenth], "test": ranked[tenth : 2 * tenth]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Set:
    """Seventeen images of one colour each, with one to three captions, in the splits that the rule draws."""
    folder = tmp_path_factory.mktemp("made")
    captions = itertools.cycle(CAPTIONS)
    pairs = []
    for index in range(17):
        path = folder / f"image_{index:02d}.jpg"
        Image.new("RGB", (20 + index, 12), (15 * index, 255 - 15 * index, 7)).save(path)
        pairs.append((path, [f"{next(captions)} {index}" for _ in range(1 + index % 3)]))
    return drawn_splits(pairs)


def link_images(pairs: Iterable[tuple[Path, list[str]]], folder: Path) -> None:
    """Links to the images; one to their folder where they are thousands and all of it, which saves seconds."""
    paths = [path for path, _ in pairs]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() and len(paths) > 1000 and len(paths) == len(os.listdir(paths[0].parent)):
        folder.symlink_to(paths[0].parent)
        return
    folder.mkdir(exist_ok=True)
    for path in paths:
        (folder / path.name).symlink_to(path.resolve())


def every(made: Set) -> list[tuple[Path, list[str]]]:
    return list(itertools.chain(*made.values()))


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def write_coco(root: Path, made: Set, year: str = "") -> None:
    (root / "annotations").mkdir(parents=True)
    number = itertools.count(1)
    if not year:
        link_images(every(made), root / "images")
    for split, pairs in made.items():
        if year:
            link_images(pairs, root / f"{split}{year}")
        images, annotations = [], []
        for index, (path, captions) in enumerate(pairs):
            images.append({"id": index, "file_name": path.name})
            annotations += [{"id": next(number), "image_id": index, "caption": caption} for caption in captions]
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}{year}.json").write_text(content)


def write_official(root: Path, made: Set) -> None:
    write_coco(root, {split: made[split] for split in made if split != "test"}, "2017")


def write_karpathy(root: Path, made: Set) -> None:
    images = []
    link_images(every(made), root / "val2014")
    for split, pairs in made.items():
        for index, (path, captions) in enumerate(pairs):
            called = "restval" if split == "train" and index % 2 else split
            sentences = [{"raw": caption, "sentid": 10 * len(images) + k} for k, caption in enumerate(captions)]
            entry = {"filename": path.name, "filepath": "val2014", "split": called, "imgid": len(images)}
            images.append({**entry, "sentences": sentences, "sentids": [s["sentid"] for s in sentences]})
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def write_flickr8k(root: Path, made: Set) -> None:
    lines = []
    link_images(every(made), root / "Flicker8k_Dataset")
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        if split in made:
            write_lines(root / f"Flickr_8k.{name}Images.txt", [path.name for path, _ in made[split]])
        for path, captions in made.get(split, []):
            lines += [f"{path.name}#{k}\t{caption}" for k, caption in enumerate(captions)]
    write_lines(root / "Flickr8k.token.txt", lines)


def write_flickr30k(root: Path, made: Set) -> None:
    lines = []
    link_images(every(made), root / "flickr30k-images")
    for path, captions in every(made):
        lines += [f"{path.name}#{k}\t{caption}" for k, caption in enumerate(captions)]
    write_lines(root / "results_20130124.token", lines)


def write_kaggle30k(root: Path, made: Set) -> None:
    lines = ["image_name| comment_number| comment"]
    link_images(every(made), root / "flickr30k_images" / "flickr30k_images")
    for path, captions in every(made):
        lines += [f"{path.name}| {k}| {caption}" for k, caption in enumerate(captions)]
    write_lines(root / "flickr30k_images" / "results.csv", lines)


def write_table(root: Path, made: Set, name: str, columns: list[str], folder: str = "images", bom: str = "") -> None:
    text = io.StringIO()
    writer = csv.writer(text, "excel-tab" if name.endswith(".tsv") else "excel")
    writer.writerow(columns)
    link_images(every(made), root / folder)
    for split, pairs in made.items():
        for path, captions in pairs:
            for caption in captions:
                row = {"split": split, "caption": caption, "title": caption, "extra": 3}
                writer.writerow([row.get(column, path.name) for column in columns])
    (root / name).write_bytes((bom + text.getvalue()).encode())


def write_kaggle8k(root: Path, made: Set) -> None:
    write_table(root, made, "captions.txt", ["image", "caption"], "Images")


def write_csv(root: Path, made: Set) -> None:
    write_table(root, made, "captions.csv", ["file", "caption"], "", bom="\ufeff")


def write_csv_with_splits(root: Path, made: Set) -> None:
    write_table(root, made, "pairs.csv", ["split", "extra", "file_name", "caption"])


def write_tsv_with_splits(root: Path, made: Set) -> None:
    write_table(root, made, "pairs.tsv", ["title", "filepath", "split"])


def write_plain(root: Path, made: Set) -> None:
    link_images(every(made), root)
    for path, captions in every(made):
        write_lines(root / f"{path.stem}.txt", captions)


def write_plain_with_splits(root: Path, made: Set) -> None:
    for split, pairs in made.items():
        write_plain(root / ("validation" if split == "val" else split), {split: pairs})


def write_shard(path: Path, pairs: list[tuple[Path, list[str]]], kind: str = "txt") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for image, captions in pairs:
            text = "\n".join(captions) if kind == "txt" else json.dumps({"captions": captions, "width": 3})
            add_member(tar, f"{image.stem}.jpg", image.read_bytes())
            add_member(tar, f"{image.stem}.{kind}", text.encode())


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shards(root: Path, made: Set) -> None:
    pairs = every(made)
    for number in range(3):
        write_shard(root / f"pairs-{number:06d}.tar", pairs[number::3])


def write_shards_with_splits(root: Path, made: Set) -> None:
    for split, pairs in made.items():
        write_shard(root / split / "000000.tar", pairs[::2], "json")
        if pairs[1::2]:
            write_shard(root / split / "000001.tar", pairs[1::2], "json")


WRITERS: dict[str, Callable[[Path, Set], None]] = {
    "COCO Captions layout": write_coco,
    "COCO's own folders": write_official,
    "Karpathy's splits": write_karpathy,
    "Flickr8k": write_flickr8k,
    "Flickr30k": write_flickr30k,
    "Kaggle's Flickr8k": write_kaggle8k,
    "Kaggle's Flickr30k": write_kaggle30k,
    "CSV": write_csv,
    "CSV with splits": write_csv_with_splits,
    "TSV with splits": write_tsv_with_splits,
    "plain folder": write_plain,
    "plain folder with splits": write_plain_with_splits,
    "shards": write_shards,
    "shards with splits": write_shards_with_splits,
}
WITHOUT_SPLITS = {"Flickr30k", "Kaggle's Flickr8k", "Kaggle's Flickr30k", "CSV", "plain folder", "shards"}


@functools.cache
def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(paths: list[Path], captions: list[list[str]]) -> list[tuple[str, list[str]]]:
    """Pairs by what the image files hold, in an order that is the same for all layouts."""
    return sorted((fingerprint(p.resolve()), c) for p, c in zip(paths, captions, strict=True))


def expected(made: Set) -> dict[str, list[tuple[str, list[str]]]]:
    return {split: contents([path for path, _ in pairs], [own for _, own in pairs]) for split, pairs in made.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_pairs_are_read_from_every_layout(tmp_path: Path, made: Set, name: str) -> None:
    root = tmp_path / "source"
    root.mkdir()
    WRITERS[name](root, made)
    before = tree(root)
    pairs = open_pairs(root)
    truth = expected(made)
    if name == "COCO's own folders":
        del truth["test"]
    assert pairs.splits == tuple(truth)
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == truth
    assert f": {len(truth)} splits" in pairs.layout
    assert ("drawn by file name" in pairs.layout) == (name in WITHOUT_SPLITS)
    assert all({"id", "file_name"} <= record.image.keys() for record in pairs.records("train"))
    assert tree(root) == before


@pytest.mark.photographs
@pytest.mark.parametrize("name", WRITERS)
def test_photographs_are_read_alike_from_every_layout(tmp_path: Path, photographs: Path, name: str) -> None:
    splits = sorted(path.stem.removeprefix("captions_") for path in photographs.glob("annotations/captions_*.json"))
    some = 150 if "shards" in name else None
    real = {split: list(zip(*read_captions(photographs, split), strict=True))[:some] for split in splits}
    root = tmp_path / "source"
    root.mkdir()
    WRITERS[name](root, real)
    pairs = open_pairs(root)
    truth = expected(drawn_splits(every(real)) if name in WITHOUT_SPLITS else real)
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == truth


def test_the_sentence_says_the_layout(tmp_path: Path, made: Set) -> None:
    for name, sentence in (
        ("COCO Captions layout", "COCO Captions layout: 3 splits"),
        ("COCO's own folders", "COCO's own folders: 2 splits"),
        ("Karpathy's splits", "Karpathy's splits: 3 splits of dataset_coco.json"),
        ("CSV with splits", "table of files and captions: 3 splits in pairs.csv"),
    ):
        root = tmp_path / name.replace(" ", "")
        root.mkdir()
        WRITERS[name](root, made)
        assert open_pairs(root).layout == sentence
        with pytest.raises(InputError, match="no split 'night'; the splits are: train, val"):
            open_pairs(root).records("night")


def test_karpathys_file_takes_precedence_and_finds_the_folders_of_2017(tmp_path: Path, made: Set) -> None:
    write_official(tmp_path, {"train": made["train"], "val": made["val"] + made["test"]})
    images = []
    for split, pairs in made.items():
        for path, captions in pairs:
            folder = "train2017" if split == "train" else "val2017"
            (tmp_path / folder / path.name).rename(tmp_path / folder / f"{len(images):012d}.jpg")
            sentences = [{"raw": caption} for caption in captions]
            name = f"COCO_val2014_{len(images):012d}.jpg"
            images.append({"filename": name, "filepath": "val2014", "split": split, "sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    pairs = open_pairs(tmp_path)
    assert pairs.layout.startswith("Karpathy's splits")
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == expected(made)


def test_karpathys_file_is_read_beside_flickrs(tmp_path: Path, made: Set) -> None:
    write_flickr8k(tmp_path, {"train": every(made)})
    images = [
        {"filename": path.name, "split": split, "sentences": [{"raw": caption} for caption in captions]}
        for split, pairs in made.items()
        for path, captions in pairs
    ]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    pairs = open_pairs(tmp_path)
    assert pairs.layout == "Karpathy's splits: 3 splits of dataset_flickr8k.json"
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == expected(made)
    assert pairs.captions("val")[0][0].parent == tmp_path / "Flicker8k_Dataset"


def test_cocos_own_folders_are_read_by_the_names_of_the_course(tmp_path: Path, made: Set) -> None:
    root = tmp_path / "coco"
    write_official(root, made)
    paths, captions = read_captions(root, "val")
    assert contents(paths, captions) == expected(made)["val"]
    assert paths[0].parent == root / "val2017"
    assert read_captions(root, "val2017") == (paths, captions)
    with pytest.raises(InputError, match="no split 'test'; its splits are: train, val"):
        read_captions(root, "test")
    shutil.rmtree(root / "train2017")
    with pytest.raises(InputError, match=r"captions for train2017 but no folder .*train2017; unpack"):
        read_captions(root, "train")
    assert open_pairs(root).layout == "COCO's own folders: 1 split; there is no folder train2017"
    write_coco(tmp_path / "older", made, "2014")
    shutil.move(tmp_path / "older" / "annotations" / "captions_val2014.json", root / "annotations")
    with pytest.raises(InputError, match="captions_val2014 .*captions_val2017|val2014 and val2017; ask for one"):
        read_captions(root, "val")
    with pytest.raises(InputError, match="more than one layout"):
        open_pairs(root)


def test_flickr8k_leaves_out_images_in_no_split_and_says_so(tmp_path: Path, made: Set) -> None:
    write_flickr8k(tmp_path, made)
    with (tmp_path / "Flickr8k.token.txt").open("a") as file:
        file.write("gone.jpg.1#0\tan image that the real archive does not have\n")
    pairs = open_pairs(tmp_path)
    assert pairs.layout == "Flickr's text files: 3 splits; 1 image in none of them left out"
    assert {split: contents(*pairs.captions(split)) for split in pairs.splits} == expected(made)


def test_kaggles_line_without_its_second_bar_is_read(tmp_path: Path, made: Set) -> None:
    write_kaggle30k(tmp_path, made)
    path = tmp_path / "flickr30k_images" / "results.csv"
    path.write_text(path.read_text().replace("| 0| ", "| 0   ", 1))
    assert {split: contents(*open_pairs(tmp_path).captions(split)) for split in made} == expected(made)


def test_a_file_names_its_layout(tmp_path: Path, made: Set) -> None:
    write_csv(tmp_path, made)
    write_plain(tmp_path / "other", made)
    for file in (tmp_path / "other").glob("*.txt"):
        file.rename(tmp_path / file.name)
    with pytest.raises(InputError, match=r"more than one layout: table .*captions.csv.*; folder .*image_00.txt"):
        open_pairs(tmp_path)
    assert "captions.csv" in open_pairs(tmp_path / "captions.csv").layout
    assert "beside each" in open_pairs(tmp_path / "image_00.txt").layout


def test_a_table_may_be_parted_by_semicolons_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.csv").write_text("Split;Image;Text\ndev;a.png;a, b\ntraining;b.png;c\n")
    pairs = open_pairs(tmp_path)
    assert pairs.layout.endswith(": 2 splits in c.csv; 1 image beside them without a caption left out")
    assert [pairs.captions(split)[1] for split in ("train", "val")] == [[["c"]], [["a, b"]]]


def test_quoted_newlines_and_long_captions_stay_whole(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    long = "extraordinarily " * 9_999 + "long"
    (tmp_path / "c.csv").write_text(
        f'\n"file","caption"\r\na.png,"two\nlines, ""quoted"""\n\na.png,{long}\n', newline=""
    )
    pairs = open_pairs(tmp_path)
    split = "1 split in c.csv, since fewer than three images are not split"
    assert pairs.layout == f"table of files and captions: {split}"
    assert pairs.captions("train")[1] == [['two\nlines, "quoted"', long]]


@pytest.mark.parametrize(("images", "sizes"), [(1, [1]), (2, [2]), (3, [1, 1, 1]), (5, [3, 1, 1]), (25, [19, 3, 3])])
def test_drawn_splits_are_never_empty_from_three_images_on(tmp_path: Path, images: int, sizes: list[int]) -> None:
    for index in range(images):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"caption {index}")
    pairs = open_pairs(tmp_path)
    assert [len(pairs.records(split)) for split in pairs.splits] == sizes


def test_shards_are_unpacked_once_and_anew_when_they_change(
    tmp_path: Path, made: Set, shards_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, made)
    pairs = open_pairs(tmp_path)
    assert all(path.is_relative_to(shards_folder) for path in pairs.captions("train")[0])
    with monkeypatch.context() as patch:
        patch.setattr(helpers.layouts, "unpack_shards", None)
        assert open_pairs(tmp_path) == pairs
    single = open_pairs(tmp_path / "pairs-000001.tar")
    assert sum(len(single.records(split)) for split in single.splits) == 6
    assert len(list(shards_folder.iterdir())) == 2
    os.utime(tmp_path / "pairs-000000.tar", (1, 1))
    assert open_pairs(tmp_path).layout != pairs.layout
    assert len(list(shards_folder.iterdir())) == 3


def test_without_webdataset_the_error_says_how_to_install_it(
    tmp_path: Path, made: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, made)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(InputError, match=r"pairs-000000.tar .*webdataset.*pip install webdataset"):
        open_pairs(tmp_path)


def tree(root: Path) -> dict[str, bytes | None]:
    files = sorted(root.rglob("*"))
    return {str(file): file.read_bytes() if file.is_file() else None for file in files}


def change(name: str, old: str, new: str, times: int = 1) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / name).read_bytes().decode()
        assert old in text
        (root / name).write_bytes(text.replace(old, new, times).encode())

    return damage


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content)


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def append(name: str, content: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with (root / name).open("a", newline="") as file:
            file.write(content)

    return damage


def image_at(name: str, size: tuple[int, int] = (4, 4)) -> Callable[[Path], None]:
    return lambda root: Image.new("RGB", size).save(root / name)


def shard(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with tarfile.open(root / "pairs-000001.tar", "w") as tar:
            for name, content in members:
                add_member(tar, name, content)

    return damage


def cut_off(root: Path) -> None:
    path = root / "pairs-000001.tar"
    path.write_bytes(path.read_bytes()[: 4 * 512])


JSON = "annotations/captions_train.json"
TABLE, TOKENS, KARPATHY = "pairs.csv", "Flickr8k.token.txt", "dataset_coco.json"
BAD = [  # of which layout, what is done to it, which file is named, and what the error says
    ("COCO Captions layout", replace(JSON, b'{"images": ['), JSON, "not valid JSON.*correct it"),
    ("COCO Captions layout", replace(JSON, b"[" * 100_000), JSON, "not valid JSON.*fetch"),
    ("COCO Captions layout", replace(JSON, '{"images": "ä"}'.encode("latin-1")), JSON, "not UTF-8; save"),
    ("COCO Captions layout", change(JSON, '"file_name": "image', '"file_name": "../image'), JSON, "lie inside .*move"),
    ("COCO Captions layout", change(JSON, '"file_name": "', '"file_name": "/etc/'), JSON, "must lie inside"),
    ("COCO Captions layout", change(JSON, '"file_name": "', '"file_name": "C:'), JSON, "must lie inside"),
    ("COCO Captions layout", change(JSON, '"file_name": "', r'"file_name": "a\\'), JSON, "backslash; write /"),
    ("COCO Captions layout", change(JSON, '"file_name": "', r'"file_name": "a\u0000'), JSON, "null byte.*rename"),
    ("COCO Captions layout", change(JSON, '"caption": "', r'"caption": "a\u0000'), JSON, "null byte.*write it anew"),
    ("COCO Captions layout", change(JSON, '"caption": "', r'"caption": "\ud83d '), JSON, "half a character"),
    (
        "COCO Captions layout",
        change(JSON, '"image_id": 0', '"image_id": "0"'),
        JSON,
        "image '0'.* has 0: write ids alike",
    ),
    ("COCO Captions layout", change(JSON, '"image_id": 0', '"image_id": 99'), JSON, "image 99, which is not in"),
    ("COCO Captions layout", change(JSON, '"image_id": 1', '"image_id": true'), JSON, "True; an id is a whole number"),
    ("COCO Captions layout", change(JSON, '"id": 1,', '"id": 0,', 1), JSON, "image 1 repeats the id 0"),
    (
        "COCO Captions layout",
        change(JSON, '"id": 2, "image_id"', '"id": 1, "image_id"'),
        JSON,
        "annotation 1 repeats the id 1",
    ),
    ("COCO Captions layout", change(JSON, '"file_name"', '"name"'), JSON, "image 0 has no 'file_name'"),
    (
        "COCO Captions layout",
        change(JSON, '"file_name": "image_', '"file_name": "pic_'),
        "pic_",
        "missing.*put them there",
    ),
    (
        "COCO Captions layout",
        lambda root: shutil.copy(root / JSON, root / "annotations/captions_night.json"),
        "image_",
        "twice, in train and in night",
    ),
    (
        "COCO's own folders",
        lambda root: [shutil.rmtree(root / f"{s}2017") for s in ("train", "val")],
        "train2017",
        "no folder .*unpack",
    ),
    ("Karpathy's splits", replace(KARPATHY, b"[]"), KARPATHY, "list 'images'.*fetch"),
    (
        "Karpathy's splits",
        change(KARPATHY, '"split": "restval"', '"split": "night"'),
        KARPATHY,
        "image 1 .*write train",
    ),
    ("Karpathy's splits", change(KARPATHY, '"filepath": "val2014"', '"filepath": ".."'), KARPATHY, "must lie inside"),
    ("Karpathy's splits", change(KARPATHY, '"imgid": 1,', '"imgid": 0,'), KARPATHY, "image 1 repeats the imgid 0"),
    ("Karpathy's splits", change(KARPATHY, '"sentid": 10', '"sentid": 0'), KARPATHY, "image 1 repeats the sentid 0"),
    ("Karpathy's splits", change(KARPATHY, '"raw"', '"text"'), KARPATHY, "image 0 has no 'raw'"),
    ("Flickr8k", change(TOKENS, "#0\t", " "), TOKENS, "line 1 must read name.jpg#0.*remove"),
    ("Flickr8k", change(TOKENS, "#1\t", "#0\t"), TOKENS, "repeats caption 0.*another number"),
    ("Flickr8k", append(TOKENS, "../a.jpg#0\ta dog\n"), TOKENS, "line 34 .*lie inside"),
    ("Flickr8k", append(TOKENS, "a.jpg#0\t \n"), TOKENS, "line 34 has an empty caption"),
    ("Flickr8k", replace(TOKENS, b" \n"), TOKENS, "is empty"),
    ("Flickr8k", append("Flickr_8k.devImages.txt", "gone.jpg\n"), "Flickr_8k.devImages.txt", "line 3 .*no caption"),
    ("Flickr8k", append("Flickr_8k.testImages.txt", "image_00.jpg\n" * 2), "Flickr_8k.testImages.txt", "repeats"),
    ("Flickr8k", append("Flickr_8k.testImages.txt", "image_00.jpg\n"), "image_00.jpg", "stands twice.*one entry"),
    ("Flickr30k", remove("flickr30k-images/image_04.jpg"), "image_04.jpg", "missing.*put them there"),
    ("Kaggle's Flickr30k", change("flickr30k_images/results.csv", "| 0", " 0"), "results.csv", "line 2 must read"),
    ("CSV with splits", replace(TABLE, b""), TABLE, "is empty; write the header"),
    (
        "CSV with splits",
        change(TABLE, "split,extra,file_name,caption\r\n", ""),
        TABLE,
        "has no header.*write file,caption",
    ),
    ("CSV with splits", replace(TABLE, b"file,caption\n"), TABLE, "has no captions"),
    ("CSV with splits", append(TABLE, "train,3\r\n"), TABLE, "line 35 has 2 columns where the header has 4; write"),
    ("CSV with splits", append(TABLE, "train,3,a.jpg,one,two\r\n"), TABLE, "line 35 has 5 columns .*put quotes"),
    ("CSV with splits", append(TABLE, 'train,3,a.jpg,"one\r\n'), TABLE, "line 35 has quotes that are not right"),
    ("CSV with splits", append(TABLE, "trian,3,a.jpg,one\r\n"), TABLE, "line 35 has the split 'trian'; write train"),
    (
        "CSV with splits",
        append(TABLE, "test,3,image_00.jpg,one\r\nval,3,image_00.jpg,one\r\n"),
        TABLE,
        "puts image_00.jpg into",
    ),
    ("CSV with splits", append(TABLE, "test,3,,one\r\n"), TABLE, "line 35 has the file_name ''"),
    ("CSV with splits", append(TABLE, "test,3,image_00.jpg,\r\n"), TABLE, "line 35 has an empty caption"),
    ("CSV with splits", append(TABLE, "test,3,a\0.jpg,one\r\n"), TABLE, "line 35 .*null byte"),
    ("CSV with splits", append(TABLE, "test,3,gone.jpg,one\r\n"), "gone.jpg", "missing.*remove their entries"),
    (
        "CSV with splits",
        lambda root: (root / TABLE).write_text((root / TABLE).read_text(), "utf-16"),
        TABLE,
        "line 1 is not UTF-8; save",
    ),
    (
        "CSV with splits",
        lambda root: shutil.copy(root / TABLE, root / "more.csv"),
        "more.csv, pairs.csv",
        "keep one, or name it",
    ),
    ("plain folder", remove("image_03.txt"), "image_03.jpg", "images without a caption.*write a .txt"),
    ("plain folder", remove("image_03.jpg"), "image_03.txt", "captions without an image.*add the image"),
    ("plain folder", replace("image_03.txt", b""), "image_03.txt", "is empty; write"),
    ("plain folder", replace("image_03.txt", b"gr\xfcn"), "image_03.txt", "line 1 is not UTF-8; save"),
    ("plain folder", image_at("image_03.png"), "image_03.txt", "beside image_03.jpg, image_03.png; rename"),
    ("plain folder with splits", image_at("more.png"), "more.png", "move them into one"),
    ("shards", cut_off, "pairs-000001.tar", "cut off.*fetch"),
    ("shards", replace("pairs-000001.tar", b""), "pairs-000001.tar", "cut off.*fetch"),
    ("shards", replace("pairs-000001.tar", b"no tar" * 512 + bytes(1024)), "pairs-000001.tar", "cannot be read"),
    ("shards", shard(("../../a.jpg", b"x"), ("../../a.txt", b"x")), "pairs-000001.tar", "must lie inside"),
    ("shards", shard(("/a.jpg", b"x"), ("/a.txt", b"x")), "pairs-000001.tar", "must lie inside"),
    ("shards", shard(("a.jpg", b"x"), ("a.cls", b"x")), "pairs-000001.tar", "'a' has no caption"),
    ("shards", shard(("a.jpg", b"x"), ("a.txt", b" ")), "pairs-000001.tar", "'a' has no caption; write one"),
    ("shards", shard(("a.jpg", b"x"), ("a.txt", b"gr\xfcn")), "pairs-000001.tar", "not UTF-8"),
    ("shards", shard(("a.jpg", b"x"), ("a.json", b"{")), "pairs-000001.tar", "broken JSON"),
    ("shards", shard(("a.jpg", b"x"), ("a.json", b'{"label": 3}')), "pairs-000001.tar", "without 'caption'"),
    ("shards", shard(("a.txt", b"x")), "pairs-000001.tar", "'a' has 0 images"),
    (
        "shards",
        shard(*[("a.jpg", b"x"), ("a.txt", b"x"), ("b.jpg", b"x"), ("b.txt", b"x")] * 2),
        "pairs-000001.tar",
        "a.jpg twice",
    ),
    ("shards", shard(("a.jpg", b"x"), ("a.jpg", b"x")), "pairs-000001.tar", "duplicate"),
    (
        "shards",
        lambda root: (root / "pairs-000001.tar").rename(root / "val-1.tar"),
        "val-1.tar",
        "name a split in all or in none",
    ),
]


@pytest.mark.parametrize(("layout", "damage", "named", "words"), BAD)
def test_what_is_wrong_is_told_in_words(
    tmp_path: Path, made: Set, shards_folder: Path, layout: str, damage: Callable, named: str, words: str
) -> None:
    root = tmp_path / "source"
    root.mkdir()
    WRITERS[layout](root, made)
    damage(root)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        open_pairs(root)
    assert named in str(error.value)
    assert tree(tmp_path) == before
    assert not any(shards_folder.iterdir())


def test_a_folder_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder or file .*nowhere"):
        open_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="in no layout that is known here; it has nothing at all"):
        open_pairs(tmp_path)
    (tmp_path / "notes.md").write_text("notes")
    with pytest.raises(InputError, match=r"it has notes.md\. Give a folder"):
        open_pairs(tmp_path)
    with pytest.raises(InputError, match=r"notes.md is in no layout"):
        open_pairs(tmp_path / "notes.md")
    Image.new("RGB", (4, 4)).save(tmp_path / "dog.png")
    with pytest.raises(
        InputError, match=r"1 image but no captions; write them into .*captions.csv.*\nfile,caption\ndog.png,"
    ):
        open_pairs(tmp_path)


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, made: Set, shards_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_shards(tmp_path, made)
    monkeypatch.setattr(helpers.layouts, "write_annotations", full)
    with pytest.raises(InputError, match=r"cannot write .*shards-.*No space left on device.*free space"):
        open_pairs(tmp_path)
    assert not any(shards_folder.iterdir())


# What is imported late is imported before: the environment may lie where nobody else may look.
AS_NOBODY = """
import encodings.utf_8_sig, os, sys
from pathlib import Path
import helpers.sources.folders
helpers.sources.folders.SHARDS = Path(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
try:
    helpers.sources.folders.open_pairs(sys.argv[2])
except helpers.sources.folders.InputError as error:
    print(error)
"""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, made: Set) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    write_shards(tmp_path / "source", made)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o555)
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path / "cache"), str(tmp_path / "source")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot write" in said.stdout, said.stderr
    assert "Permission denied" in said.stdout
    assert not any((tmp_path / "cache").iterdir())
