"""Retrieval metrics: how often a text finds its image, and an image one of its texts.

``python -m helpers.evaluation --checkpoint RUN --data DIR --split test`` prints a table and, last, one JSON object.
With ``--query "a red circle"`` it prints the images that fit best.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.cli import CommandLine
from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.files import InputError, counted
from helpers.runs import find_checkpoint, load_checkpoint, restore_model
from helpers.scenes.captions import wordings
from helpers.scenes.render import COLOURS, SHAPES, Scene, Thing, ceiling, fit_matrix, truth_of, truth_oracle

# What a model makes of images and texts belongs to this page too.
from helpers.search import ImageSearch, encode_classes, unknown_words
from helpers.search import encode_images as encode_images
from helpers.search import encode_texts as encode_texts
from helpers.search import zero_shot as zero_shot
from helpers.sources.coco import Record
from helpers.sources.folders import open_pairs
from helpers.text import WordTokenizer

BLOCK = 2**22  # similarities that are looked at together
DIRECTIONS = ("image_to_text", "text_to_image")
CONFIDENCE = 0.95


def percent(hits: Tensor) -> float:
    """The share of True in a tensor of bool; of shares, their mean."""
    return 100 * hits.double().mean().item()


class Cosines:
    """The matrix ``rows @ columns.T`` of L2-normalised features, of which only what is asked for is ever computed.

    Slices of its rows are tensors, as those of the whole matrix would be. 20,000 images beside 100,000 captions would
    fill 8 GB; block by block they need a hundredth of that.
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        """Args: rows: ``[rows, dim]``; columns: ``[columns, dim]``."""
        self.rows, self.columns = rows, columns
        self.shape = torch.Size([len(rows), len(columns)])
        self.ndim = 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> Tensor:
        return self.rows[rows] @ self.columns.T

    @property
    def T(self) -> "Cosines":  # noqa: N802, as torch calls it
        return Cosines(self.columns, self.rows)


