"""The statistics of experiments: against scipy, and by simulation of the whole study that the protocol describes."""

import csv
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from helpers.data import DATA
from helpers.experiments import bootstrap, compare, difference, holm, judge, p_values, read_study, verdicts

STUDIES = 600  # simulated
# Seeds, and the standard deviation of the paired differences in points that the protocol assumes from its pilot.
SEEDS = {"scenes": 16, "emoji": 16, "photographs": 10}
SPREAD = {"scenes": 1.3, "emoji": 0.8, "photographs": 0.8}


def primary_cells() -> list[tuple[str, float]]:
    """The source and the margin of each primary cell of the protocol."""
    with (DATA / "results" / "study" / "cells.csv").open(encoding="utf-8", newline="") as file:
        return [(row["source"], float(row["margin"])) for row in csv.DictReader(file) if row["role"] == "primary"]


SOURCES, MARGINS = zip(*primary_cells(), strict=True)


@pytest.mark.parametrize("seeds", [2, 5, 9])
def test_intervals_and_p_values_agree_with_scipy(seeds: int) -> None:
    values, baseline = np.random.default_rng(seeds).uniform(0, 100, (2, seeds))
    interval, test = difference(values, baseline), stats.ttest_rel(values, baseline)
    expected = test.confidence_interval(0.95)
    assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high))
    assert interval["mean"] == pytest.approx((interval["low"] + interval["high"]) / 2)
    lower = stats.ttest_1samp(values - baseline, -30, alternative="greater").pvalue
    upper = stats.ttest_1samp(values - baseline, 30, alternative="less").pvalue
    assert p_values(values - baseline, 30) == pytest.approx((test.pvalue, max(lower, upper)))


def test_simultaneous_intervals_share_the_five_percent() -> None:
    values = np.random.default_rng(0).normal(size=6)
    simultaneous = difference(values, np.zeros(6), comparisons=4)
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 4)
    assert (simultaneous["low"], simultaneous["high"]) == pytest.approx((expected.low, expected.high))


def test_holm_multiplies_each_p_value_by_the_number_of_tests_left() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # 0.04 may not come before 0.03 doubled
    assert holm([0.9, 0.5]) == pytest.approx([1, 1])
    assert holm([0.2]) == pytest.approx([0.2])


def test_a_verdict_needs_spread_and_more_than_luck() -> None:
    clear = [3.0, 4.0, 5.1, 4.2]
    family = [clear, [-x for x in clear], [0.0, 0.1, -0.1, 0.0], [5.0, -4.0, 3.0, -1.0]]
    assert judge(family, [1.0] * 4) == ["better", "worse", "equivalent", "undecided"]
    assert judge(family, [9.0, 9.0, 0.01, 9.0])[:3] == ["equivalent", "equivalent", "undecided"]
    without_spread = [[2.0, 2.0], [0.0, 0.0]]
    assert judge(without_spread, [1.0, 1.0]) == ["undecided", "equivalent"]


def test_seeds_are_compared_in_pairs_and_roles_are_judged_apart() -> None:
    """Where the seeds differ much and the arms little, only the pairs show it."""
    recalls = {"plain": (10.0, 50.0, 90.0, 30.0), "other": (12.9, 53.0, 93.1, 33.0), "noise": (70.0, 20.0, 80.0, 10.0)}
    rows = [{"arm": arm, "seed": seed, "R@1": x} for arm, own in recalls.items() for seed, x in enumerate(own)]
    cells = compare(rows[:-1], "plain", {"other": "primary", "noise": "exploratory"}, 1.0)
    assert [cell["n"] for cell in cells] == [4, 3]  # the last row of noise is not there yet
    assert cells[0]["mean"] == pytest.approx(3)
    assert [cell["verdict"] for cell in verdicts(cells)] == ["better", "undecided"]
    (single,) = compare(rows[:9], "plain", {"noise": "primary"}, 1.0)
    assert single["n"] == 1
    assert np.isnan(single["mean"])


