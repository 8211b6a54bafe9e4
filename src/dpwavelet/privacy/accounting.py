"""What a sequence of Gaussian mechanisms costs, and how much noise a budget needs.

Everything here is arithmetic on public numbers. Neighbours differ by adding or removing one unit. The answer
that counts is the pessimistic privacy-loss distribution (PLD, by `dp_accounting`), an upper bound whatever
the grid; the Rényi bound (RDP) is a second opinion from other mathematics, 8 to 11 percent higher.

Letters: epsilon and delta as in (epsilon, delta)-DP; the noise multiplier is the standard deviation of the
noise over the sensitivity; the sampling rate is the probability that a unit takes part in one step.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpwavelet.errors import ConfigError, PrivacyError

FINE_GRID = 1e-4  # discretisation of the privacy loss in every reported epsilon
COARSE_GRID = 1e-3  # still an upper bound, ten times faster: for searching and for progress bars
LARGEST_EPSILON = 100.0  # far beyond any meaning; refusing more keeps the grids small
NOISE_MULTIPLIERS = (1e-2, 1e5)  # where the library's arithmetic is well conditioned
RENYI_ORDERS = [*(2 + i / 4 for i in range(32)), *range(10, 65), 80, 100, 128, 256, 512, 1024]
SLACK = 5e-4  # calibration stops when it wastes less than this part of epsilon


@dataclass(frozen=True)
class PoissonGaussian:
    """`steps` noisy sums, each over a fresh sample that every unit joins independently at one rate."""

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        check_rate(self.sampling_rate)
        _check_noise(self.noise_multiplier)
        check_count("steps", self.steps)


@dataclass(frozen=True)
class Gaussian:
    """`count` noisy sums over all units."""

    noise_multiplier: float
    count: int

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        check_count("count", self.count)


Event = PoissonGaussian | Gaussian


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """The epsilon of all events together at `delta`: never below the truth, refused where meaningless."""
    return _epsilon_pld(tuple(events), delta, FINE_GRID)


def epsilon_pld_quick(events: Iterable[Event], delta: float) -> float:
    """A slightly higher answer to the same question, ten times faster."""
    return _epsilon_pld(tuple(events), delta, COARSE_GRID)


@lru_cache(maxsize=256)
def epsilon_rdp(events: tuple[Event, ...], delta: float) -> float:
    """The second opinion: an upper bound by Rényi divergences, usually looser."""
    check_delta(delta)
    return _finite("RDP", _compose(RdpAccountant(RENYI_ORDERS), events).get_epsilon(delta))


def calibrate_noise(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier, to 0.1 percent, whose `epsilon_pld` is at most `epsilon`.

    Guarantee: the returned value was itself checked on the fine grid; if none passes, this raises.
    """
    check_epsilon(epsilon)
    check_delta(delta)

    def cost(grid: float) -> Callable[[float], float]:
        def epsilon_of(noise_multiplier: float) -> float:
            event = PoissonGaussian(sampling_rate, noise_multiplier, steps)
            try:
                return _epsilon_pld((event,), delta, grid)
            except PrivacyError:  # too little noise to account for at all
                return math.inf

        return epsilon_of

    nearly = _smallest(cost(COARSE_GRID), epsilon, start=1.0, step=1.5)
    return _smallest(cost(FINE_GRID), epsilon, start=nearly, step=1 + 2 * SLACK)


def delta_for(records: int) -> float:
    """The usual choice, N**-1.1: below one over the number of units, so nobody may simply be published."""
    check_count("records", records)
    return float(records**-1.1)


