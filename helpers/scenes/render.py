"""Render scenes, and write all splits with their captions as a folder in the COCO Captions layout."""

import itertools
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
from helpers.sources.coco import Record, read_annotations, write_annotations

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
    held_out: int = 0  # number of (colour, shape) pairs kept out of train and val
    wrong: float = 0.0  # share of the training captions that are false


EASY = Difficulty()
HARD = Difficulty(shapes=(3, 6), scale=0.6, held_out=6)


def sample_scene(generator: random.Random, shapes: tuple[int, int] = (1, 3)) -> Scene:
    """Sample the number of things, their places and their properties."""
    counts = range(shapes[0], shapes[1] + 1)
    # There are only 864 different scenes of one thing, and no two scenes may be equal, so these must be rare.
    weights = [0.04 if count == 1 else 0.48 for count in counts]
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
    quarter = [(-0.3, -0.9), (0.3, -0.9), (0.3, -0.3)]  # of a cross, turned by four right angles
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [(c * u - s * v, s * u + c * v) for c, s in turns for u, v in quarter]


class Plan:
    """The images and captions of all splits, sampled before any image is rendered. No two scenes are equal."""

    def __init__(self, folder: Path, seed: int, difficulty: Difficulty) -> None:
        self.folder, self.seed, self.difficulty = folder, seed, difficulty
        generator = random.Random(f"{seed}/held out")
        colours, shapes = (generator.sample(names, difficulty.held_out) for names in (COLOURS, SHAPES))
        self.held_out = list(zip(colours, shapes, strict=True))  # each colour and each shape is in one pair at most
        self.seen: set[Scene] = set()

    def has_held_out(self, scene: Scene) -> bool:
        return any((thing.colour, thing.shape) in self.held_out for thing in scene)

    def new_scene(self, generator: random.Random, split: str) -> Scene:
        while True:
            scene = sample_scene(generator, self.difficulty.shapes)
            allowed = split not in ("train", "val") or not self.has_held_out(scene)
            if allowed and scene not in self.seen:
                self.seen.add(scene)
                return scene

    def split(self, split: str, count: int) -> list[Record]:
        """Sample the scenes of a split and one caption per level for each; in train, some captions may be false."""
        generator = random.Random(f"{self.seed}/{split}")
        scenes: list[Scene] = []
        captions: list[list[str]] = []  # of each scene, one per level
        for number in range(count):
            if split == "train" and number > 0:
                generator.random()  # unused; without it, the scenes would differ from those that the lessons describe
            scenes.append(self.new_scene(generator, split))
            choices = [caption_probabilities(scenes[-1], level) for level in LEVELS]
            captions.append([generator.choices(list(choice), list(choice.values()))[0] for choice in choices])
        records = [self.record(split, row, scene) for row, scene in enumerate(scenes)]
        captions_of_level = list(zip(*captions, strict=True))
        for row, column in itertools.product(range(count), range(len(LEVELS))):
            annotation = {"image_id": row, "caption": captions[row][column], "level": LEVELS[column]}
            if split == "train" and generator.random() < self.difficulty.wrong:
                false = false_caption(scenes[row], captions_of_level[column], generator)
                annotation |= {"caption": false, "wrong": True} if false else {}
            records[row].annotations.append(annotation)
        return records

    def minimal(self, count: int) -> list[Record]:
        """Sample minimal pairs, half of each kind: two images with one caption each."""
        generator = random.Random(f"{self.seed}/minimal")
        records: list[Record] = []
        while len(records) < 2 * count:
            number = len(records) // 2
            kind = ("colours", "sides")[number % 2]
            pairs = minimal_pairs(self.new_scene(generator, "minimal"))
            pairs = [pair for pair in pairs if pair.kind == kind and pair.scenes[1] not in self.seen]
            if pairs:
                pair = generator.choice(pairs)
                self.seen.add(pair.scenes[1])
                for scene, caption in zip(pair.scenes, pair.captions, strict=True):
                    record = self.record("minimal", len(records), scene)
                    record.image |= {"pair": number, "kind": kind}
                    record.annotations = [{"image_id": len(records), "caption": caption, "level": "related"}]
                    records.append(record)
        return records

    def record(self, split: str, image_id: int, scene: Scene) -> Record:
        """The record of a scene, without captions."""
        name = f"{split}_{image_id:05d}.png"
        image = {"id": image_id, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
        image |= {"things": [thing._asdict() for thing in scene], "held_out": self.has_held_out(scene)}
        return Record(image, self.folder / name)


def false_caption(scene: Scene, captions: Sequence[str], generator: random.Random) -> str | None:
    """Sample a caption that is false of a scene; None if 1,000 are true, as in a scene that has every shape."""
    for _ in range(1000):
        caption = captions[generator.randrange(len(captions))]
        if not fits(caption, scene):
            return caption
    return None


def write_scenes(root: Path, sizes: dict[str, int] = SPLITS, seed: int = 0, difficulty: Difficulty = EASY) -> None:
    """Write all splits, and ``minimal`` pairs, in the COCO Captions layout; the same seed gives the same bytes."""
    if min(sizes.values()) < 1:
        raise InputError(f"each split needs at least one scene, not {sizes}")
    if not 0 <= difficulty.wrong < 1:
        raise InputError(f"the share of wrong captions must be at least 0 and below 1, not {difficulty.wrong}")
    with atomic_folder(root) as partial:
        (partial / "images").mkdir()
        plan = Plan(partial / "images", seed, difficulty)
        by_split = {split: plan.split(split, count) for split, count in sizes.items()}
        by_split["minimal"] = plan.minimal(min(MINIMAL, sizes["test"]))
        info = {"description": "scenes of coloured shapes, drawn by helpers.scenes", **difficulty._asdict()}
        write_annotations(partial, by_split, info=info | {"held_out": plan.held_out})
        records = [record for own in by_split.values() for record in own]
        with ProcessPoolExecutor() as pool:
            seeds, scales = itertools.repeat(seed), itertools.repeat(difficulty.scale)
            rendered = pool.map(render_record, records, seeds, scales, chunksize=256)
            list(tqdm(rendered, "rendering scenes", len(records), unit="image", disable=None))


def render_record(record: Record, seed: int, scale: float) -> None:
    generator = random.Random(f"{seed}/{record.path.name}")
    render_scene(scene_of(record), generator, scale).save(record.path, compress_level=1)


def scene_of(record: Record) -> Scene:
    return tuple(Thing(**thing) for thing in record.image["things"])


def read_truth(root: Path, split: str) -> list[Scene] | None:
    """The scenes of a split, in the order of ``read_captions``; None for other images."""
    return truth_of(read_annotations(root, split))


def truth_of(records: Sequence[Record]) -> list[Scene] | None:
    is_scene = all("things" in record.image for record in records)
    return [scene_of(record) for record in records] if is_scene else None
