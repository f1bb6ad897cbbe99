"""The training loop: pairs in, a model with its checkpoints and its log out.

``python -m helpers.training --data data/scenes --out runs/first --seconds 60``
"""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.augmentation import parse_augmentation
from helpers.cli import CommandLine, Interrupted, signals_held
from helpers.data import Collate, EpochBatches, ImageTextDataset, RankBatches
from helpers.encoders import DualEncoder
from helpers.evaluation import evaluate
from helpers.files import InputError, atomic_file
from helpers.losses import contrastive_loss, cosine_similarities
from helpers.optimizers import Muon
from helpers.regularizers import RATES, REGULARIZERS, parse_regularizers
from helpers.runs import load_checkpoint, save_checkpoint
from helpers.scale.distributed import (
    World,
    agreed,
    device_named,
    local_contrastive_loss,
    mean_over_ranks,
    process_group,
    world,
)
from helpers.sources.folders import open_pairs
from helpers.temperature import LearnedTemperature, parse_schedule
from helpers.text import WordTokenizer

MOST_RANKS = 4096  # so that no two of them share a seed
ARCHITECTURE = {"dim": 128, "dropout": 0.0}  # of the encoders, unless a rate among the regularizers says otherwise


def in_bfloat16(device: torch.device) -> torch.autocast:
    """Inside, layers on a GPU multiply in bfloat16; the losses stay in float32, and so does all on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


class BatchLoss(nn.Module):
    """What a step computes forward: the contrastive loss of a batch, and each regularizer.

    Each image has one caption or several. Each of them makes pairs with the captions that the other images have in its
    place, and the loss is the mean over the places: texts cost little, images much, and so an image teaches more.
    """

    def __init__(self, model: DualEncoder, schedule: object, weights: dict[str, float]) -> None:
        """
        Args:
            model: the encoders.
            schedule: of the temperature; a module where it is learned.
            weights: of the regularizers, by their names.
        """
        super().__init__()
        self.model, self.schedule, self.weights = model, schedule, weights

    def forward(self, batch: dict, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to be made small, and its parts by their names, which carry no gradients.

        On several processes these are a rank's own; their means over the ranks are those of the whole batch, but that
        a regularizer compares only what one rank has.
        """
        temperature, device = self.schedule(progress), next(self.model.parameters()).device
        several = dist.is_initialized()
        parts = dict.fromkeys(("loss", *self.weights), torch.zeros((), device=device))
        texts = [batch, *batch.get("further_texts", ())]
        images = batch["images"].to(device, memory_format=torch.channels_last)  # [batch, 3, height, width]
        with in_bfloat16(device):
            views = None
            for of_place in texts:
                token_ids, padding = of_place["token_ids"].to(device), of_place["padding"].to(device)
                views = views.with_texts(token_ids, padding) if views else self.model.views(images, token_ids, padding)
                loss = (local_contrastive_loss if several else contrastive_loss)(
                    views.image_features, views.text_features, temperature
                )
                terms = {name: REGULARIZERS[name](views, temperature) for name in self.weights}
                for name, value in {"loss": loss, **terms}.items():
                    parts[name] = parts[name] + value / len(texts)
        total = parts["loss"] + sum(weight * parts[name] for name, weight in self.weights.items())
        return total, {name: value.detach() for name, value in parts.items()}


