"""Lower bounds on epsilon: published values, scipy as a witness, and simulations of mechanisms we know."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from dpwavelet.audit.bounds import (
    accuracy_epsilon,
    gaussian_epsilon,
    mean_at_least,
    one_run_epsilon,
    one_run_p_value,
    proportion_at_least,
    proportion_at_most,
    repeats_needed,
)
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import LARGEST_EPSILON, PoissonGaussian, epsilon_pld


class TestOneRun:
    """The theorem of Steinke, Nasr and Jagielski (2023)."""

    @pytest.mark.parametrize(
        ("m", "r", "v", "delta", "published"),
        [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],  # Appendix D and section 7
    )
    def test_the_published_bounds_come_out(self, m, r, v, delta, published):
        assert one_run_epsilon(m, r, v, delta, 0.95) == pytest.approx(published, abs=1e-3)

    @pytest.mark.parametrize(("m", "r", "v"), [(10, 10, 10), (200, 60, 41), (500, 500, 0), (50, 7, 6)])
    @pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
    @pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
    def test_the_p_value_is_that_of_the_formula_by_scipy(self, m, r, v, epsilon, delta):
        w = binom(r, math.exp(epsilon) / (1 + math.exp(epsilon)))
        terms = [(w.cdf(v - 1) - w.cdf(v - i - 1)) / i for i in range(1, m + 1)]
        expected = min(1.0, w.sf(v - 1) + 2 * m * delta * max(terms))
        assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(expected, rel=1e-9, abs=1e-14)

    def test_randomized_response_is_exceeded_as_rarely_as_promised_and_nearly_reached(self):
        random, truth, m = np.random.default_rng(0), 1.5, 2000
        right = random.binomial(m, math.exp(truth) / (1 + math.exp(truth)), size=300)
        bounds = np.array([one_run_epsilon(m, m, int(v), 0.0, 0.9) for v in right])
        assert (bounds > truth).mean() <= 0.16  # 0.1, and 3.5 standard errors
        assert (bounds > truth).mean() >= 0.04  # the mechanism is the worst case: the bound is not slack
        assert bounds.mean() > 0.9 * truth

    def test_a_run_that_sometimes_tells_everything_needs_its_delta(self):
        random, delta, m = np.random.default_rng(1), 0.05, 400  # with delta: all coins; else pure chance
        right = np.where(random.random(400) < delta, m, random.binomial(m, 0.5, size=400))
        exceeds = [[one_run_epsilon(m, m, int(v), d, 0.96) > 0 for v in right] for d in (delta, 0.0)]
        assert np.mean(exceeds[0]) <= 0.01
        assert np.mean(exceeds[1]) > 0.06  # without the term for delta the promise of the bound is broken

    def test_guessing_at_random_shows_nothing(self):
        assert one_run_epsilon(400, 100, 50, 1e-5, 0.95) == 0

    def test_counts_that_cannot_be_are_refused(self):
        with pytest.raises(ConfigError, match="guesses"):
            one_run_p_value(10, 11, 3, 1.0, 0.0)


class TestProportions:
    @pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 11), (400, 1000)])
    def test_limits_are_those_of_the_beta_distribution(self, successes, trials):
        low = beta.ppf(0.05, successes, trials - successes + 1) if successes else 0.0
        high = beta.ppf(0.95, successes + 1, trials - successes) if successes < trials else 1.0
        assert proportion_at_least(successes, trials, 0.95) == pytest.approx(low, abs=1e-9)
        assert proportion_at_most(successes, trials, 0.95) == pytest.approx(high, abs=1e-9)


@pytest.fixture(scope="module")
def bounds():
    values = np.random.default_rng(2).binomial(64, 0.6, size=(400, 300)) / 64
    return np.array([mean_at_least(row, 0.95) for row in values])


class TestMean:
    """The betting bound, on averages of 64 coins: what the game hands it."""

    def test_it_exceeds_the_truth_as_rarely_as_promised(self, bounds):
        assert (bounds > 0.6).mean() <= 0.05

    def test_it_comes_close(self, bounds):
        assert bounds.mean() > 0.59

    def test_the_first_would_notice_a_bound_that_is_a_little_too_high(self, bounds):
        assert (bounds + 0.01 > 0.6).mean() > 0.3

    def test_it_holds_for_coins_that_agree_with_one_another(self):
        values = np.random.default_rng(3).random((400, 300)) < 0.6  # 64 equal guesses a run
        assert np.mean([mean_at_least(row, 0.95) > 0.6 for row in values.astype(float)]) <= 0.05

    def test_it_holds_for_values_that_are_rarely_above_zero(self):
        values = np.random.default_rng(0).random((600, 40)) < 0.05
        assert np.mean([mean_at_least(row, 0.95) > 0.05 for row in values.astype(float)]) <= 0.05

    def test_values_outside_are_refused(self):
        with pytest.raises(ConfigError, match=r"\[0, 1\]"):
            mean_at_least([0.5, 1.1], 0.95)
        with pytest.raises(ConfigError):
            mean_at_least([], 0.95)


class TestAccuracy:
    def test_randomized_response_has_the_epsilon_of_its_accuracy(self):
        accuracy = math.exp(2.0) / (1 + math.exp(2.0))
        assert accuracy_epsilon(accuracy, 0.0) == pytest.approx(2.0)
        assert accuracy_epsilon((math.exp(2.0) + 0.1) / (1 + math.exp(2.0)), 0.1) == pytest.approx(2.0)
        assert accuracy_epsilon(0.5, 0.0) == 0
        assert accuracy_epsilon(1.0, 0.1) == LARGEST_EPSILON

    @pytest.mark.parametrize("mu", [0.3, 1.0, 2.0])
    def test_the_best_accuracy_against_a_gaussian_gives_its_epsilon_back(self, mu):
        event = PoissonGaussian(1.0, 2 / mu, 4)  # four sums make mu
        truth = epsilon_pld((event,), 1e-3)
        found = gaussian_epsilon(float(norm.cdf(mu / 2)), event, 1e-3)
        assert 0.98 * truth < found <= truth
        assert gaussian_epsilon(float(norm.cdf(mu / 2)) + 0.01, event, 1e-3) > truth

    def test_accuracy_of_chance_shows_nothing_and_more_than_any_noise_allows_shows_half_the_noise(self):
        event = PoissonGaussian(0.5, 2.0, 2)
        assert gaussian_epsilon(0.5, event, 1e-3) == 0
        assert gaussian_epsilon(0.9, event, 1e-3) == epsilon_pld((PoissonGaussian(0.5, 1.0, 2),), 1e-3)

    def test_small_epsilons_need_more_repeats(self):
        strong, weak = PoissonGaussian(0.5, 2.1597, 2), PoissonGaussian(0.5, 0.5524, 2)  # of 1 and 8
        assert repeats_needed(strong, 1.0, 1e-3, 0.95, 64) > 2 * repeats_needed(weak, 8.0, 1e-3, 0.95, 64)
