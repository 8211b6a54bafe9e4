"""Lower bounds on epsilon from attacks that guess who was in: arithmetic on counts, without tensors.

`one_run_epsilon`: one run held many canaries by fair coins (Steinke, Nasr and Jagielski 2023, "Privacy
auditing with one (1) training run"). It assumes nothing about the mechanism, and is rarely tight.

`mean_at_least` bounds the accuracy of an attack over independent runs, and two functions read it:
`accuracy_epsilon` for any mechanism, `gaussian_epsilon` for a Poisson-sampled Gaussian of known rate and
steps whose noise alone is unknown (after Nasr et al. 2023, "Tight auditing of differentially private machine
learning"). The latter comes as close to the truth as the number of runs allows.

Letters: m canaries, r guesses (the rest are abstentions), v right guesses, q probability.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import (
    LARGEST_EPSILON,
    PoissonGaussian,
    attack_bound,
    calibrate_noise,
    epsilon_pld,
    epsilon_pld_quick,
)

SCAN = 0.1  # step of the upward scan for the first epsilon that is not refuted
NOISE_RATIO = 1.002  # how closely the smallest noise that is refuted is found
POWER = 1.645  # normal quantile: `repeats_needed` suffices nineteen times in twenty
LARGEST_BET = 0.95  # below 1: a bet against a mean m of values from 0 loses no more than this part


def proportion_at_least(successes: int, trials: int, confidence: float) -> float:
    """The Clopper-Pearson lower end: too high with probability at most 1 - confidence, whatever the truth."""
    _check_counts(successes, trials, trials)
    _check_confidence(confidence)
    low, high = 0.0, successes / trials if trials else 0.0
    for _ in range(50):
        middle = (low + high) / 2
        if _tail(successes, _binomial(trials, middle)) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def proportion_at_most(successes: int, trials: int, confidence: float) -> float:
    """The Clopper-Pearson upper end."""
    return 1 - proportion_at_least(trials - successes, trials, confidence)


def one_run_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """How likely v or more right guesses are at most, if the run is (epsilon, delta)-DP.

    Steinke et al., main theorem: with W ~ Binomial(r, e^eps / (1 + e^eps)) it is at most
    P(W >= v) + 2 m delta max over i of P(v > W >= v - i) / i. How many guesses are made of which kind must
    not depend on the coins.
    """
    _check_counts(v, r, m)
    chance = _binomial(r, 1 / (1 + math.exp(-epsilon)))
    missed = np.cumsum(chance[:v][::-1])  # P(v > W >= v - i) for i = 1 ... v
    worst = float((missed / np.arange(1, v + 1)).max(initial=0.0))
    return min(1.0, _tail(v, chance) + 2 * m * delta * worst)


def one_run_epsilon(m: int, r: int, v: int, delta: float, confidence: float) -> float:
    """The epsilon up to which every (epsilon, delta) is refuted by v right guesses; 0 if none is.

    Guarantee: of a run that is (epsilon, delta)-DP it exceeds epsilon with probability at most
    1 - confidence, because all smaller epsilons must be refuted too.
    """
    _check_confidence(confidence)

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(m, r, v, epsilon, delta) <= 1 - confidence

    if not refuted(0.0):
        return 0.0
    low = 0.0
    while refuted(low + SCAN):
        low += SCAN
    high = low + SCAN
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def mean_at_least(values: Sequence[float], confidence: float) -> float:
    """A lower bound on the common mean of independent values in [0, 1], in the order they came.

    Betting (Waudby-Smith and Ramdas 2023): whoever stakes b < 1 / m of their capital on each value being
    above m multiplies it by 1 + b (value - m), which on average gains nothing if the mean is m or less. So
    the capital ends at 1 / (1 - confidence) or more with probability at most 1 - confidence, and every m for
    which it does is refuted. Stakes follow the values before: large when those vary little.
    """
    _check_confidence(confidence)
    found = np.asarray(values, dtype=np.float64)
    if not (found.size and found.min() >= 0 and found.max() <= 1):
        raise ConfigError("the mean of values in [0, 1] is asked for; got none, or some outside.")
    goal = -math.log(1 - confidence)
    stakes = _stakes(found, goal)

    def refuted(mean: float) -> bool:
        return float(np.log1p(np.minimum(stakes, LARGEST_BET / mean) * (found - mean)).sum()) >= goal

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def accuracy_epsilon(accuracy: float, delta: float) -> float:
    """The least epsilon of any mechanism on which a fair coin is guessed with this accuracy.

    (epsilon, delta)-DP allows (e^eps + delta) / (1 + e^eps), so more shows a larger epsilon.
    """
    if accuracy >= 1:
        return LARGEST_EPSILON
    odds = (accuracy - delta) / (1 - accuracy)
    return min(math.log(odds), LARGEST_EPSILON) if odds > 1 else 0.0


def gaussian_epsilon(accuracy: float, event: PoissonGaussian, delta: float) -> float:
    """Epsilon at `delta` of the noisiest mechanism like `event` that allows this accuracy.

    With d = 2 accuracy - 1, a noise multiplier under which the mechanism is (0, d)-DP is refuted, since no
    guess of a fair coin is then right more often than (1 + d) / 2. The answer is the epsilon of the smallest
    refuted noise, so it is never above the truth when `accuracy` is not. Less than half of the noise that
    `event` claims is not tried: what is refuted down to there is several times over the claim, and enough.
    """
    advantage = 2 * accuracy - 1
    if advantage <= 0:
        return 0.0
    if (noise := _smallest_refuted(event, advantage)) is None:
        return 0.0
    try:
        return epsilon_pld((PoissonGaussian(event.sampling_rate, noise, event.steps),), delta)
    except PrivacyError:  # too little noise to account for at all
        return LARGEST_EPSILON


def repeats_needed(
    event: PoissonGaussian, epsilon: float, delta: float, confidence: float, canaries: int
) -> int:
    """How many runs with `canaries` each bring `gaussian_epsilon` within a tenth of `epsilon`, mostly."""
    noisier = calibrate_noise(
        epsilon=0.91 * epsilon, delta=delta, sampling_rate=event.sampling_rate, steps=event.steps
    )
    claimed = _advantage(event)
    gap = (claimed - _advantage(PoissonGaussian(event.sampling_rate, noisier, event.steps))) / 2
    variance = (1 - claimed**2) / 4 / canaries
    goal = -math.log(1 - confidence)
    repeats = 50
    while True:
        stake = min(math.sqrt(2 * goal / (repeats * variance)), 2 * LARGEST_BET / (1 + claimed))
        gain = repeats * (stake * gap - stake**2 * (variance + gap**2) / 2)
        if gain - POWER * stake * math.sqrt(repeats * variance) >= goal:
            return repeats
        repeats = math.ceil(1.1 * repeats)


def _smallest_refuted(event: PoissonGaussian, advantage: float) -> float | None:
    """The smallest noise multiplier under which no attack has this advantage, to `NOISE_RATIO`."""

    def refuted(noise: float) -> bool:
        try:
            return (
                epsilon_pld_quick((PoissonGaussian(event.sampling_rate, noise, event.steps),), advantage) <= 0
            )
        except PrivacyError:
            return False

    low, high = event.noise_multiplier / 2, event.noise_multiplier
    if refuted(low):
        return low
    while not refuted(high):
        low, high = high, 2 * high
        if high > 1000:
            return None
    while high / low > NOISE_RATIO:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def _advantage(event: PoissonGaussian) -> float:
    """Nearly the best attack's true-positive rate less its false-positive rate; for planning only."""
    return max(attack_bound((event,), rate) - rate for rate in (0.1, 0.2, 0.3, 0.4, 0.5))


