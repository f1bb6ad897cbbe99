"""Answers as learners write them: right ones in other styles are accepted, wrong ones are rejected, most by name."""

import re

import answers_blind
import answers_seen  # noqa: F401  (adds to the same two tables)
import pytest

from helpers import checks
from helpers.sources import load_snapshots
from helpers.widgets import TemperatureExplorer


def message(check: str, answer: object) -> str | None:
    """What the check says about a wrong answer; None if it accepts the answer."""
    try:
        getattr(checks, check)(answer)
    except AssertionError as error:
        return str(error)
    return None


def names(said: str, words: str) -> bool:
    """Whether a message names the mistake. A wrong value does not, nor an exception, unless the words ask for it."""
    if re.search(r": expected (?!the shape|a |torch)", said) or ("stopped with" in said and "stopped" not in words):
        return False
    return re.search(words, re.sub(r"; expected .*", "", said), re.IGNORECASE) is not None


def test_right_answers_in_other_styles_are_accepted() -> None:
    rejected = {(check, style): message(check, answer) for check, style, answer in answers_blind.RIGHT}
    rejected = {key: said for key, said in rejected.items() if said}
    assert len(answers_blind.RIGHT) >= 60
    assert not rejected, f"{len(rejected)} of {len(answers_blind.RIGHT)} right answers are rejected: {rejected}"


def test_wrong_answers_are_rejected_and_most_mistakes_are_named() -> None:
    said = {(check, mistake): (message(check, answer), words) for check, mistake, words, answer in answers_blind.WRONG}
    accepted = [key for key, (text, _) in said.items() if text is None]
    unnamed = [(key, text) for key, (text, words) in said.items() if text and not names(text, words)]
    share = 1 - len(unnamed) / len(said)
    assert len(said) == len(answers_blind.WRONG) >= 150
    assert not accepted, f"{len(accepted)} of {len(said)} wrong answers are accepted: {accepted}"
    assert share >= 0.8, f"only {share:.1%} of {len(said)} mistakes are named; not these: {unnamed}"


@pytest.mark.parametrize(("temperature", "count"), [(0.265, 9.5), (0.28, 10.0), (0.295, 10.5)])
def test_the_setting_of_lesson_03_is_where_ten_texts_count(temperature: float, count: float) -> None:
    snapshots = load_snapshots()
    explorer = TemperatureExplorer(
        snapshots.image_features[-1, 8:24], snapshots.text_features[-1, 8:24], temperature=temperature
    )
    assert explorer.numbers()["effective_negatives"] == pytest.approx(count, abs=0.1)
