"""Write ``data/features.npz`` and ``data/model.pt``: features of 64 test pairs during a training, and its result.

``make features`` runs this script, which trains once.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from helpers.data import DATA, ImageTextDataset, read_captions
from helpers.encoders import DualEncoder
from helpers.evaluation import encode_images, encode_texts
from helpers.files import atomic_file
from helpers.runs import load_checkpoint, save_checkpoint
from helpers.scenes import LEVELS
from helpers.text import WordTokenizer
from helpers.training import Recipe, train

PAIRS = 64
EPOCHS = 6
MOMENTS = (0, 8, 16, 32, 64, 128, 372)  # steps; an epoch of the scenes has 62


def write_snapshots(out: Path, model_file: Path) -> None:
    """Train once on scenes; write the features of the first 64 test pairs at each of ``MOMENTS``, and the model.

    The text of each image is its caption of level "related", which is short enough for the axis of a matrix.
    """
    scenes = DATA / "scenes"
    paths, captions = read_captions(scenes, "test")
    texts = [own[LEVELS.index("related")] for own in captions[:PAIRS]]
    dataset = ImageTextDataset(paths[:PAIRS], texts, image_size=64)
    features = []

    def keep(step: int, model: DualEncoder, tokenizer: WordTokenizer) -> None:
        if step in MOMENTS:
            features.append((encode_images(model, dataset), encode_texts(model, tokenizer, texts)))

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(scenes, run, Recipe(epochs=EPOCHS), on_step=keep)
        content = load_checkpoint(run / "last.pt")
    parts = {name: content[name] for name in ("vocabulary", "max_length", "architecture", "recipe")}
    weights = {name: value.half() if value.is_floating_point() else value for name, value in content["model"].items()}
    save_checkpoint(model_file, parts | {"model": weights})
    image_features, text_features = (torch.stack(side).half().numpy() for side in zip(*features, strict=True))
    with atomic_file(out) as file:
        np.savez_compressed(
            file,
            steps=np.array(MOMENTS),
            image_features=image_features,
            text_features=text_features,
            images=torch.stack([dataset.decode(row) for row in range(PAIRS)]).numpy(),
            captions=np.array(texts),
        )


if __name__ == "__main__":
    write_snapshots(DATA / "features.npz", DATA / "model.pt")
