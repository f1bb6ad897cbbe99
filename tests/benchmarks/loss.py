"""What the contrastive loss costs: block by block, as it is plainly written, and as open_clip has it.

``python tests/benchmarks/loss.py`` prints a table and writes it, with all that was measured, to ``data/results``. All
start from the same features and end with the gradients of both sides and of the temperature, normalisation included.

- Time: in each round all take turns in one process; a ratio is the median of those of the rounds. Beside them stand the
  four matrix products that a loss without the matrix cannot do without: the logits, the logits again, and the gradient
  of each side, in blocks of the same size and with nothing between them.
- Memory: a process of its own for each, by how much its largest resident size (``VmHWM``, set back before) exceeds
  what it held before the loss, features included and a small warm-up done. Linux alone tells this.
- Error: the largest of value and gradients, relative to the largest element, against the blockwise loss in float64
  (which the tests compare with the plain one).
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.annotations import DATA
from helpers.command_line import CommandLine, InputError
from helpers.losses import BLOCK, blockwise_contrastive_loss, contrastive_loss

TEMPERATURE = 0.07
ALONE = (32_768, 65_536)  # pairs at which only the memory of the blockwise loss is measured


def open_clip_loss(images: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
    from open_clip.loss import ClipLoss  # not above: it would weigh in the processes of the others

    return ClipLoss()(F.normalize(images, dim=1), F.normalize(texts, dim=1), 1 / temperature)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "blockwise": blockwise_contrastive_loss,
    "open_clip": open_clip_loss,
    "plain": contrastive_loss,
}


def features(pairs: int, dim: int) -> tuple[Tensor, Tensor]:
    """Random images ``[pairs, dim]``, and texts that are these with three times as much noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(pairs, dim, generator=generator)
    return images, torch.randn(pairs, dim, generator=generator).mul_(3).add_(images)


def with_gradients(name: str, images: Tensor, texts: Tensor) -> list[Tensor]:
    """The value of a loss, and the gradients of images, texts and temperature."""
    temperature = torch.tensor(TEMPERATURE, dtype=images.dtype, requires_grad=True)
    inputs = (images.requires_grad_(), texts.requires_grad_(), temperature)
    value = LOSSES[name](*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def four_products(images: Tensor, texts: Tensor) -> None:
    images, texts = images.detach(), texts.detach()
    logits = images.new_empty(min(BLOCK, len(images)), len(texts))
    image_gradient, text_gradient = torch.empty_like(images), torch.zeros_like(texts)
    for start in range(0, len(images), BLOCK):
        rows = images[start : start + BLOCK]
        block = logits[: len(rows)]
        for _forward_and_again in range(2):
            torch.mm(rows, texts.T, out=block)
        torch.mm(block, texts, out=image_gradient[start : start + BLOCK])
        text_gradient.addmm_(block.T, rows)


def measure_time(pairs: int, dim: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each a round; one round before them, not counted, warms everything up."""
    images, texts = features(pairs, dim)
    rivals: dict[str, Callable[[], object]] = {
        name: lambda name=name: with_gradients(name, images, texts) for name in LOSSES
    }
    rivals["four products"] = lambda: four_products(images, texts)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name in sorted(rivals, reverse=turn % 2 == 1):  # who comes first finds the processor another way
            began = time.perf_counter()
            rivals[name]()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def resident(field: str) -> float:
    """MB of this process in memory: ``VmRSS`` now, ``VmHWM`` at its largest."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024 / 1e6


def measure_memory(name: str, pairs: int, dim: int, threads: int) -> tuple[float, float]:
    """MB that the loss and its gradients take beyond the features, and those of the whole process at its largest."""
    torch.set_num_threads(threads)
    with_gradients(name, *features(256, dim))
    images, texts = features(pairs, dim)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at VmRSS
    before = resident("VmRSS")
    with_gradients(name, images, texts)
    return resident("VmHWM") - before, resident("VmHWM")


def in_a_process_of_its_own(name: str, pairs: int, dim: int) -> tuple[float, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_memory, name, pairs, dim, torch.get_num_threads()).result()


def largest_errors(pairs: int, dim: int) -> dict[str, float]:
    """Of each loss, against float64."""
    images, texts = features(pairs, dim)
    exact = with_gradients("blockwise", images.double(), texts.double())
    found = {name: with_gradients(name, images, texts) for name in LOSSES}
    return {
        name: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(values, exact, strict=True))
        for name, values in found.items()
    }


def measure_size(pairs: int, dim: int, rounds: int) -> dict:
    """Time, memory and error of all at one size."""
    memory = {name: in_a_process_of_its_own(name, pairs, dim)[0] for name in LOSSES}
    seconds = measure_time(pairs, dim, rounds)
    ours = seconds["blockwise"]
    return {
        "pairs": pairs,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio_of_time_to": {
            name: statistics.median(a / b for a, b in zip(ours, values, strict=True))
            for name, values in seconds.items()
            if name != "blockwise"
        },
        "memory_mb": memory,
        "ratio_of_memory_to": {name: memory["blockwise"] / memory[name] for name in LOSSES if name != "blockwise"},
        "largest_error": largest_errors(pairs, dim),
        "rounds": seconds,
    }


