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
from helpers.losses import contrastive_loss
from helpers.text import WordTokenizer


def pad_by_loops(lists: list[list[int]]) -> list[Tensor]:
    longest = max(len(ids) for ids in lists)
    token_ids, padding = torch.zeros(len(lists), longest, dtype=torch.long), torch.ones(len(lists), longest).bool()
    for row, ids in enumerate(lists):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        padding[row, : len(ids)] = False
    return [token_ids, padding]


def flip_by_placeholder(caption: str) -> str:
    caption = re.sub(r"\bleft\b", "LEFT", caption)
    return re.sub(r"\bright\b", "left", caption).replace("LEFT", "right")


def normalize_in_numpy(features: Tensor) -> np.ndarray:
    array = features.numpy().astype(np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)


def loss_by_loops(images: Tensor, texts: Tensor, temperature: float) -> float:
    total = 0.0
    for j in range(len(texts)):
        logits = [float(F.cosine_similarity(image, texts[j], dim=0)) / temperature for image in images]
        total += math.log(sum(math.exp(logit) for logit in logits)) - logits[j]
    return total / len(texts)


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
    log_p = (F.normalize(images) @ F.normalize(texts).T / temperature).log_softmax(1)
    return (-(log_p.exp() * log_p).sum(1)).exp().mean()


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


def anchored_by_library(images: Tensor, texts: Tensor, of_images: Tensor, of_texts: Tensor) -> Tensor:
    similarity, own = F.normalize(images) @ F.normalize(texts).T, torch.arange(len(images))
    to_texts = F.cross_entropy(similarity / of_images[:, None], own)
    return (to_texts + F.cross_entropy(similarity.T / of_texts[:, None], own)) / 2


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


def logsumexp_by_loops(blocks: list[Tensor]) -> list[float]:
    rows = torch.cat(blocks, 1).tolist()
    return [max(row) + math.log(sum(math.exp(logit - max(row)) for logit in row)) for row in rows]


RIGHT = [
    (checks.check_pad, pad_by_loops),
    (checks.check_flip_caption, flip_by_placeholder),
    (checks.check_l2_normalize, normalize_in_numpy),
    (checks.check_text_to_image_loss, loss_by_loops),
    (checks.check_mask_same_image, mask_by_loops),
    (checks.check_multi_positive_loss, multi_positive_by_library),
    (checks.check_effective_negatives, negatives_by_log_softmax),
    (checks.check_gradient_shares, shares_by_loops),
    (checks.check_cosine_schedule, schedule),
    (checks.check_anchor_loss, anchored_by_library),
    (checks.check_pool_regions, pool_by_loops),
    (checks.check_token_wise_similarity, token_wise_by_loops),
    (checks.check_nested_prefix_loss, lambda x, y, ks, t: sum(contrastive_loss(x[:, :k], y[:, :k], t) for k in ks) / 3),
    (checks.check_recall_at_k, recall_by_loops),
    (checks.check_training_step, step_in_another_order),
    (checks.check_paired_interval, interval_by_scipy),
    (checks.check_in_batch_accuracy, accuracy_by_loops),
    (checks.check_sign_flip_p_value, p_value_by_scipy),
    (checks.check_online_logsumexp, logsumexp_by_loops),
    (checks.check_merge_ranks, lambda top, totals: np.logaddexp.reduce(top.numpy() + np.log(totals.numpy()), axis=0)),
    (checks.check_bytes_received, lambda batch, dim, ranks: 2 * 2 * 4 * dim * batch * (1 - 1 / ranks)),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda value: getattr(value, "name", None))
