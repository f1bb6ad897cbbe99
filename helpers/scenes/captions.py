"""Words for scenes: how captions are made, which of them are true of which scenes, and what the best model could reach.

A scene is a set of things, each with a shape, a colour, a size and a named place on a 3 x 3 grid. Because every caption
is made by :func:`caption_probabilities` and read by :func:`read_caption`, questions have exact answers here that no
photograph gives. The drawing is in :mod:`helpers.scenes.render`.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
# In these two the first words are the plain ones; a caption takes either all plain words or all of the others.
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
RELATIONS = {  # the words for it, and whether a, at (column, row), lies so to b
    "left of": (("left of", "to the left of"), lambda a, b: a[0] < b[0]),
    "right of": (("right of", "to the right of"), lambda a, b: a[0] > b[0]),
    "above": (("above", "higher than"), lambda a, b: a[1] < b[1]),
    "below": (("below", "lower than"), lambda a, b: a[1] > b[1]),
}
LEVELS = ("vague", "coloured", "related", "exact")


class Thing(NamedTuple):
    shape: str
    colour: str
    size: str
    place: str


Scene = tuple[Thing, ...]  # in reading order of their places, which are all different


def position(thing: Thing) -> tuple[int, int]:
    """(column, row) of a thing, each from 0 to 2."""
    row, column = divmod(list(PLACES).index(thing.place), 3)
    return column, row


def describe(thing: Thing, *parts: str, other_words: bool = False) -> str:
    """Words for a thing: its shape, and of its size, colour and place those that are asked for.

    >>> describe(Thing("circle", "red", "small", "middle"), "size", "colour", "place")
    'a small red circle in the middle'
    >>> describe(Thing("circle", "red", "small", "middle"), "size", "colour", "place", other_words=True)
    'a little red circle in the centre'
    """
    words = [SIZES[thing.size][other_words]] if "size" in parts else []
    words += [thing.colour] if "colour" in parts else []
    words.append(thing.shape)
    place = [PLACES[thing.place][other_words]] if "place" in parts else []
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, *place])


def listed(parts: Sequence[str]) -> str:
    """Parts as a list in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def wordings(scene: Scene, level: str) -> list[list[str]]:
    """What can be said of a scene at a level, and for each of these the several ways to say it.

    - ``vague``: the shape of one thing: "a circle", "there is a circle", "a picture of a circle".
    - ``coloured``: shape and colour of one thing: "a red circle", "there is a red circle", "a circle that is red".
    - ``related``: two things and how they lie: "a red circle left of a blue square", or "to the left of"; of a single
      thing, its place.
    - ``exact``: everything, in reading order: "a small red circle at the top and a large blue square on the left", "a
      little red circle near the top and a big blue square at the left", "at the top a small red circle and on the left
      a large blue square".
    """
    if level == "vague":
        return [[lead + describe(thing) for lead in ("", "there is ", "a picture of ")] for thing in scene]
    if level == "coloured":
        return [
            [
                describe(thing, "colour"),
                f"there is {describe(thing, 'colour')}",
                f"{describe(thing)} that is {thing.colour}",
            ]
            for thing in scene
        ]
    if level == "related" and len(scene) == 1:
        return [[describe(scene[0], "colour", "place", other_words=other) for other in (False, True)]]
    if level == "related":
        return [
            [f"{describe(a, 'colour')} {words} {describe(b, 'colour')}" for words in ways]
            for a, b in itertools.permutations(scene, 2)
            for ways, holds in RELATIONS.values()
            if holds(position(a), position(b))
        ]
    if level == "exact":
        plain, other = (
            [describe(thing, "size", "colour", "place", other_words=other) for thing in scene]
            for other in (False, True)
        )
        place_first = [f"{PLACES[thing.place][0]} {describe(thing, 'size', 'colour')}" for thing in scene]
        return [[listed(plain), listed(other), listed(place_first)]]
    raise ValueError(f"no caption level {level!r}; there are {', '.join(LEVELS)}")


def caption_probabilities(scene: Scene, level: str) -> dict[str, float]:
    """Every caption that a scene can get at a level, with its probability. This *is* how captions are made.

    All that can be said is equally probable, and so are the ways to say it.
    """
    contents = wordings(scene, level)
    probabilities: dict[str, float] = defaultdict(float)
    for ways in contents:
        for caption in ways:
            probabilities[caption] += 1 / len(contents) / len(ways)
    return dict(probabilities)


class Description(NamedTuple):
    """What a caption says of one thing; what is not said is None."""

    shape: str
    colour: str | None
    size: str | None
    place: str | None


SIZE_OF_WORD = {word: size for size, words in SIZES.items() for word in words}
PLACE_OF_WORDS = {words: place for place, ways in PLACES.items() for words in ways}
RELATION_OF_WORDS = {words: relation for relation, (ways, _) in RELATIONS.items() for words in ways}


