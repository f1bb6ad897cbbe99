"""Experiments: one training with one thing changed, over paired seeds, and whether the difference is more than chance.

``python -m helpers.experiments --data data/scenes --arms FILE --out data/results/NAME.json --runs runs/NAME``, where
the file has a line for each way to train: a name, a colon, and options of :mod:`helpers.training`, none for the first.
"""

import argparse
import io
import json
import multiprocessing
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.augmentation import parse_augmentation
from helpers.cli import CommandLine
from helpers.data import ImageTextDataset, captions_by_image, make_loader
from helpers.encoders import DualEncoder
from helpers.evaluation import (
    DIRECTIONS,
    encode_images,
    encode_texts,
    image_size_of,
    linear_probe,
    metrics_in_folds,
    minimal_pairs_by_kind,
    retrieval_metrics,
    texts,
)
from helpers.files import InputError, atomic_file
from helpers.regularizer_report import PART_SIMILARITIES, similarities_with_parts
from helpers.regularizers import parse_regularizers
from helpers.runs import load_checkpoint, restore_model
from helpers.scale.costs import kept_for_backward
from helpers.scenes.render import COLOURS, SHAPES, Scene, truth_of
from helpers.sources.coco import Record
from helpers.sources.folders import open_pairs
from helpers.temperature import parse_schedule
from helpers.text import WordTokenizer
from helpers.training import ARCHITECTURE, BatchLoss, add_recipe, make_optimizers, recipe_of, train

CONFIDENCE = 0.95
IN_BATCH = 256  # pairs that stand beside each other for the in-batch accuracy
PROBED = 2000  # training images that a linear probe learns from


class Arm(NamedTuple):
    """One way to train: a name, the options of ``helpers.training`` that say it, and what they mean to ``train``."""

    name: str
    options: str
    recipe: dict[str, Any]


def parse_arm(text: str) -> Arm:
    """An arm from ``NAME`` or ``NAME: OPTIONS``, such as ``token-wise: --regularizer token_wise:0.5``.

    Options that :mod:`helpers.training` does not know end the program, as they do there.

    Raises:
        InputError: if there is no name, or it cannot be that of a folder.
    """
    name, _, options = (part.strip() for part in text.partition(":"))
    if not name or not all(letter.isalnum() or letter in " -_.," for letter in name):
        raise InputError(
            f"an arm is NAME or NAME: OPTIONS, with letters, digits, spaces and - _ . , in its name: {text!r}"
        )
    parser = CommandLine(prog=f"python -m helpers.experiments: arm {name!r}")
    add_recipe(parser)
    try:
        recipe = recipe_of(parser.parse_args(shlex.split(options)))
        parse_regularizers(recipe["regularizers"])
        parse_schedule(recipe["temperature"])
        parse_augmentation(recipe["augment"])
    except ValueError as error:
        raise InputError(f"arm {name!r}: {error}") from None
    return Arm(name, options, recipe)


def costs(data: Path, arms: Sequence[Arm], cache: Path | None, rounds: int = 32) -> list[dict[str, float]]:
    """What an epoch of each arm costs, from ``rounds`` batches and steps of each, made by turns.

    Returns:
        For each arm ``time``, of an epoch over that of an epoch of the first arm, the mean of all rounds but the
        extreme ones, and ``memory``, of what a step keeps for its backward pass over what the first arm's keeps.
    """
    pairs = open_pairs(data)
    ways = []
    for arm in arms:
        weights, rates = parse_regularizers(arm.recipe["regularizers"])
        augment = parse_augmentation(arm.recipe["augment"])
        paths, captions = pairs.captions("train")
        together = min(arm.recipe["captions"], max(map(len, captions)))  # of an image in a step
        dataset = ImageTextDataset(paths, captions, arm.recipe["image_size"], 0, augment, together)
        dataset.use_cache(cache)
        tokenizer = WordTokenizer.build(chain(*dataset.captions))
        batches = endless(make_loader(dataset, tokenizer, arm.recipe["batch_size"], seed=0))
        torch.manual_seed(0)
        model = DualEncoder(len(tokenizer), tokenizer.max_length, **(ARCHITECTURE | rates)).train()
        loss_of = BatchLoss(model, parse_schedule("0.1"), weights)
        ways.append((loss_of, batches, make_optimizers(model, None)))
    found: list[list[tuple[float, int]]] = [[] for _ in arms]  # seconds a pair, and bytes kept
    numbers = range(len(arms))
    for turn in range(rounds):
        for number in numbers[:: 1 if turn % 2 == 0 else -1]:  # who comes first finds the processor another way
            loss_of, batches, optimizers = ways[number]
            started = time.perf_counter()
            batch = next(batches)
            with kept_for_backward() as kept:
                total, _ = loss_of(batch, 0.0)
            total.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            found[number].append(((time.perf_counter() - started) / len(batch["images"]), sum(kept.values())))

    def over_first(of_arm: list[tuple[float, int]], what: int) -> float:
        ratios = [own[what] / first[what] for own, first in zip(of_arm, found[0], strict=True)]
        return float(stats.trim_mean(ratios, 0.2))

    return [{"time": over_first(of_arm, 0), "memory": over_first(of_arm, 1)} for of_arm in found]