def make_optimizers(model: nn.Module, temperature: object) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices and convolutions, AdamW for the rest: embeddings, the first layer, biases,
    norms, the temperature. The temperature gets no weight decay.

    Muon's usual momentum of 0.95 remembers twenty steps; a training of a few hundred does better with five.

    A projection that only a regularizer uses has no gradient without it, and both then leave it alone.
    """
    first = {"image_encoder.stem.0.weight", "text_encoder.embedding.weight"}
    inner = [p for name, p in model.named_parameters() if p.ndim >= 2 and name not in first]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or name in first]
    groups = [{"params": others, "weight_decay": 0.01}]
    if isinstance(temperature, LearnedTemperature):
        groups.append({"params": temperature.parameters(), "weight_decay": 0.0})
    return [Muon(inner, lr=0.009, momentum=0.8, weight_decay=0.1), torch.optim.AdamW(groups, lr=0.003)]


def learning_rate_factor(progress: float) -> float:
    """Up to 1 over the first twentieth of training, then down to 0 along half a cosine."""
    warm_up = 0.05
    if progress < warm_up:
        return (progress + 0.005) / (warm_up + 0.005)  # not 0 at the very first step
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


def train(
    data: Path | str,
    out: Path | str,
    epochs: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    temperature: str = "learned:0.1",
    image_size: int | Sequence[int] = 64,
    regularizers: Sequence[str] = (),
    augment: Sequence[str] = (),
    batch_size: int = 256,
    captions: int = 2,
    device: str = "cpu",
    stream: bool = False,
    workers: int = 0,
    resume: bool = False,
    cache: Path | str | None = None,
    on_epoch: Callable[[dict], None] = lambda record: None,
    on_step: Callable[[int, DualEncoder, WordTokenizer], None] = lambda step, model, tokenizer: None,
) -> list[dict]:
    """Train a dual encoder on the ``train`` split, watch it on ``val``, keep the last and best checkpoint in ``out``.

    All randomness comes from the seed and the number of the step, so two runs of so many epochs give the same bits, and
    so does a run that was stopped and resumed. With ``seconds`` the number of steps depends on the machine.

    Within :func:`helpers.scale.distributed.process_group` each process has its part of every batch, and all make the same
    step. Rank 0 keeps the clock, validates, and alone writes.

    Args:
        data: a folder of pairs, in any layout that :func:`helpers.sources.folders.open_pairs` knows.
        out: the folder for ``last.pt``, ``best.pt`` and ``log.jsonl``; it is made when there is something to save.
        epochs, seconds: how long to train; give one of the two. Epochs may be 2.5; seconds are wall time, from this
            call to its return.
        seed: fixes initial weights, batches, captions and dropout.
        temperature: a schedule, as :func:`helpers.temperature.parse_schedule` reads it.
        image_size: side of the images, in pixels, 32 or more; of several, each batch has one.
        regularizers: each a term, ``NAME`` or ``NAME:WEIGHT``, or a rate, ``NAME:SHARE``, as
            :func:`helpers.regularizers.parse_regularizer` reads it.
        augment: what is done to training pairs, as :func:`helpers.augmentation.parse_augmentation` reads it.
        batch_size: images a step, each other pair of the batch being a negative; of all processes together.
        captions: how many captions of an image a step learns from, where it has so many.
        device: ``cpu``, ``cuda`` or ``cuda:N``. On a GPU the encoders compute in bfloat16, and the bits may differ.
        stream: ``data`` is a folder of WebDataset shards, and those of ``train`` are read from front to back in each
            epoch and never unpacked, as :mod:`helpers.scale.shards` says.
        workers: processes beside this one that make the batches; none: it makes them itself.
        resume: go on with the run in ``out``, which must have been started with the same settings.
        cache: the folder where decoded images are kept for later runs, ``data/cache`` where none is given; for pairs in
            a temporary folder name one beside them.
        on_epoch: called with the record before the first epoch and after each.
        on_step: called with the steps done so far, the model and the tokenizer, before the first step and after each.

    Returns:
        One record an epoch, the first (epoch 0) before any training: ``epoch``, ``step``, ``seconds``, ``loss`` (mean
        over the epoch's steps), each regularizer by its name, ``temperature``, ``learning_rate`` (Muon's) and both
        validation recalls.

    Raises:
        InputError: for data, settings or an output folder that cannot be used, and nothing has been written then; or
            if the loss or a weight is no longer finite, or the disk is full, and the last good checkpoint is kept.
    """
    # Stage 1: settings and data, all checked before anything is written.
    started = time.monotonic()
    out, here = Path(out), world() if dist.is_initialized() else World()
    settings = {
        "data": Path(data).name,
        "seconds": seconds,
        "epochs": epochs,
        "seed": seed,
        "temperature": temperature,
        "image_size": image_size if isinstance(image_size, int) else list(image_size),
        "regularizers": list(regularizers),
        "augment": list(augment),
        "batch_size": batch_size,
        "captions": captions,
        "stream": stream,
        "workers": workers if stream else 0,  # from shards, the order depends on how many read them
    }
    check_settings(settings)
    if workers < 0:
        raise InputError(f"--workers must be 0 or more, not {workers}")
    place = device_named(device)
    before = check_output(out, settings, resume)
    weights, dropouts = parse_regularizers(regularizers)
    open_source = from_files
    source = open_source(Path(data), settings, here, workers, cache)
    if before is not None and before["fingerprint"] != source.fingerprint:
        raise InputError(f"{data} has other images or captions than when the run in {out} began; start a new run")

    # Stage 2: model, loader, optimizers, from the seed or from where the run was stopped.
    torch.manual_seed(seed)
    said = list(chain(*source.captions))
    tokenizer = WordTokenizer.build(said, min_count=2 if len(said) > 1000 else 1)
    if before is not None and before["vocabulary"] != tokenizer.vocabulary:  # made by another version of the course
        raise InputError(f"the run in {out} has another vocabulary than {data} gives today; start a new run")
    architecture = ARCHITECTURE | dropouts
    model = DualEncoder(len(tokenizer), tokenizer.max_length, **architecture)
    model = model.to(place, memory_format=torch.channels_last)  # in which convolutions are faster
    schedule = parse_schedule(temperature)
    if isinstance(schedule, nn.Module):
        schedule.to(place)
    loader = source.make_loader(tokenizer)
    optimizers = make_optimizers(model, schedule)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    step, seconds_before, records, sums = 0, 0.0, [], {}  # sums: of the losses since the last record
    if before is not None:
        model.load_state_dict(before["model"])
        for optimizer, state in zip(optimizers, before["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if isinstance(schedule, nn.Module):
            schedule.load_state_dict(before["temperature"])
        step, seconds_before = before["step"], before["seconds"]
        records, sums = before["records"], before["sums"]
        if here.rank == 0 and before["ranks"] != here.size:
            tqdm.write(
                f"the run in {out} had {before['ranks']} ranks until step {step} and has {here.size} from there: sums "
                "are rounded in another order now, so the bits will not be those of a run with either number",
                file=sys.stderr,
            )
    batch_loss = BatchLoss(model, schedule, weights)
    if here.size > 1:  # a projection that no term uses has no gradient
        batch_loss = DistributedDataParallel(batch_loss, find_unused_parameters=True)
    total_steps = None if epochs is None else max(1, round(epochs * len(loader)))
    reserve = 0.0  # seconds to keep for the last validation and saving

    def elapsed() -> float:
        return seconds_before + time.monotonic() - started

    def progress() -> float:
        if total_steps is not None:
            return min(1.0, step / total_steps)
        return agreed(min(1.0, elapsed() / max(seconds - reserve, 1e-9)))  # by the clock of rank 0

    def save(name: str) -> None:
        content = {
            "model": model.state_dict(),
            "architecture": architecture,
            "vocabulary": tokenizer.vocabulary,
            "max_length": tokenizer.max_length,
            "temperature": schedule.state_dict() if isinstance(schedule, nn.Module) else {},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "settings": settings,
            "fingerprint": source.fingerprint,
            "ranks": here.size,
            "step": step,
            "seconds": elapsed(),
            "records": records,
            "sums": sums,
        }
        save_checkpoint(out / name, content)

    def keep_record() -> None:
        """What follows from the last record. ``last.pt`` has it, so that a run killed in between does this again."""
        if record_score(records[-1]) >= max(map(record_score, records)):
            save("best.pt")
        with atomic_file(out / "log.jsonl") as file:
            file.write("".join(json.dumps(line) + "\n" for line in records).encode())

    def validate() -> None:
        """Close an epoch: measure, write the record, keep the checkpoint."""
        nonlocal reserve, sums
        began = time.monotonic()
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise InputError(f"a weight is not finite after step {step}; {how_to_go_on(out)}")
        metrics = agreed(evaluate(model, tokenizer, source.val, source.val.captions) if here.rank == 0 else None)
        means = {name: value / sums["steps"] for name, value in sums.items() if name != "steps"}
        record = {
            "epoch": round(step / len(loader), 2),  # a run of so many seconds ends in the middle of one
            "step": step,
            "loss": None,
            **means,
            "temperature": torch.as_tensor(schedule(progress())).item(),
            "learning_rate": base_rates[0][0] * learning_rate_factor(progress()),
            "val_image_to_text": metrics["image_to_text"]["R@1"],
            "val_text_to_image": metrics["text_to_image"]["R@1"],
            "seconds": round(elapsed(), 2),
        }
        with signals_held():
            sums = {}
            records.append(record)
            if step > 0 and here.rank == 0:
                save("last.pt")
                keep_record()
        if here.rank == 0:
            tqdm.write(describe(record))
            on_epoch(record)
        reserve = max(reserve, 1.2 * (time.monotonic() - began))

    # Stage 3: the loop.
    try:
        if records and 0 < records[-1]["step"] == step and here.rank == 0:  # perhaps killed before these were kept
            with signals_held():
                keep_record()
        if not records:
            validate()
            on_step(step, model, tokenizer)
        if seconds is not None and step == 0 and progress() >= 1:
            raise InputError(
                f"{elapsed():.0f} s went by before the first step could be made; give more than {seconds:g}"
            )
        if sums and (
            step % len(loader) == 0 or progress() >= 1
        ):  # stopped after an epoch's last step, before its record
            validate()
        while progress() < 1:
            epoch = step // len(loader)
            source.set_epoch(epoch, step - epoch * len(loader))
            bar = tqdm(loader, desc=f"epoch {epoch + 1}", unit="step", leave=False, disable=True if here.rank else None)
            for batch in bar:
                now = progress()
                if now >= 1:
                    break
                # Dropout from the step (and the rank) alone, so that a resumed run agrees.
                torch.manual_seed((seed * 1_000_003 + step) * MOST_RANKS + here.rank)
                for optimizer, rates in zip(optimizers, base_rates, strict=True):
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * learning_rate_factor(now)

                # Forward: features, and of scales and parts only what a regularizer asks for.
                model.train()
                try:
                    total, parts = batch_loss(batch, now)
                except ValueError as error:  # features that are not finite
                    raise InputError(f"training went astray at step {step}: {error}; {how_to_go_on(out)}") from None
                parts = mean_over_ranks(parts)
                if not all(map(math.isfinite, parts.values())):
                    raise InputError(diverged(step, parts, model, batch, schedule(now), out))

                # Backward and step: done whole, so that a stopped run never saves half a step.
                total.backward()
                with signals_held():
                    for optimizer in optimizers:
                        optimizer.step()
                        optimizer.zero_grad(set_to_none=True)
                    if isinstance(schedule, LearnedTemperature):
                        schedule.clamp_()
                    step += 1
                    for name, value in parts.items():
                        sums[name] = sums.get(name, 0.0) + value
                    sums["steps"] = sums.get("steps", 0) + 1
                on_step(step, model, tokenizer)
            validate()
    except Interrupted as interruption:
        if here.rank == 0:
            with signals_held():  # a second Ctrl-C waits
                if step > 0:
                    save("last.pt")
                left = "go on with --resume" if step > 0 else "nothing was saved yet, so start it again"
                tqdm.write(f"stopped by signal {interruption.args[0]} at step {step}; {left}", file=sys.stderr)
        raise
    return records


class Source(NamedTuple):
    """Where a training has its pairs from."""

    captions: Sequence[Sequence[str]]  # of the training images; of very many, those of the first ones
    val: ImageTextDataset
    fingerprint: str  # another one where the pairs are others
    make_loader: Callable[[WordTokenizer], DataLoader]
    set_epoch: Callable[[int, int], None]  # the epoch, and its batch to begin at


def from_files(data: Path, settings: dict, here: World, workers: int, cache: Path | str | None) -> Source:
    """Pairs in any layout, their images decoded once into the cache.

    Raises:
        InputError: as :func:`helpers.sources.folders.open_pairs` and :class:`helpers.data.ImageTextDataset`.
    """
    pairs = open_pairs(data)
    paths, captions = pairs.captions("train")
    most = max(map(len, captions))
    augment = parse_augmentation(settings["augment"])
    train_set = ImageTextDataset(
        paths, captions, settings["image_size"], settings["seed"], augment, min(settings["captions"], most)
    )
    val_set = ImageTextDataset(*pairs.captions("val"), train_set.image_size)
    batches = EpochBatches(len(train_set), settings["batch_size"], settings["seed"])
    of_rank = RankBatches(batches, here)
    fingerprint = fingerprint_of(train_set, val_set)
    for dataset in (train_set, val_set):
        dataset.use_cache(cache)
    if here.rank == 0 and batches.batch_size < settings["batch_size"]:
        tqdm.write(f"{data} has {len(train_set)} training images, so each batch has all of them", file=sys.stderr)

    def set_epoch(epoch: int, first_batch: int) -> None:
        train_set.set_epoch(epoch)
        of_rank.set_epoch(epoch, first_batch)

    def make_loader(tokenizer: WordTokenizer) -> DataLoader:
        return DataLoader(
            train_set,
            batch_sampler=of_rank,
            collate_fn=Collate(tokenizer),
            num_workers=workers,
        )

    return Source(captions, val_set, fingerprint, make_loader, set_epoch)


def fingerprint_of(*datasets: ImageTextDataset) -> str:
    """What changes when a caption, an image's name or its size in bytes does."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for path, captions in zip(dataset.image_paths, dataset.captions, strict=True):
            digest.update(repr((path.name, path.stat().st_size, captions)).encode())
    return digest.hexdigest()


