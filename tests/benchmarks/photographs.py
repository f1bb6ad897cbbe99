"""Heads on frozen features of photographs, trained with three seeds, into ``data/results/photographs.json``.

``python tests/benchmarks/photographs.py DIR --runs RUNS`` takes a folder of photographs with the splits train and val,
such as Flickr8k. A hundred training images are set apart to watch the training; val is evaluated once, at the end, with
the weights of the last epoch. The settings were chosen on another part of train. Runs that are in ``RUNS`` are kept.
"""

import argparse
import json
import random
from pathlib import Path

import torch

from helpers.data import DATA
from helpers.files import atomic_folder
from helpers.report import evaluate_split
from helpers.runs import load_checkpoint
from helpers.sources import open_pairs
from helpers.sources.coco import write_annotations
from helpers.training import Recipe, train

WATCHED = 100  # training images
SEEDS = (0, 1, 2)


def recipe(text: str, seed: int) -> Recipe:
    return Recipe(
        epochs=10,
        seed=seed,
        encoder="lite0",
        text=text,
        batch_size=512,
        captions=3,
        temperature="learned:0.05",
        regularizers=("text_dropout:0.3",),
    )


def set_apart(photographs: Path, out: Path) -> None:
    """Write the pairs again: val becomes test, and a part of train becomes val."""
    pairs = open_pairs(photographs)
    records, order = pairs.records("train"), list(range(len(pairs.records("train"))))
    random.Random(17).shuffle(order)
    watched = set(order[:WATCHED])
    by_split = {
        "train": [record for row, record in enumerate(records) if row not in watched],
        "val": [record for row, record in enumerate(records) if row in watched],
        "test": pairs.records("val"),
    }
    with atomic_folder(out) as partial:
        (partial / "images").symlink_to((photographs / "images").resolve())
        write_annotations(partial, by_split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--texts", nargs="+", default=["gru:wordllama", "gru", "bag"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = options.runs / "pairs"
    if not pairs.exists():
        set_apart(options.photographs, pairs)
    rows = []
    for text in options.texts:
        for seed in SEEDS:
            out = options.runs / f"{text.replace(':', '-')}-{seed}"
            if not out.exists():
                train(pairs, out, recipe(text, seed))
            checkpoint = load_checkpoint(out / "last.pt")
            metrics = evaluate_split(checkpoint, pairs, "test")
            recalls = {direction: metrics[direction]["R@1"] for direction in ("image_to_text", "text_to_image")}
            rows.append({"text": text, "seed": seed, **recalls, "seconds": round(checkpoint["seconds"])})
            print(rows[-1])
    content = {"images": len(open_pairs(pairs).records("test")), "rows": rows}
    (DATA / "results" / "photographs.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
