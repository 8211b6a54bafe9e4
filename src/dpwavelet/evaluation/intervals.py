"""How far a measured number would move with another draw of the same number of images.

Every distance here is, to first order, a constant plus means over the rows of each set: the mean of what each
row adds (its influence). The rows are drawn again with replacement, and these means with them. That is the
bootstrap of the distance to first order. It costs nothing beside the distance, and repeated rows do not spoil
it, while a distance that is computed anew from repeated rows sees a smaller set with copies in it.

An interval is for what the number would be on average over draws of these sizes. A number that depends on the
sizes still does: compare it with real against real of the same sizes, and not with zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals are made; two runs with the same settings and rows agree."""

    confidence: float = 0.95
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie between 0 and 1, got {self.confidence}; 0.95 is usual.")
        if self.draws < 2 / (1 - self.confidence):
            raise ConfigError(
                f"{self.draws} draws cannot show the ends of an interval of confidence {self.confidence}; "
                f"take {math.ceil(2 / (1 - self.confidence))} at least."
            )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number about two sets, and how sure it is."""

    name: str  # of the formula; who computed the features adds theirs
    value: float
    error: float  # standard error
    interval: tuple[float, float]
    confidence: float  # of the interval
    sizes: tuple[int, int]  # rows of the real set and of the generated one

    def __str__(self) -> str:
        low, high = self.interval
        first, second = self.sizes
        return f"{self.name} {self.value:.4g} [{low:.4g}, {high:.4g}] of {first} and {second} rows"


def from_influences(
    name: str,
    value: float,
    influences: Sequence[NDArray[np.float64]],
    sizes: tuple[int, int],
    bootstrap: Bootstrap,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> Measured:
    """A number whose error is, to first order, the sum of the errors of means, one mean for each array.

    The order within an array of two rows or more changes nothing. The number lies between `at_least` and
    `at_most` by its definition, and so does the interval.
    """
    shifts = np.zeros(bootstrap.draws)
    variance = 0.0
    for part, influence in enumerate(influences):
        n = len(influence)
        variance += influence.var(ddof=1) / n
        centred = np.sort(influence - influence.mean()) * math.sqrt(n / (n - 1))  # drawn: variance as above
        random = stream(bootstrap.seed, "bootstrap", part)
        for draw in range(bootstrap.draws):
            shifts[draw] += centred[random.integers(n, size=n)].mean()
    low, high = np.quantile(shifts, [(1 - bootstrap.confidence) / 2, (1 + bootstrap.confidence) / 2])
    return Measured(
        name=name,
        value=value,
        error=math.sqrt(variance),
        interval=(max(at_least, value + float(low)), min(at_most, value + float(high))),
        confidence=bootstrap.confidence,
        sizes=sizes,
    )