def in_blocks(similarity: Tensor | Cosines) -> Iterator[tuple[slice, Tensor]]:
    """A matrix in blocks of whole rows, and where each lies; of ``BLOCK`` numbers at most, but of one row at least.

    The blocks are of one height, give or take a row: a single row left at the end would be multiplied by another
    routine than the others, whose rounding differs.

    Raises:
        ValueError: if a similarity is NaN.
    """
    rows, columns = similarity.shape
    blocks = -(-rows // max(1, BLOCK // columns))
    for number in range(blocks):
        place = slice(rows * number // blocks, rows * (number + 1) // blocks)
        block = similarity[place]
        if block.isnan().any():
            raise ValueError("similarity holds NaN, which has no rank")
        yield place, block


def ranks_of_rows(similarity: Tensor | Cosines, row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """For each row the rank of its best placed column of the same id, behind all others of the same score."""
    ranks = torch.empty(len(row_ids), dtype=torch.long)  # made first, so that it does not lie among what is freed
    for place, block in in_blocks(similarity):
        own = row_ids[place, None] == column_ids  # [rows, columns]
        best_own = block.masked_fill(~own, -torch.inf).amax(1, keepdim=True)  # [rows, 1]
        ranks[place] = 1 + ((block >= best_own) & ~own).sum(1)
    return ranks


def retrieval_ranks(similarity: Tensor | Cosines, image_of_caption: Tensor) -> dict[str, Tensor]:
    """The rank of the right answer to each query, 1 being first.

    Image to text, any caption of the image is right, and the best placed of them counts. A wrong answer that scores the
    same as the right one counts as ranked before it: a model that gives everything the same score gets nothing right.

    Args:
        similarity: ``[images, captions]``.
        image_of_caption: int64 ``[captions]``, the row of each caption's image; every image needs a caption.

    Returns:
        ``{"image_to_text": [images], "text_to_image": [captions]}``, int64.

    Raises:
        ValueError: if the shapes do not fit, a similarity is NaN, an image has no caption or a caption no image.
    """
    if similarity.ndim != 2 or image_of_caption.shape != similarity.shape[1:] or 0 in similarity.shape:
        raise ValueError(
            f"similarity must be [images, captions] and image_of_caption [captions], with at least one each, "
            f"not {list(similarity.shape)} and {list(image_of_caption.shape)}"
        )
    rows = torch.arange(len(similarity))
    if not torch.isin(image_of_caption, rows).all():
        wrong = image_of_caption[~torch.isin(image_of_caption, rows)][0]
        raise ValueError(f"image_of_caption names image {wrong}, and there are images 0 to {len(similarity) - 1}")
    without = rows[~torch.isin(rows, image_of_caption)]
    if len(without):
        raise ValueError(f"image {without[0]} has no caption, so it has no right answer")
    return {
        "image_to_text": ranks_of_rows(similarity, rows, image_of_caption),
        "text_to_image": ranks_of_rows(similarity.T, image_of_caption, rows),
    }


def summary(ranks: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics` of ranks that are there already."""
    # Of a random order the first caption is right with the share of captions that are the image's own: on average
    # one image's share, as it is the other way round.
    chance = 100 / len(ranks["image_to_text"])
    return {
        direction: {
            **{f"R@{k}": percent(rank <= k) for k in (1, 5, 10)},
            "median_rank": rank.double().quantile(0.5).item(),
            "mean_rank": rank.double().mean().item(),
            "chance": chance,
        }
        for direction, rank in ranks.items()
    }


def retrieval_metrics(similarity: Tensor | Cosines, image_of_caption: Tensor) -> dict[str, dict[str, float]]:
    """R@1, R@5, R@10 in percent, the median and the mean rank, and what chance gives for R@1, both ways.

    Args, raises: as :func:`retrieval_ranks`.
    """
    return summary(retrieval_ranks(similarity, image_of_caption))


def metrics_in_folds(
    image_features: Tensor, text_features: Tensor, image_of_caption: Tensor, folds: int
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics` within each of so many equal parts of the images, in their order; the mean of all.

    A part is an easier search than the whole. "COCO 1k" is the mean over five folds of the 5,000 test images, "COCO 5k"
    the whole (so Faghri et al., 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives"); a recall says
    little where it does not say which.

    Raises:
        InputError: for fewer than one fold, or more folds than images.
    """
    if not 1 <= folds <= len(image_features):
        raise InputError(f"there can be 1 to {len(image_features)} folds of {len(image_features)} images, not {folds}")
    of_folds = []
    for number in range(folds):
        first, end = (len(image_features) * edge // folds for edge in (number, number + 1))
        inside = (first <= image_of_caption) & (image_of_caption < end)
        part = Cosines(image_features[first:end], text_features[inside])
        of_folds.append(retrieval_metrics(part, image_of_caption[inside] - first))
    return {
        way: {name: sum(fold[way][name] for fold in of_folds) / folds for name in of_folds[0][way]}
        for way in DIRECTIONS
    }


def intervals(
    ranks: dict[str, Tensor], image_of_caption: Tensor, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """95 % intervals of R@1, R@5, R@10 and the mean rank, by the percentile bootstrap over images.

    Images are drawn anew, as many as there are, each with all of its captions: these are found or missed together, and
    captions drawn one by one would give intervals that are too narrow. What is searched stays as it is, so the interval
    says how far another set of queries might lead, not another gallery, nor another training.

    Args:
        ranks: as :func:`retrieval_ranks` gives them.
        image_of_caption: int64 ``[captions]``.
        draws: how often images are drawn.
        seed: fixes what is drawn.

    Returns:
        ``{"image_to_text": {"R@1": [low, high], ...}, "text_to_image": ...}``, in percent but for the mean rank.
    """
    images = len(ranks["image_to_text"])
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for direction, of_query in ((DIRECTIONS[0], torch.arange(images)), (DIRECTIONS[1], image_of_caption)):
        rank = ranks[direction].double()
        measures = {**{f"R@{k}": 100.0 * (rank <= k) for k in (1, 5, 10)}, "mean_rank": rank}
        values = torch.stack([*measures.values(), torch.ones_like(rank)], dim=1)  # [queries, measures + 1]
        sums = torch.zeros(images, values.shape[1], dtype=torch.double).index_add_(0, of_query, values)
        drawn = [sums[torch.randint(images, (images,), generator=generator)].sum(0) for _ in range(draws)]
        totals = torch.stack(drawn)  # [draws, measures + 1]; the last column counts the queries drawn
        outside = (1 - CONFIDENCE) / 2
        ends = (totals[:, :-1] / totals[:, -1:]).quantile(torch.tensor([outside, 1 - outside]).double(), dim=0)
        found[direction] = dict(zip(measures, ends.T.tolist(), strict=True))
    return found


def evaluate(
    model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset, captions: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics` of a model over the images of a dataset and all their captions."""
    texts, image_of_caption = captions_by_image(captions)
    similarity = Cosines(encode_images(model, dataset), encode_texts(model, tokenizer, texts))
    return retrieval_metrics(similarity, image_of_caption)


def precisions(similarity: Tensor | Cosines, relevant: Tensor) -> dict[str, float]:
    """R-precision and mAP@R in percent: how much of all that is right comes first, and in which order.

    A row has R right answers. R-precision is the share of right ones among the first R. mAP@R is the mean over the
    first R places of the precision up to that place where a right one stands there, and 0 where not (Musgrave et al.,
    2020, "A Metric Learning Reality Check"). Of equal scores wrong answers come first, as in
    :func:`retrieval_ranks`.

    Args:
        similarity: ``[queries, answers]``.
        relevant: bool, the same shape; every row needs a right answer.

    Raises:
        ValueError: if the shapes differ, a row has no right answer, or a similarity is NaN.
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {list(similarity.shape)} and relevant {list(relevant.shape)}, which differ")
    if not relevant.any(1).all():
        raise ValueError(f"row {int((~relevant.any(1)).nonzero()[0])} of relevant has no right answer")
    place = torch.arange(1, relevant.shape[1] + 1)
    found = []
    for rows, block in in_blocks(similarity):
        wrong_first = relevant[rows].byte().argsort(dim=1, stable=True)
        order = wrong_first.gather(1, block.gather(1, wrong_first).argsort(dim=1, descending=True, stable=True))
        count = relevant[rows].sum(1, keepdim=True)  # [rows, 1], R
        hits = relevant[rows].gather(1, order) & (place <= count)
        precision = hits.cumsum(1).double() / place  # [rows, places]
        found.append(torch.stack([hits.sum(1), (precision * hits).sum(1)]) / count.T)  # [2, rows]
    r_precision, average_precision = torch.cat(found, dim=1)
    return {"R-precision": percent(r_precision), "mAP@R": percent(average_precision)}


def metrics_with_truth(
    similarity: Tensor, scenes: Sequence[Scene], captions: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics`, and what can be told where the truth is known, all in percent.

    - ``fits``: how often the answer ranked first is true, be it the query's own or not.
    - ``R-precision``, ``mAP@R``: of :func:`precisions`, all that is true being right.
    - ``ceiling``: R@1 of the best model there can be.
    - ``truth_oracle``: R@1 of one that only knows what is true, which a trained model may pass.

    Args:
        similarity: ``[images, captions]``.
        scenes: one an image.
        captions: for each image its captions, all of them in the order of the columns.
    """
    texts, image_of_caption = captions_by_image(captions)
    metrics = retrieval_metrics(similarity, image_of_caption)
    fit = torch.from_numpy(fit_matrix(texts, scenes))  # [images, captions]
    first = {"image_to_text": fit.gather(1, similarity.argmax(1)[:, None])}  # [images, 1]
    first["text_to_image"] = fit.gather(0, similarity.argmax(0)[None])  # [1, captions]
    limits = {"ceiling": ceiling(scenes, captions), "truth_oracle": truth_oracle(fit.numpy(), image_of_caption)}
    metrics["image_to_text"] |= precisions(similarity, fit)
    metrics["text_to_image"] |= precisions(similarity.T, fit.T)
    for direction, values in metrics.items():
        values["fits"] = percent(first[direction])
        values |= {name: limit[direction] for name, limit in limits.items()}
    return metrics


def minimal_pair_accuracy(similarity: Tensor) -> dict[str, float]:
    """How often the right one of two is chosen, in percent: the caption of an image, and the image of a caption.

    Two that score the same are no choice, and count as wrong.

    Args:
        similarity: ``[2 * pairs, 2 * pairs]`` of images and captions; rows and columns 2k and 2k + 1 make a pair.

    Returns:
        ``{"image_to_text": ..., "text_to_image": ..., "chance": 50.0, "pairs": ...}``.
    """
    pairs = len(similarity) // 2
    blocks = similarity.view(pairs, 2, pairs, 2)[range(pairs), :, range(pairs), :]  # [pairs, image, caption]
    own = blocks.diagonal(dim1=1, dim2=2)  # [pairs, 2]
    other_caption, other_image = (blocks.flip(side).diagonal(dim1=1, dim2=2) for side in (2, 1))  # [pairs, 2] each
    return {
        "image_to_text": percent(own > other_caption),
        "text_to_image": percent(own > other_image),
        "chance": 50.0,
        "pairs": pairs,
    }


def texts(records: Sequence[Record]) -> list[list[str]]:
    """The captions of each record."""
    return [[annotation["caption"] for annotation in record.annotations] for record in records]


def image_size_of(checkpoint: dict) -> int:
    """The side, in pixels, of the images that a checkpoint is measured with: the largest it was trained with."""
    sizes = checkpoint["settings"]["image_size"]
    return sizes if isinstance(sizes, int) else max(sizes)


def evaluate_split(checkpoint: dict, root: Path, split: str, folds: int | None = None) -> dict:
    """All metrics of a checkpoint on a split, with their ``intervals``; for scenes those of :func:`evaluate_scenes`.

    For other sources ``known_words`` has R@1 of the captions without a word unknown to the model, and their share.
    With ``folds`` the means of :func:`metrics_in_folds` are there too, under that name.

    Raises:
        InputError: if the split cannot be read, has captions that are wrong on purpose, or too few images to fold.
    """
    model, tokenizer = restore_model(checkpoint)
    pairs = open_pairs(root)

    def features_of(records: Sequence[Record]) -> tuple[Tensor, Tensor]:
        paths = [record.path for record in records]
        dataset = ImageTextDataset(paths, texts(records), image_size_of(checkpoint))
        flat = list(itertools.chain(*dataset.captions))
        return encode_images(model, dataset), encode_texts(model, tokenizer, flat)

    records = pairs.records(split)
    if any(annotation.get("wrong") for record in records for annotation in record.annotations):
        raise InputError("some captions of this split are wrong on purpose; measure on val or test")
    flat, image_of_caption = captions_by_image(texts(records))
    image_features, text_features = features_of(records)
    # Before the rest, which takes longer: too many folds are an error.
    in_folds = None if folds is None else metrics_in_folds(image_features, text_features, image_of_caption, folds)
    truth = truth_of(records)
    if truth is not None:
        result = evaluate_scenes(image_features @ text_features.T, records, *truth)
        classified = classify_single_things(model, tokenizer, image_features, truth[0])
        result |= {} if classified is None else {"zero_shot": classified}
        if "minimal" in pairs.splits:
            minimal = pairs.records("minimal")
            images, captions = features_of(minimal)
            result["minimal_pairs"] = minimal_pairs_by_kind(images @ captions.T, minimal)
    else:
        ranks = retrieval_ranks(Cosines(image_features, text_features), image_of_caption)
        result = summary(ranks) | {"intervals": intervals(ranks, image_of_caption)}
        known = torch.tensor([not unknown_words(tokenizer, text) for text in flat])
        if 0 < known.sum() < len(known):
            found = percent(ranks["text_to_image"][known] == 1)
            result["known_words"] = {"text_to_image": found, "share": percent(known)}
    return result if in_folds is None else result | {"folds": {"folds": folds, **in_folds}}


def evaluate_scenes(
    similarity: Tensor, records: Sequence[Record], scenes: Sequence[Scene], levels: Sequence[Sequence[str]]
) -> dict:
    """The metrics of scenes: :func:`metrics_with_truth` of all captions, and of parts of them.

    ``exact`` is over captions of level exact. ``held_out`` is R@1 of those exact captions, and of those images, that
    have a colour and shape which training never saw together. ``intervals`` are those of :func:`intervals`.
    """
    flat, image_of_caption = captions_by_image(texts(records))
    result = metrics_with_truth(similarity, scenes, texts(records))
    result["intervals"] = intervals(retrieval_ranks(similarity, image_of_caption), image_of_caption)
    exact = [column for column, level in enumerate(itertools.chain(*levels)) if level == "exact"]
    if image_of_caption[exact].tolist() != list(range(len(scenes))):  # not one exact caption for each scene
        return result
    ranks = retrieval_ranks(similarity[:, exact], image_of_caption[exact])
    result["exact"] = metrics_with_truth(similarity[:, exact], scenes, [[flat[column]] for column in exact])
    result["exact"]["intervals"] = intervals(ranks, image_of_caption[exact])
    new = torch.tensor([record.image.get("held_out", False) for record in records])
    if new.any():
        result["held_out"] = {name: percent(rank[new] == 1) for name, rank in ranks.items()} | {
            "images": int(new.sum())
        }
    return result


def classify_single_things(
    model: DualEncoder, tokenizer: WordTokenizer, image_features: Tensor, scenes: Sequence[Scene]
) -> dict[str, float] | None:
    """Zero-shot accuracy, in percent, on the scenes of one thing: which colour and which shape, named in words alone.

    The prompts of a class are the ways in which captions say it: "a red circle", "there is a red circle", "a circle
    that is red". Two classes that score the same are no choice, and count as wrong.

    Args:
        image_features: ``[images, dim]``, of :func:`encode_images`.
        scenes: one an image.

    Returns:
        ``{"accuracy", "chance", "images"}``; None where no scene has one thing, or the model lacks a word for a class.
    """
    classes = [Thing(shape, colour, "small", "middle") for colour in COLOURS for shape in SHAPES]
    single = [row for row, scene in enumerate(scenes) if len(scene) == 1]
    if not single or not {*COLOURS, *SHAPES} <= tokenizer.id_of.keys():
        return None
    prompts = {f"{thing.colour} {thing.shape}": wordings((thing,), "coloured")[0] for thing in classes}
    names = list(prompts)
    labels = torch.tensor([names.index(f"{scenes[row][0].colour} {scenes[row][0].shape}") for row in single])
    cosines = image_features[single] @ encode_classes(model, tokenizer, prompts).T  # [images, classes]
    ranks = ranks_of_rows(cosines, labels, torch.arange(len(names)))
    return {"accuracy": percent(ranks == 1), "chance": 100 / len(names), "images": len(single)}


def minimal_pairs_by_kind(similarity: Tensor, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """:func:`minimal_pair_accuracy` of the pairs of each kind."""
    kinds = [record.image["kind"] for record in records]
    rows = {kind: [row for row, its_kind in enumerate(kinds) if its_kind == kind] for kind in sorted(set(kinds))}
    return {kind: minimal_pair_accuracy(similarity[of_kind][:, of_kind]) for kind, of_kind in rows.items()}


def linear_probe(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """What a linear classifier reads off frozen features: the share of labels that it tells rightly, in percent.

    The encoder is not trained further. The classifier is fitted by least squares, one output a label, and says yes
    above one half. Turning or stretching the features changes nothing, and there is no setting to tune.

    Args:
        features: ``[images, dim]``, to learn from; more images than ``dim``, or it learns them by heart.
        labels: bool, ``[images, labels]``.
        test_features, test_labels: of other images, to measure on.

    Raises:
        ValueError: if there is not one row of labels for each image.

    Source: Alain and Bengio, 2016, "Understanding intermediate layers using linear classifier probes"; Chen et al.,
    2020, "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), judge by such a probe.
    """
    if len(features) != len(labels) or len(test_features) != len(test_labels):
        sides = f"{len(features)} and {len(labels)}, {len(test_features)} and {len(test_labels)}"
        raise ValueError(f"each image needs its row of labels; the rows are {sides}")
    known, asked = (F.pad(x.double(), (0, 1), value=1.0) for x in (features, test_features))  # [images, dim + 1]
    weight = torch.linalg.lstsq(known, labels.double(), driver="gelsd").solution  # [dim + 1, labels]
    return percent((asked @ weight > 0.5) == test_labels)


COLUMNS = {  # of the table: what they are called there, and where the value stands
    "R@1": "R@1",
    "R@5": "R@5",
    "R@10": "R@10",
    "median": "median_rank",
    "mean": "mean_rank",
    "chance": "chance",
    "oracle": "truth_oracle",
    "ceiling": "ceiling",
    "fits": "fits",
    "R-prec": "R-precision",
    "mAP@R": "mAP@R",
}


def table(result: dict) -> str:
    """The metrics as lines of text: over all captions, the exact ones, and the mean of the folds.

    Median and mean are of the ranks; chance, oracle, ceiling and the 95 % interval belong to R@1.
    """
    parts = {"all": result, "exact": result.get("exact", {})}
    if "folds" in result:
        parts[f"{result['folds']['folds']} folds"] = result["folds"]
    lines = {
        f"{way.replace('_', ' ')}, {part}": (metrics[way], metrics.get("intervals", {}).get(way))
        for part, metrics in parts.items()
        for way in DIRECTIONS
        if way in metrics
    }
    columns = {title: name for title, name in COLUMNS.items() if any(name in values for values, _ in lines.values())}
    rows = [["", *columns, "R@1, 95 %"]]
    for label, (values, interval) in lines.items():
        cells = [f"{values[name]:.1f}" if name in values else "-" for name in columns.values()]
        rows.append([label, *cells, "-" if interval is None else "{:.1f}-{:.1f}".format(*interval["R@1"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join(["  ".join(row) for row in aligned] + list(remarks(result)))


def remarks(result: dict) -> Iterator[str]:
    """What stands below the table, a line each."""

    def both(values: dict[str, float]) -> str:
        return ", ".join(f"{direction.replace('_', ' ')} {values[direction]:.1f}" for direction in DIRECTIONS)

    if "known_words" in result:
        known = result["known_words"]
        share = f"{known['share']:.1f} % of captions have known words only"
        yield f"{share}, R@1 of these: text to image {known['text_to_image']:.1f}"
    if "held_out" in result:
        held_out = result["held_out"]
        yield f"{held_out['images']} images with a colour and shape new together, R@1, exact: {both(held_out)}"
    for kind, accuracy in result.get("minimal_pairs", {}).items():
        yield f"{accuracy['pairs']} minimal pairs, {kind} exchanged, right one of two: {both(accuracy)}"
    if "zero_shot" in result:
        found = result["zero_shot"]
        share = f"{found['accuracy']:.1f}, chance {found['chance']:.1f}"
        yield f"{counted(found['images'], 'image')} of one thing, its colour and shape by prompts: {share}"


def search_split(checkpoint: dict, root: Path, split: str, query: str, top: int, index: Path | None) -> dict:
    """The best images of a split for a query: ``query``, ``unknown_words``, ``found`` with ``path`` and ``score``.

    Raises:
        InputError: if the split cannot be read; and as :class:`helpers.search.ImageSearch` and its call.
    """
    dataset = ImageTextDataset(*open_pairs(root).captions(split), image_size_of(checkpoint))
    search = ImageSearch(checkpoint, dataset, index)
    found = [{"path": str(path), "score": score} for path, score in search(query, top)]
    return {"query": query, "unknown_words": unknown_words(search.tokenizer, query), "found": found}


def found_lines(result: dict) -> str:
    """What :func:`search_split` found as lines of text."""
    lines = [f"{image['score']:7.3f}  {image['path']}" for image in result["found"]]
    if result["unknown_words"]:
        lines.insert(0, f"not known to the model: {', '.join(result['unknown_words'])}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(
        prog="python -m helpers.evaluation", description="Measure retrieval with a trained model, or search with it."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder, or a .pt file")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pairs, in any layout the course knows")
    parser.add_argument("--split", default="test", help="which split to measure on, or to search (default test)")
    parser.add_argument("--folds", type=int, help="also the mean over so many parts of the images (COCO 1k: 5)")
    parser.add_argument("--json", action="store_true", help="print the JSON object and nothing else")
    parser.add_argument("--query", metavar="WORDS", help="in place of measuring, print the images that fit best")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="so many of them (default 5)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="keep the images' features there for later queries")
    options = parser.parse_args(arguments)

    def command() -> None:
        if options.query is None and options.index is not None:
            raise InputError("--index belongs to a search; say what to look for with --query")
        if options.query is not None and options.folds is not None:
            raise InputError("--folds belongs to measuring; leave it out with --query")
        checkpoint = load_checkpoint(find_checkpoint(options.checkpoint))
        if options.query is not None:
            result = search_split(checkpoint, options.data, options.split, options.query, options.top, options.index)
            print(json.dumps(result) if options.json else found_lines(result))
            return
        result = evaluate_split(checkpoint, options.data, options.split, options.folds)
        if not options.json:
            print(table(result))
        print(json.dumps(result))

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