def any_of(words: Iterable[str]) -> str:
    return "(" + "|".join(sorted(words, key=len, reverse=True)) + ")"  # longest first: "at the top left", "at the top"


DESCRIPTION = re.compile(
    rf"(?:{any_of(PLACE_OF_WORDS)} )?an? (?:{any_of(SIZE_OF_WORD)} )?(?:{any_of(COLOURS)} )?{any_of(SHAPES)}"
    rf"(?: that is {any_of(COLOURS)})?(?: {any_of(PLACE_OF_WORDS)})?"
)
RELATION = re.compile(f" {any_of(RELATION_OF_WORDS)} ")


@lru_cache(maxsize=100_000)
def read_caption(caption: str) -> tuple[tuple[Description, ...], str | None]:
    """What a caption says: the things it names, and how the first lies to the second where it says so.

    Raises:
        ValueError: if the caption is not made of the words of scenes, naming the part that could not be read.
    """
    text = re.sub(r"^(there is|a picture of) ", "", caption.strip().lower().rstrip("."))
    relation = RELATION.search(text)
    parts = [text[: relation.start()], text[relation.end() :]] if relation else re.split(r", | and ", text)
    descriptions = []
    for part in parts:
        match = DESCRIPTION.fullmatch(part)
        if match is None:
            raise ValueError(f"cannot read {part!r} in the caption {caption!r}; a part reads like 'a small red circle'")
        place_before, size, colour, shape, colour_after, place_after = match.groups()
        if (place_before and place_after) or (colour and colour_after):
            raise ValueError(f"{part!r} in the caption {caption!r} says place or colour twice")
        place = PLACE_OF_WORDS.get(place_before or place_after)
        descriptions.append(Description(shape, colour or colour_after, SIZE_OF_WORD.get(size), place))
    return tuple(descriptions), RELATION_OF_WORDS[relation[1]] if relation else None


def matches(description: Description, thing: Thing) -> bool:
    return all(said is None or said == true for said, true in zip(description, thing, strict=True))


def fits(caption: str, scene: Iterable[Thing]) -> bool:
    """Whether a caption is true of a scene.

    A caption is true when the things it names are there, each a different one, and lie as it says. It need not name
    everything: "a circle" is true of every scene that has a circle. No relation is borderline: what is "left of"
    something lies left by at least 18 pixels of 64, centre to centre (``CELL - 2 * JITTER`` of :mod:`helpers.scenes.render`);
    likewise the other three.

    Args:
        caption: made of the words this module uses.
        scene: things, or plain tuples of (shape, colour, size, place).

    Raises:
        ValueError: if the caption is not made of these words, naming the part that could not be read.
    """
    things = [Thing(*thing) for thing in scene]
    descriptions, relation = read_caption(caption)
    return any(
        all(matches(description, thing) for description, thing in zip(descriptions, chosen, strict=True))
        and (relation is None or RELATIONS[relation][1](*map(position, chosen)))
        for chosen in itertools.permutations(things, len(descriptions))
    )


def fit_matrix(captions: Sequence[str], scenes: Sequence[Scene]) -> np.ndarray:
    """Which captions are true of which scenes, bool ``[scenes, captions]``: :func:`fits` for all of them at once.

    Off the diagonal of a batch, where it is True, stands a false negative.

    Raises:
        ValueError: as :func:`fits`.
    """
    most = max((len(scene) for scene in scenes), default=0)
    # Every property as a number, so that all scenes are compared at once; where a scene has no thing, -1.
    values = [SHAPES, COLOURS, tuple(SIZES), tuple(PLACES)]
    codes = np.full((4, len(scenes), most), -1)  # [property, scene, thing]
    for row, scene in enumerate(scenes):
        for column, thing in enumerate(scene):
            codes[:, row, column] = [options.index(value) for options, value in zip(values, thing, strict=True)]
    found = np.zeros((len(scenes), len(captions)), dtype=bool)
    for number, caption in enumerate(captions):
        descriptions, _ = read_caption(caption)
        fitting = np.ones((len(descriptions), len(scenes), most), dtype=bool)  # which things answer a description
        for description, answers in zip(descriptions, fitting, strict=True):
            answers &= codes[0] >= 0
            for options, value, code in zip(values, description, codes, strict=True):
                if value is not None:
                    answers &= code == options.index(value)
        if len(descriptions) == 1:
            found[:, number] = fitting[0].any(1)
        else:
            # The few scenes that have an answer to each description are looked at one by one.
            for row in np.flatnonzero(fitting.any(2).all(0)):
                found[row, number] = fits(caption, scenes[row])
    return found


