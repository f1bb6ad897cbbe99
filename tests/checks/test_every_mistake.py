"""Each check accepts its right function, and names each of its mistakes by the mistake's own sentence."""

import itertools
from collections.abc import Callable

import pytest

from helpers import checks
from helpers.checks.core import Check, comparable, same

CHECKS = [check for name, check in sorted(vars(checks).items()) if name.startswith("check_")]
MISTAKES = [(check, sentence) for check in CHECKS for sentence in check.values(*next(check.cases()))[1]]
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


def function(check: Check, sentence: str | None = None) -> Callable:
    """The function that makes this mistake, or the right one."""

    def answer(*inputs: object) -> object:
        right, mistakes = check.values(*inputs)
        value = mistakes[sentence] if sentence else right
        if not isinstance(right, dict):
            return value
        return tuple((right | value).values()) if check.as_tuple else right | value

    return answer


def parts(value: object) -> dict[str, object]:
    named = value if isinstance(value, dict) else {"": value}
    return {part: comparable(part, number, number)[0] for part, number in named.items()}


def differ(value: object, other: object) -> bool:
    value, other = parts(value), parts(other)
    return value.keys() != other.keys() or any(not same(value[part], other[part]) for part in value)


def refuse_bad_progress(answer: Callable) -> Callable:
    def guarded(progress: float, *others: float) -> float:
        if not 0 <= progress <= 1:
            raise ValueError("progress runs from 0 to 1")
        return answer(progress, *others)

    return guarded


def test_there_is_a_check_for_every_exercise() -> None:
    assert len(CHECKS) == 23
    assert len(MISTAKES) >= 195


@each_check
def test_the_right_function_passes_in_one_line(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    answer = function(check)
    check(refuse_bad_progress(answer) if check.refused else answer)
    assert capsys.readouterr().out == f"Right: {check.name} agrees with the reference on 20 random cases.\n"


@pytest.mark.parametrize(("check", "sentence"), MISTAKES, ids=lambda value: getattr(value, "name", None))
def test_a_mistake_is_named_by_its_own_sentence(check: Check, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(function(check, sentence))
    assert str(caught.value) == sentence


@each_check
def test_no_two_mistakes_of_a_check_look_alike(check: Check) -> None:
    values = [check.values(*inputs)[1] for inputs in check.cases()]
    for one, other in itertools.combinations(values[0], 2):
        assert any(differ(mistakes[one], mistakes[other]) for mistakes in values), (one, other)


@each_check
def test_the_cases_are_the_same_every_time(check: Check) -> None:
    assert repr(list(check.cases())) == repr(list(check.cases()))
