"""Answers written from the exercise texts alone, before their author had seen any check or solution.

`wrong(check, mistake, words)` adds an answer that the check must reject; its message names the mistake if it matches
the regular expression `words`. `right(check, style)` adds an answer that the check must accept.

Four answers written as wrong turned out to be right by the text of their exercise, and two written as right to be
wrong. They changed sides. Where a message named a mistake in unforeseen words, the words were changed.
"""
# ruff: noqa: F811

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from helpers.losses import contrastive_loss

WRONG: list[tuple] = []
RIGHT: list[tuple] = []


def wrong(check: str, mistake: str, words: str):
    def add(answer):
        WRONG.append((check, mistake, words, answer))
        return answer

    return add


def right(check: str, style: str):
    def add(answer):
        RIGHT.append((check, style, answer))
        return answer

    return add


# 00: lowest loss, what the search ignores
wrong("check_lowest_loss", "the default 0.07", "lower|higher|smaller|larger|left|right")(0.07)
wrong("check_lowest_loss", "the right end of the slider", "lower|higher|smaller|larger|left|high")(1.0)
wrong("check_lowest_loss", "a text instead of a number", "number|quot|string|text")("0.1")
wrong("check_lowest_loss", "the logit scale 1 / temperature", "temperature|1 ?/|scale|between|range|slider")(14.3)
wrong("check_lowest_loss", "a function instead of its value", "number|attribute|value")(
    lambda explorer: explorer.temperature
)
wrong("check_what_search_ignores", "believes that the search is exact", "are all six drawings right")("a")
wrong("check_what_search_ignores", "believes that only the first thing counts", "second thing counts")("c")
wrong("check_what_search_ignores", "believes that colours do not count", "colou?r")("d")
wrong("check_what_search_ignores", "the sentence instead of its letter", "answer with one of a, b, c, d")(
    "It finds single things well"
)
right("check_what_search_ignores", "capital letter")("B")
right("check_what_search_ignores", "letter with a space")(" b ")


# 01: pad
@wrong("check_pad", "fills up at the start", "start|left|end|front|begin")
def pad(token_lists):
    longest = max(len(row) for row in token_lists)
    ids = torch.zeros(len(token_lists), longest, dtype=torch.long)
    padding = torch.ones(len(token_lists), longest, dtype=torch.bool)
    for i, row in enumerate(token_lists):
        ids[i, longest - len(row) :] = torch.tensor(row)
        padding[i, longest - len(row) :] = False
    return ids, padding


@wrong("check_pad", "padding from the zeros", "zero|0|length")
def pad(token_lists):
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in token_lists], batch_first=True
    )
    return ids, ids == 0


@wrong("check_pad", "mask the wrong way round", "other way|invert|True|opposite|revers|negat|swap")
def pad(token_lists):
    longest = max(map(len, token_lists))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in token_lists])
    return ids, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in token_lists])


@wrong("check_pad", "appends to the learner's input", "input|change|modif|copy|in place")
def pad(token_lists):
    lengths = [len(row) for row in token_lists]
    longest = max(lengths)
    for row in token_lists:
        while len(row) < longest:
            row.append(0)
    return torch.tensor(token_lists), torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]


@wrong("check_pad", "float ids from torch.zeros", "int64|dtype|float|long|whole")
def pad(token_lists):
    longest = max(map(len, token_lists))
    ids, padding = torch.zeros(len(token_lists), longest), torch.ones(len(token_lists), longest, dtype=torch.bool)
    for i, row in enumerate(token_lists):
        ids[i, : len(row)] = torch.tensor(row)
        padding[i, : len(row)] = False
    return ids, padding


@wrong("check_pad", "mask of 0 and 1", "bool|dtype")
def pad(token_lists):
    longest = max(map(len, token_lists))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in token_lists])
    return ids, torch.tensor([[0] * len(row) + [1] * (longest - len(row)) for row in token_lists])


@wrong("check_pad", "returns lists", "must return tensors")
def pad(token_lists):
    longest = max(map(len, token_lists))
    ids = [row + [0] * (longest - len(row)) for row in token_lists]
    return ids, [[False] * len(row) + [True] * (longest - len(row)) for row in token_lists]


@wrong("check_pad", "returns only the ids", "two|padding|tuple|both|pair")
def pad(token_lists):
    longest = max(map(len, token_lists))
    return torch.tensor([row + [0] * (longest - len(row)) for row in token_lists])


@wrong("check_pad", "mask off by one", "one|early|late|last|first|off")
def pad(token_lists):
    longest = max(map(len, token_lists))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in token_lists])
    return ids, torch.arange(longest)[None] > torch.tensor([len(row) for row in token_lists])[:, None]


@wrong("check_pad", "fixed length 16", "longest|length|shape|fixed|width")
def pad(token_lists):
    ids, padding = (
        torch.zeros(len(token_lists), 16, dtype=torch.long),
        torch.ones(len(token_lists), 16, dtype=torch.bool),
    )
    for i, row in enumerate(token_lists):
        ids[i, : len(row)] = torch.tensor(row)
        padding[i, : len(row)] = False
    return ids, padding


@wrong("check_pad", "takes the length of the first row", "longest|first row")
def pad(token_lists):
    longest = len(token_lists[0])
    ids = torch.tensor([(row + [0] * longest)[:longest] for row in token_lists])
    return ids, torch.arange(longest)[None] >= torch.tensor([len(row) for row in token_lists])[:, None]


@wrong("check_pad", "batch second, as pad_sequence does by default", "batch|transpos|shape|first|swap")
def pad(token_lists):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in token_lists])
    return ids, torch.arange(len(ids))[:, None] >= torch.tensor([len(row) for row in token_lists])[None]


@right("check_pad", "loop over elements")
def pad(token_lists):
    longest = max(len(row) for row in token_lists)
    ids = torch.zeros(len(token_lists), longest, dtype=torch.int64)
    padding = torch.zeros(len(token_lists), longest, dtype=torch.bool)
    for i, row in enumerate(token_lists):
        for j in range(longest):
            if j < len(row):
                ids[i, j] = row[j]
            else:
                padding[i, j] = True
    return ids, padding


@right("check_pad", "numpy and back, tuple as a list")
def pad(token_lists):
    lengths = np.array([len(row) for row in token_lists])
    padding = np.arange(lengths.max())[None] >= lengths[:, None]
    ids = np.zeros(padding.shape, dtype=np.int64)
    ids[~padding] = [token for row in token_lists for token in row]
    return [torch.from_numpy(ids), torch.from_numpy(padding)]


@right("check_pad", "zip_longest with a marker")
def pad(token_lists):
    rows = list(zip(*itertools.zip_longest(*token_lists), strict=True))
    ids = torch.tensor([[0 if token is None else token for token in row] for row in rows])
    return ids, torch.tensor([[token is None for token in row] for row in rows])


@right("check_pad", "pad_sequence")
def pad(token_lists):
    rows = [torch.tensor(row, dtype=torch.long) for row in token_lists]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return ids, torch.arange(ids.shape[1]) >= torch.tensor([len(row) for row in rows]).unsqueeze(1)


# 01: the bug of the collate function, a larger batch
wrong("check_learns_no_words", "believes that the stack is wrong", "stack|B, 3|first|dimension")("a")
wrong("check_learns_no_words", "believes that shuffling separates pairs", "shuffl|together|pair|item")("b")
wrong("check_learns_no_words", "believes that the mask hides words", "mask|padding|hid")("d")
wrong("check_larger_batch", "believes that the number stays", "share|grow|more|times|4")("a")
wrong("check_larger_batch", "multiplies twice", "share|twice|16|four|4")("c")
wrong("check_larger_batch", "believes in fewer false negatives", "more|grow|share|exact")("d")
right("check_learns_no_words", "capital letter")("C")


# 01: collate all captions
def _collate(items, image_of_text, texts=None):
    texts = [text for item in items for text in item["texts"]] if texts is None else texts
    return {"images": torch.stack([item["image"] for item in items]), "texts": texts, "image_of_text": image_of_text}


def _owners(items):
    return [row for row, item in enumerate(items) for _ in item["texts"]]


wrong("check_collate", "image_id of the data set instead of the row", "image_id|row|0 to|position|batch")(
    lambda items: _collate(items, torch.tensor([item["image_id"] for item in items for _ in item["texts"]]))
)
wrong("check_collate", "only the first caption of each item", "all|first|every|caption")(
    lambda items: _collate(items, torch.arange(len(items)), [item["texts"][0] for item in items])
)
wrong("check_collate", "nested texts", "flat|nested|list of lists|append|extend")(
    lambda items: _collate(items, torch.tensor(_owners(items)), [item["texts"] for item in items])
)
wrong("check_collate", "same number of captions for all, from the first item", "differ|number|each|own|len")(
    lambda items: _collate(items, torch.arange(len(items)).repeat_interleave(len(items[0]["texts"])))
)
wrong("check_collate", "concatenates the images", "stack|cat|shape|B, 3|dimension|4")(
    lambda items: _collate(items, _owners(items)) | {"images": torch.cat([item["image"] for item in items])}
)
wrong("check_collate", "images as a list", "stack|tensor|list")(
    lambda items: _collate(items, _owners(items)) | {"images": [item["image"] for item in items]}
)
wrong("check_collate", "the key is called image", "key|images")(
    lambda items: {
        "image": torch.stack([item["image"] for item in items]),
        "texts": [text for item in items for text in item["texts"]],
        "image_of_text": _owners(items),
    }
)
wrong("check_collate", "rows counted from 1", "from 0")(
    lambda items: _collate(items, [row + 1 for row in _owners(items)])
)
wrong("check_collate", "first captions of all items first", "order|first|item|interleav|before")(
    lambda items: _collate(
        items,
        [i for k in range(max(len(x["texts"]) for x in items)) for i, x in enumerate(items) if k < len(x["texts"])],
        [x["texts"][k] for k in range(max(len(x["texts"]) for x in items)) for x in items if k < len(x["texts"])],
    )
)
wrong("check_collate", "forgets return", "None|return")(lambda items: _collate(items, _owners(items)) and None)
wrong("check_collate", "returns a tuple", "dict|tuple|key")(
    lambda items: tuple(_collate(items, _owners(items)).values())
)
wrong("check_collate", "number of captions instead of the rows", "row|each caption|owner|one per|length|number")(
    lambda items: _collate(items, torch.tensor([len(item["texts"]) for item in items]))
)


