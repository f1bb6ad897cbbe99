"""Scenes: small drawings of shapes whose whole truth is known, with captions from vague to exact.

``python -m helpers.scenes.render --out data/scenes`` writes images and captions in the COCO Captions layout, and beside the
splits a set ``minimal`` of minimal pairs. The words, and what is true, are in :mod:`helpers.scenes.captions`.
"""

import itertools
import json
import math
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw
from tqdm import tqdm

from helpers.cli import CommandLine, signals_held
from helpers.files import InputError, atomic_folder

# Words and truth belong to scenes too.
from helpers.scenes.captions import COLOURS as COLOURS
from helpers.scenes.captions import LEVELS as LEVELS
from helpers.scenes.captions import PLACES as PLACES
from helpers.scenes.captions import SHAPES as SHAPES
from helpers.scenes.captions import SIZES as SIZES
from helpers.scenes.captions import Scene as Scene
from helpers.scenes.captions import Thing as Thing
from helpers.scenes.captions import caption_probabilities as caption_probabilities
from helpers.scenes.captions import ceiling as ceiling
from helpers.scenes.captions import fit_matrix as fit_matrix
from helpers.scenes.captions import fits as fits
from helpers.scenes.captions import minimal_pairs as minimal_pairs
from helpers.scenes.captions import position
from helpers.scenes.captions import truth_oracle as truth_oracle
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
JITTER = 1.0  # pixels a thing may sit off the centre of its place, each way
SPLITS = {"train": 16_000, "val": 1_000, "test": 1_000}
MINIMAL = 400  # minimal pairs, half of each kind


class Difficulty(NamedTuple):
    """What makes scenes harder, or their captions worse; all of it is off by default.

    Attributes:
        shapes: fewest and most things in a scene.
        scale: radius of the things, as a share of the usual one.
        held_out: how many pairs of colour and shape never occur in ``train`` and ``val``, and are new at test.
        duplicates: share of the training images that repeat the scene of another one, and all its captions.
        wrong: share of the training captions that are not true of their image.
    """

    shapes: tuple[int, int] = (1, 3)
    scale: float = 1.0
    held_out: int = 0
    duplicates: float = 0.0
    wrong: float = 0.0


EASY = Difficulty()
# As hard as this, the training that gets the easy ones right is far from it: see data/README.md.
HARD = Difficulty(shapes=(3, 6), scale=0.6, held_out=6)


def held_out_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """(colour, shape) that training never sees together; no shape and no colour stands in two of them."""
    generator = random.Random(f"{seed}/held out")
    return list(zip(generator.sample(COLOURS, count), generator.sample(SHAPES, count), strict=True))


def draw_scene_at_random(generator: random.Random, shapes: tuple[int, int] = (1, 3)) -> Scene:
    """A scene: how many things, where, and what each of them is."""
    counts = range(shapes[0], shapes[1] + 1)
    # There are only 864 different things, so scenes of one thing must be few, for all scenes of all splits differ.
    weights = [0.04 if count == 1 and len(counts) > 1 else 0.48 for count in counts]
    count = generator.choices(counts, weights)[0]
    places = sorted(generator.sample(list(PLACES), count), key=list(PLACES).index)
    return tuple(
        Thing(generator.choice(SHAPES), generator.choice(COLOURS), generator.choice(list(SIZES)), place)
        for place in places
    )


def draw(scene: Scene, generator: random.Random, scale: float = 1.0) -> Image.Image:
    """The picture of a scene, ``IMAGE_SIZE`` pixels square; each thing sits up to ``JITTER`` off its place's centre."""
    finer = 4  # drawn four times as large and averaged down, since Pillow draws hard edges
    image = Image.new("RGB", (IMAGE_SIZE * finer, IMAGE_SIZE * finer), "white")
    pen = ImageDraw.Draw(image)
    for thing in scene:
        column, row = position(thing)
        x = IMAGE_SIZE / 2 + (column - 1) * CELL + generator.uniform(-JITTER, JITTER)
        y = IMAGE_SIZE / 2 + (row - 1) * CELL + generator.uniform(-JITTER, JITTER)
        radius = RADIUS[thing.size] * scale
        if thing.shape == "circle":
            pen.circle((x * finer, y * finer), radius * finer * 0.9, fill=PAINT[thing.colour])
        else:
            corners = [((x + u * radius) * finer, (y + v * radius) * finer) for u, v in outline(thing.shape)]
            pen.polygon(corners, fill=PAINT[thing.colour])
    return image.reduce(finer)


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