def best_true_positive_rate(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """How often the best possible attack can be right about a member, given how often it is wrong otherwise.

    This is what (epsilon, delta)-DP alone means, for any attacker with any knowledge. Knowing the mechanisms,
    `attack_bound` is much lower.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    return _trade_off(epsilon, delta, false_positive_rate)


def attack_bound(events: Iterable[Event], false_positive_rate: float) -> float:
    """The same, answered from the mechanisms: the least over all (epsilon, delta) that they satisfy."""
    accountant = _compose(PLDAccountant(value_discretization_interval=COARSE_GRID), tuple(events))
    pairs = ((epsilon / 8, float(accountant.get_delta(epsilon / 8))) for epsilon in range(160))
    return min(_trade_off(epsilon, min(delta, 1.0), false_positive_rate) for epsilon, delta in pairs)


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as it stands in a certificate."""
    return {"mechanism": type(event).__name__, **asdict(event)}


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Read an event back; anything but the known mechanisms with exactly their numbers is refused."""
    mechanisms = {kind.__name__: kind for kind in (PoissonGaussian, Gaussian)}
    try:
        numbers = dict(value)
        return mechanisms[numbers.pop("mechanism")](**numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise PrivacyError(
            f"{value!r} is no mechanism that this version can account for; it knows {', '.join(mechanisms)}."
        ) from error


def check_epsilon(epsilon: float) -> None:
    """Refuse what is no budget."""
    if not _is_number(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
        raise ConfigError(
            f"epsilon must be above 0 and at most {LARGEST_EPSILON:g}, got {epsilon!r}; "
            "1 is strong, 8 is a common compromise, 20 hardly protects."
        )


def check_delta(delta: float) -> None:
    """Refuse what is no probability of failure."""
    if not _is_number(delta) or not 0 < delta < 1:
        raise ConfigError(
            f"delta must lie between 0 and 1, got {delta!r}; the usual choice is records**-1.1."
        )


def check_rate(sampling_rate: float) -> None:
    """Refuse what is no probability of taking part."""
    if not _is_number(sampling_rate) or not 0 < sampling_rate <= 1:
        raise ConfigError(
            f"sampling_rate must be above 0 and at most 1, got {sampling_rate!r}; "
            "it is the expected batch size divided by the declared number of records."
        )


def check_count(name: str, value: int) -> None:
    """Refuse what cannot count steps or records."""
    if type(value) is not int or not 1 <= value <= 10**9:
        raise ConfigError(f"{name} must be a whole number from 1 to a billion, got {value!r}.")


def _trade_off(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """The largest true-positive rate that one (epsilon, delta) allows."""
    if not 0 <= false_positive_rate <= 1:
        raise ConfigError(f"a false-positive rate lies between 0 and 1, got {false_positive_rate}.")
    by_gain = math.exp(epsilon) * false_positive_rate + delta
    by_loss = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return min(1.0, by_gain, by_loss)


def _check_noise(noise_multiplier: float) -> None:
    low, high = NOISE_MULTIPLIERS
    if not _is_number(noise_multiplier) or not low <= noise_multiplier <= high:
        raise ConfigError(
            f"noise_multiplier must lie between {low:g} and {high:g}, got {noise_multiplier!r}."
        )


def _is_number(value: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@lru_cache(maxsize=256)
def _epsilon_pld(events: tuple[Event, ...], delta: float, grid: float) -> float:
    """PLD on one grid. RDP goes first: it is quick and refuses events whose grid would not fit in memory."""
    if (bound := epsilon_rdp(events, delta)) > 2 * LARGEST_EPSILON:
        raise PrivacyError(f"these mechanisms cost epsilon {bound:.3g}, which promises nothing; add noise.")
    accountant = PLDAccountant(value_discretization_interval=grid)
    return _finite("PLD", _compose(accountant, events).get_epsilon(delta))


def _compose(accountant: Any, events: tuple[Event, ...]) -> Any:
    """Add the events to an accountant; both kinds default to neighbours that add or remove one unit."""
    for event in events:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        if isinstance(event, PoissonGaussian):
            accountant.compose(
                dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian), event.steps
            )
        else:
            accountant.compose(gaussian, event.count)
    return accountant


def _finite(method: str, epsilon: float) -> float:
    """Fail closed: what the accountant cannot bound is not promised."""
    if not math.isfinite(epsilon) or epsilon < 0:
        raise PrivacyError(
            f"{method} accounting finds no finite epsilon (got {epsilon}); "
            "use more noise, fewer steps or a larger delta."
        )
    return float(epsilon)


def _smallest(epsilon_of: Callable[[float], float], target: float, start: float, step: float) -> float:
    """The smallest noise multiplier with epsilon_of(it) <= target, found when less than `SLACK` is wasted.

    Widens from `start` until it brackets the answer, then narrows; only values that passed are returned.
    """
    scarce = enough = None  # (noise, its epsilon) that failed, that passed
    noise = start
    for _ in range(100):
        epsilon = epsilon_of(noise)
        if epsilon <= target:
            enough = (noise, epsilon)
        else:
            scarce = (noise, epsilon)
        if enough and (
            enough[1] >= target * (1 - SLACK) or (scarce and enough[0] < scarce[0] * (1 + SLACK / 4))
        ):
            return enough[0]
        if scarce and enough:
            noise = _between(scarce, enough, target * (1 - SLACK / 2))
        else:
            noise, step = (noise / step if enough else noise * step), min(step**2, 16.0)
    raise PrivacyError(f"no noise multiplier reaches epsilon {target}; use fewer steps or a larger delta.")


def _between(scarce: tuple[float, float], enough: tuple[float, float], aim: float) -> float:
    """The noise between two others that should cost `aim`: log epsilon is nearly linear in log noise."""
    if math.isinf(scarce[1]) or enough[1] <= 0:
        return math.sqrt(scarce[0] * enough[0])
    part = math.log(scarce[1] / aim) / math.log(scarce[1] / enough[1])
    return scarce[0] * float((enough[0] / scarce[0]) ** min(max(part, 0.02), 0.98))
