"""The checks of lesson 05: a training step, a model of the learner's own functions, recall, and two sets of curves."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from helpers.checks.core import Check, Choice, Setting, Values, exercise
from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.evaluation import evaluate
from helpers.files import DATA
from helpers.losses import contrastive_loss, one_way_contrastive_loss
from helpers.sources.coco import read_captions
from helpers.text import WordTokenizer


class TinyEncoders(nn.Module):
    """Two linear encoders with the inputs and outputs of :class:`DualEncoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.image_layer, self.embedding = nn.Linear(12, 6), nn.Embedding(9, 6)

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        words = self.embedding(token_ids).masked_fill(padding[:, :, None], 0.0)  # [batch, length, 6]
        return self.image_layer(images.flatten(1)), words.sum(1)


def step_inputs(generator: Generator, case: int) -> tuple[nn.Module, torch.optim.Optimizer, dict, float]:
    model = TinyEncoders()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    batch = {
        "images": torch.randn(5, 3, 2, 2, generator=generator),
        "token_ids": torch.randint(9, (5, 4), generator=generator),
        "padding": torch.arange(4) >= torch.randint(1, 5, (5, 1), generator=generator),
    }
    temperature = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05), batch, temperature


def three_steps(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float):
    """The losses that three steps return, and the parameters after them.

    A step that returns nothing, or a dictionary, ends this at once, and that is then the result.
    """
    losses = []
    for _ in range(3):
        loss = step(model, optimizer, batch, temperature)
        if loss is None or isinstance(loss, dict):
            return loss
        losses.append(torch.as_tensor(loss).item())
    parameters = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return {"losses": torch.tensor(losses), "parameters": parameters}


class StepCheck(Check):
    """A check of a function that trains: compared are its losses and the parameters after three steps."""

    def attempt(self, answer: Callable, inputs: tuple) -> object:
        return super().attempt(lambda *given: three_steps(answer, *given), inputs)


def step_with(
    loss_function: Callable = contrastive_loss, order: tuple[str, ...] = ("backward", "step", "zero_grad")
) -> Callable:
    """A training step that uses this loss and makes these calls in this order."""

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float) -> float:
        loss = loss_function(*model(batch["images"], batch["token_ids"], batch["padding"]), temperature)
        calls = {"backward": loss.backward, "step": optimizer.step, "zero_grad": optimizer.zero_grad}
        for name in order:
            calls[name]()
        return loss.item()

    return step


def without_normalising(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    logits, own = images @ texts.T / temperature, torch.arange(len(images))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def one_way(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    return one_way_contrastive_loss(images, texts, temperature, normalize=True)


STEP_MISTAKES = {
    "the gradients of the first step are still there in the second; call optimizer.zero_grad() in each step": step_with(
        order=("backward", "step")
    ),
    "the parameters never change; call loss.backward(), then optimizer.step(), then optimizer.zero_grad()": step_with(
        order=("backward", "zero_grad", "step")
    ),
    "optimizer.step() comes before loss.backward(), so each step uses the gradients of the one before": step_with(
        order=("step", "backward")
    ),
    "this loss is image to text only; take the mean with text to image": step_with(one_way),
    "this loss is text to image only; take the mean with image to text": step_with(lambda x, y, t: one_way(y, x, t)),
    "this loss is the sum of both directions; take their mean": step_with(
        lambda x, y, t: 2 * contrastive_loss(x, y, t)
    ),
    "the features are not normalised; compare cosines": step_with(without_normalising),
    "the temperature has no effect; pass it on to the loss, whose default is 0.07": step_with(
        lambda x, y, t: contrastive_loss(x, y)
    ),
}


def step_values(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float) -> Values:
    def outcome(step: Callable) -> dict:
        return three_steps(step, *copy.deepcopy((model, optimizer)), batch, temperature)

    return outcome(step_with()), {sentence: outcome(step) for sentence, step in STEP_MISTAKES.items()}


check_training_step = StepCheck("training_step", step_inputs, step_values, changes_input=True)


@dataclass(frozen=True)
class TrainedModel(Setting):
    """The recall that a function of the learner's reaches: it trains a model, and held-out scenes measure it."""

    scenes: int = 500
    steps: int = 60

    def __call__(self, answer: Callable | float) -> None:
        super().__call__(self.recall(answer) if callable(answer) else answer)

    def recall(self, answer: Callable) -> float:
        """Train on scenes with their exact captions; return the mean R@1 of both directions on 100 other scenes."""
        (paths, texts), (val_paths, val_texts) = (
            (paths, [captions[-1] for captions in texts])
            for paths, texts in (read_captions(DATA / "scenes", split) for split in ("train", "val"))
        )
        train_set = ImageTextDataset(paths[: self.scenes], texts[: self.scenes], image_size=64)
        val_set = ImageTextDataset(val_paths[:100], val_texts[:100], image_size=64)
        items = [
            {"image": item["image"], "texts": [item["text"]], "image_id": item["image_id"]}
            for item in train_set.__getitems__(range(len(train_set)))
        ]
        tokenizer = WordTokenizer.build(texts[: self.scenes])
        random.seed(0)
        torch.manual_seed(0)
        model = DualEncoder(len(tokenizer), tokenizer.max_length)
        start = copy.deepcopy(model.state_dict())
        try:
            result = answer(items, model, tokenizer, self.steps)
        except NotImplementedError:
            raise AssertionError(f"{self.name} is not written yet: replace the stub with your code") from None
        except Exception as error:
            raise AssertionError(f"{self.name} stopped with {type(error).__name__}: {error}") from error
        model = result if isinstance(result, DualEncoder) else model
        moved = any(not torch.equal(start[name], value) for name, value in model.state_dict().items())
        assert moved, f"{self.name} left every parameter of the model as it was: does it call your training_step?"
        metrics = evaluate(model, tokenizer, val_set, val_set.captions)
        recall = sum(metrics[direction]["R@1"] for direction in metrics) / 2
        print(f"R@1 on 100 held-out scenes: {recall:.1f} % (chance 1 %)")
        return recall


check_my_clip = TrainedModel(
    "my_clip",
    low=10,
    high=100,
    too_low="R@1 is not well above chance; print the loss of each step: it should fall from about ln 64 to below 2",
    too_high="R@1 is a percentage, so at most 100",
    right="the functions that you wrote in four lessons train a model",
)


def owners(images: int, generator: Generator) -> Tensor:
    """The row of each caption's image, ``[3 * images]``, in random order; every image has two captions or more."""
    rows = torch.cat([torch.arange(images).repeat(2), torch.randint(images, (images,), generator=generator)])
    return rows[torch.randperm(3 * images, generator=generator)]


def scores(generator: Generator, case: int) -> tuple[Tensor, Tensor, int]:
    image_of_caption = owners(24, generator)
    own = image_of_caption == torch.arange(24)[:, None]  # [images, captions]
    return torch.randn(24, 72, generator=generator) + 2 * own, image_of_caption, 5 - case % 5


@exercise("image_to_text_recall", scores)
def check_recall_at_k(similarity: Tensor, image_of_caption: Tensor, k: int) -> Values:
    rows = torch.arange(len(similarity))[:, None]
    best, worst = similarity.topk(k).indices, (-similarity).topk(k).indices  # [images, k]
    matches = (image_of_caption[best] == rows).double()  # [images, k]
    share = matches.sum(1) / (image_of_caption == rows).sum(1)

    def percent(hits: Tensor, dim: int = 1) -> Tensor:
        return 100 * hits.any(dim).double().mean()

    recall, diagonal, lowest = percent(matches), percent(best == rows), percent(image_of_caption[worst] == rows)
    text_to_image = percent(similarity.topk(k, dim=0).indices == image_of_caption, 0)
    return recall, {
        "this is a share from 0 to 1; recall is asked for in percent": recall / 100,
        "this divides the matches by the number of the image's captions; one match is enough": 100 * share.mean(),
        "this counts every match; an image with two of them counts once": 100 * matches.sum(1).mean(),
        "this divides the matches by k; one match is enough": 100 * matches.mean(),
        "row i does not belong to column i, since images have several captions; use image_of_caption": diagonal,
        "this is text to image, the other direction; rank all captions for each image": text_to_image,
        "these are the captions that score lowest; sort in descending order": lowest,
        "only the first caption counts here; any of the first k may be the image's own": 100 * matches[:, 0].mean(),
    }


check_loss_curves = Choice(
    "loss curves",
    right="b",
    sentences={
        "a": "panels 2 and 4 are exchanged: in panel 2 the validation loss rises above chance, so what was learned is "
        "wrong; in panel 4 it falls at first",
        "b": "1 never moves, 2 learned pairs that are wrong, 3 breaks off at NaN, 4 learned 64 pairs and little else",
        "c": "panels 1 and 2 are exchanged: wrong pairs can still lower the training loss, as in panel 2; "
        "in panel 1 nothing moves at all",
        "d": "panels 3 and 4 are exchanged: panel 3 breaks off at NaN while its validation loss was as good as its "
        "training loss; in panel 4 the two part",
    },
)

check_which_checkpoint = Choice(
    "which checkpoint",
    right="c",
    sentences={
        "a": "the training loss is lowest at the end, but a training loss can fall by memorising alone",
        "b": "the temperature falls during this training, so its losses at two epochs cannot be compared",
        "c": "recall is what we want, no temperature changes its meaning, and the validation split is there to choose",
        "d": "a test recall that was used to choose is no longer a fair estimate; the test pairs are for the end",
    },
)
