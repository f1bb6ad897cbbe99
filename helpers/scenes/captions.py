"""The captions of scenes: how they are made, whether they are true of a scene, and the best score possible."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
# The first wording of each size and place is the plain one. A caption uses plain wordings only, or none.
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
PLACES = {
    "top left": ("at the top left", "in the upper left"),
    "top": ("at the top", "near the top"),
    "top right": ("at the top right", "in the upper right"),
    "left": ("on the left", "at the left"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "at the right"),
    "bottom left": ("at the bottom left", "in the lower left"),
    "bottom": ("at the bottom", "near the bottom"),
    "bottom right": ("at the bottom right", "in the lower right"),
}  # in reading order: three columns in three rows
RELATIONS = {  # wordings, and whether the relation holds between the positions (column, row) of a and b
    "left of": (("left of", "to the left of"), lambda a, b: a[0] < b[0]),
    "right of": (("right of", "to the right of"), lambda a, b: a[0] > b[0]),
    "above": (("above", "higher than"), lambda a, b: a[1] < b[1]),
    "below": (("below", "lower than"), lambda a, b: a[1] > b[1]),
}
OPPOSITE_SIDE = {"left of": "right of", "right of": "left of"}
LEVELS = ("vague", "coloured", "related", "exact")


class Thing(NamedTuple):
    shape: str
    colour: str
    size: str
    place: str


Scene = tuple[Thing, ...]  # in reading order; no two things share a place


def position(thing: Thing) -> tuple[int, int]:
    """The (column, row) of a thing on the grid, each from 0 to 2."""
    row, column = divmod(list(PLACES).index(thing.place), 3)
    return column, row


def describe(thing: Thing, *parts: str, other_words: bool = False) -> str:
    """Describe a thing by its shape and the given ``parts``, size, colour and place: "a red circle in the middle"."""
    words = [SIZES[thing.size][other_words]] if "size" in parts else []
    words += [thing.colour] if "colour" in parts else []
    words.append(thing.shape)
    place = [PLACES[thing.place][other_words]] if "place" in parts else []
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, *place])


def wordings(scene: Scene, level: str) -> list[list[str]]:
    """All statements about a scene at a level, each with its several wordings.

    - ``vague``, the shape of one thing: "a circle", "there is a circle", "a picture of a circle".
    - ``coloured``, its shape and colour: "a red circle", "there is a red circle", "a circle that is red".
    - ``related``, two things and their relation: "a red circle left of a blue square"; for a single thing, its place.
    - ``exact``, everything in reading order: "a small red circle at the top and a large blue square on the left".
    """
    if level == "vague":
        return [[lead + describe(thing) for lead in ("", "there is ", "a picture of ")] for thing in scene]
    if level == "coloured":
        named = [(thing, describe(thing, "colour")) for thing in scene]
        return [[name, f"there is {name}", f"{describe(thing)} that is {thing.colour}"] for thing, name in named]
    if level == "related" and len(scene) == 1:
        return [[describe(scene[0], "colour", "place", other_words=other) for other in (False, True)]]
    if level == "related":
        return [
            [relate(a, words, b) for words in RELATIONS[relation][0]]
            for a, b in itertools.permutations(scene, 2)
            for relation in relations_between(a, b)
        ]
    if level == "exact":
        plain = [describe(thing, "size", "colour", "place") for thing in scene]
        other = [describe(thing, "size", "colour", "place", other_words=True) for thing in scene]
        place_first = [f"{PLACES[thing.place][0]} {describe(thing, 'size', 'colour')}" for thing in scene]
        lists = [", ".join(parts).rsplit(", ", 1) for parts in (plain, other, place_first)]
        return [[" and ".join(parts) for parts in lists]]  # "a", "a and b", "a, b and c"
    raise ValueError(f"no caption level {level!r}; there are {', '.join(LEVELS)}")


def relate(a: Thing, words: str, b: Thing) -> str:
    return f"{describe(a, 'colour')} {words} {describe(b, 'colour')}"


def relations_between(a: Thing, b: Thing) -> list[str]:
    """The relations of ``a`` to ``b``, such as "left of" and "above"."""
    return [relation for relation, (_, holds) in RELATIONS.items() if holds(position(a), position(b))]


def caption_probabilities(scene: Scene, level: str) -> dict[str, float]:
    """Every caption that a scene can get at a level, with its probability; this is how captions are made."""
    statements = wordings(scene, level)  # equally probable, as are the wordings of each
    probabilities: dict[str, float] = defaultdict(float)
    for ways in statements:
        for caption in ways:
            probabilities[caption] += 1 / len(statements) / len(ways)
    return dict(probabilities)


SIZE_OF_WORD = {word: size for size, words in SIZES.items() for word in words}
PLACE_OF_WORDS = {words: place for place, ways in PLACES.items() for words in ways}
RELATION_OF_WORDS = {words: relation for relation, (ways, _) in RELATIONS.items() for words in ways}


def any_of(words: Iterable[str]) -> str:
    """A regular expression for any of the words, the longest first: "at the top left" before "at the top"."""
    return "(" + "|".join(sorted(words, key=len, reverse=True)) + ")"


DESCRIPTION = re.compile(
    rf"(?:{any_of(PLACE_OF_WORDS)} )?an? (?:{any_of(SIZE_OF_WORD)} )?(?:{any_of(COLOURS)} )?{any_of(SHAPES)}"
    rf"(?: that is {any_of(COLOURS)})?(?: {any_of(PLACE_OF_WORDS)})?"
)
RELATION = re.compile(f" {any_of(RELATION_OF_WORDS)} ")


@lru_cache(maxsize=100_000)
def read_caption(caption: str) -> tuple[tuple[tuple[str | None, ...], ...], str | None]:
    """The shape, colour, size and place of each thing in a caption, and the relation; None for what it does not say."""
    text = re.sub(r"^(there is|a picture of) ", "", caption.strip().lower().rstrip("."))
    relation = RELATION.search(text)
    parts = [text[: relation.start()], text[relation.end() :]] if relation else re.split(r", | and ", text)
    descriptions = []
    for part in parts:
        match = DESCRIPTION.fullmatch(part)
        if match is None or (match[1] and match[6]) or (match[3] and match[5]):  # a place or a colour twice
            raise ValueError(f"cannot read {part!r} in the caption {caption!r}; write it like 'a small red circle'")
        place_before, size, colour, shape, colour_after, place_after = match.groups()
        place = PLACE_OF_WORDS.get(place_before or place_after)
        descriptions.append((shape, colour or colour_after, SIZE_OF_WORD.get(size), place))
    return tuple(descriptions), RELATION_OF_WORDS[relation[1]] if relation else None


def fits(caption: str, scene: Iterable[Thing]) -> bool:
    """Whether a caption is true of a scene: the scene has the things that the caption names, placed as stated.

    "A circle" is true of every scene with a circle. Relations are never borderline: the centres are at least 18 of 64
    pixels apart in that direction. A ``ValueError`` names the part of the caption that cannot be read.
    """
    descriptions, relation = read_caption(caption)
    for things in itertools.permutations([Thing(*thing) for thing in scene], len(descriptions)):
        properties = zip(itertools.chain(*descriptions), itertools.chain(*things), strict=True)
        matches = all(named in (None, true) for named, true in properties)
        if matches and (relation is None or relation in relations_between(*things)):
            return True
    return False


def fit_matrix(captions: Sequence[str], scenes: Sequence[Scene]) -> np.ndarray:
    """Whether each caption is true of each scene: :func:`fits` for all of them at once, bool ``[scenes, captions]``."""
    rows_with: dict[tuple, set[int]] = defaultdict(set)  # for each description, the scenes with a thing that matches it
    for row, scene in enumerate(scenes):
        for shape, colour, size, place in scene:
            for description in itertools.product([shape], [colour, None], [size, None], [place, None]):
                rows_with[description].add(row)
    fit = np.zeros((len(scenes), len(captions)), dtype=bool)
    for column, caption in enumerate(captions):
        descriptions, _ = read_caption(caption)
        rows = set.intersection(*(rows_with[description] for description in descriptions))
        if len(descriptions) > 1:  # the things must also be different ones, and lie as the caption says
            rows = {row for row in rows if fits(caption, scenes[row])}
        fit[list(rows), column] = True
    return fit


def ceiling(scenes: Sequence[Scene], captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Expected recall at 1, in percent, of the best possible model: one that knows exactly how captions are made.

    Given a caption, it answers with the image whose scene most probably got it, and is right with probability
    ``max_i p(caption | scene i) / sum_i p(caption | scene i)``. Given an image, it answers with the caption for which
    that share is largest.
    """
    column_of = {caption: column for column, caption in enumerate(dict.fromkeys(itertools.chain(*captions)))}
    shares = np.zeros((len(scenes), len(column_of)))  # [scenes, captions], first p(caption | scene)
    for row, scene in enumerate(scenes):
        for level in LEVELS:
            for caption, probability in caption_probabilities(scene, level).items():
                if caption in column_of:
                    shares[row, column_of[caption]] = probability
    shares /= shares.sum(0)  # p(scene | caption)
    queries = [column_of[caption] for caption in itertools.chain(*captions)]
    text_to_image = 100 * float(shares.max(0)[queries].mean())
    return {"image_to_text": 100 * float(shares.max(1).mean()), "text_to_image": text_to_image}