def _binomial(trials: int, q: float) -> NDArray[np.float64]:
    """P(W = 0), ..., P(W = trials) for W ~ Binomial(trials, q)."""
    counts = np.arange(trials + 1)
    if q <= 0 or q >= 1:
        return np.equal(counts, trials if q >= 1 else 0).astype(np.float64)
    factorial = np.concatenate(([0.0], np.cumsum(np.log(counts[1:]))))
    ways = factorial[-1] - factorial - factorial[::-1]
    chances: NDArray[np.float64] = np.exp(ways + counts * math.log(q) + (trials - counts) * math.log1p(-q))
    return chances


def _tail(successes: int, chances: NDArray[np.float64]) -> float:
    """P(W >= successes)."""
    return float(chances[successes:].sum())


def _stakes(values: NDArray[np.float64], goal: float) -> NDArray[np.float64]:
    """What to stake on each value, from those before it: the best for a normal of their mean and variance."""
    before = np.arange(1, len(values) + 1)
    mean = np.concatenate(([0.5], (0.5 + np.cumsum(values)) / (1 + before)))
    squares = np.square(values - mean[1:])
    variance = np.concatenate(([0.25], (0.25 + np.cumsum(squares)) / (1 + before)))[:-1]
    stakes: NDArray[np.float64] = np.sqrt(2 * goal / (len(values) * np.maximum(variance, 1e-9)))
    return stakes


def _check_counts(v: int, r: int, m: int) -> None:
    if not 0 <= v <= r <= m:
        raise ConfigError(f"need 0 <= right guesses <= guesses <= canaries, got {v}, {r} and {m}.")


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence must be at least 0.5 and below 1, got {confidence}.")
