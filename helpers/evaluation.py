"""Retrieval metrics: how often a text finds its image, and an image one of its texts.

``python -m helpers.evaluation --checkpoint RUN --data DIR --split test`` prints a table and, last, one JSON object.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.annotations import Record
from helpers.checkpoints import find_checkpoint, load_checkpoint, restore_model
from helpers.command_line import CommandLine, InputError
from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.layouts import open_pairs
from helpers.scenes import Scene, ceiling, fit_matrix, truth_of, truth_oracle
from helpers.text import WordTokenizer, split_words

BATCH = 256
DIRECTIONS = ("image_to_text", "text_to_image")


def percent(hits: Tensor) -> float:
    """The share of True in a tensor of bool."""
    return 100 * hits.double().mean().item()


@torch.no_grad()
def encode_images(model: DualEncoder, dataset: ImageTextDataset) -> Tensor:
    """L2-normalised image features ``[images, dim]`` of a dataset, in its order."""
    model.eval()
    batches = [range(start, min(start + BATCH, len(dataset))) for start in range(0, len(dataset), BATCH)]
    features = [model.image_encoder(dataset.__getitems__(batch).images) for batch in batches]
    return F.normalize(torch.cat(features), dim=1)


@torch.no_grad()
def encode_texts(model: DualEncoder, tokenizer: WordTokenizer, texts: Sequence[str]) -> Tensor:
    """L2-normalised text features ``[texts, dim]``."""
    model.eval()
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    return F.normalize(torch.cat([model.text_encoder(*tokenizer(batch)) for batch in batches]), dim=1)


def retrieval_ranks(similarity: Tensor, image_of_caption: Tensor) -> dict[str, Tensor]:
    """The rank of the right answer to each query, 1 being first.

    Image to text, any caption of the image is right, and the best placed of them counts. A wrong answer that scores the
    same as the right one counts as ranked before it: a model that gives everything the same score gets nothing right.

    Args:
        similarity: ``[images, captions]``.
        image_of_caption: int64 ``[captions]``, the row of each caption's image; every image needs a caption.

    Returns:
        ``{"image_to_text": [images], "text_to_image": [captions]}``, int64.

    Raises:
        ValueError: if the shapes do not fit, a similarity is NaN, or an image has no caption.
    """
    if similarity.ndim != 2 or image_of_caption.shape != similarity.shape[1:]:
        raise ValueError(
            f"similarity must be [images, captions] and image_of_caption [captions], "
            f"not {list(similarity.shape)} and {list(image_of_caption.shape)}"
        )
    if similarity.isnan().any():
        raise ValueError("similarity holds NaN, which has no rank")
    own = image_of_caption == torch.arange(len(similarity))[:, None]  # [images, captions]
    if not own.any(1).all():
        raise ValueError(f"image {int((~own.any(1)).nonzero()[0])} has no caption, so it has no right answer")
    of_own_image = similarity.gather(0, image_of_caption[None])  # [1, captions]
    best_own_caption = similarity.masked_fill(~own, -torch.inf).amax(1, keepdim=True)  # [images, 1]
    return {
        "image_to_text": 1 + ((similarity >= best_own_caption) & ~own).sum(1),
        "text_to_image": 1 + ((similarity >= of_own_image) & ~own).sum(0),
    }


def retrieval_metrics(similarity: Tensor, image_of_caption: Tensor) -> dict[str, dict[str, float]]:
    """R@1, R@5, R@10 in percent, the median rank, and what chance gives for R@1, both ways.

    Args, raises: as :func:`retrieval_ranks`.
    """
    ranks = retrieval_ranks(similarity, image_of_caption)
    images = len(similarity)
    # Of a random order the first caption is right with the share of captions that are the image's own: on average
    # one image's share, as it is the other way round.
    return {
        direction: {
            **{f"R@{k}": percent(rank <= k) for k in (1, 5, 10)},
            "median_rank": rank.double().quantile(0.5).item(),
            "chance": 100 / images,
        }
        for direction, rank in ranks.items()
    }


def scores(
    model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset, captions: Sequence[Sequence[str]]
) -> tuple[Tensor, Tensor]:
    """Cosine similarities ``[images, captions]`` of a dataset to all these captions, and the image row of each."""
    texts, image_of_caption = captions_by_image(captions)
    return encode_images(model, dataset) @ encode_texts(model, tokenizer, texts).T, image_of_caption


def evaluate(
    model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset, captions: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics` of a model over the images of a dataset and all their captions."""
    return retrieval_metrics(*scores(model, tokenizer, dataset, captions))


