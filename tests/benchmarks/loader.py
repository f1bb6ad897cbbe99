"""Measure how fast batches load: from the cache, from memory, and with every image decoded in every epoch.

``python tests/benchmarks/loader.py [DIR]`` writes a table into ``data/results``. The three loaders take turns in
each round; a ratio is the median over the rounds.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from report import RESULTS, machine, write_report
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers.data import IMAGENET_MEAN, IMAGENET_STD, ImageTextDataset, make_loader, read_captions
from helpers.files import DATA
from helpers.sources.cache import decoded
from helpers.text import WordTokenizer

IMAGES, BATCH_SIZE, ROUNDS = 4096, 256, 7
BATCHES = {"cache": 16, "memory": 16, "decoding": 2}  # timed in each round


class InMemory(ImageTextDataset):
    """The same items, with the pixels of all images in one tensor in memory."""

    pixels: Tensor

    def _pixels(self, rows: Sequence[int]) -> Tensor:
        return self.pixels[rows]


class DecodeEveryTime(Dataset):
    """The dataset of most tutorials: each item opens its file again in each epoch. Captions are not tokenized."""

    def __init__(self, image_paths: Sequence[Path], captions: Sequence[Sequence[str]], image_size: int) -> None:
        self.image_paths, self.captions = image_paths, captions
        resize = transforms.Resize((image_size, image_size))
        normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.transform = transforms.Compose([resize, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.transform(Image.open(self.image_paths[index]).convert("RGB")), self.captions[index][0]


def measure(data: Path, size: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Batches per second of each loader in each round. One round before them warms everything up."""
    paths, captions = (part[:IMAGES] for part in read_captions(data, "train"))
    tokenizer = WordTokenizer.build([caption for of_image in captions for caption in of_image])
    cached, in_memory = ImageTextDataset(paths, captions, size), InMemory(paths, captions, size)
    cached.use_cache()
    in_memory.pixels = torch.from_numpy(np.array(decoded(paths, size)))
    loaders = {
        "cache": make_loader(cached, tokenizer, batch_size),
        "memory": make_loader(in_memory, tokenizer, batch_size),
        "decoding": DataLoader(DecodeEveryTime(paths, captions, size), batch_size, shuffle=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for name in sorted(loaders, reverse=turn % 2 == 1):  # alternate the order, for a fair comparison
            batches = iter(loaders[name])
            start = time.perf_counter()
            for _batch in islice(batches, BATCHES[name]):
                pass
            if turn:
                rates[name].append(BATCHES[name] / (time.perf_counter() - start))
    return rates


def table(report: dict) -> str:
    """The report in Markdown."""
    rounds = len(report["results"][0]["rounds"]["cache"])
    lines = [
        f"Batches of {report['batch_size']} per second, from {report['images']:,} images of {report['data']}; medians "
        f"of {rounds} rounds in which the three loaders took turns; {report['cores']} cores, {report['threads']} "
        f"threads, torch {report['torch']}.",
        "",
        "| pixels | cache | memory | cache / memory | decoding each time | cache / decoding |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        rate, ratio = row["batches_per_second"], row["ratio_to"]
        lines.append(
            f"| {row['image_size']} | {rate['cache']:.1f} | {rate['memory']:.1f} | {ratio['memory']:.2f} "
            f"| {rate['decoding']:.2f} | {ratio['decoding']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def run(data: Path, out: Path = RESULTS, batch_size: int = BATCH_SIZE, rounds: int = ROUNDS) -> None:
    """Measure the loaders on a folder of pairs and write the report."""
    paths, _ = read_captions(data, "train")
    with Image.open(paths[0]) as first:
        sizes = (64,) if max(first.size) <= 64 else (128, 224)
    name = data.resolve().name
    report = {"data": name, "images": min(IMAGES, len(paths)), "batch_size": batch_size, **machine(), "results": []}
    for size in sizes:
        rates = measure(data, size, batch_size, rounds)
        medians = {name: statistics.median(values) for name, values in rates.items()}
        ratios = {
            rival: statistics.median(a / b for a, b in zip(rates["cache"], rates[rival], strict=True))
            for rival in ("memory", "decoding")
        }
        row = {"image_size": size, "batches_per_second": medians, "ratio_to": ratios, "rounds": rates}
        report["results"].append(row)
    write_report(out, f"loader_{name}", report, table(report))


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "scenes")
