"""More answers, written with the checks in view: styles and mistakes that could slip through; see `answers_blind`."""

import functools
import itertools
import math
import random
import re

import numpy as np
import torch
import torch.nn.functional as F
from answers_blind import right, wrong
from scipy import stats
from torch.utils.data import default_collate

from helpers.losses import contrastive_loss, one_way_contrastive_loss


@right("check_pad", "loops over rows, in a list")
def pad_by_loops(lists):
    longest = max(len(ids) for ids in lists)
    token_ids, padding = torch.zeros(len(lists), longest, dtype=torch.long), torch.ones(len(lists), longest).bool()
    for row, ids in enumerate(lists):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        padding[row, : len(ids)] = False
    return [token_ids, padding]


@right("check_captions_to_keep", "a regular expression")
def keep_by_pattern(captions, boxes, crop):
    left, top, right, bottom = crop
    outside = [n for n, b in boxes.items() if b[0] < left or b[1] < top or b[2] > right or b[3] > bottom]
    lost = re.compile(r"\b(" + "|".join(outside) + r")\b")
    return list(filter(lambda caption: not lost.search(caption), captions))


@right("check_symmetric_loss", "loops, exp and log")
def loss_by_loops(images, texts, temperature):
    total = torch.zeros(())
    for queries, answers in ((images, texts), (texts, images)):
        for i in range(len(queries)):
            logits = [F.cosine_similarity(queries[i], answer, dim=0) / temperature for answer in answers]
            total = total + sum(logit.exp() for logit in logits).log() - logits[i]
    return total / (2 * len(images))


@right("check_mask_same_image", "permutations of positions")
def mask_by_loops(logits, image_ids):
    masked = logits.clone()
    for i, j in itertools.permutations(range(len(logits)), 2):
        if image_ids[i] == image_ids[j]:
            masked[i, j] = -math.inf
    return masked


@right("check_multi_positive_loss", "cross_entropy with shares, float64")
def multi_positive_by_library(logits, image_ids, text_ids):
    fits = (image_ids[:, None] == text_ids).double()
    to_texts = F.cross_entropy(logits.double(), fits / fits.sum(1, keepdim=True))
    return (to_texts + F.cross_entropy(logits.double().T, (fits / fits.sum(0)).T)) / 2


@right("check_effective_negatives_of_batch", "log-softmax and Python's exp")
def negatives_by_log_softmax(images, texts, temperature):
    logits = F.normalize(images) @ F.normalize(texts).T / temperature
    counts = []
    for log_p in (*logits.log_softmax(1), *logits.T.log_softmax(1)):
        counts.append(math.exp(-float((log_p.exp() * log_p).sum())))
    return torch.tensor(counts).mean()


@right("check_repulsion_shares", "lists of Python floats")
def shares_by_loops(similarity, temperature):
    rows = similarity.tolist()
    for i, row in enumerate(rows):
        top = max(s for j, s in enumerate(row) if j != i)
        weights = [0.0 if j == i else math.exp((s - top) / temperature) for j, s in enumerate(row)]
        rows[i] = [weight / sum(weights) for weight in weights]
    return rows


@right("check_cosine_schedule", "squares of cosine and sine, as a tensor")
def schedule(progress, start, end):
    if progress < 0 or progress > 1:
        raise ValueError("progress lies outside 0 to 1")
    return start * torch.tensor(math.pi * progress / 2).cos() ** 2 + end * math.sin(math.pi * progress / 2) ** 2


@right("check_pool_regions", "an array of numpy")
def pool_by_loops(regions, grid):
    side, array = 4 // grid, regions.numpy()
    cells = [(r * side, c * side) for r in range(grid) for c in range(grid)]
    return np.stack([array[:, :, r : r + side, c : c + side].mean((2, 3)) for r, c in cells], 2).reshape(len(array), -1)


