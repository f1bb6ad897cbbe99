"""Each check accepts the right function and names each of its mistakes by the mistake's own sentence."""

from collections.abc import Callable

import pytest

from helpers import checks
from helpers.checks.core import Check, Choice, Setting
from helpers.checks.lesson08 import BlockCheck

EVERY = [check for name, check in sorted(vars(checks).items()) if name.startswith("check_")]
CHECKS = [check for check in EVERY if isinstance(check, Check)]
CHOICES = [check for check in EVERY if isinstance(check, Choice)]
SETTINGS = [check for check in EVERY if isinstance(check, Setting)]
MISTAKES = [(check, sentence) for check in CHECKS for sentence in check.values(*next(check.cases()))[1]]


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
    assert len(CHECKS) >= 19
    assert len(CHECKS) + len(CHOICES) + len(SETTINGS) == len(EVERY) - 1  # check_protocol has tests of its own
    assert all(len(check.values(*next(check.cases()))[1]) >= 4 for check in CHECKS)


@pytest.mark.parametrize(
    "check", [check for check in CHECKS if not isinstance(check, BlockCheck)], ids=lambda c: c.name
)
def test_the_right_function_passes_in_one_line(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    check(function(check))  # a BlockCheck does not accept its own reference, which computes the whole matrix
    assert capsys.readouterr().out == f"Right: {check.name} agrees with the reference on 20 random cases.\n"


@pytest.mark.parametrize(("check", "sentence"), MISTAKES, ids=lambda value: getattr(value, "name", None))
def test_a_mistake_is_named_by_its_own_sentence(check: Check, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(function(check, sentence))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("check", CHOICES, ids=lambda check: check.name)
def test_a_choice_accepts_one_answer_and_explains_each_other(check: Choice, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(check.sentences) >= 3
    assert len(set(check.sentences.values())) == len(check.sentences)
    check(f" {check.right.upper()}\n")
    assert capsys.readouterr().out == f"Right: {check.sentences[check.right]}\n"
    for letter in check.sentences.keys() - {check.right}:
        with pytest.raises(AssertionError) as caught:
            check(letter)
        assert str(caught.value) == check.sentences[letter]
    for other in ("", "z", None, 3):
        with pytest.raises(AssertionError, match="answer with one of"):
            check(other)


@pytest.mark.parametrize("check", SETTINGS, ids=lambda check: check.name)
def test_a_setting_accepts_its_range_and_says_which_way_to_go(
    check: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    for right in (check.low, (check.low + check.high) / 2, check.high):
        check(right)
        assert capsys.readouterr().out == f"Right: {check.right}\n"
    for wrong, sentence in ((check.low * 0.99, check.too_low), (check.high * 1.01, check.too_high)):
        with pytest.raises(AssertionError) as caught:
            check(wrong)
        assert str(caught.value) == sentence
    for other in ("far", None, float("nan")):
        with pytest.raises(AssertionError):
            check(other)
