"""What a sequence of Gaussian mechanisms costs, and how much noise a budget needs.

Everything here is arithmetic on public numbers. Neighbours differ by adding or removing one unit. The answer
that counts is the pessimistic privacy-loss distribution (PLD, by `dp_accounting`), an upper bound whatever
the grid; the Rényi bound (RDP) is a second opinion from other mathematics, 12 to 30 percent higher.

Letters: epsilon and delta as in (epsilon, delta)-DP; the noise multiplier is the standard deviation of the
noise over the sensitivity; the sampling rate is the probability that a unit takes part in one step.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, final

import numpy as np

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.rounded import up

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

FINE_GRID = 1e-4  # discretisation of the privacy loss in every reported epsilon
COARSE_GRID = 1e-3  # still an upper bound, ten times faster: for searching and for progress bars
LARGEST_EPSILON = 100.0  # far beyond any meaning; refusing more keeps the grids small
SMALLEST_DELTA = 1e-10  # a hundred times what rounding hides of one step; that of 1,200 million records
ROUNDING = 1e-12  # of a delta, by Fourier transforms, whatever the grid: at most 1e-13 to 1e-12 was seen
ROUNDING_OF_A_STEP = 2.0**-51  # more for each step that is composed; a quarter of this was seen
MOST_HIDDEN = 0.1  # part of a delta that may be given up for both
NOISE_MULTIPLIERS = (1e-2, 1e5)  # where the library's arithmetic is well conditioned
SEARCH_GRIDS = (1e-2, 3e-3, COARSE_GRID, 3e-4, FINE_GRID)  # where calibration looks, until one will do
FINER_GAINS = 10  # each has about this part of the error of the one before, once errors are small
GRID_ERROR = 1e-3  # a grid will do where the one before it would ask for no more noise than this part
SLACK, ROUGHLY = 7e-4, 5e-3  # to what part the least noise is found on the last of them, and on those before
RENYI_ORDERS = [*(2 + i / 4 for i in range(32)), *range(10, 65), 80, 100, 128, 256, 512, 1024]
FEW_ORDERS = [2, 3, 4, 6, 8, 16, 32, 64]  # enough to tell what is beyond accounting
NEAR_ONE = 1.5  # together with this one, by which some cost a tenth of what order 2 says
FURTHEST = 16.0  # calibration trusts a slope no further than this factor
MOST_STEPS = 10**7  # of one mechanism; accounting for more takes minutes
SEARCHED = 100  # evaluations before calibration gives up; it needs three to six


@final
@dataclass(frozen=True)
class PoissonGaussian:
    """`steps` noisy sums, each over a fresh sample that every unit joins independently at one rate."""

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        check_rate(self.sampling_rate)
        _check_noise(self.noise_multiplier)
        check_count("steps", self.steps, MOST_STEPS)


@final
@dataclass(frozen=True)
class Gaussian:
    """`count` noisy sums over all units."""

    noise_multiplier: float
    count: int

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        check_count("count", self.count)


Event = PoissonGaussian | Gaussian
EVENTS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in (PoissonGaussian, Gaussian)}


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """The epsilon of all events together at `delta`: never below the truth, refused where meaningless."""
    return _epsilon_pld(checked(events), delta, FINE_GRID)


def epsilon_pld_quick(events: Iterable[Event], delta: float) -> float:
    """A slightly higher answer to the same question, ten times faster."""
    return _epsilon_pld(checked(events), delta, COARSE_GRID)


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """The second opinion: an upper bound by Rényi divergences, usually looser."""
    return _epsilon_rdp(checked(events), delta)


def calibrate_noise(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, others: Iterable[Event] = ()
) -> float:
    """The smallest noise multiplier, to 0.1 percent, of a `PoissonGaussian` that leaves room for `others`.

    Guarantee: `epsilon_pld` of that event followed by `others` was computed and is at most `epsilon`; if no
    noise brings it there, this raises. Near the largest epsilon more noise than the least may be found.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    check_rate(sampling_rate)
    check_count("steps", steps, MOST_STEPS)
    return _calibrated(epsilon, delta, sampling_rate, steps, checked(others))


