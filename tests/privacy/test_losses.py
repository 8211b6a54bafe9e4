"""Losses computed for a whole grid are those of the library, which computes them one by one."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpwavelet.privacy.losses import _deltas, sampled_gaussian

RATES = (1e-7, 1e-3, 0.0625, 0.9, 1 - 1e-9, 1.0)
SIDES = (AdjacencyType.REMOVE, AdjacencyType.ADD)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("noise", [0.02, 0.5, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("side", SIDES)
def test_every_delta_is_that_of_the_library(rate, noise, side):
    loss = GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=side)
    bounds = loss.connect_dots_bounds()
    epsilons = np.linspace(bounds.epsilon_lower - 1e-3, bounds.epsilon_upper + 1e-3, 301)
    ours = _deltas(loss, side, epsilons)
    np.testing.assert_allclose(ours, loss.get_delta_for_epsilon(epsilons), rtol=0, atol=1e-14)
    assert ours.max() > 0


@settings(deadline=None, max_examples=50)
@given(rate=st.floats(1e-6, 1.0), noise=st.floats(0.1, 100.0), epsilon=st.floats(-3.0, 20.0))
def test_no_threshold_of_an_attack_gains_more(rate, noise, epsilon):
    """The output is drawn around -1 or 0 with the unit, by the rate, and around 0 without it."""
    thresholds = np.linspace(-30, 30, 1201)

    def drawn(tail):
        """Probabilities of a tail of outputs, without the unit and with it."""
        without = tail(thresholds / noise)
        return without, rate * tail((thresholds + 1) / noise) + (1 - rate) * without

    (below, below_with), (above, above_with) = drawn(norm.cdf), drawn(norm.sf)
    for side, gains in (
        (AdjacencyType.REMOVE, below_with - math.exp(epsilon) * below),
        (AdjacencyType.ADD, above - math.exp(epsilon) * above_with),
    ):
        loss = GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=side)
        assert gains.max() <= _deltas(loss, side, np.array([epsilon]))[0] + 1e-13


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.0625, 2.3, 94), (1e-3, 0.6, 3000), (1.0, 3.0, 10)])
@pytest.mark.parametrize("grid", [1e-2, 1e-3])
def test_both_sides_of_the_distribution_are_those_of_the_library(rate, noise, steps, grid):
    ours = sampled_gaussian(noise, rate, grid)
    theirs = pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=grid)
    for side in ("_pmf_remove", "_pmf_add"):
        mine, known = (getattr(each, side).to_dense_pmf() for each in (ours, theirs))
        assert mine._lower_loss == known._lower_loss
        np.testing.assert_allclose(mine._probs, known._probs, rtol=0, atol=1e-14 / grid)
        assert mine._infinity_mass == pytest.approx(known._infinity_mass, abs=1e-14)
    for delta in (1e-3, 1e-7):
        found, known = (each.self_compose(steps).get_epsilon_for_delta(delta) for each in (ours, theirs))
        assert found == pytest.approx(known, rel=1e-6)


def test_one_noisy_sum_costs_what_the_closed_form_says():
    loss = sampled_gaussian(2.0, 1.0, 1e-4)
    for epsilon in (0.1, 0.5, 1.0):
        exact = norm.cdf(0.25 - 2 * epsilon) - math.exp(epsilon) * norm.cdf(-0.25 - 2 * epsilon)
        assert exact <= loss.get_delta_for_epsilon(epsilon) <= exact * (1 + 1e-6)
