"""Each other method beside ours at the same epsilon: how much further its pictures are, and at what cost.

Costs are ratios of means over seeds: of seconds for each record, of all seconds of training, of peak memory,
and of seconds to the same quality: those of their cheapest row that is as near by all distances, over those
of ours. Give several shares of the steps, such as `dp-wavelet@0.1` and `dp-wavelet@0.1/4`, to find how few
are enough.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpwavelet.comparison.cells import REAL
from dpwavelet.comparison.methods import OURS, Method
from dpwavelet.comparison.summary import Mean, Row

NEARER = ("fd_coarse", "fd_full", "kd_full", "perceptual")  # of which less is better
COSTS = ("seconds_per_1000", "seconds", "peak_bytes")
QUALITY = ("fd_full", "kd_full", "perceptual")  # as near is as near by all of these that both have


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Another method over ours, at one epsilon."""

    method: str
    epsilon: float
    ours: str  # the row of ours that saw as many records, or has the same share, or else saw the most
    ratios: Mapping[str, float]  # theirs over ours, of distances and costs that both have
    apart: Mapping[str, int]  # of distances: 1 if all seeds of ours are nearer, -1 if all of theirs, else 0
    reached: str | None  # our cheapest row that is as near; nothing if none is
    their: str  # their cheapest row that is as near as this one, their public weights included
    seconds_to_reach: float | None  # all seconds of theirs over those of ours, if both were trained

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "method": self.method,
            "epsilon": f"{self.epsilon:g}",
            "ours": self.ours,
            "ratios": dict(self.ratios),
            "apart": dict(self.apart),
            "reached": self.reached,
            "their": self.their,
            "seconds_to_reach": self.seconds_to_reach,
        }


def beside_ours(rows: Sequence[Row]) -> list[Beside]:
    """Every row of another system that learned from records, where ours did at the same epsilon.

    Rows whose pictures were chosen stand beside such, and others beside others.
    """
    trained = [row for row in rows if row.epsilon > 0]
    found = []
    for row in trained:
        alike = [each for each in trained if each.epsilon == row.epsilon and _chosen(each) == _chosen(row)]
        own, theirs = _of(OURS, alike), _of(_system(row), alike)
        if own and _system(row) != OURS:
            public = [each for each in rows if each.epsilon == 0]
            found.append(_beside(row, own, [*theirs, *_of(_system(row), public)], _of(OURS, public)))
    return found


def _of(system: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if _system(row) == system]


def _beside(row: Row, own: Sequence[Row], theirs: Sequence[Row], public: Sequence[Row]) -> Beside:
    ours = _of_as_many(row, own)
    both = {name: (row.numbers[name], ours.numbers[name]) for name in row.numbers if name in ours.numbers}
    reached, their = _cheapest(row, [*own, *public]), _cheapest(row, theirs) or row
    took = [each.numbers["seconds"].value for each in (their, reached) if each and "seconds" in each.numbers]
    return Beside(
        method=row.method,
        epsilon=row.epsilon,
        ours=ours.method,
        ratios={
            name: both[name][0].value / both[name][1].value
            for name in (*NEARER, *COSTS)
            if name in both and both[name][1].value > 0
        },
        apart={name: _apart(*both[name]) for name in NEARER if name in both},
        reached=reached.method if reached else None,
        their=their.method,
        seconds_to_reach=took[0] / took[1] if len(took) > 1 else None,
    )


def _of_as_many(row: Row, own: Sequence[Row]) -> Row:
    """Of ours, the one that saw as many records; of several the one with such batches; else the same share.

    Where time is equal and not records, none saw as many. If nothing fits, the one that saw the most.
    """

    def seen(each: Row) -> float:
        return each.numbers["records_seen"].value

    def effort(each: Row) -> tuple[float, int]:
        method = Method.parse(each.method)
        return method.share, method.parts

    same = [each for each in own if seen(each) == seen(row)]
    alike = [each for each in own if effort(each) == effort(row)]
    both = [each for each in same if each in alike]
    return next(iter([*both, *same, *alike]), None) or max(own, key=seen)


def _cheapest(row: Row, rows: Sequence[Row]) -> Row | None:
    """Of these rows the one that took the least time, among those whose pictures are as near or nearer."""

    def seconds(each: Row) -> float:
        """None for public weights; without end where nobody measured them."""
        return each.numbers["seconds"].value if "seconds" in each.numbers else math.inf if each.epsilon else 0

    return min((each for each in rows if _is_as_near(each, row)), key=seconds, default=None)


def _is_as_near(one: Row, other: Row) -> bool:
    """By the means of all distances that both have, of which there must be some."""
    both = [name for name in QUALITY if name in one.numbers and name in other.numbers]
    return bool(both) and all(one.numbers[name].value <= other.numbers[name].value for name in both)


def _apart(theirs: Mean, ours: Mean) -> int:
    if max(ours.values) < min(theirs.values):
        return 1
    return -1 if max(theirs.values) < min(ours.values) else 0


def _chosen(row: Row) -> bool:
    return row.method != REAL and Method.parse(row.method).chosen


def _system(row: Row) -> str:
    return "" if row.method == REAL else Method.parse(row.method).system
