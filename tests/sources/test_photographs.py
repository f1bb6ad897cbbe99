"""A learner's own photographs become a set of the course, and what is wrong with them is told at once."""

import csv
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import helpers.sources.photographs
from helpers.files import InputError
from helpers.sources.coco import read_captions
from helpers.sources.photographs import main, open_pairs, write_own_pairs

SPLITS = ("train", "val", "test")


def halves(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """The left half dark, the right half light."""
    pixels = np.full((size[1], size[0]), 230, np.uint8)
    pixels[:, : size[0] // 2] = 20
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    return image.convert("RGB").convert(mode)


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Ten odd pictures, and one caption or two for each."""
    folder = tmp_path / "phone"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0)})
    halves().save(folder / "turned.JPG", exif=exif, comment=b"Ulm")
    transparent = halves("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    transparent.save(folder / "see through.png")
    halves("L").save(folder / "grey.jpg")
    halves("CMYK").save(folder / "print.jpeg")
    halves("I;16").save(folder / "deep.png")
    halves("P").save(folder / "palette.png")
    halves(size=(8000, 30)).save(folder / "wide.jpg")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    halves().save(folder / "really_png.jpg", format="PNG")
    halves("P").save(folder / "moving.gif", save_all=True, append_images=[Image.new("P", (60, 40))])
    (folder / "._grey.jpg").write_bytes(b"what macOS puts beside files")
    write_captions(folder)
    return folder


def write_captions(folder: Path, name: str = "captions.csv") -> None:
    rows = [("file", "caption")]
    for image in sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != ".csv"):
        rows += [(image.name, f'a "half", named {image.stem}')] + [(image.name, "另一句话")] * (image.suffix == ".png")
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def read_back(out: Path) -> dict[str, tuple[Path, list[str]]]:
    """Image and captions by the file's name without its ending, over all splits."""
    return {path.stem: (path, own) for s in SPLITS for path, own in zip(*read_captions(out, s), strict=True)}


def test_ten_odd_pictures_become_a_set(phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(phone.iterdir())
    out = tmp_path / "data" / "mine"
    assert main(["mine", str(phone), "--out", str(out)]) == 0
    assert "8 images with 11 captions in train, 1 image with" in capsys.readouterr().out
    pairs = read_back(out)
    assert len(pairs) == 10
    assert [len(read_captions(out, split)[0]) for split in SPLITS] == [8, 1, 1]
    assert pairs["see_through"][1] == ['a "half", named see through', "另一句话"]
    for stem, (path, _) in pairs.items():
        assert path.suffix == ".jpg"
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert not image.getexif()
            assert "comment" not in image.info
            assert b"Exif" not in path.read_bytes()
            pixels = np.asarray(image).astype(int)
            size = {"turned": (40, 60), "wide": (1024, 4), "dot": (1, 1)}.get(stem, (60, 40))
            assert image.size == size
        if stem == "turned":  # the left half is the top half now
            assert pixels[:20].mean() < 60 < 190 < pixels[40:].mean()
        elif stem != "dot":
            quarter = size[0] // 4
            assert pixels[:, :quarter].mean() < 60 < 190 < pixels[:, 3 * quarter :].mean(), stem
    assert pairs["dot"][0].stat().st_size > 0
    assert open_pairs(out).layout == "COCO Captions layout: 3 splits"
    assert sorted(phone.iterdir()) == before
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_a_txt_beside_each_and_a_dict_give_the_same_set(phone: Path, tmp_path: Path) -> None:
    main(["mine", str(phone), "--out", str(tmp_path / "from_table")])
    table = open_pairs(phone)
    captions = {path: own for split in SPLITS for path, own in zip(*table.captions(split), strict=True)}
    write_own_pairs(dict(sorted(captions.items())), tmp_path / "from_dict")
    (phone / "captions.csv").rename(tmp_path / "captions.csv")
    for path, own in captions.items():
        path.with_suffix(".txt").write_text("\n".join(own), encoding="utf-8")
    assert main(["mine", str(phone), "--out", str(tmp_path / "from_texts")]) == 0
    sets = [open_pairs(tmp_path / f"from_{kind}") for kind in ("table", "dict", "texts")]
    for split in SPLITS:
        named = [
            dict(zip([p.name for p in paths], own, strict=True)) for paths, own in (s.captions(split) for s in sets)
        ]
        assert named[0] == named[1] == named[2]


def test_splits_that_are_named_are_kept(phone: Path, tmp_path: Path) -> None:
    lines = [
        f"{name}\t{split}\t{name} it is"
        for name, split in (("dot.png", "test"), ("grey.jpg", "dev"), ("turned.JPG", "train"), ("deep.png", "test"))
    ]
    small = tmp_path / "small"
    small.mkdir()
    for line in lines:
        name = line.split("\t")[0]
        (small / name).write_bytes((phone / name).read_bytes())
    (small / "captions.tsv").write_text("\n".join(["file\tsplit\tcaption", *lines]))
    assert main(["mine", str(small), "--out", str(tmp_path / "out")]) == 0
    names = {split: [path.name for path in read_captions(tmp_path / "out", split)[0]] for split in SPLITS}
    assert names == {"train": ["turned.jpg"], "val": ["grey.jpg"], "test": ["dot.jpg", "deep.jpg"]}


def test_names_that_fall_together_stay_apart(tmp_path: Path) -> None:
    captions = {}
    for folder, name in (("a", "Dog 1.png"), ("b", "dog_1.jpg"), ("b", "dog_1.png"), ("c", "🐕.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        halves().save(tmp_path / folder / name)
        captions[str(tmp_path / folder / name)] = f"{folder}/{name}"
    by_split = write_own_pairs(captions, tmp_path / "out")
    assert [split for split, records in by_split.items() if records] == ["train", "val", "test"] or len(by_split) == 3
    pairs = read_back(tmp_path / "out")
    assert {stem: own for stem, (_, own) in pairs.items()} == {
        "Dog_1": ["a/Dog 1.png"],
        "dog_1-2": ["b/dog_1.jpg"],
        "dog_1-3": ["b/dog_1.png"],
        "_": ["c/🐕.png"],
    }
    assert all(record.path.is_file() for records in by_split.values() for record in records)


def add_rows(*rows: tuple[str, ...]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / "captions.csv").open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    return damage


def truncate(folder: Path) -> None:
    path = folder / "wide.jpg"
    path.write_bytes(path.read_bytes()[:1500])


BAD = [  # what is done to the folder, and all of which the error says
    (truncate, ["1 of 10 photographs cannot be used", "wide.jpg"]),
    (lambda folder: (folder / "grey.jpg").write_bytes(b""), ["grey.jpg"]),
    (lambda folder: (folder / "grey.jpg").write_text("no image"), ["grey.jpg"]),
    (
        lambda folder: (folder / "grey.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64)),
        ["grey.jpg", "save it as JPEG"],
    ),
    (lambda folder: (folder / "grey.jpg").unlink(), ["1 photograph not in", "add them or remove those: grey.jpg"]),
    (lambda folder: halves().save(folder / "new.png"), ["1 photograph without a caption, write one for each: new.png"]),
    (add_rows(("dot.png", " ")), ["1 caption that cannot be used", "number 3 of dot.png has an empty caption"]),
    (add_rows(("dot.png", "a\0b")), ["number 3 of dot.png", "null byte", "write it anew"]),
    (add_rows(("../phone/dot.png", "a dot")), ["captions.csv: line 16", "must lie inside", "move the file"]),
    (add_rows(("/etc/passwd", "words")), ["captions.csv: line 16", "must lie inside", "move the file"]),
    (add_rows(("dot.png",)), ["captions.csv: line 16 has 1 column where the header has 2", "write the missing"]),
    (
        lambda folder: (folder / "captions.csv").write_bytes(b"file,caption\ndot.png,gr\xfcn\n"),
        ["line 2 is not UTF-8", "save"],
    ),
    (
        lambda folder: (folder / "captions.csv").write_text("dot.png,a dot\n"),
        ["captions.csv has no header", "write file,caption"],
    ),
    (lambda folder: (folder / "captions.csv").write_text(""), ["captions.csv is empty", "write the header"]),
    (
        lambda folder: write_captions(folder, "more.csv"),
        ["more than one such file", "captions.csv, more.csv", "keep one"],
    ),
    (
        lambda folder: (folder / "dot.txt").write_text("a dot"),
        ["more than one layout", "captions.csv", "dot.txt", "keep one"],
    ),
]


@pytest.mark.parametrize(("damage", "words"), BAD)
def test_what_is_wrong_is_told_and_nothing_is_written(
    phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable, words: list[str]
) -> None:
    damage(phone)
    before = sorted((path, path.read_bytes()) for path in phone.iterdir())
    assert main(["mine", str(phone), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == [], said
    assert sorted((path, path.read_bytes()) for path in phone.iterdir()) == before
    assert sorted(tmp_path.iterdir()) == [phone]


def test_all_that_is_wrong_is_told_together(phone: Path, tmp_path: Path) -> None:
    for path in sorted(phone.glob("[!.]*"))[1:8]:
        path.write_bytes(b"broken")
    halves().save(phone / "new.png")
    add_rows(("gone.jpg", "a dog"))(phone)
    with pytest.raises(InputError) as error:
        helpers.sources.photographs.write_mine(phone, tmp_path / "out")
    said = str(error.value)
    assert "7 of 10 photographs cannot be used" in said
    assert said.count("cannot read the image") == 5
    assert "and 2 more" in said
    assert "1 photograph not in" in said
    assert "gone.jpg" in said
    assert "new.png" in said
    assert said.endswith("nothing was written")
    assert sorted(tmp_path.iterdir()) == [phone]


def test_without_captions_the_error_says_how_to_write_them(
    phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone / "captions.csv").unlink()
    assert main(["mine", str(phone), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "has 10 images but no captions; write them into" in said
    assert "captions.csv, like this:\nfile,caption\ndeep.png," in said
    assert not (phone / "captions.csv").exists()
    example = said.split("like this:\n")[1]
    (phone / "captions.csv").write_text(example)
    assert len(helpers.sources.photographs.read_own(phone)[0]) == 2  # what it shows can be read as it stands


def test_what_a_notebook_may_give_is_checked(phone: Path, tmp_path: Path) -> None:
    fine = {phone / name: ["fine"] for name in ("dot.png", "deep.png", "grey.jpg")}
    for captions, words in (
        ({}, "only 0 photographs; give three or more"),
        ([("dot.png", "a dot")], "must be a dict"),
        (dict(list(fine.items())[:2]), "only 2 photographs"),
        (fine | {phone / "moving.gif": []}, "1 photograph without a caption, write one for each: moving.gif"),
        (fine | {phone / "moving.gif": None}, "moving.gif"),
        (fine | {phone / "moving.gif": [3]}, "number 1 of moving.gif has an empty caption"),
        (fine | {str(phone / "dot.png"): ["again"]}, "1 photograph named twice.*: dot.png"),
        (fine | {phone / "gone.gif": ["gone"]}, "1 of 4 photographs cannot be used: .*gone.gif"),
        (fine | {"a\0.jpg": ["null"]}, "1 of 4 photographs cannot be used"),
    ):
        with pytest.raises(InputError, match=words):
            write_own_pairs(captions, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists already"):
        write_own_pairs(fine, tmp_path / "there")
    assert sorted(tmp_path.iterdir()) == [phone, tmp_path / "there"]
    assert not any((tmp_path / "there").iterdir())


def test_the_commands_refuse_in_a_sentence(phone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["mine", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")], "there is no folder"),
        (["mine", str(phone), "--out", str(phone)], "exists already; remove it"),
        (["look", str(tmp_path / "nowhere")], "there is no folder or file"),
        (["look", str(tmp_path)], "in no layout"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    for arguments in ([], ["mine", str(phone)], ["coco", "--out", "x", "--split", "night"], ["dream"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [phone]


def test_look_says_what_is_there(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(phone)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("table of files and captions: 3 splits in captions.csv, drawn by file name")
    counts = "8 images with 11 captions in train, 1 image with 1 caption in val, 1 image with 2 captions in test"
    assert lines[1] == counts
    assert len(lines) == 5
    assert 'a "half", named' in lines[2]


def test_coco_is_left_to_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    stand_in = types.ModuleType("helpers.downloads")
    stand_in.download_coco = lambda out, split: called.append((out, split))
    monkeypatch.setitem(sys.modules, "helpers.downloads", stand_in)
    assert main(["coco", "--out", str(tmp_path / "coco"), "--split", "train"]) == 0
    assert called == [(tmp_path / "coco", "train")]


def test_commands_start_without_torch() -> None:
    program = "import sys, helpers.photographs; print('torch' in sys.modules, 'webdataset' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


# What is imported late is imported before: the environment may lie where nobody else may look.
AS_NOBODY = """
import encodings.utf_8_sig, os, sys
from helpers.sources.photographs import main
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main(["mine", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_a_folder_that_cannot_be_written_is_named(phone: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    command = [sys.executable, "-c", AS_NOBODY, str(phone), str(tmp_path / "locked" / "out")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2, said.stderr
    assert "cannot write" in said.stderr
    assert "Permission denied" in said.stderr
    assert not any((tmp_path / "locked").iterdir())


def test_json_is_readable_by_people(phone: Path, tmp_path: Path) -> None:
    main(["mine", str(phone), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "annotations" / "captions_train.json").read_text(encoding="utf-8")
    assert "另一句话" in text
    assert {"id", "file_name", "width", "height"} == json.loads(text)["images"][0].keys()
    assert os.fspath(phone) not in text


@pytest.mark.photographs
def test_real_photographs_with_captions_typed_in_a_file(tmp_path: Path, photographs: Path) -> None:
    split = sorted(photographs.glob("annotations/captions_*.json"))[0].stem.removeprefix("captions_")
    paths, captions = (part[:30] for part in read_captions(photographs, split))
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = [("file", "caption")]
    for path, own in zip(paths, captions, strict=True):
        (folder / path.name).symlink_to(path)
        lines += [(path.name, caption) for caption in own]
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    assert main(["mine", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert {path.name: own for path, own in read_back(tmp_path / "out").values()} == {
        path.name: own for path, own in zip(paths, captions, strict=True)
    }
