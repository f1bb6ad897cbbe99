"""A training under the hand, without a page: what acts between two steps, what is sent, and how a run ends."""

import asyncio
import math
import struct

import numpy as np
import pytest
import torch
import traitlets

from helpers.widgets import live
from helpers.widgets.live import LiveTraining


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


def test_a_temperature_set_during_the_training_is_that_of_the_next_step(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, steps=10, temperature=0.1)
        task = training.start()
        await steps_made(model, 4)
        training.temperature = 0.5
        await task
        assert model.used == [0.1] * 4 + [0.5] * 6
        assert training.curves["temperature"] == model.used

    asyncio.run(hand())


def test_stop_ends_the_run_before_the_next_step_and_start_goes_on_from_there(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, steps=10)
        task = training.start()
        await steps_made(model, 4)
        training.stop()
        await task
        assert len(model.used) == 4
        assert not training.running
        await training.start()
        assert len(model.used) == training.steps == 10

    asyncio.run(hand())


def test_started_at_its_end_it_goes_as_many_steps_more(model: Model) -> None:
    training = LiveTraining(model.step, steps=5)
    training.run(2)
    assert (len(model.used), training.steps) == (2, 5)
    training.run()
    assert (len(model.used), training.steps) == (5, 5)
    training.run()
    assert (len(model.used), training.steps) == (10, 10)
    training.run(3)
    assert (len(model.used), training.steps) == (13, 13)


def test_a_second_start_returns_the_same_task_also_just_after_a_stop(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, steps=10)
        task = training.start()
        assert training.start() is task
        await steps_made(model, 3)
        training.stop()
        assert training.start() is task
        with pytest.raises(RuntimeError, match="stop it first"):
            training.run()
        await task
        assert len(model.used) == 10

    asyncio.run(hand())


def test_a_plain_loop_records_the_same(model: Model) -> None:
    plain = LiveTraining(model.step, steps=7)
    plain.run()
    waiting = LiveTraining(Model().step, steps=7)

    async def hand() -> None:
        await waiting.start()

    asyncio.run(hand())
    assert plain.curves == waiting.curves
    assert plain.history == waiting.history
    assert not plain.running


def test_without_an_event_loop_start_names_what_to_call(model: Model) -> None:
    training = LiveTraining(model.step)
    with pytest.raises(RuntimeError, match=r"call run\(\)"):
        training.start()
    assert not training.running


def test_the_button_starts_and_stops(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, steps=10**6)
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


def test_closing_the_widget_ends_its_run(model: Model) -> None:
    async def hand() -> None:
        training = LiveTraining(model.step, steps=1000)
        task = training.start()
        await steps_made(model, 3)
        training.close()
        await asyncio.wait_for(task, 5)
        assert len(model.used) < 1000

    asyncio.run(hand())


def test_history_holds_the_temperature_and_each_drawn_curve_once(model: Model) -> None:
    panels = {"Both": ["accuracy", "loss"], "Again": ["loss"]}
    training = LiveTraining(model.step, steps=3, temperature=0.2, panels=panels)
    training.run()
    expected = [training.curves[name] for name in ("temperature", "accuracy", "loss")]
    assert rows(training) == pytest.approx(np.array(expected).T, rel=1e-6)


def test_without_panels_each_number_has_one(model: Model) -> None:
    training = LiveTraining(model.step, steps=1, limits={"accuracy": (0, 1)}, levels={"loss": {"chance": 2.0}})
    training.run()
    assert [(panel["title"], panel["curves"]) for panel in training.panels] == [
        ("loss", ["loss"]),
        ("accuracy", ["accuracy"]),
    ]
    assert training.panels[1]["limits"] == [0, 1]
    assert training.panels[0]["levels"] == {"chance": 2.0}


def test_messages_are_few_and_together_they_are_the_history(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock) / 1000)  # each look at the clock is a millisecond
    messages, stored = [], []
    training = LiveTraining(model.step, steps=300)
    monkeypatch.setattr(training, "send", lambda content, buffers: messages.append((content["start"], *buffers)))
    training.observe(lambda change: stored.append(len(messages)), names="history")
    training.run()
    assert 2 < len(messages) <= 300 / 1000 * 30 + 2
    assert b"".join(buffer for _, buffer in messages) == training.history
    ends = np.cumsum([len(buffer) for _, buffer in messages])
    assert [start for start, _ in messages] == [0, *ends[:-1]]
    assert stored == [len(messages)]  # the whole goes out once, at the end


