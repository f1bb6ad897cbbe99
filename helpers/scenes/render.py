"""The images of scenes, and the folder of all splits with their captions in the COCO Captions layout.

The captions and their truth are in :mod:`helpers.scenes.captions`.
"""

import itertools
import json
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw
from tqdm import tqdm

from helpers.files import InputError, atomic_folder
from helpers.scenes.captions import (
    COLOURS,
    LEVELS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    caption_probabilities,
    fits,
    minimal_pairs,
    position,
)
from helpers.sources.coco import Record, read_annotations

PAINT = {
    "red": "#d7191c",
    "orange": "#f58518",
    "yellow": "#f2d91e",
    "green": "#2a9d3a",
    "blue": "#2b5fd9",
    "purple": "#7b3294",
    "pink": "#f4a6d0",
    "black": "#222222",
}
RADIUS = {"small": 5.0, "large": 9.0}  # pixels
IMAGE_SIZE = 64  # pixels
CELL = 20  # pixels between the centres of neighbouring places
JITTER = 1.0  # pixels; how far a thing may lie from the centre of its place, in x and in y
SPLITS = {"train": 16_000, "val": 1_000, "test": 1_000}
MINIMAL = 400  # minimal pairs, half of each kind


class Difficulty(NamedTuple):
    """How hard the scenes are, and how noisy the training captions."""

    shapes: tuple[int, int] = (1, 3)  # fewest and most things in a scene
    scale: float = 1.0  # factor on the radius of the things
    held_out: int = 0  # (colour, shape) pairs that are in no scene of train and val
    duplicates: float = 0.0  # share of the training images that repeat the scene and the captions of another one
    wrong: float = 0.0  # share of the training captions that are false


EASY = Difficulty()
HARD = Difficulty(shapes=(3, 6), scale=0.6, held_out=6)


def held_out_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """(colour, shape) pairs that training never sees; each colour and each shape is in one pair at most."""
    generator = random.Random(f"{seed}/held out")
    return list(zip(generator.sample(COLOURS, count), generator.sample(SHAPES, count), strict=True))


def sample_scene(generator: random.Random, shapes: tuple[int, int] = (1, 3)) -> Scene:
    """Sample the number of things, their places and their properties."""
    counts = range(shapes[0], shapes[1] + 1)
    # There are only 864 different scenes of one thing, and no two scenes may be equal, so these must be rare.
    weights = [0.04 if count == 1 and len(counts) > 1 else 0.48 for count in counts]
    count = generator.choices(counts, weights)[0]
    places = sorted(generator.sample(list(PLACES), count), key=list(PLACES).index)
    return tuple(
        Thing(generator.choice(SHAPES), generator.choice(COLOURS), generator.choice(list(SIZES)), place)
        for place in places
    )


def render_scene(scene: Scene, generator: random.Random, scale: float = 1.0) -> Image.Image:
    """Render a scene as a square image of ``IMAGE_SIZE`` pixels; each thing lies within ``JITTER`` of its place."""
    factor = 4  # Pillow's edges are hard, so the image is rendered four times as large and averaged down
    image = Image.new("RGB", (IMAGE_SIZE * factor, IMAGE_SIZE * factor), "white")
    pen = ImageDraw.Draw(image)
    for thing in scene:
        column, row = position(thing)
        x = IMAGE_SIZE / 2 + (column - 1) * CELL + generator.uniform(-JITTER, JITTER)
        y = IMAGE_SIZE / 2 + (row - 1) * CELL + generator.uniform(-JITTER, JITTER)
        radius = RADIUS[thing.size] * scale
        if thing.shape == "circle":
            pen.circle((x * factor, y * factor), radius * factor * 0.9, fill=PAINT[thing.colour])
        else:
            corners = [((x + u * radius) * factor, (y + v * radius) * factor) for u, v in outline(thing.shape)]
            pen.polygon(corners, fill=PAINT[thing.colour])
    return image.reduce(factor)


def outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape within the square from -1 to 1, y pointing down."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)]
    if shape == "diamond":
        return [(0, -1), (0.65, 0), (0, 1), (-0.65, 0)]
    if shape == "star":  # ten corners, alternately far and near
        angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
        return [(r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, itertools.cycle([1, 0.45]), strict=False)]
    arm = 0.3  # a cross: three corners, turned by four right angles
    quarter = [(-arm, -0.9), (arm, -0.9), (arm, -arm)]
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [(c * u - s * v, s * u + c * v) for c, s in turns for u, v in quarter]


class Plan:
    """The annotation files of all splits, made before any image is rendered. No two scenes are equal."""

    def __init__(self, seed: int, difficulty: Difficulty) -> None:
        self.seed = seed
        self.difficulty = difficulty
        self.held_out = held_out_pairs(difficulty.held_out, seed)
        self.seen: set[Scene] = set()

    def has_held_out(self, scene: Scene) -> bool:
        return any((thing.colour, thing.shape) in self.held_out for thing in scene)

    def new_scene(self, generator: random.Random, split: str) -> Scene:
        """Sample scenes until one is new."""
        for _ in range(10_000):
            scene = sample_scene(generator, self.difficulty.shapes)
            allowed = split not in ("train", "val") or not self.has_held_out(scene)
            if allowed and scene not in self.seen:
                self.seen.add(scene)
                return scene
        low, high = self.difficulty.shapes
        raise InputError(f"there are too few different scenes of {low} to {high} shapes; ask for fewer, or more shapes")

    def split(self, split: str, count: int) -> dict:
        """The annotation file of a split, with the ``things`` of each image and the ``level`` of each caption."""
        generator = random.Random(f"{self.seed}/{split}")
        training = split == "train"
        scenes: list[Scene] = []
        captions: list[list[str]] = []  # one per level
        for _ in range(count):
            if training and scenes and generator.random() < self.difficulty.duplicates:
                original = generator.randrange(len(scenes))
                scenes.append(scenes[original])
                captions.append(captions[original])
            else:
                scenes.append(self.new_scene(generator, split))
                choices = [caption_probabilities(scenes[-1], level) for level in LEVELS]
                captions.append([generator.choices(list(choice), list(choice.values()))[0] for choice in choices])
        content = self.file(split, scenes)
        captions_of_level = list(zip(*captions, strict=True))
        for row, column in itertools.product(range(count), range(len(LEVELS))):
            entry = {"id": len(content["annotations"]), "image_id": row, "caption": captions[row][column]}
            entry["level"] = LEVELS[column]
            if training and generator.random() < self.difficulty.wrong:
                entry |= {"caption": false_caption(scenes[row], captions_of_level[column], generator), "wrong": True}
            content["annotations"].append(entry)
        return content

    def minimal(self, count: int) -> dict:
        """The annotation file of the minimal pairs, half of each kind: two images and two captions each."""
        generator = random.Random(f"{self.seed}/minimal")
        chosen = []
        while len(chosen) < count:
            kind = ("colours", "sides")[len(chosen) % 2]
            pairs = minimal_pairs(self.new_scene(generator, "minimal"))
            pairs = [pair for pair in pairs if pair.kind == kind and pair.scenes[1] not in self.seen]
            if pairs:
                chosen.append(generator.choice(pairs))
                self.seen.add(chosen[-1].scenes[1])
        content = self.file("minimal", [scene for pair in chosen for scene in pair.scenes])
        for image_id, image in enumerate(content["images"]):
            number, side = divmod(image_id, 2)
            caption = chosen[number].captions[side]
            image |= {"pair": number, "kind": chosen[number].kind}
            content["annotations"].append(
                {"id": image_id, "image_id": image_id, "caption": caption, "level": "related"}
            )
        return content

    def file(self, split: str, scenes: list[Scene]) -> dict:
        """An annotation file that has no captions yet."""
        info = {"description": "scenes of coloured shapes, drawn by helpers.scenes", **self.difficulty._asdict()}
        images = [
            {
                "id": image_id,
                "file_name": f"{split}_{image_id:05d}.png",
                "width": IMAGE_SIZE,
                "height": IMAGE_SIZE,
                "things": [thing._asdict() for thing in scene],
                "held_out": self.has_held_out(scene),
            }
            for image_id, scene in enumerate(scenes)
        ]
        return {"info": info | {"held_out": self.held_out}, "images": images, "annotations": []}


