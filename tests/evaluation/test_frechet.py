"""The Fréchet distance against scipy's square root of a matrix, closed forms, and its own bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.frechet import TooFewRowsError, frechet_between, frechet_distance
from dpwavelet.evaluation.intervals import Bootstrap
from dpwavelet.evaluation.statistics import Statistics


def draw(seed: int, count: int, features: int, decay: float = 0.5) -> np.ndarray:
    """Rows like features: mixed, of unequal spread, away from zero."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(features, features))
    return (random.normal(size=(count, features)) * np.arange(1, features + 1) ** -decay) @ mix + 1.0


def by_square_root(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it is written, for covariances of full rank."""
    c1, c2 = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = np.asarray(sqrtm(c1 @ c2)).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * np.trace(root))


def by_rows(a: np.ndarray, b: np.ndarray) -> float:
    """The same without covariances, for any rank: with centred rows the trace is the nuclear norm of A B'."""
    x, y = (rows - rows.mean(0) for rows in (a, b))
    n, m = len(x) - 1, len(y) - 1
    trace = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(n * m)
    away = np.square(a.mean(0) - b.mean(0)).sum()
    return float(away + np.square(x).sum() / n + np.square(y).sum() / m - 2 * trace)


def between(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_between(Statistics.of([a]), Statistics.of([b]), despite_too_few=True)


@pytest.mark.parametrize(
    ("features", "counts"), [(1, (20, 9)), (2, (3, 4)), (16, (200, 90)), (64, (400, 300))]
)
def test_it_is_the_formula_by_scipy(features, counts):
    a, b = draw(1, counts[0], features), 1.3 * draw(2, counts[1], features)
    assert frechet_distance(a, b).value == pytest.approx(by_square_root(a, b), rel=1e-6)
    assert between(a, b) == pytest.approx(by_square_root(a, b), rel=1e-6)


@pytest.mark.parametrize(
    ("features", "counts"), [(64, (10, 40)), (64, (10, 200)), (200, (2, 3)), (30, (30, 31))]
)
def test_it_is_right_when_covariances_are_singular(features, counts):
    a, b = draw(3, counts[0], features), draw(4, counts[1], features) + 0.1
    assert between(a, b) == pytest.approx(by_rows(a, b), rel=1e-6)


def test_it_is_right_when_many_rows_are_copies_or_features_are_dead():
    a, b = np.tile(draw(5, 6, 40), (30, 1)), draw(6, 180, 40)
    b[:, 20:] = 0.0
    assert between(a, b) == pytest.approx(by_rows(a, b), rel=1e-6)


@pytest.mark.parametrize(("count", "features"), [(50, 8), (8, 50), (2, 1), (300, 64)])
def test_a_set_is_at_no_distance_from_itself(count, features):
    rows = draw(7, count, features, decay=2.0)
    shuffled = np.random.default_rng(0).permutation(rows)
    scale = np.square(rows).mean() * features
    assert 0 <= between(rows, rows) <= 1e-12 * scale
    assert 0 <= between(rows, shuffled) <= 1e-6 * scale  # rounding of a covariance, under a square root


def test_sets_without_any_spread_are_as_far_as_their_means():
    assert between(np.full((5, 3), 2.0), np.full((9, 3), 4.0)) == pytest.approx(12.0, rel=1e-15)


@given(
    spreads=st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=4),
    shift=st.floats(-5, 5),
)
def test_gaussians_without_correlation_have_the_closed_form(spreads, shift):
    s, t = np.array(spreads).T
    one, other = (
        Statistics(100, mean, np.diag(spread**2) * 99) for mean, spread in ((0 * s, s), (0 * t + shift, t))
    )
    expected = len(s) * shift**2 + np.square(s - t).sum()
    assert frechet_between(one, other) == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.square(s + t).sum())


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_it_scales_with_the_square_of_the_features(size):
    a, b = draw(1, 100, 5), draw(2, 100, 5) + 0.3
    assert between(a * size, b * size) == pytest.approx(between(a, b) * size**2, rel=1e-9)


def test_order_and_float32_change_nothing():
    a, b = draw(1, 90, 6).astype(np.float32), draw(2, 80, 6).astype(np.float32)
    once, again = frechet_distance(a, b), frechet_distance(a[::-1].astype(np.float64), b[::-1])
    assert again.value == pytest.approx(once.value, rel=1e-9)
    assert again.interval == pytest.approx(once.interval, rel=1e-6)
    assert once.sizes == (90, 80)


@pytest.mark.parametrize(("real", "generated"), [(16, 40), (40, 16), (2, 2)])
def test_sets_smaller_than_the_number_of_features_and_one_are_refused(real, generated):
    a, b = draw(1, real, 16), draw(2, generated, 16)
    with pytest.raises(
        TooFewRowsError, match=f"at least 17 images in each set, got {real} and {generated}.*kernel"
    ):
        frechet_distance(a, b)
    with pytest.raises(ConfigError, match="kernel distance"):
        frechet_between(Statistics.of([a]), Statistics.of([b]))
    assert frechet_distance(a, b, despite_too_few=True).value > 0


def test_the_smallest_sets_that_are_not_refused():
    assert frechet_distance(draw(1, 17, 16), draw(2, 17, 16)).value > 0


def test_one_row_has_no_spread_and_is_always_refused():
    with pytest.raises(TooFewRowsError, match="got 1 and 20"):
        between(draw(1, 1, 3), draw(2, 20, 3))


def test_other_features_are_refused():
    with pytest.raises(ConfigError, match="3 and 4"):
        between(draw(1, 20, 3), draw(2, 20, 4))


def test_the_error_is_that_of_the_whole_bootstrap():
    """The witness computes the distance anew from rows that are drawn with replacement."""
    a, b = draw(1, 500, 3), 1.5 * draw(2, 400, 3)
    random = np.random.default_rng(3)
    anew = [between(a[random.integers(500, size=500)], b[random.integers(400, size=400)]) for _ in range(400)]
    assert frechet_distance(a, b).error == pytest.approx(
        np.std(anew), rel=0.15
    )  # 4 errors of a spread of 400


@pytest.mark.parametrize(("scale", "least", "most"), [(1.4, 0.85, 1.0), (1.0, 0.9, 1.0)])
def test_intervals_hold_the_mean_of_the_distance_about_as_often_as_they_say(scale, least, most):
    random, bootstrap = np.random.default_rng(4), Bootstrap(draws=100, confidence=0.95)
    found = [
        frechet_distance(
            random.normal(size=(80, 4)), scale * random.normal(size=(80, 4)), bootstrap=bootstrap
        )
        for _ in range(100)
    ]
    mean = np.mean([each.value for each in found])
    held = np.mean([each.interval[0] <= mean <= each.interval[1] for each in found])
    assert least <= held <= most
    assert np.mean([each.error for each in found]) >= 0.9 * np.std([each.value for each in found])