def test_a_page_that_lacks_rows_is_sent_them(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    training = LiveTraining(model.step, steps=20)
    training.run()
    messages = []
    monkeypatch.setattr(training, "send", lambda content, buffers: messages.append((content, *buffers)))
    training._handle_custom_msg({"missing": 24}, [])
    assert messages == [({"start": 24}, training.history[24:])]


@pytest.mark.parametrize("begin", ["run", "start"])
def test_an_error_in_a_step_ends_the_run_is_said_and_is_raised(begin: str) -> None:
    model = Model()

    def step(temperature: float) -> dict[str, float]:
        if len(model.used) == 3:
            raise KeyError("no batch left")
        return model.step(temperature)

    async def hand() -> None:
        training = LiveTraining(step, steps=10)
        with pytest.raises(KeyError, match="no batch left"):
            training.run() if begin == "run" else await training.start()
        assert not training.running
        assert "Step 4" in training.trouble
        assert "no batch left" in training.trouble
        assert len(rows(training)) == 3

    asyncio.run(hand())


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_a_number_that_is_not_finite_stops_the_run_in_words(value: float) -> None:
    numbers = iter([2.0, 1.0, value, 0.5])
    training = LiveTraining(lambda temperature: {"loss": next(numbers)}, steps=4, temperature=0.03)
    training.run()
    assert not training.running
    assert training.curves["loss"] == [2.0, 1.0]
    for word in ("loss", str(value), "step 3", "0.03"):
        assert word in training.trouble
    training.run(1)
    assert training.trouble == ""


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "numbers by name"),
        ({}, "numbers by name"),
        ({"loss": 1.0}, "not 'accuracy'"),
        ({"loss": 1.0, "accuracy": 0.5, "temperature": 0.1}, "recorded already"),
        ({"loss": 1.0, "accuracy": 0.5, "gap": 0.1}, "'gap', which it did not return at first"),
    ],
)
def test_what_step_must_return_is_said(returned: object, words: str) -> None:
    numbers = iter([{"loss": 1.0, "accuracy": 0.5}, returned])
    training = LiveTraining(lambda temperature: next(numbers), steps=2, panels={"Loss": ["loss"]})
    with pytest.raises((TypeError, ValueError), match=words):
        training.run()
    assert len(training.curves["loss"]) == 1


def test_a_curve_that_step_does_not_return_is_named() -> None:
    training = LiveTraining(lambda temperature: {"los": 1.0}, panels={"Loss": ["loss"]})
    with pytest.raises(ValueError, match="returned los, but not 'loss'"):
        training.run()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"panels": {"Loss": ["loss"]}, "limits": {"loss": (0, 1)}}, "'loss' is none of"),
        ({"panels": {"Loss": ["loss"]}, "levels": {"chance": {"": 1.0}}}, "'chance' is none of"),
        ({"panels": {"Loss": ["loss"]}, "limits": {"Loss": (1, 0)}}, "lower and a higher"),
    ],
)
def test_bad_arguments_are_named(model: Model, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiveTraining(model.step, **arguments)


def test_a_temperature_not_above_zero_is_refused_later_too(model: Model) -> None:
    training = LiveTraining(model.step, temperature=0.2)
    with pytest.raises(traitlets.TraitError):
        training.temperature = 0.0
    assert training.temperature == 0.2


@pytest.mark.filterwarnings("error")
def test_numbers_may_be_tensors(model: Model) -> None:
    training = LiveTraining(lambda temperature: {"loss": torch.tensor(2.5, requires_grad=True)}, steps=1)
    training.run()
    assert training.curves["loss"] == [2.5]
    assert struct.unpack("<2f", training.history)[1] == 2.5
    assert repr(training) == "LiveTraining(step 1 of 1, temperature=0.1, loss=2.5)"
