"""The checks of lesson 05: a training step, a model of the learner's own functions, recall, and two choices."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from helpers.checks.core import Check, Choice, Setting, Values, exercise
from helpers.losses import contrastive_loss


class TinyEncoders(nn.Module):
    """Two linear encoders with the inputs and outputs of :class:`DualEncoder`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.image_layer = nn.Parameter(torch.randn(12, 6, generator=generator) / 2)
        self.embedding = nn.Parameter(torch.randn(9, 6, generator=generator) / 2)

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        words = self.embedding[token_ids].masked_fill(padding[:, :, None], 0.0)  # [batch, length, 6]
        return images.flatten(1) @ self.image_layer, words.sum(1)


def step_inputs(generator: Generator, case: int) -> tuple[nn.Module, torch.optim.Optimizer, dict, float]:
    model = TinyEncoders(generator)
    size = 5 + case % 3
    batch = {
        "images": torch.randn(size, 3, 2, 2, generator=generator),
        "token_ids": torch.randint(9, (size, 4), generator=generator),
        "padding": torch.arange(4) >= torch.randint(1, 5, (size, 1), generator=generator),
    }
    temperature = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05), batch, temperature


class StepCheck(Check):
    """A check of a training step: it compares the returned losses and the parameters after three steps."""

    def attempt(self, answer: Callable, inputs: tuple) -> object:
        return super().attempt(partial(three_steps, answer), inputs)


def three_steps(step: Callable, model: nn.Module, *given: object) -> object:
    losses = []
    for _ in range(3):
        loss = step(model, *given)
        if loss is None or isinstance(loss, dict):  # nothing to compare, or all that is compared
            return loss
        losses.append(torch.as_tensor(loss).item())
    return {"losses": torch.tensor(losses), "parameters": nn.utils.parameters_to_vector(model.parameters()).detach()}


LOSSES = {
    "loss": contrastive_loss,
    "default_loss": lambda images, texts, temperature: contrastive_loss(images, texts),
}
STEP_MISTAKES = {
    "zero_grad() is missing, so a step also uses the gradients of the steps before it": "loss backward step",
    "the parameters never change; call backward(), then step(), then zero_grad()": "loss backward zero_grad step",
    "step() comes before backward(), so it uses the gradients of the step before": "loss step backward",
    "this is the loss after the step; return the loss that gave the gradients": "loss backward step zero_grad loss",
    "this makes two steps in one call": "loss backward step zero_grad loss backward step zero_grad",
    "the temperature has no effect; pass it on to the loss": "default_loss backward step zero_grad",
}


def step_values(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, temperature: float) -> Values:
    def make(calls: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        for call in calls.split():
            if call in LOSSES:
                loss = LOSSES[call](*model(batch["images"], batch["token_ids"], batch["padding"]), temperature)
            elif call == "backward":
                loss.backward()
            else:
                getattr(optimizer, call)()
        return loss.item()

    def outcome(calls: str) -> object:
        return three_steps(partial(make, calls), *copy.deepcopy((model, optimizer)))

    mistakes = {sentence: outcome(calls) for sentence, calls in STEP_MISTAKES.items()}
    return outcome("loss backward step zero_grad"), mistakes


check_training_step = StepCheck("training_step", step_inputs, step_values, changes_input=True)

check_my_clip = Setting(
    "my_clip",
    low=10,
    high=100,
    too_low="R@1 is near chance. Print the loss of each step. If it stays near ln 64, the steps change nothing, or the "
    "captions are shuffled against the images; if it falls far below 2, every step has the same items",
    too_high="R@1 is a percentage, so at most 100",
    right="the functions that you wrote in four lessons train a model",
)


def ranked_captions(generator: Generator, case: int) -> tuple[Tensor, Tensor, int]:
    """The scores of 24 images and 72 captions. Some images rank their own captions first, others last."""
    blocks = torch.arange(24).repeat_interleave(3)  # [72]
    stays = (torch.rand(72, generator=generator) < 0.6).logical_or(torch.arange(72) % 3 == 0)  # each image keeps one
    image_of_caption = torch.where(stays, blocks, torch.randint(24, (72,), generator=generator))
    own = image_of_caption == torch.arange(24)[:, None]  # [images, captions]
    quality = 1 + 3 * torch.randn(24, 1, generator=generator)
    return torch.randn(24, 72, generator=generator) + quality * own, image_of_caption, 3 - case % 3


@exercise("image_to_text_recall", ranked_captions)
def check_recall_at_k(similarity: Tensor, image_of_caption: Tensor, k: int) -> Values:
    rows = torch.arange(len(similarity))[:, None]
    best, worst = similarity.topk(k).indices, (-similarity).topk(k).indices  # [images, k]
    matches = (image_of_caption[best] == rows).double()  # [images, k]
    share = matches.sum(1) / (image_of_caption == rows).sum(1)

    def percent(hits: Tensor) -> Tensor:
        return 100 * hits.double().mean()

    recall, to_image = percent(matches.any(1)), similarity.topk(k, dim=0).indices == image_of_caption  # [k, captions]
    return recall, {
        "this is a share from 0 to 1; recall is asked for in percent": recall / 100,
        "this divides by the number of the image's captions; one match is enough": percent(share),
        "this divides the matches by k; one match is enough": percent(matches),
        "caption i need not belong to image i; use image_of_caption": percent((best == rows).any(1)),
        "this is text to image; rank all captions for each image": percent(to_image.any(0)),
        "these captions score lowest; sort in descending order": percent((image_of_caption[worst] == rows).any(1)),
    }


check_loss_curves = Choice(
    "loss curves",
    right="b",
    a="panels 2 and 4 are exchanged: in panel 2 the validation loss rises, so what was learned is wrong",
    b="1 never moves, 2 learned wrong pairs, 3 cannot get far below chance, 4 learned its 64 pairs, less about others",
    c="panels 1 and 2 are exchanged: wrong pairs can be memorised, as in panel 2; in panel 1 nothing moves",
    d="panels 1 and 3 are exchanged: small logits keep the loss at chance, as in panel 3; panel 1 is above",
)

check_which_checkpoint = Choice(
    "which checkpoint",
    right="c",
    a="the training loss is lowest at the end, but a lower temperature or memorising alone can lower it",
    b="losses at two temperatures cannot be compared, but recalls can: they depend on the order only",
    c="recall is what we want, no temperature changes its meaning, and the validation split is there to choose",
    d="a test recall that was used to choose is no longer a fair estimate; the test pairs are for the end",
)
