"""Runs on disk: checkpoints, the log, and what a run needs to continue after it was stopped."""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from helpers.encoders import DualEncoder
from helpers.files import DATA, InputError, atomic_file
from helpers.optimizers import learning_rate_factor
from helpers.scale.distributed import broadcast, mean_over_ranks, world
from helpers.text import WordTokenizer

FORMAT = "image-text-alignment-course"
VERSION = 2
SAVE_EVERY = 60  # seconds, so that a stop of any kind costs a minute of training at most


def save_checkpoint(path: Path, content: dict) -> None:
    """Write ``content`` (tensors, numbers, text, lists and dicts of them) to ``path``, replacing what was there."""
    with atomic_file(path) as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
        except RuntimeError as error:  # a failed write, which can be long
            raise OSError(str(error).splitlines()[0]) from None


def find_checkpoint(path: Path) -> Path:
    """``path`` itself if it is a file; in a run's folder ``best.pt`` if there is one, else ``last.pt``."""
    for file in (path, path / "best.pt", path / "last.pt"):
        if file.is_file():
            return file
    raise InputError(f"there is no checkpoint at {path}; train first, or name a run's folder or a .pt file")


def load_checkpoint(path: Path) -> dict:
    """The content of a checkpoint. Only tensors, numbers and text are loaded: a file that carries code is refused."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign or broken file can fail in many ways, which all mean the same to the reader
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        message = f"{path} is not a checkpoint that this course can read ({reason}); name another, or train again"
        raise InputError(message) from None
    if not (isinstance(content, dict) and (content.get("format"), content.get("version")) == (FORMAT, VERSION)):
        raise InputError(f"{path} is not a checkpoint of this version of the course; train again")
    return content


def restore_model(content: dict) -> tuple[DualEncoder, WordTokenizer]:
    """The trained model, in evaluation mode, and the tokenizer it was trained with."""
    try:
        tokenizer = WordTokenizer(content["vocabulary"], content["max_length"])
        model = DualEncoder(len(tokenizer), tokenizer.max_length, **content["architecture"])
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise InputError(f"the parts of the checkpoint do not belong together ({reason}); train again") from None
    return model.eval(), tokenizer


def load_model(path: Path | str = DATA / "model.pt") -> tuple[DualEncoder, WordTokenizer]:
    """The model and the tokenizer of a run or a checkpoint file; by default, of the model in ``data``."""
    return restore_model(load_checkpoint(find_checkpoint(Path(path))))


def open_run(out: Path | str, recipe: Any, resume: bool) -> "Run":
    """Start a run in ``out``, or with ``resume`` continue the one in it, which must have the same recipe."""
    out, last = Path(out), Path(out) / "last.pt"
    settings = asdict(recipe)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder; choose another folder for the run")
    if not resume:
        if out.is_dir() and any(path.suffix != ".partial" for path in out.iterdir()):
            hint = ", or add --resume to continue the run in it" if last.is_file() else ""
            raise InputError(f"{out} is not empty; choose another folder{hint}")
        return Run(out, settings, None)
    if not last.is_file():
        raise InputError(f"{out} has no last.pt to resume from; start a run in a new folder, without --resume")
    checkpoint = load_checkpoint(last)
    saved = checkpoint.get("recipe", {})
    if changed := [f"{name} {saved.get(name)}" for name in settings if saved.get(name) != settings[name]]:
        raise InputError(f"the run in {out} was started with {', '.join(changed)}; resume it with the same recipe")
    return Run(out, settings, checkpoint)


class Run:
    """A training run and its folder: ``last.pt``, ``best.pt``, ``log.jsonl``. Only rank 0 prints and writes."""

    def __init__(self, out: Path, settings: dict, checkpoint: dict | None) -> None:
        self.out, self.settings, self.checkpoint = out, settings, checkpoint
        state = checkpoint or {"seconds": 0.0, "records": [], "sums": {}}
        self.started = time.monotonic() - state["seconds"]
        self.saved = time.monotonic() if checkpoint else -math.inf  # so the first step is saved, and any run can resume
        self.records: list[dict] = state["records"]
        self.sums: dict[str, Tensor] = state["sums"]  # of the losses since the last record

    def seconds(self) -> float:
        """Wall time of this run, including the time before it was resumed."""
        return time.monotonic() - self.started

    def start(
        self, batch_loss: nn.Module, optimizers: list, tokenizer: WordTokenizer, architecture: dict, datasets: Sequence
    ) -> int:
        """Watch model and optimizers from here on; load the state of a resumed run. Return the number of steps done.

        ``batch_loss`` has the model and the schedule of the temperature, ``architecture`` the options of
        :class:`DualEncoder`. A resumed run needs ``datasets`` with the same captions, image names and file sizes.
        """
        self.model, self.temperature, self.optimizers = batch_loss.model, batch_loss.temperature, optimizers
        self.constants = {
            "architecture": architecture,
            "vocabulary": tokenizer.vocabulary,
            "max_length": tokenizer.max_length,
            "recipe": self.settings,
            "fingerprint": fingerprint((dataset.image_paths, dataset.captions) for dataset in datasets),
        }
        if not self.checkpoint:
            return 0
        if self.checkpoint["fingerprint"] != self.constants["fingerprint"]:
            raise InputError(f"the run in {self.out} began with other images or captions; start a new run")
        self.model.load_state_dict(self.checkpoint["model"])
        if isinstance(self.temperature, nn.Module):
            self.temperature.load_state_dict(self.checkpoint["temperature"])
        for optimizer, state in zip(optimizers, self.checkpoint["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        device = next(self.model.parameters()).device
        self.sums = {name: value.to(device) for name, value in self.sums.items()}
        return self.checkpoint["step"]

    def add(self, parts: dict[str, Tensor]) -> None:
        """Add the losses of a step to the sums from which the next record's means are computed.

        They are averaged over the ranks right away, so the sums that rank 0 saves are those of all ranks.
        """
        for name, value in {**mean_over_ranks(parts), "steps": torch.ones(())}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def progress(self, step: int, steps_per_epoch: int) -> float:
        """The share of the run that is done, from 0 to 1: of its steps, or of its seconds by the clock of rank 0."""
        if self.settings["seconds"]:
            return min(1.0, broadcast(self.seconds() / self.settings["seconds"]))
        return min(1.0, step / max(1, round(self.settings["epochs"] * steps_per_epoch)))

    def record_epoch(self, step: int, steps_per_epoch: int, recalls: dict[str, float]) -> None:
        """Print a record of the epoch; write the log, ``last.pt`` and, for the best so far, ``best.pt``.

        ``last.pt`` is written after the others, so a run that is killed in between continues from the save before.
        """
        if self.records and self.records[-1]["step"] == step:  # the time was up before another step
            return
        progress = self.progress(step, steps_per_epoch)
        if step == 0 and progress >= 1:
            waited = f"all {self.seconds():.0f} s went by before the first step"
            raise InputError(f"{waited}; start again (images are decoded now)")
        steps = self.sums.pop("steps", None)
        means = {name: (value / steps).item() for name, value in self.sums.items()}
        record = {
            "epoch": round(step / steps_per_epoch, 2),
            "step": step,
            "loss": None,
            **means,
            "temperature": torch.as_tensor(self.temperature(progress)).item(),
            "learning_rate": self.optimizers[0].defaults["lr"] * learning_rate_factor(progress),
            **recalls,
            "seconds": round(self.seconds(), 2),
        }
        self.records.append(record)
        self.sums = {}
        if world().rank == 0:
            tqdm.write(describe(record))
            if step > 0:
                if score(record) >= max(map(score, self.records)):
                    self.save(step, "best.pt")
                with atomic_file(self.out / "log.jsonl") as file:
                    file.writelines(json.dumps(line).encode() + b"\n" for line in self.records)
                self.save(step)

    def check_weights(self, step: int) -> None:
        """Raise ``InputError`` if a weight is not finite, so that the last good checkpoint is kept."""
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            saved = self.out / "last.pt"
            kept = f"{saved} has the last good model" if saved.is_file() else "nothing was saved yet"
            remedy = "try a higher temperature, or a smaller weight of the regularizer"
            raise InputError(f"training diverged by step {step}: a weight is not finite; {kept}; {remedy}")

    def save_if_due(self, step: int) -> None:
        """Save if the last save was a minute ago or longer."""
        if step > 0 and time.monotonic() - self.saved >= SAVE_EVERY:
            self.save(step)

    def save(self, step: int, name: str = "last.pt") -> None:
        """Write everything that a resumed run needs."""
        self.check_weights(step)
        self.saved = time.monotonic()
        if world().rank == 0:
            learned = isinstance(self.temperature, nn.Module)
            state = {
                "model": self.model.state_dict(),
                "temperature": self.temperature.state_dict() if learned else {},
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": step,
                "seconds": self.seconds(),
                "records": self.records,
                "sums": self.sums,
            }
            save_checkpoint(self.out / name, state | self.constants)


def fingerprint(splits: Iterable[tuple[Sequence[Path], Sequence[Sequence[str]]]]) -> str:
    """A hash of all captions, image names and file sizes, from the paths and the captions of each split."""
    digest = hashlib.sha256()
    for paths, captions in splits:
        for path, own in zip(paths, captions, strict=True):
            digest.update(repr((path.name, path.stat().st_size, own)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def score(record: dict) -> float:
    """The mean of both validation recalls, by which the best checkpoint is chosen."""
    return (record["val_image_to_text"] + record["val_text_to_image"]) / 2


def describe(record: dict) -> str:
    """A record as one line of text."""
    fixed = {"epoch", "step", "temperature", "learning_rate", "val_image_to_text", "val_text_to_image", "seconds"}
    losses = {name: value for name, value in record.items() if name not in fixed}
    shown = "  ".join(f"{name}     -" if value is None else f"{name} {value:.3f}" for name, value in losses.items())
    return (
        f"epoch {record['epoch']:>5g}  {shown}  temperature {record['temperature']:.3f}  val R@1 "
        f"image to text {record['val_image_to_text']:5.1f}, text to image {record['val_text_to_image']:5.1f}  "
        f"{record['seconds']:.0f} s"
    )
