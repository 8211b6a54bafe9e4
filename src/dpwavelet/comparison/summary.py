"""Cells to rows: the mean over seeds of every number, and how sure it is.

The interval is Student's, of 95 %: with s the standard deviation over n seeds, mean -+ t s / sqrt(n), t with
n - 1 degrees of freedom. It tells of training, noise and drawing anew on the same records and captions.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpwavelet.comparison.cells import REAL, Cell

CONFIDENCE = 0.95
QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # t at 0.975, by degrees


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One number over seeds; without an interval where there is one seed."""

    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """See the module's first lines."""
        n = len(self.values)
        if n < 2:
            return None
        wide = QUANTILES[n - 2] * statistics.stdev(self.values) / math.sqrt(n)
        return self.value - wide, self.value + wide

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"mean": self.value, "interval": self.interval, "values": list(self.values)}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one epsilon."""

    method: str
    epsilon: float
    seeds: int
    numbers: Mapping[str, Mean]  # those that every seed has

    @property
    def budget(self) -> str:
        """The epsilon in words."""
        if self.method == REAL:
            return "-"
        return "no records" if self.epsilon == 0 else f"{self.epsilon:g}"


def rows_of(cells: Sequence[tuple[Cell, Mapping[str, Any]]]) -> list[Row]:
    """One row for each method and epsilon, by epsilon, then as they were named; real pictures first."""
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for cell, found in cells:
        groups.setdefault((cell.epsilon, cell.name), []).append(found["numbers"])
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] != REAL))
    return [
        Row(method=name, epsilon=epsilon, seeds=len(of_it), numbers=_means(of_it))
        for (epsilon, name), of_it in ordered
    ]


def _means(of_it: Sequence[Mapping[str, Any]]) -> dict[str, Mean]:
    names = dict.fromkeys(name for numbers in of_it for name in numbers)
    return {
        name: Mean(values=tuple(float(numbers[name]) for numbers in of_it))
        for name in names
        if all(numbers.get(name) is not None for numbers in of_it)
    }
