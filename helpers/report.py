"""The report of a trained model: all its metrics on a split, as numbers and as a table; and search by words."""

import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.data import captions_by_image
from helpers.evaluation import (
    DIRECTIONS,
    encode_images,
    encode_texts,
    in_batch_accuracy,
    intervals,
    linear_probe,
    metrics_with_truth,
    minimal_pair_accuracy,
    percent,
    retrieval_metrics,
    retrieval_ranks,
)
from helpers.files import InputError
from helpers.pretrained import make_dataset
from helpers.runs import restore_model
from helpers.scenes import COLOURS, SHAPES, Scene, ceiling, truth_of
from helpers.sources import Record, open_pairs
from helpers.sources.coco import paths_and_captions
from helpers.text import split_words

PROBED = 2000  # training images that the linear probe learns from


def encode_records(checkpoint: dict, records: Sequence[Record]) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the images ``[images, dim]`` and of all captions ``[captions, dim]``, and each caption's image.

    They are L2-normalised, unless the model was trained on dot products.
    """
    (model, tokenizer), recipe = restore_model(checkpoint), checkpoint["recipe"]
    paths, captions = paths_and_captions(records)
    texts, image_of_caption = captions_by_image(captions)
    normalize = recipe.get("loss") != "dot_product"
    images = encode_images(model, make_dataset(paths, captions, recipe), normalize)
    return images, encode_texts(model, tokenizer, texts, normalize), image_of_caption


def evaluate_split(checkpoint: dict, data: Path, split: str) -> dict:
    """Compute all metrics of a checkpoint on a split, with 95 % ``intervals``; images have the largest training size.

    Scenes also have the ``ceiling``, the metrics of the captions of level ``exact`` alone, and minimal pairs.
    """
    pairs = open_pairs(data)
    records = pairs.records(split)
    if any(annotation.get("wrong") for record in records for annotation in record.annotations):
        raise InputError("some captions of this split are wrong on purpose; evaluate on val or test")
    image_features, text_features, image_of_caption = encode_records(checkpoint, records)
    similarity = image_features @ text_features.T  # [images, captions]
    if scenes := truth_of(records):
        columns = scored_columns(records)  # of the exact captions
        result = metrics_with_truth(similarity, scenes, paths_and_captions(records)[1])
        if len(columns) == len(scenes):  # minimal pairs have no exact captions
            ranks = retrieval_ranks(similarity[:, columns], image_of_caption[columns])
            result["exact"] = metrics_with_truth(similarity[:, columns], scenes, exact_captions(records))
            result["exact"]["intervals"] = intervals(ranks, image_of_caption[columns])
        if "minimal" in pairs.splits:
            result["minimal_pairs"] = minimal_pairs_by_kind(checkpoint, pairs.records("minimal"))
    else:
        result = retrieval_metrics(similarity, image_of_caption)
    result["intervals"] = intervals(retrieval_ranks(similarity, image_of_caption), image_of_caption)
    return result


def exact_captions(records: Sequence[Record]) -> list[list[str]]:
    return [[caption["caption"] for caption in r.annotations if caption["level"] == "exact"] for r in records]


def minimal_pairs_by_kind(checkpoint: dict, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """:func:`minimal_pair_accuracy` of the pairs of each kind."""
    images, texts, _ = encode_records(checkpoint, records)
    kinds = [record.image["kind"] for record in records]
    rows = {kind: [row for row, other in enumerate(kinds) if other == kind] for kind in sorted(set(kinds))}
    return {kind: minimal_pair_accuracy(images[own] @ texts[own].T) for kind, own in rows.items()}


def contents(scenes: Sequence[Scene]) -> Tensor:
    """Which colours and which shapes a scene has: bool ``[scenes, colours + shapes]``."""
    words = [{word for thing in scene for word in (thing.colour, thing.shape)} for scene in scenes]
    return torch.tensor([[word in own for word in (*COLOURS, *SHAPES)] for own in words])


def scored_columns(records: Sequence[Record]) -> Tensor:
    """The columns of the captions that count: a scene's exact one, an emoji's first name in each language."""
    columns: dict[tuple, int] = {}
    for column, caption in enumerate(itertools.chain(*(record.annotations for record in records))):
        if caption.get("level", "exact") == "exact" and caption.get("kind", "name") == "name":
            columns.setdefault((caption["image_id"], caption.get("language", column)), column)
    return torch.tensor(list(columns.values()))


def measure(checkpoint: dict, data: Path) -> dict[str, Any]:
    """Measure a trained model on the test split, in percent.

    ``R@1`` is the mean of both directions over the scored captions. ``hits`` has one hexadecimal digit per image: how
    many of its captions find it, plus ``captions`` (per image) if it finds one of them. The mean digit divided by
    ``2 * captions`` is R@1. The other measures are for exploring; scenes have more, and the ``ceiling`` of R@1.
    """
    pairs = open_pairs(data)
    records = pairs.records("test")
    images, texts, image_of_caption = encode_records(checkpoint, records)
    similarity, scored = images @ texts.T, scored_columns(records)
    ranks_of_all = retrieval_ranks(similarity, image_of_caption)
    ranks = retrieval_ranks(similarity[:, scored], image_of_caption[scored])
    measures: dict[str, Any] = {"R@1": statistics.mean(percent(ranks[way] == 1) for way in DIRECTIONS)}
    measures["chance"] = 100 / len(images)
    for name, own in (", all captions", ranks_of_all), ("", ranks):
        measures |= {f"{way.replace('_', ' ')}{name}": percent(own[way] == 1) for way in DIRECTIONS}
    captions = image_of_caption[scored].bincount()  # [images]
    if len(captions.unique()) == 1 and captions[0] <= 7:  # a digit is at most 2 * 7 = 14
        hits = torch.zeros_like(captions).index_add(0, image_of_caption[scored], (ranks["text_to_image"] == 1).long())
        digits = hits + captions * (ranks["image_to_text"] == 1)
        measures |= {"captions": int(captions[0]), "hits": "".join(f"{digit:x}" for digit in digits.tolist())}
    if scenes := truth_of(records):
        probed = pairs.records("train")[:PROBED]
        probed_labels, labels = contents(truth_of(probed)), contents(scenes)
        measures["ceiling"] = statistics.mean(ceiling(scenes, exact_captions(records)).values())
        measures["in-batch accuracy"] = in_batch_accuracy(images, texts.unflatten(0, (len(images), -1)))
        measures["linear probe"] = linear_probe(encode_records(checkpoint, probed)[0], probed_labels, images, labels)
        for kind, accuracy in minimal_pairs_by_kind(checkpoint, pairs.records("minimal")).items():
            measures[f"minimal pairs, {kind}"] = statistics.mean(accuracy[way] for way in DIRECTIONS)
    return measures


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def table(result: dict) -> str:
    """Format the result of :func:`evaluate_split` as text: all captions, the exact ones, then minimal pairs."""
    parts = {"all": result} | ({"exact": result["exact"]} if "exact" in result else {})
    names = list(result["image_to_text"])
    rows = [["", *(name.removesuffix("_rank") for name in names), "R@1, 95 %"]]
    for (part, metrics), direction in itertools.product(parts.items(), DIRECTIONS):
        cells = [f"{metrics[direction][name]:.1f}" for name in names]
        interval = "-".join(f"{bound:.1f}" for bound in metrics["intervals"][direction])
        rows.append([f"{direction.replace('_', ' ')}, {part}", *cells, interval])
    lines = aligned(rows)
    for kind, accuracy in result.get("minimal_pairs", {}).items():
        both = ", ".join(f"{direction.replace('_', ' ')} {accuracy[direction]:.1f}" for direction in DIRECTIONS)
        lines.append(f"{accuracy['pairs']} minimal pairs, {kind} exchanged, right one of two: {both}")
    return "\n".join(lines)


def search_images(checkpoint: dict, data: Path, split: str, query: str, top: int = 5) -> list[tuple[Path, float]]:
    """The ``top`` images of a split with the highest cosine similarity to a query, best first, each with its cosine.

    Words that the model does not know are named on stderr.
    """
    model, tokenizer = restore_model(checkpoint)
    if top < 1:
        raise InputError(f"--top must be 1 or more, not {top}")
    words = split_words(query)
    unknown = [word for word in words if word not in tokenizer.id_of]
    if unknown == words:
        raise InputError(f"the model knows no word of the query {query!r}; use words from its training captions")
    if unknown:
        print(f"words that the model does not know: {', '.join(unknown)}", file=sys.stderr)
    dataset = make_dataset(*open_pairs(data).captions(split), checkpoint["recipe"])
    cosines = encode_images(model, dataset) @ encode_texts(model, tokenizer, [query])[0]  # [images]
    best = cosines.argsort(descending=True, stable=True)[:top].tolist()
    return [(dataset.image_paths[row], cosines[row].item()) for row in best]