def truth_oracle(fit: np.ndarray, image_of_caption: Sequence[int]) -> dict[str, float]:
    """Recall at 1, in percent, of one that knows which captions are true and no more, and guesses among those.

    Not an upper bound: a trained model passes it, since it also learns how captions are made. "A red circle at the top"
    is true of many scenes of three things, but is only ever said of a single thing. :func:`ceiling` knows that too.

    Args:
        fit: bool ``[images, captions]`` from :func:`fit_matrix`.
        image_of_caption: for each caption the row of its image.

    Returns:
        ``{"image_to_text": ..., "text_to_image": ...}``, expected values in percent.

    Raises:
        ValueError: if a caption is not true of its own image, or an image has none.
    """
    rows = np.asarray(image_of_caption)
    own = rows == np.arange(len(fit))[:, None]  # [images, captions]
    if not fit[own].all() or not own.any(1).all():
        raise ValueError("every image needs a caption, and every caption must be true of its own image")
    return {
        "image_to_text": 100 * float((own.sum(1) / fit.sum(1)).mean()),
        "text_to_image": 100 * float((1 / fit.sum(0)).mean()),
    }


def ceiling(scenes: Sequence[Scene], captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall at 1, in percent, of the best model there can be: one that knows exactly how captions are made.

    Given a caption, such a model answers with the image whose scene most probably got it; it is right with the
    probability ``max_i p(caption | scene i) / sum_i p(caption | scene i)``. Given an image, it answers with the caption
    for which that share is largest.

    Args:
        scenes: the scenes of the gallery.
        captions: for each scene, those of its captions that are in the gallery; ask for one level by passing only it.

    Returns:
        ``{"image_to_text": ..., "text_to_image": ...}``, expected values in percent.

    Raises:
        ValueError: if the two lengths differ, or if a scene cannot have got one of its captions.
    """
    if len(scenes) != len(captions):
        raise ValueError(f"got {len(scenes)} scenes and captions for {len(captions)}")
    asked = {caption for of_scene in captions for caption in of_scene}
    probability: dict[str, dict[int, float]] = defaultdict(dict)  # of a caption, given each scene that can get it
    for index, scene in enumerate(scenes):
        for level in LEVELS:
            for caption, value in caption_probabilities(scene, level).items():
                if caption in asked:
                    probability[caption][index] = value
    for index, of_scene in enumerate(captions):
        for caption in of_scene:
            if index not in probability[caption]:
                raise ValueError(f"scene {index} cannot have got the caption {caption!r}")
    best_for_image = [0.0] * len(scenes)
    hits = {}
    for caption, of_scenes in probability.items():
        total = sum(of_scenes.values())
        hits[caption] = max(of_scenes.values()) / total
        for index, value in of_scenes.items():
            best_for_image[index] = max(best_for_image[index], value / total)
    queries = [hits[caption] for of_scene in captions for caption in of_scene]
    return {
        "image_to_text": 100 * sum(best_for_image) / len(best_for_image),
        "text_to_image": 100 * sum(queries) / len(queries),
    }


class MinimalPair(NamedTuple):
    """Two scenes and two captions, each true of one scene of the two: the first of the first."""

    kind: str
    scenes: tuple[Scene, Scene]
    captions: tuple[str, str]


def minimal_pairs(scene: Scene) -> list[MinimalPair]:
    """All minimal pairs that can be made of a scene: what differs is not which words there are, but how they are bound.

    - ``colours``: "a red circle left of a blue square" against "a blue circle left of a red square".
    - ``sides``: "a red circle left of a blue square" against "a red circle right of a blue square".

    In the second scene the two things have exchanged their colours, or their places; all else stays.
    """
    pairs = []
    for a, b in itertools.permutations(scene, 2):
        for relation, (_, holds) in RELATIONS.items():
            if not holds(position(a), position(b)):
                continue
            exchanged = {
                "colours": (a._replace(colour=b.colour), b._replace(colour=a.colour), relation),
                "sides": (
                    a._replace(place=b.place),
                    b._replace(place=a.place),
                    {"left of": "right of", "right of": "left of"}.get(relation),
                ),
            }
            said = f"{describe(a, 'colour')} {relation} {describe(b, 'colour')}"
            for kind, (new_a, new_b, new_relation) in exchanged.items():
                if new_relation is None:
                    continue
                others = [thing for thing in scene if thing not in (a, b)]
                second = tuple(sorted([*others, new_a, new_b], key=lambda thing: list(PLACES).index(thing.place)))
                captions = (said, f"{describe(new_a, 'colour')} {new_relation} {describe(new_b, 'colour')}")
                told_apart = [[fits(caption, one) for caption in captions] for one in (scene, second)]
                if told_apart == [[True, False], [False, True]]:
                    pairs.append(MinimalPair(kind, (scene, second), captions))
    return pairs