@right("check_collate", "loops and append")
def collate_all(items):
    texts, image_of_text, images = [], [], []
    for i in range(len(items)):
        images.append(items[i]["image"].unsqueeze(0))
        for text in items[i]["texts"]:
            texts.append(text)
            image_of_text.append(i)
    return {"texts": texts, "image_of_text": image_of_text, "images": torch.cat(images, dim=0)}


@right("check_collate", "repeat_interleave, int32")
def collate_all(items):
    counts = torch.tensor([len(item["texts"]) for item in items])
    rows = torch.repeat_interleave(torch.arange(len(items)), counts).int()
    return _collate(items, rows, list(itertools.chain.from_iterable(item["texts"] for item in items)))


@right("check_collate", "numpy rows, extra key")
def collate_all(items):
    rows = np.concatenate([np.full(len(item["texts"]), row) for row, item in enumerate(items)])
    return _collate(items, torch.from_numpy(rows)) | {"image_ids": [item["image_id"] for item in items]}


# 01: captions to keep
def _inside(box, crop):
    return box[0] >= crop[0] and box[1] >= crop[1] and box[2] <= crop[2] and box[3] <= crop[3]


wrong("check_captions_to_keep", "looks for parts of words", "whole|catalogue|word|part")(
    lambda captions, boxes, crop: [
        c for c in captions if all(_inside(box, crop) for name, box in boxes.items() if name in c)
    ]
)
wrong("check_captions_to_keep", "any thing inside is enough", "all|every|any|one")(
    lambda captions, boxes, crop: [
        c
        for c in captions
        if not set(c.split()) & set(boxes) or any(_inside(boxes[w], crop) for w in c.split() if w in boxes)
    ]
)
wrong("check_captions_to_keep", "drops a caption that names nothing", "none|nothing|no thing|names no")(
    lambda captions, boxes, crop: [
        c
        for c in captions
        if (things := [w for w in c.split() if w in boxes]) and all(_inside(boxes[w], crop) for w in things)
    ]
)
wrong("check_captions_to_keep", "an edge that touches counts as outside", "touch|edge|<=|equal")(
    lambda captions, boxes, crop: [
        c
        for c in captions
        if all(
            b[0] > crop[0] and b[1] > crop[1] and b[2] < crop[2] and b[3] < crop[3]
            for w, b in boxes.items()
            if w in c.split()
        )
    ]
)
wrong("check_captions_to_keep", "overlap is enough", "complet|overlap|cut|inside|part")(
    lambda captions, boxes, crop: [
        c
        for c in captions
        if all(
            b[0] < crop[2] and b[2] > crop[0] and b[1] < crop[3] and b[3] > crop[1]
            for w, b in boxes.items()
            if w in c.split()
        )
    ]
)
wrong(
    "check_captions_to_keep",
    "compares only the left and the right edge",
    "top|bottom|vertical|above|below|all four|side",
)(
    lambda captions, boxes, crop: [
        c for c in captions if all(boxes[w][0] >= crop[0] and boxes[w][2] <= crop[2] for w in c.split() if w in boxes)
    ]
)
wrong("check_captions_to_keep", "the crop must lie inside the box", "inside|other way|swap|within|revers")(
    lambda captions, boxes, crop: [c for c in captions if all(_inside(crop, boxes[w]) for w in c.split() if w in boxes)]
)
wrong("check_captions_to_keep", "crop read as left, top, width, height", "width|right|bottom|height")(
    lambda captions, boxes, crop: [
        c
        for c in captions
        if all(
            _inside(boxes[w], (crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3])) for w in c.split() if w in boxes
        )
    ]
)
wrong("check_captions_to_keep", "a set loses the order", "order|list|set")(
    lambda captions, boxes, crop: {c for c in captions if all(_inside(boxes[w], crop) for w in c.split() if w in boxes)}
)
wrong("check_captions_to_keep", "returns True and False", "True and False|bool")(
    lambda captions, boxes, crop: [all(_inside(boxes[w], crop) for w in c.split() if w in boxes) for c in captions]
)


@wrong("check_captions_to_keep", "removes from the list while it loops", "input|change|remove|modif|loop|new")
def captions_to_keep(captions, boxes, crop):
    for caption in captions:
        for word in caption.split():
            if word in boxes and not _inside(boxes[word], crop):
                captions.remove(caption)
                break
    return captions


@wrong("check_captions_to_keep", "return inside the loop", "first|return|early|all captions|loop")
def captions_to_keep(captions, boxes, crop):
    kept = []
    for caption in captions:
        if all(_inside(boxes[word], crop) for word in caption.split() if word in boxes):
            kept.append(caption)
        return kept


@wrong("check_captions_to_keep", "split() in loops with a flag leaves the comma", "comma")
def captions_to_keep(captions, boxes, crop):
    result = []
    for caption in captions:
        keep = True
        for word in caption.split(" "):
            if word in boxes:
                left, top, right_, bottom = boxes[word]
                if left < crop[0] or top < crop[1] or right_ > crop[2] or bottom > crop[3]:
                    keep = False
        if keep:
            result.append(caption)
    return result


@wrong("check_captions_to_keep", "split() with filter leaves the comma", "comma")
def captions_to_keep(captions, boxes, crop):
    lost = {n for n, b in boxes.items() if min(b[0] - crop[0], b[1] - crop[1], crop[2] - b[2], crop[3] - b[3]) < 0}
    return list(filter(lambda caption: lost.isdisjoint(caption.split()), captions))


# 02: l2_normalize
wrong("check_l2_normalize", "norm over the batch dimension", "last|dim|axis|batch")(
    lambda features: features / features.norm(dim=0, keepdim=True).clamp_min(1e-12)
)
wrong("check_l2_normalize", "dim=1 is not the last dimension of [batch, words, dim]", "last|dim|words|-1")(
    lambda features: features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)
)
wrong("check_l2_normalize", "one norm for the tensor", "each|one|every vector|dim|whole|all")(
    lambda features: features / features.norm().clamp_min(1e-12)
)
wrong("check_l2_normalize", "divides by zero", "zero|nan")(
    lambda features: features / features.norm(dim=-1, keepdim=True)
)
wrong("check_l2_normalize", "forgets the square root", "root|square|length")(
    lambda features: features / features.pow(2).sum(-1, keepdim=True).clamp_min(1e-12)
)
wrong("check_l2_normalize", "L1 norm", "L1|abs|sum|square|length")(
    lambda features: features / features.abs().sum(-1, keepdim=True).clamp_min(1e-12)
)
wrong("check_l2_normalize", "standardises", "mean|subtract|standard|std")(
    lambda features: (features - features.mean(-1, keepdim=True)) / features.std(-1, keepdim=True).clamp_min(1e-12)
)
wrong("check_l2_normalize", "softmax", "softmax|negative|sum|length")(lambda features: features.softmax(-1))
wrong("check_l2_normalize", "large epsilon", "epsilon|eps|small|length|short")(
    lambda features: features / (features.norm(dim=-1, keepdim=True) + 0.1)
)
wrong("check_l2_normalize", "max instead of length", "largest|max|length|square")(
    lambda features: features / features.abs().amax(-1, keepdim=True).clamp_min(1e-12)
)


@wrong("check_l2_normalize", "divides in place", "input|in place|change|modif|new")
def l2_normalize(features):
    features /= features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return features


@wrong("check_l2_normalize", "detached by numpy", "gradient|detach|numpy|graph")
def l2_normalize(features):
    array = features.detach().numpy()
    length = np.linalg.norm(array, axis=-1, keepdims=True)
    return torch.from_numpy(array / np.where(length == 0, 1, length))


right("check_l2_normalize", "einsum and where")(
    lambda features: (
        features
        / torch.where((n := torch.einsum("...d,...d->...", features, features)) > 0, n, torch.ones_like(n)).sqrt()[
            ..., None
        ]
    )
)
right("check_l2_normalize", "float64 inside")(
    lambda features: (
        features.double() / features.double().square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)
    ).to(features.dtype)
)
right("check_l2_normalize", "vector_norm, small epsilon added")(
    lambda features: features / (torch.linalg.vector_norm(features, dim=features.dim() - 1, keepdim=True) + 1e-12)
)


@right("check_l2_normalize", "loop over vectors")
def l2_normalize(features):
    rows = []
    for vector in features.reshape(-1, features.shape[-1]):
        length = (vector**2).sum() ** 0.5 if vector.any() else 1.0
        rows.append(vector / length)
    return torch.stack(rows).reshape(features.shape)


