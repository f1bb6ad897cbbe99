"""Each check accepts the right function and names each of its mistakes by the mistake's own sentence."""

from collections.abc import Callable

import pytest

from helpers import checks
from helpers.checks.core import Check

CHECKS = [check for name, check in sorted(vars(checks).items()) if name.startswith("check_")]
MISTAKES = [(check, sentence) for check in CHECKS for sentence in check.values(*next(check.cases()))[1]]
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


def value(check: Check, inputs: tuple, sentence: str | None = None) -> object:
    """The right value for these inputs, or the value that a mistake gives."""
    right, mistakes = check.values(*inputs)
    if sentence is None:
        return right
    return right | mistakes[sentence] if isinstance(right, dict) else mistakes[sentence]


def function(check: Check, sentence: str | None = None) -> Callable:
    """The right function, or a function that makes a mistake."""
    if check.as_tuple:
        return lambda *inputs: tuple(value(check, inputs, sentence).values())
    return lambda *inputs: value(check, inputs, sentence)


def test_there_is_a_check_for_every_exercise() -> None:
    assert len(CHECKS) == 23
    assert len(MISTAKES) >= 160


@each_check
def test_the_right_function_passes_in_one_line(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    check(function(check))
    assert capsys.readouterr().out == f"Right: {check.name} agrees with the reference on 20 random cases.\n"


@pytest.mark.parametrize(("check", "sentence"), MISTAKES, ids=lambda value: getattr(value, "name", None))
def test_a_mistake_is_named_by_its_own_sentence(check: Check, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(function(check, sentence))
    assert str(caught.value) == sentence