class Plan:
    """Which scenes there will be, with which captions, before anything is drawn."""

    def __init__(self, seed: int, difficulty: Difficulty) -> None:
        self.seed = seed
        self.difficulty = difficulty
        self.held_out = held_out_pairs(difficulty.held_out, seed)
        self.seen: set[Scene] = set()

    def new_scene(self, generator: random.Random, with_held_out: bool) -> Scene:
        """A scene that was not there before.

        Raises:
            InputError: if these settings hardly have any left.
        """
        for _ in range(10_000):
            scene = draw_scene_at_random(generator, self.difficulty.shapes)
            new = with_held_out or not any((thing.colour, thing.shape) in self.held_out for thing in scene)
            if new and scene not in self.seen:
                self.seen.add(scene)
                return scene
        low, high = self.difficulty.shapes
        raise InputError(f"there are too few different scenes of {low} to {high} shapes; ask for fewer, or more shapes")

    def split(self, split: str, count: int) -> dict:
        """The annotation file of a split: ``things`` beside each image, its ``level`` beside each caption."""
        generator = random.Random(f"{self.seed}/{split}")
        training = split == "train"
        scenes: list[Scene] = []
        captions: list[list[str]] = []  # one a level
        for _ in range(count):
            if training and scenes and generator.random() < self.difficulty.duplicates:
                same = generator.randrange(len(scenes))
                scenes.append(scenes[same])
                captions.append(captions[same])
                continue
            scenes.append(self.new_scene(generator, with_held_out=split not in ("train", "val")))
            choices = [caption_probabilities(scenes[-1], level) for level in LEVELS]
            captions.append([generator.choices(list(choice), list(choice.values()))[0] for choice in choices])
        content = self.file(split, scenes)
        for image_id, (scene, own) in enumerate(zip(scenes, captions, strict=True)):
            for number, (level, caption) in enumerate(zip(LEVELS, own, strict=True)):
                entry = {"id": len(content["annotations"]), "image_id": image_id, "caption": caption, "level": level}
                if training and generator.random() < self.difficulty.wrong:
                    others = (captions[generator.randrange(count)][number] for _ in range(1000))
                    false = next((other for other in others if not fits(other, scene)), None)
                    if false is None:
                        raise InputError("there is no wrong caption to be had from so few scenes; ask for more of them")
                    entry |= {"caption": false, "wrong": True}
                content["annotations"].append(entry)
        return content

    def minimal(self, count: int) -> dict:
        """The annotation file of the minimal pairs, half of each kind: two images and two captions each."""
        generator = random.Random(f"{self.seed}/minimal")
        chosen = []
        while len(chosen) < count:
            kind = ("colours", "sides")[len(chosen) % 2]
            pairs = [
                pair
                for pair in minimal_pairs(self.new_scene(generator, with_held_out=True))
                if pair.kind == kind and pair.scenes[1] not in self.seen
            ]
            if pairs:
                chosen.append(generator.choice(pairs))
                self.seen.add(chosen[-1].scenes[1])
        content = self.file("minimal", [scene for pair in chosen for scene in pair.scenes])
        for number, pair in enumerate(chosen):
            for image_id, caption in enumerate(pair.captions, start=2 * number):
                content["images"][image_id] |= {"pair": number, "kind": pair.kind}
                content["annotations"].append(
                    {"id": image_id, "image_id": image_id, "caption": caption, "level": "related"}
                )
        return content

    def file(self, split: str, scenes: list[Scene]) -> dict:
        """An annotation file without its captions yet."""
        info = {"description": "scenes of coloured shapes, drawn by helpers.scenes", **self.difficulty._asdict()}
        images = [
            {
                "id": image_id,
                "file_name": f"{split}_{image_id:05d}.png",
                "width": IMAGE_SIZE,
                "height": IMAGE_SIZE,
                "things": [thing._asdict() for thing in scene],
                "held_out": any((thing.colour, thing.shape) in self.held_out for thing in scene),
            }
            for image_id, scene in enumerate(scenes)
        ]
        return {"info": info | {"held_out": self.held_out}, "images": images, "annotations": []}


def draw_to_file(job: tuple[Path, Scene, str, float]) -> None:
    path, scene, seed, scale = job
    draw(scene, random.Random(seed), scale).save(path, compress_level=1)


