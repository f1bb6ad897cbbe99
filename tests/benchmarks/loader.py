"""Measure how fast batches load: from the cache, from memory, and with every image decoded in every epoch.

``python tests/benchmarks/loader.py [DIR]`` writes a table into ``data/results``. The three loaders take turns in
each round; a ratio is the median over the rounds.
"""

import functools
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from report import RESULTS, machine, median_ratios, take_turns, write_report
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


def read_batches(loader: Iterable, count: int) -> None:
    for _batch in islice(loader, count):
        pass


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
    runs = {name: functools.partial(read_batches, loader, BATCHES[name]) for name, loader in loaders.items()}
    take_turns(runs, 1)
    return {name: [BATCHES[name] / one for one in seconds] for name, seconds in take_turns(runs, rounds).items()}


def table(report: dict) -> Iterator[str]:
    """The lines of the report in Markdown."""
    rounds = len(report["results"][0]["rounds"]["cache"])
    yield f"Batches of {report['batch_size']} per second, from {report['images']:,} images of {report['data']}; medians"
    yield f"of {rounds} rounds in which the three loaders took turns; {report['cores']} cores, {report['threads']}"
    yield f"threads, torch {report['torch']}.\n"
    yield "| pixels | cache | memory | cache / memory | decoding each time | cache / decoding |" + "\n|" + 6 * "---:|"
    for row in report["results"]:
        rate, ratio = row["batches_per_second"], row["ratio_to"]
        memory = f"{rate['memory']:.1f} | {ratio['memory']:.2f}"
        decoding = f"{rate['decoding']:.2f} | {ratio['decoding']:.1f}"
        yield f"| {row['image_size']} | {rate['cache']:.1f} | {memory} | {decoding} |"


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
        row = {"batches_per_second": medians, "ratio_to": median_ratios(rates, "cache"), "rounds": rates}
        report["results"].append({"image_size": size, **row})
    write_report(out, f"loader_{name}", report, table(report))


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "scenes")