def false_caption(scene: Scene, captions: Sequence[str], generator: random.Random) -> str:
    """Sample a caption that is false of a scene."""
    for _ in range(1000):
        caption = captions[generator.randrange(len(captions))]
        if not fits(caption, scene):
            return caption
    raise InputError("these scenes are too few to find a wrong caption; ask for more of them")


def render_file(path: Path, scene: Scene, seed: str, scale: float) -> None:
    render_scene(scene, random.Random(seed), scale).save(path, compress_level=1)


def write_scenes(root: Path, sizes: dict[str, int] = SPLITS, seed: int = 0, difficulty: Difficulty = EASY) -> None:
    """Write all splits to ``root`` in the COCO Captions layout; the same seed gives the same bytes.

    Each image has its truth (``things``) and one caption per level (``level``). No two scenes are equal, within a split
    or between splits, except for the duplicates asked for. If scenes can have two things or more, there is also a split
    ``minimal`` of minimal pairs.

    Raises:
        InputError: if ``root`` exists already, or the sizes or the difficulty are impossible.
    """
    check_request(sizes, difficulty)
    with atomic_folder(root) as partial:
        plan = Plan(seed, difficulty)
        files = {split: plan.split(split, count) for split, count in sizes.items()}
        if difficulty.shapes[1] > 1:
            files["minimal"] = plan.minimal(min(MINIMAL, sizes["test"]))
        for name in ("images", "annotations"):
            (partial / name).mkdir()
        for split, content in files.items():
            (partial / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
        images = [image for content in files.values() for image in content["images"]]
        names = [image["file_name"] for image in images]
        with ProcessPoolExecutor() as pool:
            rendered = pool.map(
                render_file,
                [partial / "images" / name for name in names],
                [tuple(Thing(**thing) for thing in image["things"]) for image in images],
                [f"{seed}/{name}" for name in names],
                itertools.repeat(difficulty.scale),
                chunksize=256,
            )
            list(tqdm(rendered, total=len(images), desc="rendering scenes", unit="image", disable=None))


def check_request(sizes: dict[str, int], difficulty: Difficulty) -> None:
    """Raise ``InputError`` for sizes and difficulties that are impossible."""
    low, high = difficulty.shapes
    if not all(count > 0 for count in sizes.values()) or sum(sizes.values()) > 100_000:
        raise InputError(f"each split needs at least one scene, and all together 100,000 at most, got {sizes}")
    if not 1 <= low <= high <= len(PLACES):
        raise InputError(f"the number of shapes must be a range from 1 to {len(PLACES)}, as 3-6, not {low}-{high}")
    if not 0.3 <= difficulty.scale <= 1:
        raise InputError(f"the scale must be from 0.3 to 1, not {difficulty.scale:g}; smaller shapes look alike")
    if not 0 <= difficulty.held_out <= len(SHAPES):
        raise InputError(f"the held-out pairs must be from 0 to {len(SHAPES)}, not {difficulty.held_out}")
    if not (0 <= difficulty.duplicates < 1 and 0 <= difficulty.wrong < 1):
        raise InputError("the shares of duplicates and of wrong captions must be from 0 to below 1")


def read_truth(root: Path, split: str) -> tuple[list[Scene], list[list[str]]] | None:
    """The scenes of a split and the level of each caption, in the order of ``read_captions``; None without truth."""
    return truth_of(read_annotations(root, split))


def truth_of(records: Sequence[Record]) -> tuple[list[Scene], list[list[str]]] | None:
    """The scenes of records and the level of each caption; None for records of other sources."""
    if not all("things" in record.image for record in records):
        return None
    try:
        scenes = [tuple(Thing(**thing) for thing in record.image["things"]) for record in records]
        levels = [[annotation["level"] for annotation in record.annotations] for record in records]
    except (TypeError, KeyError) as error:
        raise InputError(f"{records[0].path.parents[1]} is not as helpers.scenes writes it ({error})") from None
    return scenes, levels