def metrics_with_truth(
    similarity: Tensor, scenes: Sequence[Scene], captions: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics`, and what can be told where the truth is known, all in percent.

    - ``fits``: how often the answer ranked first is true, be it the query's own or not.
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


def evaluate_split(checkpoint: dict, root: Path, split: str) -> dict:
    """All metrics of a checkpoint on a split; for scenes those of :func:`evaluate_scenes`.

    For other sources ``known_words`` has R@1 of the captions without a word unknown to the model, and their share.

    Raises:
        InputError: if the split cannot be read, or has captions that are wrong on purpose.
    """
    model, tokenizer = restore_model(checkpoint)
    sizes = checkpoint["settings"]["image_size"]
    size = sizes if isinstance(sizes, int) else max(sizes)

    def similarity_of(records: Sequence[Record]) -> Tensor:
        dataset = ImageTextDataset([record.path for record in records], texts(records), size)
        return scores(model, tokenizer, dataset, dataset.captions)[0]

    pairs = open_pairs(root)
    records = pairs.records(split)
    similarity = similarity_of(records)
    truth = truth_of(records)
    if truth is not None:
        result = evaluate_scenes(similarity, records, *truth)
        if "minimal" in pairs.splits:
            minimal = pairs.records("minimal")
            result["minimal_pairs"] = minimal_pairs_by_kind(similarity_of(minimal), minimal)
        return result
    flat, image_of_caption = captions_by_image(texts(records))
    result = retrieval_metrics(similarity, image_of_caption)
    known = torch.tensor([all(word in tokenizer.id_of for word in split_words(text)) for text in flat])
    if 0 < known.sum() < len(known):
        found = retrieval_ranks(similarity, image_of_caption)["text_to_image"][known] == 1
        result["known_words"] = {"text_to_image": percent(found), "share": percent(known)}
    return result


def evaluate_scenes(
    similarity: Tensor, records: Sequence[Record], scenes: Sequence[Scene], levels: Sequence[Sequence[str]]
) -> dict:
    """The metrics of scenes: :func:`metrics_with_truth` of all captions, and of parts of them.

    ``exact`` is over captions of level exact. ``held_out`` is R@1 of those exact captions, and of those images, that
    have a colour and shape which training never saw together.

    Raises:
        InputError: if some captions are wrong on purpose.
    """
    if any(annotation.get("wrong") for record in records for annotation in record.annotations):
        raise InputError("some captions of this split are wrong on purpose; measure on val or test")
    result = metrics_with_truth(similarity, scenes, texts(records))
    exact = [column for column, level in enumerate(itertools.chain(*levels)) if level == "exact"]
    flat, image_of_caption = captions_by_image(texts(records))
    if image_of_caption[exact].tolist() != list(range(len(scenes))):  # not one exact caption for each scene
        return result
    result["exact"] = metrics_with_truth(similarity[:, exact], scenes, [[flat[column]] for column in exact])
    new = torch.tensor([record.image.get("held_out", False) for record in records])
    if new.any():
        ranks = retrieval_ranks(similarity[:, exact], image_of_caption[exact])
        result["held_out"] = {name: percent(rank[new] == 1) for name, rank in ranks.items()} | {
            "images": int(new.sum())
        }
    return result


def minimal_pairs_by_kind(similarity: Tensor, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """:func:`minimal_pair_accuracy` of the pairs of each kind."""
    kinds = [record.image["kind"] for record in records]
    rows = {kind: [row for row, its_kind in enumerate(kinds) if its_kind == kind] for kind in sorted(set(kinds))}
    return {kind: minimal_pair_accuracy(similarity[of_kind][:, of_kind]) for kind, of_kind in rows.items()}


def table(result: dict) -> str:
    """The metrics as lines of text; the median is that of the ranks, chance and ceiling belong to R@1."""
    names = ("R@1", "R@5", "R@10", "median_rank", "chance", "truth_oracle", "ceiling", "fits")
    rows = [("R@1", "R@5", "R@10", "median", "chance", "oracle", "ceiling", "fits")]
    labels = [""]
    for name, metrics in (("all captions", result), ("exact captions", result.get("exact", {}))):
        for direction in DIRECTIONS:
            if direction in metrics:
                labels.append(f"{direction.replace('_', ' ')}, {name}")
                rows.append(
                    tuple(f"{metrics[direction][key]:.1f}" if key in metrics[direction] else "-" for key in names)
                )
    lines = [f"{label:<30}" + "".join(f"{cell:>8}" for cell in row) for label, row in zip(labels, rows, strict=True)]

    def both(values: dict[str, float]) -> str:
        return ", ".join(f"{direction.replace('_', ' ')} {values[direction]:.1f}" for direction in DIRECTIONS)

    if "known_words" in result:
        known = result["known_words"]
        share = f"{known['share']:.1f} % of captions have known words only"
        lines.append(f"{share}, R@1 of these: text to image {known['text_to_image']:.1f}")
    if "held_out" in result:
        held_out = result["held_out"]
        lines.append(f"{held_out['images']} images with a colour and shape new together, R@1, exact: {both(held_out)}")
    for kind, accuracy in result.get("minimal_pairs", {}).items():
        lines.append(f"{accuracy['pairs']} minimal pairs, {kind} exchanged, right one of two: {both(accuracy)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.evaluation", description="Measure retrieval with a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder, or a .pt file")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pairs, in any layout the course knows")
    parser.add_argument("--split", default="test", help="which split to measure on (default test)")
    options = parser.parse_args(arguments)

    def command() -> None:
        checkpoint = load_checkpoint(find_checkpoint(options.checkpoint))
        result = evaluate_split(checkpoint, options.data, options.split)
        print(table(result))
        print(json.dumps(result))

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
