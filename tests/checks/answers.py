"""What the tests of the exercises' checks share: how a right answer is met, and how a wrong one."""

from collections.abc import Callable

import pytest

Check = Callable[[Callable], None]


def assert_right(check: Check, answer: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    """The check accepts the answer and prints one line."""
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith("Right: ")
    assert printed.count("\n") == 1


def assert_named(check: Check, answer: Callable, words: str) -> None:
    """The check refuses the answer in a message that has these words in it."""
    with pytest.raises(AssertionError) as caught:
        check(answer)
    assert words in str(caught.value)
