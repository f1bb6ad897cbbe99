"""Features of 64 test pairs at several moments of a training: what the notebooks look at before 05 trains a model.

``python -m helpers.classroom.snapshots --data data/scenes --out data/features.npz``
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from helpers.cli import CommandLine
from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.evaluation import encode_images, encode_texts
from helpers.files import InputError
from helpers.scenes.render import read_truth
from helpers.sources.coco import read_captions
from helpers.sources.snapshots import FILE
from helpers.text import WordTokenizer
from helpers.training import train

PAIRS = 64
EPOCHS = 6
MOMENTS = (0, 8, 16, 32, 64, 128, 372)  # steps; 62 make an epoch of the scenes


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
    parser = CommandLine(
        prog="python -m helpers.classroom.snapshots", description="Write the features that the notebooks use."
    )
    parser.add_argument("--data", type=Path, required=True, help="the scenes, as helpers.scenes writes them")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default data/features.npz)")
    options = parser.parse_args(arguments)
    return parser.run(lambda: write_snapshots(options.data, options.out))


if __name__ == "__main__":
    sys.exit(main())
