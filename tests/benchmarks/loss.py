"""What the contrastive loss costs block by block and as open_clip has it, and what a large batch costs in parts.

``python tests/benchmarks/loss.py`` prints two tables and writes them, with all that was measured, to ``data/results``.
Both losses start from the same features and end with the gradients of both sides and of the temperature, normalisation
included.

- Time: each has a process of its own, and in each round all take turns; a ratio is the median of those of the rounds.
  Beside them stand the four matrix products that a loss without the matrix cannot do without: the logits, the logits
  again, and the gradient of each side, in blocks of the same size and with nothing between them.
- Memory: by how much the largest resident size of the process (``VmHWM``, set back before) exceeds what it held before
  the first round, features included and a small warm-up done. Linux alone tells this.
- Error: the largest of value and gradients, relative to the largest element, against the blockwise loss in float64
  (which the tests compare with the plain one).
- Steps: the dual encoder of the scenes, forward and backward, in one graph and with its gradients cached.
"""

import contextlib
import functools
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

from helpers.cli import CommandLine
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.scale.blockwise import BLOCK, blockwise_contrastive_loss
from helpers.scale.costs import random_pairs, resident
from helpers.scale.gradient_cache import gradient_cached_step
from helpers.sources.coco import DATA
from helpers.temperature import LearnedTemperature

TEMPERATURE = 0.07
ROUNDS = {4096: 3, 8192: 3, 16_384: 2}  # by the pairs
ALONE = (32_768,)  # pairs at which the blockwise loss is measured once, without a rival
STEPS = ((256, 256), (1024, 1024), (32_768, 256))  # pairs, and pairs in a part
WORDS, MAX_LENGTH = 60, 25  # of the captions, about as for the scenes


def open_clip_loss(images: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
    from open_clip.loss import ClipLoss  # not above: it would weigh in the processes of the others

    return ClipLoss()(F.normalize(images, dim=1), F.normalize(texts, dim=1), 1 / temperature)


def with_gradients(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], images: Tensor, texts: Tensor
) -> tuple[Tensor, ...]:
    """The value of a loss, and the gradients of images, texts and temperature."""
    temperature = torch.tensor(TEMPERATURE, dtype=images.dtype, requires_grad=True)
    inputs = (images.detach().requires_grad_(), texts.detach().requires_grad_(), temperature)
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def four_products(images: Tensor, texts: Tensor) -> None:
    logits = images.new_empty(min(BLOCK, len(images)), len(texts))
    image_gradient, text_gradient = torch.empty_like(images), torch.zeros_like(texts)
    for start in range(0, len(images), BLOCK):
        rows = images[start : start + BLOCK]
        block = logits[: len(rows)]
        for _forward_and_again in range(2):
            torch.mm(rows, texts.T, out=block)
        torch.mm(block, texts, out=image_gradient[start : start + BLOCK])
        text_gradient.addmm_(block.T, rows)


RIVALS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "blockwise": functools.partial(with_gradients, blockwise_contrastive_loss),
    "open_clip": functools.partial(with_gradients, open_clip_loss),
    "four products": four_products,
}


features = functools.cache(random_pairs)


def costs(work: Callable[[], object]) -> dict[str, float]:
    """Seconds, the MB that the work takes beyond what is there, and those of the whole process at its largest."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at VmRSS
    before = resident("VmRSS")
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory_mb": resident("VmHWM") - before, "process_mb": resident("VmHWM")}


def costs_of_loss(name: str, pairs: int, dim: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    RIVALS[name](*features(256, dim))
    images, texts = features(pairs, dim)
    return costs(lambda: RIVALS[name](images, texts))


class Parts(Sequence):
    """A batch of random pictures and captions, of which each part is made when it is asked for."""

    def __init__(self, pairs: int, size: int) -> None:
        self.pairs, self.size = pairs, size

    def __len__(self) -> int:
        return -(-self.pairs // self.size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        size = min(self.size, self.pairs - number * self.size)
        generator = torch.Generator().manual_seed(number)
        token_ids = torch.randint(2, WORDS, (size, MAX_LENGTH), generator=generator)
        return torch.randn(size, 3, 64, 64, generator=generator), token_ids, torch.zeros_like(token_ids).bool()


def costs_of_step(pairs: int, size: int, threads: int) -> dict[str, float]:
    """Of one training step without its optimizer, dropout and a learned temperature included."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, temperature = DualEncoder(WORDS, MAX_LENGTH, dropout=0.1).train(), LearnedTemperature(TEMPERATURE)

    def loss(images: Tensor, texts: Tensor) -> Tensor:
        return blockwise_contrastive_loss(images, texts, temperature(0.0))

    def step(pairs: int) -> None:
        parts = Parts(pairs, size)
        if len(parts) == 1:
            loss(*model(*parts[0])).backward()
        else:
            gradient_cached_step(lambda part: model(*part), parts, loss)

    step(16)
    return costs(lambda: step(pairs))


