"""The report of a trained model: all its metrics on a split, as numbers and as a table; and search by words."""

import itertools
from collections.abc import Iterator, Sequence
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
    retrieval_ranks,
    summarize,
    unknown_words,
)
from helpers.files import InputError, counted
from helpers.runs import restore_model
from helpers.scenes import COLOURS, SHAPES, Scene, Thing, truth_of, wordings
from helpers.sources import Record, open_pairs
from helpers.sources.coco import paths_and_captions
from helpers.text import WordTokenizer, split_words


def image_size_of(checkpoint: dict) -> int:
    """The side, in pixels, of the images that a checkpoint is evaluated with: the largest it was trained with."""
    sizes = checkpoint["recipe"]["image_size"]
    return sizes if isinstance(sizes, int) else max(sizes)


def encode_records(
    model: DualEncoder, tokenizer: WordTokenizer, records: Sequence[Record], image_size: int
) -> tuple[Tensor, Tensor]:
    """Features of the images ``[images, dim]`` and of all their captions ``[captions, dim]``."""
    dataset = ImageTextDataset(*paths_and_captions(records), image_size)
    return encode_images(model, dataset), encode_texts(model, tokenizer, list(itertools.chain(*dataset.captions)))


def evaluate_split(checkpoint: dict, data: Path, split: str, folds: int | None = None) -> dict:
    """Compute all metrics of a checkpoint on a split, with 95 % ``intervals``; the last line of `evaluate` prints them.

    Scenes have the metrics of :func:`evaluate_scenes`, zero-shot accuracy and minimal pairs. For other
    sources, ``known_words`` has the R@1 and the share of the captions without unknown words. With ``folds``, the
    metrics of :func:`metrics_in_folds` are under that name.

    Raises:
        InputError: if the split cannot be read, has captions that are wrong on purpose, or too few images to fold.
    """
    model, tokenizer = restore_model(checkpoint)
    image_size = image_size_of(checkpoint)
    pairs = open_pairs(data)
    records = pairs.records(split)
    if any(annotation.get("wrong") for record in records for annotation in record.annotations):
        raise InputError("some captions of this split are wrong on purpose; evaluate on val or test")
    image_features, text_features = encode_records(model, tokenizer, records, image_size)
    texts, image_of_caption = captions_by_image(paths_and_captions(records)[1])
    in_folds = {}
    if folds is not None:
        in_folds["folds"] = {"folds": folds} | metrics_in_folds(image_features, text_features, image_of_caption, folds)
    similarity = image_features @ text_features.T  # [images, captions]
    truth = truth_of(records)
    if truth is None:
        ranks = retrieval_ranks(similarity, image_of_caption)
        result = summarize(ranks) | {"intervals": intervals(ranks, image_of_caption)}
        known = torch.tensor([not unknown_words(tokenizer, text) for text in texts])  # [captions]
        if 0 < known.sum() < len(known):
            recall = percent(ranks["text_to_image"][known] == 1)
            result["known_words"] = {"text_to_image": recall, "share": percent(known)}
        return result | in_folds
    result = evaluate_scenes(similarity, records, *truth)
    classified = classify_single_things(model, tokenizer, image_features, truth[0])
    if classified is not None:
        result["zero_shot"] = classified
    if "minimal" in pairs.splits:
        minimal = pairs.records("minimal")
        minimal_images, minimal_texts = encode_records(model, tokenizer, minimal, image_size)
        result["minimal_pairs"] = minimal_pairs_by_kind(minimal_images @ minimal_texts.T, minimal)
    return result | in_folds