@torch.no_grad()
def diverged(
    step: int, parts: dict[str, float], model: DualEncoder, batch: dict, temperature: float | Tensor, out: Path
) -> str:
    """What to tell of a loss that is not finite."""
    values = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
    temperature, device = float(temperature), next(model.parameters()).device
    features = model(*(batch[name].to(device) for name in ("images", "token_ids", "padding")))
    largest = (cosine_similarities(*features) / temperature).abs().max().item()
    return (
        f"training went astray at step {step}: {values}, at temperature {temperature:.3g} and with logits up to "
        f"{largest:.3g}; {how_to_go_on(out)}"
    )


def how_to_go_on(out: Path) -> str:
    """What is left of a run that went astray."""
    if not (out / "last.pt").is_file():
        return "nothing was saved yet; try a higher temperature, or a regularizer of less weight"
    step = load_checkpoint(out / "last.pt")["step"]
    return f"{out / 'last.pt'} has the model of step {step}; try a higher temperature, or a regularizer of less weight"


def check_settings(settings: dict) -> None:
    """Raise ``InputError`` for settings that no run can have."""
    epochs, seconds = settings["epochs"], settings["seconds"]
    if (epochs is None) == (seconds is None):
        raise InputError("say how long to train: either --epochs N or --seconds S")
    if epochs is not None and not (math.isfinite(epochs) and epochs > 0):
        raise InputError(f"--epochs must be above 0, not {epochs:g}")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"--seconds must be above 0, not {seconds:g}")
    sizes = settings["image_size"] if isinstance(settings["image_size"], list) else [settings["image_size"]]
    if not sizes or min(sizes) < 32:
        raise InputError(f"--image-size must be 32 pixels or more, not {settings['image_size']}")
    if settings["captions"] < 1:
        raise InputError(f"--captions must be 1 or more, not {settings['captions']}")
    if settings["batch_size"] < 2:
        raise InputError(
            f"--batch-size must be 2 or more, since other pairs are the negatives, not {settings['batch_size']}"
        )
    try:
        parse_schedule(settings["temperature"])
        parse_regularizers(settings["regularizers"])
        parse_augmentation(settings["augment"])
    except ValueError as error:
        raise InputError(str(error)) from None