@right("check_token_wise_similarity", "loops into a table, float64")
def token_wise_by_loops(regions, words, padding):
    result = torch.zeros(len(regions), len(words), dtype=torch.float64)
    for i, t in itertools.product(range(len(regions)), range(len(words))):
        cosines = torch.einsum("rd,wd->rw", F.normalize(regions[i]), F.normalize(words[t][~padding[t]]))
        result[i, t] = cosines.max(0).values.mean()
    return result


@right("check_multi_scale_loss", "cross_entropy by hand")
def multi_scale_by_library(images, texts, t, weights):
    total = torch.zeros(())
    for k, (x, y) in enumerate(zip(images, texts, strict=True)):
        logits, own = F.normalize(x) @ F.normalize(y).T / t, torch.arange(len(x))
        both = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        total = total + both * (1 if weights is None else weights[k])
    return total


@right("check_recall_at_k", "sorting in Python")
def recall_by_loops(similarity, image_of_caption, k):
    hits = 0
    for image, row in enumerate(similarity.tolist()):
        order = sorted(range(len(row)), key=lambda caption: -row[caption])
        hits += any(image_of_caption[caption] == image for caption in order[:k])
    return 100 * hits / len(similarity)


@right("check_training_step", "log-softmax, gradients set to zero first")
def step_in_another_order(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    images, texts = model(batch["images"], batch["token_ids"], batch["padding"])
    logits = F.normalize(images) @ F.normalize(texts).T / temperature
    loss = -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2
    loss.backward()
    optimizer.step()
    return loss


@right("check_power", "scipy")
def power_by_scipy(noise, effect):
    return 100 * float(np.mean(stats.ttest_1samp(noise.numpy() + effect, 0, axis=1).pvalue < 0.05))


@right("check_sign_flip_p_value", "scipy")
def p_value_by_scipy(differences):
    test = stats.permutation_test((differences.numpy(),), lambda d, axis: d.mean(axis), permutation_type="samples")
    return float(test.pvalue)


@right("check_sigmoid_loss_in_blocks", "one logit at a time")
def sigmoid_by_loops(x, y, temperature, bias, block):
    total = 0
    for i in range(len(x)):
        for j in range(len(y)):
            logit = x[i] @ y[j] / temperature + bias
            total = total + F.softplus(-logit if i == j else logit)
    return total / len(x)


right("check_merge_ranks", "numpy's logaddexp")(
    lambda top, totals: np.logaddexp.reduce(top.numpy() + np.log(totals.numpy()), axis=0)
)
right("check_l2_normalize", "the library, float64")(lambda x: F.normalize(x.double(), dim=-1))
right("check_l2_normalize", "transposed twice")(lambda x: F.normalize(x.transpose(-1, 0), dim=0).transpose(-1, 0))
right("check_symmetric_loss", "numpy's diagonal, then torch")(
    lambda x, y, t: contrastive_loss(y, x, torch.tensor(np.float64(t)))
)
right("check_collate", "rows as a list")(
    lambda items: {
        "image_of_text": [row for row, item in enumerate(items) for _ in item["texts"]],
        "images": torch.cat([item["image"][None] for item in items]),
        "texts": functools.reduce(lambda texts, item: [*texts, *item["texts"]], items, []),
    }
)


def cosines(x, y):
    return F.normalize(x) @ F.normalize(y).T


@wrong("check_captions_to_keep", "looks at the left and upper edges only", "left and upper")
def keep_by_corner(captions, boxes, crop):
    lost = {name for name, box in boxes.items() if box[0] < crop[0] or box[1] < crop[1]}
    return [caption for caption in captions if not lost & set(caption.replace(",", "").split())]


@wrong("check_effective_negatives_of_batch", "0 times ln 0, in one stack", "0 \\* ln 0")
def entropy_without_care(x, y, t):
    p = torch.stack([(cosines(x, y) / t).softmax(1), (cosines(y, x) / t).softmax(1)])
    return torch.exp(-(p * torch.log(p)).sum(2)).mean()


@wrong("check_repulsion_shares", "subtracts the match from the sum, which leaves 0", "nothing is left to divide by")
def shares_by_exponentials(s, t):
    e = torch.exp(s / t)
    e[range(len(e)), range(len(e))] = 0
    return e / (torch.exp(s / t).sum(1) - torch.exp(s / t).diagonal())[:, None]


@wrong("check_repulsion_shares", "divides columns", re.escape("(1 - p.diagonal())[:, None]"))
def shares_of_columns(s, t):
    p = (s / t).softmax(1)
    return (p / (1 - p.diagonal())).fill_diagonal_(0)


@wrong("check_training_step", "no backward", "the parameters never change")
def step_without_backward(model, optimizer, batch, temperature):
    loss = contrastive_loss(*model(batch["images"], batch["token_ids"], batch["padding"]), temperature)
    optimizer.step()
    return loss.item()


@wrong("check_training_step", "an optimizer of its own in every step", "expected")
def step_with_new_optimizer(model, optimizer, batch, temperature):
    return step_in_another_order(model, torch.optim.AdamW(model.parameters(), lr=0.05), batch, temperature)


@wrong("check_training_step", "returns the features too", "tuple")
def step_with_features(model, optimizer, batch, temperature):
    return step_in_another_order(model, optimizer, batch, temperature), model


@wrong("check_training_step", "leaves out the last pair", "expected")
def step_without_last_pair(model, optimizer, batch, temperature):
    return step_in_another_order(model, optimizer, {name: part[:-1] for name, part in batch.items()}, temperature)


@wrong("check_sigmoid_loss_in_blocks", "matches begin at column 0", "the matches begin at column 0")
def matches_from_column_0(x, y, temperature, bias, block):
    total = 0
    for rows in x.split(block):
        signs = 2 * torch.eye(len(rows), len(y)) - 1
        total = total - F.logsigmoid(signs * (rows @ y.T / temperature + bias)).sum()
    return total / len(x)


@wrong("check_sigmoid_loss_in_blocks", "blocks of columns, but all logits first", "stopped.*more than block rows")
def slices_of_the_whole_matrix(x, y, temperature, bias, block):
    logits = x @ y.T / temperature + bias
    signs = 2 * torch.eye(len(x)) - 1
    return sum(
        -F.logsigmoid(signs[i : i + block] * logits[i : i + block]).sum() for i in range(0, len(x), block)
    ) / len(x)


@wrong("check_collate", "default_collate", "number of captions")
def collate_by_library(items):
    return default_collate(items)


@wrong("check_collate", "shuffles the texts", "order is wrong")
def collate_shuffled(items):
    batch = {"images": torch.stack([i["image"] for i in items]), "texts": sum((i["texts"] for i in items), [])}  # noqa: RUF017
    return batch | {
        "texts": batch["texts"][::-1],
        "image_of_text": [r for r, i in enumerate(items) for _ in i["texts"]],
    }


@wrong("check_multi_positive_loss", "the diagonal by hand; fails where the table is not square", "only the diagonal")
def diagonal_by_index(logits, image_ids, text_image_ids):
    own = torch.arange(max(logits.shape))
    return -(logits.log_softmax(1)[own, own].mean() + logits.log_softmax(0)[own, own].mean()) / 2


@wrong("check_recall_at_k", "a share, in a row of Python", "in percent")
def share_of_rows(similarity, image_of_caption, k):
    rows = torch.arange(len(similarity))[:, None]
    return (image_of_caption[similarity.topk(k).indices] == rows).any(1).double().mean().item()


@wrong("check_mask_same_image", "the ids are used as positions", "position")
def mask_by_position(logits, image_ids):
    masked = logits.clone()
    masked[image_ids, image_ids] = -torch.inf
    return masked


@wrong("check_symmetric_loss", "a random half of the pairs", "random state")
def loss_of_random_pairs(images, texts, temperature):
    chosen = torch.randperm(len(images))[: len(images) // 2]
    return contrastive_loss(images[chosen], texts[chosen], temperature)


@wrong("check_pad", "sorts the rows by length first", "input|order")
def pad_sorted(lists):
    lists.sort(key=len)
    return pad_by_loops(lists)


@wrong("check_cosine_schedule", "adds noise", "Python's random state")
def schedule_with_noise(progress, start, end):
    return float(schedule(progress, start, end)) + 1e-9 * random.random()


wrong("check_pad", "one tensor of all rows", "length")(lambda lists: torch.tensor(lists))
wrong("check_pad", "both parts as floats", "torch.int64")(lambda lists: [part.float() for part in pad_by_loops(lists)])
wrong("check_captions_to_keep", "a set of all captions", "a list, got set")(lambda captions, boxes, crop: set(captions))
wrong("check_captions_to_keep", "a generator", "a list, got generator")(lambda captions, *_: (c for c in captions))
wrong("check_l2_normalize", "the library's default dimension", "right for \\[batch, dim\\] only")(
    lambda x: F.normalize(x)
)
wrong("check_l2_normalize", "keepdim forgotten", "keepdim")(lambda x: x / x.norm(dim=-1))
wrong("check_l2_normalize", "an array of numpy", "no gradient")(
    lambda x: x.detach().numpy() / np.maximum(np.linalg.norm(x.detach().numpy(), axis=-1, keepdims=True), 1e-12)
)
wrong("check_l2_normalize", "only the largest lengths are divided", "factor")(
    lambda x: x / x.norm(dim=-1, keepdim=True).clamp_min(3.0)
)
wrong("check_symmetric_loss", "dot products, one direction", "expected")(
    lambda x, y, t: F.cross_entropy(x @ y.T / t, torch.arange(len(x)))
)
wrong("check_symmetric_loss", "one direction, by the library", "image to text only")(
    lambda x, y, t: one_way_contrastive_loss(x, y, t, True)
)
wrong("check_symmetric_loss", "a Python float", "cannot train a model")(
    lambda x, y, t: contrastive_loss(x, y, t).item()
)
wrong("check_symmetric_loss", "texts without gradient", "cannot train a model")(
    lambda x, y, t: contrastive_loss(x, y.detach(), t)
)
wrong("check_symmetric_loss", "temperature 1", "does not depend on .*temperature")(
    lambda x, y, t: contrastive_loss(x, y, 1.0)
)
wrong("check_symmetric_loss", "six labels, the size of one batch", "six|size of one batch")(
    lambda x, y, t: F.cross_entropy(cosines(x, y) / t, torch.arange(6))
)
wrong("check_symmetric_loss", "on a device without values", "got a torch.meta")(
    lambda x, y, t: contrastive_loss(x, y, t).to("meta")
)
wrong("check_mask_same_image", "twice the logits", "2 times")(lambda z, ids: 2 * mask_by_loops(z, ids))
wrong("check_mask_same_image", "detached", "no gradient")(lambda z, ids: mask_by_loops(z.detach(), ids))
wrong("check_multi_positive_loss", "a number of Python", "no gradient")(lambda *x: multi_positive_by_library(*x).item())
wrong("check_multi_positive_loss", "labels on the diagonal", "only the diagonal")(
    lambda z, ids, text_ids: (
        (F.cross_entropy(z, torch.arange(len(z))) + F.cross_entropy(z.T, torch.arange(z.shape[1]))) / 2
    )
)
wrong("check_effective_negatives_of_batch", "images only", "image to text only")(
    lambda x, y, t: torch.special.entr((cosines(x, y) / t).softmax(1)).sum(1).exp().mean()
)
wrong("check_repulsion_shares", "rounded to two digits", "expected")(
    lambda s, t: torch.tensor(shares_by_loops(s, t)).round(decimals=2)
)
wrong("check_cosine_schedule", "always start", "does not depend on .*progress")(lambda p, start, end: start)
wrong("check_cosine_schedule", "the wrong error", "raise a ValueError")(
    lambda p, start, end: schedule(p, start, end) if 0 <= p <= 1 else {}[p]
)
wrong("check_pool_regions", "pooled by the library", "not flattened")(F.adaptive_avg_pool2d)
wrong("check_pool_regions", "mean of the map", "the whole map is averaged")(lambda maps, grid: maps.mean((2, 3)))
wrong("check_pool_regions", "three channels", "channels")(
    lambda maps, grid: F.adaptive_avg_pool2d(maps, grid).view(-1, 3 * grid * grid) + torch.zeros(2, 1)
)
wrong("check_token_wise_similarity", "without gradient", "no gradient")(lambda *x: token_wise_by_loops(*x).detach())
wrong("check_multi_scale_loss", "weights ignored", "weights are not used")(
    lambda x, y, t, w: multi_scale_by_library(x, y, t, None)
)
wrong("check_multi_scale_loss", "first scale, no weights given", "None\\) stopped")(
    lambda x, y, t, w: (
        w[0] * contrastive_loss(x[0], y[0], t)
        + w[1] * contrastive_loss(x[1], y[1], t)
        + sum(w[k] * contrastive_loss(x[k], y[k], t) for k in range(2, len(x)))
    )
)
wrong("check_multi_scale_loss", "a number of Python", "cannot train a model")(
    lambda *x: multi_scale_by_library(*x).item()
)
wrong("check_multi_scale_loss", "mean without weights", "without weights this is the mean")(
    lambda x, y, t, w: multi_scale_by_library(x, y, t, w or [1 / len(x)] * len(x))
)
wrong("check_training_step", "prints the loss", "is a return missing")(lambda *x: print(step_in_another_order(*x)))
wrong("check_recall_at_k", "all captions instead of k", "does not depend on .*k")(
    lambda s, owner, k: recall_by_loops(s, owner, s.shape[1])
)
wrong("check_merge_ranks", "totals added as they are", "scale their sums")(lambda m, t: m.amax(0) + t.sum(0).log())
wrong("check_merge_ranks", "uses logsumexp of the largest", "does not depend on .*totals")(lambda m, t: m.logsumexp(0))
wrong("check_sigmoid_loss_in_blocks", "a Python float", "cannot train a model")(lambda *x: sigmoid_by_loops(*x).item())
wrong("check_power", "no effect", "effect is not used")(lambda noise, effect: power_by_scipy(noise, 0))
wrong("check_sign_flip_p_value", "one half of it", "0.5 times")(lambda d: p_value_by_scipy(d) / 2)


@right("check_classify", "by loops")
def classify_by_loops(images, prompts):
    means = [sum(prompt / prompt.norm() for prompt in own) for own in prompts]
    scores = [[float(image @ mean / mean.norm()) for mean in means] for image in images]
    return torch.tensor([max(range(len(means)), key=row.__getitem__) for row in scores])


@right("check_suspects", "sorted pairs")
def suspects_by_sorting(train, test, count):
    pairs = list(itertools.product(range(len(test)), range(len(train))))
    pairs.sort(key=lambda pair: -F.cosine_similarity(test[pair[0]], train[pair[1]], dim=0))
    return torch.tensor(pairs[:count])


wrong("check_classify", "dot products", "the label needs the largest cosine")(lambda x, p: (x @ p.mean(1).T).argmax(1))
wrong("check_classify", "floats", "torch.int64")(lambda x, p: classify_by_loops(x, p).float())
wrong("check_suspects", "train and test exchanged", "the row of the test image comes first")(
    lambda x, y, k: suspects_by_sorting(y, x, k)
)
wrong("check_suspects", "the first pair only", "the shape")(lambda x, y, k: suspects_by_sorting(x, y, k)[0])