# 02: symmetric_loss
def _logits(x, y, temperature):
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / temperature


def _two(logits, targets=None):
    targets = torch.arange(len(logits)) if targets is None else targets
    return F.cross_entropy(logits, targets), F.cross_entropy(logits.T, targets)


wrong("check_symmetric_loss", "one direction only", "direction|one-way|column|text")(
    lambda x, y, temperature: _two(_logits(x, y, temperature))[0]
)
wrong("check_symmetric_loss", "the other direction only", "direction|one-way|row|image")(
    lambda x, y, temperature: _two(_logits(x, y, temperature))[1]
)
wrong("check_symmetric_loss", "sum instead of mean of the directions", "sum|mean|twice|half|2")(
    lambda x, y, temperature: sum(_two(_logits(x, y, temperature)))
)
wrong("check_symmetric_loss", "forgets to normalise", "normali")(
    lambda x, y, temperature: sum(_two(x @ y.T / temperature)) / 2
)
wrong("check_symmetric_loss", "normalises only the images", "normali|both|text")(
    lambda x, y, temperature: sum(_two(F.normalize(x, dim=-1) @ y.T / temperature)) / 2
)
wrong("check_symmetric_loss", "normalises the wrong dimension", "normali|dim")(
    lambda x, y, temperature: sum(_two(F.normalize(x, dim=0) @ F.normalize(y, dim=0).T / temperature)) / 2
)
wrong("check_symmetric_loss", "multiplies by the temperature", "divid|multipl|temperature")(
    lambda x, y, temperature: sum(_two(_logits(x, y, 1 / temperature))) / 2
)
wrong("check_symmetric_loss", "ignores the temperature", "temperature")(
    lambda x, y, temperature: sum(_two(_logits(x, y, 0.07))) / 2
)
wrong("check_symmetric_loss", "sum over the batch", "sum|mean|batch")(
    lambda x, y, temperature: (
        (
            F.cross_entropy(_logits(x, y, temperature), torch.arange(len(x)), reduction="sum")
            + F.cross_entropy(_logits(y, x, temperature), torch.arange(len(x)), reduction="sum")
        )
        / 2
    )
)
wrong("check_symmetric_loss", "fixed batch of 64", "stopped.*\\(64\\)")(
    lambda x, y, temperature: sum(_two(_logits(x, y, temperature), torch.arange(64))) / 2
)
wrong("check_symmetric_loss", "returns a Python float", "tensor|item|float|gradient")(
    lambda x, y, temperature: (sum(_two(_logits(x, y, temperature))) / 2).item()
)
wrong("check_symmetric_loss", "detached text features", "gradient|detach")(
    lambda x, y, temperature: sum(_two(_logits(x, y.detach(), temperature))) / 2
)
wrong("check_symmetric_loss", "no gradient at all", "gradient|detach|no_grad")(
    lambda x, y, temperature: (sum(_two(_logits(x, y, temperature))) / 2).detach()
)
wrong("check_symmetric_loss", "softmax before cross entropy", "softmax|logits|twice")(
    lambda x, y, temperature: sum(_two(_logits(x, y, temperature).softmax(1))) / 2
)
wrong("check_symmetric_loss", "the same direction twice", "direction|transpos|twice|column|same")(
    lambda x, y, temperature: (2 * _two(_logits(x, y, temperature))[0]) / 2
)
wrong("check_symmetric_loss", "one value per pair", "one number|mean|dimension|shape|scalar|per pair")(
    lambda x, y, temperature: (
        (
            F.cross_entropy(_logits(x, y, temperature), torch.arange(len(x)), reduction="none")
            + F.cross_entropy(_logits(y, x, temperature), torch.arange(len(x)), reduction="none")
        )
        / 2
    )
)
wrong("check_symmetric_loss", "sign turned round", "always -1 times")(
    lambda x, y, temperature: -sum(_two(_logits(x, y, temperature))) / 2
)


@right("check_symmetric_loss", "exp and log by hand; at the lowest temperatures they would overflow, which nobody asks")
def symmetric_loss(image_features, text_features, temperature):
    similarity = torch.exp(_logits(image_features, text_features, temperature))
    rows = -torch.log(similarity.diag() / similarity.sum(1)).mean()
    return (rows - torch.log(similarity.diag() / similarity.sum(0)).mean()) / 2


@wrong("check_symmetric_loss", "negatives without the own pair in the denominator", "denominator|own|match|diagonal")
def symmetric_loss(image_features, text_features, temperature):
    logits = _logits(image_features, text_features, temperature)
    others = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    return ((others.logsumexp(1) - logits.diag()).mean() + (others.logsumexp(0) - logits.diag()).mean()) / 2


@right("check_symmetric_loss", "log-sum-exp minus diagonal")
def symmetric_loss(image_features, text_features, temperature):
    logits = _logits(image_features, text_features, temperature)
    return (logits.logsumexp(0) + logits.logsumexp(1)).mean() / 2 - logits.diagonal().mean()


@right("check_symmetric_loss", "loop over pairs, cosine_similarity")
def symmetric_loss(image_features, text_features, temperature):
    total, n = 0.0, len(image_features)
    for i in range(n):
        row = F.cosine_similarity(image_features[i][None], text_features, dim=-1) / temperature
        column = F.cosine_similarity(text_features[i][None], image_features, dim=-1) / temperature
        total = total - row.log_softmax(0)[i] - column.log_softmax(0)[i]
    return total / (2 * n)


@right("check_symmetric_loss", "float64, returned as float64")
def symmetric_loss(image_features, text_features, temperature):
    return sum(_two(_logits(image_features.double(), text_features.double(), temperature))) / 2


@right("check_symmetric_loss", "einsum, scale on the features, texts first")
def symmetric_loss(image_features, text_features, temperature):
    x, y = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    logits = torch.einsum("td,id->ti", y * (1 / temperature), x)
    labels = torch.arange(logits.size(0), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, labels) + F.nll_loss(F.log_softmax(logits.t(), dim=1), labels))


# 02: mask_same_image
def _same(ids):
    return ids[:, None] == ids[None, :]


wrong("check_mask_same_image", "masks the diagonal too", "diagonal|own")(
    lambda logits, image_ids: logits.masked_fill(_same(image_ids), -torch.inf)
)
wrong("check_mask_same_image", "masks what should stay", "other way|differ|invert|opposite|negat")(
    lambda logits, image_ids: logits.masked_fill(~_same(image_ids), -torch.inf)
)
wrong("check_mask_same_image", "sets to zero", "inf|zero|0")(
    lambda logits, image_ids: logits.masked_fill(_same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool), 0.0)
)
wrong("check_mask_same_image", "-1e9 instead of -inf", "inf")(
    lambda logits, image_ids: logits.masked_fill(_same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool), -1e9)
)
wrong("check_mask_same_image", "plus infinity", "-inf|minus|sign|negative")(
    lambda logits, image_ids: logits.masked_fill(
        _same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool), torch.inf
    )
)
wrong("check_mask_same_image", "masks only above the diagonal", "both|below|triangle|symmetr|half")(
    lambda logits, image_ids: logits.masked_fill(_same(image_ids).triu(1), -torch.inf)
)
wrong("check_mask_same_image", "multiplies inf by zero", "times 0 is NaN")(
    lambda logits, image_ids: logits - (_same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool)) * torch.inf
)
wrong("check_mask_same_image", "the mask instead of the logits", "mask|logits|bool")(
    lambda logits, image_ids: _same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool)
)


@wrong("check_mask_same_image", "changes its input", "input|in place|change|new|clone|copy")
def mask_same_image(logits, image_ids):
    same = _same(image_ids)
    same.fill_diagonal_(False)
    logits[same] = -torch.inf
    return logits


@wrong("check_mask_same_image", "masked_fill_ without return", "None|return|input|in place|change")
def mask_same_image(logits, image_ids):
    logits.masked_fill_(_same(image_ids) & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)


@wrong("check_mask_same_image", "compares only neighbours", "all|every|neighbou?r|missing|not masked|stay")
def mask_same_image(logits, image_ids):
    result = logits.clone()
    for i in range(len(image_ids) - 1):
        if image_ids[i] == image_ids[i + 1]:
            result[i, i + 1] = result[i + 1, i] = -torch.inf
    return result


@right("check_mask_same_image", "double loop on a clone")
def mask_same_image(logits, image_ids):
    masked = logits.clone()
    for i in range(len(image_ids)):
        for j in range(len(image_ids)):
            if i != j and image_ids[i].item() == image_ids[j].item():
                masked[i, j] = float("-inf")
    return masked


@right("check_mask_same_image", "where, with positions")
def mask_same_image(logits, image_ids):
    own = torch.arange(len(logits))
    mask = (image_ids.view(-1, 1) - image_ids.view(1, -1) == 0) & (own[:, None] != own)
    return torch.where(mask, torch.full_like(logits, -math.inf), logits)


# 02: multi_positive_loss
def _fits(image_ids, text_image_ids):
    return (image_ids[:, None] == text_image_ids[None, :]).float()


def _soft(logits, fits):
    return F.cross_entropy(logits, fits / fits.sum(1, keepdim=True))


