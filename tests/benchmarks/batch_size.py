"""Does a larger batch help? Recall after equal numbers of pairs seen: ``data/results/batch_size.json``, for lesson 08.

``python tests/benchmarks/batch_size.py`` trains two tiny encoders on the scenes, with images of 16 x 16 pixels, for two
epochs per run (about three minutes in all). Each way to use the pairs chooses its learning rate on ``val``, with a seed
of its own; then it is measured on ``test`` with other seeds. "256, in groups of 16" makes steps of 256 pairs, but
compares each pair with 15 others only.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.data import DATA, ImageTextDataset, read_captions
from helpers.losses import contrastive_loss
from helpers.text import WordTokenizer

WAYS = {"16": (16, 16), "64": (64, 64), "256": (256, 256), "256, in groups of 16": (256, 16)}  # batch and group
RATES = (0.0003, 0.001, 0.003, 0.01)
SEEDS = (1, 2, 3, 4, 5, 6)
EPOCHS, TEMPERATURE = 2, 0.1

Vectors = tuple[Tensor, Tensor]


def vectors(split: str, count: int, tokenizer: WordTokenizer) -> Vectors:
    """The first scenes of a split as pixels, ``[count, 768]``, and their exact captions as one-hot words."""
    paths, captions = read_captions(DATA / "scenes", split)
    exact = [of_image[-1] for of_image in captions[:count]]
    images = ImageTextDataset(paths[:count], exact, image_size=16).batch(range(count))["images"]  # [count, 3, 16, 16]
    token_ids, _ = tokenizer(exact)  # [count, length]
    token_ids = F.pad(token_ids, (0, tokenizer.max_length - token_ids.shape[1]))  # [count, max_length]
    return images.flatten(1), F.one_hot(token_ids, len(tokenizer)).flatten(1).float()


def group_loss(image_features: Tensor, text_features: Tensor, group: int) -> Tensor:
    """The mean of the contrastive losses of groups of pairs; a single group is the usual loss."""
    groups = zip(image_features.split(group), text_features.split(group), strict=True)
    return torch.stack([contrastive_loss(x, y, TEMPERATURE) for x, y in groups]).mean()


def train(data: Vectors, batch: int, group: int, rate: float, seed: int) -> nn.ModuleList:
    """Train an image and a text encoder by AdamW, whose learning rate falls linearly to zero."""
    torch.manual_seed(seed)
    encoders = nn.ModuleList([nn.Sequential(nn.Linear(s.shape[1], 128), nn.ReLU(), nn.Linear(128, 64)) for s in data])
    optimizer = torch.optim.AdamW(encoders.parameters(), rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, EPOCHS * len(data[0]) // batch)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data[0])).split(batch):
            features = [encoder(side[rows]) for encoder, side in zip(encoders, data, strict=True)]
            loss = group_loss(*features, group)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return encoders


@torch.no_grad()
def recall(encoders: nn.ModuleList, data: Vectors) -> float:
    """R@1 in percent, the mean of both directions."""
    x, y = (F.normalize(encoder(side), dim=1) for encoder, side in zip(encoders, data, strict=True))
    similarity, own = x @ y.T, torch.arange(len(x))
    right = [(similarity.argmax(dim) == own).double().mean().item() for dim in (0, 1)]
    return round(50 * sum(right), 3)


def run(out: Path, counts: dict[str, int], rates: Sequence[float], seeds: Sequence[int]) -> None:
    """Train all ways with all rates and seeds, and write the recalls as JSON."""
    tokenizer = WordTokenizer.build(of_image[-1] for of_image in read_captions(DATA / "scenes", "train")[1])
    data = {split: vectors(split, count, tokenizer) for split, count in counts.items()}
    report: dict = {"pairs_seen": EPOCHS * counts["train"], "torch": torch.__version__, "ways": {}}
    for name, (batch, group) in WAYS.items():
        validation = {rate: recall(train(data["train"], batch, group, rate, seed=0), data["val"]) for rate in rates}
        best = max(validation, key=validation.get)
        test = [recall(train(data["train"], batch, group, best, seed), data["test"]) for seed in seeds]
        report["ways"][name] = {"validation": validation, "rate": best, "test": test}
        print(name, report["ways"][name], flush=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(DATA / "results" / "batch_size.json", {"train": 16_000, "val": 1000, "test": 1000}, RATES, SEEDS)
