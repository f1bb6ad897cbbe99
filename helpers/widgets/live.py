"""Curves that grow while a small model trains, with a temperature slider and a Stop button that act meanwhile."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import anywidget
import numpy as np
import traitlets
from torch import Tensor

from helpers.widgets.shared import Temperature, browser_files, keep_one_per_cell

BROWSER_SCRIPT, BROWSER_STYLE = browser_files("live")
SECONDS_BETWEEN_MESSAGES = 1 / 30
YIELDS_PER_STEP = 4  # a message needs three turns of the kernel's event loop to reach the widget


class LiveTraining(anywidget.AnyWidget):
    """A training with its curves, a temperature slider, and a button that starts and stops it.

    Events reach Python only between two turns of the kernel's event loop, so each step is followed by
    ``await asyncio.sleep(0)``: the next step gets the new temperature, and other cells run between two steps.

    Args:
        step: trains one step at the given temperature, and returns the resulting numbers by name.
        steps: number of steps per run; after the last one, Start adds as many again.
        panels: for each title, the names of the curves plotted under it.
        limits, levels: for a title, the ends of its vertical axis, and dotted lines by name, such as chance.
    """

    _esm = BROWSER_SCRIPT
    _css = BROWSER_STYLE

    temperature = Temperature(0.1).tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)  # False ends the run before its next step
    steps = traitlets.Int(400).tag(sync=True)  # where the axis of the steps ends
    panels = traitlets.List(traitlets.Dict()).tag(sync=True)
    history = traitlets.Bytes().tag(sync=True)  # float32 [steps, 1 + curves]: the temperature, then each curve once
    trouble = traitlets.Unicode().tag(sync=True)  # why a run ended early

    def __init__(
        self,
        step: Callable[[float], Mapping[str, float]],
        steps: int,
        temperature: float,
        panels: Mapping[str, Sequence[str]],
        limits: Mapping[str, tuple[float, float]] | None = None,
        levels: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        limits, levels = limits or {}, levels or {}
        described = [
            {"title": title, "curves": [*names], "limits": [*limits.get(title, ())], "levels": levels.get(title, {})}
            for title, names in panels.items()
        ]
        self._step, self._steps_per_run = step, steps
        # One number per step: the temperature, and everything that ``step`` returns.
        self.curves = {name: [] for names in (["temperature"], *panels.values()) for name in names}
        self._rows = bytearray()  # the history so far
        self._bytes_sent, self._sent_at = 0, -math.inf
        self._task: asyncio.Task | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # a script has no event loop; it can only call run()
            self._loop = asyncio.get_running_loop()
        super().__init__(temperature=float(temperature), steps=steps, panels=described)
        self.on_msg(self._receive)
        keep_one_per_cell(self)

    def start(self) -> asyncio.Task:
        """Train, or continue after a stop, as a task of the event loop; do not await it in the widget's own cell."""
        loop = asyncio.get_running_loop()
        self.running = True
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._train())
        return self._task

    def run(self, steps: int | None = None) -> None:
        """Train in a plain loop, for stored outputs and tests; slider and button act only after the loop."""
        if self._task is not None and not self._task.done():
            raise RuntimeError("the training is already running: stop it first")
        self.running = True
        with suppress(StopIteration):
            self._train(steps, yields=0).send(None)  # without yields the coroutine runs to its end

    def close(self) -> None:
        """End the run and remove the widget from the page."""
        self.running = False
        super().close()

    async def _train(self, steps: int | None = None, yields: int = YIELDS_PER_STEP) -> None:
        done = len(self.curves["temperature"])
        end = done + (steps or self.steps - done or self._steps_per_run)
        self.steps = max(self.steps, end)
        self.trouble = ""
        try:
            while self.running and len(self.curves["temperature"]) < end:
                self._advance()
                for _ in range(yields):
                    await asyncio.sleep(0)
        except Exception as error:
            step = len(self.curves["temperature"]) + 1
            self.trouble = f"Step {step} failed. {type(error).__name__}: {error}. To see where, call run(1) in a cell."
            raise
        finally:
            self._send_new_rows()
            self.history = bytes(self._rows)
            self.running = False

    def _advance(self) -> None:
        """Train one step, record its numbers, and send them if the last message was long enough ago."""
        temperature = self.temperature
        numbers = self._step(temperature)
        if not isinstance(numbers, Mapping) or {"temperature", *numbers} != self.curves.keys():
            raise TypeError(f"step must return {', '.join([*self.curves][1:])} by name at every step, not {numbers!r}")
        numbers = {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in numbers.items()}
        row = [temperature, *(numbers[name] for name in [*self.curves][1:])]
        for name, value in zip(self.curves, row, strict=True):
            if not abs(value) <= float(np.finfo(np.float32).max):
                step = len(self.curves["temperature"]) + 1
                self.trouble = f"{name} was {value} at step {step}, at temperature {temperature:.4g}: stopped there."
                self.running = False
                return
        for curve, value in zip(self.curves.values(), row, strict=True):
            curve.append(value)
        self._rows += np.array(row, dtype="<f4").tobytes()
        if time.monotonic() >= self._sent_at + SECONDS_BETWEEN_MESSAGES:
            self._send_new_rows()

    def _send_new_rows(self) -> None:
        """Send the rows since the last message; the complete history is synchronised only when a run ends."""
        if self._bytes_sent < len(self._rows):
            self.send({"start": self._bytes_sent}, [bytes(self._rows[self._bytes_sent :])])
            self._bytes_sent, self._sent_at = len(self._rows), time.monotonic()

    def _receive(self, _: object, content: dict, __: list) -> None:
        """Handle the button, and a page that was loaded during a run and lacks the first rows."""
        match content:
            case {"press": "stop"}:
                self.running = False
            case {"press": "start"} if self._loop is not None:
                # Messages may arrive in another thread; the training belongs to the loop of the cells. An error is
                # shown in the widget, so asking the task for it keeps asyncio from printing it.
                self._loop.call_soon_threadsafe(lambda: self.start().add_done_callback(asyncio.Task.exception))
            case {"missing": start}:
                self.send({"start": start}, [bytes(self._rows[start:])])

    def __repr__(self) -> str:
        last = "".join(f", {name}={values[-1]:.3g}" for name, values in self.curves.items() if values)
        return f"LiveTraining(step {len(self.curves['temperature'])} of {self.steps}{last})"
