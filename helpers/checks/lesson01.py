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
    late = torch.arange(longest) > torch.tensor(lengths)[:, None]
    return {"token_ids": token_ids, "padding": padding}, {
        "the zeros come before the ids; put them after, so that texts begin at index 0": {"token_ids": zeros_first},
        "padding begins one position late; index len(ids) is the first without a word": {"padding": late},
        "padding is inverted: it should be True where there is no word": {"padding": ~padding},
        "padding comes from the zeros in token_ids, but id 0 can be a word; use the lengths": {
            "padding": token_ids == 0
        },
    }


def photographs(generator: Generator, case: int) -> tuple[list[str], dict[str, tuple], tuple]:
    """Captions, boxes and a crop: it fits the dog, has ball and bird inside, cuts the cat, leaves out the tree."""
    left, top, width, height = torch.randint(10, 20, (4,), generator=generator).tolist()
    right, bottom = left + 40 + width, top + 40 + height
    dx, dy = [(-9, 0), (9, 0), (0, -9), (0, 9)][case % 4]
    boxes = {
        "tree": (right + 5, bottom + 5, right + 30, bottom + 30),
        "dog": (left, top, right, bottom),
        "cat": (left + dx, top + dy, right + dx, bottom + dy),
        "ball": (right - 20, top + 5, right - 3, bottom - 5),
        "bird": (left + 2, top + 2, left + 8, top + 8),  # also inside if it is read as COCO's (x, y, width, height)
    }
    comma = "," * (case % 7 == 0)  # not always, so that another mistake is seen as well
    texts = ["a dog next to a ball", "a ball and a tree", "a cat in the sun", f"a tree{comma} far away", "one ball"]
    texts = sample([*texts, "a brown dog", "one bird", "a catalogue on a bench", "a sunny day"], 9, generator)
    return texts, boxes, (left, top, right, bottom)


@exercise("captions_to_keep", photographs)
def check_captions_to_keep(captions: list[str], boxes: dict[str, tuple], crop: tuple) -> Values:
    left, top, right, bottom = crop

    def inside(x0: int, y0: int, x1: int, y1: int) -> bool:
        return x0 >= left and y0 >= top and x1 <= right and y1 <= bottom

    def kept(is_inside: Callable = inside, rule: Callable = all, words: Callable = split_words) -> list[str]:
        """The captions for which the rule holds over their things; a name is looked up in ``words(caption)``."""
        things = {text: [is_inside(*boxes[name]) for name in boxes if name in words(text)] for text in captions}
        return [text for text in captions if rule(things[text])]

    touched = kept(lambda x0, y0, x1, y1: inside(x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    cut = kept(lambda x0, y0, x1, y1: x0 < right and y0 < bottom and x1 > left and y1 > top)
    coco = kept(lambda x, y, width, height: inside(x, y, x + width, y + height))
    some = kept(rule=lambda things: not things or any(things))
    named = kept(rule=lambda things: any(things) and all(things))
    return kept(), {
        "a caption stays if any of its things is inside; all of them must be": some,
        "a caption that names none of the things was dropped; it is as true as before": named,
        "a thing counts as inside although the crop cuts it; its whole box must be inside": cut,
        "a box that touches the edge of the crop counts as outside; use >= and <=": touched,
        "a box was read as COCO's (x, y, width, height); here it is (left, top, right, bottom)": coco,
        "'catalogue' was read as 'cat'; compare whole words": kept(words=str),
        "a name before a comma was not found; 'tree,' contains the word 'tree'": kept(words=str.split),
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
    ids = torch.tensor([item["image_id"] for item in batch])[rows]
    counts = torch.tensor([len(own) for own in lists])
    equal = torch.arange(len(batch)).repeat_interleave(counts[0])
    return {"images": torch.stack(images), "texts": texts, "image_of_text": rows}, {
        "texts is a list of lists; make one flat list of all captions": {"texts": lists},
        "texts has only the first caption of each image; keep all": {"texts": [texts[0] for texts in lists]},
        "image_of_text holds image_ids; it should hold rows of this batch, from 0": {"image_of_text": ids},
        "image_of_text counts captions; it should hold the row of each caption's image": {"image_of_text": counts},
        "this gives each image as many captions as the first has; the numbers differ": {"image_of_text": equal},
        "image_of_text counts from 1; rows count from 0": {"image_of_text": rows + 1},
    }


check_learns_no_words = Choice(
    "answer",
    right="c",
    a="the images are stacked along a new first dimension, as they should be: [2, 3, 64, 64]",
    b="shuffling is harmless here: an image and its text are in one item, so they move together",
    c="each batch builds its own vocabulary, so one id means different words in different batches.",
    d="padding does come from the zeros, but this tokenizer never gives id 0 to a word, so it is right",
)

check_larger_batch = Choice(
    "answer",
    right="b",
    a="the count per image grows with the number of negatives: it is the share times 255, not times 63",
    b="the share stays near 5 %, and 5 % of 255 negatives are about 13 false negatives per image.",
    c="the share does not grow: whether one caption fits one scene has nothing to do with the batch size",
    d="more captions do not make any of them more exact; each fits another scene as often as before",
)
