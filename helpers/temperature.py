"""Temperature schedules: what the temperature is at each moment of training.

A schedule is called with the progress of training, from 0 to 1: a run that is limited by time does not know its steps.
Three names are never mixed: ``temperature``, ``logit_scale = 1 / temperature``, and ``log_logit_scale``, the parameter.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.files import InputError

Schedule = Callable[[float], float | Tensor]
MAX_LOGIT_SCALE = 100.0  # the clamp of Radford et al., 2021: a learned temperature stays at 0.01 or above


def constant(progress: float, temperature: float) -> float:
    return temperature


def linear(progress: float, start: float, end: float) -> float:
    """A straight line from ``start`` to ``end``."""
    return start + (end - start) * progress


def cosine_decay(progress: float, start: float, end: float) -> float:
    """Half a cosine from ``start`` to ``end``: slow, fast, slow."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def periodic_cosine(progress: float, low: float, high: float, periods: float) -> float:
    """A cosine from ``high`` down to ``low`` and back, ``periods`` times. It is not a decay: it ends where it began.

    Source: Kukleva et al., 2023, "Temperature Schedules for Self-Supervised Contrastive Methods on Long-Tail Data".
    """
    return low + (high - low) * (1 + math.cos(2 * math.pi * periods * progress)) / 2


def warm_up(progress: float, start: float, end: float, share: float) -> float:
    """A straight line from ``start`` to ``end`` over the first ``share`` of training, then ``end``."""
    return start + (end - start) * min(1.0, progress / share)


class LearnedTemperature(nn.Module):
    """A temperature that is trained with the model, through the logarithm of its inverse, which keeps it positive.

    Call :meth:`clamp_` after each step. Give the parameter no weight decay: it would pull the temperature towards 1.
    Source: Radford et al., 2021, section 2.5 (start 0.07, logit scale at most 100).
    """

    def __init__(self, start: float = 0.07) -> None:
        super().__init__()
        self.log_logit_scale = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self, progress: float) -> Tensor:
        """Return the temperature, a tensor with no dimensions and a gradient; ignore ``progress``."""
        return torch.exp(-self.log_logit_scale)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the temperature to [0.01, 1] in place; a clamp in the forward pass would stop the gradient forever."""
        self.log_logit_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))


SCHEDULES = {  # name: the function or class, how many numbers it takes, and its text
    "linear": (linear, (2,), "linear:FROM:TO"),
    "cosine": (cosine_decay, (2,), "cosine:FROM:TO"),
    "periodic": (periodic_cosine, (3,), "periodic:LOW:HIGH:PERIODS"),
    "warmup": (warm_up, (3,), "warmup:FROM:TO:SHARE"),
    "learned": (LearnedTemperature, (0, 1), "learned[:START]"),
}
FORMS = {"constant": "0.07"} | {name: form for name, (_, _, form) in SCHEDULES.items()}


def parse_schedule(text: str) -> Schedule:
    """Build a schedule from its text: a temperature such as ``0.07``, or one of the other ``FORMS``."""
    name, *parts = text.strip().split(":")
    if name in SCHEDULES:
        schedule, counts, form = SCHEDULES[name]
    else:
        schedule, counts, form, parts = constant, (1,), f"one of {', '.join(FORMS.values())}", [name, *parts]
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) not in counts or not all(0 < number < math.inf for number in numbers):
        raise InputError(f"cannot read the temperature schedule {text!r}; write {form}, with finite numbers above 0")
    if schedule is LearnedTemperature and numbers and not 1 / MAX_LOGIT_SCALE <= numbers[0] <= 1:
        raise InputError(f"a learned temperature must start between {1 / MAX_LOGIT_SCALE} and 1, got {numbers[0]:g}")
    if schedule is warm_up and numbers[2] > 1:
        raise InputError(f"the SHARE of a warm-up must be between 0 and 1, got {numbers[2]}")
    if schedule is LearnedTemperature:
        return LearnedTemperature(*numbers)
    return lambda progress: schedule(progress, *numbers)
