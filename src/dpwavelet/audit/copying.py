"""Copying: do samples lie nearer to the records that were trained on than to those that were not?

Distances are root mean squares between coarse images, which is all that private training teaches. Every
record, or every person with all their records, was in or out by a fair coin, so a model that copies nobody
treats both sides alike. The test shuffles the coins and nothing else, so its p-value is exact whatever the
samples, or the records of one person, have in common.

Letters: B samples, M records, U units (records or people), D pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import DataError
from dpwavelet.randomness import stream

KEPT = 64  # nearest records kept of each sample; all of them on one side has probability 2**-63
SHUFFLES = 2000


@dataclass(frozen=True)
class Copying:
    """Samples against records of both sides."""

    samples: int
    nearest_is_member: float  # share of the samples
    expected: float  # what that share would be by chance
    distance_to_members: float  # mean over samples, to the nearest
    distance_to_others: float
    exact_members: int  # samples at distance zero
    exact_others: int
    p_value: float  # of so small a distance to members against that to others, if nobody is copied


def copying(
    samples: NDArray[np.float32],
    records: NDArray[np.float32],
    present: NDArray[np.bool_],
    seed: int,
    owners: NDArray[np.int64] | None = None,
) -> Copying:
    """Compare samples [B, D] with records [M, D] of units, of which `present` [U] were trained on.

    `owners` [M] tells whose each record is; without it every record is a unit.
    """
    if not len(samples) or present.all() or not present.any():
        raise DataError("copying needs samples, and records on both sides; give more images.")
    distances, order = _nearest(samples, records)
    order = order if owners is None else owners[order]  # from here on, whose the nearest records are

    def gap(sides: NDArray[np.bool_]) -> tuple[float, float]:
        return _first(distances, sides[order]), _first(distances, ~sides[order])

    to_members, to_others = gap(present)
    random = stream(seed, "shuffled coins")
    shuffled = [gap(random.permutation(present)) for _ in range(SHUFFLES)]
    as_small = sum(members - others <= to_members - to_others for members, others in shuffled)
    touching = distances == 0
    return Copying(
        samples=len(samples),
        nearest_is_member=float(present[order[:, 0]].mean()),
        expected=float(present.mean()),
        distance_to_members=to_members,
        distance_to_others=to_others,
        exact_members=int((touching & present[order]).any(1).sum()),
        exact_others=int((touching & ~present[order]).any(1).sum()),
        p_value=(1 + as_small) / (1 + SHUFFLES),
    )


def _nearest(
    samples: NDArray[np.float32], records: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances [B, K] to the nearest records, ascending, and which they are; a copy is at zero."""
    kept = min(KEPT, len(records))
    distances, order = np.empty((len(samples), kept)), np.empty((len(samples), kept), np.int64)
    for row, sample in enumerate(samples):
        squares = np.square(records - sample).mean(1, dtype=np.float64)
        nearest = np.argpartition(squares, kept - 1)[:kept]
        order[row] = nearest[np.argsort(squares[nearest], kind="stable")]
        distances[row] = np.sqrt(squares[order[row]])
    return distances, order


def _first(distances: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    """Mean over samples of the distance to the nearest wanted record; the last kept one if there is none."""
    place = np.where(wanted.any(1), wanted.argmax(1), distances.shape[1] - 1)
    return float(distances[np.arange(len(distances)), place].mean())
