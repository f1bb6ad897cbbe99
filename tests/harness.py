"""What several tests share: small scenes, an untrained run, trainings in child processes, and a disk that fills up."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from helpers.encoders import DualEncoder
from helpers.runs import load_checkpoint, save_checkpoint
from helpers.sources import read_captions
from helpers.text import WordTokenizer

# Importing torch takes longer than these trainings do, so one Python imports it and forks a child per command.
SERVER = """
import json, os, resource, sys, traceback
import torch._dynamo  # the first optimizer imports it
from helpers import cli, runs

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(order["output"], "w", buffering=1)
            runs.SAVE_EVERY = order["save_every"]
            code = cli.main(order["arguments"])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """``python -m helpers ...`` in child processes, one at a time; each can be killed."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.txt"
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object, save_every: float = 60) -> int:
        """Start a command and return the number of its process."""
        order = {"arguments": list(map(str, arguments)), "output": str(self.output), "save_every": save_every}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self) -> int:
        """The exit code of the command; minus the number of the signal if one ended it."""
        return int(self.server.stdout.readline())

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait(timeout=60)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of ``size`` bytes mounted at ``folder``. False where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.name == "posix" and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def same_weights(run: Path, other: Path, name: str = "last.pt") -> bool:
    """Whether the models of two runs have the same bits."""
    one, two = (load_checkpoint(folder / name)["model"] for folder in (run, other))
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def log_of(run: Path) -> list[dict]:
    """The records of a run's log without their seconds, which differ from run to run."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def write_untrained_run(scenes: Path, out: Path, seed: int = 0) -> Path:
    """A run's folder as a training leaves it, with the weights it began with."""
    tokenizer = WordTokenizer.build(itertools.chain(*read_captions(scenes, "train")[1]))
    torch.manual_seed(seed)
    content = {
        "vocabulary": tokenizer.vocabulary,
        "max_length": tokenizer.max_length,
        "architecture": {"dim": 16},
        "model": DualEncoder(len(tokenizer), tokenizer.max_length, dim=16).state_dict(),
        "recipe": {"image_size": (32, 64)},
    }
    save_checkpoint(out / "last.pt", content)
    return out


def write_without_truth(scenes: Path, out: Path) -> Path:
    """The same images and captions without the truth of scenes and without minimal pairs, as photographs have them."""
    (out / "annotations").mkdir(parents=True)
    (out / "images").symlink_to(scenes / "images")
    for split in ("train", "val", "test"):
        content = json.loads((scenes / "annotations" / f"captions_{split}.json").read_text())
        content["images"] = [{"id": image["id"], "file_name": image["file_name"]} for image in content["images"]]
        (out / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
    return out
