"""The checks of lesson 01: padding, mirrored captions and a batch with all captions."""

import re

import torch
from torch import Generator

from helpers.checks.core import Values, exercise


def sample(options: list, count: int, generator: Generator) -> list:
    """Sample ``count`` different options, in random order."""
    return [options[i] for i in torch.randperm(len(options), generator=generator)[:count].tolist()]


def token_lists(generator: Generator, case: int) -> tuple[list[list[int]]]:
    lists = [torch.randint(5, (n,), generator=generator).tolist() for n in sample([*range(1, 9)], 4, generator)]
    max(lists, key=len)[0] = 0  # id 0 is a word
    return (lists,)


@exercise("pad", token_lists, as_tuple=True)
def check_pad(lists: list[list[int]]) -> Values:
    lengths = [len(ids) for ids in lists]
    longest = max(lengths)
    token_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in lists])  # [batch, longest]
    zeros_first = torch.tensor([[0] * (longest - len(ids)) + ids for ids in lists])
    padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    cut, is_zero = token_ids[:, : min(lengths)], token_ids == 0
    return {"token_ids": token_ids, "padding": padding}, {
        "token_ids is cut to the shortest text, so words are lost; pad to the longest": {"token_ids": cut},
        "the zeros come before the ids; put them after, so that texts begin at index 0": {"token_ids": zeros_first},
        "padding is inverted: it should be True where there is no word": {"padding": ~padding},
        "padding comes from the zeros in token_ids, but id 0 can be a word; use the lengths": {"padding": is_zero},
    }


def captions(generator: Generator, case: int) -> tuple[str]:
    longer_words = ["a leftover cake", "bright lights", "an upright star", "a cleft rock"]
    lefts = ["a star on the left", "a cross to the left of a square", "a circle in the upper left"]
    rights = ["at the right a dot", "a star right of a cross", "a ring at the bottom right"]
    phrases = [phrase for options in (longer_words, lefts, rights) for phrase in sample(options, 2, generator)]
    return (", ".join(sample(phrases, 6, generator)) + ".",)


@exercise("flip_caption", captions)
def check_flip_caption(caption: str) -> Values:
    other = {"left": "right", "right": "left"}
    by_spaces = " ".join(other.get(word, word) for word in caption.split())
    undone = "the second replacement undoes the first, so all sides became {}; exchange both in one pass"

    def exchanged(pattern: str, count: int = 0) -> str:
        return re.sub(pattern, lambda side: other[side[0]], caption, count=count)

    return exchanged(r"\b(left|right)\b"), {
        "nothing changed; 'left' should become 'right', and 'right' should become 'left'": caption,
        undone.format("'left'"): exchanged(r"\bright\b"),
        undone.format("'right'"): exchanged(r"\bleft\b"),
        undone.format("'left', also inside words"): caption.replace("right", "left"),
        undone.format("'right', also inside words"): caption.replace("left", "right"),
        "only the first side was exchanged; a caption can have several": exchanged(r"\b(left|right)\b", count=1),
        "a longer word, such as 'leftover', changed too; exchange whole words only": exchanged("(left|right)"),
        "a side before a comma or full stop was not exchanged: 'left,' contains the word 'left'": by_spaces,
    }


def items(generator: Generator, case: int) -> tuple[list[dict]]:
    counts, ids = sample([1, 2, 3, 4], 3, generator), sample([*range(10, 60)], 3, generator)
    texts = [[f"caption {n}" for n in sample([*range(6)], count, generator)] for count in counts]
    images = torch.randn(3, 3, 4, 5, generator=generator)
    return ([{"image": i, "texts": t, "image_id": n} for i, t, n in zip(images, texts, ids, strict=True)],)


@exercise("collate_all", items)
def check_collate(batch: list[dict]) -> Values:
    images, lists = [item["image"] for item in batch], [item["texts"] for item in batch]
    texts = [text for own in lists for text in own]
    rows = torch.tensor([row for row, own in enumerate(lists) for _ in own])
    ids, numbers = torch.tensor([item["image_id"] for item in batch])[rows], torch.arange(len(rows))
    return {"images": torch.stack(images), "texts": texts, "image_of_text": rows}, {
        "texts is a list of lists; make one flat list of all captions": {"texts": lists},
        "texts has only the first caption of each image; keep all": {"texts": [texts[0] for texts in lists]},
        "image_of_text holds image_ids; it should hold rows of this batch, from 0": {"image_of_text": ids},
        "image_of_text counts captions; all captions of an image have the same row": {"image_of_text": numbers},
    }