def endless(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """Its batches, again and again."""
    while True:
        yield from loader


def measure(
    model: DualEncoder, tokenizer: WordTokenizer, data: Path, image_size: int, parts: Sequence[str]
) -> dict[str, float]:
    """What a trained model gets right on the test split of scenes and on their minimal pairs, in percent.

    Three of these are called "alignment accuracy" here and there, and need not agree: the in-batch accuracy, R@1 over
    the whole split, and how well a linear classifier reads the truth off the image features.

    Args:
        parts: terms that compare parts or scales. Where there are any, the measures over exact captions and minimal
            pairs are there once more, with the similarity that the training asked for: that of the features plus that
            of the parts.

    Returns:
        R@1 both ways over exact captions and over all; the accuracy on each kind of minimal pairs, the mean of both
        directions, and the mean of the kinds; :func:`in_batch_accuracy`; and :func:`helpers.evaluation.linear_probe`.
    """
    pairs = open_pairs(data)
    records = {split: pairs.records(split) for split in ("train", "test", "minimal")}
    records["train"] = records["train"][:PROBED]
    datasets = {
        split: ImageTextDataset([record.path for record in of_split], texts(of_split), image_size)
        for split, of_split in records.items()
    }
    images = {split: encode_images(model, dataset) for split, dataset in datasets.items()}
    flat, owners = captions_by_image(datasets["test"].captions)
    text_features = encode_texts(model, tokenizer, flat)
    scenes, levels = truth_of(records["test"])
    exact = [column for column, level in enumerate(chain(*levels)) if level == "exact"]
    minimal, _ = captions_by_image(datasets["minimal"].captions)

    found = recalls(images["test"] @ text_features.T, owners, "all captions")
    found |= recalls(images["test"] @ text_features[exact].T, torch.arange(len(exact)), "exact captions")
    found |= on_minimal_pairs(images["minimal"] @ encode_texts(model, tokenizer, minimal).T, records["minimal"])
    found["in-batch accuracy"] = in_batch_accuracy(images["test"], text_features.unflatten(0, (len(scenes), -1)))
    known = {split: contents(truth_of(records[split])[0]) for split in ("train", "test")}
    found["linear probe"] = linear_probe(images["train"], known["train"], images["test"], known["test"])
    if parts:
        summed = similarities_with_parts(model, tokenizer, datasets["test"], [flat[i] for i in exact], parts)[1]
        found |= recalls(summed, torch.arange(len(exact)), "exact captions", ", with parts")
        summed = similarities_with_parts(model, tokenizer, datasets["minimal"], minimal, parts)[1]
        found |= on_minimal_pairs(summed, records["minimal"], ", with parts")
    return found


def in_batch_accuracy(image_features: Tensor, text_features: Tensor, batch_size: int = IN_BATCH) -> float:
    """How often the diagonal wins its row, and its column, within a batch of pairs: percent, the mean of both.

    What a training step could report, but on pairs that no step has used. The larger the batch, the harder it is: among
    all pairs at once it is R@1. Every caption has its turn: of image ``i`` it is number ``i`` at first, and then the
    next, so captions of all levels meet in a batch.

    Args:
        image_features: L2-normalised, ``[images, dim]``.
        text_features: L2-normalised, ``[images, captions of each, dim]``.
        batch_size: the images are parted into equal batches of about so many; chance is one over it.
    """
    images, captions = text_features.shape[:2]
    row = torch.arange(images)
    found = [
        metrics_in_folds(image_features, text_features[row, (row + turn) % captions], row, -(-images // batch_size))
        for turn in range(captions)
    ]
    return statistics.mean(metrics[way]["R@1"] for metrics in found for way in DIRECTIONS)


def recalls(similarity: Tensor, owners: Tensor, name: str, suffix: str = "") -> dict[str, float]:
    """R@1 of both directions, named."""
    metrics = retrieval_metrics(similarity, owners)
    return {f"{way.replace('_', ' ')}, {name}{suffix}": metrics[way]["R@1"] for way in DIRECTIONS}


def on_minimal_pairs(similarity: Tensor, records: Sequence[Record], suffix: str = "") -> dict[str, float]:
    """The accuracy on each kind of minimal pairs and the mean of the kinds, named."""
    kinds = minimal_pairs_by_kind(similarity, records)
    right = {f", {kind}": statistics.mean(values[way] for way in DIRECTIONS) for kind, values in kinds.items()}
    right[""] = statistics.mean(right.values())
    return {f"minimal pairs{kind}{suffix}": value for kind, value in right.items()}


def contents(scenes: Sequence[Scene]) -> Tensor:
    """Which colours and which shapes are there: bool ``[images, colours + shapes]``."""
    there = [{word for thing in scene for word in (thing.colour, thing.shape)} for scene in scenes]
    return torch.tensor([[word in words for word in (*COLOURS, *SHAPES)] for words in there])


def run_once(data: Path, runs: Path, arm: Arm, seed: int, epochs: float, cache: Path | None) -> dict[str, float]:
    """Train one arm with one seed and measure it, on one thread; a run that is done is only read.

    Raises:
        InputError: if the run that is done had other options, another length or other data.
    """
    torch.set_num_threads(1)
    out = runs / arm.name.replace(" ", "_") / str(seed)
    done, settings = out / "measures.json", {"data": data.name, "options": arm.options, "epochs": epochs}
    if done.is_file():
        before = json.loads(done.read_text())
        if before["settings"] != settings:
            raise InputError(
                f"{out} was run with {before['settings']}, not {settings}; choose another folder as --runs"
            )
        return before["measures"]
    last = out / "last.pt"
    with redirect_stdout(io.StringIO()):  # two trainings at once would talk at cross purposes
        train(data, out, epochs=epochs, seed=seed, resume=last.is_file(), cache=cache, **arm.recipe)
    checkpoint = load_checkpoint(last)
    model, tokenizer = restore_model(checkpoint)
    parts = [name for name in parse_regularizers(arm.recipe["regularizers"])[0] if name in PART_SIMILARITIES]
    measures = measure(model, tokenizer, data, image_size_of(checkpoint), parts)
    with atomic_file(done) as file:
        file.write(json.dumps({"settings": settings, "measures": measures}).encode())
    return measures


def difference(values: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """The mean of paired differences and its 95 % interval, by Student's t: ``mean``, ``low``, ``high``.

    Seed by seed both have the same first weights, batches and captions, so what the seed does to both cancels.

    Raises:
        ValueError: for unequal numbers of values, or fewer than two.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(f"give two values or more on each side, seed by seed; got {len(values)} and {len(baseline)}")
    pairs = [own - other for own, other in zip(values, baseline, strict=True)]
    mean = statistics.mean(pairs)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def verdict(interval: dict[str, float]) -> str:
    """``better``, ``worse``, or ``undecided`` where the interval holds zero."""
    return "better" if interval["low"] > 0 else "worse" if interval["high"] < 0 else "undecided"


def summary(arms: Sequence[Arm], measures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """For each arm and measure the mean over seeds, and :func:`difference` to the first arm with its :func:`verdict`.

    A measure ``with parts`` that the first arm does not have is compared with its measure of the features alone.
    """
    first = measures[arms[0].name]
    found: dict[str, dict[str, Any]] = {}
    for arm in arms:
        own = measures[arm.name]
        found[arm.name] = {}
        for name in own[0]:
            values = [of_seed[name] for of_seed in own]
            found[arm.name][name] = {"mean": statistics.mean(values), "seeds": values}
            if arm is not arms[0]:
                baseline = [of_seed[name.removesuffix(", with parts")] for of_seed in first]
                interval = difference(values, baseline)
                found[arm.name][name]["difference"] = interval | {"verdict": verdict(interval)}
    return found


def page(result: dict[str, Any]) -> str:
    """The result as a page of Markdown: costs, the means of the first arm, and the others' differences to it."""
    arms = result["arms"]
    first = next(iter(arms))
    names = list(dict.fromkeys(chain.from_iterable(arm["measures"] for arm in arms.values())))
    alone = [name for name in names if not name.endswith(", with parts")]
    with_parts = [name for name in names if name not in alone]
    facts = [fact for fact in ("options", "time", "memory", "epochs") if fact in arms[first]]
    lengths = "Every row has as many steps."
    if "time" in facts:
        lengths = (
            "Time is that of an epoch, memory what a step keeps for its backward pass, both over those of "
            f"`{first}`; each row has as many epochs as fit into the same time."
        )
    lines = [
        f"Percent on the test split of `{result['data']}`, {len(result['seeds'])} seeds. Row `{first}`: means. Other "
        f"rows: mean difference to `{first}`, seed by seed, with its {CONFIDENCE:.0%} interval (Student's t), in bold "
        f"where the interval does not hold zero. {lengths}",
        "",
        f"Made by `{result['command']}`",
        "",
        *table(arms, facts, alone),
    ]
    if with_parts:
        searched = {name: arm for name, arm in arms.items() if set(with_parts) & set(arm["measures"])}
        lines += ["", f"Searched with the features and the parts together, against the features of `{first}`:", ""]
        lines += table(searched, [], with_parts)
    return "\n".join(lines) + "\n"


def table(arms: dict[str, Any], facts: Sequence[str], measures: Sequence[str]) -> list[str]:
    """The lines of a Markdown table, a row an arm."""
    rows = [["arm", *facts, *(name.removesuffix(", with parts") for name in measures)]]
    rows.append(["---"] * len(rows[0]))
    for name, arm in arms.items():
        about = [
            f"`{arm[fact]}`" if fact == "options" and arm[fact] else f"{arm[fact]:.3g}" if arm[fact] else ""
            for fact in facts
        ]
        rows.append([name, *about, *(cell(arm["measures"][measure_name]) for measure_name in measures)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def cell(value: dict[str, Any]) -> str:
    """A mean, or a difference with its interval."""
    if "difference" not in value:
        return f"{value['mean']:.1f}"
    found = value["difference"]
    mean = f"{found['mean']:+.1f}" if found["verdict"] == "undecided" else f"**{found['mean']:+.1f}**"
    return f"{mean} ({found['low']:+.1f} to {found['high']:+.1f})"


def run_experiment(
    data: Path,
    runs: Path,
    arms: Sequence[Arm],
    epochs: float,
    seeds: Sequence[int],
    jobs: int,
    cache: Path | None,
    equal: str = "time",
) -> dict[str, Any]:
    """Train every arm with every seed, each arm for as long as the first one, and compare.

    An epoch of an arm may cost more than one of the first. For equal ``"time"`` it then gets fewer of them, by what
    :func:`costs` measured once and ``runs`` keeps, so that the result does not depend on what else the machine does
    meanwhile. For equal ``"steps"`` every arm gets as many epochs, whatever they cost. Runs that are done are not run
    again, and one that was stopped goes on.

    Returns:
        ``arms``: for each by its name ``options``, for equal time also ``time`` and ``memory``, then ``epochs`` and
        ``measures``, which are those of :func:`summary`; and beside them ``data``, ``seeds`` and ``equal``.
    """
    known: dict[str, Any] = {arm.name: {"options": arm.options} for arm in arms}
    if equal == "time":
        known = known_costs(data, runs, arms, cache)
    of_arm = {arm.name: max(0.1, round(epochs / known[arm.name].get("time", 1.0), 1)) for arm in arms}
    measures: dict[str, list] = {arm.name: [None] * len(seeds) for arm in arms}
    sizes = {str(arm.recipe["image_size"]): arm.recipe["image_size"] for arm in arms}
    for split, size in product(("train", "val"), sizes.values()):  # now, or else the first runs wait for one another
        ImageTextDataset(*open_pairs(data).captions(split), size).use_cache(cache)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn)
    try:
        waiting = {
            pool.submit(run_once, data, runs, arm, seed, of_arm[arm.name], cache): (arm.name, place)
            for place, seed in enumerate(seeds)
            for arm in arms
        }
        for run in tqdm(as_completed(waiting), total=len(waiting), unit="run", disable=None):
            name, place = waiting[run]
            measures[name][place] = run.result()
    except BaseException:  # a run failed or a signal came: those that run now would otherwise be waited for
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    found = summary(arms, measures)
    return {
        "data": data.name,
        "seeds": list(seeds),
        "equal": equal,
        "arms": {arm.name: known[arm.name] | {"epochs": of_arm[arm.name], "measures": found[arm.name]} for arm in arms},
    }


def known_costs(data: Path, runs: Path, arms: Sequence[Arm], cache: Path | None) -> dict[str, Any]:
    """:func:`costs` of each arm by its name, with its options; those that ``runs`` does not know are measured."""
    costs_file = runs / "costs.json"
    known = json.loads(costs_file.read_text()) if costs_file.is_file() else {}
    known[arms[0].name] = {"options": arms[0].options, "time": 1.0, "memory": 1.0}
    new = [arm for arm in arms if known.get(arm.name, {}).get("options") != arm.options]
    if new:
        print(f"measuring what an epoch costs: {', '.join(arm.name for arm in new)}")
        torch.set_num_threads(1)
        for arm, cost in zip(new, costs(data, [arms[0], *new], cache)[1:], strict=True):
            known[arm.name] = {"options": arm.options} | cost
        runs.mkdir(parents=True, exist_ok=True)
        costs_file.write_text(json.dumps(known))
    return known


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(
        prog="python -m helpers.experiments",
        description="Train in several ways on scenes, over paired seeds and for equal time or steps, and compare.",
    )
    parser.add_argument("--data", type=Path, required=True, help="scenes, with their minimal pairs")
    parser.add_argument(
        "--out", type=Path, required=True, help="the JSON file to write; a table goes beside it, in .md"
    )
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs; what is done there is kept")
    parser.add_argument(
        "--arms",
        type=Path,
        required=True,
        help="a text file: in each line NAME: OPTIONS, as of helpers.training; the others are compared with the first",
    )
    parser.add_argument("--epochs", type=float, default=5.0, help="of the first arm; the others take as long (5)")
    parser.add_argument(
        "--equal",
        choices=("time", "steps"),
        default="time",
        help="what all arms get as much of: time, so that dearer ones have fewer epochs, or steps (default time)",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each arm, 2 or more (5)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the seeds are N, N + 1, ... (0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at once, each on one thread (2)")
    parser.add_argument("--cache", type=Path, help="where decoded images are kept (default data/cache)")
    options = parser.parse_args(arguments)

    def command() -> None:
        arms = read_arms(options.arms)
        check_experiment(options)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        result = run_experiment(
            options.data, options.runs, arms, options.epochs, seeds, options.jobs, options.cache, options.equal
        )
        result["command"] = shlex.join(["python", "-m", "helpers.experiments", *(arguments or sys.argv[1:])])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(page(result))
        print(f"written: {options.out} and {options.out.with_suffix('.md')}")

    return parser.run(command)


def read_arms(path: Path) -> list[Arm]:
    """The arms of a file, a line each; empty lines are skipped.

    Raises:
        InputError: if the file cannot be read, holds fewer than two arms, or two of one name.
    """
    try:
        arms = [parse_arm(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read the arms in {path}: {error}") from None
    names = [arm.name for arm in arms]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"{path} needs two arms or more, each in a line and with a name of its own; it has {names}")
    return arms


def check_experiment(options: argparse.Namespace) -> None:
    """Raise ``InputError`` for what no experiment can be made of."""
    if options.seeds < 2:
        raise InputError(f"--seeds must be 2 or more, or there is no interval, not {options.seeds}")
    if not options.epochs > 0:
        raise InputError(f"--epochs must be above 0, not {options.epochs:g}")
    if options.jobs < 1:
        raise InputError(f"--jobs must be 1 or more, not {options.jobs}")
    pairs = open_pairs(options.data)
    if "minimal" not in pairs.splits or truth_of(pairs.records("test")) is None:
        raise InputError(f"{options.data} holds no scenes with minimal pairs; `make pairs` draws data/scenes")


if __name__ == "__main__":
    sys.exit(main())
