"""Intervals from influences: the bootstrap of a mean, repeatable, and honest about its settings."""

import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, from_influences


def measured(*parts: np.ndarray, bootstrap: Bootstrap | None = None, **bounds: float):
    value = float(sum(part.mean() for part in parts))
    return from_influences("mean", value, parts, (3, 4), bootstrap or Bootstrap(), **bounds)


def test_the_error_of_a_sum_of_means_is_the_textbook_one():
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    expected = np.sqrt(np.var(a, ddof=1) / 50 + np.var(b, ddof=1) / 50)
    assert measured(a, b).error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("confidence", "normal"), [(0.8, 1.2816), (0.95, 1.9600)])
def test_the_interval_is_the_normal_one_for_many_rows(confidence, normal):
    found = measured(
        *np.random.default_rng(1).normal(size=(2, 500)),
        bootstrap=Bootstrap(confidence=confidence, draws=5_000),
    )
    low, high = found.interval
    assert (found.value - low) / found.error == pytest.approx(normal, rel=0.05)
    assert (high - found.value) / found.error == pytest.approx(normal, rel=0.05)


def test_a_skewed_mean_has_a_skewed_interval():
    found = measured(np.random.default_rng(2).exponential(size=30) ** 2)
    assert found.interval[1] - found.value > 1.1 * (found.value - found.interval[0])


def test_about_as_many_intervals_hold_the_mean_as_they_say():
    random = np.random.default_rng(3)
    held = [
        low <= 0 <= high
        for low, high in (
            measured(random.normal(size=30), bootstrap=Bootstrap(confidence=0.9, draws=200)).interval
            for _ in range(400)
        )
    ]
    assert 0.84 <= np.mean(held) <= 0.95  # 0.9 less what thirty rows cost, and 3 standard errors


def test_order_changes_nothing_and_the_seed_does():
    rows = np.random.default_rng(4).normal(size=40)
    once, other = measured(rows), measured(rows, bootstrap=Bootstrap(seed=1))
    assert measured(rows[::-1]).interval == pytest.approx(once.interval, rel=1e-9)
    assert other.interval != pytest.approx(once.interval, rel=1e-6)


def test_both_sets_are_drawn_apart():
    """Drawn by the same numbers, a part and its mirror would not move at all."""
    rows = np.sort(np.random.default_rng(5).normal(size=100))
    low, high = measured(rows, -rows).interval
    assert high - low > 0.3


def test_an_interval_stays_where_the_number_can_be():
    rows = np.array([0.0, 0.0, 0.0, 1.0])
    assert measured(rows - 0.2, at_least=0.0).interval[0] == 0.0
    assert measured(rows + 0.7, at_most=1.0).interval[1] == 1.0


def test_it_says_what_it_is():
    assert str(measured(np.ones(5))) == "mean 1 [1, 1] of 3 and 4 rows"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Bootstrap(confidence=confidence)


def test_too_few_draws_for_the_ends_are_refused():
    with pytest.raises(ConfigError, match=r"take 200 at least|take 201 at least"):
        Bootstrap(confidence=0.99, draws=199)
