"""The report of a trained model: all its metrics on a split, as numbers and as a table; and search by words."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.evaluation import (
    DIRECTIONS,
    encode_classes,
    encode_images,
    encode_texts,
    intervals,
    metrics_in_folds,
    metrics_with_truth,
    minimal_pair_accuracy,
    percent,
    rank_of_best,
    retrieval_metrics,
    retrieval_ranks,
)
from helpers.files import InputError, counted
from helpers.runs import restore_model
from helpers.scenes import COLOURS, SHAPES, Scene, Thing, truth_of, wordings
from helpers.sources import Record, open_pairs
from helpers.sources.coco import paths_and_captions
from helpers.text import WordTokenizer, split_words


def encode_records(
    model: DualEncoder, tokenizer: WordTokenizer, records: Sequence[Record], image_size: int
) -> tuple[Tensor, Tensor]:
    """Features of the images ``[images, dim]`` and of all their captions ``[captions, dim]``."""
    dataset = ImageTextDataset(*paths_and_captions(records), image_size)
    return encode_images(model, dataset), encode_texts(model, tokenizer, list(itertools.chain(*dataset.captions)))


def evaluate_split(checkpoint: dict, data: Path, split: str, folds: int | None = None) -> dict:
    """Compute all metrics of a checkpoint on a split, with 95 % ``intervals``.

    Images have the largest size of the training. Scenes also get the metrics of :func:`evaluate_scenes`, zero-shot
    accuracy and minimal pairs. With ``folds``, the result of :func:`metrics_in_folds` is added under that name.

    Raises:
        InputError: if the split cannot be read, has captions that are wrong on purpose, or too few images to fold.
    """
    model, tokenizer = restore_model(checkpoint)
    image_size = max(checkpoint["recipe"]["image_size"])
    pairs = open_pairs(data)
    records = pairs.records(split)
    if any(annotation.get("wrong") for record in records for annotation in record.annotations):
        raise InputError("some captions of this split are wrong on purpose; evaluate on val or test")
    image_features, text_features = encode_records(model, tokenizer, records, image_size)
    _, image_of_caption = captions_by_image(paths_and_captions(records)[1])
    similarity = image_features @ text_features.T  # [images, captions]
    truth = truth_of(records)
    if truth is None:
        result = retrieval_metrics(similarity, image_of_caption)
    else:
        result = evaluate_scenes(similarity, records, *truth)
        if classified := classify_single_things(model, tokenizer, image_features, truth[0]):
            result["zero_shot"] = classified
        if "minimal" in pairs.splits:
            minimal = pairs.records("minimal")
            minimal_images, minimal_texts = encode_records(model, tokenizer, minimal, image_size)
            result["minimal_pairs"] = minimal_pairs_by_kind(minimal_images @ minimal_texts.T, minimal)
    result["intervals"] = intervals(retrieval_ranks(similarity, image_of_caption), image_of_caption)
    if folds is not None:
        in_folds = metrics_in_folds(image_features, text_features, image_of_caption, folds)
        result["folds"] = in_folds | {"folds": folds}
    return result


def evaluate_scenes(
    similarity: Tensor, records: Sequence[Record], scenes: Sequence[Scene], levels: Sequence[Sequence[str]]
) -> dict:
    """:func:`metrics_with_truth` of all captions and, as ``exact``, of the captions of level exact, with intervals.

    ``held_out`` has the R@1 of exact captions for images with a pair of colour and shape that no training image has.
    """
    _, captions = paths_and_captions(records)
    texts, image_of_caption = captions_by_image(captions)
    result = metrics_with_truth(similarity, scenes, captions)
    exact = [column for column, level in enumerate(itertools.chain(*levels)) if level == "exact"]
    if len(exact) != len(scenes):  # minimal pairs have no exact captions
        return result
    ranks = retrieval_ranks(similarity[:, exact], image_of_caption[exact])
    result["exact"] = metrics_with_truth(similarity[:, exact], scenes, [[texts[column]] for column in exact])
    result["exact"]["intervals"] = intervals(ranks, image_of_caption[exact])
    new = torch.tensor([record.image.get("held_out", False) for record in records])  # [images]
    if new.any():
        result["held_out"] = {direction: percent(rank[new] == 1) for direction, rank in ranks.items()}
        result["held_out"]["images"] = int(new.sum())
    return result


def classify_single_things(
    model: DualEncoder, tokenizer: WordTokenizer, image_features: Tensor, scenes: Sequence[Scene]
) -> dict[str, float] | None:
    """Zero-shot accuracy, in percent, on the scenes of one thing; the classes are all pairs of colour and shape.

    The prompts of a class are its captions of level coloured. A tie of two classes counts as wrong. The result is None
    if no scene has one thing or the model does not know all colours and shapes.
    """
    single = [row for row, scene in enumerate(scenes) if len(scene) == 1]
    if not single or not {*COLOURS, *SHAPES} <= tokenizer.id_of.keys():
        return None
    classes = list(itertools.product(COLOURS, SHAPES))
    prompts = {f"{c} {s}": wordings((Thing(s, c, "small", "middle"),), "coloured")[0] for c, s in classes}
    labels = torch.tensor([classes.index((scenes[row][0].colour, scenes[row][0].shape)) for row in single])
    cosines = image_features[single] @ encode_classes(model, tokenizer, prompts).T  # [images, classes]
    right = rank_of_best(cosines, labels, torch.arange(len(classes))) == 1  # [images]
    return {"accuracy": percent(right), "chance": 100 / len(classes), "images": len(single)}


def minimal_pairs_by_kind(similarity: Tensor, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """:func:`minimal_pair_accuracy` of the pairs of each kind."""
    kinds = [record.image["kind"] for record in records]
    rows = {kind: [row for row, other in enumerate(kinds) if other == kind] for kind in sorted(set(kinds))}
    return {kind: minimal_pair_accuracy(similarity[own][:, own]) for kind, own in rows.items()}


TITLES = {"median_rank": "median", "mean_rank": "mean", "truth_oracle": "oracle", "R-precision": "R-prec"}


def table(result: dict) -> str:
    """Format the result of :func:`evaluate_split` as text: all captions, the exact ones, the folds, then remarks.

    Median and mean refer to the ranks; chance, ceiling, oracle and the 95 % interval refer to R@1.
    """
    parts = {"all": result}
    if "exact" in result:
        parts["exact"] = result["exact"]
    if "folds" in result:
        parts[f"{result['folds']['folds']} folds"] = result["folds"]
    names = list(result["image_to_text"])
    rows = [["", *(TITLES.get(name, name) for name in names), "R@1, 95 %"]]
    for (part, metrics), direction in itertools.product(parts.items(), DIRECTIONS):
        cells = [f"{metrics[direction][name]:.1f}" if name in metrics[direction] else "-" for name in names]
        bounds = metrics["intervals"][direction]["R@1"] if "intervals" in metrics else []
        rows.append([f"{direction.replace('_', ' ')}, {part}", *cells, "-".join(f"{bound:.1f}" for bound in bounds)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join(["  ".join(row) for row in aligned] + remarks(result))


def remarks(result: dict) -> list[str]:
    """The lines below the table."""

    def both(values: dict[str, float]) -> str:
        return ", ".join(f"{direction.replace('_', ' ')} {values[direction]:.1f}" for direction in DIRECTIONS)

    lines = []
    if "held_out" in result:
        count = counted(result["held_out"]["images"], "image")
        lines.append(f"{count} with a colour and shape that are new together, R@1, exact: {both(result['held_out'])}")
    for kind, accuracy in result.get("minimal_pairs", {}).items():
        lines.append(f"{accuracy['pairs']} minimal pairs, {kind} exchanged, right one of two: {both(accuracy)}")
    if "zero_shot" in result:
        accuracy = "accuracy of colour and shape: {accuracy:.1f}, chance {chance:.1f}".format(**result["zero_shot"])
        lines.append(f"{counted(result['zero_shot']['images'], 'image')} of one thing, zero-shot {accuracy}")
    return lines


def search_images(checkpoint: dict, data: Path, split: str, query: str, top: int = 5) -> list[tuple[Path, float]]:
    """The ``top`` images of a split with the highest cosine similarity to a query, best first, each with its cosine."""
    model, tokenizer = restore_model(checkpoint)
    if top < 1:
        raise InputError(f"ask for at least one image, not {top}")
    if not any(word in tokenizer.id_of for word in split_words(query)):
        raise InputError(f"the model knows no word of the query {query!r}; use words of its captions")
    dataset = ImageTextDataset(*open_pairs(data).captions(split), max(checkpoint["recipe"]["image_size"]))
    cosines = encode_images(model, dataset) @ encode_texts(model, tokenizer, [query])[0]  # [images]
    best = cosines.argsort(descending=True, stable=True)[:top].tolist()
    return [(dataset.image_paths[row], cosines[row].item()) for row in best]
