"""Features of 64 test pairs at several moments of a training: what the notebooks look at before 05 trains a model.

``python -m helpers.snapshots --data data/scenes --out data/features.npz``
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from helpers.annotations import DATA, read_captions
from helpers.command_line import CommandLine, InputError
from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.evaluation import encode_images, encode_texts
from helpers.scenes import read_truth
from helpers.text import WordTokenizer
from helpers.training import train

PAIRS = 64
EPOCHS = 6
MOMENTS = (0, 8, 16, 32, 64, 128, 372)  # steps; 62 make an epoch of the scenes
FILE = DATA / "features.npz"


@dataclass(frozen=True)
class Snapshots:
    """L2-normalised features of the same pairs at each moment of one training, untrained first."""

    steps: list[int]
    image_features: Tensor  # [moments, pairs, dim], float32
    text_features: Tensor  # [moments, pairs, dim], float32
    images: Tensor  # [pairs, 3, height, width], uint8
    captions: list[str]


def load_snapshots(path: Path = FILE) -> Snapshots:
    """The snapshots that come with the course.

    Raises:
        InputError: if the file is missing.
    """
    if not path.is_file():
        raise InputError(f"there is no {path.name} in {path.parent}; `make features` writes it")
    with np.load(path, allow_pickle=False) as file:
        image_features, text_features, images = (
            torch.from_numpy(file[name]) for name in ("image_features", "text_features", "images")
        )
        return Snapshots(
            file["steps"].tolist(), image_features.float(), text_features.float(), images, file["captions"].tolist()
        )


def write_snapshots(data: Path, out: Path) -> None:
    """Train once on ``data`` and write the features of the first 64 test pairs at each of ``MOMENTS``.

    Each image stands with its caption of level "related", which is short enough for the axis of a matrix.

    Raises:
        InputError: if ``data`` does not hold scenes.
    """
    truth = read_truth(data, "test")
    if truth is None:
        raise InputError(f"{data} does not hold scenes; `make pairs` draws data/scenes")
    paths, captions = (part[:PAIRS] for part in read_captions(data, "test"))
    texts = [of_image[levels.index("related")] for of_image, levels in zip(captions, truth[1], strict=False)]
    dataset = ImageTextDataset(paths, texts, image_size=64)
    features = []

    def keep(step: int, model: DualEncoder, tokenizer: WordTokenizer) -> None:
        if step in MOMENTS:
            features.append((encode_images(model, dataset), encode_texts(model, tokenizer, texts)))

    with tempfile.TemporaryDirectory() as folder:
        train(data, Path(folder) / "run", epochs=EPOCHS, on_step=keep)
    image_features, text_features = (torch.stack(side).half().numpy() for side in zip(*features, strict=True))
    partial = out.with_name(f"{out.name}.partial.npz")
    np.savez_compressed(
        partial,
        steps=np.array(MOMENTS),
        image_features=image_features,
        text_features=text_features,
        images=torch.stack([dataset.decode(index) for index in range(len(dataset))]).numpy(),
        captions=np.array(texts),
    )
    os.replace(partial, out)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.snapshots", description="Write the features that the notebooks use.")
    parser.add_argument("--data", type=Path, required=True, help="the scenes, as helpers.scenes writes them")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default data/features.npz)")
    options = parser.parse_args(arguments)
    return parser.run(lambda: write_snapshots(options.data, options.out))


if __name__ == "__main__":
    sys.exit(main())
