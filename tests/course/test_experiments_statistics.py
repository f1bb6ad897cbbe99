"""The statistics of experiments: against scipy, and by simulation of whole families of comparisons."""

import numpy as np
import pytest
from scipy import stats

from helpers.experiments import bootstrap, compare, difference, holm, judge, p_values, verdicts

SPREAD = 1.0  # standard deviation of the paired differences, in points: the largest of the pilot
SEEDS = 16
PRIMARY = 8  # cells of the study
MARGIN = 1.0  # points, the smallest difference of interest
FAMILIES = 400  # simulated studies


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
    assert judge(family, margin=1) == ["better", "worse", "equivalent", "undecided"]
    assert judge([[2.0, 2.0], [0.0, 0.0]], margin=1) == ["undecided", "equivalent"]  # two equal differences, no spread


def test_seeds_are_compared_in_pairs_and_roles_are_judged_apart() -> None:
    """Where the seeds differ much and the arms little, only the pairs show it."""
    recalls = {"plain": (10.0, 50.0, 90.0, 30.0), "other": (12.9, 53.0, 93.1, 33.0), "noise": (70.0, 20.0, 80.0, 10.0)}
    rows = [{"arm": arm, "seed": seed, "R@1": x} for arm, own in recalls.items() for seed, x in enumerate(own)]
    cells = compare(rows[:-1], "plain", {"other": "primary", "noise": "exploratory"})
    assert [cell["n"] for cell in cells] == [4, 3]  # the last row of noise is not there yet
    assert cells[0]["mean"] == pytest.approx(3)
    assert [cell["verdict"] for cell in verdicts(cells, 1.0)] == ["better", "undecided"]


def families(effects: np.ndarray, seed: int) -> list[list[str]]:
    """The verdicts of many studies, each with one comparison per effect; a common baseline correlates them by half."""
    generator = np.random.default_rng(seed)
    arms = effects[:, None] + generator.normal(0, SPREAD / 2**0.5, (FAMILIES, len(effects), SEEDS))
    baseline = generator.normal(0, SPREAD / 2**0.5, (FAMILIES, 1, SEEDS))
    return [judge(list(family), MARGIN) for family in arms - baseline]


def test_an_effect_of_two_points_is_found_among_effects_of_none() -> None:
    effects = np.zeros(PRIMARY)
    effects[0] = 2.0
    assert np.mean([verdict[0] == "better" for verdict in families(effects, 1)]) >= 0.95
    assert np.mean([verdict[0] == "worse" for verdict in families(-effects, 2)]) >= 0.95


def test_a_family_without_effects_is_seldom_given_one() -> None:
    judged = families(np.zeros(PRIMARY), 3)
    assert np.mean([bool({"better", "worse"} & set(verdicts)) for verdicts in judged]) <= 0.05


def test_equal_arms_are_called_equivalent_and_arms_at_the_margin_are_not() -> None:
    assert np.mean([verdict == "equivalent" for own in families(np.zeros(PRIMARY), 4) for verdict in own]) >= 0.80
    at_the_margin = families(np.full(PRIMARY, MARGIN), 5)
    assert np.mean(["equivalent" in verdicts for verdicts in at_the_margin]) <= 0.05


def test_the_bootstrap_covers_seeds_and_items() -> None:
    """Its interval contains the truth about as often as it says, where seeds and items both vary."""
    generator = np.random.default_rng(0)
    covered = 0
    for number in range(100):
        differences = 1.0 + generator.normal(0, 1, (SEEDS, 1)) + generator.normal(0, 10, (SEEDS, 100))
        low, high = bootstrap(differences, 300, number)
        covered += low < 1.0 < high
    assert 88 <= covered <= 100