def test_right_answers_in_other_styles_pass(check: Check, answer: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Right: ")


def cosines(x: Tensor, y: Tensor) -> Tensor:
    return F.normalize(x) @ F.normalize(y).T


def swap_in_two_steps(caption: str) -> str:
    return re.sub(r"\bright\b", "left", re.sub(r"\bleft\b", "right", caption))


def entropy_without_care(x: Tensor, y: Tensor, t: float) -> Tensor:
    p = (cosines(x, y) / t).softmax(1)
    return torch.exp(-(p * torch.log(p)).sum(1)).mean()


def shares_by_exponentials(s: Tensor, t: float) -> Tensor:
    e = torch.exp(s / t)
    e[range(len(e)), range(len(e))] = 0
    return e / (torch.exp(s / t).sum(1) - torch.exp(s / t).diagonal())[:, None]


def anchored_by_exponentials(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    z, w = cosines(x, y) / a[:, None], cosines(y, x) / b[:, None]
    return sum(torch.log(m.exp().sum(1)).mean() - m.diagonal().mean() for m in (z, w)) / 2


def step_without_backward(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float) -> float:
    loss = contrastive_loss(*model(batch["images"], batch["token_ids"], batch["padding"]), temperature)
    optimizer.step()
    return loss.item()


def share_of_rows(similarity: Tensor, image_of_caption: Tensor, k: int) -> float:
    rows = torch.arange(len(similarity))[:, None]
    return (image_of_caption[similarity.topk(k).indices] == rows).any(1).double().mean().item()


def running_sum_without_rescaling(blocks: list[Tensor]) -> Tensor:
    largest, total = torch.full((5,), -math.inf), torch.zeros(5)
    for block in blocks:
        largest = torch.maximum(largest, block.max(1).values)
        total += (block - largest[:, None]).exp().sum(1)
    return largest + total.log()


WRONG = [
    (checks.check_pad, lambda lists: torch.tensor(lists), "stopped with ValueError"),
    (checks.check_pad, lambda lists: (pad_by_loops(lists)[0], pad_by_loops(lists)[0] == 0), "id 0 can be a word"),
    (checks.check_pad, lambda lists: [p.float() for p in pad_by_loops(lists)], "token_ids: expected torch.int64"),
    (checks.check_flip_caption, swap_in_two_steps, "undoes the first"),
    (checks.check_collate, default_collate, "stopped with"),
    (checks.check_l2_normalize, lambda x: F.normalize(x), "right for [batch, dim] only"),
    (checks.check_l2_normalize, lambda x: x / x.norm(dim=-1), "stopped with RuntimeError"),
    (checks.check_text_to_image_loss, lambda x, y, t: F.cross_entropy(x @ y.T / t, torch.arange(len(x))), "expected"),
    (checks.check_text_to_image_loss, contrastive_loss, "mean of both directions"),
    (checks.check_mask_same_image, lambda z, ids: 2 * mask_by_loops(z, ids), "expected"),
    (checks.check_effective_negatives, entropy_without_care, "0 * ln 0"),
    (checks.check_gradient_shares, shares_by_exponentials, "nothing is left to divide by"),
    (checks.check_cosine_schedule, lambda p, a, b: b + (a - b) * (1 + math.cos(math.pi * p)) / 2, "raise a ValueError"),
    (checks.check_anchor_loss, anchored_by_exponentials, "an exponential was too large"),
    (checks.check_pool_regions, F.adaptive_avg_pool2d, "not flattened"),
    (checks.check_training_step, step_without_backward, "the parameters never change"),
    (checks.check_training_step, lambda *given: print(step_in_another_order(*given)), "is a return missing?"),
    (checks.check_recall_at_k, share_of_rows, "recall is asked for in percent"),
    (checks.check_paired_interval, lambda a, b: interval_by_scipy(b, a), "baseline minus values"),
    (checks.check_online_logsumexp, running_sum_without_rescaling, "must shrink"),
    (checks.check_bytes_received, lambda batch, dim, ranks: 16 * (batch // ranks) * dim, "the rank's own features"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG, ids=lambda value: getattr(value, "name", None))
def test_wrong_answers_are_explained(check: Check, answer: Callable, words: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        check(answer)


def train_without_looking(items: list[dict], model: nn.Module, tokenizer: WordTokenizer, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0003)
    for _ in range(2):
        chosen = items[:32]
        token_ids, padding = tokenizer([item["texts"][0] for item in chosen])
        batch = {"images": torch.stack([item["image"] for item in chosen]), "token_ids": token_ids, "padding": padding}
        step_in_another_order(model, optimizer, batch, 0.1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda items, model, tokenizer, steps: None, "left every parameter"),
        (lambda items, model: None, "stopped with TypeError"),
        (train_without_looking, "not well above chance"),
    ],
)
def test_a_model_that_learned_nothing_is_explained(answer: Callable, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        checks.check_my_clip(answer)
