"""Retrieval metrics: how often an image finds one of its captions, and a caption its image."""

import math
import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import ImageTextDataset, captions_by_image
from helpers.encoders import DualEncoder
from helpers.scenes import Scene, ceiling
from helpers.text import WordTokenizer

DIRECTIONS = ("image_to_text", "text_to_image")
BATCH = 256  # images or texts that are encoded at a time
CONFIDENCE = 0.95

Metrics = dict[str, dict[str, float]]  # for each direction, numbers by name


@torch.no_grad()
def encode(encoder: Callable[[Sequence], Tensor], rows: Sequence, normalize: bool) -> Tensor:
    """Encode in batches: features ``[rows, dim]`` on the CPU."""
    features = torch.cat([encoder(rows[start : start + BATCH]).cpu() for start in range(0, len(rows), BATCH)])
    return F.normalize(features, dim=1) if normalize else features


def encode_images(model: DualEncoder, dataset: ImageTextDataset, normalize: bool = True) -> Tensor:
    """Encode all images of a dataset, in order: features ``[images, dim]`` on the CPU, by default L2-normalised."""
    model.eval()
    device = next(model.parameters()).device
    rows = range(len(dataset))
    return encode(lambda batch: model.image_encoder(dataset.batch(batch)["images"].to(device)), rows, normalize)


def encode_texts(model: DualEncoder, tokenizer: WordTokenizer, texts: Sequence[str], normalize: bool = True) -> Tensor:
    """Encode texts: features ``[texts, dim]`` on the CPU, by default L2-normalised."""
    model.eval()
    device = next(model.parameters()).device
    return encode(lambda batch: model.text_encoder(*(x.to(device) for x in tokenizer(batch))), texts, normalize)


def percent(hits: Tensor) -> float:
    """The mean of a tensor of bools or shares, in percent."""
    return 100 * hits.double().mean().item()


def rank_of_best(similarity: Tensor, row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """For each row, the rank of its best column with the same id; ties with other columns count against it."""
    own = row_ids[:, None] == column_ids  # [rows, columns]
    best_own = similarity.masked_fill(~own, -torch.inf).amax(1, keepdim=True)  # [rows, 1]
    return 1 + ((similarity >= best_own) & ~own).sum(1)


def retrieval_ranks(similarity: Tensor, image_of_caption: Tensor) -> dict[str, Tensor]:
    """The rank of the right answer to each query; 1 is the best, and a wrong answer with the same score comes first.

    From image to text every caption of the image is right, and the best one counts. ``similarity`` is ``[images,
    captions]``; ``image_of_caption``, int64 ``[captions]``, is the row of each caption's image.
    Returns int64 ``{"image_to_text": [images], "text_to_image": [captions]}``.
    """
    images, captions = similarity.shape
    rows = torch.arange(images)
    if len(image_of_caption) != captions or not torch.equal(image_of_caption.unique(), rows):
        raise ValueError(f"image_of_caption must have {captions} entries and use every image from 0 to {images - 1}")
    if similarity.isnan().any():
        raise ValueError("similarity has NaN; check the features")
    return {
        "image_to_text": rank_of_best(similarity, rows, image_of_caption),
        "text_to_image": rank_of_best(similarity.T, image_of_caption, rows),
    }


def retrieval_metrics(similarity: Tensor, image_of_caption: Tensor) -> Metrics:
    """R@1, R@5, R@10 in percent, median rank and chance, of :func:`retrieval_ranks` in both directions."""
    # In a random order, one of an image's captions comes first with probability (its captions / all captions). The
    # mean over images is 1 / images, as in the other direction.
    chance = 100 / len(similarity)
    return {
        direction: {
            **{f"R@{k}": percent(rank <= k) for k in (1, 5, 10)},
            "median_rank": rank.double().quantile(0.5).item(),
            "chance": chance,
        }
        for direction, rank in retrieval_ranks(similarity, image_of_caption).items()
    }


def evaluate(
    model: DualEncoder,
    tokenizer: WordTokenizer,
    dataset: ImageTextDataset,
    captions: Sequence[Sequence[str]],
    normalize: bool = True,
) -> Metrics:
    """Compute :func:`retrieval_metrics` of a dataset and ``captions``, from dot products unless ``normalize``."""
    texts, image_of_caption = captions_by_image(captions)
    image_features = encode_images(model, dataset, normalize)  # [images, dim]
    text_features = encode_texts(model, tokenizer, texts, normalize)  # [captions, dim]
    return retrieval_metrics(image_features @ text_features.T, image_of_caption)


def intervals(
    ranks: dict[str, Tensor], image_of_caption: Tensor, samples: int = 1000, seed: int = 0
) -> dict[str, list[float]]:
    """The 95 % interval of R@1 in percent, ``[low, high]`` for each direction, by the percentile bootstrap over images.

    The captions of an image succeed or fail together, so images are resampled with all their captions. The
    candidates stay the same. ``ranks`` comes from :func:`retrieval_ranks`.
    """
    images = len(ranks["image_to_text"])
    chosen = torch.randint(images, (samples, images), generator=torch.Generator().manual_seed(seed))
    tails = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.double)
    result = {}
    for direction, image_of_query in zip(DIRECTIONS, (torch.arange(images), image_of_caption), strict=True):
        hits = image_of_query.bincount((ranks[direction] == 1).double(), minlength=images)
        queries = image_of_query.bincount(minlength=images)
        shares = hits[chosen].sum(1) / queries[chosen].sum(1)  # [samples]
        result[direction] = (100 * shares.quantile(tails)).tolist()
    return result


def metrics_with_truth(similarity: Tensor, scenes: Sequence[Scene], captions: Sequence[Sequence[str]]) -> Metrics:
    """:func:`retrieval_metrics` of scenes, with the ``ceiling``: R@1 of the best possible model, in percent."""
    metrics = retrieval_metrics(similarity, captions_by_image(captions)[1])
    best = ceiling(scenes, captions)
    return {direction: metrics[direction] | {"ceiling": best[direction]} for direction in DIRECTIONS}


def minimal_pair_accuracy(similarity: Tensor) -> dict[str, float]:
    """How often the right one of two is chosen, in percent: the caption of an image, and the image of a caption.

    A tie is wrong; chance is 50 %. Rows (images) and columns (captions) 2k and 2k + 1 of ``similarity`` are a pair.
    """
    row, own = torch.arange(len(similarity)), similarity.diagonal()
    other = row ^ 1  # 1, 0, 3, 2, ...
    hits = {"image_to_text": own > similarity[row, other], "text_to_image": own > similarity[other, row]}
    return {direction: percent(hits[direction]) for direction in hits} | {"pairs": len(row) // 2}


def in_batch_accuracy(image_features: Tensor, text_features: Tensor, batch_size: int = 256) -> float:
    """How often the diagonal has the highest score of its row and of its column within a batch, in percent.

    A larger batch is harder; with all pairs in one batch it is R@1. Round k pairs image i with its caption i + k.
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


def linear_probe(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Accuracy, in percent, of a linear classifier on frozen features, fitted by least squares.

    Features are ``[images, dim]``, labels bool ``[images, labels]``; with fewer images than ``dim`` it overfits.
    Source: Alain and Bengio, 2016, "Understanding intermediate layers using linear classifier probes".
    """
    train = F.pad(features.double(), (0, 1), value=1.0)  # [images, dim + 1]
    test = F.pad(test_features.double(), (0, 1), value=1.0)  # [test images, dim + 1]
    weight = torch.linalg.lstsq(train, labels.double(), driver="gelsd").solution  # [dim + 1, labels]
    return percent((test @ weight > 0.5) == test_labels)
