"""Precision, recall, density and coverage: do two sets lie in each other's neighbourhoods?

The ball of a row reaches to its k-th nearest neighbour in its own set, itself not counted.

    precision  share of generated rows that lie in a ball of a real row   (Kynkäänniemi et al. 2019)
    recall     share of real rows that lie in a ball of a generated row
    density    balls of real rows around a generated row, divided by k    (Naeem et al. 2020)
    coverage   share of real rows whose ball holds a generated row

Balls are closed, as they are in the papers, and a row at the rim by rounding is inside, so ties and copies do
not depend on the last bit. All four depend on the sizes of the sets: compare with real against real.

The error counts what each row adds as a point, and what the other set would lose without its ball, or without
it in theirs. That removing a row widens the balls of its neighbours is left out: in draws of Gaussians the
error was 0.75 to 2.4 times the true one, mostly 1 to 1.4. Where no row decides anything alone, such as a
coverage of 1 with many rows in every ball, the interval has no width.

Letters: N rows, M rows of the other set, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.rows import Block, Features, Rows, blocks, checked_pair

RIM = 1e-12  # of the squared norms: above the rounding of a squared distance, for up to 4096 features


@dataclass(frozen=True, kw_only=True)
class Neighbourhoods:
    """How two sets lie in each other's balls."""

    nearest: int  # k
    precision: Measured
    recall: Measured
    density: Measured
    coverage: Measured


def neighbourhoods(
    real: Features, generated: Features, *, nearest: int = 5, bootstrap: Bootstrap | None = None
) -> Neighbourhoods:
    """Precision, recall, density and coverage of two sets of rows; `nearest` is k."""
    first, second = checked_pair(real, generated)
    sizes = (len(first), len(second))
    if not 1 <= nearest < min(sizes):
        raise ConfigError(
            f"nearest must be at least 1 and below the number of rows, got {nearest} for {sizes[0]} and "
            f"{sizes[1]} rows; give more images, or fewer neighbours."
        )
    bootstrap = bootstrap or Bootstrap()
    # Closer to the rows than the origin is: less rounding.
    centre: Block = np.asarray(first.mean(0, dtype=np.float64))
    real_balls, generated_balls = (_balls(rows, centre, nearest) for rows in (first, second))
    around, covered, recalled = _Reached(len(second)), _Reached(len(first)), _Reached(len(first))
    for start, x in blocks(first):
        for place, y in blocks(second):
            least = _squares(x - centre, y - centre, RIM)
            inside = least <= real_balls[start : start + len(x), None]
            around.add(place, inside.T, start)
            covered.add(start, inside, place)
            recalled.add(start, least <= generated_balls[place : place + len(y)], place)
    density = from_influences(
        "density",
        float(around.count.mean()) / nearest,
        [around.count / nearest, covered.count * len(first) / (nearest * len(second))],
        sizes,
        bootstrap,
        at_least=0.0,
    )
    return Neighbourhoods(
        nearest=nearest,
        precision=around.share("precision", len(first), sizes, bootstrap),
        recall=recalled.share("recall", len(second), sizes, bootstrap),
        density=density,
        coverage=covered.share("coverage", len(second), sizes, bootstrap),
    )


class _Reached:
    """For each row of one set how many of the other reach it, and which one if there is just one."""

    def __init__(self, rows: int) -> None:
        self.count = np.zeros(rows, np.int64)
        self._only = np.zeros(rows, np.int64)  # means nothing where the count is not 1

    def add(self, place: int, reaches: NDArray[np.bool_], other: int) -> None:
        """Note which rows from `place` on [n] are reached by which of the other set from `other` on [m]."""
        here = slice(place, place + len(reaches))
        count = reaches.sum(1)
        self.count[here] += count
        self._only[here] += np.where(count == 1, other + reaches.argmax(1), 0)

    def share(self, name: str, others: int, sizes: tuple[int, int], bootstrap: Bootstrap) -> Measured:
        """The share of rows that are reached; one of the `others` counts for those that it alone reaches."""
        reached = (self.count > 0).astype(np.float64)
        alone = np.bincount(self._only[self.count == 1], minlength=others)
        influences = [reached, alone.astype(np.float64) * (others / len(reached))]
        return from_influences(
            name, float(reached.mean()), influences, sizes, bootstrap, at_least=0.0, at_most=1.0
        )


def _balls(rows: Rows, centre: Block, nearest: int) -> NDArray[np.float64]:
    """The squared distance [N] of each row to its k-th nearest neighbour."""
    radii = np.empty(len(rows))
    for start, x in blocks(rows):
        kept = np.full((len(x), nearest), np.inf)  # the least so far
        for place, y in blocks(rows):
            squares = _squares(x - centre, y - centre)
            if place == start:
                np.fill_diagonal(squares, np.inf)  # a row is no neighbour of its own
            kept = np.partition(np.hstack([kept, squares]), nearest - 1)[:, :nearest]
        radii[start : start + len(x)] = kept.max(1)
    return radii


def _squares(x: Block, y: Block, rim: float = 0.0) -> NDArray[np.float64]:
    """Squared distances [N, M] between the rows of two blocks, less `rim` of their squared norms."""
    norms = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
    squares: NDArray[np.float64] = norms * (1 - rim) - 2 * (x @ y.T)
    return squares
