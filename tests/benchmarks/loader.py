"""Measure how fast batches load: from the cache, from memory, and with every image decoded in every epoch.

``python tests/benchmarks/loader.py [DIR]`` writes a table into ``data/results``. The three loaders take turns in
each round; a ratio is the median over the rounds.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
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
EPOCHS = 5  # over which the growth of memory is measured
BATCHES = {"cache": 16, "memory": 16, "decoding": 2}  # timed in each round


class InMemory(ImageTextDataset):
    """The same items, with the pixels of all images in one tensor in memory."""

    pixels: Tensor

    def _pixels(self, rows: Sequence[int]) -> Tensor:
        return self.pixels[rows]


class DecodeEveryTime(Dataset):
    """The dataset of most tutorials: each item opens its file again in each epoch. Captions are not tokenised."""

    def __init__(self, image_paths: Sequence[Path], captions: Sequence[Sequence[str]], image_size: int) -> None:
        self.image_paths, self.captions = image_paths, captions
        resize = transforms.Resize((image_size, image_size))
        normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.transform = transforms.Compose([resize, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.transform(Image.open(self.image_paths[index]).convert("RGB")), self.captions[index][0]


def cached_loader(data: Path, images: int, size: int, batch_size: int) -> tuple[ImageTextDataset, DataLoader]:
    """The course's own dataset and loader over the first training pairs."""
    paths, captions = (part[:images] for part in read_captions(data, "train"))
    dataset = ImageTextDataset(paths, captions, size)
    dataset.use_cache()
    tokenizer = WordTokenizer.build([caption for of_image in captions for caption in of_image])
    return dataset, make_loader(dataset, tokenizer, batch_size)


def measure_speed(data: Path, images: int, size: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Batches per second of each loader in each round. One round before them warms everything up."""
    dataset, from_cache = cached_loader(data, images, size, batch_size)
    in_memory = InMemory(dataset.image_paths, dataset.captions, size)
    in_memory.pixels = torch.from_numpy(np.array(decoded(dataset.image_paths, size)))
    decoding = DecodeEveryTime(dataset.image_paths, dataset.captions, size)
    loaders: dict[str, Callable[[], Iterable]] = {
        "cache": lambda: from_cache,
        "memory": lambda: make_loader(in_memory, from_cache.collate_fn.tokenizer, batch_size),
        "decoding": lambda: DataLoader(decoding, batch_size=batch_size, shuffle=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        dataset.set_epoch(turn)
        from_cache.batch_sampler.set_epoch(turn)
        for name in sorted(loaders, reverse=turn % 2 == 1):  # alternate the order, for a fair comparison
            batches = iter(loaders[name]())
            start = time.perf_counter()
            for _batch in islice(batches, BATCHES[name]):
                pass
            if turn:
                rates[name].append(BATCHES[name] / (time.perf_counter() - start))
    return rates


def measure_memory(data: Path, images: int, size: int, batch_size: int) -> float:
    """MB by which the largest resident size grows during ``EPOCHS`` epochs, after a first one."""
    dataset, loader = cached_loader(data, images, size, batch_size)
    peaks = []
    for epoch in range(1 + EPOCHS):
        dataset.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        for _batch in loader:
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    return peaks[-1] - peaks[0]


def measure(data: Path, images: int, sizes: Sequence[int], batch_size: int, rounds: int) -> dict:
    """The whole report, with one result per image size."""
    results = []
    for size in sizes:
        rates = measure_speed(data, images, size, batch_size, rounds)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a fresh process
            grown = pool.submit(measure_memory, data, images, size, batch_size).result()
        ratios = {
            rival: statistics.median(a / b for a, b in zip(rates["cache"], rates[rival], strict=True))
            for rival in ("memory", "decoding")
        }
        medians = {name: statistics.median(values) for name, values in rates.items()}
        results.append({"image_size": size, "batches_per_second": medians, "ratio_to": ratios})
        results[-1] |= {"memory_grown_mb": grown, "rounds": rates}
    return {"data": data.name, "images": images, "batch_size": batch_size, **machine(), "results": results}


def table(report: dict) -> str:
    """The report in Markdown."""
    rounds = len(report["results"][0]["rounds"]["cache"])
    lines = [
        f"Batches of {report['batch_size']} per second, from {report['images']:,} images of {report['data']}; medians "
        f"of {rounds} rounds in which the three loaders took turns; {report['cores']} cores, {report['threads']} "
        f"threads, torch {report['torch']}. Memory: the growth of the process that loads from the cache, over "
        f"{EPOCHS} epochs.",
        "",
        "| pixels | cache | memory | cache / memory | decoding each time | cache / decoding | memory grown |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        rate, ratio = row["batches_per_second"], row["ratio_to"]
        lines.append(
            f"| {row['image_size']} | {rate['cache']:.1f} | {rate['memory']:.1f} | {ratio['memory']:.2f} "
            f"| {rate['decoding']:.2f} | {ratio['decoding']:.1f} | {row['memory_grown_mb']:.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def run(data: Path, out: Path = RESULTS, batch_size: int = BATCH_SIZE, rounds: int = ROUNDS) -> None:
    """Measure the loaders on a folder of pairs and write the report."""
    paths, _ = read_captions(data, "train")
    with Image.open(paths[0]) as first:
        sizes = (64,) if max(first.size) <= 64 else (128, 224)
    report = measure(data.resolve(), min(IMAGES, len(paths)), sizes, batch_size, rounds)
    write_report(out, f"loader_{report['data']}", report, table(report))


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "scenes")
