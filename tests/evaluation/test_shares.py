"""Shares have Wilson's interval, and averages over classes count every class the same."""

import numpy as np
import pytest
from scipy.stats import binomtest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.shares import balanced, share


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (3, 10), (1, 1), (412, 500)])
def test_the_interval_of_a_share_is_the_one_scipy_computes(right, n):
    found = share("share", np.arange(n) < right, (n, 3))
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert found.value == right / n
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.sizes == (n, 3)


def test_a_rare_class_counts_as_much_as_a_common_one():
    classes = np.array([0] * 90 + [1] * 10)
    hits = classes == 0
    assert share("share", hits, (1, 1)).value == 0.9
    assert balanced("mean", hits, classes, (1, 1)).value == 0.5


def intervals(n: int, chance: float) -> list[bool]:
    random = np.random.default_rng(n)
    held = []
    for _ in range(300):
        classes = np.repeat([0, 1, 2], [n, n, 4 * n])
        true = np.array([chance, 0.5, 0.8])
        low, high = balanced("mean", random.random(len(classes)) < true[classes], classes, (1, 1)).interval
        held.append(low <= true.mean() <= high)
    return held


@pytest.mark.parametrize(("n", "chance"), [(12, 0.9), (60, 0.99), (40, 0.3)])
def test_about_as_many_intervals_of_an_average_hold_the_truth_as_they_say(n, chance):
    assert 0.92 <= np.mean(intervals(n, chance)) <= 0.99  # 0.95, and 3 standard errors and a little


def test_classes_that_were_always_right_are_not_certain():
    found = balanced("mean", np.ones(20, bool), np.arange(20) % 2, (1, 1))
    assert found.value == 1.0
    assert found.interval[0] < 0.95


def test_nothing_to_count_is_refused():
    with pytest.raises(ConfigError, match="at least one picture"):
        share("share", np.empty(0, bool), (1, 1))
    with pytest.raises(ConfigError, match="a class for each"):
        balanced("mean", np.ones(3, bool), np.zeros(2, np.int64), (1, 1))
