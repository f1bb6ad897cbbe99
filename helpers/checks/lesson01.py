"""The checks of lesson 01: padding, captions after a crop, a batch with all captions, a bug and a table."""

from collections.abc import Callable

import torch
from torch import Generator

from helpers.checks.core import Choice, Values, exercise
from helpers.text import split_words


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


NAMES_NOTHING = ("a catalogue on a bench", "a sunny day")  # one has a thing's name inside a longer word


def photographs(generator: Generator, case: int) -> tuple[list[str], dict[str, tuple], tuple]:
    """Captions, the boxes of things by name, and a crop that holds two things, cuts two and misses one."""
    left, top, width, height = torch.randint(40, 60, (4,), generator=generator).tolist()
    right, bottom = left + width, top + height
    in_one, in_two, across, above, away = [*sample(["dog", "ball", "car"], 3, generator), "cat", "tree"]
    boxes = {
        in_one: (left + 2, top + 2, left + 20, top + 20),
        in_two: (right - 30, top + 5, right - 3, bottom - 5),
        across: (left - 5, top + 5, left + 25, top + 25),  # its centre is inside
        above: (left + 5, top - 20, left + 15, top + 5),
        away: (right + 5, bottom + 5, right + 30, bottom + 30),
    }
    captions = [
        *NAMES_NOTHING,
        f"a {in_one} next to a {in_two}",
        f"a {in_two} and a {away}",
        f"a {across} in the sun",
        f"a {above} on a wall",
        f"a {away}, far away from here",
        f"one {in_one}",
    ]
    boxes = {name: boxes[name] for name in sample([*boxes], len(boxes), generator)}
    return sample(captions, len(captions), generator), boxes, (left, top, right, bottom)


@exercise("captions_to_keep", photographs)
def check_captions_to_keep(captions: list[str], boxes: dict[str, tuple], crop: tuple) -> Values:
    left, top, right, bottom = crop
    inside, overlapping, centred = set(), set(), set()
    for name, (x0, y0, x1, y1) in boxes.items():
        if x0 >= left and y0 >= top and x1 <= right and y1 <= bottom:
            inside.add(name)
        if x0 < right and y0 < bottom and x1 > left and y1 > top:
            overlapping.add(name)
        if left <= (x0 + x1) / 2 <= right and top <= (y0 + y1) / 2 <= bottom:
            centred.add(name)
    words = {caption: split_words(caption) for caption in captions}

    def kept(inside: set[str], named: Callable[[str, str], bool], rule: Callable = all) -> list[str]:
        """The captions for which the rule holds over the things that they name; those that name nothing stay."""
        things = {caption: [name for name in boxes if named(name, caption)] for caption in captions}
        return [text for text in captions if not things[text] or rule(name in inside for name in things[text])]

    def is_word(name: str, caption: str) -> bool:
        return name in words[caption]

    right_value = kept(inside, is_word)
    return right_value, {
        "all captions stay; drop those that name a thing outside the crop": captions,
        "these are the captions to drop; return the others": [text for text in captions if text not in right_value],
        "a caption stays if any of its things is inside; all of them must be": kept(inside, is_word, any),
        "a caption that names none of the things was dropped; it is as true as before": [
            text for text in right_value if any(is_word(name, text) for name in boxes)
        ],
        "a thing counts as inside although the crop cuts it; its whole box must be inside": kept(overlapping, is_word),
        "a thing counts as inside if its centre is; its whole box must be inside": kept(centred, is_word),
        "'catalogue' was read as 'cat'; compare whole words": kept(inside, lambda name, caption: name in caption),
        "a name before a comma was not found; 'tree,' contains the word 'tree'": kept(
            inside, lambda name, caption: name in caption.split()
        ),
        "this says True or False for each caption; return the captions": [text in right_value for text in captions],
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


check_learns_no_words = Choice(
    "answer",
    "c",
    {
        "a": "the images are stacked along a new first dimension, as they should be: [2, 3, 64, 64]",
        "b": "shuffling is harmless here: an image and its text are in one item, so they move together",
        "c": "each batch builds its own vocabulary, so one id means different words in different batches.",
        "d": "padding does come from the zeros, but this tokenizer never gives id 0 to a word, so it is right",
    },
)

check_larger_batch = Choice(
    "answer",
    "b",
    {
        "a": "the count per image grows with the number of negatives: it is the share times 255, not times 63",
        "b": "the share stays near 5 %, and 5 % of 255 negatives are about 13 false negatives per image.",
        "c": "the share does not grow: whether one caption fits one scene has nothing to do with the batch size",
        "d": "more captions do not make any of them more exact; each fits another scene as often as before",
    },
)
