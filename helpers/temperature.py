"""Temperature schedules: what the temperature is at each moment of training.

A schedule is called with the progress of the run, from 0 at its start to 1 at its end, because a run of so many seconds
has no number of steps. Three names, never mixed: ``temperature``, ``logit_scale = 1 / temperature``, and
``log_logit_scale``, the parameter that is learned.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Schedule = Callable[[float], float | Tensor]

MAX_LOGIT_SCALE = 100.0  # the clamp of Radford et al., 2021: a learned temperature stays at 0.01 or above


def check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress runs from 0 (start of training) to 1 (its end), got {progress}")


@dataclass(frozen=True)
class Constant:
    temperature: float

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.temperature


@dataclass(frozen=True)
class Linear:
    start: float
    end: float

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class CosineDecay:
    """Half a cosine from ``start`` to ``end``: slow, fast, slow."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class PeriodicCosine:
    """From ``high`` down to ``low`` and back, ``periods`` times: no decay, it ends where it began.

    Source: Kukleva et al., 2023, "Temperature Schedules for Self-Supervised Contrastive Methods on Long-Tail Data",
    equation 3 (there from 1.0 to 0.1 and back five times, on images alone).
    """

    low: float
    high: float
    periods: float

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.low + (self.high - self.low) * (1 + math.cos(2 * math.pi * self.periods * progress)) / 2


@dataclass(frozen=True)
class WarmUp:
    """In a straight line from ``start`` to ``end`` over the first ``share`` of the run, then ``end``."""

    start: float
    end: float
    share: float

    def __call__(self, progress: float) -> float:
        check_progress(progress)
        return self.start + (self.end - self.start) * min(1.0, progress / self.share)


class LearnedTemperature(nn.Module):
    """A temperature that is trained with the model, through the logarithm of its inverse.

    Learning the logarithm keeps the scale positive, and a step changes it by a share of itself, not by an amount. Call
    :meth:`clamp_` after each step of the optimizer, and give the parameter no weight decay, which would pull the
    temperature towards 1.

    Source: Radford et al., 2021, section 2.5 (start 0.07, logit scale at most 100).
    """

    def __init__(self, start: float = 0.07) -> None:
        super().__init__()
        self.log_logit_scale = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self, progress: float) -> Tensor:
        """The temperature, a tensor with no dimensions that carries a gradient; it does not depend on the progress."""
        check_progress(progress)
        return torch.exp(-self.log_logit_scale)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Back into the range from ``1 / MAX_LOGIT_SCALE`` to 1. In place, since a clamp in the forward pass would
        cut the gradient and so could never be left again."""
        self.log_logit_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))


FORMS = {
    "constant": "0.07",
    "linear": "linear:FROM:TO",
    "cosine": "cosine:FROM:TO",
    "periodic": "periodic:LOW:HIGH:PERIODS",
    "warmup": "warmup:FROM:TO:SHARE",
    "learned": "learned or learned:START",
}


def parse_schedule(text: str) -> Schedule:
    """A schedule from its text: ``0.07``, ``linear:FROM:TO``, ``cosine:FROM:TO``, ``periodic:LOW:HIGH:PERIODS``,
    ``warmup:FROM:TO:SHARE`` or ``learned[:START]``.

    Raises:
        ValueError: in words, for a name that is not known (naming the nearest), a wrong count of numbers, a number that
            is not finite and above 0, or one outside its range.
    """
    name, *rest = str(text).strip().split(":")
    if name not in FORMS:
        try:
            float(name)
        except ValueError:
            near = difflib.get_close_matches(name.lower(), FORMS, n=1, cutoff=0.4)
            hint = f"did you mean {FORMS[near[0]]!r}?" if near else f"write one of: {'; '.join(FORMS.values())}"
            raise ValueError(f"no temperature schedule {text!r}; {hint}") from None
        name, rest = "constant", [name, *rest]
    try:
        numbers = [float(part) for part in rest]
    except ValueError:
        raise ValueError(
            f"the temperature schedule {text!r} has a part that is no number; write {FORMS[name]}"
        ) from None
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"every number in the temperature schedule {text!r} must be finite and above 0")
    if len(numbers) not in {"constant": (1,), "periodic": (3,), "warmup": (3,), "learned": (0, 1)}.get(name, (2,)):
        raise ValueError(f"the temperature schedule {text!r} has {len(numbers)} numbers; write {FORMS[name]}")
    if name == "periodic" and numbers[0] > numbers[1]:
        raise ValueError(f"the temperature schedule {text!r} has its higher temperature first; write {FORMS[name]}")
    if name == "warmup" and numbers[2] > 1:
        raise ValueError(
            f"the temperature schedule {text!r} warms up for {numbers[2]:g} of the run; SHARE is at most 1"
        )
    if name == "learned" and numbers and not 1 / MAX_LOGIT_SCALE <= numbers[0] <= 1:
        raise ValueError(f"a learned temperature starts between {1 / MAX_LOGIT_SCALE} and 1, got {numbers[0]:g}")
    kinds = {
        "constant": Constant,
        "linear": Linear,
        "cosine": CosineDecay,
        "periodic": PeriodicCosine,
        "warmup": WarmUp,
    }
    return LearnedTemperature(*numbers) if name == "learned" else kinds[name](*numbers)
