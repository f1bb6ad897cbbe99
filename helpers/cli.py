"""The command line: ``python -m helpers COMMAND``. Bad input is answered with a sentence and exit code 2."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from helpers.files import InputError

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the program to stop. Not an ``Exception``, so that nothing swallows it on its way out."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


@contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal that arrives inside wait until the block is done, so that what is inside happens whole."""
    if threading.current_thread() is not threading.main_thread():  # no other thread is ever interrupted by one
        yield
        return
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


class CommandLine(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, without the usage lines above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def run(self, command: Callable[[], object]) -> int:
        """Call ``command`` and return the exit code: 0, 2 for an ``InputError``, 128 + N for signal N."""

        def stop(signal_number: int, _: object) -> NoReturn:
            raise Interrupted(signal_number)

        before = {number: signal.signal(number, stop) for number in STOPPING}
        try:
            command()
        except InputError as error:
            print(f"{self.prog}: {error}", file=sys.stderr)
            return 2
        except Interrupted as interruption:
            return interruption.exit_code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0