def test_the_verdicts_of_a_study_come_from_its_rows_alone(tmp_path) -> None:
    (tmp_path / "cells.csv").write_text(
        "source,arm,role,margin\nscenes,cold,primary,1\nscenes,crops,struck,\nemoji,cold,primary,2\n"
    )
    header, generator = "arm,seed,options,data,R@1\n", np.random.default_rng(0)
    for source, effect in (("scenes", 3), ("emoji", 0)):
        recalls = [("baseline", 50.0), ("cold", 50.0 + effect)]
        lines = [f"{a},{s},{{}},1a,{r + generator.normal(0, 0.1)}\n" for s in range(5) for a, r in recalls]
        (tmp_path / f"{source}.csv").write_text(header + "".join(lines))
    planned = {"scenes": 5, "emoji": 5}
    cells = [(cell["source"], cell["margin"], cell["verdict"]) for cell in read_study(tmp_path, planned)]
    assert cells == [("scenes", 1.0, "better"), ("emoji", 2.0, "equivalent")]
    assert [cell["verdict"] for cell in read_study(tmp_path, planned | {"emoji": 6})] == ["better", "5 of 6 seeds"]
    (tmp_path / "emoji.csv").unlink()
    assert [cell["verdict"] for cell in read_study(tmp_path, planned)] == ["better", "not run yet"]


def test_rows_that_come_later_do_not_undo_a_difference() -> None:
    """A cell without rows has p-values of 1. When its rows come, p-values of the others can only fall."""
    p = np.random.default_rng(0).uniform(0, 0.05, (200, 9))
    for family in p:
        waiting = [*family[:5], 1, 1, 1, 1]
        assert (holm(family)[:5] <= holm(waiting)[:5]).all()


def studies(effects: np.ndarray, seed: int) -> Iterator[list[str]]:
    """The verdicts on the primary cells of many studies. Arms of a source share a baseline, so they are correlated."""
    generator = np.random.default_rng(seed)
    for _ in range(STUDIES):
        deviation = {source: SPREAD[source] / 2**0.5 for source in SEEDS}
        baseline = {source: generator.normal(0, deviation[source], n) for source, n in SEEDS.items()}
        arms = [
            effect + generator.normal(0, deviation[source], SEEDS[source])
            for source, effect in zip(SOURCES, effects, strict=True)
        ]
        yield judge([arm - baseline[source] for source, arm in zip(SOURCES, arms, strict=True)], MARGINS)


@pytest.mark.parametrize("source", SEEDS)
def test_one_effect_of_two_points_is_found_among_effects_of_none(source: str) -> None:
    cell = SOURCES.index(source)
    for effect, verdict in ((2.0, "better"), (-2.0, "worse")):
        effects = np.zeros(len(SOURCES))
        effects[cell] = effect
        assert np.mean([judged[cell] == verdict for judged in studies(effects, seed=1)]) >= 0.95


def test_a_study_without_effects_seldom_finds_one() -> None:
    found = [bool({"better", "worse"} & set(judged)) for judged in studies(np.zeros(len(SOURCES)), seed=2)]
    assert np.mean(found) <= 0.05


def test_equal_arms_are_called_equivalent() -> None:
    judged = np.array(list(studies(np.zeros(len(SOURCES)), seed=3))) == "equivalent"  # [studies, cells]
    assert (judged.mean(0) >= 0.80).all(), dict(zip(SOURCES, judged.mean(0), strict=False))


@pytest.mark.parametrize(("source", "least"), [("scenes", 0.80), ("emoji", 0.80), ("photographs", 0.50)])
def test_one_equal_arm_among_large_effects_is_called_equivalent_less_often(source: str, least: float) -> None:
    cell = SOURCES.index(source)
    effects = np.full(len(SOURCES), 2.5)
    effects[cell] = 0
    assert np.mean([judged[cell] == "equivalent" for judged in studies(effects, seed=5)]) >= least


def test_arms_at_the_margin_are_seldom_called_equivalent() -> None:
    """In 5 % of the studies at most, or a little more in a sample of them."""
    assert np.mean(["equivalent" in judged for judged in studies(np.array(MARGINS), seed=4)]) <= 0.06


def test_the_bootstrap_covers_seeds_and_items() -> None:
    """Its interval contains the truth at least about as often as it says, where seeds and items both vary."""
    generator = np.random.default_rng(0)
    covered = 0
    for number in range(100):
        differences = 1.0 + generator.normal(0, 1, (16, 1)) + generator.normal(0, 10, (16, 100))
        low, high = bootstrap(differences, 300, number)
        covered += low < 1.0 < high
    assert 88 <= covered <= 100
