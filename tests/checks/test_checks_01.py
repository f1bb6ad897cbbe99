"""The checks of notebook 01 accept the right answer and name the mistake in typical wrong ones."""

import random
import re
from collections.abc import Callable

import pytest
import torch
from answers import assert_named, assert_right
from helpers.checks.core.core import check_collate, check_flip_caption, check_pad
from torch import Tensor
from torch.utils.data import default_collate

from helpers.scenes.captions import LEVELS, PLACES, Scene, Thing, caption_probabilities, fits, position
from helpers.scenes.render import sample_scene

OTHER_SIDE = {"left": "right", "right": "left"}


def stub(*_: object) -> None:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


def pad(token_lists: list[list[int]], length: int | None = None, at_front: bool = False) -> tuple[Tensor, Tensor]:
    length = length or max(len(ids) for ids in token_lists)
    rows = []
    for ids in token_lists:
        zeros = [0] * (length - len(ids))
        rows.append(zeros + ids if at_front else (ids + zeros)[:length])
    lengths = torch.tensor([len(ids) for ids in token_lists])
    return torch.tensor(rows), torch.arange(length) >= lengths[:, None]


def flip(caption: str, count: int = 0) -> str:
    return re.sub(r"\b(left|right)\b", lambda side: OTHER_SIDE[side[0]], caption, count=count)


def collate(items: list[dict], image_of_text: Callable[[list[dict]], list[int]] | None = None) -> dict:
    texts = [text for item in items for text in item["texts"]]
    rows = [row for row, item in enumerate(items) for _ in item["texts"]]
    return {
        "images": torch.stack([item["image"] for item in items]),
        "texts": texts,
        "image_of_text": torch.tensor(image_of_text(items) if image_of_text else rows),
    }


def inside_out(items: list[dict]) -> list[tuple[int, str]]:
    most = max(len(item["texts"]) for item in items)
    return [(row, item["texts"][k]) for k in range(most) for row, item in enumerate(items) if k < len(item["texts"])]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_pad, pad),
        (check_pad, lambda token_lists: list(pad(token_lists))),
        (check_flip_caption, flip),
        (
            check_flip_caption,
            lambda c: (
                re.sub(r"\bleft\b", "LEFT", re.sub(r"\bright\b", "RIGHT", c))
                .replace("LEFT", "right")
                .replace("RIGHT", "left")
            ),
        ),
        (check_collate, collate),
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
        (lambda token_lists: None, "two tensors"),
        (lambda token_lists: pad(token_lists)[0], "two tensors"),
        (lambda token_lists: torch.tensor(token_lists), "stopped with ValueError"),
        (lambda token_lists: pad(token_lists, min(map(len, token_lists))), "cut to the shortest"),
        (lambda token_lists: pad(token_lists, 32), "returned the shape [4, 32]"),
        (lambda token_lists: pad(token_lists, at_front=True), "before the ids"),
        (lambda token_lists: (pad(token_lists)[0].float(), pad(token_lists)[1]), "int64"),
        (lambda token_lists: (pad(token_lists)[0], pad(token_lists)[1].int()), "padding must be bool"),
        (lambda token_lists: (pad(token_lists)[0], ~pad(token_lists)[1]), "wrong way round"),
        (lambda token_lists: (pad(token_lists)[0], pad(token_lists)[0] == 0), "id 0 can be a word"),
        (lambda token_lists: (pad(token_lists)[0] + 1, pad(token_lists)[1]), "token_ids: entry [0, 0]"),
        (lambda token_lists: (pad(token_lists)[0], torch.zeros_like(pad(token_lists)[1])), "padding: entry"),
    ],
)
def test_pad_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_pad, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda caption: None, "must return a str"),
        (lambda caption: caption.split(), "must return a str"),
        (lambda caption: caption, "nothing changed"),
        (lambda caption: caption.replace("left", "right").replace("right", "left"), "undoes the first"),
        (lambda caption: caption.replace("right", "left").replace("left", "right"), "undoes the first"),
        (lambda caption: re.sub(r"\bright\b", "left", re.sub(r"\bleft\b", "right", caption)), "undoes the first"),
        (lambda caption: re.sub(r"\bleft\b", "right", caption), "undoes the first"),
        (lambda caption: flip(caption, count=1), "only the first"),
        (lambda caption: re.sub("left|right", lambda side: OTHER_SIDE[side[0]], caption), "longer word"),
        (lambda caption: " ".join(OTHER_SIDE.get(word, word) for word in caption.split()), "comma"),
        (
            lambda caption: re.sub(r"(?<!upper )\b(left|right)\b", lambda side: OTHER_SIDE[side[0]], caption),
            "it should be",
        ),
        (lambda caption: flip(caption).replace("top", "bottom").replace(".", ""), "it should be"),
        (lambda caption: flip(caption).upper(), "it should be"),
    ],
)
def test_flip_caption_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_flip_caption, answer, words)


def mirror(scene: Scene) -> Scene:
    place_at = {position(Thing("", "", "", place)): place for place in PLACES}
    places = [place_at[2 - column, row] for column, row in map(position, scene)]
    return tuple(thing._replace(place=place) for thing, place in zip(scene, places, strict=True))


def test_an_answer_that_passes_keeps_every_caption_of_a_scene_true() -> None:
    check_flip_caption(flip)
    generator = random.Random(0)
    for _ in range(200):
        scene = sample_scene(generator)
        for caption in (caption for level in LEVELS for caption in caption_probabilities(scene, level)):
            assert fits(flip(caption), mirror(scene)), caption


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stub, "not written yet"),
        (lambda items: None, "dictionary"),
        (lambda items: {"images": collate(items)["images"]}, "dictionary"),
        (default_collate, "stopped with"),
        (lambda items: collate(items) | {"images": [item["image"] for item in items]}, "must return a tensor"),
        (lambda items: collate(items) | {"images": torch.cat([item["image"] for item in items])}, "returned the shape"),
        (
            lambda items: collate(items) | {"images": torch.stack([item["image"] for item in items], dim=1)},
            "wrong dimension",
        ),
        (lambda items: collate(items) | {"texts": [item["texts"] for item in items]}, "list of lists"),
        (lambda items: collate(items) | {"texts": [item["texts"][0] for item in items]}, "only the first caption"),
        (lambda items: collate(items) | {"texts": [text for _, text in inside_out(items)]}, "inside out"),
        (lambda items: collate(items) | {"texts": collate(items)["texts"][:-1]}, "it should be"),
        (lambda items: collate(items) | {"texts": None}, "texts must be a list"),
        (lambda items: collate(items, lambda _: [i["image_id"] for i in items for _ in i["texts"]]), "image_ids"),
        (lambda items: collate(items, lambda _: [row for row, _ in inside_out(items)]), "another order"),
        (lambda items: collate(items, lambda _: list(range(len(collate(items)["texts"])))), "counts captions"),
        (lambda items: collate(items, lambda _: [len(item["texts"]) for item in items]), "it should be"),
        (lambda items: collate(items) | {"image_of_text": collate(items)["image_of_text"].float()}, "int64"),
        (lambda items: collate(items) | {"image_of_text": collate(items)["image_of_text"].tolist()}, "tensor"),
    ],
)
def test_collate_names_the_mistake(answer: Callable, words: str) -> None:
    assert_named(check_collate, answer, words)