class MinimalPair(NamedTuple):
    """Two scenes and two captions, each true of its own scene only: two things have exchanged colours or places."""

    kind: str  # "colours": "a red circle left of a blue square", "a blue circle left of a red square"; or "sides"
    scenes: tuple[Scene, Scene]
    captions: tuple[str, str]


def minimal_pairs(scene: Scene) -> list[MinimalPair]:
    """All minimal pairs that begin with a scene."""
    pairs = []
    for a, b in itertools.permutations(scene, 2):
        others = [thing for thing in scene if thing not in (a, b)]
        recoloured = a._replace(colour=b.colour), b._replace(colour=a.colour)
        moved = a._replace(place=b.place), b._replace(place=a.place)
        for relation in relations_between(a, b):
            exchanges = [("colours", recoloured, relation)]
            if relation in OPPOSITE_SIDE:
                exchanges.append(("sides", moved, OPPOSITE_SIDE[relation]))
            for kind, (new_a, new_b), new_relation in exchanges:
                second = tuple(sorted([*others, new_a, new_b], key=lambda thing: list(PLACES).index(thing.place)))
                captions = (relate(a, relation, b), relate(new_a, new_relation, new_b))
                if not fits(captions[1], scene) and not fits(captions[0], second):
                    pairs.append(MinimalPair(kind, (scene, second), captions))
    return pairs
