"""The blockwise loss against open_clip's loss.

``python tests/benchmarks/loss.py`` prints a table and writes it, with all measurements, to ``data/results``. Every
measurement includes normalisation and the gradients of both sides and of the temperature.

- Time: the losses take turns; a ratio is the median of the ratios of the rounds. "Four products" is a lower bound: the
  matrix products that a loss without its matrix needs (the logits twice, the gradient of each side), and nothing else.
- Memory: the tensors that are held at once at the worst moment, beyond the features, as PyTorch's profiler counts them.
- Error: the largest error of value and gradients, relative to the largest element, against float64.
"""

import functools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from report import machine, median_ratios, take_turns, write_report
from torch import Tensor

from helpers.files import DATA
from helpers.scale.blockwise import BLOCK_ROWS, blockwise_contrastive_loss
from helpers.scale.costs import peak_megabytes, random_pairs, with_gradients

ROUNDS = {4096: 3, 8192: 3, 16_384: 2}  # by the number of pairs


def open_clip_loss(images: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
    return ClipLoss()(F.normalize(images, dim=1), F.normalize(texts, dim=1), 1 / temperature)


def four_products(images: Tensor, texts: Tensor) -> None:
    """The matrix products of the blockwise loss, in blocks of the same size."""
    logits = images.new_empty(min(BLOCK_ROWS, len(images)), len(texts))
    image_gradient, text_gradient = torch.empty_like(images), torch.zeros_like(texts)
    for start in range(0, len(images), BLOCK_ROWS):
        rows = images[start : start + BLOCK_ROWS]
        block = logits[: len(rows)]
        for _forward_and_backward in range(2):
            torch.mm(rows, texts.T, out=block)
        torch.mm(block, texts, out=image_gradient[start : start + BLOCK_ROWS])
        text_gradient.addmm_(block.T, rows)


LOSSES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "blockwise": functools.partial(with_gradients, blockwise_contrastive_loss),
    "four products": four_products,
    "open_clip": functools.partial(with_gradients, open_clip_loss),
}


def measure_losses(pairs: int, dim: int, rounds: int) -> dict:
    """Time and memory of each loss at one batch size."""
    runs = {name: functools.partial(loss, *random_pairs(pairs, dim)) for name, loss in LOSSES.items()}
    memory = {name: peak_megabytes(run) for name, run in runs.items()}  # also the warm-up
    seconds = take_turns(runs, rounds)
    return {
        "pairs": pairs,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio_of_time_to": median_ratios(seconds, "blockwise"),
        "memory_mb": memory,
        "ratio_of_memory_to": {"open_clip": memory["blockwise"] / memory["open_clip"]},
        "rounds": seconds,
    }


def largest_errors(pairs: int, dim: int) -> dict[str, float]:
    """The error of each loss in float32 against float64."""
    images, texts = random_pairs(pairs, dim)
    exact = LOSSES["blockwise"](images.double(), texts.double())
    errors = {}
    for name in ("blockwise", "open_clip"):
        results = LOSSES[name](images, texts)
        errors[name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(results, exact, strict=True))
    return errors


def table(report: dict) -> Iterator[str]:
    """The lines of the report in Markdown."""
    errors = report["largest_error"]
    yield f"The loss of {report['dim']}-dimensional features at temperature 0.07, with all gradients: seconds, and the"
    yield f"memory beyond the features, on {report['cores']} cores with {report['threads']} threads; torch"
    yield f"{report['torch']}, open_clip {report['open_clip']}. Largest error at {errors['pairs']:,} pairs:"
    yield f"blockwise {errors['blockwise']:.1e}, open_clip {errors['open_clip']:.1e}.\n"
    yield "| pairs | loss | seconds | blockwise / it | memory | blockwise / it |\n|---:|---|---:|---:|---:|---:|"
    for row in report["results"]:
        for name, seconds in row["seconds"].items():
            ratios = [row[kind].get(name) for kind in ("ratio_of_time_to", "ratio_of_memory_to")]
            time_ratio, memory_ratio = ("" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
            memory = f"{row['memory_mb'][name]:,.0f} MB"
            yield f"| {row['pairs']:,} | {name} | {seconds:.2f} | {time_ratio} | {memory} | {memory_ratio} |"


def run(out: Path, rounds: dict[int, int], dim: int) -> None:
    """Measure, print, and write ``loss.json`` and ``loss.md``."""
    report: dict = {"dim": dim, **machine(), "open_clip": open_clip.__version__}
    report["results"] = [measure_losses(pairs, dim, n) for pairs, n in rounds.items()]
    report["largest_error"] = {"pairs": min(rounds), **largest_errors(min(rounds), dim)}
    write_report(out, "loss", report, table(report))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run(DATA / "results", ROUNDS, dim=512)
