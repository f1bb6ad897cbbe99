"""The command line: ``python -m helpers COMMAND``. Bad input gets one sentence and exit code 2, never a traceback."""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import typing
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch

from helpers.experiments import compare, run_experiment, verdicts
from helpers.files import InputError, locked, read_text
from helpers.report import aligned, evaluate_split, search_images, table
from helpers.runs import find_checkpoint, load_checkpoint
from helpers.scale.distributed import process_group
from helpers.scenes import EASY, HARD, SPLITS, write_scenes
from helpers.sources.coco_download import download_coco
from helpers.sources.emoji import ATTRIBUTION, write_emoji
from helpers.sources.photographs import look, prepare_photographs
from helpers.training import Recipe, train


class CommandLine(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


KINDS = {  # how argparse reads an option, by the type of the recipe's field
    tuple[str, ...]: {"action": "append", "metavar": "NAME"},
    tuple[int, ...]: {"type": int, "nargs": "+", "metavar": "N"},
    str: {"metavar": "TEXT"},
    int: {"type": int, "metavar": "N"},
}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add one option per field of :class:`helpers.training.Recipe`; an option that takes a NAME can be repeated."""
    types = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        flag = "--" + field.name.replace("_", "-").replace("regularizers", "regularizer")
        shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        default = "" if field.default in (None, (), "") else f" (default {shown})"
        settings = {"dest": field.name, "default": argparse.SUPPRESS, "help": field.metadata["help"] + default}
        parser.add_argument(flag, **settings, **KINDS.get(types[field.name], {"type": float, "metavar": "N"}))


def recipe_from(given: dict, **length: float) -> Recipe:
    """Make a recipe of the given fields; ``length`` is for those that do not say how long to train."""
    return Recipe(**given) if {"epochs", "seconds"} & given.keys() else Recipe(**given, **length)


def read_arms(path: Path, epochs: float) -> dict[str, Recipe]:
    """The arms of an experiment: one line per arm, ``NAME`` or ``NAME: OPTIONS``, with the options of ``train``."""
    arms: dict[str, Recipe] = {}
    for line in filter(str.strip, read_text(path).splitlines()):
        name, _, options = (part.strip() for part in line.partition(":"))
        parser = CommandLine(prog=f"{path}, arm {name!r}", add_help=False, allow_abbrev=False)
        add_recipe_options(parser)
        if not name or name in arms:
            raise InputError(f"{path}: each arm needs a unique name, not {name!r}")
        try:
            arms[name] = recipe_from(vars(parser.parse_args(shlex.split(options))), epochs=epochs)
        except ValueError as error:
            raise InputError(f"{path}, arm {name!r}: {error}") from None
    if len(arms) < 2:
        raise InputError(f"{path} needs two arms or more, one per line, and has {len(arms)}")
    return arms


def run_train(data: Path, out: Path, resume: bool, device: str, workers: int, cache: Path | None, **given: Any) -> str:
    recipe = recipe_from(given, seconds=60.0)
    if workers < 0:
        raise InputError(f"--workers must be 0 or more, not {workers}")
    torch.set_num_threads(min(2, torch.get_num_threads()))  # other numbers of threads can round differently
    with process_group(device) as ranks, nullcontext() if ranks.rank else locked(out):
        try:
            train(data, out, recipe, resume=resume, device=device, workers=workers, cache=cache)
        except KeyboardInterrupt:
            saved = (out / "last.pt").is_file()
            what = "continue it with --resume" if saved else "nothing was saved yet; start it again"
            print(f"the run in {out} was stopped; {what}", file=sys.stderr)
            raise
    return "" if ranks.rank else f"the run is in {out}"


def run_evaluate(run: Path, data: Path, split: str) -> str:
    result = evaluate_split(load_checkpoint(find_checkpoint(run)), data, split)
    return f"{table(result)}\n{json.dumps(result)}"


def run_search(run: Path, data: Path, split: str, query: str, top: int) -> str:
    matches = search_images(load_checkpoint(find_checkpoint(run)), data, split, query, top)
    return "\n".join(f"{score:7.3f}  {path}" for path, score in matches)


def run_arms(data: Path, arms: Path, out: Path, epochs: float, seeds: int, margin: float, jobs: int) -> str:
    recipes = read_arms(arms, epochs)
    if out.resolve() == arms.resolve():
        raise InputError(f"--out would overwrite the arms in {arms}; choose another name")
    with locked(out):
        rows = run_experiment(data, recipes, out, range(seeds), jobs)
    baseline, *others = recipes
    lines = [["", "seeds", "difference", "95 % interval", "verdict"]]
    for cell in verdicts(compare(rows, baseline, dict.fromkeys(others, "primary"), margin)):
        interval = f"{cell['low']:+.2f} to {cell['high']:+.2f}"
        lines.append([cell["arm"], str(cell["n"]), f"{cell['mean']:+.2f}", interval, cell["verdict"]])
    title = f"test R@1, mean of both directions, in points compared with {baseline}; intervals are simultaneous"
    return "\n".join([title, *aligned(lines)])


def run_scenes(out: Path, seed: int, hard: bool, wrong: float, **sizes: int) -> None:
    difficulty = (HARD if hard else EASY)._replace(wrong=wrong)
    write_scenes(out, {split: sizes[split] for split in SPLITS}, seed, difficulty)


def run_emoji(out: Path) -> str:
    write_emoji(out)
    return ATTRIBUTION


def make_parser() -> CommandLine:
    """The parser of all commands; the option ``handler`` carries out the one that was chosen."""
    parser = CommandLine("python -m helpers", description="Train, evaluate and search models, and prepare their data.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, explanation: str, handler: Callable[..., str | None], **paths: str) -> CommandLine:
        """Add a command, whose handler returns what to print; ``paths`` explains its required options for paths."""
        added = commands.add_parser(name, help=explanation, description=explanation, allow_abbrev=False)
        added.set_defaults(handler=handler)
        for option, text in paths.items():
            added.add_argument(f"--{option}", type=Path, required=True, help=text)
        return added

    pairs = "a folder of pairs, in any layout the course knows"
    added = command("train", "train a dual encoder on pairs", run_train, data=pairs, out="a folder for the run")
    add_recipe_options(added)
    added.add_argument("--resume", action="store_true", help="continue the run in --out; with --epochs, same weights")
    added.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N; with torchrun, one GPU each")
    added.add_argument("--workers", type=int, default=0, metavar="N", help="processes that prepare batches (default 0)")
    added.add_argument("--cache", type=Path, help="where decoded images are kept (default data/cache)")

    for name, explanation, handler in (
        ("evaluate", "measure retrieval: a table, then one JSON object in the last line", run_evaluate),
        ("search", "print the images that fit a query best", run_search),
    ):
        added = command(name, explanation, handler, run="a run's folder, or a .pt file", data=pairs)
        added.add_argument("--split", default="test", help="the split to look at (default test)")
    added.add_argument("query", help="what to search for, in quotes")
    added.add_argument("--top", type=int, default=5, metavar="N", help="how many images (default 5)")

    added = command("experiment", "train several arms over paired seeds and compare them", run_arms)
    added.add_argument("--data", type=Path, required=True, help="a folder of pairs; {seed} in it stands for the seed")
    added.add_argument("--arms", type=Path, required=True, help="a text file, one arm per line: NAME: OPTIONS of train")
    added.add_argument("--out", type=Path, required=True, help="the CSV file of all runs; missing ones are run")
    added.add_argument("--epochs", type=float, default=5.0, metavar="N", help="for arms that set none (default 5)")
    added.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1 for each arm (default 5)")
    added.add_argument("--margin", type=float, default=1.0, metavar="N", help="smallest difference that counts, points")
    added.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at once, one thread each (default 2)")

    out = "the folder to write"
    described = command("look", "describe a folder of pairs", look)
    prepared = command("photographs", "prepare your own photographs for the course", prepare_photographs, out=out)
    for added in (described, prepared):
        added.add_argument("folder", type=Path, help="images and captions, such as a captions.csv with file,caption")
        added.add_argument("--language", help="for text files with one line per language, such as 'de.utf8=ein Hund'")

    added = command("coco", "download COCO 2017", download_coco, out=out)
    added.add_argument("--split", choices=("train", "val"), default="val", help="val: 1 GB (default); train: 19 GB")

    added = command("scenes", "generate the scenes with their captions", run_scenes, out=out)
    added.add_argument("--seed", type=int, default=0, help="a different seed gives different scenes (default 0)")
    for split, count in SPLITS.items():
        added.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"scenes in {split} ({count})")
    added.add_argument("--hard", action="store_true", help="crowded scenes of small things, some unseen in training")
    added.add_argument("--wrong", type=float, default=0.0, metavar="SHARE", help="share of false training captions")

    command("emoji", "render the emoji with their names in English and Chinese", run_emoji, out=out)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for bad input, 130 after Ctrl-C, 141 when nobody reads on."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, for a program without a terminal or a file
    sys.stderr = sys.stderr or sys.stdout
    for stream in (sys.stdout, sys.stderr):  # a code page of Windows lacks most letters
        stream.reconfigure(errors="backslashreplace")
    options = vars(make_parser().parse_args(arguments))
    try:
        printed = options.pop("handler")(**options)
        if printed:
            print(printed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has stopped reading, so training stops too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as other programs do
    except (ValueError, OSError) as error:
        print(f"python -m helpers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