def table(report: dict) -> str:
    """The report in Markdown."""
    rounds = len(report["results"][0]["rounds"]["plain"])
    lines = [
        f"The loss of so many pairs of {report['dim']} dimensions at temperature {TEMPERATURE}, with all gradients: "
        f"medians of {rounds} rounds in which all took turns, and the memory beyond the features of a process of its "
        f"own; {report['cores']} cores, {report['threads']} threads, torch {report['torch']}, open_clip "
        f"{report['open_clip']}.",
        "",
        "| pairs | loss | seconds | blockwise / it | memory | blockwise / it | largest error |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        for name, seconds in row["seconds"].items():
            time_ratio, memory_ratio = (
                f"{row[ratio][name]:.3f}" if name in row[ratio] else ""
                for ratio in ("ratio_of_time_to", "ratio_of_memory_to")
            )
            memory = f"{row['memory_mb'][name]:,.0f} MB" if name in row["memory_mb"] else ""
            error = f"{row['largest_error'][name]:.1e}" if name in row["largest_error"] else ""
            lines.append(
                f"| {row['pairs']:,} | {name} | {seconds:.2f} | {time_ratio} | {memory} | {memory_ratio} | {error} |"
            )
    for row in report["alone"]:
        lines.append(f"| {row['pairs']:,} | blockwise | | | {row['memory_mb']:,.0f} MB | | |")
        lines += [] if row is not report["alone"][-1] else ["", f"At {row['pairs']:,} pairs the whole process held"]
    if report["alone"]:
        lines[-1] += f" {report['alone'][-1]['process_mb']:,.0f} MB at most, features and libraries included."
    return "\n".join(lines) + "\n"


def run(out: Path, sizes: Sequence[int], alone: Sequence[int], dim: int, rounds: int) -> None:
    """Measure, print and write.

    Raises:
        InputError: for sizes of which nothing can be measured.
    """
    import open_clip

    if min(*sizes, dim + 1, rounds + 1) < 2:
        raise InputError("--pairs must be 2 or more, --dim and --rounds 1 or more")
    report = {
        "dim": dim,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "results": [measure_size(pairs, dim, rounds) for pairs in sizes],
        "alone": [],
    }
    for pairs in alone:
        memory, whole = in_a_process_of_its_own("blockwise", pairs, dim)
        report["alone"].append({"pairs": pairs, "memory_mb": memory, "process_mb": whole})
    out.mkdir(parents=True, exist_ok=True)
    (out / "loss.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "loss.md").write_text(table(report), encoding="utf-8")
    print(table(report))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python tests/benchmarks/loss.py", description="Measure what the contrastive loss costs.")
    parser.add_argument("--out", type=Path, default=DATA / "results", help="the folder to write in (data/results)")
    parser.add_argument(
        "--pairs",
        type=int,
        action="append",
        metavar="N",
        help="default 4096, 8192 and 16384, and the memory of 32768 and 65536",
    )
    parser.add_argument("--dim", type=int, default=512, metavar="N", help="default 512")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    options = parser.parse_args(arguments)

    def command() -> None:
        torch.set_num_threads(min(2, torch.get_num_threads()))
        sizes, alone = (options.pairs, ()) if options.pairs else ((4096, 8192, 16_384), ALONE)
        run(options.out, sizes, alone, options.dim, options.rounds)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
