"""The Fréchet distance between two sets: the squared 2-Wasserstein distance of Gaussians fitted to them.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)          (Dowson and Landau 1982)

With C1 = A A' and C2 = B B' the last trace is the sum of the singular values of A'B. A and B come from
symmetric eigen decompositions, so there is no imaginary part, and directions without spread are left out.

The estimate is too large for any finite sets, the more so the smaller they are. Below D + 1 rows a covariance
is singular whatever the images are like: whole directions look empty, and how many depends on the number of
rows alone. Such sets are refused. Above, compare with real against real of the same sizes.

Letters: N rows, D features, m mean, C covariance, r rank.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.rows import Features, Rows, blocks, checked_pair
from dpwavelet.evaluation.statistics import Statistics

NAME = "Fréchet distance"
EPSILON = float(np.finfo(np.float64).eps)

Matrix = NDArray[np.float64]


class TooFewRowsError(ConfigError):
    """A Fréchet distance was asked of sets too small for it; catch it to say aloud what is used instead."""


def frechet_between(real: Statistics, generated: Statistics, *, despite_too_few: bool = False) -> float:
    """The distance between two sets of which only the statistics are kept.

    Guarantee: finite and not negative; exactly 0 for the same statistics. Fewer than D + 1 rows are refused
    unless `despite_too_few`, and then the number says more about the sizes than about the sets.
    """
    return _compare(real, generated, despite_too_few).value


def frechet_distance(
    real: Features,
    generated: Features,
    *,
    bootstrap: Bootstrap | None = None,
    despite_too_few: bool = False,
) -> Measured:
    """The same of two sets of rows, with its error. The rows are walked twice."""
    first, second = checked_pair(real, generated)
    found = _compare(Statistics.of([first]), Statistics.of([second]), despite_too_few)
    away = found.real.mean - found.generated.mean
    influences = [
        _influences(first, found.real.mean, away, found.real_pull),
        _influences(second, found.generated.mean, -away, found.generated_pull),
    ]
    if found.value == 0:  # the least that it can be: to first order, no row moves it
        influences = [np.zeros(len(first)), np.zeros(len(second))]
    return from_influences(
        NAME,
        found.value,
        influences,
        (len(first), len(second)),
        bootstrap or Bootstrap(),
        at_least=0.0,
    )


@dataclass(frozen=True, eq=False)
class _Compared:
    """A distance, and for each set the matrix P [D, k] that `_influences` needs."""

    value: float
    real: Statistics
    generated: Statistics
    real_pull: Matrix
    generated_pull: Matrix


def _compare(real: Statistics, generated: Statistics, despite_too_few: bool) -> _Compared:
    _check(real, generated, despite_too_few)
    a, a_inverse = _factor(real)
    b, b_inverse = _factor(generated)
    u, singular, v = np.linalg.svd(a.T @ b, full_matrices=False)
    away = real.mean - generated.mean
    same = np.array_equal(real.mean, generated.mean) and np.array_equal(real.scatter, generated.scatter)
    spread = np.square(a).sum() + np.square(b).sum() - 2 * singular.sum()
    return _Compared(
        value=0.0 if same else max(0.0, float(away @ away + spread)),
        real=real,
        generated=generated,
        real_pull=a_inverse @ (u * np.sqrt(singular)),
        generated_pull=b_inverse @ (v.T * np.sqrt(singular)),
    )


def _factor(statistics: Statistics) -> tuple[Matrix, Matrix]:
    """A [D, r] with A A' the covariance, and the transpose of its pseudo-inverse [D, r].

    N centred rows have N - 1 directions at most; further ones, and those within rounding of zero, are noise
    of the arithmetic, and their square roots would not be small.
    """
    values, vectors = np.linalg.eigh(statistics.covariance)
    visible = int((values > len(values) * EPSILON * values[-1]).sum())
    rank = min(visible, statistics.count - 1)
    values, vectors = values[len(values) - rank :], vectors[:, len(vectors) - rank :]
    return vectors * np.sqrt(values), vectors / np.sqrt(values)


def _influences(rows: Rows, mean: Matrix, away: Matrix, pull: Matrix) -> Matrix:
    """What each row x [N] adds to the distance to first order, up to a constant.

    With x centred: 2 away'x + x'x - x'T x. T is the matrix that carries this Gaussian to the other one, the
    derivative of the trace by the covariance; it is P P' with P = A^-T U S^(1/2), for A'B = U S V'.
    """
    influences = np.empty(len(rows))
    for start, block in blocks(rows):
        x = block - mean
        influences[start : start + len(x)] = 2 * (x @ away) + np.square(x).sum(1) - np.square(x @ pull).sum(1)
    return influences


def _check(real: Statistics, generated: Statistics, despite_too_few: bool) -> None:
    features = len(real.mean)
    if features != len(generated.mean):
        raise ConfigError(
            f"both sets must have the same features, got {features} and {len(generated.mean)}; "
            "compute them by one network."
        )
    fewest = min(real.count, generated.count)
    if fewest < 2 or (fewest <= features and not despite_too_few):
        raise TooFewRowsError(
            f"a Fréchet distance by {features} features needs at least {max(2, features + 1)} images in each "
            f"set, got {real.count} and {generated.count}: with fewer it measures how few they are. Give "
            "more images, use features with fewer columns, or use the kernel distance, which is unbiased for "
            "any number."
        )
