"""How long batches take to load: from the cache, from memory, and by decoding every image in every epoch.

``python tests/benchmarks/loader.py --data DIR`` prints a table and writes it, with all that was measured, to
``data/results``. In each round the three take turns; a ratio is the median of those of the rounds.
"""

import json
import os
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
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from helpers.cli import CommandLine
from helpers.data import IMAGENET_MEAN, IMAGENET_STD, ImageTextDataset, make_loader
from helpers.files import InputError
from helpers.sources.cache import decoded
from helpers.sources.coco import DATA, read_captions
from helpers.text import WordTokenizer

EPOCHS = 5  # over which the memory is watched
BATCHES = {"cache": 16, "memory": 16, "decoding": 2}  # timed in each round


class InMemory(ImageTextDataset):
    """The same items, but that their pixels are rows of a tensor in memory."""

    def hold(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def _pixels(self, indices: Sequence[int]) -> Tensor:
        return self.pixels[indices]


class DecodeEveryTime(Dataset):
    """As tutorials write it: each item opens its file, in each epoch anew. Its captions are not even tokenised."""

    def __init__(self, image_paths: Sequence[Path], captions: Sequence[Sequence[str]], image_size: int) -> None:
        from torchvision import transforms

        self.image_paths, self.captions = image_paths, captions
        self.transform = transforms.Compose(
            [
                transforms.Resize((image_size, image_size)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.transform(Image.open(self.image_paths[index]).convert("RGB")), self.captions[index][0]


def cached_loader(data: Path, images: int, size: int, batch_size: int) -> tuple[ImageTextDataset, DataLoader]:
    """The course's own dataset and loader of the first ``images`` training pairs."""
    paths, captions = (part[:images] for part in read_captions(data, "train"))
    dataset = ImageTextDataset(paths, captions, size)
    dataset.use_cache()
    tokenizer = WordTokenizer.build([caption for of_image in captions for caption in of_image])
    return dataset, make_loader(dataset, tokenizer, batch_size)


def measure_speed(data: Path, images: int, size: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Batches a second of each rival a round; one before them, not timed, warms everything up."""
    dataset, from_cache = cached_loader(data, images, size, batch_size)
    held = InMemory(dataset.image_paths, dataset.captions, size)
    held.hold(torch.from_numpy(np.array(decoded(dataset.image_paths, size))))
    decoding = DecodeEveryTime(dataset.image_paths, dataset.captions, size)
    rivals: dict[str, Callable[[], Iterable]] = {
        "cache": lambda: from_cache,
        "memory": lambda: make_loader(held, from_cache.collate_fn.tokenizer, batch_size),
        "decoding": lambda: DataLoader(decoding, batch_size=batch_size, shuffle=True, num_workers=0),
    }
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        dataset.set_epoch(turn)
        from_cache.batch_sampler.set_epoch(turn)
        for name in sorted(rivals, reverse=turn % 2 == 1):  # who comes first finds the processor another way
            batches = iter(rivals[name]())
            began = time.perf_counter()
            for _batch in islice(batches, BATCHES[name]):
                pass
            seconds = time.perf_counter() - began
            if turn:
                rates[name].append(BATCHES[name] / seconds)
    return rates


def resident() -> float:
    """MB of this process in memory, mapped files among them."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def measure_memory(data: Path, images: int, size: int, batch_size: int) -> float:
    """MB by which the process grows over five epochs, at its largest, after a first one in which it finds its size."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    dataset, loader = cached_loader(data, images, size, batch_size)
    measured = []
    for epoch in range(1 + EPOCHS):
        dataset.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        for _batch in loader:
            measured.append(resident())
    return max(measured[len(loader) :]) - measured[len(loader) - 1]


def measure(data: Path, images: int, sizes: Sequence[int], batch_size: int, rounds: int) -> dict:
    """Everything that the report holds, for each size."""
    results = []
    for size in sizes:
        rates = measure_speed(data, images, size, batch_size, rounds)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a process that has done nothing else
            grown = pool.submit(measure_memory, data, images, size, batch_size).result()
        ratios = {
            rival: statistics.median(a / b for a, b in zip(rates["cache"], rates[rival], strict=True))
            for rival in ("memory", "decoding")
        }
        results.append(
            {
                "image_size": size,
                "batches_per_second": {name: statistics.median(values) for name, values in rates.items()},
                "ratio_to": ratios,
                "memory_grown_mb": grown,
                "rounds": rates,
            }
        )
    return {
        "data": data.resolve().name,
        "images": images,
        "batch_size": batch_size,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "results": results,
    }


def table(report: dict) -> str:
    """The report in Markdown."""
    rounds = len(report["results"][0]["rounds"]["cache"])
    lines = [
        f"Batches of {report['batch_size']} a second, from {report['images']:,} images of {report['data']}; medians of "
        f"{rounds} rounds in which the three took turns; {report['cores']} cores, {report['threads']} threads, torch "
        f"{report['torch']}. Memory: by how much the process that loads from the cache grew over {EPOCHS} epochs.",
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


def run(data: Path, out: Path, sizes: Sequence[int], batch_size: int, images: int, rounds: int) -> None:
    """Measure, print and write.

    Raises:
        InputError: if the data cannot be read, or are too few for a round.
    """
    paths, _ = read_captions(data, "train")
    images = min(images, len(paths))
    needed = batch_size * max(BATCHES.values())
    if images < needed:
        raise InputError(
            f"{data} has {images:,} training images; a round needs {needed:,}, so choose a smaller --batch-size"
        )
    with Image.open(paths[0]) as first:
        sizes = sizes or ((64,) if max(first.size) <= 64 else (128, 224))
    report = measure(data, images, sizes, batch_size, rounds)
    out.mkdir(parents=True, exist_ok=True)
    name = f"loader_{report['data']}"
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(table(report), encoding="utf-8")
    print(table(report))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python tests/benchmarks/loader.py", description="Measure how long batches take to load.")
    parser.add_argument("--data", type=Path, default=DATA / "scenes", help="in the COCO layout (default data/scenes)")
    parser.add_argument("--out", type=Path, default=DATA / "results", help="where to write (default data/results)")
    parser.add_argument("--size", type=int, action="append", metavar="PIXELS", help="default 64, or 128 and 224")
    parser.add_argument("--batch-size", type=int, default=256, metavar="PAIRS", help="default 256")
    parser.add_argument("--images", type=int, default=4096, metavar="N", help="as many of them (default 4096)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default 7")
    options = parser.parse_args(arguments)

    def command() -> None:
        torch.set_num_threads(min(2, torch.get_num_threads()))
        run(options.data, options.out, options.size or (), options.batch_size, options.images, options.rounds)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
