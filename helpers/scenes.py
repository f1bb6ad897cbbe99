"""Scenes: small drawings of shapes whose whole truth is known, with captions from vague to exact.

A scene is a set of one to three things, each with a shape, a colour, a size and a named place on a 3 x 3 grid. Because
we draw it ourselves, two questions have exact answers that no photograph gives: which captions are true of which images
(:func:`fits`), and how well the best possible model could do (:func:`ceiling`).

``python -m helpers.scenes --out data/scenes`` writes the images and captions in the COCO Captions layout.
"""

import itertools
import json
import math
import os
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw
from tqdm import tqdm

from helpers.annotations import read_annotations
from helpers.command_line import CommandLine, InputError

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
COLOURS = {
    "red": "#d7191c",
    "orange": "#f58518",
    "yellow": "#f2d91e",
    "green": "#2a9d3a",
    "blue": "#2b5fd9",
    "purple": "#7b3294",
    "pink": "#f4a6d0",
    "black": "#222222",
}
SIZES = {"small": 5.0, "large": 9.0}  # radius in pixels
PLACES = {  # (column, row) and the words for it
    "top left": (0, 0, "at the top left"),
    "top": (1, 0, "at the top"),
    "top right": (2, 0, "at the top right"),
    "left": (0, 1, "on the left"),
    "middle": (1, 1, "in the middle"),
    "right": (2, 1, "on the right"),
    "bottom left": (0, 2, "at the bottom left"),
    "bottom": (1, 2, "at the bottom"),
    "bottom right": (2, 2, "at the bottom right"),
}
LEVELS = ("vague", "coloured", "related", "exact")
RELATIONS = {
    "left of": lambda a, b: column(a) < column(b),
    "right of": lambda a, b: column(a) > column(b),
    "above": lambda a, b: row(a) < row(b),
    "below": lambda a, b: row(a) > row(b),
}
IMAGE_SIZE = 64  # pixels
CELL = 20  # pixels between the centres of neighbouring places
JITTER = 1.0  # pixels a thing may sit off the centre of its place, each way
SPLITS = {"train": 16_000, "val": 1_000, "test": 1_000}
# There are only 864 different things, so scenes of one thing are few: all scenes of all splits differ.
SHARE_OF_SCENES_WITH = {1: 0.04, 2: 0.48, 3: 0.48}


class Thing(NamedTuple):
    shape: str
    colour: str
    size: str
    place: str


Scene = tuple[Thing, ...]  # in reading order of their places, which are all different


def column(thing: Thing) -> int:
    return PLACES[thing.place][0]


def row(thing: Thing) -> int:
    return PLACES[thing.place][1]


def draw_scene_at_random(generator: random.Random) -> Scene:
    """A scene: how many things, where, and what each of them is."""
    count = generator.choices(list(SHARE_OF_SCENES_WITH), list(SHARE_OF_SCENES_WITH.values()))[0]
    places = sorted(generator.sample(list(PLACES), count), key=list(PLACES).index)
    return tuple(
        Thing(generator.choice(SHAPES), generator.choice(list(COLOURS)), generator.choice(list(SIZES)), place)
        for place in places
    )


def describe(thing: Thing, *parts: str) -> str:
    """Words for a thing: its shape, and of its size, colour and place those that are asked for.

    >>> describe(Thing("circle", "red", "small", "middle"), "colour", "place")
    'a red circle in the middle'
    """
    words = [getattr(thing, part) for part in ("size", "colour") if part in parts] + [thing.shape]
    article = "an" if words[0][0] in "aeiou" else "a"
    place = [PLACES[thing.place][2]] if "place" in parts else []
    return " ".join([article, *words, *place])


