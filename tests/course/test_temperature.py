"""Schedules: their temperatures over the course of training, and the texts that describe them."""

import math

import pytest
import torch

from helpers.temperature import LearnedTemperature, parse_schedule

SHAPES = {
    "0.07": [0.07, 0.07, 0.07, 0.07, 0.07],
    "linear:0.1:0.05": [0.1, 0.0875, 0.075, 0.0625, 0.05],
    "cosine:0.1:0.05": [0.1, 0.075 + 0.025 * math.sqrt(0.5), 0.075, 0.075 - 0.025 * math.sqrt(0.5), 0.05],
    "periodic:0.1:1:2": [1.0, 0.1, 1.0, 0.1, 1.0],
    "warmup:0.2:0.1:0.5": [0.2, 0.15, 0.1, 0.1, 0.1],
    "warmup:0.05:0.1:1": [0.05, 0.0625, 0.075, 0.0875, 0.1],
}


@pytest.mark.parametrize("text", SHAPES)
def test_schedule_at_five_moments_of_training(text: str) -> None:
    schedule = parse_schedule(text)
    assert [schedule(k / 4) for k in range(5)] == pytest.approx(SHAPES[text])


def test_learned_temperature_has_a_gradient() -> None:
    schedule = parse_schedule("learned:0.1")
    assert schedule(0.3).item() == pytest.approx(0.1)
    assert parse_schedule("learned")(0).item() == pytest.approx(0.07)
    schedule(0.5).backward()
    assert float(schedule.log_logit_scale.grad) == pytest.approx(-0.1)  # d exp(-x) / dx = -exp(-x)


def test_warm_up_is_linear_and_then_constant() -> None:
    schedule = parse_schedule("warmup:0.2:0.05:0.1")
    temperatures = {0.0: 0.2, 0.02: 0.17, 0.05: 0.125, 0.1: 0.05, 0.100001: 0.05, 1.0: 0.05}
    assert [schedule(progress) for progress in temperatures] == pytest.approx(list(temperatures.values()))


def test_clamp_limits_both_ends_and_keeps_the_gradient() -> None:
    schedule = LearnedTemperature()
    for value, clamped in ((9.0, 0.01), (-3.0, 1.0)):
        with torch.no_grad():
            schedule.log_logit_scale.fill_(value)
        schedule.clamp_()
        assert schedule(0).item() == pytest.approx(clamped)
        schedule.zero_grad()
        schedule(0).backward()
        assert schedule.log_logit_scale.grad.abs() > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *[
            (text, r"write one of 0.07, linear:FROM:TO, .*learned\[:START\]")
            for text in ("", "0", "nan", "0.07:0.1", "cosin:0.1:0.05", "warm-up:0.1:0.05:0.2")
        ],
        *[(f"linear:{numbers}", "write linear:FROM:TO") for numbers in ("0.1", "0.1:0.2:0.3", "a:b", "0.1:0")],
        *[(f"learned:{numbers}", r"write learned\[:START\]") for numbers in ("", "0.1:0.2")],
        ("learned:0.001", "must start between 0.01 and 1, got 0.001"),
        ("warmup:0.1:0.05:1.5", "SHARE of a warm-up must be between 0 and 1, got 1.5"),
    ],
)
def test_invalid_schedule_text_is_rejected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_schedule(text)
