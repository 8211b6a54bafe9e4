"""The promise of one private training run, and everything that must agree with it.

The fields of a plan are public and may be printed. Whatever depends on the private records (how many there
really are, what their gradients sum to) is an argument of a method and is never kept. What can be computed is
not kept either, so rate, noise, divisor and epsilon cannot disagree with the fields.

Letters: q sampling rate, sigma noise multiplier, C `max_norm`, B `batch_size`, N `records`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import (
    MOST_STEPS,
    Event,
    Gaussian,
    PoissonGaussian,
    calibrate_noise,
    check_count,
    check_delta,
    check_epsilon,
    checked,
    epsilon_pld,
    epsilon_pld_quick,
    epsilon_rdp,
    event_from_json,
    event_to_json,
)
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.noise import add_noise, add_noise_on_grid
from dpwavelet.privacy.refusals import check_numbers
from dpwavelet.privacy.subsampling import poisson_batch
from dpwavelet.randomness import Source

PROGRESS_POINTS = 100  # at how many places `epsilon_spent` is computed
UNITS = ("record", "person")
MOST_OTHERS = 16  # mechanisms beside training


@final
@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What is promised (epsilon, delta, to one `unit`) and the run that keeps it.

    Guarantee: training that takes `batches` of this plan, clips each record to `max_norm`, sums, and uses
    only what `privatize` returns, is (epsilon, delta)-DP when one unit is added or removed, together with
    the mechanisms in `others`. It holds whatever the records are and however many there truly are:
    `records` is a declared number, used as a constant.

    `others` are public mechanisms beside training, such as a noisy histogram. They count from step 0 on.
    `privatize_sum` makes those that are Gaussian; a sampled one was paid for elsewhere and only counts here.

    Where people are the units, `group_by` names the field that tells them apart and `per_unit` how many
    records of one person a step may use. Both are public configuration and change neither noise nor cost.
    """

    epsilon: float
    delta: float
    records: int  # N, declared public
    batch_size: int  # B, expected
    steps: int
    max_norm: float  # C
    unit: str = "record"
    group_by: str | None = None
    per_unit: int = 1
    others: tuple[Event, ...] = ()
    _made: set[tuple[int, int]] = field(init=False, repr=False, compare=False, default_factory=set)

    def __init_subclass__(cls) -> None:
        """Nobody has checked the promise of another class."""
        raise PrivacyError(
            f"{cls.__name__} would be another PrivacyPlan; set the fields of this one instead."
        )

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse fields that promise nothing or contradict each other. Every maker of noise asks again."""
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        for name in ("records", "batch_size", "per_unit"):
            check_count(name, getattr(self, name))
        check_count("steps", self.steps, MOST_STEPS)
        check_numbers(self.records, self.delta)
        if self.batch_size > self.records:
            raise ConfigError(
                f"batch_size={self.batch_size} is more than the {self.records} declared records; it is how "
                "many take part in a step on average."
            )
        if type(self.max_norm) not in (int, float) or not (0 < self.max_norm < math.inf):
            raise ConfigError(f"max_norm must be finite and above 0, got {self.max_norm!r}.")
        if type(self.unit) is not str or self.unit not in UNITS:
            raise ConfigError(f"unit says what is protected, {' or '.join(UNITS)}; got {self.unit!r}.")
        if self.group_by is not None and (type(self.group_by) is not str or not self.group_by):
            raise ConfigError(f"group_by must be the name of a field, got {self.group_by!r}.")
        if self.unit != "person" and (self.group_by is not None or self.per_unit != 1):
            raise ConfigError(
                f"group_by={self.group_by!r} and per_unit={self.per_unit} speak of people, but the unit is "
                f"the {self.unit}; leave them out, or protect persons."
            )
        if type(self.others) is not tuple or self.others != checked(self.others):
            raise ConfigError(f"others must be a tuple of mechanisms, got {self.others!r}.")
        if len(self.others) > MOST_OTHERS:
            raise ConfigError(
                f"a plan has at most {MOST_OTHERS} mechanisms beside training, got {len(self.others):,}."
            )

    @property
    def measures(self) -> bool:
        """Whether there is a mechanism for numbers about the records, beside training."""
        return any(type(event) is Gaussian for event in self.others)

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

    @property
    def noise_multiplier(self) -> float:
        """The least noise of training that keeps the promise, as a multiple of `max_norm`."""
        return calibrate_noise(
            epsilon=self.epsilon,
            delta=self.delta,
            sampling_rate=self.sampling_rate,
            steps=self.steps,
            others=self.others,
        )

    @property
    def event(self) -> PoissonGaussian:
        """The training run as the accountant sees it."""
        return self._training(self.steps)

    @property
    def events(self) -> tuple[Event, ...]:
        """Every mechanism that touches private records under this plan; training comes first."""
        return (self.event, *self.others)

    @property
    def pld_epsilon(self) -> float:
        """What the whole plan costs: at most `epsilon`, and hardly less."""
        return epsilon_pld(self.events, self.delta)

    @property
    def rdp_epsilon(self) -> float:
        """The second opinion on the same events by Rényi accounting; an upper bound, usually looser."""
        return epsilon_rdp(self.events, self.delta)

    def epsilon_spent(self, steps_done: int) -> float:
        """An upper bound on what `others` and the first `steps_done` steps cost, for a progress bar.

        It is computed at one of a hundred points, the next at or after `steps_done`, so never too little.
        """
        if not 0 <= steps_done <= self.steps:
            raise ConfigError(f"steps_done must be from 0 to {self.steps}, got {steps_done}.")
        stride = -(-self.steps // PROGRESS_POINTS)
        point = -(-steps_done // stride) * stride
        if point >= self.steps:
            return self.pld_epsilon
        spent = (self._training(point), *self.others) if point else self.others
        return min(self.pld_epsilon, epsilon_pld_quick(spent, self.delta)) if spent else 0.0

    def batches(
        self, records: int, source: Source, start: int = 0
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield (step, indices) for every step from `start` on, the empty batches too.

        `records` is the true number. It decides only how many coins are tossed.
        """
        self.check()
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
        self.check()
        if not 0 <= step < self.steps:
            raise PrivacyError(
                f"step {step} is outside this plan's steps 0 to {self.steps - 1}, all that was paid for."
            )
        _check_sensitivity(clipped, self.max_norm, "the plan's own max_norm")
        noisy = add_noise(clipped, self.noise_multiplier, source, step)
        return {name: value / self.divisor for name, value in noisy.items()}

    def privatize_sum(
        self, total: ClippedSum, source: Source, *, sensitivity: float, other: int, use: int = 0
    ) -> dict[str, Tensor]:
        """The sum and its noise: use number `use` of the Gaussian mechanism `others[other]`, on all records.

        The result is on a public grid (`noise.add_noise_on_grid`), so it may be published digit for digit.

        `sensitivity` is public and chosen before anybody looks: what one unit may move the sum by (L2). It
        must be that of the sum. The noise is a pure function of (key, other, use) and is shared with no step,
        so after a crash the same sum is released again.

        This object makes each use once. An equal plan, made anew or in another process, knows nothing of it:
        there, another sum under the same key would get the same noise, and under another key it would be a
        release that nobody paid for. So let one object make them all, and charge the ledger before.
        """
        self.check()
        event = self.others[other] if type(other) is int and 0 <= other < len(self.others) else None
        if type(event) is not Gaussian:
            raise PrivacyError(
                f"others[{other!r}] is no Gaussian mechanism of this plan, so nothing was paid for; put a "
                f"Gaussian into others. It holds {self.others!r}."
            )
        if type(use) is not int or not 0 <= use < event.count:
            raise PrivacyError(f"use {use!r} is outside 0 to {event.count - 1}, all that was paid for.")
        _check_sensitivity(total, sensitivity, "the sensitivity that was declared")
        if (other, use) in self._made:
            raise PrivacyError(
                f"use {use} of others[{other}] was made already; a second sum with the same noise would "
                "show both. Plan a larger count."
            )
        noisy = add_noise_on_grid(total, event.noise_multiplier, source, f"others {other}, use {use}")
        self._made.add((other, use))
        return noisy

    def to_json(self) -> dict[str, Any]:
        """The public fields, and nothing that could be computed from them."""
        public = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return public | {"others": [event_to_json(event) for event in self.others]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PrivacyPlan":
        """The plan that `to_json` wrote; every check runs again."""
        try:
            others = tuple(event_from_json(event) for event in value.get("others", ()))
            return cls(**{**value, "others": others})
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"{value!r} is not a privacy plan: {error}.") from error

    def _training(self, steps: int) -> PoissonGaussian:
        return PoissonGaussian(self.sampling_rate, self.noise_multiplier, steps)


def _check_sensitivity(clipped: ClippedSum, bound: float, meaning: str) -> None:
    """Refuse a sum whose stated sensitivity is not this plain, finite number."""
    for value in (clipped.sensitivity, bound):
        if type(value) not in (int, float) or not (0 < value < math.inf) or value != bound:
            raise PrivacyError(
                f"the sum has sensitivity {clipped.sensitivity!r}, but {meaning} is {bound!r}; clip to that "
                "and say so with a plain number."
            )
