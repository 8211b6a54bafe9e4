"""Membership inference: exact likelihoods, and rates that mean what they say."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm

from dpwavelet.audit.canaries import draw_canaries
from dpwavelet.audit.membership import (
    RATES,
    Allowed,
    allowed,
    auc_with_interval,
    log_likelihoods,
    membership,
    roc,
)
from dpwavelet.errors import DataError
from dpwavelet.model import Model
from dpwavelet.privacy.accounting import attack_bound, best_true_positive_rate
from dpwavelet.privacy.plan import PrivacyPlan

BOUND = Allowed(RATES, (0.1, 0.02), (0.5, 0.4))


def test_the_likelihood_is_the_product_of_the_chances_of_drawing_each_token(tiny_model):
    transformer = Model.from_pretrained(tiny_model).transformer
    records = draw_canaries(3, transformer.config, 1, seed=0)
    captions, (tokens,) = records.batch(np.arange(3), np.zeros(3, np.int64))
    expected = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():  # token by token, as sampling does
        logits, cache, mask = transformer.begin(captions)
        for index in range(tokens.shape[1]):
            if index:
                logits, mask = transformer.advance(tokens[:, index - 1], index, cache, mask)
            expected += logits.double().log_softmax(1)[torch.arange(3), tokens[:, index]]
    assert log_likelihoods(transformer, records, chunk=2) == pytest.approx(expected.numpy(), rel=1e-5)


def test_the_area_is_that_of_mann_and_whitney_with_ties():
    random = np.random.default_rng(0)
    members, others = random.integers(0, 9, 80).astype(float), random.integers(0, 7, 50).astype(float)
    expected = mannwhitneyu(members, others).statistic / (80 * 50)
    assert auc_with_interval(members, others)[0] == pytest.approx(expected)


def test_the_interval_holds_the_true_area_as_often_as_promised():
    random, truth = np.random.default_rng(1), norm.cdf(0.5 / 2**0.5)
    found = [auc_with_interval(random.normal(0.5, size=100), random.normal(size=120))[1:] for _ in range(400)]
    held = np.mean([low <= truth <= high for low, high in found])
    assert 0.91 < held < 0.98  # 0.95, and 3.5 standard errors


def test_the_curve_goes_through_every_threshold():
    assert roc(np.array([3.0, 2.0]), np.array([2.0, 1.0])) == (
        (0.0, 0.0),
        (0.0, 0.5),
        (0.5, 1.0),
        (1.0, 1.0),
    )


def test_true_positives_are_counted_at_no_more_false_positives_than_the_rate():
    others = np.arange(1000.0)
    members = np.array([989.5, 998.5, 999.5, 5.0])  # ten others, one, none lie above
    found = membership("x", np.concatenate((members, others)), np.arange(1004) < 4, BOUND)
    assert [rate.true_positive_rate for rate in found.rates] == [0.75, 0.5]
    assert found.rates[0].at_least < 0.75 < found.rates[0].at_most
    assert (found.members, found.others) == (4, 1000)
    assert (found.rates[0].mechanism_allows, found.rates[0].promise_allows) == (0.1, 0.5)


def test_few_others_allow_no_false_positive():
    found = membership("x", np.array([2.0, 0.0, 1.0]), np.array([True, True, False]), BOUND)
    assert found.rates[1].true_positive_rate == 0.5


def test_one_side_alone_is_refused():
    with pytest.raises(DataError, match="both sides"):
        membership("x", np.zeros(3), np.ones(3, bool), BOUND)


def test_what_is_allowed_is_what_the_accountant_says():
    plan = PrivacyPlan(epsilon=4, delta=1e-3, records=200, batch_size=50, steps=4, max_norm=1.0)
    found = allowed(plan, (0.01, 0.1))
    assert found.by_mechanism == tuple(attack_bound(plan.events, rate) for rate in (0.01, 0.1))
    assert found.by_promise == tuple(best_true_positive_rate(4, 1e-3, rate) for rate in (0.01, 0.1))
    assert all(less <= more for less, more in zip(found.by_mechanism, found.by_promise, strict=True))
