"""The kernel distance between two sets: their squared maximum mean discrepancy (Gretton et al. 2012).

The kernel is (x.y / D + 1)^3 (Bińkowski et al. 2018), and the estimate the U-statistic: means of the kernel
over pairs of different rows. On average over draws it is the distance of the populations, whatever the sizes,
so it may be negative where that is near zero. The sets must be two draws: of a set and itself it is negative.

The standard error is the jackknife's, each row of either set left out once, in closed form. Its
square is on average no less than the variance with one row fewer, whatever the populations (Efron and Stein
1981), and two to three times that where both are the same.

Letters: N rows of a set, M of the other, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.rows import Block, Features, Rows, blocks, checked_pair
from dpwavelet.randomness import stream

NAME = "kernel distance"
FEWEST = 3  # one is left out, and a pair must remain
FEWEST_GROUPS = 10  # fewer tell too little of how groups differ


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Deal the rows of each set into disjoint groups at random, and average the distances of their pairs.

    Time grows with the number of rows and not with its square, and the average stays unbiased. Its error is
    larger than that of all pairs, and comes from how the groups, which are independent, differ.
    """

    size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < FEWEST:
            raise ConfigError(f"a group needs at least {FEWEST} rows, got {self.size}; 1000 is usual.")


def kernel_distance(
    real: Features, generated: Features, *, groups: Groups | None = None, bootstrap: Bootstrap | None = None
) -> Measured:
    """The squared maximum mean discrepancy of two sets of rows, with its error; all pairs, or in `groups`."""
    first, second = checked_pair(real, generated)
    sizes = (len(first), len(second))
    if min(sizes) < FEWEST:
        raise ConfigError(
            f"a kernel distance needs at least {FEWEST} rows in each set, got {sizes[0]} and {sizes[1]}; "
            "give more images."
        )
    if groups is None:
        value, influences = _all_pairs(first, second)
    else:
        each = _by_group(first, second, groups)
        value, influences = float(each.mean()), [each]
    return from_influences(NAME, value, influences, sizes, bootstrap or Bootstrap())


def _all_pairs(real: Rows, generated: Rows) -> tuple[float, list[NDArray[np.float64]]]:
    """The U-statistic and, for each set, what each row adds to it as the jackknife sees it."""
    N, M = len(real), len(generated)
    within_real, within_generated = _sums_within(real), _sums_within(generated)
    across_real, across_generated = _sums_across(real, generated)
    value = (
        within_real.sum() / (N * (N - 1))
        + within_generated.sum() / (M * (M - 1))
        - 2 * across_real.sum() / (N * M)
    )
    return float(value), [
        2 * (within_real / (N - 2) - across_real / M),
        2 * (within_generated / (M - 2) - across_generated / N),
    ]


def _by_group(real: Rows, generated: Rows, groups: Groups) -> NDArray[np.float64]:
    """The distance of each pair of groups; rows that fill no group are left over."""
    count = min(len(real), len(generated)) // groups.size
    if count < FEWEST_GROUPS:
        raise ConfigError(
            f"sets of {len(real)} and {len(generated)} rows do not make {FEWEST_GROUPS} groups of "
            f"{groups.size}; make the groups smaller, or compare all pairs."
        )
    dealt = [
        stream(groups.seed, "groups", name).permutation(len(rows))[: count * groups.size].reshape(count, -1)
        for name, rows in (("real", real), ("generated", generated))
    ]
    return np.array([_all_pairs(real[a], generated[b])[0] for a, b in zip(*dealt, strict=True)])


def _sums_within(rows: Rows) -> NDArray[np.float64]:
    """For each row [N] the sum of the kernel with all other rows; each pair is computed once."""
    sums = np.zeros(len(rows))
    for start, x in blocks(rows):
        own = _kernel(x, x)
        np.fill_diagonal(own, 0.0)
        sums[start : start + len(x)] += own.sum(1)
        for after, y in blocks(rows[start + len(x) :]):
            values = _kernel(x, y)
            sums[start : start + len(x)] += values.sum(1)
            place = start + len(x) + after
            sums[place : place + len(y)] += values.sum(0)
    return sums


def _sums_across(real: Rows, generated: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each row of either set, [N] and [M], the sum of the kernel with all rows of the other."""
    of_real, of_generated = np.zeros(len(real)), np.zeros(len(generated))
    for start, x in blocks(real):
        for place, y in blocks(generated):
            values = _kernel(x, y)
            of_real[start : start + len(x)] += values.sum(1)
            of_generated[place : place + len(y)] += values.sum(0)
    return of_real, of_generated


def _kernel(x: Block, y: Block) -> NDArray[np.float64]:
    """(x.y / D + 1)^3 for all pairs of two blocks."""
    products = x @ y.T
    products /= x.shape[1]
    products += 1.0
    cubes: NDArray[np.float64] = products * products * products
    return cubes
