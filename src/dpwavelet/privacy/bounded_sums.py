"""Sums of one bounded vector a unit: what a number about the records is made of before noise.

The sum is exact. Every vector is cut to the bound and to whole multiples of a power of two, and those add up
without rounding, so one unit moves the sum by what it brought and by nothing else.

Letters: M records, U units, D numbers of a vector.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.clipping import ClippedSum

GRID_BITS = 30  # the grid is a power of two, a 2^30th of the bound or less than twice that
MOST_UNITS = 2**23  # their sum still fits into the 53 digits of a float64
LARGEST_BOUND = 1e100  # squares of it and of its inverse are still finite and no zeros
AT_ONCE = 1024  # units
SLACK = 1 - 1e-12  # above the rounding of a norm in float64
NAME = "sum"

Vectors = NDArray[np.float64]
Given = Vectors | NDArray[np.float32]


def bounded_sum(vectors: Given, bound: float, owners: NDArray[np.int64] | None = None) -> ClippedSum:
    """Add up the vectors [M, D] of all units; `owners` [M] tells whose each is, where units have several.

    A unit with several brings the mean of their vectors. Guarantee: adding or removing one unit, with
    all its records, moves the result by at most `bound` (L2), whatever the vectors are. A unit with a vector
    that is not finite counts as zero.
    """
    if vectors.ndim != 2 or not (type(bound) is float and 1 / LARGEST_BOUND <= bound <= LARGEST_BOUND):
        raise PrivacyError(
            f"a bounded sum needs rows, and a bound from {1 / LARGEST_BOUND:g} to {LARGEST_BOUND:g}, not "
            f"{bound!r}."
        )
    if owners is not None and owners.shape != (len(vectors),):
        raise PrivacyError(
            f"owners must name the unit of each of {len(vectors)} vectors, got {owners.shape}."
        )
    members = _members(len(vectors), owners)
    if len(members) > MOST_UNITS:
        raise PrivacyError(f"{len(members)} units are more than {MOST_UNITS} that can be added up exactly.")
    grid = 2.0 ** (math.frexp(bound)[1] - GRID_BITS)  # a power of two: dividing by it is exact
    total = np.zeros(vectors.shape[1], np.int64)
    for start in range(0, len(members), AT_ONCE):  # few, for what is computed of them is as large again
        total += _whole(_means(vectors, members[start : start + AT_ONCE]), bound, grid).sum(0)
    return ClippedSum({NAME: torch.from_numpy(total.astype(np.float64) * grid)}, bound)


def _whole(units: Vectors, bound: float, grid: float) -> NDArray[np.int64]:
    """Vectors of units [U, D], each cut to the bound and to whole multiples of the grid."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(units).sum(1))
    usable = np.isfinite(norms)
    units, norms = units[usable], norms[usable]
    shares = np.minimum(1.0, bound / np.maximum(norms, np.finfo(np.float64).tiny)) * SLACK
    whole: NDArray[np.int64]
    whole = np.trunc(units * shares[:, None] / grid).astype(np.int64)  # towards zero: no longer
    return whole


def _members(records: int, owners: NDArray[np.int64] | None) -> Sequence[NDArray[np.int64]]:
    """The records of each unit."""
    if owners is None:
        return np.arange(records)[:, None]  # type: ignore[return-value]  # rows of an array are a sequence
    order = np.argsort(owners, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(owners[order])) + 1) if records else []


def _means(vectors: Given, members: Sequence[NDArray[np.int64]]) -> Vectors:
    """The mean vector of each unit [U, D]; of each alone, so that no other unit rounds it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([vectors[own].astype(np.float64).mean(0) for own in members])