wrong("check_multi_positive_loss", "diagonal through cross entropy", "diagonal|arange|several|position")(
    lambda logits, image_ids, text_image_ids: sum(_two(logits, torch.arange(len(logits)))) / 2
)
wrong("check_multi_positive_loss", "targets not normalised", "share|sum to|divid|normali|half")(
    lambda logits, image_ids, text_image_ids: (
        (
            F.cross_entropy(logits, _fits(image_ids, text_image_ids))
            + F.cross_entropy(logits.T, _fits(image_ids, text_image_ids).T)
        )
        / 2
    )
)
wrong("check_multi_positive_loss", "one direction only", "direction|text|column")(
    lambda logits, image_ids, text_image_ids: _soft(logits, _fits(image_ids, text_image_ids))
)
wrong("check_multi_positive_loss", "sum of the directions", "sum|mean|half|twice")(
    lambda logits, image_ids, text_image_ids: (
        _soft(logits, _fits(image_ids, text_image_ids)) + _soft(logits.T, _fits(image_ids, text_image_ids).T)
    )
)
wrong(
    "check_multi_positive_loss",
    "targets of one direction transposed for the other",
    "column|transpos|direction|share|sum to",
)(
    lambda logits, image_ids, text_image_ids: (
        (
            F.cross_entropy(logits, t := (f := _fits(image_ids, text_image_ids)) / f.sum(1, keepdim=True))
            + F.cross_entropy(logits.T, t.T)
        )
        / 2
    )
)
wrong("check_multi_positive_loss", "only the first right text", "first|several|all right|one")(
    lambda logits, image_ids, text_image_ids: (
        (
            F.cross_entropy(logits, _fits(image_ids, text_image_ids).argmax(1))
            + F.cross_entropy(logits.T, _fits(image_ids, text_image_ids).argmax(0))
        )
        / 2
    )
)
wrong("check_multi_positive_loss", "log of the summed probability", "log|sum|mean of|inside|each")(
    lambda logits, image_ids, text_image_ids: (
        -(
            (logits.softmax(1) * _fits(image_ids, text_image_ids)).sum(1).log().mean()
            + (logits.softmax(0) * _fits(image_ids, text_image_ids)).sum(0).log().mean()
        )
        / 2
    )
)
wrong("check_multi_positive_loss", "softmax over the wrong axis", "dim|axis|direction|row|column")(
    lambda logits, image_ids, text_image_ids: (
        -((f := _fits(image_ids, text_image_ids)) / f.sum(1, keepdim=True) * logits.log_softmax(0)).sum(1).mean() / 2
        - (f / f.sum(0) * logits.log_softmax(1)).sum(0).mean() / 2
    )
)
wrong("check_multi_positive_loss", "ignores the ids, texts assumed in groups", "order|ids|text_image_ids|any")(
    lambda logits, image_ids, text_image_ids: (
        (
            _soft(
                logits,
                g := torch.eye(len(logits)).repeat_interleave(-(-logits.shape[1] // len(logits)), 1)[
                    :, : logits.shape[1]
                ],
            )
            + _soft(logits.T, g.T)
        )
        / 2
    )
)
wrong("check_multi_positive_loss", "mean over all entries", "mean|number of|divid|row|sum")(
    lambda logits, image_ids, text_image_ids: (
        -((f := _fits(image_ids, text_image_ids)) / f.sum(1, keepdim=True) * logits.log_softmax(1)).mean() / 2
        - (f / f.sum(0) * logits.log_softmax(0)).mean() / 2
    )
)
wrong("check_multi_positive_loss", "adds the directions, divides by all rows", "mean|direction|number")(
    lambda logits, image_ids, text_image_ids: (
        -(
            ((f := _fits(image_ids, text_image_ids)) / f.sum(1, keepdim=True) * logits.log_softmax(1)).sum()
            + (f / f.sum(0) * logits.log_softmax(0)).sum()
        )
        / sum(logits.shape)
    )
)
wrong("check_multi_positive_loss", "equal shares for all texts", "does not depend on .*image_ids")(
    lambda logits, image_ids, text_image_ids: (
        (_soft(logits, torch.ones_like(logits)) + _soft(logits.T, torch.ones_like(logits.T))) / 2
    )
)


@right("check_multi_positive_loss", "loops over both sides")
def multi_positive_loss(logits, image_ids, text_image_ids):
    rows, columns = [], []
    for i in range(logits.shape[0]):
        log_p = logits[i].log_softmax(0)
        rows.append(-log_p[text_image_ids == image_ids[i]].mean())
    for j in range(logits.shape[1]):
        log_p = logits[:, j].log_softmax(0)
        columns.append(-log_p[image_ids == text_image_ids[j]].mean())
    return (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2


@right("check_multi_positive_loss", "log-sum-exp minus the mean of the right logits, float64")
def multi_positive_loss(logits, image_ids, text_image_ids):
    z, fits = logits.double(), _fits(image_ids, text_image_ids).double()
    rows = z.logsumexp(1) - (z * fits).sum(1) / fits.sum(1)
    columns = z.logsumexp(0) - (z * fits).sum(0) / fits.sum(0)
    return 0.5 * rows.mean() + 0.5 * columns.mean()


wrong("check_find_the_bug", "the order of the letters", "log|step|noise|chance|start")("a")
wrong("check_find_the_bug", "a tuple instead of a letter", "answer with one of a, b, c, d")(("P", "R", "Q", "S"))


# 03: ten negatives
wrong("check_ten_negatives", "the number of negatives instead of a temperature", "temperature|number of|effective")(10)
wrong("check_ten_negatives", "the logit scale", "scale|1 ?/|temperature")(20.0)
wrong("check_ten_negatives", "temperature much too high", "high|large|many|lower|smaller")(0.5)
wrong("check_ten_negatives", "temperature much too low", "low|small|few|higher|larger")(0.01)
wrong("check_ten_negatives", "zero", "positive|0|above|greater|low")(0.0)
wrong("check_ten_negatives", "text", "number|quot|string|text")("0.05")


# 03: effective negatives of a batch
def _entropy(log_p, dim):
    return -(log_p.exp() * log_p).sum(dim)


wrong("check_effective_negatives_of_batch", "images choose only", "direction|text|column|both")(
    lambda x, y, t: _entropy(_logits(x, y, t).log_softmax(1), 1).exp().mean()
)
wrong("check_effective_negatives_of_batch", "exp of the mean entropy", "mean|exp|order|average")(
    lambda x, y, t: (
        (_entropy((z := _logits(x, y, t)).log_softmax(1), 1) + _entropy(z.log_softmax(0), 0)).mean() / 2
    ).exp()
)
wrong("check_effective_negatives_of_batch", "entropy without exp", "exp|entropy")(
    lambda x, y, t: (
        (_entropy((z := _logits(x, y, t)).log_softmax(1), 1).mean() + _entropy(z.log_softmax(0), 0).mean()) / 2
    )
)
wrong("check_effective_negatives_of_batch", "0 times log 0", "nan|log|0")(
    lambda x, y, t: (
        (
            (-((p := _logits(x, y, t).softmax(1)) * p.log()).sum(1)).exp().mean()
            + (-((q := _logits(x, y, t).softmax(0)) * q.log()).sum(0)).exp().mean()
        )
        / 2
    )
)
wrong("check_effective_negatives_of_batch", "not normalised", "normali")(
    lambda x, y, t: (
        (
            _entropy((x @ y.T / t).log_softmax(1), 1).exp().mean()
            + _entropy((x @ y.T / t).log_softmax(0), 0).exp().mean()
        )
        / 2
    )
)
wrong("check_effective_negatives_of_batch", "2 to the power of the entropy", "log2|2|base|exp")(
    lambda x, y, t: (
        (
            (2 ** _entropy((z := _logits(x, y, t)).log_softmax(1), 1)).mean()
            + (2 ** _entropy(z.log_softmax(0), 0)).mean()
        )
        / 2
    )
)
wrong("check_effective_negatives_of_batch", "2N values without mean", "mean|one number|dimension|shape")(
    lambda x, y, t: torch.cat(
        [_entropy((z := _logits(x, y, t)).log_softmax(1), 1), _entropy(z.log_softmax(0), 0)]
    ).exp()
)
wrong("check_effective_negatives_of_batch", "sum instead of mean", "sum|mean")(
    lambda x, y, t: (
        _entropy((z := _logits(x, y, t)).log_softmax(1), 1).exp().sum() + _entropy(z.log_softmax(0), 0).exp().sum()
    )
)
wrong("check_effective_negatives_of_batch", "sign of the entropy", "sign|minus|negative")(
    lambda x, y, t: (
        (
            (-_entropy((z := _logits(x, y, t)).log_softmax(1), 1)).exp().mean()
            + (-_entropy(z.log_softmax(0), 0)).exp().mean()
        )
        / 2
    )
)
wrong("check_effective_negatives_of_batch", "multiplies by the temperature", "divid|multipl|temperature")(
    lambda x, y, t: (
        (
            _entropy((z := _logits(x, y, 1 / t)).log_softmax(1), 1).exp().mean()
            + _entropy(z.log_softmax(0), 0).exp().mean()
        )
        / 2
    )
)
wrong("check_effective_negatives_of_batch", "one softmax over the matrix", "row|matrix|dim|each|flat")(
    lambda x, y, t: _entropy(_logits(x, y, t).flatten().log_softmax(0), 0).exp()
)
wrong("check_effective_negatives_of_batch", "epsilon of 1e-3 in the log", "eps|small|exact|log|too large|accura")(
    lambda x, y, t: (
        (
            (-((p := _logits(x, y, t).softmax(1)) * (p + 1e-3).log()).sum(1)).exp().mean()
            + (-((q := _logits(x, y, t).softmax(0)) * (q + 1e-3).log()).sum(0)).exp().mean()
        )
        / 2
    )
)


@right("check_effective_negatives_of_batch", "loop, torch.special.entr")
def effective_negatives_of_batch(image_features, text_features, temperature):
    logits, values = _logits(image_features, text_features, temperature), []
    for i in range(len(logits)):
        values.append(torch.special.entr(logits[i].softmax(0)).sum().exp())
        values.append(torch.special.entr(logits[:, i].softmax(0)).sum().exp())
    return torch.stack(values).mean()


@right("check_effective_negatives_of_batch", "numpy and back in float64")
def effective_negatives_of_batch(image_features, text_features, temperature):
    x, y = image_features.detach().double().numpy(), text_features.detach().double().numpy()
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    z, values = x @ y.T / temperature, []
    for rows in (z, z.T):
        p = np.exp(rows - rows.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
        values.append(np.exp(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)))
    return torch.tensor(np.mean(values))


@right("check_effective_negatives_of_batch", "xlogy on both directions concatenated")
def effective_negatives_of_batch(image_features, text_features, temperature):
    z = F.cosine_similarity(image_features[:, None], text_features[None], dim=-1) / temperature
    p = torch.cat([z.softmax(1), z.T.softmax(1)])
    return torch.exp(-torch.xlogy(p, p).sum(1)).mean()


# 03: repulsion shares
def _off(n):
    return torch.eye(n, dtype=torch.bool)


wrong("check_repulsion_shares", "divides by 1 - p of the match", "nothing is left to divide by")(
    lambda s, t: (p := (s / t).softmax(1)).masked_fill(_off(len(s)), 0) / (1 - p.diagonal())[:, None]
)
wrong("check_repulsion_shares", "softmax with the match in it", "match|sum to 1|diagonal|divid|1 - p")(
    lambda s, t: (s / t).softmax(1).masked_fill(_off(len(s)), 0)
)
wrong("check_repulsion_shares", "shares along columns", "row|column|dim")(
    lambda s, t: (s / t).masked_fill(_off(len(s)), -torch.inf).softmax(0)
)
wrong("check_repulsion_shares", "diagonal kept", "diagonal|match|0")(lambda s, t: (s / t).softmax(1))
wrong("check_repulsion_shares", "no temperature", "temperature")(
    lambda s, t: s.masked_fill(_off(len(s)), -torch.inf).softmax(1)
)
wrong("check_repulsion_shares", "multiplies by the temperature", "divid|multipl|temperature")(
    lambda s, t: (s * t).masked_fill(_off(len(s)), -torch.inf).softmax(1)
)
wrong("check_repulsion_shares", "zero instead of -inf before the softmax", "inf|zero|0|diagonal")(
    lambda s, t: (s / t).masked_fill(_off(len(s)), 0.0).softmax(1)
)
wrong("check_repulsion_shares", "linear shares of the similarities", "softmax|exp|linear|temperature|negative")(
    lambda s, t: (z := s.masked_fill(_off(len(s)), 0)) / z.sum(1, keepdim=True)
)
wrong("check_repulsion_shares", "divided by the sum of all rows", "row|sum to 1|keepdim|each")(
    lambda s, t: (z := (s / t).softmax(1).masked_fill(_off(len(s)), 0)) / z.sum()
)
wrong("check_repulsion_shares", "keepdim forgotten", "keepdim|row|column")(
    lambda s, t: (z := ((s - s.max()) / t).double().exp().masked_fill(_off(len(s)), 0)) / z.sum(1)
)
wrong("check_repulsion_shares", "[N, N - 1] without the diagonal", "shape|N, N|diagonal")(
    lambda s, t: (s / t)[~_off(len(s))].view(len(s), -1).softmax(1)
)


@wrong("check_repulsion_shares", "fills the diagonal of its input", "input|in place|change|clone|copy|new")
def repulsion_shares(similarity, temperature):
    similarity.fill_diagonal_(-torch.inf)
    return (similarity / temperature).softmax(dim=1)


@right("check_repulsion_shares", "exp by hand; it overflows only at the match, which is set to 0")
def repulsion_shares(similarity, temperature):
    weights = torch.exp(similarity / temperature).masked_fill(_off(len(similarity)), 0)
    return weights / weights.sum(dim=1, keepdim=True)


@right("check_repulsion_shares", "loop over rows")
def repulsion_shares(similarity, temperature):
    n = similarity.shape[0]
    result = torch.zeros(n, n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        result[i, others] = torch.softmax(similarity[i, others] / temperature, dim=0)
    return result


@right("check_repulsion_shares", "scatter back from [N, N - 1], float64")
def repulsion_shares(similarity, temperature):
    n, mask = len(similarity), ~_off(len(similarity))
    shares = torch.zeros(n, n, dtype=torch.float64)
    shares[mask] = (similarity.double()[mask].view(n, n - 1) / temperature).softmax(1).flatten()
    return shares


@right("check_repulsion_shares", "numpy and back")
def repulsion_shares(similarity, temperature):
    z = similarity.detach().numpy().astype(np.float64) / temperature
    np.fill_diagonal(z, -np.inf)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return torch.from_numpy((e / e.sum(axis=1, keepdims=True)).astype(np.float32))


# 03: cosine schedule
def _checked(formula):
    def cosine_schedule(progress, start, end):
        if progress < 0 or progress > 1:
            raise ValueError("progress")
        return formula(progress, start, end)

    return cosine_schedule


wrong("check_cosine_schedule", "start and end exchanged", "start|end|swap|exchang|other way")(
    _checked(lambda p, start, end: start + (end - start) * (1 + math.cos(math.pi * p)) / 2)
)
wrong("check_cosine_schedule", "full wave", "half|full|2|wave|pi")(
    _checked(lambda p, start, end: end + (start - end) * (1 + math.cos(2 * math.pi * p)) / 2)
)
wrong("check_cosine_schedule", "quarter wave", "quarter|half|pi")(
    _checked(lambda p, start, end: end + (start - end) * math.cos(math.pi * p / 2))
)
wrong("check_cosine_schedule", "straight line", "line|linear|cosine")(
    _checked(lambda p, start, end: start + (end - start) * p)
)
wrong("check_cosine_schedule", "geometric", "exponential|geometric|cosine|ratio|half")(
    _checked(lambda p, start, end: start * (end / start) ** p)
)
wrong("check_cosine_schedule", "half forgotten", "half|2|twice|amplitude|start")(
    _checked(lambda p, start, end: end + (start - end) * (1 + math.cos(math.pi * p)))
)
wrong("check_cosine_schedule", "1 + forgotten", "1|half|middle|end|negative")(
    _checked(lambda p, start, end: end + (start - end) * math.cos(math.pi * p))
)
wrong("check_cosine_schedule", "only downwards", "up|rising|grow|larger|direction")(
    _checked(lambda p, start, end: min(start, end) + abs(start - end) * (1 + math.cos(math.pi * p)) / 2)
)
wrong("check_cosine_schedule", "no error outside", "ValueError|raise|below|above|outside")(
    lambda p, start, end: end + (start - end) * (1 + math.cos(math.pi * p)) / 2
)
wrong("check_cosine_schedule", "clamps instead of raising", "ValueError|raise|clamp")(
    lambda p, start, end: end + (start - end) * (1 + math.cos(math.pi * min(max(p, 0), 1))) / 2
)
wrong("check_cosine_schedule", "degrees", "radian|degree|pi|180")(
    _checked(lambda p, start, end: end + (start - end) * (1 + math.cos(180 * p)) / 2)
)
wrong("check_cosine_schedule", "no start, only the difference", "start|end|add|below|lower|shift")(
    _checked(lambda p, start, end: (start - end) * (1 + math.cos(math.pi * p)) / 2)
)


@wrong("check_cosine_schedule", "refuses 0 and 1", "0|1|end|edge|refus|allow")
def cosine_schedule(progress, start, end):
    if not 0 < progress < 1:
        raise ValueError("progress must be between 0 and 1")
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@wrong("check_cosine_schedule", "returns the error instead of raising it", "raise|ValueError|return")
def cosine_schedule(progress, start, end):
    if not 0 <= progress <= 1:
        return ValueError("progress must be between 0 and 1")
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@wrong("check_cosine_schedule", "assert", "ValueError|AssertionError|assert")
def cosine_schedule(progress, start, end):
    assert 0 <= progress <= 1
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@wrong("check_cosine_schedule", "prints the result", "None|return|print")
def cosine_schedule(progress, start, end):
    if not 0 <= progress <= 1:
        raise ValueError
    print(end + (start - end) * (1 + math.cos(math.pi * progress)) / 2)


right("check_cosine_schedule", "sine squared")(
    _checked(lambda p, start, end: start + (end - start) * math.sin(math.pi * p / 2) ** 2)
)
right("check_cosine_schedule", "mean and amplitude, numpy float")(
    _checked(lambda p, start, end: (start + end) / 2 + (start - end) / 2 * np.cos(np.pi * p))
)
right("check_cosine_schedule", "through torch")(
    _checked(lambda p, start, end: torch.lerp(*torch.tensor([start, end]), (1 - math.cos(math.pi * p)) / 2).item())
)
wrong("check_rising_loss", "takes it for over-fitting", "accuracy|over-?fit|rank")("a")
wrong("check_rising_loss", "takes it for too large steps", "accuracy|ran away|diverg|steps|rank|nan")("b")
wrong("check_scale_bug", "blames the clamp", "clamp")("c")
wrong("check_scale_bug", "would drop exp", "exp|negative|log")("d")


# 04: multi-scale loss
wrong("check_multi_scale_loss", "mean over scales", "mean|sum|divid")(
    lambda a, b, t, weights=None: (
        sum(w * contrastive_loss(x, y, t) for x, y, w in zip(a, b, weights or [1] * len(a), strict=True)) / len(a)
    )
)
wrong("check_multi_scale_loss", "ignores the weights", "weight")(
    lambda a, b, t, weights=None: sum(contrastive_loss(x, y, t) for x, y in zip(a, b, strict=True))
)
wrong("check_multi_scale_loss", "weights cannot be None", "None\\) stopped")(
    lambda a, b, t, weights=None: sum(w * contrastive_loss(x, y, t) for x, y, w in zip(a, b, weights, strict=True))
)
wrong("check_multi_scale_loss", "fixed three scales", "three|number|scales|any|index|len")(
    lambda a, b, t, weights=None: sum((weights or [1, 1, 1])[k] * contrastive_loss(a[k], b[k], t) for k in range(3))
)
wrong("check_multi_scale_loss", "fixed temperature", "temperature")(
    lambda a, b, t, weights=None: sum(
        w * contrastive_loss(x, y, 0.07) for x, y, w in zip(a, b, weights or [1] * len(a), strict=True)
    )
)
wrong("check_multi_scale_loss", "weights divided by their sum", "sum|divid|normali|weight")(
    lambda a, b, t, weights=None: (
        sum(w * contrastive_loss(x, y, t) for x, y, w in zip(a, b, weights or [1] * len(a), strict=True))
        / sum(weights or [1])
    )
)
wrong("check_multi_scale_loss", "weights the features, not the loss", "weight|loss|feature|normali")(
    lambda a, b, t, weights=None: sum(
        contrastive_loss(w * x, y, t) for x, y, w in zip(a, b, weights or [1] * len(a), strict=True)
    )
)
wrong("check_multi_scale_loss", "only the last scale", "last|all|sum|overwrit")(
    lambda a, b, t, weights=None: (weights or [1] * len(a))[-1] * contrastive_loss(a[-1], b[-1], t)
)
wrong("check_multi_scale_loss", "scales joined into one feature", "cat|join|each|one|separate|sum")(
    lambda a, b, t, weights=None: contrastive_loss(torch.cat(a, dim=1), torch.cat(b, dim=1), t)
)


@wrong("check_multi_scale_loss", "return in the loop", "first|loop|return|all")
def multi_scale_loss(image_scales, text_scales, temperature, weights=None):
    total = 0
    for k, (x, y) in enumerate(zip(image_scales, text_scales, strict=True)):
        total += (1 if weights is None else weights[k]) * contrastive_loss(x, y, temperature)
        return total


@wrong("check_multi_scale_loss", "every image scale with every text scale", "each|same|pair|own|every|combin")
def multi_scale_loss(image_scales, text_scales, temperature, weights=None):
    weights = weights or [1.0] * len(image_scales)
    pairs = [(w, x, y) for w, x in zip(weights, image_scales, strict=True) for y in text_scales]
    return sum(w * contrastive_loss(x, y, temperature) for w, x, y in pairs if x.shape == y.shape)


@wrong("check_multi_scale_loss", "adds Python floats", "gradient|item|float|tensor")
def multi_scale_loss(image_scales, text_scales, temperature, weights=None):
    weights = weights or [1.0] * len(image_scales)
    return sum(
        w * contrastive_loss(x, y, temperature).item()
        for w, x, y in zip(weights, image_scales, text_scales, strict=True)
    )


@right("check_multi_scale_loss", "index loop from 0")
def multi_scale_loss(image_scales, text_scales, temperature, weights=None):
    if weights is None:
        weights = [1.0 for _ in image_scales]
    total = 0
    for k in range(len(image_scales)):
        total = total + weights[k] * contrastive_loss(image_scales[k], text_scales[k], temperature)
    return total


@right("check_multi_scale_loss", "stack and dot, from last to first")
def multi_scale_loss(image_scales, text_scales, temperature, weights=None):
    losses = torch.stack(
        [contrastive_loss(x, y, temperature) for x, y in zip(image_scales, text_scales, strict=True)][::-1]
    )
    weights = torch.ones(len(losses)) if weights is None else torch.tensor(list(weights))
    return losses.flip(0) @ weights


# 04: pool regions
wrong("check_pool_regions", "sum instead of mean", "sum|mean")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).sum((3, 5)).flatten(1)
)
wrong("check_pool_regions", "grid and block exchanged", "block|grid|exchang|swap|axis|neighbou?r|stripe|order")(
    lambda m, g: m.reshape(len(m), -1, 4 // g, g, 4 // g, g).mean((2, 4)).flatten(1)
)
wrong("check_pool_regions", "channels last", "channel|order|flatten")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).mean((3, 5)).permute(0, 2, 3, 1).flatten(1)
)
wrong("check_pool_regions", "max pooling", "max|mean|largest")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).amax((3, 5)).flatten(1)
)
wrong("check_pool_regions", "not flattened", "flat|shape")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).mean((3, 5))
)
wrong("check_pool_regions", "fixed grid 2", "grid|shape|2")(
    lambda m, g: m.reshape(len(m), -1, 2, 2, 2, 2).mean((3, 5)).flatten(1)
)
wrong("check_pool_regions", "fixed 128 channels", "stopped.*128")(
    lambda m, g: m.reshape(len(m), 128, g, 4 // g, g, 4 // g).mean((3, 5)).flatten(1)
)
wrong("check_pool_regions", "mean only along the height", "width")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, 4).mean(3).flatten(1)
)
wrong("check_pool_regions", "one corner of each block", "mean|corner|one|skip|stride|every")(
    lambda m, g: m[:, :, :: 4 // g, :: 4 // g].flatten(1)
)
wrong("check_pool_regions", "rows and columns exchanged", "row|column|transpos|height|width|order")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).mean((3, 5)).transpose(2, 3).flatten(1)
)
wrong("check_pool_regions", "batch flattened too", "batch|flat|shape|dim")(
    lambda m, g: m.reshape(len(m), -1, g, 4 // g, g, 4 // g).mean((3, 5)).flatten()
)
right("check_pool_regions", "detached; the exercise says that only values count")(
    lambda m, g: m.detach().reshape(len(m), -1, g, 4 // g, g, 4 // g).mean((3, 5)).flatten(1)
)


@right("check_pool_regions", "loops over blocks")
def pool_regions(region_map, grid):
    size = 4 // grid
    blocks = []
    for i in range(grid):
        for j in range(grid):
            blocks.append(region_map[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size].mean(dim=(2, 3)))
    return torch.stack(blocks, dim=2).reshape(region_map.shape[0], -1)


right("check_pool_regions", "unfold")(
    lambda m, g: m.unfold(2, 4 // g, 4 // g).unfold(3, 4 // g, 4 // g).mean((-1, -2)).flatten(1)
)
right("check_pool_regions", "einsum with an averaging matrix")(
    lambda m, g: torch.einsum(
        "bchw,yh,xw->bcyx", m, *[torch.eye(g).repeat_interleave(4 // g, 1).to(m.dtype) * g / 4] * 2
    ).flatten(1)
)
right("check_pool_regions", "adaptive_avg_pool2d, as values only count")(
    lambda m, g: F.adaptive_avg_pool2d(m, g).flatten(1)
)


# 04: token-wise similarity
def _all_cosines(regions, words):
    return torch.einsum("ird,tld->itrl", F.normalize(regions, dim=-1), F.normalize(words, dim=-1))


wrong("check_token_wise_similarity", "padding in sum and count", "padding")(
    lambda r, w, p: _all_cosines(r, w).amax(2).mean(-1)
)
wrong("check_token_wise_similarity", "padding in the count", "padding|number of words|count|divid")(
    lambda r, w, p: _all_cosines(r, w).amax(2).masked_fill(p, 0).mean(-1)
)
wrong("check_token_wise_similarity", "padding in the sum", "padding|sum")(
    lambda r, w, p: _all_cosines(r, w).amax(2).sum(-1) / (~p).sum(-1)
)
wrong("check_token_wise_similarity", "mask the wrong way round", "padding|mask|other way|invert|True")(
    lambda r, w, p: (_all_cosines(r, w).amax(2) * p).sum(-1) / p.sum(-1).clamp_min(1)
)
wrong("check_token_wise_similarity", "best word of each region", "region|word|best|axis|other way")(
    lambda r, w, p: _all_cosines(r, w).masked_fill(p[None, :, None], -torch.inf).amax(3).mean(-1)
)
wrong("check_token_wise_similarity", "mean over regions", "best|max|mean")(
    lambda r, w, p: _all_cosines(r, w).mean(2).masked_fill(p, 0).sum(-1) / (~p).sum(-1)
)
wrong("check_token_wise_similarity", "not normalised", "normali|cosine")(
    lambda r, w, p: torch.einsum("ird,tld->itrl", r, w).amax(2).masked_fill(p, 0).sum(-1) / (~p).sum(-1)
)
wrong("check_token_wise_similarity", "sum over words", "mean|sum|number of words")(
    lambda r, w, p: _all_cosines(r, w).amax(2).masked_fill(p, 0).sum(-1)
)
wrong("check_token_wise_similarity", "[texts, images]", "transpos|images, texts|shape|row")(
    lambda r, w, p: (_all_cosines(r, w).amax(2).masked_fill(p, 0).sum(-1) / (~p).sum(-1)).T
)
wrong("check_token_wise_similarity", "normalises the wrong axis", "normali|dim|axis|cosine")(
    lambda r, w, p: (
        torch.einsum("ird,tld->itrl", F.normalize(r, dim=1), F.normalize(w, dim=1)).amax(2).masked_fill(p, 0).sum(-1)
        / (~p).sum(-1)
    )
)
wrong("check_token_wise_similarity", "padding with -inf, then mean", "inf|padding|mean")(
    lambda r, w, p: _all_cosines(r, w).amax(2).masked_fill(p, -torch.inf).mean(-1)
)
wrong("check_token_wise_similarity", "only pairs on the diagonal", "every image|each image")(
    lambda r, w, p: (
        torch.einsum("brd,bld->brl", F.normalize(r[: len(w)], dim=-1), F.normalize(w[: len(r)], dim=-1))
        .amax(1)
        .masked_fill(p[: len(r)], 0)
        .sum(-1)
        / (~p[: len(r)]).sum(-1)
    )
)


@right("check_token_wise_similarity", "double loop")
def token_wise_similarity(regions, words, padding):
    result = torch.zeros(len(regions), len(words))
    for i in range(len(regions)):
        for j in range(len(words)):
            real = words[j][~padding[j]]
            cosines = F.cosine_similarity(real[:, None], regions[i][None], dim=-1)
            result[i, j] = cosines.max(dim=1).values.mean()
    return result


@right("check_token_wise_similarity", "matmul, nanmean")
def token_wise_similarity(regions, words, padding):
    r = regions / regions.norm(dim=-1, keepdim=True)
    w = words / words.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    best = (r[:, None] @ w[None].transpose(-1, -2)).max(dim=2)[0]
    return torch.where(padding, torch.nan, best).nanmean(dim=2)


wrong("check_wrong_axis", "blames the temperature", "temperature")("a")
wrong("check_wrong_axis", "blames the missing normalisation", "normali")("c")
wrong("check_wrong_axis", "blames padding", "padding")("d")


# 05: training step
def _features(model, batch):
    return model(batch["images"], batch["token_ids"], batch["padding"])


@wrong("check_training_step", "forgets zero_grad", "zero_grad|gradient|add|accumul")
def training_step(model, optimizer, batch, temperature):
    loss = contrastive_loss(*_features(model, batch), temperature)
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "forgets optimizer.step", "step|weights|change")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    loss = contrastive_loss(*_features(model, batch), temperature)
    loss.backward()
    return loss


@wrong("check_training_step", "forgets backward", "backward|gradient")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    loss = contrastive_loss(*_features(model, batch), temperature)
    optimizer.step()
    return loss


@wrong("check_training_step", "zero_grad after backward", "zero_grad|order|before|after|erase")
def training_step(model, optimizer, batch, temperature):
    loss = contrastive_loss(*_features(model, batch), temperature)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss


@wrong("check_training_step", "step before backward", "order|before|backward|step")
def training_step(model, optimizer, batch, temperature):
    loss = contrastive_loss(*_features(model, batch), temperature)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss


@wrong("check_training_step", "one direction only", "image to text only")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    loss = _two(_logits(*_features(model, batch), temperature))[0]
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "fixed temperature", "temperature")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    loss = contrastive_loss(*_features(model, batch), 0.07)
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "forgets return", "return|None")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    contrastive_loss(*_features(model, batch), temperature).backward()
    optimizer.step()


@wrong("check_training_step", "loss after the step", "before|after|new|second|first|return")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    contrastive_loss(*_features(model, batch), temperature).backward()
    optimizer.step()
    return contrastive_loss(*_features(model, batch), temperature).item()


@wrong("check_training_step", "features detached", "gradient|detach")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    images, texts = _features(model, batch)
    loss = contrastive_loss(images, texts.detach(), temperature)
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "padding forgotten", "padding")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    padding = torch.zeros_like(batch["padding"])
    loss = contrastive_loss(*model(batch["images"], batch["token_ids"], padding), temperature)
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "not normalised dot products", "normali")
def training_step(model, optimizer, batch, temperature):
    optimizer.zero_grad()
    images, texts = _features(model, batch)
    loss = sum(_two(images @ texts.T / temperature)) / 2
    loss.backward()
    optimizer.step()
    return loss