def check_output(out: Path, settings: dict, resume: bool) -> dict | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        InputError: if ``out`` cannot be written, holds another run without ``resume``, or one with other settings.
    """
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"cannot write to {out}: {nearest} is no folder that you may write in")
    last = out / "last.pt"
    if not resume:
        # A run that was killed in its first save has left a part of a file, which is nothing to keep.
        if out.is_dir() and any(path.suffix != ".partial" for path in out.iterdir()):
            raise InputError(
                f"{out} is not empty, perhaps it holds another run; choose another folder, or add --resume"
            )
        return None
    if not last.is_file():
        raise InputError(f"there is no run to resume in {out}; leave out --resume to start one")
    before = load_checkpoint(last)
    differing = [name for name, value in settings.items() if before["settings"].get(name) != value]
    if differing:
        was = ", ".join(f"{name} {before['settings'].get(name)}" for name in differing)
        raise InputError(f"the run in {out} was started with {was}; resume it with the same settings")
    return before


def to_tensorboard(folder: Path) -> Callable[[dict], None]:
    """What, called with each record of a run, writes its numbers for TensorBoard into the folder.

    Raises:
        InputError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs the package tensorboard: pip install tensorboard") from None

    def write(record: dict) -> None:
        if record["step"] == 0:  # nothing is written before there is something to keep
            return
        with SummaryWriter(str(folder)) as writer:
            for name, value in record.items():
                writer.add_scalar(name, value, record["step"])

    return write


