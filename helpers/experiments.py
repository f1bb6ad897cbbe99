"""Experiments: recipes compared over paired seeds, with an interval and a verdict for each difference."""

import io
import json
import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from helpers.data import captions_by_image
from helpers.encoders import DualEncoder
from helpers.evaluation import CONFIDENCE, DIRECTIONS, linear_probe, metrics_in_folds, retrieval_metrics
from helpers.files import InputError, atomic_file, read_json
from helpers.report import encode_records, minimal_pairs_by_kind
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

    The two runs of a seed start from the same weights and see the same batches and captions, so what the seed does to
    both cancels. An interval needs two seeds or more.
    """
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

    Training loops often report this number on their own batches. A larger batch is harder; with all pairs in one batch
    it is R@1. Round k pairs image i with its caption i + k, so that every caption is used and the levels are mixed.

    Args:
        image_features: L2-normalised, ``[images, dim]``.
        text_features: L2-normalised, ``[images, captions per image, dim]``.
        batch_size: the most pairs in a batch; all batches are about equal. Chance is one over it.
    """
    images, captions = text_features.shape[:2]
    row = torch.arange(images)
    folds = math.ceil(images / batch_size)
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
    train_set, test_set, minimal_set = (pairs.records(split) for split in ("train", "test", "minimal"))
    scenes, levels = truth_of(test_set)
    _, image_of_caption = captions_by_image(paths_and_captions(test_set)[1])
    exact = [column for column, level in enumerate(chain(*levels)) if level == "exact"]
    images, texts = encode_records(model, tokenizer, test_set, image_size)  # [images, dim], [captions, dim]
    minimal_images, minimal_texts = encode_records(model, tokenizer, minimal_set, image_size)
    probed, _ = encode_records(model, tokenizer, train_set[:PROBED], image_size)
    measures = recalls(images @ texts.T, image_of_caption, "all captions")
    measures |= recalls(images @ texts[exact].T, torch.arange(len(exact)), "exact captions")
    measures |= minimal_pair_accuracies(minimal_images @ minimal_texts.T, minimal_set)
    measures["in-batch accuracy"] = in_batch_accuracy(images, texts.unflatten(0, (len(scenes), -1)))
    known = contents(truth_of(train_set[:PROBED])[0])
    measures["linear probe"] = linear_probe(probed, known, images, contents(scenes))
    return measures


def run_once(data: Path, out: Path, recipe: Recipe, cache: Path | None) -> dict[str, float]:
    """Train and measure one run, or continue it; if it is finished, read its measures."""
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
    measures = measure(*restore_model(load_checkpoint(last)), data, max(recipe.image_size))
    with atomic_file(finished) as file:
        file.write(json.dumps({"settings": settings, "measures": measures}).encode())
    return measures


def run_experiment(
    data: Path, arms: dict[str, Recipe], runs: Path, seeds: Sequence[int], jobs: int = 2, cache: Path | None = None
) -> dict[str, Any]:
    """Train every arm with every seed on scenes, and compare the arms with the first one by :func:`compare`.

    Each run is kept in ``runs/ARM/SEED``, so an experiment that was stopped continues where it was.

    Args:
        arms: recipes by name; their own seeds are replaced.
        jobs: how many runs are trained at the same time, each in a process with one thread.
    """
    if len(arms) < 2 or len(seeds) < 2:
        raise InputError(f"an experiment needs two arms and two seeds or more, not {len(arms)} and {len(seeds)}")
    pairs = open_pairs(data)
    if "minimal" not in pairs.splits or truth_of(pairs.records("test")) is None:
        raise InputError(f"{data} has no scenes with minimal pairs; `python -m helpers scenes` writes them")
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = {}
        for seed, (name, recipe) in product(seeds, arms.items()):
            out = runs / name.replace(" ", "_") / str(seed)
            futures[name, seed] = pool.submit(run_once, data, out, replace(recipe, seed=seed), cache)
        try:
            for future in tqdm(as_completed(futures.values()), total=len(futures), unit="run", disable=None):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, do not start the remaining runs
    compared = compare({name: [futures[name, seed].result() for seed in seeds] for name in arms})
    described = {name: {"recipe": asdict(recipe), "measures": compared[name]} for name, recipe in arms.items()}
    return {"data": data.name, "seeds": list(seeds), "arms": described}


def compare(measures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """For each arm and measure: the ``mean``, the values of the ``seeds``, and the ``difference`` to the first arm."""
    first = next(iter(measures))
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
    """Format the result of :func:`run_experiment` as a Markdown table with one row per arm."""
    measures = {arm: content["measures"] for arm, content in result["arms"].items()}
    names = next(iter(measures.values()))
    rows = [["arm", *names], ["---"] * (len(names) + 1)]
    rows += [[arm, *(cell(values[name]) for name in names)] for arm, values in measures.items()]
    explanation = (
        f"Percent on the test split of `{result['data']}`, {len(result['seeds'])} paired seeds. First row: means. "
        f"Other rows: mean differences to it with {CONFIDENCE:.0%} intervals (Student's t), in bold if zero is outside."
    )
    return "\n".join([explanation, "", *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def cell(value: dict[str, Any]) -> str:
    """Format a mean, or a difference with its interval."""
    if "difference" not in value:
        return f"{value['mean']:.1f}"
    mark = "" if value["difference"]["verdict"] == "undecided" else "**"
    return "{0}{mean:+.1f}{0} ({low:+.1f} to {high:+.1f})".format(mark, **value["difference"])
