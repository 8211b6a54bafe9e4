"""A second accountant, by other authors and another method, brackets our epsilon; so do its frozen numbers.

`prv-accountant` (Gopi, Lee and Wutschitz 2021; Opacus carries a copy) bounds epsilon from both sides. The
table was made by `bracket` below with prv-accountant 0.2.0: `print(bracket(events, delta))`.
"""

import importlib.util
from collections.abc import Sequence

import pytest

from dpwavelet.privacy.accounting import Event, Gaussian, PoissonGaussian, epsilon_pld

SMALL, LARGE = 512 / 8_159, 512 / 30_000
BRACKETS: dict[tuple[tuple[Event, ...], float], tuple[float, float]] = {
    ((PoissonGaussian(LARGE, 0.8, 2000),), 1e-5): (7.654071, 7.674969),
    ((PoissonGaussian(LARGE, 1.0, 2000),), 1e-5): (4.681497, 4.702049),
    ((PoissonGaussian(LARGE, 2.0, 2000),), 1e-5): (1.611200, 1.631406),
    ((PoissonGaussian(SMALL, 0.7126, 96),), 8_159**-1.1): (7.986344, 8.007677),
    ((PoissonGaussian(SMALL, 2.3122, 96),), 8_159**-1.1): (0.989553, 1.009728),
    ((PoissonGaussian(0.01, 4.0, 500),), 1e-5): (0.177565, 0.197597),
    ((PoissonGaussian(0.008192, 1.227, 730),), 5e-7): (1.030549, 1.050665),
    ((PoissonGaussian(0.2, 3.0, 50),), 1e-4): (1.724453, 1.744754),
    ((PoissonGaussian(SMALL, 1.5, 96), Gaussian(30.0, 1)), 8_159**-1.1): (1.842815, 1.863131),
    (
        (PoissonGaussian(SMALL, 1.5, 96), PoissonGaussian(0.02, 1.0, 200), Gaussian(10.0, 3)),
        8_159**-1.1,
    ): (2.497433, 2.517834),
}  # fmt: skip
LIVE = list(BRACKETS)[3:5] + list(BRACKETS)[-2:]  # the quick ones and the mixed ones


@pytest.mark.parametrize(("events", "delta"), BRACKETS)
def test_epsilon_lies_in_the_frozen_bracket(events: tuple[Event, ...], delta: float) -> None:
    low, high = BRACKETS[events, delta]
    assert low <= epsilon_pld(events, delta) <= high


@pytest.mark.parametrize(("events", "delta"), LIVE)
def test_the_brackets_would_notice_a_tenth_of_the_noise(events: tuple[Event, ...], delta: float) -> None:
    low, high = BRACKETS[events, delta]
    training = events[0]
    assert isinstance(training, PoissonGaussian)
    for factor, outside in ((0.9, lambda e: e > high), (1.1, lambda e: e < low)):
        wrong = PoissonGaussian(training.sampling_rate, factor * training.noise_multiplier, training.steps)
        assert outside(epsilon_pld((wrong, *events[1:]), delta))


@pytest.mark.parametrize(("events", "delta"), LIVE)
def test_epsilon_lies_in_the_bracket_found_now(events: tuple[Event, ...], delta: float) -> None:
    if importlib.util.find_spec("prv_accountant") is None:
        pytest.skip("prv-accountant is absent; pip install --no-deps prv-accountant adds this live witness")
    low, high = bracket(events, delta)
    assert BRACKETS[events, delta] == pytest.approx((low, high), abs=1e-4)
    assert low <= epsilon_pld(events, delta) <= high


def bracket(events: Sequence[Event], delta: float) -> tuple[float, float]:
    """The proven lower and upper ends of epsilon, by prv-accountant."""
    import prv_accountant
    from prv_accountant import privacy_random_variables as variables

    poisson, gaussian = variables.PoissonSubsampledGaussianMechanism, variables.GaussianMechanism
    parts, counts = [], []
    for event in events:
        if isinstance(event, PoissonGaussian):
            parts.append(poisson(event.sampling_rate, event.noise_multiplier))
            counts.append(event.steps)
        else:
            parts.append(gaussian(event.noise_multiplier))
            counts.append(event.count)
    accountant = prv_accountant.PRVAccountant(
        prvs=parts, max_self_compositions=counts, eps_error=0.01, delta_error=delta / 1000
    )
    low, _, high = accountant.compute_epsilon(delta, counts)
    return low, high
