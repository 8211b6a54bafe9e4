"""The privacy loss of one Gaussian mechanism on a grid, computed for all points of the grid at once.

The construction is that of `dp_accounting`, which asks for every point in a call of its own and so spends
most of an accountant's time in Python. The points, the probabilities made of them, and everything after that
are the library's.

Letters: q is the sampling rate, s the noise multiplier; sensitivity is one.
"""

import math

import numpy as np
from dp_accounting.pld.pld_pmf import PLDPmf, create_pmf_pessimistic_connect_dots_fixed_gap
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from numpy.typing import NDArray

Values = NDArray[np.float64]


def sampled_gaussian(noise_multiplier: float, sampling_rate: float, grid: float) -> PrivacyLossDistribution:
    """Of one noisy sum over a Poisson sample, for neighbours that add or remove one unit: an upper bound."""
    removed = _on_grid(noise_multiplier, sampling_rate, grid, AdjacencyType.REMOVE)
    if sampling_rate == 1:
        return PrivacyLossDistribution(removed)  # the other side is the same
    added = _on_grid(noise_multiplier, sampling_rate, grid, AdjacencyType.ADD)
    return PrivacyLossDistribution(removed, added)


def _on_grid(s: float, q: float, grid: float, side: AdjacencyType) -> PLDPmf:
    """Between points of the grid the curve of delta, which is convex, is its chord: never below it."""
    loss = GaussianPrivacyLoss(s, sampling_prob=q, adjacency_type=side)
    bounds = loss.connect_dots_bounds()
    low, high = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
    deltas = _deltas(loss, side, np.arange(low, high + 1) * grid)
    return create_pmf_pessimistic_connect_dots_fixed_gap(grid, low, high, deltas)


def _deltas(loss: GaussianPrivacyLoss, side: AdjacencyType, epsilons: Values) -> Values:
    """The least delta at every epsilon: what the best attack, a threshold on the output, gains there.

    A threshold that is off by its rounding loses nothing that could be noticed, since it is where the gain is
    flat.
    """
    q, s = loss.sampling_prob, loss.standard_deviation
    sign = 1.0 if side is AdjacencyType.REMOVE else -1.0
    edge = math.log1p(-q) if q < 1 else -math.inf  # no loss of the sampled mechanism is beyond it
    inside = sign * epsilons > edge
    deltas: Values = np.zeros_like(epsilons) if sign < 0 else -np.expm1(np.minimum(epsilons, 0.0))
    signed = sign * epsilons[inside]
    unsampled = signed - math.log(q) + np.log(-np.expm1(edge - signed))  # log(1 + (exp(signed) - 1) / q)
    thresholds = -sign * (0.5 + unsampled * s**2)
    lower = np.exp(epsilons[inside] + loss.mu_lower_log_cdf(thresholds))
    deltas[inside] = loss.mu_upper_cdf(thresholds) - lower
    return np.clip(deltas, 0.0, 1.0)
