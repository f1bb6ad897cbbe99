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


PROTOCOL = {
    "baseline": "--temperature 0.1",
    "arm": "--temperature 0.1 --augment flip:exchange",
    "tuned on": "val",
    "measured on": "test",
    "tuning seeds": [100, 101],
    "seeds": list(range(12)),
    "margin": 1.5,
    "verdict after": 12,
}
FLAWS = [
    ({"arm": "--temperature 0.2 --augment flip:exchange"}, "and nothing else"),
    ({"arm": "--temperature 0.1 --augment flip"}, "skips most of our captions"),
    ({"arm": "--temperature 0.1"}, "add --augment flip:exchange"),
    ({"tuned on": "test"}, "choose on val"),
    ({"measured on": "val"}, "measure on test"),
    ({"tuning seeds": [11, 12]}, "must not be among"),
    ({"margin": 0}, "above 0"),
    ({"margin": 2.5}, "below the 2 points"),
    ({"seeds": [5] * 12, "verdict after": 1}, "to find 2 points"),
    ({"seeds": range(4), "verdict after": 4}, "to find 2 points"),
    ({"margin": 0.5}, "too few seeds for this margin"),
    ({"verdict after": 5}, "after all seeds"),
]


def test_a_sound_protocol_passes() -> None:
    assert message("check_protocol", PROTOCOL) is None
    assert message("check_protocol", PROTOCOL | {"seeds": range(40), "verdict after": 40, "margin": 0.8}) is None


@pytest.mark.parametrize(("change", "words"), FLAWS, ids=[words for _, words in FLAWS])
def test_a_flaw_of_a_protocol_is_named(change: dict, words: str) -> None:
    assert words in message("check_protocol", PROTOCOL | change)


def test_a_protocol_with_gaps_is_not_judged() -> None:
    assert "fill in all of" in message("check_protocol", {"seeds": range(16)})
