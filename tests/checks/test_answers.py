"""Answers as learners write them: right answers in other styles, and wrong answers that a check must explain."""

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import default_collate

from helpers import checks
from helpers.checks.core import Check
from helpers.losses import contrastive_loss, one_way_contrastive_loss
from helpers.sources import load_snapshots
from helpers.widgets import TemperatureExplorer


def pad_by_loops(lists: list[list[int]]) -> list[Tensor]:
    longest = max(len(ids) for ids in lists)
    token_ids, padding = torch.zeros(len(lists), longest, dtype=torch.long), torch.ones(len(lists), longest).bool()
    for row, ids in enumerate(lists):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        padding[row, : len(ids)] = False
    return [token_ids, padding]


def keep_by_pattern(captions: list[str], boxes: dict[str, tuple], crop: tuple) -> list[str]:
    left, top, right, bottom = crop
    outside = [n for n, b in boxes.items() if b[0] < left or b[1] < top or b[2] > right or b[3] > bottom]
    lost = re.compile(r"\b(" + "|".join(outside) + r")\b")
    return list(filter(lambda caption: not lost.search(caption), captions))


def normalize_in_numpy(features: Tensor) -> np.ndarray:
    array = features.numpy().astype(np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)


def loss_by_loops(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    total = torch.zeros(())
    for queries, answers in ((images, texts), (texts, images)):
        for i in range(len(queries)):
            logits = [F.cosine_similarity(queries[i], answer, dim=0) / temperature for answer in answers]
            total = total + sum(logit.exp() for logit in logits).log() - logits[i]
    return total / (2 * len(images))


def mask_by_loops(logits: Tensor, image_ids: Tensor) -> Tensor:
    masked = logits.clone()
    for i, j in itertools.permutations(range(len(logits)), 2):
        if image_ids[i] == image_ids[j]:
            masked[i, j] = -math.inf
    return masked


def multi_positive_by_library(logits: Tensor, image_ids: Tensor, text_ids: Tensor) -> Tensor:
    right = (image_ids[:, None] == text_ids).double()
    to_texts = F.cross_entropy(logits.double(), right / right.sum(1, keepdim=True))
    return (to_texts + F.cross_entropy(logits.double().T, (right / right.sum(0)).T)) / 2


def negatives_by_log_softmax(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    logits = F.normalize(images) @ F.normalize(texts).T / temperature
    counts = []
    for log_p in (*logits.log_softmax(1), *logits.T.log_softmax(1)):
        counts.append(math.exp(-float((log_p.exp() * log_p).sum())))
    return torch.tensor(counts).mean()


def shares_by_loops(similarity: Tensor, temperature: float) -> list[list[float]]:
    rows = similarity.tolist()
    for i, row in enumerate(rows):
        top = max(s for j, s in enumerate(row) if j != i)
        weights = [0.0 if j == i else math.exp((s - top) / temperature) for j, s in enumerate(row)]
        rows[i] = [weight / sum(weights) for weight in weights]
    return rows


def schedule(progress: float, start: float, end: float) -> Tensor:
    if progress < 0 or progress > 1:
        raise ValueError("progress lies outside 0 to 1")
    return start * torch.tensor(math.pi * progress / 2).cos() ** 2 + end * math.sin(math.pi * progress / 2) ** 2


def pool_by_loops(regions: Tensor, grid: int) -> np.ndarray:
    side, array = 4 // grid, regions.numpy()
    cells = [(r * side, c * side) for r in range(grid) for c in range(grid)]
    return np.stack([array[:, :, r : r + side, c : c + side].mean((2, 3)) for r, c in cells], 2).reshape(len(array), -1)


def token_wise_by_loops(regions: Tensor, words: Tensor, padding: Tensor) -> Tensor:
    result = torch.zeros(len(regions), len(words), dtype=torch.float64)
    for i, t in itertools.product(range(len(regions)), range(len(words))):
        cosines = torch.einsum("rd,wd->rw", F.normalize(regions[i]), F.normalize(words[t][~padding[t]]))
        result[i, t] = cosines.max(0).values.mean()
    return result


def multi_scale_by_library(images: list[Tensor], texts: list[Tensor], t: float, weights: list[float] | None) -> Tensor:
    total = torch.zeros(())
    for k, (x, y) in enumerate(zip(images, texts, strict=True)):
        logits, own = F.normalize(x) @ F.normalize(y).T / t, torch.arange(len(x))
        both = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        total = total + both * (1 if weights is None else weights[k])
    return total


def recall_by_loops(similarity: Tensor, image_of_caption: Tensor, k: int) -> float:
    hits = 0
    for image, row in enumerate(similarity.tolist()):
        order = sorted(range(len(row)), key=lambda caption: -row[caption])
        hits += any(image_of_caption[caption] == image for caption in order[:k])
    return 100 * hits / len(similarity)


def step_in_another_order(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float
) -> Tensor:
    optimizer.zero_grad()
    images, texts = model(batch["images"], batch["token_ids"], batch["padding"])
    logits = F.normalize(images) @ F.normalize(texts).T / temperature
    loss = -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2
    loss.backward()
    optimizer.step()
    return loss


def interval_by_scipy(values: Tensor, baseline: Tensor) -> list[float]:
    interval = stats.ttest_rel(values.numpy(), baseline.numpy()).confidence_interval(0.95)
    return [(interval.low + interval.high) / 2, interval.low, interval.high]


def accuracy_by_loops(images: Tensor, texts: Tensor, batch_size: int) -> float:
    hits = []
    for start in range(0, len(images) - batch_size + 1, batch_size):
        x, y = F.normalize(images[start : start + batch_size]), F.normalize(texts[start : start + batch_size])
        for i in range(batch_size):
            hits += [int((y @ x[i]).argmax()) == i, int((x @ y[i]).argmax()) == i]
    return 100 * sum(hits) / len(hits)


def p_value_by_scipy(differences: Tensor) -> float:
    test = stats.permutation_test((differences.numpy(),), lambda d, axis: d.mean(axis), permutation_type="samples")
    return float(test.pvalue)


def sigmoid_by_loops(x: Tensor, y: Tensor, temperature: float, bias: float, block: int) -> Tensor:
    total = 0
    for i in range(len(x)):
        for j in range(len(y)):
            logit = x[i] @ y[j] / temperature + bias
            total = total + F.softplus(-logit if i == j else logit)
    return total / len(x)


def classify_by_loops(images: Tensor, prompts: Tensor) -> Tensor:
    means = [sum(prompt / prompt.norm() for prompt in own) for own in prompts]
    scores = [[float(image @ mean / mean.norm()) for mean in means] for image in images]
    return torch.tensor([max(range(len(means)), key=row.__getitem__) for row in scores])


def suspects_by_sorting(train: Tensor, test: Tensor, count: int) -> Tensor:
    pairs = list(itertools.product(range(len(test)), range(len(train))))
    pairs.sort(key=lambda pair: -F.cosine_similarity(test[pair[0]], train[pair[1]], dim=0))
    return torch.tensor(pairs[:count])


RIGHT = [
    (checks.check_pad, pad_by_loops),
    (checks.check_captions_to_keep, keep_by_pattern),
    (checks.check_l2_normalize, normalize_in_numpy),
    (checks.check_symmetric_loss, loss_by_loops),
    (checks.check_mask_same_image, mask_by_loops),
    (checks.check_multi_positive_loss, multi_positive_by_library),
    (checks.check_effective_negatives_of_batch, negatives_by_log_softmax),
    (checks.check_repulsion_shares, shares_by_loops),
    (checks.check_cosine_schedule, schedule),
    (checks.check_pool_regions, pool_by_loops),
    (checks.check_token_wise_similarity, token_wise_by_loops),
    (checks.check_multi_scale_loss, multi_scale_by_library),
    (checks.check_recall_at_k, recall_by_loops),
    (checks.check_training_step, step_in_another_order),
    (checks.check_paired_interval, interval_by_scipy),
    (checks.check_in_batch_accuracy, accuracy_by_loops),
    (checks.check_sign_flip_p_value, p_value_by_scipy),
    (checks.check_classify, classify_by_loops),
    (checks.check_suspects, suspects_by_sorting),
    (checks.check_sigmoid_loss_in_blocks, sigmoid_by_loops),
    (checks.check_merge_ranks, lambda top, totals: np.logaddexp.reduce(top.numpy() + np.log(totals.numpy()), axis=0)),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda value: getattr(value, "name", None))
def test_right_answers_in_other_styles_pass(check: Check, answer: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Right: ")


def cosines(x: Tensor, y: Tensor) -> Tensor:
    return F.normalize(x) @ F.normalize(y).T


def keep_by_corner(captions: list[str], boxes: dict[str, tuple], crop: tuple) -> list[str]:
    """Look at the left and upper edges only."""
    lost = {name for name, box in boxes.items() if box[0] < crop[0] or box[1] < crop[1]}
    return [caption for caption in captions if not lost & set(caption.replace(",", "").split())]


def entropy_without_care(x: Tensor, y: Tensor, t: float) -> Tensor:
    p = torch.stack([(cosines(x, y) / t).softmax(1), (cosines(y, x) / t).softmax(1)])
    return torch.exp(-(p * torch.log(p)).sum(2)).mean()


def negatives_of_images(x: Tensor, y: Tensor, t: float) -> Tensor:
    return torch.special.entr((cosines(x, y) / t).softmax(1)).sum(1).exp().mean()


def shares_by_exponentials(s: Tensor, t: float) -> Tensor:
    e = torch.exp(s / t)
    e[range(len(e)), range(len(e))] = 0
    return e / (torch.exp(s / t).sum(1) - torch.exp(s / t).diagonal())[:, None]


def shares_of_columns(s: Tensor, t: float) -> Tensor:
    p = (s / t).softmax(1)
    return (p / (1 - p.diagonal())).fill_diagonal_(0)


def step_without_backward(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float) -> float:
    loss = contrastive_loss(*model(batch["images"], batch["token_ids"], batch["padding"]), temperature)
    optimizer.step()
    return loss.item()


def share_of_rows(similarity: Tensor, image_of_caption: Tensor, k: int) -> float:
    rows = torch.arange(len(similarity))[:, None]
    return (image_of_caption[similarity.topk(k).indices] == rows).any(1).double().mean().item()


def matches_from_column_0(x: Tensor, y: Tensor, temperature: float, bias: float, block: int) -> Tensor:
    total = 0
    for rows in x.split(block):
        signs = 2 * torch.eye(len(rows), len(y)) - 1
        total = total - F.logsigmoid(signs * (rows @ y.T / temperature + bias)).sum()
    return total / len(x)


WRONG = [
    (checks.check_pad, lambda lists: torch.tensor(lists), "stopped with ValueError"),
    (checks.check_pad, lambda lists: (pad_by_loops(lists)[0], pad_by_loops(lists)[0] == 0), "id 0 can be a word"),
    (checks.check_pad, lambda lists: [p.float() for p in pad_by_loops(lists)], "token_ids: expected torch.int64"),
    (checks.check_captions_to_keep, keep_by_corner, "captions_to_keep: expected ["),
    (checks.check_captions_to_keep, lambda captions, boxes, crop: set(captions), "expected a list, got set"),
    (checks.check_collate, default_collate, "stopped with"),
    (checks.check_l2_normalize, lambda x: F.normalize(x), "right for [batch, dim] only"),
    (checks.check_l2_normalize, lambda x: x / x.norm(dim=-1), "stopped with RuntimeError"),
    (checks.check_symmetric_loss, lambda x, y, t: F.cross_entropy(x @ y.T / t, torch.arange(len(x))), "expected"),
    (checks.check_symmetric_loss, lambda x, y, t: one_way_contrastive_loss(x, y, t, True), "image to text only"),
    (checks.check_symmetric_loss, lambda x, y, t: contrastive_loss(x, y, t).item(), "cannot train a model"),
    (checks.check_symmetric_loss, lambda x, y, t: contrastive_loss(x, y.detach(), t), "cannot train a model"),
    (checks.check_symmetric_loss, lambda x, y, t: contrastive_loss(x, y, 1.0), "the temperature is not used"),
    (checks.check_mask_same_image, lambda z, ids: 2 * mask_by_loops(z, ids), "expected"),
    (checks.check_effective_negatives_of_batch, entropy_without_care, "0 * ln 0"),
    (checks.check_effective_negatives_of_batch, negatives_of_images, "image to text only"),
    (checks.check_repulsion_shares, shares_by_exponentials, "nothing is left to divide by"),
    (checks.check_repulsion_shares, shares_of_columns, "(1 - p.diagonal())[:, None]"),
    (checks.check_cosine_schedule, lambda p, a, b: a, "cosine_schedule(0.5, 0.2, 0.05): expected 0.125, got 0.2"),
    (checks.check_cosine_schedule, lambda p, a, b: b + (a - b) * (1 + math.cos(math.pi * p)) / 2, "raise a ValueError"),
    (checks.check_pool_regions, F.adaptive_avg_pool2d, "not flattened"),
    (checks.check_pool_regions, lambda maps, grid: maps.mean((2, 3)), "the whole map is averaged"),
    (checks.check_token_wise_similarity, lambda r, w, p: token_wise_by_loops(r, w, p).T, "images are rows"),
    (checks.check_multi_scale_loss, lambda x, y, t, w: multi_scale_by_library(x, y, t, None), "weights are not used"),
    (
        checks.check_multi_scale_loss,
        lambda x, y, t, w: w[0] * contrastive_loss(x[0], y[0], t),
        "stopped with TypeError",
    ),
    (checks.check_multi_scale_loss, lambda *given: multi_scale_by_library(*given).item(), "cannot train a model"),
    (
        checks.check_multi_scale_loss,
        lambda x, y, t, w: multi_scale_by_library(x, y, t, w or [1 / len(x)] * len(x)),
        "without weights this is the mean",
    ),
    (checks.check_training_step, step_without_backward, "the parameters never change"),
    (checks.check_training_step, lambda *given: print(step_in_another_order(*given)), "is a return missing?"),
    (checks.check_recall_at_k, share_of_rows, "recall is asked for in percent"),
    (checks.check_paired_interval, lambda a, b: interval_by_scipy(b, a), "baseline minus values"),
    (checks.check_classify, lambda x, p: (x @ p.mean(1).T).argmax(1), "the label needs the largest cosine"),
    (checks.check_classify, lambda x, p: classify_by_loops(x, p).float(), "expected torch.int64"),
    (checks.check_suspects, lambda x, y, k: suspects_by_sorting(y, x, k), "the row of the test image comes first"),
    (checks.check_suspects, lambda x, y, k: suspects_by_sorting(x, y, k).tolist()[0], "expected the shape [4, 2]"),
    (checks.check_sigmoid_loss_in_blocks, matches_from_column_0, "the matches begin at column 0"),
    (checks.check_sigmoid_loss_in_blocks, lambda *given: sigmoid_by_loops(*given).item(), "cannot train a model"),
    (checks.check_merge_ranks, lambda top, totals: top.amax(0) + totals.sum(0).log(), "scale their sums"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG, ids=lambda value: getattr(value, "name", None))
def test_wrong_answers_are_explained(check: Check, answer: Callable, words: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        check(answer)


@pytest.mark.parametrize(("temperature", "count"), [(0.265, 9.5), (0.28, 10.0), (0.295, 10.5)])
def test_the_setting_of_lesson_03_is_where_ten_texts_count(temperature: float, count: float) -> None:
    snapshots = load_snapshots()
    explorer = TemperatureExplorer(
        snapshots.image_features[-1, 8:24], snapshots.text_features[-1, 8:24], temperature=temperature
    )
    assert explorer.numbers()["effective_negatives"] == pytest.approx(count, abs=0.1)