@contextlib.contextmanager
def own_process():
    """A function that calls another in one process, which has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function, *given: pool.submit(function, *given, torch.get_num_threads()).result()


def measure_size(pairs: int, dim: int, rounds: int) -> dict:
    """Time and memory of all at one size."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in RIVALS}
    with contextlib.ExitStack() as processes:
        call = {name: processes.enter_context(own_process()) for name in RIVALS}
        for turn in range(rounds):
            for name in sorted(RIVALS, reverse=turn % 2 == 1):  # who comes first finds the processor another way
                turns[name].append(call[name](costs_of_loss, name, pairs, dim))
    seconds = {name: [turn["seconds"] for turn in of_rival] for name, of_rival in turns.items()}
    memory = {name: of_rival[0]["memory_mb"] for name, of_rival in turns.items()}
    return {
        "pairs": pairs,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio_of_time_to": {
            name: statistics.median(a / b for a, b in zip(seconds["blockwise"], values, strict=True))
            for name, values in seconds.items()
            if name != "blockwise"
        },
        "memory_mb": memory,
        "ratio_of_memory_to": {"open_clip": memory["blockwise"] / max(memory["open_clip"], 1e-9)},
        "rounds": seconds,
    }


def largest_errors(pairs: int, dim: int) -> dict[str, float]:
    """Of each loss, against float64."""
    images, texts = features(pairs, dim)
    exact = RIVALS["blockwise"](images.double(), texts.double())
    return {
        name: max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(RIVALS[name](images, texts), exact, strict=True)
        )
        for name in ("blockwise", "open_clip")
    }


def table(report: dict) -> str:
    """The report in Markdown."""
    errors = report["largest_error"]
    lines = [
        f"The loss of so many pairs of {report['dim']} dimensions at temperature {TEMPERATURE}, with all gradients: "
        "seconds, and the memory beyond the features, each in a process of its own, by turns; "
        f"{report['cores']} cores, {report['threads']} threads, torch {report['torch']}, open_clip "
        f"{report['open_clip']}. Largest error at {errors['pairs']:,} pairs: blockwise {errors['blockwise']:.1e}, "
        f"open_clip {errors['open_clip']:.1e}.",
        "",
        "| pairs | loss | seconds | blockwise / it | memory | blockwise / it |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in report["results"]:
        for name, seconds in row["seconds"].items():
            time_ratio, memory_ratio = (
                f"{row[ratio][name]:.3f}" if name in row[ratio] else ""
                for ratio in ("ratio_of_time_to", "ratio_of_memory_to")
            )
            memory = f"{row['memory_mb'][name]:,.0f} MB"
            lines.append(f"| {row['pairs']:,} | {name} | {seconds:.2f} | {time_ratio} | {memory} | {memory_ratio} |")
    for row in report["alone"]:
        lines.append(f"| {row['pairs']:,} | blockwise | {row['seconds']:.2f} | | {row['memory_mb']:,.0f} MB | |")
    lines += [
        "",
        "A step of the dual encoder of the scenes, 64 pixels, without its optimizer: the memory beyond the model.",
        "",
        "| pairs | in parts of | seconds | memory |",
        "|---:|---:|---:|---:|",
    ]
    for row in report["steps"]:
        part = f"{row['part']:,}" if row["part"] < row["pairs"] else "one graph"
        lines.append(f"| {row['pairs']:,} | {part} | {row['seconds']:.2f} | {row['memory_mb']:,.0f} MB |")
    return "\n".join(lines) + "\n"


def run(out: Path, rounds: dict[int, int], alone: Sequence[int], steps: Sequence[tuple[int, int]], dim: int) -> None:
    """Measure, print and write.

    Raises:
        InputError: for sizes of which nothing can be measured.
    """
    import open_clip

    if min(*rounds, *(pairs for pairs, _ in steps), dim + 1, *(n + 1 for n in rounds.values())) < 2:
        raise InputError("--pairs and --step must be 2 or more, --dim and --rounds 1 or more")
    report = {
        "dim": dim,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "results": [measure_size(pairs, dim, n) for pairs, n in rounds.items()],
        "alone": [],
        "steps": [],
        "largest_error": {"pairs": min(rounds), **largest_errors(min(rounds), dim)},
    }
    for pairs in alone:
        with own_process() as call:
            report["alone"].append({"pairs": pairs, **call(costs_of_loss, "blockwise", pairs, dim)})
    for pairs, part in steps:
        with own_process() as call:
            report["steps"].append({"pairs": pairs, "part": part, **call(costs_of_step, pairs, part)})
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
        help="default 4096, 8192 and 16384, and without rivals 32768",
    )
    parser.add_argument("--dim", type=int, default=512, metavar="N", help="default 512")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 3, and 2 of 16384 pairs")
    parser.add_argument(
        "--step", type=int, nargs=2, action="append", metavar=("PAIRS", "PART"), help="a step of the dual encoder"
    )
    options = parser.parse_args(arguments)

    def command() -> None:
        torch.set_num_threads(min(2, torch.get_num_threads()))
        sizes, alone = (options.pairs, ()) if options.pairs else (ROUNDS, ALONE)
        rounds = {pairs: ROUNDS.get(pairs, 3) if options.rounds is None else options.rounds for pairs in sizes}
        run(options.out, rounds, alone, options.step or STEPS, options.dim)

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