def write_scenes(root: Path, sizes: dict[str, int] = SPLITS, seed: int = 0, difficulty: Difficulty = EASY) -> None:
    """Draw all splits into ``root`` in the COCO Captions layout; the same seed gives the same bytes.

    Each image has one caption a level (its annotation's ``level``) and its truth (``things``) beside it. No two scenes
    are the same, within a split or between splits, but for the duplicates asked for. Where scenes can have two things
    or more there is also a set ``minimal`` of minimal pairs. The folder appears when it is complete, never half.

    Raises:
        InputError: if ``root`` exists already, or if the settings leave too few different scenes, or make no sense.
    """
    check_request(root, sizes, difficulty)
    plan = Plan(seed, difficulty)
    files = {split: plan.split(split, count) for split, count in sizes.items()}
    if difficulty.shapes[1] > 1:
        files["minimal"] = plan.minimal(min(MINIMAL, sizes["test"]))
    with atomic_folder(root) as partial:
        (partial / "images").mkdir()
        (partial / "annotations").mkdir()
        jobs = []
        for split, content in files.items():
            (partial / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
            for image in content["images"]:
                scene = tuple(Thing(**thing) for thing in image["things"])
                name = image["file_name"]
                jobs.append((partial / "images" / name, scene, f"{seed}/{name}", difficulty.scale))
        with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
            with signals_held():  # while it starts its processes, the pool swallows the exception of a signal
                drawn = pool.map(draw_to_file, jobs, chunksize=256)
            for _ in tqdm(drawn, total=len(jobs), desc="drawing scenes", unit="image", disable=None):
                pass


def check_request(root: Path, sizes: dict[str, int], difficulty: Difficulty) -> None:
    """Raise ``InputError`` for what cannot be drawn."""
    if root.exists():
        raise InputError(f"{root} exists already; remove it, or write to another folder")
    if not all(count > 0 for count in sizes.values()):
        raise InputError(f"every split needs at least one scene, got {sizes}")
    if sum(sizes.values()) > 100_000:
        raise InputError(f"{sum(sizes.values())} scenes are more than can be kept apart; ask for 100,000 or fewer")
    low, high = difficulty.shapes
    if not 1 <= low <= high <= len(PLACES):
        raise InputError(f"--shapes must be LOW-HIGH from 1 to {len(PLACES)}, as 3-6, not {low}-{high}")
    if not 0.3 <= difficulty.scale <= 1:
        raise InputError(f"--scale must be from 0.3 to 1, not {difficulty.scale:g}; smaller things have no shape")
    if not 0 <= difficulty.held_out <= len(SHAPES):
        raise InputError(f"--held-out must be from 0 to {len(SHAPES)} pairs, not {difficulty.held_out}")
    for name in ("duplicates", "wrong"):
        if not 0 <= getattr(difficulty, name) < 1:
            raise InputError(f"--{name} must be a share from 0 to below 1, not {getattr(difficulty, name):g}")


def read_truth(root: Path, split: str) -> tuple[list[Scene], list[list[str]]] | None:
    """The scenes of a split and the level of each caption, in the order of ``read_captions``; None for other sources.

    Raises:
        InputError: as :func:`helpers.sources.coco.read_annotations`.
    """
    return truth_of(read_annotations(root, split))


def truth_of(records: Sequence[Record]) -> tuple[list[Scene], list[list[str]]] | None:
    """The scenes of records and the level of each caption; None for records of other sources.

    Raises:
        InputError: if they are not as this module writes them.
    """
    if not all("things" in record.image for record in records):
        return None
    try:
        scenes = [tuple(Thing(**thing) for thing in record.image["things"]) for record in records]
        levels = [[annotation["level"] for annotation in record.annotations] for record in records]
    except (TypeError, KeyError) as error:
        raise InputError(f"{records[0].path.parents[1]} is not as helpers.scenes writes it ({error})") from None
    return scenes, levels


def number_range(text: str) -> tuple[int, int]:
    """Two numbers from "3-6", or the same one twice from "3". Raises ValueError otherwise."""
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.scenes.render", description="Draw the scenes with their captions.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default 0)")
    for split, count in SPLITS.items():
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"scenes in {split} ({count})")
    parser.add_argument(
        "--hard", action="store_true", help="the course's hard scenes: --shapes 3-6 --scale 0.6 --held-out 6"
    )
    parser.add_argument("--shapes", type=number_range, metavar="LOW-HIGH", help="things in a scene (1-3)")
    parser.add_argument("--scale", type=float, help="size of the things, as a share of the usual one (1)")
    parser.add_argument("--held-out", type=int, metavar="N", help="pairs of colour and shape that are new at test (0)")
    parser.add_argument("--duplicates", type=float, metavar="SHARE", help="training images that repeat another (0)")
    parser.add_argument("--wrong", type=float, metavar="SHARE", help="training captions that are not true (0)")
    options = parser.parse_args(arguments)
    asked = {name: value for name in EASY._fields if (value := getattr(options, name)) is not None}
    difficulty = (HARD if options.hard else EASY)._replace(**asked)
    sizes = {split: getattr(options, split) for split in SPLITS}
    return parser.run(lambda: write_scenes(options.out, sizes, options.seed, difficulty))


if __name__ == "__main__":
    sys.exit(main())
