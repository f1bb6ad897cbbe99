"""Inputs as people bring them: scripts, tables, folders, pictures and machines of every kind."""

# ruff: noqa: RUF001, because letters of other scripts may look like Latin ones

import io
import json
import os
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import cli
from helpers.augmentation import says_side
from helpers.files import InputError, locked, read_text
from helpers.sources import open_pairs, read_image
from helpers.sources.cache import decoded
from helpers.sources.images import read_square
from helpers.sources.photographs import look, prepare_photographs
from helpers.text import WordTokenizer, split_words
from helpers.training import Recipe, train
from helpers.widgets.explorer import TemperatureExplorer

COLOURS = [(40 * k % 256, 90 * k % 256, 25 * k % 256) for k in range(40)]
ROWS = "a0.jpg,a dog\na1.jpg,a cat\na2.jpg,birds\na3.jpg,a tree\n"


def pictures(folder: Path, count: int, suffix: str = "jpg") -> Path:
    """Write a0.jpg, a1.jpg, ... with two colours each."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        image = Image.new("RGB", (40, 40), COLOURS[k % 40])
        image.paste((255, 255, 255), (5 + k % 20, 5, 20 + k % 20, 30))
        image.save(folder / f"a{k}.{suffix}")
    return folder


def table(folder: Path, text: str | bytes, count: int = 4, name: str = "captions.csv") -> Path:
    pictures(folder, count)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def captions_of(folder: Path, language: str | None = None) -> list[str]:
    by_split = open_pairs(folder, language).by_split
    return sorted(note["caption"] for own in by_split.values() for record in own for note in record.annotations)


@pytest.mark.parametrize(
    "word",
    ["दिन", "हिन्दी", "שָׁלוֹם", "مُحَمَّد", "วิ่ง", "İstanbul", "می\u200cخواهم", "co\u00adoperate", "dog\u2019s"],
)  # fmt: skip
def test_words_of_every_script_stay_whole(word: str) -> None:
    assert len(split_words(word)) == 1
    assert split_words(unicodedata.normalize("NFD", word)) == split_words(unicodedata.normalize("NFC", word))


def test_different_words_stay_different_and_spellings_of_one_become_one() -> None:
    assert len({*split_words("दिन दीन दान")}) == 3
    assert split_words("Straße STRASSE cafe\u0301 café ＡＢＣ abc") == ["strasse"] * 2 + ["café"] * 2 + ["abc"] * 2
    assert split_words("一只狗 running") == ["一", "只", "狗", "running"]


@pytest.mark.parametrize(
    ("captions", "remark"),
    [
        ([[f"{'word ' * 40}{k}"] for k in range(12)], "12 of 12 captions have more than 32 words"),
        ([["dog"], ["cat"], *([emoji] for emoji in "🐭🐹🐰🦊")], "4 of 6 captions have no word"),
        ([[f"something {['red', 'green', 'blue'][k % 3]}"] for k in range(30)], "30 of 30 images share every caption"),
        ([[f"name{k}"] for k in range(1300)], "100% of all words occur only once; the vocabulary of 1,302 keeps them"),
        ([["a dog"], ["a cat", "the cat"], ["two birds"]], ""),
    ],
)
def test_what_a_model_cannot_see_is_said_with_numbers(captions: list[list[str]], remark: str) -> None:
    _, remarks = WordTokenizer.fit(captions)
    assert [line[: len(remark)] for line in remarks] == [remark] * bool(remark)


def test_the_same_is_said_before_training_and_by_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"a{k}.jpg,something {k % 2}\n" for k in range(20))
    folder = table(tmp_path / "classes", "file,caption\n" + rows, 20)
    assert "16 of 16 images share every caption" in look(folder)
    train(folder, tmp_path / "run", Recipe(epochs=1, image_size=32, batch_size=8), cache=tmp_path / "cache")
    assert "16 of 16 images share every caption" in capsys.readouterr().err


def test_one_training_image_is_refused(tmp_path: Path) -> None:
    folder = table(tmp_path / "three", "file,caption\na0.jpg,one\na1.jpg,two\na2.jpg,three\n", 3)
    with pytest.raises(InputError, match="one training image, and a batch needs two or more"):
        train(folder, tmp_path / "run", Recipe(epochs=1, image_size=32))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "file,caption\r" + ROWS.replace("\n", "\r"),  # Excel for the Mac
        ("\ufefffile;caption\r\n" + ROWS.replace(",", ";").replace("\n", "\r\n")).encode(),
        ("sep=;\nfile;caption\n" + ROWS.replace(",", ";")).encode("utf-16"),
        "file\tcaption\n" + ROWS.replace(",", "\t"),
        'file, caption\na0.jpg, "a dog"\na1.jpg, "a cat"\na2.jpg, "birds"\na3.jpg, "a tree"\n',
        "image_name,comment_number,comment\n" + ROWS.replace(",", ",0,"),
        "Filename,Image,Caption\n" + "".join(f"{row.split(',')[0]},{row}\n" for row in ROWS.split("\n")[:4]),
        ",file,caption\n" + "".join(f"{k},{row}\n" for k, row in enumerate(ROWS.split("\n")[:4])),  # pandas' index
        "image,caption,title\n" + ROWS.replace("\n", ",x\n"),
        "file;caption;;\n" + ROWS.replace(",", ";").replace("\n", ";;\n") + ";;;\n\n",
        "image_name| comment_number| comment\n" + ROWS.replace(",", "| 0| "),
        "file,caption\n" + ROWS.replace(".jpg", ".JPG"),
        "file,caption\n" + ROWS.replace(".jpg", ""),
        "file,caption\n" + "".join(f".\\{row}\n" for row in ROWS.split("\n")[:4]),
        "image,caption_0,caption_1\n" + ROWS.replace("\n", ",\n"),
        "Table 1\nfile,caption\n" + ROWS,
        "My pictures,,\n,,\nfile,caption,\n" + ROWS.replace("\n", ",\n"),
        ("file\tcaption\n" + ROWS.replace(",", "\t")).encode("utf-16-le"),  # without a byte-order mark
    ],
)
def test_tables_as_programs_write_them(tmp_path: Path, text: str | bytes) -> None:
    assert captions_of(table(tmp_path / "d", text)) == ["a cat", "a dog", "a tree", "birds"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file,caption1,caption2\na0.jpg,a dog,a hound\na1.jpg,a cat,\n"),
        ("a.csv", "file,caption,caption\na0.jpg,a dog,a hound\na1.jpg,a cat,\n"),
        (
            "a.jsonl",
            '{"image": "a0.jpg", "text": ["a dog", "a hound"]}\n{"image": "a1.jpg", "text": ["a cat", null]}\n',
        ),
    ],
)
def test_several_captions_of_a_row_are_all_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"~${name}").write_text("as Office writes it next to an open file")
    assert captions_of(table(tmp_path, text, 2, name)) == ["a cat", "a dog", "a hound"]


def test_a_table_in_another_encoding_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [f"一只狗在沙滩上跑步,第{k}张照片" for k in range(4)]
    text = "file,caption\n" + "".join(f'a{k}.jpg,"{caption}"\n' for k, caption in enumerate(captions))
    assert captions_of(table(tmp_path / "d", text.encode("gbk"))) == sorted(captions)
    assert "is read as gb18030; if letters look odd, save it as UTF-8" in capsys.readouterr().err
    table(tmp_path / "w", "file;caption\na0.jpg;une fenêtre\na1.jpg;un garçon, l’élève\n".encode("cp1252"), 2)
    assert captions_of(tmp_path / "w") == ["un garçon, l’élève", "une fenêtre"]
    (tmp_path / "picture.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="encoding of .* is unknown; save it as UTF-8"):
        read_text(tmp_path / "picture.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,words\n" + ROWS, "columns 'name', 'words'; it needs the columns 'file' and 'caption'"),
        ("file,caption\n" + "a dog on the beach " * 20 + ",a0.jpg\n", "line 2 has the file name 'a dog.*columns"),
    ],
)
def test_a_wrong_table_is_shown_its_columns_or_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "._captions.csv").write_bytes(b"\x00\x05\x16\x07Mac OS X")  # as macOS writes on a USB stick
    with pytest.raises(InputError, match=message):
        open_pairs(table(tmp_path, text))


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Train", "Valid", "Test")])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_a_folder_for_each_split(tmp_path: Path, splits: tuple[str, ...], kind: str) -> None:
    for split in splits:
        folder = pictures(tmp_path / split, 3)
        captions = {f"a{k}.jpg": f"picture {k} of {split.lower()}" for k in range(3)}
        if kind == "txt":
            for name, caption in captions.items():
                (folder / name).with_suffix(".txt").write_text(caption)
        else:
            rows = [json.dumps({"file_name": name, "text": caption}) for name, caption in captions.items()]
            header = ["file_name,text", *(f"{name},{caption}" for name, caption in captions.items())]
            (folder / f"metadata.{kind}").write_text("\n".join(rows if kind == "jsonl" else header))
    pairs = open_pairs(tmp_path)
    assert pairs.splits == ("train", "val", "test")
    assert pairs.captions("train")[1] == [[f"picture {k} of train"] for k in range(3)]


def test_a_table_that_names_the_folders_of_the_splits(tmp_path: Path) -> None:
    rows = [f"{split}/a{k}.jpg,{split} {k}\n" for split in ("train", "validation", "test") for k in range(2)]
    for split in ("train", "validation", "test"):
        pictures(tmp_path / split, 2)
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(rows))
    assert open_pairs(tmp_path).captions("val")[1] == [["validation 0"], ["validation 1"]]


def test_nested_pictures_with_a_sentence_and_its_translations(tmp_path: Path) -> None:
    for k, inner in enumerate(("animals", "animals/birds", "food")):
        (tmp_path / inner).mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (30, 30), (200, 10 * k, 0, 0)).save(tmp_path / inner / f"{k}.png")
        text = f"A thing, number {k}.\naf.utf8=Ding {k}.\nde.utf8=Ein Ding, Nummer {k}.\nzh_CN.utf8=第{k}个\n"
        (tmp_path / inner / f"{k}.txt").write_text(text if k else "A thing, number 0.\n", encoding="utf-8")
    (tmp_path / "__MACOSX").mkdir()
    assert captions_of(tmp_path) == captions_of(tmp_path, "en") == [f"A thing, number {k}." for k in range(3)]
    assert captions_of(tmp_path, "de") == ["Ein Ding, Nummer 1.", "Ein Ding, Nummer 2."]
    with pytest.raises(InputError, match="no captions in the language 'fr'"):
        open_pairs(tmp_path, "fr")
    assert read_image(tmp_path / "food" / "2.png").getpixel((3, 3)) == (255, 255, 255)
    (pictures(tmp_path, 1) / "a0.txt").write_text("At the top.")
    assert captions_of(tmp_path) == [*(f"A thing, number {k}." for k in range(3)), "At the top."]


def test_prepared_photographs_never_share_a_file(tmp_path: Path) -> None:
    names = ["dog-2.jpg", "dog.jpg", "dog.png", "x.jpg", "y.jpg"]
    for name, colour in zip(names, COLOURS, strict=False):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    rows = zip(names, "abcde", ["train"] * 3 + ["val", "test"], strict=True)
    (tmp_path / "c.csv").write_text("file,caption,split\n" + "".join(f"{n},{c},{s}\n" for n, c, s in rows))
    said = prepare_photographs(tmp_path, tmp_path / "my out")
    assert "--data '" in said
    paths, _ = open_pairs(tmp_path / "my out").captions("train")
    seen = [read_image(path).getpixel((4, 4)) for path in paths]
    assert np.abs(np.array(seen) - np.array(COLOURS[:3])).max() < 4


def test_an_out_that_cannot_be_written_is_named(tmp_path: Path, sixty_scenes: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["train", "--data", str(sixty_scenes), "--out", str(tmp_path / "file" / "run")]) == 2
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoding", "captions"),
    [
        ("cp1252", ["ein Bär", "la niña", "a 20° day", "½ an apple", "£5 note", "une île", "für schöne Bäume"]),
        ("cp1251", ["красный круг", "синий квадрат слева от зелёной звезды"]),
        ("gb18030", ["红色的圆在蓝色方块的左边", "一只狗在沙滩上跑"]),
        (
            "shift_jis",
            ["赤い丸と青い四角", "犬が砂浜を走っている", "二人の子供が公園で遊んでいる", "猫が窓のそばで寝ている。"],
        ),
    ],
)
def test_text_files_of_other_encodings_are_read(tmp_path: Path, encoding: str, captions: list[str]) -> None:
    for k, caption in enumerate(captions):
        (tmp_path / f"{k}.txt").write_bytes(f"{caption}\r\n".encode(encoding))
        if encoding == "cp1252":
            assert read_text(tmp_path / f"{k}.txt") == f"{caption}\n"
    (tmp_path / "all.txt").write_bytes("\r\n".join(captions).encode(encoding))
    assert read_text(tmp_path / "all.txt") == "\n".join(captions)


def test_a_macintosh_table_is_read(tmp_path: Path) -> None:
    rows = "file;caption\ra0.jpg;ein Mädchen\ra1.jpg;drei Äpfel und Öl\ra2.jpg;niña\r"
    assert captions_of(table(tmp_path, rows.encode("mac_roman"), 3)) == ["drei Äpfel und Öl", "ein Mädchen", "niña"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('a0.jpg,"A 12" pizza"\n', "double each quote inside it"),
        ('a0.jpg,"a wall\na1.jpg,a dog\na2.jpg,a cat"\na3.jpg,x\n', "line 4 ends a quote begun on an earlier line"),
        ("C:\\Users\\Ann\\a0.jpg,a wall\n", "write it relative to the folder, such as a0.jpg"),
        ("a0.jpg,a wall\n,another\n", "line 3 has no file name; write one, or remove the line"),
    ],
)
def test_rows_that_cannot_be_read_are_explained(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_pairs(table(tmp_path, "file,caption\n" + rows))


def test_lists_that_python_printed_are_several_captions(tmp_path: Path) -> None:
    rows = """a0.jpg,"['a wall', ""it's red, really""]"\na1.jpg,['x']\na2.jpg,[unclear]\n"""
    assert captions_of(table(tmp_path, "file,captions\n" + rows, 3)) == ["[unclear]", "a wall", "it's red, really", "x"]


def test_near_misses_of_a_table_are_read_or_named(tmp_path: Path) -> None:
    inner = table(tmp_path / "photos", "file,caption\n" + ROWS, name="captions.csv.txt")
    assert captions_of(inner) == ["a cat", "a dog", "a tree", "birds"]
    with pytest.raises(InputError, match="name the folder .*photos instead"):
        open_pairs(tmp_path)


def test_an_emoji_is_no_word_whatever_its_variant() -> None:
    assert split_words("❤️ ☎️ #️⃣ 🏳️‍🌈") == []
    assert split_words("a ❤️ dog️") == ["a", "dog"]


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("helpers.sources.cache.CACHE", tmp_path / "file" / "cache")
    folder = table(tmp_path / "four", "file,caption\n" + ROWS)
    train(folder, tmp_path / "run", Recipe(epochs=1, image_size=32, batch_size=2))
    assert "images are decoded again in each epoch" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot write"):
        train(folder, tmp_path / "run2", Recipe(epochs=1, image_size=32), cache=tmp_path / "file" / "mine")


def test_the_arms_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = tmp_path / "arms.txt"
    arms.write_text("plain: --epochs 1\nflip: --epochs 1 --augment flip\n")
    before = arms.read_text()
    assert cli.main(["experiment", "--data", str(tmp_path), "--arms", str(arms), "--out", str(arms)]) == 2
    assert "--out would overwrite the arms" in capsys.readouterr().err
    assert arms.read_text() == before


def test_a_program_without_output_still_works(tmp_path: Path) -> None:
    folder = table(tmp_path / "four", "file,caption\n" + ROWS)
    command = f"{sys.executable} -m helpers photographs '{folder}' --out '{tmp_path / 'out'}' >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    assert (tmp_path / "out" / "annotations").is_dir()


def test_accents_apart_are_the_same_name(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFC", "café.jpg")
    table(tmp_path, f"file,caption\n{name},a cup\na1.jpg,y\na2.jpg,z\na3.jpg,w\n")
    (tmp_path / "a0.jpg").rename(tmp_path / unicodedata.normalize("NFD", name))
    assert captions_of(tmp_path) == ["a cup", "w", "y", "z"]


def test_accents_of_a_folder_may_be_apart_and_endings_in_capitals(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFC", "Fotos von zu Hause für alle")
    table(tmp_path, f"file,caption\n{name}/a0.jpg,a cup\n{name}/a1.jpg,y\na2.jpg,z\n")
    folder = pictures(tmp_path / unicodedata.normalize("NFD", name), 2)
    assert captions_of(tmp_path) == ["a cup", "y", "z"]
    for k, image in enumerate(sorted(folder.iterdir())):
        image.with_suffix(".TXT").write_text(f"picture {k}")
    assert captions_of(folder) == ["picture 0", "picture 1"]


def test_a_set_without_val_is_told_what_to_do(tmp_path: Path) -> None:
    for k, _ in enumerate(pictures(tmp_path / "d" / "train", 6).glob("*.jpg")):
        (tmp_path / "d" / "train" / f"a{k}.txt").write_text(f"picture {k}")
    with pytest.raises(InputError, match="d has no split 'val', only train; move some images to val"):
        train(tmp_path / "d", tmp_path / "run", Recipe(epochs=1, image_size=32))


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_sixteen_bits_keep_their_contrast(tmp_path: Path, kind: type) -> None:
    for largest in (255, 4000, 60_000):
        values = np.linspace(0, largest, 64).astype(kind)[None].repeat(32, 0)
        Image.fromarray(values).save(tmp_path / "grey.tif")
        grey = np.asarray(read_image(tmp_path / "grey.tif"))
        assert grey[0, :, 0].tolist() == (values[0] >> {255: 0, 4000: 4, 60_000: 8}[largest]).tolist()


def test_a_phones_photograph_of_108_million_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (12000, 9000), "red").save(tmp_path / "phone.jfif", "jpeg", quality=30)
    assert read_square(tmp_path / "phone.jfif", 64).getpixel((9, 9))[0] > 250
    with pytest.raises(InputError, match="12000 x 9000 pixels are too many"):
        read_image(tmp_path / "phone.jfif")
    assert Image.MAX_IMAGE_PIXELS is not None


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f'#!/bin/sh\necho called >> "{tmp_path}/called"\nexit 1\n')
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "x.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match="cannot read the image"):
        read_image(tmp_path / "x.jpg")
    assert not (tmp_path / "called").exists()


def test_pictures_replaced_by_others_of_the_same_size_and_date_are_decoded_again(tmp_path: Path) -> None:
    paths = sorted(pictures(tmp_path / "d", 5, "bmp").glob("*.bmp"))
    before = np.array(decoded(paths, 32, tmp_path / "cache"))
    for path in paths:
        status = path.stat()
        Image.new("RGB", (40, 40), "white").save(path.with_suffix(".new"), "bmp")
        os.utime(path.with_suffix(".new"), ns=(status.st_atime_ns, status.st_mtime_ns))
        path.with_suffix(".new").replace(path)
    assert before.mean() < decoded(paths, 32, tmp_path / "cache").mean() == 255


def test_thumbnails_are_read_like_images() -> None:
    grey = Image.fromarray(np.full((40, 40), 30000, np.uint16))
    photograph = Image.new("RGB", (64, 64), "red")
    photograph.paste((0, 0, 255), (0, 0, 32, 64))
    exif = photograph.getexif()
    exif[0x112] = 6  # the camera was held upright
    file = io.BytesIO()
    photograph.save(file, "jpeg", exif=exif, quality=95)
    explorer = TemperatureExplorer(*np.eye(2)[None].repeat(2, 0), images=[grey, Image.open(file)])
    sheet = Image.open(io.BytesIO(explorer.thumbnails)).convert("RGB")
    assert sheet.getpixel((32, 32))[0] == pytest.approx(117, abs=4)
    (top, bottom) = (sheet.getpixel((96, y)) for y in (8, 56))
    assert top[2] > 150 > top[0]
    assert bottom[0] > 150 > bottom[2]


def test_two_commands_do_not_write_one_folder_at_once(tmp_path: Path, sixty_scenes: Path, capsys) -> None:
    arguments = ["train", "--data", str(sixty_scenes), "--out", str(tmp_path / "run"), "--epochs", "1"]
    codes: list[int] = []
    with locked(tmp_path / "run"):
        for _ in range(2):  # one that is refused does not open the way for the next
            other = threading.Thread(target=lambda: codes.append(cli.main(arguments)))
            other.start()
            other.join()
    assert codes == [2, 2]
    assert "is in use by another command" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "helpers", *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, check=False, timeout=120)


def test_output_in_a_code_page_or_with_odd_bytes_is_no_traceback(tmp_path: Path) -> None:
    folder = table(tmp_path / "d", "".join(["file,caption\n", *(f"a{k}.jpg,一只狗{k}\n" for k in range(4))]))
    done = run("look", folder, PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u4e00" in done.stdout
    done = run("photographs", folder, "--out", tmp_path / os.fsdecode(b"o\xe9"), PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    folder = table(tmp_path / "d", "file,caption\n" + ROWS)
    script = f'"{sys.executable}" -m helpers look "{folder}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_flip_says_which_languages_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert not says_side("ein roter Kreis links vom Quadrat")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert "in English or Chinese" in " ".join(capsys.readouterr().out.split())


def test_workers_without_shared_memory_are_refused(
    sixty_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.data.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(InputError, match=r"2 workers need \d+ MB in /dev/shm.*fewer workers"):
        train(sixty_scenes, tmp_path / "run", Recipe(epochs=1, image_size=64), workers=2)