@wrong("check_training_step", "two steps in one call", "two|one step|twice|once")
def training_step(model, optimizer, batch, temperature):
    for _ in range(2):
        optimizer.zero_grad()
        loss = contrastive_loss(*_features(model, batch), temperature)
        loss.backward()
        optimizer.step()
    return loss


@right("check_training_step", "zero_grad at the end, item")
def training_step(model, optimizer, batch, temperature):
    loss = contrastive_loss(*_features(model, batch), temperature)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@right("check_training_step", "loss by hand, keywords, model.zero_grad")
def training_step(model, optimizer, batch, temperature):
    images, texts = model(batch["images"], batch["token_ids"], batch["padding"])
    logits = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T / temperature
    loss = (logits.logsumexp(0) + logits.logsumexp(1)).mean() / 2 - logits.diagonal().mean()
    model.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


wrong("check_my_clip", "chance", "chance|train|temperature|pair")(0.5)
wrong("check_my_clip", "a share instead of percent", "percent|%|10")(0.3)


# 05: recall at k
def _own(owner, n):
    return owner[None] == torch.arange(n)[:, None]


wrong("check_recall_at_k", "share instead of percent", "percent|100")(
    lambda s, owner, k: (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).any(1).float().mean()
)
wrong("check_recall_at_k", "counts all own captions found", "least|one|any|several|fraction")(
    lambda s, owner, k: (
        100
        * (
            (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).sum(1)
            / _own(owner, len(s)).sum(1).clamp_min(1)
        ).mean()
    )
)
wrong("check_recall_at_k", "precision: divides by k", "k|any|least|one")(
    lambda s, owner, k: 100 * (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).float().mean()
)
wrong("check_recall_at_k", "diagonal", "diagonal|owner|image_of_caption|own")(
    lambda s, owner, k: 100 * (s.topk(k, dim=1).indices == torch.arange(len(s))[:, None]).any(1).float().mean()
)
wrong("check_recall_at_k", "the other direction", "direction|image|caption|row|column|text")(
    lambda s, owner, k: 100 * (s.topk(min(k, len(s)), dim=0).indices == owner[None]).any(0).float().mean()
)
wrong("check_recall_at_k", "lowest instead of highest", "highest|lowest|largest|order|descending")(
    lambda s, owner, k: 100 * (owner[s.argsort(dim=1)[:, :k]] == torch.arange(len(s))[:, None]).any(1).float().mean()
)
wrong("check_recall_at_k", "only k = 1", "does not depend on .*k")(
    lambda s, owner, k: 100 * (owner[s.argmax(1)] == torch.arange(len(s))).float().mean()
)
wrong("check_recall_at_k", "captions in blocks of five", "order|image_of_caption|any|5|five")(
    lambda s, owner, k: 100 * (s.topk(k, dim=1).indices // 5 == torch.arange(len(s))[:, None]).any(1).float().mean()
)
wrong("check_recall_at_k", "needs all own captions within k", "all|any|least|one")(
    lambda s, owner, k: (
        100
        * (
            (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).sum(1)
            == _own(owner, len(s)).sum(1).clamp_max(k)
        )
        .float()
        .mean()
    )
)
wrong("check_recall_at_k", "rank k counts too", "one|k|off|many")(
    lambda s, owner, k: (
        100
        * (owner[s.topk(min(k + 1, s.shape[1]), dim=1).indices] == torch.arange(len(s))[:, None]).any(1).float().mean()
    )
)
wrong("check_recall_at_k", "divides by the captions", "caption|image|number|divid")(
    lambda s, owner, k: (
        100 * (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).any(1).sum() / s.shape[1]
    )
)
wrong("check_recall_at_k", "one value per image", "mean|one number|share|shape|per image")(
    lambda s, owner, k: 100 * (owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).any(1).float()
)
wrong("check_recall_at_k", "integer division", "int|//|division|whole|round")(
    lambda s, owner, k: (
        100 * ((owner[s.topk(k, dim=1).indices] == torch.arange(len(s))[:, None]).any(1).sum().item() // len(s))
    )
)


@right("check_recall_at_k", "best own caption against the k-th value")
def image_to_text_recall(similarity, image_of_caption, k):
    own = torch.where(_own(image_of_caption, len(similarity)), similarity, -torch.inf).amax(1)
    threshold = similarity.sort(dim=1, descending=True).values[:, k - 1]
    return 100 * (own >= threshold).double().mean()


@right("check_recall_at_k", "Python loop, float")
def image_to_text_recall(similarity, image_of_caption, k):
    hits = 0
    for i, row in enumerate(similarity.tolist()):
        best = sorted(range(len(row)), key=lambda j: -row[j])[:k]
        hits += any(image_of_caption[j] == i for j in best)
    return 100 * hits / len(similarity)


@right("check_recall_at_k", "numpy and back")
def image_to_text_recall(similarity, image_of_caption, k):
    best = np.argsort(-similarity.numpy(), axis=1)[:, :k]
    found = (image_of_caption.numpy()[best] == np.arange(len(best))[:, None]).any(axis=1)
    return float(found.mean() * 100)


wrong("check_which_checkpoint", "keeps the last", "valid|last|train")("a")
wrong("check_which_checkpoint", "believes that nothing is comparable", "recall|temperature|compar")("b")
wrong("check_which_checkpoint", "uses the test split", "test")("d")


# 08: merge ranks
wrong("check_merge_ranks", "overflow", "overflow|large|inf|1,?000|largest")(lambda m, t: (t * m.exp()).sum(0).log())
wrong("check_merge_ranks", "adds the totals without rescaling", "rescal|exp|largest|each rank|own")(
    lambda m, t: m.amax(0) + t.sum(0).log()
)
wrong("check_merge_ranks", "ranks and columns exchanged", "rank|column|dim|axis|shape")(
    lambda m, t: m.amax(1) + (t * (m - m.amax(1, keepdim=True)).exp()).sum(1).log()
)
wrong("check_merge_ranks", "one largest for all columns", "column|each|one|largest|own|underflow|inf")(
    lambda m, t: m.max() + (t * (m - m.max()).exp()).sum(0).log()
)
wrong("check_merge_ranks", "forgets to add the largest", "add|largest|back")(
    lambda m, t: (t * (m - m.amax(0)).exp()).sum(0).log()
)
wrong("check_merge_ranks", "forgets the logarithm", "log")(lambda m, t: m.amax(0) + (t * (m - m.amax(0)).exp()).sum(0))
wrong("check_merge_ranks", "sign of the exponent", "sign|minus|overflow|exponent")(
    lambda m, t: m.amax(0) + (t * (m.amax(0) - m).exp()).sum(0).log()
)
wrong("check_merge_ranks", "mean of the ranks' results", "mean|sum|average|rank")(lambda m, t: (m + t.log()).mean(0))
wrong("check_merge_ranks", "largest of the ranks' results", "sum|only|other ranks|all|max|largest")(
    lambda m, t: (m + t.log()).amax(0)
)
wrong("check_merge_ranks", "only two ranks", "two|any|more|number of ranks|third|all")(
    lambda m, t: (
        torch.maximum(m[0], m[1])
        + (t[0] * (m[0] - torch.maximum(m[0], m[1])).exp() + t[1] * (m[1] - torch.maximum(m[0], m[1])).exp()).log()
    )
)
wrong("check_merge_ranks", "keeps the dimension of the ranks", "shape|keepdim|columns|dimension")(
    lambda m, t: m.amax(0, keepdim=True) + (t * (m - m.amax(0)).exp()).sum(0, keepdim=True).log()
)
wrong("check_merge_ranks", "logarithm to base 10", "log|base|natural|10")(
    lambda m, t: m.amax(0) + (t * (m - m.amax(0)).exp()).sum(0).log10()
)


@right("check_merge_ranks", "logaddexp over ranks")
def merge_ranks(largest, totals):
    result = largest[0] + totals[0].log()
    for rank in range(1, len(largest)):
        result = torch.logaddexp(result, largest[rank] + torch.log(totals[rank]))
    return result


@right("check_merge_ranks", "running pair of largest and total")
def merge_ranks(largest, totals):
    top, total = largest[0], totals[0]
    for m, t in zip(largest[1:], totals[1:], strict=True):
        new = torch.maximum(top, m)
        total = total * torch.exp(top - new) + t * torch.exp(m - new)
        top = new
    return top + total.log()


@right("check_merge_ranks", "numpy and back")
def merge_ranks(largest, totals):
    m, t = largest.double().numpy(), totals.double().numpy()
    return torch.from_numpy(m.max(axis=0) + np.log((t * np.exp(m - m.max(axis=0))).sum(axis=0)))


# 08: sigmoid loss in blocks
def _blocks(images, texts, temperature, bias, block, sign=1.0, divide=None, positions=True, starts=None):
    total, n = 0.0, len(images)
    for start in starts or range(0, n, block):
        z = images[start : start + block] @ texts.T / temperature + bias
        y = -torch.ones_like(z)
        rows = torch.arange(len(z))
        y[rows, rows + (start if positions else 0)] = 1.0
        total = total - F.logsigmoid(sign * y * z).sum()
    return total / (divide or n)


wrong("check_sigmoid_loss_in_blocks", "diagonal of every block at its start", "diagonal|start|offset|block|match")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, positions=False)
)
wrong("check_sigmoid_loss_in_blocks", "mean over all combinations", "N|pairs|mean|divid|combination")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, divide=len(x) ** 2)
)
wrong("check_sigmoid_loss_in_blocks", "divided by the block", "N|block|divid|pairs")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, divide=block)
)
wrong("check_sigmoid_loss_in_blocks", "sum, not divided", "divid|N|sum|mean")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, divide=1)
)
wrong("check_sigmoid_loss_in_blocks", "signs turned round", "sign")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, sign=-1.0)
)
wrong("check_sigmoid_loss_in_blocks", "bias subtracted", "bias|sign")(
    lambda x, y, t, b, block: _blocks(x, y, t, -b, block)
)
wrong("check_sigmoid_loss_in_blocks", "bias forgotten", "bias")(lambda x, y, t, b, block: _blocks(x, y, t, 0.0, block))
wrong("check_sigmoid_loss_in_blocks", "bias divided by the temperature", "bias|temperature|bracket|parenthes|after")(
    lambda x, y, t, b, block: _blocks(x, y, t, b / t, block)
)
wrong("check_sigmoid_loss_in_blocks", "multiplied by the temperature", "temperature|divid|multipl")(
    lambda x, y, t, b, block: _blocks(x, y, 1 / t, b, block)
)
wrong("check_sigmoid_loss_in_blocks", "last smaller block dropped", "last|block|smaller|rest|remain")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block, starts=range(0, len(x) // block * block, block))
)
wrong("check_sigmoid_loss_in_blocks", "whole matrix at once", "stopped.*more than block rows")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, len(x))
)
wrong(
    "check_sigmoid_loss_in_blocks", "blocks on both sides, other texts left out", "all|text|every|other|column|negative"
)(
    lambda x, y, t, b, block: (
        sum(_blocks(x[s : s + block], y[s : s + block], t, b, block, divide=1) for s in range(0, len(x), block))
        / len(x)
    )
)
wrong("check_sigmoid_loss_in_blocks", "returns a float", "tensor|item|float|gradient")(
    lambda x, y, t, b, block: _blocks(x, y, t, b, block).item()
)
wrong("check_sigmoid_loss_in_blocks", "mean of the blocks' means", "block|mean|smaller|last|weight|N|divid")(
    lambda x, y, t, b, block: (
        sum(_blocks(x, y, t, b, block, divide=block, starts=[s]) for s in range(0, len(x), block))
        / math.ceil(len(x) / block)
    )
)


