"""Curves that grow while a small model trains, with a temperature slider and a Stop button that act meanwhile."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import anywidget
import numpy as np
import traitlets
from torch import Tensor

from helpers.losses import check_temperature
from helpers.widgets.shared import Temperature, one_a_cell, shipped

BROWSER_SCRIPT, BROWSER_STYLE = shipped("shared.js", "live.js"), shipped("shared.css", "live.css")
SECONDS_BETWEEN_MESSAGES = 1 / 30  # as fine as an eye can follow; more would only cost the kernel time
TURNS_A_STEP = 4  # of the event loop: in the kernel a message needs three, from its arrival to the widget
LARGEST = float(np.finfo(np.float32).max)


class LiveTraining(anywidget.AnyWidget):
    """A training under the hand: its curves, the temperature, and a button to start and stop it.

    Events reach Python only between two turns of the kernel's event loop. A loop in a cell keeps that loop waiting to
    its end, so a slider moved meanwhile may act too late. Here each step is followed by ``await asyncio.sleep(0)``,
    which lets the waiting events in: the next step gets the temperature that the slider has by then, and other cells
    run between two steps, never in the middle of one.

    ``temperature`` and ``running`` are synchronised: read or set them from a cell, or ``observe`` them.

    Args:
        step: makes one step of training at the temperature given, and returns the numbers after it by name.
        steps: how many steps Start goes. Started again at the end, it goes as many more.
        temperature: where the slider starts; any number above 0.
        panels: for each title the names of the curves drawn together under it. None: one panel for each number.
        limits: for a title, the lowest and the highest value of its axis. Without, the axis grows with the curves.
        levels: for a title, horizontal dotted lines by name, such as chance.

    Raises:
        ValueError: for a temperature not above 0, no steps, limits or levels of a panel that does not exist, or limits
            that are not a lower and a higher number.
    """

    _esm = BROWSER_SCRIPT
    _css = BROWSER_STYLE

    temperature = Temperature(0.1).tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)
    steps = traitlets.Int(400).tag(sync=True)  # where the axis of the steps ends
    panels = traitlets.List(traitlets.Dict()).tag(sync=True)
    history = traitlets.Bytes().tag(sync=True)  # float32 [steps, 1 + curves]: the temperature, then each curve once
    trouble = traitlets.Unicode().tag(sync=True)  # why a run ended early, in words

    def __init__(
        self,
        step: Callable[[float], Mapping[str, float]],
        steps: int = 400,
        temperature: float = 0.1,
        panels: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, tuple[float, float]] | None = None,
        levels: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        check_temperature(temperature)
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, not {steps}")
        self._step, self._steps_a_run = step, steps
        self._limits, self._levels = dict(limits or {}), dict(levels or {})
        self._curves: dict[str, list[float]] = {"temperature": []}
        self._rows = bytearray()  # the history up to now
        self._sent = 0  # bytes of it that the page has been sent
        self._sent_at = -math.inf
        self._task: asyncio.Task | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # a script has no event loop; there `run` is what remains
            self._loop = asyncio.get_running_loop()
        described = [] if panels is None else self._described(panels)
        super().__init__(temperature=float(temperature), steps=steps, panels=described)
        self.on_msg(self._hear)
        one_a_cell(self)

    @property
    def curves(self) -> dict[str, list[float]]:
        """What was recorded, one number a step: ``temperature``, the one each step used, and all that `step` gave."""
        return {name: list(values) for name, values in self._curves.items()}

    def start(self) -> asyncio.Task:
        """Begin to train, or go on after a stop, as a task of the event loop; the button calls this.

        The task ends after the last step or a stop. It raises what ``step`` raises. While it runs, starting again
        returns the same task. Do not await it in a cell whose widgets should act: the cell would wait, and so would
        they.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("no event loop runs here, so nothing could act meanwhile: call run() instead") from None
        self.running = True  # a run that was told to stop and has not yet noticed goes on
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._train())
        return self._task

    def stop(self) -> None:
        """End the run before its next step. What was learned stays, and start goes on from there."""
        self.running = False

    def run(self, steps: int | None = None) -> None:
        """The same steps in a plain loop, for stored pictures and tests; the rest of the steps when none are named.

        Other than after :meth:`start`, slider and button may act only when the loop is over.
        """
        if self._task is not None and not self._task.done():
            raise RuntimeError("the training runs already: stop it first")
        self.running = True
        with self._session(steps) as end:
            while self._goes_on(end):
                self._advance()

    def close(self) -> None:
        """End the run and take the widget off the page."""
        self.running = False
        super().close()

    async def _train(self) -> None:
        with self._session() as end:
            while self._goes_on(end):
                self._advance()
                for _ in range(TURNS_A_STEP):
                    await asyncio.sleep(0)

    @contextmanager
    def _session(self, steps: int | None = None) -> Iterator[int]:
        """A run, to the step that is given: whatever ends it is said, and the history is stored."""
        done = len(self._curves["temperature"])
        if steps is None:
            steps = self.steps - done or self._steps_a_run
        self.steps = max(self.steps, done + steps)
        self.trouble = ""
        try:
            yield done + steps
        except Exception as error:
            at = len(self._curves["temperature"])
            self.trouble = (
                f"Step {at + 1} failed. {type(error).__name__}: {error}. To see where, call run(1) in a cell."
            )
            raise
        finally:
            self._send_new_rows()
            self.history = bytes(self._rows)
            self.running = False

    def _goes_on(self, end: int) -> bool:
        return self.running and len(self._curves["temperature"]) < end

    def _advance(self) -> None:
        """One step: trained, recorded, and sent when the last message is long enough ago."""
        temperature = self.temperature
        numbers = self._checked(self._step(temperature))
        for name, value in numbers.items():
            if not abs(value) <= LARGEST:
                step = len(self._curves["temperature"]) + 1
                self.trouble = f"{name} was {value} at step {step}, at temperature {temperature:.4g}: stopped there."
                self.running = False
                return
        if not self.panels:
            self.panels = self._described({name: [name] for name in numbers})
        for name, value in {"temperature": temperature, **numbers}.items():
            self._curves.setdefault(name, []).append(value)
        drawn = dict.fromkeys(name for panel in self.panels for name in panel["curves"])
        self._rows += np.array([temperature, *(numbers[name] for name in drawn)], dtype="<f4").tobytes()
        if time.monotonic() >= self._sent_at + SECONDS_BETWEEN_MESSAGES:
            self._send_new_rows()

    def _checked(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """What ``step`` returned, as floats by name: all that the panels draw, and the same names at every step."""
        if not isinstance(numbers, Mapping) or not numbers:
            raise TypeError(f"step must return its numbers by name, such as {{'loss': 1.2}}, not {numbers!r}")
        if "temperature" in numbers:
            raise ValueError("'temperature' is recorded already, so step must not return it")
        earlier = [name for name in self._curves if name != "temperature"]
        drawn = [name for panel in self.panels for name in panel["curves"]]
        for name in [*drawn, *earlier]:
            if name not in numbers:
                raise ValueError(f"step returned {', '.join(numbers)}, but not {name!r}")
        if earlier and len(numbers) > len(earlier):
            new = next(name for name in numbers if name not in earlier)
            raise ValueError(f"step returned {new!r}, which it did not return at first")
        return {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in numbers.items()}

    def _described(self, panels: Mapping[str, Sequence[str]]) -> list[dict]:
        """The panels as the page reads them."""
        for title in [*self._limits, *self._levels]:
            if title not in panels:
                raise ValueError(f"limits and levels are by the title of a panel; {title!r} is none of {list(panels)}")
        for title, (low, high) in self._limits.items():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"the limits of {title!r} must be a lower and a higher number, not {low} and {high}")
        return [
            {
                "title": title,
                "curves": list(names),
                "limits": [float(end) for end in self._limits.get(title, ())],
                "levels": {label: float(y) for label, y in self._levels.get(title, {}).items()},
            }
            for title, names in panels.items()
        ]

    def _send_new_rows(self) -> None:
        """What the page has not been sent, as one message; the whole history goes out only when a run ends."""
        if self._sent < len(self._rows):
            self.send({"start": self._sent}, [bytes(self._rows[self._sent :])])
            self._sent, self._sent_at = len(self._rows), time.monotonic()

    def _hear(self, _: object, content: dict, __: list) -> None:
        """What the page asks for: a press of the button, or rows that it lacks since it was loaded during a run."""
        match content:
            case {"press": "stop"}:
                self.stop()
            case {"press": "start"} if self._loop is not None:
                # Messages may arrive in a thread of their own. Training in the loop of the cells instead keeps any
                # cell from running in the middle of a step.
                self._loop.call_soon_threadsafe(self._start_for_the_page)
            case {"missing": start}:
                self.send({"start": start}, [bytes(self._rows[start:])])

    def _start_for_the_page(self) -> None:
        """Start where nobody awaits the task: its error stands in the widget, and need not be printed once more."""
        self.start().add_done_callback(lambda task: task.cancelled() or task.exception())

    def __repr__(self) -> str:
        """What a reader sees where no widget can be shown."""
        last = {name: values[-1] for name, values in self._curves.items() if values}
        numbers = "".join(f", {name}={value:.3g}" for name, value in last.items())
        return f"LiveTraining(step {len(self._curves['temperature'])} of {self.steps}{numbers})"