def evaluate_scenes(
    similarity: Tensor, records: Sequence[Record], scenes: Sequence[Scene], levels: Sequence[Sequence[str]]
) -> dict:
    """:func:`metrics_with_truth` and :func:`intervals` of all captions, and of parts of them.

    ``exact`` has the same metrics over the captions of level exact. ``held_out`` has the R@1 of the exact captions and
    of the images with a (colour, shape) pair that is in no training image.
    """
    _, captions = paths_and_captions(records)
    texts, image_of_caption = captions_by_image(captions)
    result = metrics_with_truth(similarity, scenes, captions)
    result["intervals"] = intervals(retrieval_ranks(similarity, image_of_caption), image_of_caption)
    exact = [column for column, level in enumerate(itertools.chain(*levels)) if level == "exact"]
    if image_of_caption[exact].tolist() != list(range(len(scenes))):  # not exactly one exact caption per scene
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

    The prompts of a class are its captions of level coloured. A tie of two classes counts as wrong.

    Returns:
        ``{"accuracy", "chance", "images"}``, or None if no scene has one thing or the model lacks a word of a class.
    """
    single = [row for row, scene in enumerate(scenes) if len(scene) == 1]
    if not single or not {*COLOURS, *SHAPES} <= tokenizer.id_of.keys():
        return None
    things = [Thing(shape, colour, "small", "middle") for colour in COLOURS for shape in SHAPES]
    prompts = {f"{thing.colour} {thing.shape}": wordings((thing,), "coloured")[0] for thing in things}
    names = list(prompts)
    labels = torch.tensor([names.index(f"{scenes[row][0].colour} {scenes[row][0].shape}") for row in single])
    cosines = image_features[single] @ encode_classes(model, tokenizer, prompts).T  # [images, classes]
    ranks = rank_of_best(cosines, labels, torch.arange(len(names)))
    return {"accuracy": percent(ranks == 1), "chance": 100 / len(names), "images": len(single)}


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
    parts = {"all": result, "exact": result.get("exact", {})}
    if "folds" in result:
        parts[f"{result['folds']['folds']} folds"] = result["folds"]
    names = list(result["image_to_text"])
    rows = [["", *(TITLES.get(name, name) for name in names), "R@1, 95 %"]]
    for (part, metrics), direction in itertools.product(parts.items(), DIRECTIONS):
        if direction in metrics:
            values = metrics[direction]
            cells = [f"{values[name]:.1f}" if name in values else "-" for name in names]
            interval = "-"
            if "intervals" in metrics:
                interval = "{:.1f}-{:.1f}".format(*metrics["intervals"][direction]["R@1"])
            rows.append([f"{direction.replace('_', ' ')}, {part}", *cells, interval])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join(["  ".join(row) for row in aligned] + list(remarks(result)))


def remarks(result: dict) -> Iterator[str]:
    """The lines below the table."""

    def both(values: dict[str, float]) -> str:
        return ", ".join(f"{direction.replace('_', ' ')} {values[direction]:.1f}" for direction in DIRECTIONS)

    if "known_words" in result:
        known = result["known_words"]
        share = f"{known['share']:.1f} % of the captions have known words only"
        yield f"{share}; their R@1, text to image: {known['text_to_image']:.1f}"
    if "held_out" in result:
        count = counted(result["held_out"]["images"], "image")
        yield f"{count} with a colour and shape that are new together, R@1, exact: {both(result['held_out'])}"
    for kind, accuracy in result.get("minimal_pairs", {}).items():
        yield f"{accuracy['pairs']} minimal pairs, {kind} exchanged, right one of two: {both(accuracy)}"
    if "zero_shot" in result:
        count = counted(result["zero_shot"]["images"], "image")
        accuracy = "{accuracy:.1f}, chance {chance:.1f}".format(**result["zero_shot"])
        yield f"{count} of one thing, zero-shot accuracy of its colour and shape: {accuracy}"


def search_images(checkpoint: dict, data: Path, split: str, query: str, top: int = 5) -> list[tuple[Path, float]]:
    """The ``top`` images of a split with the highest cosine similarity to a query, best first, each with its cosine.

    Raises:
        InputError: if the split cannot be read, the model knows no word of the query, or ``top`` is below 1.
    """
    model, tokenizer = restore_model(checkpoint)
    if top < 1:
        raise InputError(f"ask for at least one image, not {top}")
    if set(split_words(query)) <= set(unknown_words(tokenizer, query)):
        raise InputError(f"the model knows no word of the query {query!r}; use words of its captions")
    dataset = ImageTextDataset(*open_pairs(data).captions(split), image_size_of(checkpoint))
    cosines = encode_images(model, dataset) @ encode_texts(model, tokenizer, [query])[0]  # [images]
    best = cosines.argsort(descending=True, stable=True)[:top].tolist()
    return [(dataset.image_paths[row], cosines[row].item()) for row in best]