def record_score(record: dict) -> float:
    """What the best checkpoint is chosen by: the mean of both validation recalls."""
    return (record["val_image_to_text"] + record["val_text_to_image"]) / 2


def describe(record: dict) -> str:
    """A record as one line of text."""
    terms = {key: value for key, value in record.items() if key == "loss" or key in REGULARIZERS}
    losses = "  ".join(f"{name} {value:.3f}" if value is not None else f"{name}     -" for name, value in terms.items())
    return (
        f"epoch {record['epoch']:>5g}  {losses}  temperature {record['temperature']:.3f}  val R@1 "
        f"image to text {record['val_image_to_text']:5.1f}, text to image {record['val_text_to_image']:5.1f}  "
        f"{record['seconds']:.0f} s"
    )


def add_recipe(parser: CommandLine) -> None:
    """The options that say how to train, but not on what, for how long, or from which seed."""
    parser.add_argument("--temperature", default="learned:0.1", metavar="SCHEDULE", help="default learned:0.1")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        default=[64],
        metavar="PIXELS",
        help="32 or more (default 64); of several, each batch has one",
    )
    parser.add_argument(
        "--regularizer",
        action="append",
        default=[],
        metavar="NAME[:WEIGHT]",
        help=f"a term of {', '.join(REGULARIZERS)}; or a rate, as word_dropout:0.1, of {', '.join(RATES)}",
    )
    parser.add_argument(
        "--augment",
        action="append",
        default=[],
        metavar="NAME",
        help="flip (captions that say left or right stay unflipped), flip:exchange (their words too), crop[:SHARE]",
    )
    parser.add_argument("--batch-size", type=int, default=256, metavar="IMAGES", help="images a step (default 256)")
    parser.add_argument(
        "--captions", type=int, default=2, metavar="N", help="captions of an image a step learns from (default 2)"
    )


