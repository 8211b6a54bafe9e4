"""A Fréchet distance from noisy sums: what of it can be published about records that nobody may see.

Each record brings one bounded vector: a one, its features, and their products. The sum of these vectors is
all that the distance needs. Whoever adds noise to the sum makes the distance private; here is only the
arithmetic before and after. Everything in a `Frame` is public: it comes from generated pictures.

Noise makes two equal sets look apart, so the distance is corrected by how much more noise of the same size
adds (extrapolation by simulation, Cook and Stefanski 1994).

Letters: N records, k features in use, m mean, C covariance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.rows import blocks
from dpwavelet.randomness import stream

COLUMNS = 24  # k: the first columns of our features are the directions in which public images differ most
REACH = 1.25  # the ball that vectors are cut to, in 95-percent radii of the generated pictures
PRODUCT_WEIGHT = 2.0  # products suffer more from noise than features
SMALLEST_RADIUS = 1e-3
DRAWS = 100
MOST_LOST = 2e-3  # of the variance, to directions that noise made negative

Rows = NDArray[np.number]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """Where features are measured from, and how far; from generated pictures alone."""

    centre: Matrix  # [k]
    radius: float

    @classmethod
    def around(cls, generated: Rows, columns: int = COLUMNS) -> "Frame":
        """The frame that fits the rows of generated pictures."""
        if len(generated) <= columns or generated.shape[1] < columns:
            raise ConfigError(
                f"a frame of {columns} features needs more than {columns} generated pictures with as many "
                f"features, got {list(generated.shape)}; draw more."
            )
        rows = np.asarray(generated[:, :columns], np.float64)
        centre = rows.mean(0)
        reached = float(np.quantile(np.linalg.norm(rows - centre, axis=1), 0.95))
        return cls(centre, max(REACH * reached, SMALLEST_RADIUS))  # pictures that are all alike have none

    @property
    def columns(self) -> int:
        """How many features are in use, k."""
        return len(self.centre)

    @property
    def bound(self) -> float:
        """The longest that a vector of `vectors` can be."""
        return math.sqrt(2 + PRODUCT_WEIGHT**2)

    def scaled(self, rows: Rows) -> Matrix:
        """The features in use [N, k] from the centre on, in units of the radius, cut to a length of 1."""
        y: Matrix = (np.asarray(rows[:, : self.columns], np.float64) - self.centre) / self.radius
        y /= np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1.0)
        return y

    def vectors(self, rows: Rows) -> Matrix:
        """One vector [1 + k + k (k + 1) / 2] a row, of length `bound` at most, whatever the row."""
        k = self.columns
        found = np.empty((len(rows), 1 + k + k * (k + 1) // 2))
        for start, block in blocks(rows):
            y = self.scaled(block)
            products = y[:, :, None] * y[:, None, :]
            found[start : start + len(y)] = np.hstack(
                [np.ones((len(y), 1)), y, PRODUCT_WEIGHT * _packed(products)]
            )
        return found

    def moments(self, total: Matrix) -> tuple[Matrix, Matrix]:
        """Mean [k] and covariance [k, k], in units of the radius, from a sum of vectors, with noise or not.

        The covariance is the nearest one that has no negative direction.
        """
        mean, covariance = self._plain(total)
        values, directions = np.linalg.eigh(covariance)
        return mean, (directions * np.maximum(values, 0.0)) @ directions.T

    def lost(self, total: Matrix) -> float:
        """How much variance of a noisy sum is negative, over that which is not."""
        values = np.linalg.eigvalsh(self._plain(total)[1])
        return float(-values[values < 0].sum() / max(values[values > 0].sum(), np.finfo(np.float64).tiny))

    def _plain(self, total: Matrix) -> tuple[Matrix, Matrix]:
        k = self.columns
        count = max(float(total[0]), 1.0)
        mean = total[1 : 1 + k] / count
        second = _unpacked(total[1 + k :] / (PRODUCT_WEIGHT * count), k)
        return mean, second - np.outer(mean, mean)


@dataclass(frozen=True)
class NoisyDistance:
    """A Fréchet distance from noisy sums, and what the noise may have done to it."""

    value: float  # corrected for the noise on average, not below 0
    noise: float  # one standard deviation of what the noise moves it by
    columns: int
    lost: float  # variance that noise made negative, over that of all other directions

    @property
    def clear(self) -> bool:
        """Whether `noise` says how far off it may be.

        Directions that noise made negative are set to none, and the distance is too large by more than more
        noise can tell.
        """
        return self.lost <= MOST_LOST


def noisy_frechet(total: Matrix, deviation: float, generated: Rows, frame: Frame, seed: int) -> NoisyDistance:
    """The distance of generated rows from the records behind `total`, to which noise was added.

    `deviation` is the standard deviation of that noise on every number. Post-processing of `total`.
    """
    theirs = frame.moments(frame.vectors(generated).sum(0))
    found = _distance(frame.moments(total), theirs)
    random = stream(seed, "more noise")
    again = np.array(
        [
            _distance(frame.moments(total + deviation * random.standard_normal(len(total))), theirs)
            for _ in range(DRAWS)
        ]
    )
    scale = frame.radius**2
    value = max(0.0, 2 * found - float(again.mean()))
    return NoisyDistance(scale * value, scale * float(again.std(ddof=1)), frame.columns, frame.lost(total))


def _distance(first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]) -> float:
    """|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)."""
    (m1, c1), (m2, c2) = first, second
    singular = np.linalg.svd(_root(c1) @ _root(c2), compute_uv=False)
    return float(np.square(m1 - m2).sum() + np.trace(c1) + np.trace(c2) - 2 * singular.sum())


def _root(covariance: Matrix) -> Matrix:
    values, directions = np.linalg.eigh(covariance)
    root: Matrix = (directions * np.sqrt(np.maximum(values, 0.0))) @ directions.T
    return root


def _packed(products: Matrix) -> Matrix:
    """Symmetric matrices [N, k, k] as rows of the same length: off the diagonal once, times sqrt 2."""
    upper, lower = np.triu_indices(products.shape[1])
    return products[:, upper, lower] * np.where(upper == lower, 1.0, math.sqrt(2))


def _unpacked(row: Matrix, k: int) -> Matrix:
    """The symmetric matrix [k, k] of a packed row."""
    upper, lower = np.triu_indices(k)
    found = np.zeros((k, k))
    found[upper, lower] = found[lower, upper] = row / np.where(upper == lower, 1.0, math.sqrt(2))
    return found
