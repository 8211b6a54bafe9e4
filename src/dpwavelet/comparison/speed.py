"""How fast a system trains privately, rehearsed on drawn portraits: no record has a part in it.

At sampling rate 1 every record is in every batch, so steps of one size and of twice that size tell what a
record takes and what a step takes besides.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.rehearsal import RUN, rehearsed
from dpwavelet.rivals.base import Rival

REHEARSED = 128  # portraits


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of private training."""

    step: float  # of a step, whoever takes part
    record: float  # more for every record of its batch

    def seconds(self, batch_size: int) -> float:
        """What a step of this expected size takes."""
        return self.step + self.record * batch_size

    def steps_within(self, seconds: float, batch_size: int) -> int:
        """How many steps fit; at least one."""
        return max(int(seconds / self.seconds(batch_size) + 1e-9), 1)


def rehearse(
    rival: Rival[Any], portraits: PrivateImages, folder: Path, clock: Callable[[], float] = time.perf_counter
) -> Speed:
    """Take a few steps on `portraits`, which anyone may see; `folder` is for what training writes."""
    whole = len(portraits)
    half = whole // 2
    few = _step(rival, portraits.first(half), folder / "half", clock)
    many = _step(rival, portraits, folder / "whole", clock)
    return speed_of(few=few, many=many, half=half, whole=whole)


def speed_of(*, few: float, many: float, half: int, whole: int) -> Speed:
    """From the seconds of a step of `half` records and of one of `whole`."""
    record = (many - few) / (whole - half) if many > few else many / whole
    return Speed(step=max(few - half * record, 0.0), record=record)


def _step(rival: Rival[Any], portraits: PrivateImages, folder: Path, clock: Callable[[], float]) -> float:
    plan, ledger = rehearsed(folder)
    ends: list[float] = []
    rival.train(rival.prepare(portraits), plan, folder, ledger, RUN, lambda *_: ends.append(clock()))
    return statistics.median([after - before for before, after in pairwise(ends)][:-1])
