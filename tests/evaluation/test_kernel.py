"""The kernel distance against loops and against populations small enough to list every draw."""

from itertools import product

import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation import rows as walking
from dpwavelet.evaluation.intervals import Bootstrap
from dpwavelet.evaluation.kernel import Groups, kernel_distance

FEW = Bootstrap(draws=40)


def draw(seed: int, count: int, features: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, features))


def by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """The U-statistic as it is written."""

    def kernel(x, y):
        return (sum(float(p) * float(q) for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(rows):
        n = len(rows)
        return sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    return within(a) + within(b) - 2 * sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))


@pytest.mark.parametrize(("counts", "features"), [((3, 3), 1), ((3, 20), 4), ((17, 9), 30)])
def test_it_is_the_formula(counts, features):
    a, b = draw(1, counts[0], features), draw(2, counts[1], features) + 0.5
    assert kernel_distance(a, b).value == pytest.approx(by_loops(a, b), rel=1e-9)


@pytest.mark.parametrize("block", [1, 4, 7, 100])
def test_blocks_and_order_change_nothing(monkeypatch, block):
    a, b = draw(1, 23), draw(2, 15) + 0.5
    whole = kernel_distance(a, b)
    monkeypatch.setattr(walking, "BLOCK", block)
    pieces = kernel_distance(a[::-1], b[::-1])
    assert pieces.value == pytest.approx(whole.value, rel=1e-12)
    assert pieces.error == pytest.approx(whole.error, rel=1e-12)
    assert pieces.interval == pytest.approx(whole.interval, rel=1e-9)


def test_the_two_sets_may_change_places():
    a, b = draw(1, 12), draw(2, 20) + 0.3
    assert kernel_distance(a, b).value == pytest.approx(kernel_distance(b, a).value, rel=1e-12)


class TestEveryDraw:
    """Two populations of few values: all draws of three and three rows are listed, so means are exact."""

    def all_draws(self, p: list[float], q: list[float]) -> list[tuple[float, float]]:
        found = [
            kernel_distance(np.array(a)[:, None], np.array(b)[:, None], bootstrap=FEW)
            for a in product(p, repeat=3)
            for b in product(q, repeat=3)
        ]
        return [(each.value, each.error) for each in found]

    def exact(self, p: list[float], q: list[float]) -> float:
        """Squared mean discrepancy of the populations: every pair, a value and itself included."""

        def mean(xs, ys):
            return np.mean([(x * y + 1) ** 3 for x in xs for y in ys])

        return float(mean(p, p) + mean(q, q) - 2 * mean(p, q))

    @pytest.mark.parametrize(("p", "q"), [([0.0, 1.0], [0.5, 2.0]), ([0.0, 1.0], [0.0, 1.0])])
    def test_it_is_unbiased(self, p, q):
        values = [value for value, _ in self.all_draws(p, q)]
        assert np.mean(values) == pytest.approx(self.exact(p, q), rel=1e-12, abs=1e-12)

    @pytest.mark.parametrize(("p", "q"), [([0.0, 1.0], [0.5, 2.0]), ([0.0, 1.0], [0.0, 1.0])])
    def test_the_square_of_the_error_is_on_average_no_less_than_the_variance(self, p, q):
        values, errors = np.array(self.all_draws(p, q)).T
        assert np.square(errors).mean() >= values.var()


def test_the_error_is_the_jackknife():
    a, b = draw(1, 9), draw(2, 7) + 0.5

    def part(rows, distance):
        without = [distance(np.delete(rows, i, 0)) for i in range(len(rows))]
        return (len(rows) - 1) * np.var(without)

    expected = part(a, lambda rows: by_loops(rows, b)) + part(b, lambda rows: by_loops(a, rows))
    assert kernel_distance(a, b).error == pytest.approx(expected**0.5, rel=1e-9)


@pytest.mark.parametrize("groups", [None, Groups(size=5)])
def test_intervals_hold_the_true_distance_about_as_often_as_they_say(groups):
    """Normal rows in one dimension: the mean of (xy + 1)^3 over both has a closed form, by moments."""
    random, shift, spread, trials = np.random.default_rng(5), 0.8, 0.5, 150
    v = spread**2
    own, across = 1 + 3 * v**2, 1 + 3 * v * (shift**2 + v)
    other = 1 + 3 * shift**2 + 3 * (shift**2 + v) ** 2 + (shift**3 + 3 * shift * v) ** 2
    held = 0
    for _ in range(trials):
        a, b = random.normal(0, spread, (120, 1)), random.normal(shift, spread, (120, 1))
        found = kernel_distance(a, b, groups=groups, bootstrap=Bootstrap(draws=100, confidence=0.9))
        held += found.interval[0] <= own + other - 2 * across <= found.interval[1]
    assert 0.82 <= held / trials <= 0.97


class TestGroups:
    def test_groups_agree_with_all_pairs_within_their_error(self):
        a, b = draw(1, 600), draw(2, 500) + 0.5
        whole, dealt = kernel_distance(a, b), kernel_distance(a, b, groups=Groups(size=20))
        assert abs(dealt.value - whole.value) < 4 * dealt.error
        assert dealt.error > whole.error

    def test_they_depend_on_their_seed_alone(self):
        a, b = draw(1, 60), draw(2, 60)
        once, again, other = (
            kernel_distance(a, b, groups=Groups(size=5, seed=seed)).value for seed in (1, 1, 2)
        )
        assert once == again != other

    def test_too_few_groups_are_refused(self):
        with pytest.raises(ConfigError, match="do not make 10 groups of 7"):
            kernel_distance(draw(1, 69), draw(2, 100), groups=Groups(size=7))
        assert kernel_distance(draw(1, 70), draw(2, 100), groups=Groups(size=7)).sizes == (70, 100)

    def test_a_group_that_is_too_small_is_refused(self):
        with pytest.raises(ConfigError, match="at least 3 rows, got 2"):
            Groups(size=2)


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="at least 3 rows in each set, got 5 and 2"):
        kernel_distance(draw(1, 5), draw(2, 2))


def test_features_as_large_as_are_let_in_do_not_overflow():
    found = kernel_distance(np.full((4, 2), 1e40), -np.full((4, 2), 1e40), bootstrap=FEW)
    assert np.isfinite([found.value, found.error, *found.interval]).all()