def caption_probabilities(scene: Scene, level: str) -> dict[str, float]:
    """Every caption that a scene can get at a level, with its probability. This *is* how captions are made.

    - ``vague``: the shape of one thing, "a circle".
    - ``coloured``: shape and colour of one thing, "a red circle".
    - ``related``: two things and how they lie, "a red circle left of a blue square"; of a single thing, its place.
    - ``exact``: everything, in reading order.
    """
    if level == "vague":
        captions = [describe(thing) for thing in scene]
    elif level == "coloured":
        captions = [describe(thing, "colour") for thing in scene]
    elif level == "related" and len(scene) == 1:
        captions = [describe(scene[0], "colour", "place")]
    elif level == "related":
        captions = [
            f"{describe(a, 'colour')} {relation} {describe(b, 'colour')}"
            for a, b in itertools.permutations(scene, 2)
            for relation, holds in RELATIONS.items()
            if holds(a, b)
        ]
    elif level == "exact":
        parts = [describe(thing, "size", "colour", "place") for thing in scene]
        captions = [" and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)]
    else:
        raise ValueError(f"no caption level {level!r}; there are {', '.join(LEVELS)}")
    probabilities: dict[str, float] = defaultdict(float)
    for caption in captions:
        probabilities[caption] += 1 / len(captions)
    return dict(probabilities)


PLACE_OF_WORDS = {words: place for place, (_, _, words) in PLACES.items()}
THING = re.compile(
    rf"an? (?:({'|'.join(SIZES)}) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(SHAPES)})"
    rf"(?: ({'|'.join(sorted(PLACE_OF_WORDS, key=len, reverse=True))}))?"
)
RELATION = re.compile(rf" ({'|'.join(RELATIONS)}) ")


def fits(caption: str, scene: Iterable[Thing]) -> bool:
    """Whether a caption is true of a scene.

    A caption is true when the things it names are there, each a different one, and lie as it says. It need not name
    everything: "a circle" is true of every scene that has a circle. What is "left of" something is left by at least
    18 pixels of 64 (``CELL - 2 * JITTER``), so no relation is borderline; likewise the other three.

    Args:
        caption: made of the words this module uses.
        scene: things, or plain tuples of (shape, colour, size, place).

    Raises:
        ValueError: if the caption is not made of these words, naming the part that could not be read.
    """
    things = [Thing(*thing) for thing in scene]
    caption = caption.strip().lower().rstrip(".")
    relation = RELATION.search(caption)
    parts = [caption[: relation.start()], caption[relation.end() :]] if relation else re.split(r", | and ", caption)
    descriptions = [read_description(part, caption) for part in parts]
    return any(
        all(matches(description, thing) for description, thing in zip(descriptions, chosen, strict=True))
        and (relation is None or RELATIONS[relation[1]](*chosen))
        for chosen in itertools.permutations(things, len(descriptions))
    )


def read_description(words: str, caption: str) -> tuple[str | None, str | None, str, str | None]:
    """Size, colour, shape, place of "a small red circle at the top"; what is not said is None."""
    match = THING.fullmatch(words)
    if match is None:
        raise ValueError(f"cannot read {words!r} in the caption {caption!r}; a part reads like 'a small red circle'")
    size, colour, shape, place = match.groups()
    return size, colour, shape, PLACE_OF_WORDS.get(place)


def matches(description: tuple[str | None, str | None, str, str | None], thing: Thing) -> bool:
    size, colour, shape, place = description
    return shape == thing.shape and all(
        said is None or said == true
        for said, true in ((size, thing.size), (colour, thing.colour), (place, thing.place))
    )


def ceiling(scenes: Sequence[Scene], captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall at 1, in percent, of the best model there can be: one that knows exactly how captions are made.

    Given a caption, such a model answers with the image whose scene most probably got it; it is right with the
    probability ``max_i p(caption | scene i) / sum_i p(caption | scene i)``. Given an image, it answers with the caption
    for which that share is largest. A model that only knows which captions are *true* scores less than this: "a red
    circle at the top" is true of many scenes of three things, but is only ever said of a single thing.

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


def draw(scene: Scene, generator: random.Random) -> Image.Image:
    """The picture of a scene, ``IMAGE_SIZE`` pixels square; each thing sits up to ``JITTER`` off its place's centre."""
    scale = 4  # drawn four times as large and averaged down, since Pillow draws hard edges
    image = Image.new("RGB", (IMAGE_SIZE * scale, IMAGE_SIZE * scale), "white")
    pen = ImageDraw.Draw(image)
    for thing in scene:
        x = IMAGE_SIZE / 2 + (column(thing) - 1) * CELL + generator.uniform(-JITTER, JITTER)
        y = IMAGE_SIZE / 2 + (row(thing) - 1) * CELL + generator.uniform(-JITTER, JITTER)
        radius = SIZES[thing.size]
        if thing.shape == "circle":
            pen.circle((x * scale, y * scale), radius * scale * 0.9, fill=COLOURS[thing.colour])
        else:
            corners = [((x + u * radius) * scale, (y + v * radius) * scale) for u, v in outline(thing.shape)]
            pen.polygon(corners, fill=COLOURS[thing.colour])
    return image.reduce(scale)


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape within the square from -1 to 1, y pointing down."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)]
    if shape == "diamond":
        return [(0, -1), (0.65, 0), (0, 1), (-0.65, 0)]
    if shape == "star":  # ten corners, far and near in turn
        angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
        return [(r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, itertools.cycle([1, 0.45]), strict=False)]
    arm = 0.3  # a cross: once round its twelve corners
    quarter = [(-arm, -0.9), (arm, -0.9), (arm, -arm)]
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [(c * u - s * v, s * u + c * v) for c, s in turns for u, v in quarter]


def draw_to_file(job: tuple[Path, Scene, str]) -> None:
    path, scene, seed = job
    draw(scene, random.Random(seed)).save(path, compress_level=1)


def write_scenes(root: Path, sizes: dict[str, int] = SPLITS, seed: int = 0) -> None:
    """Draw all splits into ``root`` in the COCO Captions layout; the same seed gives the same bytes.

    Each image has one caption a level (its annotation's ``level``) and its truth (``things``) beside it. No two scenes
    are the same, within a split or between splits. The folder appears when it is complete, never half.

    Raises:
        InputError: if ``root`` exists already, or if more scenes are asked for than these settings can tell apart.
    """
    if root.exists():
        raise InputError(f"{root} exists already; remove it, or write to another folder")
    if not all(count > 0 for count in sizes.values()):
        raise InputError(f"every split needs at least one scene, got {sizes}")
    if sum(sizes.values()) > 100_000:
        raise InputError(f"{sum(sizes.values())} scenes are more than can be kept apart; ask for 100,000 or fewer")
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    (partial / "images").mkdir(parents=True)
    (partial / "annotations").mkdir()
    try:
        jobs = []
        seen: set[Scene] = set()
        for split, count in sizes.items():
            content = plan_split(split, count, random.Random(f"{seed}/{split}"), seen)
            (partial / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
            for image in content["images"]:
                scene = tuple(Thing(**thing) for thing in image["things"])
                jobs.append((partial / "images" / image["file_name"], scene, f"{seed}/{image['file_name']}"))
        with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
            drawn = pool.map(draw_to_file, jobs, chunksize=250)
            for _ in tqdm(drawn, total=len(jobs), desc="drawing scenes", unit="image", disable=None):
                pass
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def plan_split(split: str, count: int, generator: random.Random, seen: set[Scene]) -> dict:
    """The annotation file of a split: scenes not in ``seen`` (which grows by them), and a caption a level for each."""
    images, annotations = [], []
    while len(images) < count:
        scene = draw_scene_at_random(generator)
        if scene in seen:
            continue
        seen.add(scene)
        image_id = len(images)
        images.append(
            {
                "id": image_id,
                "file_name": f"{split}_{image_id:05d}.png",
                "width": IMAGE_SIZE,
                "height": IMAGE_SIZE,
                "things": [thing._asdict() for thing in scene],
            }
        )
        for level in LEVELS:
            choices = caption_probabilities(scene, level)
            caption = generator.choices(list(choices), list(choices.values()))[0]
            annotations.append(
                {"id": len(annotations), "image_id": image_id, "caption": caption, "level": level},
            )
    info = {"description": "scenes of coloured shapes, drawn by helpers.scenes"}
    return {"info": info, "images": images, "annotations": annotations}


def read_truth(root: Path, split: str) -> tuple[list[Scene], list[list[str]]] | None:
    """The scenes of a split and the level of each caption, in the order of ``read_captions``; None for other sources.

    Raises:
        InputError: as :func:`helpers.annotations.read_annotations`.
    """
    records = read_annotations(root, split)
    if not all("things" in record.image for record in records):
        return None
    try:
        scenes = [tuple(Thing(**thing) for thing in record.image["things"]) for record in records]
        levels = [[annotation["level"] for annotation in record.annotations] for record in records]
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{root}: the scenes of split {split!r} are not as helpers.scenes writes them ({error})"
        ) from None
    return scenes, levels


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.scenes", description="Draw the scenes with their captions.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default 0)")
    for split, count in SPLITS.items():
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"scenes in {split} ({count})")
    options = parser.parse_args(arguments)
    return parser.run(
        lambda: write_scenes(options.out, {split: getattr(options, split) for split in SPLITS}, options.seed)
    )


if __name__ == "__main__":
    sys.exit(main())