@right("check_sigmoid_loss_in_blocks", "log of sigmoid; far larger logits would overflow, which nobody asks")
def sigmoid_loss_in_blocks(images, texts, temperature, bias, block):
    total = 0
    for start in range(0, len(images), block):
        z = images[start : start + block] @ texts.T / temperature + bias
        y = 2 * (torch.arange(start, start + len(z))[:, None] == torch.arange(len(texts))[None]).float() - 1
        total -= torch.log(torch.sigmoid(y * z)).sum()
    return total / len(images)


@right("check_sigmoid_loss_in_blocks", "softplus, split")
def sigmoid_loss_in_blocks(images, texts, temperature, bias, block):
    losses, start = [], 0
    for part in images.split(block):
        z = torch.einsum("bd,nd->bn", part, texts) / temperature + bias
        losses.append(F.softplus(z).sum() - z.diagonal(start).sum())
        start += len(part)
    return torch.stack(losses).sum() / images.shape[0]


@right("check_sigmoid_loss_in_blocks", "single rows, last first, float64")
def sigmoid_loss_in_blocks(images, texts, temperature, bias, block):
    total = torch.zeros((), dtype=torch.float64)
    for i in reversed(range(len(images))):
        z = (texts.double() @ images[i].double()) / temperature + bias
        y = torch.full_like(z, -1)
        y[i] = 1
        total = total - F.logsigmoid(y * z).sum()
    return total / len(images)


wrong("check_held_memory", "blames logsumexp", "logsumexp|copy|keep")("a")
wrong("check_held_memory", "blames cat", "cat")("b")
wrong("check_held_memory", "blames the block size", "block|size|small")("d")
wrong("check_divided_loss", "divides the loss", "loss|feature|encoder|gradient|weights")("a")
wrong("check_divided_loss", "divides and multiplies", "temperature|loss|again|same|gradient")("c")
wrong("check_divided_loss", "divides the temperature", "temperature|logits|other")("d")
wrong("check_break_even_ranks", "D instead of D / 2", "half|2|gradient|twice|bytes")(512)
wrong("check_break_even_ranks", "counts one byte less per column", "bytes|8|4|float")(128)
wrong("check_break_even_ranks", "off by one", "W|equal|one|rank")(255)
wrong("check_break_even_ranks", "number of bytes", "rank|bytes|number")(2048)
right("check_break_even_ranks", "float")(256.0)
