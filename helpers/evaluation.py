"""Retrieval metrics: how often a text finds its image, and an image one of its texts.

``python -m helpers.evaluation --checkpoint RUN --data DIR --split test`` prints a table and, last, one JSON object.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.annotations import read_captions
from helpers.checkpoints import find_checkpoint, load_checkpoint, restore_model
from helpers.command_line import CommandLine, InputError
from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.scenes import ceiling, read_truth
from helpers.text import WordTokenizer

BATCH = 256


@torch.no_grad()
def encode_images(model: DualEncoder, dataset: ImageTextDataset) -> Tensor:
    """L2-normalised image features ``[images, dim]`` of a dataset, in its order."""
    model.eval()
    batches = [range(start, min(start + BATCH, len(dataset))) for start in range(0, len(dataset), BATCH)]
    features = [
        model.image_encoder(torch.stack([item["image"] for item in dataset.__getitems__(batch)])) for batch in batches
    ]
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
            **{f"R@{k}": 100 * (rank <= k).double().mean().item() for k in (1, 5, 10)},
            "median_rank": rank.double().quantile(0.5).item(),
            "chance": 100 / images,
        }
        for direction, rank in ranks.items()
    }


def evaluate(
    model: DualEncoder, tokenizer: WordTokenizer, dataset: ImageTextDataset, captions: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """:func:`retrieval_metrics` of a model over the images of a dataset and all their captions."""
    texts, image_of_caption = captions_by_image(captions)
    similarity = encode_images(model, dataset) @ encode_texts(model, tokenizer, texts).T  # [images, captions]
    return retrieval_metrics(similarity, image_of_caption)


def evaluate_split(checkpoint: dict, root: Path, split: str) -> dict:
    """All metrics of a checkpoint on a split; where the truth is known, with ceilings and for exact captions too.

    Raises:
        InputError: if the split cannot be read.
    """
    model, tokenizer = restore_model(checkpoint)
    paths, captions = read_captions(root, split)
    dataset = ImageTextDataset(paths, captions, checkpoint["settings"]["image_size"])
    result = evaluate(model, tokenizer, dataset, captions)
    truth = read_truth(root, split)
    if truth is not None:
        scenes, levels = truth
        exact = [
            [caption for caption, level in zip(*of_image, strict=True) if level == "exact"]
            for of_image in zip(captions, levels, strict=True)
        ]
        if not all(exact):
            raise InputError(f"{root}: some scenes of split {split!r} have no exact caption; draw the scenes again")
        result["exact"] = evaluate(model, tokenizer, dataset, exact)
        for metrics, gallery in ((result, captions), (result["exact"], exact)):
            for direction, value in ceiling(scenes, gallery).items():
                metrics[direction]["ceiling"] = value
    return result


def table(result: dict) -> str:
    """The metrics as lines of text; the median is that of the ranks, chance and ceiling belong to R@1."""
    rows = [("", "R@1", "R@5", "R@10", "median", "chance", "ceiling")]
    for name, metrics in (("all captions", result), ("exact captions", result.get("exact"))):
        if metrics is None:
            continue
        for direction in ("image_to_text", "text_to_image"):
            values = metrics[direction]
            numbers = [values["R@1"], values["R@5"], values["R@10"], values["median_rank"], values["chance"]]
            limit = f"{values['ceiling']:.1f}" if "ceiling" in values else "not known"
            rows.append((f"{direction.replace('_', ' ')}, {name}", *(f"{number:.1f}" for number in numbers), limit))
    return "\n".join(f"{row[0]:<30}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.evaluation", description="Measure retrieval with a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder, or a .pt file")
    parser.add_argument("--data", type=Path, required=True, help="a folder in the COCO Captions layout")
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
