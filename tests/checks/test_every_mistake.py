"""Each check accepts its right function, and names each of its mistakes by the mistake's own sentence."""

import itertools
from collections.abc import Callable

import pytest

from helpers import checks
from helpers.checks.core import Check

CHECKS = [check for name, check in sorted(vars(checks).items()) if name.startswith("check_")]
MISTAKES = [(check, sentence) for check in CHECKS for sentence in check.values(*next(check.cases()))[1]]
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


def value(check: Check, inputs: tuple, sentence: str | None = None) -> object:
    """The right value for these inputs, or the value that a mistake leads to."""
    right, mistakes = check.values(*inputs)
    if sentence is None:
        return right
    return right | mistakes[sentence] if isinstance(right, dict) else mistakes[sentence]


def function(check: Check, sentence: str | None = None) -> Callable:
    """The right function, or the function that makes a mistake."""
    if check.as_tuple:
        return lambda *inputs: tuple(value(check, inputs, sentence).values())
    return lambda *inputs: value(check, inputs, sentence)


def test_there_is_a_check_for_every_exercise() -> None:
    assert len(CHECKS) == 23
    assert len(MISTAKES) >= 195


@each_check
def test_the_right_function_passes_in_one_line(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    check(function(check))
    assert capsys.readouterr().out == f"Right: {check.name} agrees with the reference on 20 random cases.\n"


@pytest.mark.parametrize(("check", "sentence"), MISTAKES, ids=lambda value: getattr(value, "name", None))
def test_a_mistake_is_named_by_its_own_sentence(check: Check, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(function(check, sentence))
    assert str(caught.value) == sentence


@each_check
def test_no_two_mistakes_of_a_check_look_alike(check: Check) -> None:
    cases = list(check.cases())
    sentences = [sentence for other, sentence in MISTAKES if other is check]
    for one, other in itertools.combinations(sentences, 2):
        answer = function(check, one)
        assert any(check.first_failure(answer(*case), value(check, case, other), {}) for case in cases), (one, other)
