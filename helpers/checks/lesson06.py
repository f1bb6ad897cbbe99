"""The checks of lesson 06: the sign-flip test, power, faults in a results section, and a protocol."""

import itertools

import torch
from scipy import stats
from torch import Generator, Tensor

from helpers.checks.core import CASES, Choice, Values, exercise


def seed_differences(generator: Generator, case: int) -> tuple[Tensor]:
    shift = (0.0, 0.8, -0.8)[case % 3]
    differences = torch.randn(3 + case % 5, generator=generator, dtype=torch.float64) + shift
    return (differences.sign() if case == CASES - 1 else differences,)  # the last case has many equal means


@exercise("sign_flip_p_value", seed_differences)
def check_sign_flip_p_value(differences: Tensor) -> Values:
    n, seen = len(differences), differences.mean()
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=n))).double()  # [2 ** seeds, seeds]
    means, one_flipped = (signs * differences).mean(1), ((1 - 2 * torch.eye(n)) * differences).mean(1)
    as_far, farther = ((means.abs() >= seen.abs() + rounding).double() for rounding in (-1e-9, 1e-9))
    one_as_far, p = (one_flipped.abs() >= seen.abs() - 1e-9).double(), as_far.mean()
    return p, {
        "this is a one-sided test; count means as far below zero too": (means >= seen - 1e-9).double().mean(),
        "only means farther from zero are counted; count those equally far too": farther.mean(),
        "this is a number of sign choices; divide by the number of all choices": as_far.sum(),
        "all signs are flipped together; each seed has a sign of its own": 1.0,
        "this flips one sign at a time; use all 2 ** seeds combinations": one_as_far.mean(),
    }


def noise_and_effect(generator: Generator, case: int) -> tuple[Tensor, float]:
    noise = torch.randn(500, 4 + case % 3, generator=generator, dtype=torch.float64)  # [studies, seeds]
    return noise, (-1) ** case * (0.7 + 0.1 * case)


@exercise("power", noise_and_effect)
def check_power(noise: Tensor, effect: float) -> Values:
    n = noise.shape[1]

    def percent(differences: Tensor, limit: float) -> Tensor:
        t = differences.mean(1) / differences.std(1) * n**0.5
        return 100 * (t.abs() > limit).double().mean()

    seen, limit = noise + effect, float(stats.t.ppf(0.975, n - 1))
    above = 100 * (seen.mean(1) / seen.std(1) * n**0.5 > limit).double().mean()
    return percent(seen, limit), {
        "this is a share from 0 to 1; power is asked for in percent": percent(seen, limit) / 100,
        "the effect is not used; add it to every difference": percent(noise, limit),
        "the standard deviation is not divided by the square root of n": percent(seen, limit * n**0.5),
        "1.96 is for a normal distribution; with so few seeds use Student's t": percent(seen, 1.96),
        "the quantile at 0.95 leaves 5 % on each side; use 0.975": percent(seen, float(stats.t.ppf(0.95, n - 1))),
        "only intervals above zero are counted; an effect can be negative": above,
    }


check_faults = Choice(
    "five faults",
    right="b",
    a="sentence 2 is sound: the same seeds in both arms make pairs",
    b="chosen on test; stopped when it suited; unequal tuning; one of twelve measures; no proof of no effect",
    c="sentence 5 is sound: the model of the last step is measured, so nothing is chosen",
    d="sentence 9 is a fault: an interval that contains zero does not show that there is no effect",
)


def check_protocol(protocol: dict) -> None:
    """Accept a protocol for a claimed gain of 2 points, where the pairs have a spread of 1.3; or name a flaw."""
    names = {"baseline", "arm", "tuned on", "measured on", "tuning seeds", "seeds", "margin", "verdict after"}
    assert names <= set(protocol), f"fill in all of: {', '.join(sorted(names))}"
    arm, seeds, margin = protocol["arm"], set(protocol["seeds"]), protocol["margin"]
    n = len(seeds)
    assert arm.startswith(protocol["baseline"]), "the arm must be the baseline plus --augment, and nothing else"
    added = arm.removeprefix(protocol["baseline"]).strip()
    assert added == "--augment flip:exchange", "add --augment flip:exchange; flip alone skips most of our captions"
    assert (protocol["tuned on"], protocol["measured on"]) == ("val", "test"), "choose on val, and measure on test"
    assert not seeds & set(protocol["tuning seeds"]), "the tuning seeds must not be among the study's seeds"
    assert 0 < margin < 2, "the margin must be above 0 and below the 2 points of the claim"
    error = 1.3 / max(1, n) ** 0.5
    assert 2 / error > stats.t.ppf(0.975, n - 1) + 0.85, "too few seeds to find 2 points in 80 of 100 studies"
    enough = margin / error > stats.t.ppf(0.95, n - 1) + 1.28
    assert enough, "too few seeds for this margin to show that there is no effect; use more, or a wider margin"
    assert protocol["verdict after"] == n, "the verdict comes after all seeds, whatever the first ones say"
    print("Right: this protocol leaves nothing to choose once the first run has been made")
