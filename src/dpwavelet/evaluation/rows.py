"""Feature arrays, one row an image: checked once, then walked in blocks of float64.

No array of the size of the whole set is made, so a set may be a memory map that is larger than memory.

Letters: N rows, D features.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.randomness import stream

Features = NDArray[np.number] | Tensor
"""Rows [N, D] of any real type, on any device."""

Rows = NDArray[np.number]
Block = NDArray[np.float64]

BLOCK = 1024  # rows at once: what is measured does not depend on it but for rounding
LARGEST = 1e40  # above any float32; cubes and squares of it, added up, are still finite in float64


def checked(features: Features) -> Rows:
    """The same rows as an array [N, D], N and D at least 1.

    Guarantee: every value is finite and at most `LARGEST` in size, so no distance overflows.
    """
    rows = _array(features)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        raise ConfigError(
            f"features are rows [N, D] of real numbers, at least one of each, got {rows.dtype} "
            f"{list(rows.shape)}; give one row for each image."
        )
    for start, block in blocks(rows):
        if not (wrong := np.abs(block) <= LARGEST).all():  # not true of NaN either
            row = start + int(wrong.all(1).argmin())
            raise DataError(
                f"features must be finite and at most {LARGEST:.0e} in size, but row {row} is not; "
                "look at its image, and at the network that made the features."
            )
    return rows


def checked_pair(real: Features, generated: Features) -> tuple[Rows, Rows]:
    """Two sets of the same features."""
    first, second = checked(real), checked(generated)
    if first.shape[1] != second.shape[1]:
        raise ConfigError(
            f"both sets must have the same features, got {first.shape[1]} and {second.shape[1]} columns; "
            "compute them by one network."
        )
    return first, second


def blocks(rows: Rows) -> Iterator[tuple[int, Block]]:
    """Where each block starts, and the block in double precision."""
    for start in range(0, len(rows), BLOCK):
        yield start, np.asarray(rows[start : start + BLOCK], np.float64)


def disjoint(count: int, sizes: tuple[int, ...], seed: int) -> tuple[NDArray[np.int64], ...]:
    """Disjoint random subsets of 0 ... count-1, sorted, of the given sizes.

    Two of them are two draws from one population, so a distance between them shows what a perfect generator
    would reach: real against real. Give them the sizes that are compared, for most distances depend on those.
    """
    if min(sizes, default=0) < 1 or sum(sizes) > count:
        raise ConfigError(
            f"disjoint subsets of {count} rows must be positive in size and {count} together at most, got "
            f"{' + '.join(map(str, sizes)) or 'none'}; ask for fewer, or halves."
        )
    order = stream(seed, "disjoint subsets").permutation(count)
    ends = np.cumsum(sizes)
    return tuple(np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))


def _array(features: Features) -> Rows:
    if not isinstance(features, Tensor):
        return np.asarray(features)
    kept = features.detach().cpu()
    rows: Rows = (kept.float() if kept.is_floating_point() and kept.itemsize == 2 else kept).numpy()
    return rows  # numpy has no bfloat16
