"""The live training without a page: what acts between two steps, what is sent, and how a run ends."""

import asyncio
import math
import re

import numpy as np
import pytest
import torch

from helpers.widgets import live
from helpers.widgets.live import LiveTraining

PANELS = {"Loss": ["loss"], "Accuracy": ["accuracy"]}
LOSS = {"Loss": ["loss"]}


class Model:
    """Counts its steps and keeps the temperatures that it was given."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def step(self, temperature: float) -> dict[str, float]:
        self.used.append(temperature)
        return {"loss": 1 / len(self.used), "accuracy": 1 - 1 / len(self.used)}


@pytest.fixture
def model() -> Model:
    return Model()


async def steps_made(model: Model, count: int) -> None:
    """Wait until so many steps were made, as another task of the same loop."""
    while len(model.used) < count:
        await asyncio.sleep(0)


def rows(training: LiveTraining) -> np.ndarray:
    """The history as the page reads it: ``[steps, 1 + curves]``."""
    curves = {name for panel in training.panels for name in panel["curves"]}
    return np.frombuffer(training.history, dtype="<f4").reshape(-1, 1 + len(curves))


def test_a_plain_loop_records_the_same(model: Model) -> None:
    async def hand() -> None:
        plain, waiting = (LiveTraining(each.step, 7, 0.1, PANELS) for each in (model, Model()))
        plain.run()
        await waiting.start()
        assert plain.curves == waiting.curves
        assert plain.history == waiting.history
        assert not plain.running

    asyncio.run(hand())


def test_the_button_starts_and_stops(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, 10**6, 0.1, PANELS)
        # The page's messages may arrive in another thread; the training is in the loop of the cells all the same.
        await asyncio.to_thread(training._handle_custom_msg, {"press": "start"}, [])
        await steps_made(model, 3)
        assert training.running
        training._handle_custom_msg({"press": "stop"}, [])
        made = len(model.used)
        await asyncio.sleep(0.05)  # long enough for many steps
        assert len(model.used) == made < 10**6
        assert not training.running

    asyncio.run(hand())


def test_history_holds_the_temperature_and_each_drawn_curve_once(model: Model) -> None:
    panels = {"Both": ["accuracy", "loss"], "Again": ["loss"]}
    training = LiveTraining(model.step, 3, 0.2, panels)
    training.run()
    expected = [training.curves[name] for name in ("temperature", "accuracy", "loss")]
    assert rows(training) == pytest.approx(np.array(expected).T, rel=1e-6)


def test_messages_are_few_and_together_they_are_the_history(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock) / 1000)  # each look at the clock is a millisecond
    messages, stored = [], []
    training = LiveTraining(model.step, 300, 0.1, PANELS)
    monkeypatch.setattr(training, "send", lambda content, buffers: messages.append((content["start"], *buffers)))
    training.observe(lambda change: stored.append(len(messages)), names="history")
    training.run()
    assert 2 < len(messages) <= 300 / 1000 * 30 + 2
    assert b"".join(buffer for _, buffer in messages) == training.history
    ends = np.cumsum([len(buffer) for _, buffer in messages])
    assert [start for start, _ in messages] == [0, *ends[:-1]]
    assert stored == [len(messages)]  # the whole goes out once, at the end


@pytest.mark.parametrize("begin", ["run", "start"])
def test_an_error_in_a_step_ends_the_run_is_said_and_is_raised(model: Model, begin: str) -> None:
    def step(temperature: float) -> dict[str, float]:
        if len(model.used) == 3:
            raise KeyError("no batch left")
        return model.step(temperature)

    async def hand() -> None:
        training = LiveTraining(step, 10, 0.1, PANELS)
        with pytest.raises(KeyError, match="no batch left"):
            training.run() if begin == "run" else await training.start()
        assert not training.running
        assert re.search("Step 4.*no batch left", training.trouble)
        assert len(rows(training)) == 3

    asyncio.run(hand())


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_a_number_that_is_not_finite_stops_the_run_in_words(value: float) -> None:
    numbers = iter([2.0, 1.0, value, 0.5])
    training = LiveTraining(lambda temperature: {"loss": next(numbers)}, 4, 0.03, LOSS)
    training.run()
    assert not training.running
    assert training.curves["loss"] == [2.0, 1.0]
    for word in ("loss", str(value), "step 3", "0.03"):
        assert word in training.trouble
    training.run(1)
    assert training.trouble == ""


@pytest.mark.filterwarnings("error")
def test_numbers_may_be_tensors() -> None:
    training = LiveTraining(lambda temperature: {"loss": torch.tensor(2.5, requires_grad=True)}, 1, 0.1, LOSS)
    training.run()
    assert training.curves["loss"] == [2.5]
    assert rows(training)[0, 1] == 2.5
    assert repr(training) == "LiveTraining(step 1 of 1, temperature=0.1, loss=2.5)"


def test_slider_stop_and_start_act_between_two_steps(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, 10, 0.1, PANELS)
        task = training.start()
        assert training.start() is task
        await steps_made(model, 4)
        training.temperature = 0.5
        await steps_made(model, 6)
        training.running = False
        await task
        assert not training.running
        assert training.curves["temperature"] == model.used == [0.1] * 4 + [0.5] * 2
        await training.start()  # continues
        assert len(model.used) == training.steps == 10
        training.run(3)
        assert len(model.used) == training.steps == 13
        task = training.start()
        training.close()
        await task
        assert len(model.used) == 13

    asyncio.run(hand())


@pytest.mark.parametrize("returned", [None, {}, {"loss": 1.0}, {"loss": 1.0, "accuracy": 0.5, "gap": 0.1}])
def test_step_must_return_the_same_numbers_each_time(returned: object) -> None:
    numbers = iter([{"loss": 1.0, "accuracy": 0.5}, returned])
    training = LiveTraining(lambda temperature: next(numbers), 2, 0.1, PANELS)
    with pytest.raises(TypeError, match="step must return"):
        training.run()
    assert len(training.curves["loss"]) == 1


def test_a_wrong_temperature_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="temperature"):
        LiveTraining(model.step, 1, 0.0, PANELS)