def checked(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same events made anew, so that no subclass and no field forced later reaches the arithmetic."""
    events = tuple(events)
    if wrong := [event for event in events if type(event) not in EVENTS.values()]:
        raise ConfigError(
            f"{wrong[0]!r} is no mechanism that can be accounted for; give {' or '.join(EVENTS)} itself."
        )
    return tuple(type(event)(**asdict(event)) for event in events)


def delta_for(records: int) -> float:
    """The usual choice, N**-1.1: below one over the number of units, at which one of them could be published.

    Much smaller ones cost a little more epsilon, and leave less to chance.
    """
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
    events = checked(events)
    loss, hidden = _privacy_loss(events, COARSE_GRID), _hidden(events)
    pairs = ((epsilon / 8, float(loss.get_delta_for_epsilon(epsilon / 8)) + hidden) for epsilon in range(160))
    return min(_trade_off(epsilon, min(delta, 1.0), false_positive_rate) for epsilon, delta in pairs)


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as it stands in a certificate."""
    return {"mechanism": type(event).__name__, **asdict(event)}


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Read an event back; anything but the known mechanisms with exactly their numbers is refused."""
    try:
        numbers = dict(value)
        return EVENTS[numbers.pop("mechanism")](**numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise PrivacyError(
            f"{value!r} is no mechanism that this version can account for; it knows {', '.join(EVENTS)}."
        ) from error


def check_epsilon(epsilon: float) -> None:
    """Refuse what is no budget."""
    if not _is_number(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
        raise ConfigError(
            f"epsilon must be above 0 and at most {LARGEST_EPSILON:g}, got {epsilon!r}; "
            "1 is strong, 8 is weak, 20 hardly protects."
        )


def check_delta(delta: float) -> None:
    """Refuse what is no probability of failure, and what the arithmetic cannot tell from none.

    Distributions are composed by Fourier transforms, whose rounding is 1e-13 to 1e-12 whatever the grid, and
    more where steps are many (`_hidden`). With a delta below 1e-11 the epsilon found was seen to lie under a
    proven lower bound.
    """
    if not _is_number(delta) or not SMALLEST_DELTA <= delta < 1:
        raise ConfigError(
            f"delta must be below 1 and at least {SMALLEST_DELTA:g}, under which no accounting here can be "
            f"trusted; got {delta!r}. The usual choice is records**-1.1."
        )


def check_rate(sampling_rate: float) -> None:
    """Refuse what is no probability of taking part."""
    if not _is_number(sampling_rate) or not 0 < sampling_rate <= 1:
        raise ConfigError(
            f"sampling_rate must be above 0 and at most 1, got {sampling_rate!r}; "
            "it is the expected batch size divided by the declared number of records."
        )


def check_count(name: str, value: int, most: int = 10**9) -> None:
    """Refuse what cannot count steps or records."""
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(f"{name} must be a whole number from 1 to {most:,}, got {value!r}.")


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
    check_delta(delta)
    if (
        bound := min(_renyi(events, delta, FEW_ORDERS), _renyi_near_one(events, delta))
    ) > 2 * LARGEST_EPSILON:
        raise PrivacyError(f"these mechanisms cost epsilon {bound:.3g}, which promises nothing; add noise.")
    visible = delta - _hidden_of(events, delta)
    return _finite("PLD", _privacy_loss(events, grid).get_epsilon_for_delta(visible))


def _hidden_of(events: tuple[Event, ...], delta: float) -> float:
    """How much of delta rounding may hide; refused where that is not little of it."""
    if (hidden := _hidden(events)) > MOST_HIDDEN * delta:
        raise PrivacyError(
            f"so many steps cannot be accounted for at delta {delta:g}, of which rounding may hide "
            f"{hidden:.1e}; take fewer steps, or a delta of at least {up(hidden / MOST_HIDDEN)}."
        )
    return hidden


def _hidden(events: tuple[Event, ...]) -> float:
    """How far below the truth rounding may put a delta."""
    sampled = (event for event in events if isinstance(event, PoissonGaussian) and event.sampling_rate < 1)
    steps = sum(event.steps for event in sampled)  # what is not sampled is one Gaussian, whatever its count
    return ROUNDING + steps * ROUNDING_OF_A_STEP


@lru_cache(maxsize=256)
def _epsilon_rdp(events: tuple[Event, ...], delta: float) -> float:
    check_delta(delta)
    return _renyi(events, delta, RENYI_ORDERS)


def _renyi(events: tuple[Event, ...], delta: float, orders: Sequence[float]) -> float:
    import dp_accounting  # late, here and below: a second, that drawing and help need not wait for
    from dp_accounting.rdp import RdpAccountant

    # It warns of orders whose series does not converge and leaves them out. The bound is the least over
    # orders, so that can only make it larger.
    logging.getLogger("absl").addFilter(_is_no_order_left_out)
    accountant = RdpAccountant(orders)
    for event in events:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        if isinstance(event, Gaussian):
            accountant.compose(gaussian, event.count)
        else:
            sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian)
            accountant.compose(sampled, event.steps)
    return _finite("RDP", accountant.get_epsilon(delta))


def _is_no_order_left_out(record: logging.LogRecord) -> bool:
    return "Excluding this order" not in str(record.msg)


def _renyi_near_one(events: tuple[Event, ...], delta: float) -> float:
    """An upper bound of epsilon from one order between 1 and 2, which large epsilons need.

    For a, b >= 0 and 1 <= k <= 2, (a + b)^k <= a^k + k a^(k-1) b + b^k; here a = 1 - q, and b = q times the
    ratio of the densities of two Gaussians, whose mean is 1 and whose k-th moment is exp(k (k - 1) / 2 s^2).
    The library sums a series for such orders, which fails where it matters.
    """
    k, total = NEAR_ONE, 0.0
    for event in events:
        moment = k * (k - 1) / (2 * event.noise_multiplier**2)
        if isinstance(event, Gaussian):
            total += event.count * moment
        else:
            q = event.sampling_rate
            kept = (1 - q) ** k + k * q * (1 - q) ** (k - 1)
            total += event.steps * float(
                np.logaddexp(math.log(kept) if kept else -math.inf, k * math.log(q) + moment)
            )
    return (total - math.log(delta)) / (k - 1)


def _privacy_loss(events: tuple[Event, ...], grid: float) -> "PrivacyLossDistribution":
    """The distribution of the privacy loss of all events, for neighbours that add or remove one unit."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not events:
        return pld.identity(grid)
    return reduce(lambda loss, more: loss.compose(more), (_loss_of(event, grid) for event in events))


@lru_cache(maxsize=8)
def _loss_of(event: Event, grid: float) -> "PrivacyLossDistribution":
    """Of one event; kept, as calibration asks again and again for those that it does not change."""
    from dpwavelet.privacy.losses import sampled_gaussian

    if isinstance(event, Gaussian):
        return sampled_gaussian(event.noise_multiplier / math.sqrt(event.count), 1.0, grid)
    if event.sampling_rate == 1:
        return _loss_of(Gaussian(event.noise_multiplier, event.steps), grid)
    return sampled_gaussian(event.noise_multiplier, event.sampling_rate, grid).self_compose(event.steps)


def _finite(method: str, epsilon: float) -> float:
    """Fail closed: what the accountant cannot bound is not promised."""
    if not math.isfinite(epsilon) or epsilon < 0:
        raise PrivacyError(
            f"{method} accounting finds no finite epsilon (got {epsilon}); "
            "use more noise, fewer steps or a larger delta."
        )
    return float(epsilon)


@lru_cache(maxsize=256)
def _calibrated(
    epsilon: float, delta: float, sampling_rate: float, steps: int, others: tuple[Event, ...]
) -> float:
    """Find the answer on the first grid that is fine enough, and see that it is one on the finest."""
    _hidden_of((PoissonGaussian(sampling_rate, 1.0, steps), *others), delta)
    if others and (alone := epsilon_pld(others, delta)) >= epsilon:
        raise PrivacyError(
            f"the other mechanisms alone cost epsilon {alone:.4g}, which leaves nothing of {epsilon:g} for "
            "training; give them more noise or ask for a larger epsilon."
        )

    def cost(grid: float) -> Callable[[float], float]:
        def epsilon_of(noise_multiplier: float) -> float:
            event = PoissonGaussian(sampling_rate, noise_multiplier, steps)
            try:
                return _epsilon_pld((event, *others), delta, grid)
            except PrivacyError:  # too little noise to account for at all
                return math.inf

        return epsilon_of

    noise, slope, coarser = 1.0, 1.5, 0.0
    for grid in SEARCH_GRIDS[:-1]:
        try:
            noise, slope = _smallest(cost(grid), epsilon, noise, slope, ROUGHLY)
        except PrivacyError:
            continue  # A coarse upper bound may exceed a small epsilon whatever the noise; the next is finer.
        told = cost(grid)(noise)
        excess = cost(coarser)(noise) / told - 1 if coarser and told else 0.0
        if (coarser or not told) and excess <= GRID_ERROR * min(slope, 1.0):
            noise, slope = _smallest(cost(grid), epsilon, noise, slope, SLACK)
            break
        noise = _within(noise * (1 + min(excess, 1.0) / FINER_GAINS) ** (-1 / slope), *NOISE_MULTIPLIERS)
        coarser = grid
    return _smallest(cost(FINE_GRID), epsilon, noise, slope, SLACK)[0]


def _smallest(
    epsilon_of: Callable[[float], float], target: float, start: float, slope: float, slack: float
) -> tuple[float, float]:
    """The smallest noise multiplier with epsilon_of(it) <= target, and the slope there.

    The slope is -d log(epsilon) / d log(noise), which changes slowly; `slope` is a first guess. The search
    stops when it says that the noise could shrink by less than the part `slack`, or when a noise smaller by
    less than that has failed. Only a value that passed is returned.
    """
    lowest, highest = NOISE_MULTIPLIERS
    failed, passed = 0.0, math.inf
    noise, previous = start, (0.0, 0.0)
    for tried in range(SEARCHED):
        epsilon = epsilon_of(noise)
        slope = _slope(previous, (noise, epsilon)) or slope
        previous = (noise, epsilon)
        too_little = math.log(epsilon / target) if epsilon > 0 else -math.inf
        if epsilon <= target:
            passed = noise
            if -too_little <= slope * slack or noise == lowest:
                break
        else:
            failed = noise
            if noise == highest:
                break
        if passed <= failed * (1 + slack):
            break
        furthest = math.log(FURTHEST)
        guess = noise * math.exp(_within(too_little / slope + slack / 2, -furthest, furthest))
        if not failed < guess < passed or (tried % 4 == 3 and failed and passed < math.inf):
            guess = math.sqrt(failed * passed)
        noise = _within(guess, lowest, highest)
    if passed == math.inf:
        raise PrivacyError(
            f"no noise multiplier reaches epsilon {target:g}; use fewer steps or a larger delta."
        )
    return passed, slope


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    """-d log(epsilon) / d log(noise) between two (noise, epsilon), or 0 where they tell nothing."""
    if not all(0 < value < math.inf for value in (*one, *other)) or one[0] == other[0]:
        return 0.0
    return max(-math.log(other[1] / one[1]) / math.log(other[0] / one[0]), 0.0)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
