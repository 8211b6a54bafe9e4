"""Membership inference: is a record's likelihood under the model higher because the model was trained on it?

The transformer gives the exact log-likelihood of a record's tokens, so the attack needs no approximation. Two
scores: the likelihood itself, and how much it rose over the weights before private training, which knows
how hard a record is. Records are in by fair coins, so members and others differ by chance alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.audit.bounds import proportion_at_least, proportion_at_most
from dpwavelet.errors import DataError
from dpwavelet.privacy.accounting import attack_bound, best_true_positive_rate
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens
from dpwavelet.transformer import ImageTransformer

Scores = NDArray[np.float64]
RATES = (0.01, 0.001)  # false-positive rates at which the attack is judged
CURVE = tuple(10 ** (-3 + k / 3) for k in range(10))  # where the bounds are drawn
Z = 1.959964  # 95 percent


@dataclass(frozen=True)
class AtRate:
    """True-positive rate at one false-positive rate, with 95 percent limits, and what the promise allows."""

    false_positive_rate: float
    true_positive_rate: float
    at_least: float
    at_most: float
    mechanism_allows: float
    promise_allows: float


@dataclass(frozen=True)
class Membership:
    """One attack on one run."""

    attack: str
    members: int
    others: int
    auc: float
    auc_from: float
    auc_to: float
    rates: tuple[AtRate, ...]
    curve: tuple[tuple[float, float], ...]  # false-positive rate, true-positive rate


@dataclass(frozen=True)
class Allowed:
    """The highest true-positive rates at `rates`: from the mechanisms, and from (epsilon, delta) alone."""

    rates: tuple[float, ...]
    by_mechanism: tuple[float, ...]
    by_promise: tuple[float, ...]


@torch.no_grad()
def log_likelihoods(transformer: ImageTransformer, records: PrivateTokens, chunk: int = 128) -> Scores:
    """Natural log of the probability of each record's image tokens, given its first caption. [M]."""
    found = []
    for start in range(0, len(records), chunk):
        rows = np.arange(start, min(start + chunk, len(records)))
        captions, tokens = records.batch(rows, np.zeros_like(rows))
        found.append(-transformer.losses(captions, tokens).image.double() * sum(records.scales))
    return torch.cat(found).numpy() if found else np.zeros(0)


def allowed(plan: PrivacyPlan, rates: Sequence[float]) -> Allowed:
    """What the plan leaves an attacker at each false-positive rate."""
    return Allowed(
        tuple(rates),
        tuple(attack_bound(plan.events, rate) for rate in rates),
        tuple(best_true_positive_rate(plan.epsilon, plan.delta, rate) for rate in rates),
    )


def membership(attack: str, scores: Scores, present: NDArray[np.bool_], bound: Allowed) -> Membership:
    """Judge scores (higher means member) against the truth; `bound` holds the rates of `RATES`."""
    members, others = scores[present], scores[~present]
    if not len(members) or not len(others):
        raise DataError("membership inference needs records on both sides; give more images.")
    auc, low, high = auc_with_interval(members, others)
    rates = tuple(
        AtRate(rate, *_true_positives(members, others, rate), mechanism, promise)
        for rate, mechanism, promise in zip(bound.rates, bound.by_mechanism, bound.by_promise, strict=True)
    )
    return Membership(attack, len(members), len(others), auc, low, high, rates, roc(members, others))


def auc_with_interval(members: Scores, others: Scores) -> tuple[float, float, float]:
    """Area under the curve with DeLong's 95 percent interval; ties count half."""
    above = (_ranks(others, members) / len(others), 1 - _ranks(members, others) / len(members))
    auc = float(above[0].mean())
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25 for part in above)
    reach = Z * math.sqrt(variance)
    return auc, max(auc - reach, 0.0), min(auc + reach, 1.0)


def roc(members: Scores, others: Scores) -> tuple[tuple[float, float], ...]:
    """The curve as points, from (0, 0) to (1, 1): one for every distinct score."""
    thresholds = np.unique(np.concatenate((members, others)))[::-1]
    false = 1 - np.searchsorted(np.sort(others), thresholds) / len(others)
    true = 1 - np.searchsorted(np.sort(members), thresholds) / len(members)
    return ((0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True))


def _true_positives(members: Scores, others: Scores, rate: float) -> tuple[float, float, float]:
    """The rate at the lowest threshold that keeps false positives at `rate` or below, and its limits."""
    accepted = int(rate * len(others))
    threshold = np.sort(others)[::-1][accepted]  # scores above it are called members
    right = int((members > threshold).sum())
    count = len(members)
    low, high = (limit(right, count, 0.975) for limit in (proportion_at_least, proportion_at_most))
    return right / count, low, high


def _ranks(of: Scores, among: Scores) -> NDArray[np.float64]:
    """For each value of `among`, how many of `of` lie below it, ties half."""
    ordered = np.sort(of)
    ranks: NDArray[np.float64] = (
        np.searchsorted(ordered, among, "left") + np.searchsorted(ordered, among, "right")
    ) / 2
    return ranks
