"""What a run leaves on disk: checkpoints that are written whole or not at all, and load as nothing but numbers."""

from pathlib import Path

import torch

from helpers.encoders import DualEncoder
from helpers.files import InputError, atomic_file
from helpers.text import WordTokenizer

FORMAT = "image-text-alignment-course"
VERSION = 1


def save_checkpoint(path: Path, content: dict) -> None:
    """Write ``content`` (tensors, numbers, text, lists and dicts of them) to ``path``, replacing what was there.

    Raises: as :func:`written_whole`.
    """
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, "version": VERSION, **content}, file)


def find_checkpoint(path: Path) -> Path:
    """The file itself, or of a run's folder ``best.pt`` where there is one, else ``last.pt``.

    Raises:
        InputError: if there is neither.
    """
    if path.is_file():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / name).is_file():
            return path / name
    raise InputError(f"there is no checkpoint at {path}; train first, or name a run's folder or a .pt file")


def load_checkpoint(path: Path) -> dict:
    """The content of a checkpoint file. Only numbers and text are unpacked: a file that carries code is refused.

    Raises:
        InputError: if the file is no checkpoint of this course, or one of another version of it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign or broken file fails in many ways, all of which mean the same to the reader
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a checkpoint that this course can read ({reason})") from None
    if not (isinstance(content, dict) and content.get("format") == FORMAT):
        raise InputError(f"{path} is not a checkpoint of this course; `python -m helpers.training` writes them")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} is of version {content.get('version')}, this code reads version {VERSION}; train again"
        )
    return content


def restore_model(content: dict) -> tuple[DualEncoder, WordTokenizer]:
    """The trained model, in evaluation mode, and the tokenizer it was trained with.

    Raises:
        InputError: if vocabulary, architecture and weights are not of one model.
    """
    try:
        tokenizer = WordTokenizer(content["vocabulary"], content["max_length"])
        model = DualEncoder(len(tokenizer), tokenizer.max_length, **content["architecture"])
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise InputError(f"the parts of the checkpoint are not of one model ({reason}); train again") from None
    return model.eval(), tokenizer