def recipe_of(options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_recipe` read, as keyword arguments of :func:`train`."""
    return {
        "temperature": options.temperature,
        "image_size": options.image_size if len(options.image_size) > 1 else options.image_size[0],
        "regularizers": options.regularizer,
        "augment": options.augment,
        "batch_size": options.batch_size,
        "captions": options.captions,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.training", description="Train a dual encoder on image-text pairs.")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pairs, in any layout the course knows")
    parser.add_argument("--out", type=Path, required=True, help="the folder for checkpoints and log")
    parser.add_argument("--epochs", type=float, help="train so many epochs; the same seed then gives the same bits")
    parser.add_argument(
        "--seconds", type=float, help="train so long; how many steps that makes depends on the machine, so bits differ"
    )
    parser.add_argument("--seed", type=int, default=0, help="fixes weights, batches, captions, dropout (default 0)")
    add_recipe(parser)
    parser.add_argument("--device", default="cpu", help="cpu (default), or cuda, in bfloat16; torchrun starts several")
    parser.add_argument(
        "--stream", action="store_true", help="read the shards of --data again each epoch, unpacking none"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that make batches (default none)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--cache", type=Path, help="where decoded images are kept (default data/cache)")
    parser.add_argument("--tensorboard", action="store_true", help="write the log for TensorBoard too, where installed")
    options = parser.parse_args(arguments)
    if options.epochs is None and options.seconds is None:
        options.seconds = 60.0

    def command() -> None:
        torch.set_num_threads(min(2, torch.get_num_threads()))
        with process_group(options.device) as here:
            train(
                data=options.data,
                out=options.out,
                epochs=options.epochs,
                seconds=options.seconds,
                seed=options.seed,
                device=options.device,
                stream=options.stream,
                workers=options.workers,
                resume=options.resume,
                cache=options.cache,
                **({"on_epoch": to_tensorboard(options.out / "tensorboard")} if options.tensorboard else {}),
                **recipe_of(options),
            )
        if here.rank == 0:
            print(f"the run is in {options.out}")

    return parser.run(command)


if __name__ == "__main__":
    sys.exit(main())
