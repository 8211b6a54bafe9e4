"""Precision, recall, density and coverage against loops that follow the papers."""

import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation import rows as walking
from dpwavelet.evaluation.intervals import Bootstrap
from dpwavelet.evaluation.neighbours import Neighbourhoods, neighbourhoods

FOUR = ("precision", "recall", "density", "coverage")


def draw(seed: int, count: int, features: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, features))


def by_loops(real: np.ndarray, generated: np.ndarray, k: int) -> list[float]:
    """The definitions, one pair of rows at a time."""

    def distance(x, y):
        return float(np.sqrt(np.square(x - y).sum()))

    def radii(rows):
        return [
            sorted(distance(x, y) for j, y in enumerate(rows) if j != i)[k - 1] for i, x in enumerate(rows)
        ]

    r, g = radii(real), radii(generated)
    pairs = [[distance(x, y) for y in generated] for x in real]
    N, M = range(len(real)), range(len(generated))
    return [
        float(np.mean([any(pairs[i][j] <= r[i] for i in N) for j in M])),
        float(np.mean([any(pairs[i][j] <= g[j] for j in M) for i in N])),
        sum(pairs[i][j] <= r[i] for i in N for j in M) / (k * len(M)),
        float(np.mean([min(pairs[i]) <= r[i] for i in N])),
    ]


def values(found: Neighbourhoods) -> list[float]:
    return [getattr(found, name).value for name in FOUR]


@pytest.mark.parametrize(
    ("counts", "features", "k"), [((40, 30), 3, 5), ((2, 2), 1, 1), ((6, 25), 20, 3), ((30, 30), 1, 4)]
)
@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
def test_they_are_the_definitions(counts, features, k, shift):
    a, b = draw(1, counts[0], features), draw(2, counts[1], features) * 0.7 + shift
    assert values(neighbourhoods(a, b, nearest=k)) == pytest.approx(by_loops(a, b, k), rel=1e-12)


@pytest.mark.parametrize("block", [1, 4, 7, 100])
def test_blocks_and_order_change_nothing(monkeypatch, block):
    a, b = draw(1, 23), draw(2, 15) + 0.5
    whole = neighbourhoods(a, b, nearest=3)
    monkeypatch.setattr(walking, "BLOCK", block)
    pieces = neighbourhoods(a[::-1], b[::-1], nearest=3)
    for name in FOUR:
        one, other = getattr(whole, name), getattr(pieces, name)
        assert (other.value, other.error) == pytest.approx((one.value, one.error), rel=1e-12)
        assert other.interval == pytest.approx(one.interval, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_set_and_itself(offset):
    """Balls are closed: each holds its centre and k neighbours, at the rim the last of them."""
    rows = draw(3, 200, 16) + offset
    assert values(neighbourhoods(rows, rows, nearest=4)) == [1.0, 1.0, 1.25, 1.0]


def test_copies_of_one_image_are_in_their_ball_of_no_size():
    rows = np.tile(draw(4, 1, 64), (20, 1))
    assert values(neighbourhoods(rows, rows, nearest=5)) == [1.0, 1.0, 4.0, 1.0]


def test_sets_far_apart_share_nothing():
    assert values(neighbourhoods(draw(1, 20), draw(2, 20) + 1e3)) == [0.0, 0.0, 0.0, 0.0]


def test_a_generator_that_repeats_one_real_image_is_precise_and_covers_little():
    real = draw(5, 300, 8)
    found = neighbourhoods(real, real[:1] + 1e-6 * draw(6, 100, 8))
    assert found.precision.value == 1.0
    assert found.recall.value < 0.02
    assert found.coverage.value < 0.2


@pytest.mark.parametrize("nearest", [0, 10, -1])
def test_more_neighbours_than_rows_are_refused(nearest):
    with pytest.raises(ConfigError, match=f"got {nearest} for 30 and 10 rows"):
        neighbourhoods(draw(1, 30), draw(2, 10), nearest=nearest)


def test_the_error_counts_points_and_balls_of_both_sets():
    """By hand, on a line: real balls of radius 1 about 0, 1, 10, 11, and generated rows 0.5, 10.5, 11.5, 50.

    The ball about 0 and that about 1 hold 0.5; both others hold 10.5; only that about 11 holds 11.5.
    """
    real, generated = (np.array(each)[:, None] for each in ([0.0, 1, 10, 11], [0.5, 10.5, 11.5, 50]))
    found = neighbourhoods(real, generated, nearest=1)
    assert found.precision.value == 0.75
    points, balls = np.var([1, 1, 1, 0], ddof=1) / 4, np.var([0, 0, 0, 1], ddof=1) / 4
    assert found.precision.error == pytest.approx((points + balls) ** 0.5, rel=1e-12)
    assert found.density.value == 1.25
    points, balls = np.var([2, 2, 1, 0], ddof=1) / 4, np.var([1, 1, 1, 2], ddof=1) / 4
    assert found.density.error == pytest.approx((points + balls) ** 0.5, rel=1e-12)
    assert found.coverage.value == 1.0
    alone = np.var([2, 1, 0, 0], ddof=1) / 4  # 0.5 alone covers 0 and 1, 10.5 alone covers 10
    assert found.coverage.error == pytest.approx(alone**0.5, rel=1e-12)


def test_the_errors_are_about_those_of_many_draws():
    random, bootstrap = np.random.default_rng(7), Bootstrap(draws=40)
    found = [
        neighbourhoods(
            random.normal(size=(120, 8)), random.normal(size=(120, 8)) * 0.8 + 0.5, bootstrap=bootstrap
        )
        for _ in range(60)
    ]
    for name in FOUR:
        each = [getattr(one, name) for one in found]
        ratio = np.mean([one.error for one in each]) / np.std([one.value for one in each])
        assert 0.75 < ratio < 1.8, name  # without the balls it is about 0.5
