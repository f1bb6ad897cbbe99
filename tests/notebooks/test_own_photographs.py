"""Lesson 07 on ten photographs of a phone, in every form that a phone or an editor gives them."""

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EMOJI = 'folder = DATA / "emoji"'


def ten_photographs(folder: Path) -> Path:
    """Write ten noisy pictures of one colour each: rotated, transparent, grey, CMYK, 16 bits, very wide, and so on."""
    folder.mkdir()
    random = np.random.default_rng(0)
    pixels = [
        (random.integers(0, 90, (60, 80, 3)) + random.integers(0, 160, 3)).astype(np.uint8).repeat(10, 0).repeat(10, 1)
        for _ in range(10)
    ]
    images = [Image.fromarray(values) for values in pixels]
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    images[0].save(folder / "0.jpg", exif=turned)
    images[1].putalpha(Image.linear_gradient("L").resize(images[1].size))
    images[1].save(folder / "1.png")
    images[2].convert("L").save(folder / "2.png")
    images[3].convert("CMYK").save(folder / "3.jpg")
    Image.fromarray(pixels[4][..., 0].astype(np.uint16) * 257).save(folder / "4.png")
    images[5].resize((8000, 6000)).save(folder / "5.jpg")
    images[6].quantize(16).save(folder / "6.gif")
    images[7].save(folder / "7.webp")
    images[8].resize((640, 40)).save(folder / "8.tif")
    images[9].convert("1").save(folder / "9.bmp")
    files = sorted(path.name for path in folder.iterdir())
    words = ("dog", "cat", "beach", "house", "street", "flower", "boat", "train", "friend", "cake")
    rows = [f"{file},a {word} of ours" for file, word in zip(files, words, strict=True)]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.mark.long
def test_lesson_07_runs_on_ten_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "notebooks" / "07_photographs.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if EMOJI in cell.source)
    own = f"from pathlib import Path\nfolder = Path({str(ten_photographs(tmp_path / 'phone'))!r})"
    first.source = first.source.replace(EMOJI, own)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert any("train     8 images" in text for text in printed)
    assert sum(text.startswith("Right: ") or "\nRight: " in text for text in printed) == 4
