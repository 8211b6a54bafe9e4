"""The promise of one private training run, and everything that must agree with it.

The fields of a plan are public and may be printed. Whatever depends on the private records (how many there
really are, what their gradients sum to) is an argument of a method and is never kept.

Letters: q sampling rate, sigma noise multiplier, C `max_norm`, B `batch_size`, N `records`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import (
    Event,
    PoissonGaussian,
    calibrate_noise,
    check_count,
    check_delta,
    check_epsilon,
    epsilon_pld,
    epsilon_pld_quick,
    epsilon_rdp,
)
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.noise import add_noise
from dpwavelet.privacy.subsampling import poisson_batch
from dpwavelet.randomness import Source

FEWEST_RECORDS = 100  # below this, noise that hides one record hides everything
PROGRESS_POINTS = 100  # at how many places `epsilon_spent` is computed


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What is promised (epsilon, delta, to one `unit`) and the run that keeps it.

    Guarantee: training that takes `batches` of this plan, clips each record to `max_norm`, sums, and uses
    only what `privatize` returns, is (epsilon, delta)-DP when one unit is added or removed. It holds whatever
    the records are and however many there truly are: `records` is a declared number, used as a constant.
    """

    epsilon: float
    delta: float
    records: int  # N, declared public
    batch_size: int  # B, expected
    steps: int
    max_norm: float  # C
    unit: str = "record"

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        for name in ("records", "batch_size", "steps"):
            check_count(name, getattr(self, name))
        if self.records < FEWEST_RECORDS:
            raise PrivacyError(
                f"{self.records} records are too few: noise that hides one of them hides all they have in "
                f"common; at least {FEWEST_RECORDS} are needed, and a useful generator wants thousands."
            )
        if self.delta >= 1 / self.records:
            raise PrivacyError(
                f"delta={self.delta:g} is not below 1/records={1 / self.records:g}: such a promise would "
                "allow publishing one record in full; the usual choice is delta_for(records), records**-1.1."
            )
        if self.batch_size > self.records:
            raise ConfigError(
                f"batch_size={self.batch_size} is more than the {self.records} declared records; it is how "
                "many take part in a step on average."
            )
        if type(self.max_norm) not in (int, float) or not (0 < self.max_norm < math.inf):
            raise ConfigError(f"max_norm must be finite and above 0, got {self.max_norm!r}.")
        if not isinstance(self.unit, str) or not self.unit:
            raise ConfigError(
                f"unit says in a word what is protected, such as record or person; got {self.unit!r}."
            )

    @property
    def neighbours(self) -> str:
        """The relation that the accounting is for; there is no other."""
        return f"add or remove one {self.unit}"

    @property
    def sampling_rate(self) -> float:
        """The probability that a record takes part in a step, B/N."""
        return self.batch_size / self.records

    @property
    def divisor(self) -> int:
        """What every noisy sum is divided by: the expected batch size, never the drawn one."""
        return self.batch_size

    @cached_property
    def noise_multiplier(self) -> float:
        """The least noise that keeps the promise, as a multiple of `max_norm`."""
        return calibrate_noise(
            epsilon=self.epsilon, delta=self.delta, sampling_rate=self.sampling_rate, steps=self.steps
        )

    @property
    def event(self) -> PoissonGaussian:
        """The training run as the accountant sees it."""
        return self._after(self.steps)

    @property
    def events(self) -> tuple[Event, ...]:
        """Every mechanism that touches private records under this plan."""
        return (self.event,)

    @cached_property
    def pld_epsilon(self) -> float:
        """What the whole plan costs: at most `epsilon`, and hardly less."""
        return epsilon_pld(self.events, self.delta)

    @property
    def rdp_epsilon(self) -> float:
        """The second opinion on the same events by Rényi accounting; an upper bound, usually looser."""
        return epsilon_rdp(self.events, self.delta)

    def epsilon_spent(self, steps_done: int) -> float:
        """An upper bound on what the first `steps_done` steps cost, quick enough for a progress bar.

        It is computed at one of a hundred points, the next at or after `steps_done`, so never too little.
        """
        if not 0 <= steps_done <= self.steps:
            raise ConfigError(f"steps_done must be from 0 to {self.steps}, got {steps_done}.")
        if steps_done == 0:
            return 0.0
        stride = -(-self.steps // PROGRESS_POINTS)
        point = -(-steps_done // stride) * stride
        if point >= self.steps:
            return self.pld_epsilon
        if point not in self._spent_by:
            self._spent_by[point] = epsilon_pld_quick((self._after(point),), self.delta)
        return min(self.pld_epsilon, self._spent_by[point])

    def batches(
        self, records: int, source: Source, start: int = 0
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield (step, indices) for every step from `start` on, the empty batches too.

        `records` is the true number. It decides only how many coins are tossed.
        """
        if not 0 <= start <= self.steps:
            raise ConfigError(f"start must be from 0 to {self.steps}, got {start}.")
        return (
            (step, poisson_batch(source, step, records, self.sampling_rate))
            for step in range(start, self.steps)
        )

    def privatize(self, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
        """(sum + noise) / B: the only thing about the batch of `step` that anyone may see.

        The noise is a pure function of (key, step). A resumed run that repeats a step repeats its batch, sum
        and noise, so it releases the same thing again; another sum at the same step under the same key would
        get the same noise, and the difference would show. So charge the ledger first, and take a fresh key
        for a fresh run.
        """
        if not 0 <= step < self.steps:
            raise PrivacyError(
                f"step {step} is outside this plan's steps 0 to {self.steps - 1}, all that was paid for."
            )
        if clipped.sensitivity != self.max_norm:
            raise PrivacyError(
                f"the sum has sensitivity {clipped.sensitivity}, but the plan is for "
                f"max_norm={self.max_norm}; clip with the plan's own max_norm."
            )
        noisy = add_noise(clipped, self.noise_multiplier, source, step)
        return {name: value / self.divisor for name, value in noisy.items()}

    def to_json(self) -> dict[str, Any]:
        """The public fields, and nothing that could be computed from them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PrivacyPlan":
        """The plan that `to_json` wrote; every check runs again."""
        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(f"{value!r} is not a privacy plan: {error}.") from error

    @cached_property
    def _spent_by(self) -> dict[int, float]:
        return {}

    def _after(self, steps: int) -> PoissonGaussian:
        return PoissonGaussian(self.sampling_rate, self.noise_multiplier, steps)
