"""Lesson 07: a search by words in real images."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from helpers.data import captions_by_image
from helpers.losses import contrastive_loss, cosine_similarities
from helpers.pretrained import image_features
from helpers.sources import Record, open_pairs
from helpers.sources.images import read_square
from helpers.text import WordTokenizer, split_words
from helpers.widgets.figures import caption_fonts, pair_sheet


class Split(NamedTuple):
    records: list[Record]
    images: Tensor  # frozen features, float [images, 1280]
    texts: list[str]
    image_of_text: Tensor  # int64 [texts]


class ImageSearch:
    """Search the test images of a folder by words, with two heads that are trained on frozen features in seconds."""

    def __init__(self, folder: Path) -> None:
        self.pairs = open_pairs(folder)
        self.train, self.val, self.test = map(self.read, ("train", "val", "test"))
        self.tokenizer = WordTokenizer.build(self.train.texts)
        token_ids = self.tokenizer(self.train.texts)[0]  # [texts, length]
        torch.manual_seed(0)
        self.image_head, self.text_head = nn.Linear(1280, 128), nn.EmbeddingBag(len(self.tokenizer), 128, padding_idx=0)
        nn.init.normal_(self.text_head.weight, std=0.02)
        optimizer = torch.optim.AdamW([*self.image_head.parameters(), *self.text_head.parameters()], lr=0.003)
        for _ in range(100):
            rows = torch.randperm(len(token_ids))[:256]
            x, y = self.image_head(self.train.images[self.train.image_of_text[rows]]), self.text_head(token_ids[rows])
            contrastive_loss(x, y, 0.1).backward()
            optimizer.step()
            optimizer.zero_grad()

    def read(self, split: str) -> Split:
        if split == "train" or "test" in self.pairs.splits:
            records = self.pairs.records(split)
        else:  # COCO's test images come without captions, so val is divided
            records = self.pairs.records("val")[int(split == "test") :: 2]
        records = records[: 100 if os.environ.get("COURSE_QUICK") else None]
        crops = torch.tensor(image_features([record.path for record in records], "lite0")).float()
        captions = [[annotation["caption"] for annotation in record.annotations] for record in records]
        return Split(records, crops.mean(1), *captions_by_image(captions))

    @torch.no_grad()
    def __call__(self, query: str) -> None:
        text = self.text_head(self.tokenizer([query])[0])  # [1, 128]
        scores, rows = cosine_similarities(text, self.image_head(self.test.images))[0].sort(descending=True)  # [images]
        new = [word for word in split_words(query) if word not in self.tokenizer.id_of]
        title = query + (f"   (not in the training texts: {', '.join(new)})" if new else "")
        self.show([self.test.records[row] for row in rows[:6]], [f"{score:.2f}" for score in scores[:6]], title)

    def show(self, records: list[Record], notes: list[str], title: str = "") -> None:
        """Plot images in rows of six, each with its note below it."""
        images = [torch.from_numpy(np.array(read_square(record.path, 128))).permute(2, 0, 1) for record in records]
        pair_sheet(images, notes).suptitle(title, fontfamily=caption_fonts())
