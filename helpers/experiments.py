"""Experiments: recipes compared over paired seeds, with an interval and a verdict for each difference."""

import io
import json
import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from helpers.evaluation import CONFIDENCE, DIRECTIONS, linear_probe, percent, rank_of_best, retrieval_metrics
from helpers.files import InputError, atomic_file, read_json
from helpers.report import encode_records, minimal_pairs_by_kind
from helpers.runs import changed_settings, fingerprint, load_checkpoint, restore_model
from helpers.scenes import COLOURS, LEVELS, SHAPES, Scene, truth_of
from helpers.sources import open_pairs
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
    """``better``, ``worse``, or ``undecided`` if the interval contains zero, or has no width: two equal differences."""
    if interval["low"] == interval["high"]:
        return "undecided"
    if interval["low"] > 0:
        return "better"
    return "worse" if interval["high"] < 0 else "undecided"


def in_batch_accuracy(image_features: Tensor, text_features: Tensor, batch_size: int = IN_BATCH) -> float:
    """How often the diagonal has the highest score of its row and of its column within a batch, in percent.

    Training loops often report this number on their own batches. A larger batch is harder; with all pairs in one batch
    it is R@1. Round k pairs image i with its caption i + k, so that every caption is used and the levels are mixed.
    L2-normalised images are ``[images, dim]``, texts ``[images, captions per image, dim]``; batches are about equal.
    """
    images, captions = text_features.shape[:2]
    row = torch.arange(images)
    folds = math.ceil(images / batch_size)
    accuracies = []
    for shift in range(captions):
        texts = text_features[row, (row + shift) % captions]  # [images, dim]
        for x, y in zip(image_features.tensor_split(folds), texts.tensor_split(folds), strict=True):
            similarity, own = x @ y.T, torch.arange(len(x))  # [batch, batch], [batch]
            accuracies += [percent(rank_of_best(side, own, own) == 1) for side in (similarity, similarity.T)]
    return statistics.mean(accuracies)


def contents(scenes: Sequence[Scene]) -> Tensor:
    """Which colours and which shapes a scene has: bool ``[scenes, colours + shapes]``."""
    words = [{word for thing in scene for word in (thing.colour, thing.shape)} for scene in scenes]
    return torch.tensor([[word in own for word in (*COLOURS, *SHAPES)] for own in words])


def measure(checkpoint: dict, data: Path) -> dict[str, float]:
    """Measure a trained model on the test split of scenes and on their minimal pairs, in percent.

    The measures are R@1 in both directions over all captions and over the exact ones, the accuracy on minimal pairs,
    :func:`in_batch_accuracy`, and the linear probe. The last two and R@1 are all called "alignment accuracy" somewhere.
    """
    (model, tokenizer), recipe = restore_model(checkpoint), checkpoint["recipe"]
    pairs = open_pairs(data)
    train_set, test_set, minimal_set = pairs.records("train")[:PROBED], pairs.records("test"), pairs.records("minimal")
    images, texts = encode_records(model, tokenizer, test_set, recipe)  # [images, dim], [captions, dim]
    captions = texts.unflatten(0, (len(images), len(LEVELS)))  # [images, levels, dim]
    measures = {}
    for name, own in (("all", captions), ("exact", captions[:, [LEVELS.index("exact")]])):
        image_of_caption = torch.arange(len(images)).repeat_interleave(own.shape[1])
        metrics = retrieval_metrics(images @ own.flatten(0, 1).T, image_of_caption)
        measures |= {f"{way.replace('_', ' ')}, {name} captions": metrics[way]["R@1"] for way in DIRECTIONS}
    kinds = minimal_pairs_by_kind(*encode_records(model, tokenizer, minimal_set, recipe), minimal_set)
    both = {f"minimal pairs, {kind}": statistics.mean(own[way] for way in DIRECTIONS) for kind, own in kinds.items()}
    measures |= both | {"minimal pairs": statistics.mean(both.values())}
    measures["in-batch accuracy"] = in_batch_accuracy(images, captions)
    probed, _ = encode_records(model, tokenizer, train_set, recipe)
    known, asked = (contents(truth_of(records)[0]) for records in (train_set, test_set))
    measures["linear probe"] = linear_probe(probed, known, images, asked)
    return measures


