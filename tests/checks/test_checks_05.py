"""The checks of notebook 05 accept the right answer and name the mistake in typical wrong ones."""

import math
from collections.abc import Callable

import pytest
import torch
from answers import assert_named, assert_right
from helpers.checks.core.core import check_rank_with_ties, check_recall_at_k, check_warm_up
from torch import Tensor

from helpers.evaluation import retrieval_ranks


def stub(*_: object) -> Tensor:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def own(similarity: Tensor, image_of_caption: Tensor) -> Tensor:
    return image_of_caption == torch.arange(len(similarity))[:, None]  # [images, captions]


def own_found(similarity: Tensor, image_of_caption: Tensor, k: int) -> Tensor:
    first = similarity.topk(k, dim=1).indices  # [images, k]
    return image_of_caption[first] == torch.arange(len(similarity))[:, None]  # [images, k]


def recall_by_loops(similarity: Tensor, image_of_caption: Tensor, k: int) -> float:
    hits = 0
    for image, row in enumerate(similarity.tolist()):
        order = sorted(range(len(row)), key=lambda caption: -row[caption])
        hits += any(image_of_caption[caption] == image for caption in order[:k])
    return 100 * hits / len(similarity)


def recall_from_ranks(similarity: Tensor, image_of_caption: Tensor, k: int) -> Tensor:
    return 100 * (retrieval_ranks(similarity, image_of_caption)["image_to_text"] <= k).double().mean()


def text_to_image_recall(similarity: Tensor, image_of_caption: Tensor, k: int) -> float:
    return 100 * (similarity.topk(k, dim=0).indices == image_of_caption).any(0).double().mean().item()


def right_scores(similarity: Tensor, image_of_caption: Tensor) -> Tensor:
    return similarity[image_of_caption, torch.arange(similarity.shape[1])]  # [captions]


def ranks_by_loops(similarity: Tensor, image_of_caption: Tensor) -> Tensor:
    ranks = []
    for caption, image in enumerate(image_of_caption.tolist()):
        before = [
            i for i in range(len(similarity)) if i != image and similarity[i, caption] >= similarity[image, caption]
        ]
        ranks.append(1 + len(before))
    return torch.tensor(ranks)


def ranks_by_sort(similarity: Tensor, image_of_caption: Tensor) -> Tensor:
    order = similarity.argsort(dim=0, descending=True, stable=True)  # [images, captions]
    return 1 + (order == image_of_caption).long().argmax(0)


def ranks_in_place(similarity: Tensor, image_of_caption: Tensor) -> Tensor:
    right = right_scores(similarity, image_of_caption)
    similarity.masked_fill_(own(similarity, image_of_caption), -torch.inf)
    return 1 + (similarity >= right).sum(0)


def factor(progress: float, warm_up: float) -> float:
    return progress / warm_up if progress < warm_up else falling(progress, warm_up)


def falling(progress: float, warm_up: float) -> float:
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def rising_then(fall: Callable[[float], float]) -> Callable[[float, float], float]:
    """A straight rise, then ``fall`` of the share of the rest that has passed."""
    return lambda p, w: p / w if p < w else fall((p - w) / (1 - w))


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_recall_at_k, recall_by_loops),
        (check_recall_at_k, recall_from_ranks),
        (check_recall_at_k, lambda s, of, k: 100 * own_found(s, of, k).any(1).double().mean().item()),
        (check_rank_with_ties, ranks_by_loops),
        (check_rank_with_ties, lambda s, of: (s >= right_scores(s, of)).sum(0)),
        (check_rank_with_ties, lambda s, of: retrieval_ranks(s, of)["text_to_image"]),
        (check_warm_up, factor),
        (check_warm_up, lambda p, w: torch.tensor(min(p / w, falling(max(p, w), w)))),
    ],
)
def test_right_answers_pass_in_one_line(
    check: Callable[[Callable], None], answer: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_right(check, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda s, of, k: None, "is a return missing"),
        (lambda s, of, k: own_found(s, of, k).any(1).double().mean(), "in percent"),
        (
            lambda s, of, k: 100 * (own_found(s, of, k).sum(1) / own(s, of).sum(1)).double().mean(),
            "divides by those an image has",
        ),
        (lambda s, of, k: 100 * own_found(s, of, k).sum() / len(s), "counts once"),
        (lambda s, of, k: 100 * own_found(s, of, k).double().mean(), "divides the captions found by k"),
        (
            lambda s, of, k: 100 * (s.topk(k, 1).indices == torch.arange(len(s))[:, None]).any(1).double().mean(),
            "row i does not belong to column i",
        ),
        (text_to_image_recall, "the other direction"),
        (lambda s, of, k: recall_by_loops(-s, of, k), "score lowest"),
        (lambda s, of, k: recall_by_loops(s, of, 1), "only the first place"),
        (lambda s, of, k: own_found(s, of, k).any(1), "it should be []"),
        (lambda s, of, k: 100.0, "should be"),
        (lambda s, of, k: of[s.topk(k, dim=1)], "stopped with"),
    ],
)
def test_recall_at_k_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_recall_at_k, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda s, of: None, "is a return missing"),
        (lambda s, of: 1 + (s > right_scores(s, of)).sum(0), "counted for the model"),
        (lambda s, of: ranks_by_loops(s, of) - 1, "begins at 1"),
        (lambda s, of: 1 + (s >= right_scores(s, of)).sum(0), "counted as one before itself"),
        (ranks_by_sort, "order of a sort"),
        (lambda s, of: 1 + (s < right_scores(s, of)).sum(0), "score lower"),
        (lambda s, of: (s[of] >= right_scores(s, of)[:, None]).sum(1), "down its column"),
        (lambda s, of: retrieval_ranks(s, of)["image_to_text"], "the other direction"),
        (ranks_in_place, "changes the similarities"),
        (lambda s, of: ranks_by_loops(s, of).double(), "whole number"),
        (lambda s, of: ranks_by_loops(s, of).tolist(), "must return a tensor"),
        (lambda s, of: ranks_by_loops(s, of)[None], "it should be"),
    ],
)
def test_rank_with_ties_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_rank_with_ties, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda p, w: None, "is a return missing"),
        (lambda p, w: (1 + math.cos(math.pi * p)) / 2, "the warm-up is missing"),
        (falling, "before it begins"),
        (lambda p, w: falling(max(p, w), w), "during the warm-up the factor is 1"),
        (lambda p, w: min(p / w, 1.0), "stays at 1"),
        (lambda p, w: p / w if p < w else (1 + math.cos(math.pi * p)) / 2, "jumps down"),
        (rising_then(lambda t: 1 - t), "straight line; half a cosine"),
        (rising_then(lambda t: (1 + math.cos(2 * math.pi * t)) / 2), "whole period"),
        (rising_then(lambda t: math.cos(math.pi * t)), "negative learning rate"),
        (rising_then(lambda t: math.cos(math.pi * t / 2)), "quarter of a cosine"),
        (lambda p, w: p / w if p < w else (1 + math.cos(math.pi * (p - w))) / 2, "it lasts 1 - warm_up"),
        (lambda p, w: p if p < w else falling(p, w), "divide the progress by warm_up"),
        (lambda p, w: (1 - math.cos(math.pi * p / w)) / 2 if p < w else falling(p, w), "the rise is half a cosine too"),
        (lambda p, w: 0.5, "should be"),
        (lambda p, w: p / 0 if p < w else falling(p, w), "stopped with ZeroDivisionError"),
    ],
)
def test_warm_up_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_warm_up, answer, words)
