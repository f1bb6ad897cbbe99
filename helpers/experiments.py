"""Experiments: recipes compared over paired seeds, with an interval and a verdict for each difference."""

import io
import json
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import asdict, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.evaluation import (
    CONFIDENCE,
    DIRECTIONS,
    encode_images,
    encode_texts,
    linear_probe,
    metrics_in_folds,
    retrieval_metrics,
)
from helpers.files import InputError, atomic_file, read_json
from helpers.report import image_size_of, minimal_pairs_by_kind
from helpers.runs import load_checkpoint, restore_model
from helpers.scenes import COLOURS, SHAPES, Scene, truth_of
from helpers.sources import Record, open_pairs
from helpers.sources.coco import paths_and_captions
from helpers.text import WordTokenizer
from helpers.training import Recipe, train

IN_BATCH = 256  # pairs per batch for the in-batch accuracy
PROBED = 2000  # training images that the linear probe learns from


def difference(values: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """The mean of the paired differences and its 95 % interval by Student's t: ``mean``, ``low``, ``high``.

    The two values of a seed share first weights, batches and captions, so what the seed does to both cancels.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(f"an interval needs two or more pairs of values, got {len(values)} and {len(baseline)}")
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    mean, standard_error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * standard_error
    return {"mean": mean, "low": mean - half_width, "high": mean + half_width}


def verdict(interval: dict[str, float]) -> str:
    """``better``, ``worse``, or ``undecided`` if the interval contains zero."""
    if interval["low"] > 0:
        return "better"
    return "worse" if interval["high"] < 0 else "undecided"


def in_batch_accuracy(image_features: Tensor, text_features: Tensor, batch_size: int = IN_BATCH) -> float:
    """How often the diagonal has the highest score of its row and of its column within a batch, in percent.

    Training loops report this number on their own batches. A larger batch is harder; with all pairs in one batch it is
    R@1. Batch k takes caption i + k of image i, so that every caption is used and the levels are mixed.

    Args:
        image_features: L2-normalised, ``[images, dim]``.
        text_features: L2-normalised, ``[images, captions per image, dim]``.
        batch_size: about how many pairs a batch has; the batches are equal parts. Chance is one over it.
    """
    images, captions = text_features.shape[:2]
    row = torch.arange(images)
    folds = -(-images // batch_size)
    accuracies = []
    for shift in range(captions):
        texts = text_features[row, (row + shift) % captions]  # [images, dim]
        metrics = metrics_in_folds(image_features, texts, row, folds)
        accuracies += [metrics[direction]["R@1"] for direction in DIRECTIONS]
    return statistics.mean(accuracies)


def contents(scenes: Sequence[Scene]) -> Tensor:
    """Which colours and which shapes a scene has: bool ``[scenes, colours + shapes]``."""
    words = [{word for thing in scene for word in (thing.colour, thing.shape)} for scene in scenes]
    return torch.tensor([[word in own for word in (*COLOURS, *SHAPES)] for own in words])


def recalls(similarity: Tensor, image_of_caption: Tensor, name: str) -> dict[str, float]:
    """R@1 in both directions, by name."""
    metrics = retrieval_metrics(similarity, image_of_caption)
    return {f"{direction.replace('_', ' ')}, {name}": metrics[direction]["R@1"] for direction in DIRECTIONS}


def minimal_pair_accuracies(similarity: Tensor, records: Sequence[Record]) -> dict[str, float]:
    """The accuracy on each kind of minimal pairs, the mean of both directions, and the mean of the kinds, by name."""
    kinds = minimal_pairs_by_kind(similarity, records)
    accuracies = {kind: statistics.mean(values[way] for way in DIRECTIONS) for kind, values in kinds.items()}
    named = {f"minimal pairs, {kind}": accuracy for kind, accuracy in accuracies.items()}
    return named | {"minimal pairs": statistics.mean(accuracies.values())}


def measure(model: DualEncoder, tokenizer: WordTokenizer, data: Path, image_size: int) -> dict[str, float]:
    """Measure a trained model on the test split of scenes and on their minimal pairs, in percent.

    The measures are R@1 in both directions over all captions and over the exact ones, the accuracy on minimal pairs,
    :func:`in_batch_accuracy`, and the linear probe. The last two and R@1 are all called "alignment accuracy" somewhere.
    """
    pairs = open_pairs(data)
    records = {split: pairs.records(split) for split in ("train", "test", "minimal")}
    records["train"] = records["train"][:PROBED]
    datasets, images = {}, {}
    for split, own in records.items():
        datasets[split] = ImageTextDataset(*paths_and_captions(own), image_size)
        images[split] = encode_images(model, datasets[split])  # [images, dim]
    scenes, levels = truth_of(records["test"])
    captions, image_of_caption = captions_by_image(datasets["test"].captions)
    texts = encode_texts(model, tokenizer, captions)  # [captions, dim]
    exact = [column for column, level in enumerate(chain(*levels)) if level == "exact"]
    minimal = list(chain(*datasets["minimal"].captions))

    measures = recalls(images["test"] @ texts.T, image_of_caption, "all captions")
    measures |= recalls(images["test"] @ texts[exact].T, torch.arange(len(exact)), "exact captions")
    minimal_texts = encode_texts(model, tokenizer, minimal)  # [captions, dim]
    measures |= minimal_pair_accuracies(images["minimal"] @ minimal_texts.T, records["minimal"])
    measures["in-batch accuracy"] = in_batch_accuracy(images["test"], texts.unflatten(0, (len(scenes), -1)))
    known = contents(truth_of(records["train"])[0])
    measures["linear probe"] = linear_probe(images["train"], known, images["test"], contents(scenes))
    return measures


def run_once(data: Path, out: Path, recipe: Recipe, cache: Path | None) -> dict[str, float]:
    """Train and measure one run. A finished run is only read, and an unfinished one is resumed."""
    settings = json.loads(json.dumps({"data": data.name, "recipe": asdict(recipe)}))
    finished = out / "measures.json"
    if finished.is_file():
        stored = read_json(finished)
        if stored["settings"] != settings:
            raise InputError(f"{out} was run with {stored['settings']}, not {settings}; choose another folder of runs")
        return stored["measures"]
    last = out / "last.pt"
    with redirect_stdout(io.StringIO()):  # the lines of two runs would mix
        train(data, out, recipe, resume=last.is_file(), cache=cache)
    checkpoint = load_checkpoint(last)
    measures = measure(*restore_model(checkpoint), data, image_size_of(checkpoint))
    with atomic_file(finished) as file:
        file.write(json.dumps({"settings": settings, "measures": measures}).encode())
    return measures


def run_experiment(
    data: Path, arms: dict[str, Recipe], runs: Path, seeds: Sequence[int], jobs: int = 2, cache: Path | None = None
) -> dict[str, Any]:
    """Train every arm with every seed and compare the arms with the first one.

    Each run is kept in ``runs/ARM/SEED``, so an experiment that was stopped continues where it was.

    Args:
        data: scenes with their minimal pairs.
        arms: the recipes by name; their own seeds are replaced.
        jobs: runs at the same time, each in a process with one thread.

    Returns:
        ``data``, ``seeds``, and for each of the ``arms`` its ``recipe`` and its ``measures`` from :func:`compare`.
    """
    if len(arms) < 2 or len(seeds) < 2:
        raise InputError(f"an experiment needs two arms and two seeds or more, not {len(arms)} and {len(seeds)}")
    pairs = open_pairs(data)
    if "minimal" not in pairs.splits or truth_of(pairs.records("test")) is None:
        raise InputError(f"{data} has no scenes with minimal pairs; `python -m helpers scenes` writes them")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        futures = {}
        for seed in seeds:
            for name, recipe in arms.items():
                out = runs / name.replace(" ", "_") / str(seed)
                futures[name, seed] = pool.submit(run_once, data, out, replace(recipe, seed=seed), cache)
        try:
            for future in tqdm(as_completed(futures.values()), total=len(futures), unit="run", disable=None):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, the runs that have not begun
    compared = compare({name: [futures[name, seed].result() for seed in seeds] for name in arms})
    return {
        "data": data.name,
        "seeds": list(seeds),
        "arms": {name: {"recipe": changes(recipe), "measures": compared[name]} for name, recipe in arms.items()},
    }


def changes(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that differ from the default, without the seed."""
    default = {field.name: field.default for field in fields(recipe)}
    return {name: value for name, value in asdict(recipe).items() if name != "seed" and value != default[name]}


def compare(measures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """For each arm and measure: the ``mean``, the values of the ``seeds``, and the ``difference`` to the first arm."""
    first, *_ = measures
    result: dict[str, dict[str, Any]] = {arm: {} for arm in measures}
    for arm, runs in measures.items():
        for name in runs[0]:
            values = [run[name] for run in runs]
            result[arm][name] = {"mean": statistics.mean(values), "seeds": values}
            if arm != first:
                interval = difference(values, [run[name] for run in measures[first]])
                result[arm][name]["difference"] = interval | {"verdict": verdict(interval)}
    return result


def page(result: dict[str, Any]) -> str:
    """Format the result of :func:`run_experiment` as a Markdown table, one row per arm."""
    first, *_ = result["arms"]
    names = result["arms"][first]["measures"]
    rows = [["arm", "recipe", *names], ["---"] * (len(names) + 2)]
    for arm, content in result["arms"].items():
        recipe = ", ".join(f"{field}={value}" for field, value in content["recipe"].items())
        rows.append([arm, recipe, *(cell(content["measures"][name]) for name in names)])
    explanation = (
        f"Percent on the test split of `{result['data']}`, {len(result['seeds'])} paired seeds. Row `{first}`: means. "
        f"Other rows: mean differences to `{first}` with their {CONFIDENCE:.0%} intervals (Student's t), in bold where "
        "the interval does not contain zero."
    )
    return "\n".join([explanation, "", *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def cell(value: dict[str, Any]) -> str:
    """Format a mean, or a difference with its interval."""
    if "difference" not in value:
        return f"{value['mean']:.1f}"
    mark = "" if value["difference"]["verdict"] == "undecided" else "**"
    return "{0}{mean:+.1f}{0} ({low:+.1f} to {high:+.1f})".format(mark, **value["difference"])