def folder_of(arm: str) -> str:
    """The folder of an arm's runs; names that differ in spaces or capitals only would share one."""
    return arm.replace(" ", "_").casefold()


def run_once(data: Path, out: Path, recipe: Recipe, cache: Path | None, of_data: str) -> dict[str, float]:
    """Train and measure one run, or continue it; if it is finished, read its measures.

    ``of_data`` is a hash of the pairs: a run on other pairs in the same folder would not be comparable.
    """
    measures = finished_measures(out, recipe, of_data)
    if measures is not None:
        return measures
    last = out / "last.pt"
    with redirect_stdout(io.StringIO()):  # the lines of two runs would mix
        train(data, out, recipe, resume=last.is_file(), cache=cache)
    measures = measure(load_checkpoint(last), data)
    settings = {"data": of_data, "recipe": asdict(recipe)}
    with atomic_file(out / "measures.json") as file:
        file.write(json.dumps({"settings": settings, "measures": measures}).encode())
    return measures


def finished_measures(out: Path, recipe: Recipe, of_data: str) -> dict[str, float] | None:
    """The measures of a finished run; an ``InputError`` if it had another recipe or other pairs."""
    if not (out / "measures.json").is_file():
        return None
    stored = read_json(out / "measures.json")
    changed = changed_settings(stored["settings"]["recipe"], json.loads(json.dumps(asdict(recipe))))
    if stored["settings"]["data"] != of_data:
        changed.append("other images or captions")
    if changed:
        raise InputError(f"{out} was run with {', '.join(changed)}; remove it, or choose another folder of runs")
    return stored["measures"]


def run_experiment(
    data: Path, arms: dict[str, Recipe], runs: Path, seeds: Sequence[int], jobs: int = 2, cache: Path | None = None
) -> dict[str, Any]:
    """Train every arm with every seed on scenes, and compare the arms with the first one by :func:`compare`.

    Each run is kept in ``runs/ARM/SEED``, so an experiment that was stopped continues where it was. ``jobs`` runs are
    trained at the same time, each in a process with one thread. The recipes' own seeds are replaced.
    """
    if len(arms) < 2 or len(seeds) < 2:
        raise InputError(f"an experiment needs two arms and two seeds or more, not {len(arms)} and {len(seeds)}")
    pairs = open_pairs(data)
    if "minimal" not in pairs.splits or truth_of(pairs.records("test")) is None:
        raise InputError(f"{data} has no scenes with minimal pairs; `python -m helpers scenes` writes them")
    of_data = fingerprint(map(pairs.captions, pairs.splits))
    for seed, (name, recipe) in product(seeds, arms.items()):  # before the first training
        finished_measures(runs / folder_of(name) / str(seed), replace(recipe, seed=seed), of_data)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = {}
        for seed, (name, recipe) in product(seeds, arms.items()):
            out = runs / folder_of(name) / str(seed)
            futures[name, seed] = pool.submit(run_once, data, out, replace(recipe, seed=seed), cache, of_data)
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


def summary(result: dict[str, Any]) -> str:
    """Describe the result of :func:`run_experiment`: means of the first arm, mean differences to it of the others."""
    lines = [f"percent on test, {len(result['seeds'])} paired seeds, {CONFIDENCE:.0%} intervals by Student's t"]
    for arm, content in result["arms"].items():
        for name, value in content["measures"].items():
            text = "{mean:+.1f} ({low:+.1f} to {high:+.1f}), {verdict}" if "difference" in value else "{mean:.1f}"
            lines.append(f"{arm}, {name}: " + text.format(**value.get("difference", {"mean": value["mean"]})))
    return "\n".join(lines)
