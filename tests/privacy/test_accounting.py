"""Epsilon agrees with closed forms and other libraries, never falls below, and calibration never misses."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import (
    Gaussian,
    PoissonGaussian,
    attack_bound,
    best_true_positive_rate,
    calibrate_noise,
    delta_for,
    epsilon_pld,
    epsilon_pld_quick,
    epsilon_rdp,
    event_from_json,
    event_to_json,
)

RATE, STEPS, DELTA = 512 / 30_000, 2_000, 1e-5


def gaussian_epsilon(noise_multiplier, count, delta):
    """Balle and Wang 2018, theorem 8: exact for `count` Gaussian mechanisms."""
    mu = math.sqrt(count) / noise_multiplier

    def excess(epsilon):
        tail = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return norm.cdf(mu / 2 - epsilon / mu) - tail - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize(
    ("noise_multiplier", "prv_low", "expected", "rdp"),
    [  # prv-accountant's proven lower end, dp_accounting's PLD at 1e-4, and RDP, measured independently
        (0.6, 16.927, 16.938, 18.89),
        (0.8, 7.654, 7.665, 8.490),
        (1.0, 4.682, 4.692, 5.151),
        (1.5, 2.383, 2.393, 2.614),
        (2.0, 1.611, 1.621, 1.772),
    ],
)
def test_epsilon_of_a_typical_run_is_the_known_one(noise_multiplier, prv_low, expected, rdp):
    events = (PoissonGaussian(RATE, noise_multiplier, STEPS),)
    epsilon = epsilon_pld(events, DELTA)
    assert epsilon == pytest.approx(expected, abs=6e-4)
    assert epsilon > prv_low
    assert epsilon_rdp(events, DELTA) == pytest.approx(rdp, rel=2e-3)


@pytest.mark.parametrize("noise_multiplier", [1.0, 2.0])
def test_opacus_finds_the_same_within_its_own_error(noise_multiplier):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus imports deprecated parts of torch
        accountants = pytest.importorskip("opacus.accountants", exc_type=ImportError)
        prv, rdp = accountants.PRVAccountant(), accountants.RDPAccountant()
        for accountant in (prv, rdp):
            accountant.history = [(noise_multiplier, RATE, STEPS)]
        prv_epsilon = prv.get_epsilon(delta=DELTA, eps_error=0.01)
        rdp_epsilon = rdp.get_epsilon(delta=DELTA)
    events = (PoissonGaussian(RATE, noise_multiplier, STEPS),)
    assert prv_epsilon - 0.02 <= epsilon_pld(events, DELTA) <= prv_epsilon + 0.001
    assert epsilon_rdp(events, DELTA) == pytest.approx(rdp_epsilon, rel=3e-3)


@pytest.mark.parametrize(
    ("noise_multiplier", "count"), [(1.0, 1), (4.0, 1), (10.0, 30), (0.5, 1), (50.0, 2000)]
)
def test_without_sampling_epsilon_is_the_closed_form_of_the_gaussian(noise_multiplier, count):
    exact = gaussian_epsilon(noise_multiplier, count, DELTA)
    for events in ([Gaussian(noise_multiplier, count)], [PoissonGaussian(1.0, noise_multiplier, count)]):
        epsilon = epsilon_pld(events, DELTA)
        assert exact - 1e-9 <= epsilon <= exact * 1.002
        assert epsilon <= epsilon_pld_quick(events, DELTA) <= exact * 1.05
        assert epsilon <= epsilon_rdp(tuple(events), DELTA)


def test_events_add_up():
    together = epsilon_pld([Gaussian(5.0, 3), Gaussian(5.0, 1)], DELTA)
    assert together == pytest.approx(epsilon_pld([Gaussian(5.0, 4)], DELTA), rel=1e-4)
    assert together > epsilon_pld([Gaussian(5.0, 3)], DELTA)


@settings(max_examples=10, deadline=None)
@given(
    rate=st.floats(1e-3, 0.5),
    noise=st.floats(0.8, 20),
    steps=st.integers(1, 500),
    log_delta=st.floats(-9, -3),
)
def test_more_noise_costs_less_and_more_steps_sampling_or_certainty_cost_more(rate, noise, steps, log_delta):
    def cost(rate=rate, noise=noise, steps=steps, delta=10**log_delta):
        return epsilon_pld_quick([PoissonGaussian(rate, noise, steps)], delta)

    base = cost()
    assert cost(noise=noise * 1.3) <= base <= cost(steps=2 * steps)
    assert cost(rate=rate / 1.5) <= base <= cost(delta=10**log_delta / 5)


@pytest.mark.parametrize(("epsilon", "expected"), [(1.0, 2.9697), (3.0, 1.2912), (8.0, 0.7863)])
def test_calibration_finds_the_least_noise(epsilon, expected):
    noise = calibrate_noise(epsilon=epsilon, delta=DELTA, sampling_rate=RATE, steps=STEPS)
    assert noise == pytest.approx(expected, rel=1e-3)
    assert epsilon_pld([PoissonGaussian(RATE, noise, STEPS)], DELTA) <= epsilon
    assert epsilon_pld([PoissonGaussian(RATE, noise * 0.999, STEPS)], DELTA) > epsilon


@settings(max_examples=12, deadline=None)
@given(
    epsilon=st.floats(0.05, 6),
    delta=st.floats(1e-8, 1e-3),
    rate=st.one_of(st.floats(1e-3, 1), st.just(1.0)),
    steps=st.integers(1, 300),
)
def test_calibration_never_spends_more_than_asked(epsilon, delta, rate, steps):
    noise = calibrate_noise(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps)
    spent = epsilon_pld([PoissonGaussian(rate, noise, steps)], delta)
    assert 0.99 * epsilon < spent <= epsilon


def test_calibration_raises_when_no_noise_is_enough():
    with pytest.raises((ConfigError, PrivacyError)):
        calibrate_noise(epsilon=1e-7, delta=1e-12, sampling_rate=1.0, steps=1)


@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf, -math.inf, True, "1", None])
def test_no_setting_may_be_zero_negative_or_not_a_number(number):
    good = {"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 0.1, "steps": 10}
    for name in good:
        with pytest.raises(ConfigError):
            calibrate_noise(**{**good, name: number})
    with pytest.raises(ConfigError):
        PoissonGaussian(0.1, number, 10)
    with pytest.raises(ConfigError):
        Gaussian(number, 1)
    for bound in (epsilon_pld, epsilon_pld_quick, epsilon_rdp):
        with pytest.raises(ConfigError):
            bound((Gaussian(1.0, 1),), number)


def test_a_delta_too_small_to_bound_is_refused_and_not_promised():
    with pytest.raises(PrivacyError, match="finite epsilon"):
        epsilon_pld([PoissonGaussian(RATE, 1.0, STEPS)], 1e-30)


def test_a_mechanism_with_hardly_any_noise_is_refused_at_once():
    with pytest.raises(PrivacyError, match="promises nothing"):
        epsilon_pld([PoissonGaussian(0.5, 0.01, 10**9)], DELTA)


def test_delta_lies_below_one_over_the_number_of_records():
    assert all(delta_for(records) < 1 / records for records in (2, 100, 8_000, 500_000))
    assert delta_for(8_000) == pytest.approx(8_000**-1.1)


def test_the_best_attack_on_a_promise_is_the_known_trade_off():
    assert best_true_positive_rate(math.log(3), 0.01, 0.1) == pytest.approx(0.31)
    assert best_true_positive_rate(math.log(3), 0.01, 0.9) == pytest.approx(0.97)
    assert best_true_positive_rate(8.0, 1e-5, 0.5) <= 1.0
    with pytest.raises(ConfigError, match="between 0 and 1"):
        best_true_positive_rate(1.0, 1e-5, 1.5)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5])
def test_the_best_attack_on_a_gaussian_is_the_likelihood_ratio(rate):
    exact = norm.cdf(norm.ppf(rate) + 1.0)  # Neyman and Pearson
    assert exact <= attack_bound([Gaussian(1.0, 1)], rate) <= exact * 1.02
    assert attack_bound([Gaussian(1.0, 1)], rate) <= best_true_positive_rate(
        gaussian_epsilon(1.0, 1, 1e-5), 1e-5, rate
    )


@pytest.mark.parametrize("event", [PoissonGaussian(0.1, 1.5, 20), Gaussian(2.0, 3)])
def test_an_event_survives_json(event):
    assert event_from_json(event_to_json(event)) == event


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"mechanism": "Laplace", "count": 1},
        {"mechanism": "Gaussian", "noise_multiplier": 1.0},
        {"mechanism": "Gaussian", "noise_multiplier": 1.0, "count": 1, "free": True},
        {"mechanism": ["Gaussian"]},
        "Gaussian",
        None,
    ],
)
def test_an_unknown_event_is_refused(value):
    with pytest.raises(PrivacyError, match="no mechanism"):
        event_from_json(value)


def test_numpy_numbers_are_refused_because_json_cannot_hold_them():
    with pytest.raises(ConfigError):
        Gaussian(np.float32(1.0), 1)
