import math

import pytest
import torch

from helpers.encoders import DualEncoder
from helpers.temperature import LearnedTemperature, WarmUp, parse_schedule
from helpers.training import make_optimizers

SHAPES = {
    "0.07": [0.07, 0.07, 0.07, 0.07, 0.07],
    "linear:0.1:0.05": [0.1, 0.0875, 0.075, 0.0625, 0.05],
    "cosine:0.1:0.05": [0.1, 0.075 + 0.025 * math.sqrt(0.5), 0.075, 0.075 - 0.025 * math.sqrt(0.5), 0.05],
    "periodic:0.1:1:2": [1.0, 0.1, 1.0, 0.1, 1.0],
    "warmup:0.2:0.1:0.5": [0.2, 0.15, 0.1, 0.1, 0.1],
    "warmup:0.05:0.1:1": [0.05, 0.0625, 0.075, 0.0875, 0.1],
}


@pytest.mark.parametrize("text", SHAPES)
def test_values_at_five_moments(text: str) -> None:
    schedule = parse_schedule(text)
    assert [schedule(k / 4) for k in range(5)] == pytest.approx(SHAPES[text])


def test_learned_temperature() -> None:
    schedule = parse_schedule("learned:0.1")
    assert schedule(0.3).item() == pytest.approx(0.1)
    assert parse_schedule("learned")(0).item() == pytest.approx(0.07)
    schedule(0.5).backward()
    assert float(schedule.log_logit_scale.grad) == pytest.approx(-0.1)  # d exp(-x) / dx = -exp(-x)


def test_a_warm_up_is_straight_and_then_stays() -> None:
    schedule = parse_schedule("warmup:0.2:0.05:0.1")
    assert schedule == WarmUp(0.2, 0.05, 0.1)
    assert [schedule(progress) for progress in (0.0, 0.02, 0.05, 0.1, 0.100001, 1.0)] == pytest.approx(
        [0.2, 0.17, 0.125, 0.05, 0.05, 0.05]
    )


def test_the_learned_temperature_gets_no_weight_decay() -> None:
    schedule = LearnedTemperature(0.05)
    model = DualEncoder(words=20, max_length=8, dim=16)
    optimizers = make_optimizers(model, schedule)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    own = [group for group in groups if any(parameter is schedule.log_logit_scale for parameter in group["params"])]
    assert [group["weight_decay"] for group in own] == [0.0]
    assert [len(group["params"]) for group in own] == [1]
    before = schedule.log_logit_scale.item(), model.text_encoder.embedding.weight.norm().item()
    for parameter in (schedule.log_logit_scale, *model.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    assert schedule.log_logit_scale.item() == before[0]  # no gradient, no change
    assert model.text_encoder.embedding.weight.norm().item() < before[1]  # where there is decay, it shrinks


def test_the_clamp_holds_both_ends_and_lets_the_gradient_back_in() -> None:
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
    ("text", "words"),
    [
        ("0", "finite and above 0"),
        ("-1", "finite and above 0"),
        ("nan", "finite and above 0"),
        ("inf", "finite and above 0"),
        ("cosin:0.1:0.05", "did you mean 'cosine:FROM:TO'"),
        ("Linear:0.1:0.05", "did you mean 'linear:FROM:TO'"),
        ("xyz", "write one of: 0.07; linear"),
        ("", "write one of"),
        ("cosine:0.1", "has 1 numbers; write cosine:FROM:TO"),
        ("0.07:0.1", "has 2 numbers"),
        ("linear:a:b", "a part that is no number"),
        ("periodic:1:0.1:5", "higher temperature first"),
        ("warmup:0.1:0.05", "has 2 numbers; write warmup:FROM:TO:SHARE"),
        ("warmup:0.1:0.05:1.5", "warms up for 1.5 of the run; SHARE is at most 1"),
        ("warmup:0.1:0.05:0", "finite and above 0"),
        ("warmup:0.1:0.05:nan", "finite and above 0"),
        ("warmup:0.1:0.05:half", "a part that is no number; write warmup:FROM:TO:SHARE"),
        ("warm-up:0.1:0.05:0.2", "did you mean 'warmup:FROM:TO:SHARE'"),
        ("learned:0.001", "starts between 0.01 and 1"),
        ("learned:0.1:0.2", "has 2 numbers"),
    ],
)
def test_a_bad_text_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_schedule(text)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("text", [*SHAPES, "learned"])
def test_progress_outside_the_run_is_refused(text: str, progress: float) -> None:
    with pytest.raises(ValueError, match=r"from 0 .* to 1"):
        parse_schedule(text)(progress)
