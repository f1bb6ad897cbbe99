"""A run that no time was spent on, for what is asked of any run."""

import itertools
from pathlib import Path

import torch

from helpers.encoders import DualEncoder
from helpers.runs import save_checkpoint
from helpers.sources.coco import read_captions
from helpers.text import WordTokenizer


def write_untrained_run(scenes: Path, out: Path, seed: int = 0) -> Path:
    """A run's folder as a training leaves it, but that the weights are those it began with."""
    tokenizer = WordTokenizer.build(itertools.chain(*read_captions(scenes, "train")[1]))
    torch.manual_seed(seed)
    content = {
        "vocabulary": tokenizer.vocabulary,
        "max_length": tokenizer.max_length,
        "architecture": {"dim": 16},
        "model": DualEncoder(len(tokenizer), tokenizer.max_length, dim=16).state_dict(),
        "recipe": {"image_size": [32, 64]},
    }
    save_checkpoint(out / "last.pt", content)
    return out
