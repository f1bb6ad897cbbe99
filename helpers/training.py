"""The training loop: pairs in, a trained model out. ``python -m helpers train --data DIR --out RUN`` runs it."""

import math
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from helpers.augmentation import parse_augmentation
from helpers.data import ImageTextDataset, make_loader
from helpers.encoders import TEXT_ENCODERS, DualEncoder
from helpers.evaluation import evaluate
from helpers.files import InputError, WriteError
from helpers.losses import LOSSES
from helpers.optimizers import make_optimizers, set_learning_rate
from helpers.pretrained import HEAD_DIM, check_encoder, make_dataset, word_vectors
from helpers.regularizers import RATES, REGULARIZERS, parse_regularizers
from helpers.runs import open_run
from helpers.scale.distributed import broadcast, local_contrastive_loss, parse_device, world
from helpers.sources import open_pairs
from helpers.temperature import FORMS, LearnedTemperature, Schedule, parse_schedule
from helpers.text import WordTokenizer


def option(default: Any, explanation: str) -> Any:
    """A field of :class:`Recipe`, with its explanation for the command line's help."""
    return field(default=default, metadata={"help": explanation})


@dataclass(frozen=True)
class Recipe:
    """How to train. Each field is also an option of ``python -m helpers train``, and part of every checkpoint."""

    epochs: float | None = option(None, "passes over the training images; the same seed gives the same weights")
    seconds: float | None = option(None, "wall time in place of epochs (default 60); the number of steps varies")
    seed: int = option(0, "fixes the initial weights, batches, captions and dropout")
    loss: str = option("contrastive", f"what is minimised: {', '.join(LOSSES)}")
    temperature: str = option("learned:0.1", f"a schedule: {', '.join(FORMS.values())}")
    image_size: tuple[int, ...] = option((64,), "side in pixels, from 32 to 1024; of several, each batch samples one")
    regularizers: tuple[str, ...] = option((), f"NAME[:WEIGHT], can be repeated: {', '.join([*REGULARIZERS, *RATES])}")
    augment: tuple[str, ...] = option(
        (), "flip (unless a caption says left or right, in English or Chinese), flip:exchange, crop[:SHARE]"
    )
    encoder: str = option("", "train a head on a frozen image encoder: lite0, lite1, lite2 or open_clip:MODEL:WEIGHTS")
    text: str = option("mlp", f"the text encoder: {', '.join(TEXT_ENCODERS)}; NAME:wordllama has pretrained words")
    batch_size: int = option(256, "images per step, across all processes; the other pairs are the negatives")
    captions: int = option(2, "captions per image in a step, longer ones more often; images with fewer repeat theirs")
    learning_rate: float = option(1.0, "a factor on the learning rates of all weights")

    def __post_init__(self) -> None:
        sizes = (self.image_size,) if isinstance(self.image_size, int) else tuple(self.image_size)
        for name, value in (("image_size", sizes), ("regularizers", self.regularizers), ("augment", self.augment)):
            object.__setattr__(self, name, tuple(value))  # how a frozen dataclass normalises a field
        if (self.epochs is None) == (self.seconds is None):
            raise InputError("say how long to train: either --epochs N or --seconds S, not both")
        name, length = ("epochs", self.epochs) if self.seconds is None else ("seconds", self.seconds)
        if not 0 < length < math.inf:
            raise InputError(f"--{name} must be a finite number above 0, not {length:g}")
        if not sizes or min(sizes) < 32 or max(sizes) > 1024:
            raise InputError(f"--image-size must be from 32 to 1024 pixels, not {self.image_size}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to {2**32 - 1}, not {self.seed}")
        if self.loss not in LOSSES:
            raise InputError(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--learning-rate must be a finite number above 0, not {self.learning_rate}")
        if self.captions < 1:
            raise InputError(f"--captions must be 1 or more, not {self.captions}")
        if self.batch_size < 2:
            raise InputError(f"--batch-size must be 2 or more, not {self.batch_size}: other pairs are the negatives")
        if self.text.removesuffix(":wordllama") not in TEXT_ENCODERS:
            raise InputError(f"--text must be {', '.join(TEXT_ENCODERS)} or NAME:wordllama, not {self.text!r}")
        parse_schedule(self.temperature)
        parse_regularizers(self.regularizers)
        parse_augmentation(self.augment)
        if self.encoder:
            check_encoder(self.encoder)
            if self.augment:
                raise InputError("--augment changes pixels, but a head sees only features; omit --augment")


class BatchLoss(nn.Module):
    """The contrastive loss of a batch plus the regularizers, averaged over the captions of each image.

    The k-th caption of each image is contrasted with the k-th captions of the others, so the image encoder runs once
    per batch. ``temperature`` is a module if it is learned; ``weights`` has the weight of each regularizer by name.
    """

    def __init__(
        self, model: DualEncoder, temperature: Schedule, weights: dict[str, float], loss: str = "contrastive"
    ) -> None:
        super().__init__()
        self.model, self.temperature, self.weights, self.loss = model, temperature, weights, LOSSES[loss]

    def forward(self, batch: dict, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total to minimise, and its parts by name (detached).

        With several processes each rank returns its own share; regularizers see only one rank's pairs.
        """
        temperature, device = self.temperature(progress), next(self.model.parameters()).device
        loss_function = local_contrastive_loss if dist.is_initialized() else self.loss
        images = batch["images"].to(device)  # [batch, 3, height, width], or features [batch, crops, width]
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        all_texts = [batch, *batch.get("further_texts", ())]
        parts = dict.fromkeys(("loss", *self.weights), 0.0)
        views = None
        for texts in all_texts:
            token_ids, padding = texts["token_ids"].to(device), texts["padding"].to(device)  # [batch, length] each
            views = views.with_texts(token_ids, padding) if views else self.model.views(images, token_ids, padding)
            loss = loss_function(views.image_features, views.text_features, temperature)
            parts["loss"] += loss / len(all_texts)
            for name in self.weights:
                parts[name] += REGULARIZERS[name].loss(views, temperature) / len(all_texts)
        total = parts["loss"] + sum(weight * parts[name] for name, weight in self.weights.items())
        return total, {name: value.detach() for name, value in parts.items()}


def load_data(
    data: Path | str, recipe: Recipe, cache: Path | str | None
) -> tuple[ImageTextDataset, ImageTextDataset, WordTokenizer]:
    """Load the ``train`` and ``val`` splits of a folder of pairs, decode images once, and build the tokenizer."""
    pairs = open_pairs(data)
    paths, captions = pairs.captions("train")
    options = {
        "image_size": recipe.image_size,
        "seed": recipe.seed,
        "augment": parse_augmentation(recipe.augment),
        "captions_per_image": min(recipe.captions, max(map(len, captions))),
    }
    train_set = make_dataset(paths, captions, asdict(recipe), cache, **options)
    val_set = make_dataset(*pairs.captions("val"), asdict(recipe), cache)
    if len(train_set) < 2:
        raise InputError(f"{data} has one training image, and a batch needs two or more: the others are the negatives")
    tokenizer, remarks = WordTokenizer.fit(captions)
    if len(train_set) < recipe.batch_size:
        remarks.append(f"{len(train_set)} training images are fewer than a batch, so each batch has all of them")
    for dataset in (train_set, val_set):
        try:
            dataset.use_cache(cache)
        except WriteError as error:
            if cache is not None:
                raise
            remarks.append(f"images are decoded again in each epoch, because the cache failed: {error}")
    for remark in remarks if world().rank == 0 else ():
        tqdm.write(f"{data}: {remark}", file=sys.stderr)
    return train_set, val_set, tokenizer


def make_model(
    recipe: Recipe, tokenizer: WordTokenizer, train_set: ImageTextDataset
) -> tuple[DualEncoder, dict, dict[str, float]]:
    """An untrained model, the options it was made with, and the weight of each regularizer."""
    torch.manual_seed(recipe.seed)
    text, _, vectors = recipe.text.partition(":")
    weights, dropouts = parse_regularizers(recipe.regularizers)
    architecture = dropouts | {"text": text}
    if recipe.encoder:
        architecture |= {"dim": HEAD_DIM, "width": train_set[0]["image"].shape[-1]}
    model = DualEncoder(len(tokenizer), tokenizer.max_length, **architecture)
    if vectors:
        embedding = model.text_encoder.embedding.weight.data  # [words, width]
        known = word_vectors(tokenizer.vocabulary)[:, : embedding.shape[1]]
        embedding[:, : known.shape[1]] = known
    return model, architecture, weights


def validate(
    model: DualEncoder, tokenizer: WordTokenizer, val_set: ImageTextDataset, normalize: bool = True
) -> dict[str, float]:
    """R@1 on ``val`` in both directions, computed by rank 0 for all ranks."""
    metrics = evaluate(model, tokenizer, val_set, val_set.captions, normalize) if world().rank == 0 else {}
    model.train()  # evaluate switches to evaluation mode
    return broadcast({f"val_{direction}": metrics[direction]["R@1"] for direction in metrics})


def train(
    data: Path | str,
    out: Path | str,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 0,
    cache: Path | str | None = None,
    on_step: Callable[[int, DualEncoder, WordTokenizer], None] = lambda step, model, tokenizer: None,
) -> list[dict]:
    """Train on the ``train`` split of ``data``, validate on ``val`` after each epoch, and write the run into ``out``.

    All randomness comes from the seed and the number of the step, so a resumed run ends in the same bits. Under
    ``torchrun``, each process computes its part of every batch, and only rank 0 writes. ``workers`` is the number of
    processes that prepare batches, ``cache`` where decoded images are kept. ``on_step`` is called with the number of
    steps done, the model and the tokenizer, at step 0 and after each step.

    Returns one record per epoch, the first before any training: ``epoch``, ``step``, ``seconds``, ``loss`` (of the
    contrastive part) and each regularizer as means over the steps, ``temperature``, ``learning_rate`` (of Muon) and
    both validation recalls.
    """
    # Stage 1: data.
    ranks, device = world(), parse_device(device)
    if ranks.size > 1 and recipe.loss != "contrastive":
        raise InputError(f"--loss {recipe.loss} runs in one process only")
    run = open_run(out, recipe, resume)
    train_set, val_set, tokenizer = load_data(data, recipe, cache)
    loader = make_loader(train_set, tokenizer, recipe.batch_size, recipe.seed, workers, ranks.rank, ranks.size)

    # Stage 2: model and optimizers, as they begin or as the stopped run left them.
    model, architecture, weights = make_model(recipe, tokenizer, train_set)
    batch_loss = BatchLoss(model, parse_schedule(recipe.temperature), weights, recipe.loss)
    batch_loss.to(device, memory_format=torch.channels_last)  # this memory format speeds up convolutions
    optimizers = make_optimizers(model, batch_loss.temperature, recipe.learning_rate)
    step = run.start(batch_loss, optimizers, tokenizer, architecture, (train_set, val_set))
    parallel_loss = DistributedDataParallel(batch_loss, find_unused_parameters=True) if ranks.size > 1 else batch_loss
    normalize = recipe.loss != "dot_product"
    if step == 0:
        run.record_epoch(step, len(loader), validate(model, tokenizer, val_set, normalize))
        on_step(step, model, tokenizer)

    # Stage 3: steps.
    while run.progress(step, len(loader)) < 1:
        epoch, first_batch = divmod(step, len(loader))
        train_set.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch, first_batch)
        for batch in tqdm(loader, desc=f"epoch {epoch + 1}", leave=False, disable=True if ranks.rank else None):
            progress = run.progress(step, len(loader))
            if progress >= 1:
                break
            run.save_if_due(step)
            # For dropout and crops; a resumed run repeats it.
            torch.manual_seed(random.Random(f"{recipe.seed}/{step}/{ranks.rank}").getrandbits(63))
            set_learning_rate(optimizers, progress)
            total, parts = parallel_loss(batch, progress)
            total.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if isinstance(batch_loss.temperature, LearnedTemperature):
                batch_loss.temperature.clamp_()
            step += 1
            run.add(parts)
            on_step(step, model, tokenizer)

        # Stage 4: validation, after each epoch.
        run.check_weights(step)
        run.record_epoch(step, len(loader), validate(model, tokenizer, val_set, normalize))
    return run.records
