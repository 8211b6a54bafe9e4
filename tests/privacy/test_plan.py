"""The plan refuses promises that mean nothing, and what it computes agrees with itself."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import PoissonGaussian, delta_for, epsilon_pld
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import FEWEST_RECORDS, PrivacyPlan
from dpwavelet.randomness import Source

FIELDS = {
    "epsilon": 1.0,
    "delta": 1e-4,
    "records": 2000,
    "batch_size": 64,
    "steps": 120,
    "max_norm": 0.5,
}


@pytest.fixture(scope="module")
def plan():
    return PrivacyPlan(**FIELDS)


def zeros(plan, count=100_000):
    return ClippedSum({"w": torch.zeros(count)}, plan.max_norm)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, 101.0, "8", True])
def test_an_epsilon_that_is_no_budget_is_refused(wrong):
    with pytest.raises(ConfigError, match="epsilon"):
        PrivacyPlan(**{**FIELDS, "epsilon": wrong})


@pytest.mark.parametrize("wrong", [0, -1e-5, math.nan, 1.0, 2])
def test_a_delta_that_is_no_probability_is_refused(wrong):
    with pytest.raises(ConfigError, match="delta"):
        PrivacyPlan(**{**FIELDS, "delta": wrong})


@pytest.mark.parametrize("wrong", [1 / 2000, 0.01])
def test_a_delta_that_would_allow_publishing_a_record_is_refused(wrong):
    with pytest.raises(PrivacyError, match="1/records"):
        PrivacyPlan(**{**FIELDS, "delta": wrong})


def test_a_dozen_images_are_refused():
    few = {**FIELDS, "records": 12, "batch_size": 4, "delta": delta_for(12)}
    with pytest.raises(PrivacyError, match="too few"):
        PrivacyPlan(**few)
    least = {**few, "records": FEWEST_RECORDS, "delta": delta_for(FEWEST_RECORDS)}
    assert PrivacyPlan(**least).sampling_rate == 0.04


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ConfigError, match="batch_size"):
        PrivacyPlan(**{**FIELDS, "batch_size": 2001})


@pytest.mark.parametrize("name", ["records", "batch_size", "steps"])
@pytest.mark.parametrize("wrong", [0, -5, 2.5, True, math.nan, "7"])
def test_counts_must_be_positive_whole_numbers(name, wrong):
    with pytest.raises(ConfigError, match=name):
        PrivacyPlan(**{**FIELDS, name: wrong})


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan, None])
def test_a_norm_that_bounds_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="max_norm"):
        PrivacyPlan(**{**FIELDS, "max_norm": wrong})


def test_a_unit_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="unit"):
        PrivacyPlan(**FIELDS, unit="")


def test_what_can_be_computed_cannot_be_set(plan):
    for name in ("noise_multiplier", "sampling_rate", "divisor", "neighbours"):
        with pytest.raises(TypeError):
            PrivacyPlan(**FIELDS, **{name: 1.0})
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(plan, name, 1.0)


def test_the_noise_the_rate_and_the_steps_together_cost_what_is_promised(plan):
    assert plan.sampling_rate == 64 / 2000
    assert plan.events == (PoissonGaussian(64 / 2000, plan.noise_multiplier, 120),)
    assert 0.998 * plan.epsilon < epsilon_pld(plan.events, plan.delta) <= plan.epsilon
    assert plan.pld_epsilon < plan.rdp_epsilon < 1.2 * plan.epsilon


def test_what_is_spent_grows_to_the_promise_and_is_never_reported_too_low(plan):
    assert plan.epsilon_spent(0) == 0.0
    reported = [plan.epsilon_spent(step) for step in range(1, 121, 17)]
    assert reported == sorted(reported)
    for step in (1, 60, 119):
        exact = epsilon_pld([PoissonGaussian(plan.sampling_rate, plan.noise_multiplier, step)], plan.delta)
        assert exact <= plan.epsilon_spent(step) <= plan.epsilon
    assert plan.epsilon_spent(120) == plan.pld_epsilon
    for outside in (-1, 121):
        with pytest.raises(ConfigError, match="steps_done"):
            plan.epsilon_spent(outside)


def test_every_step_has_a_batch_and_the_empty_ones_count(plan):
    batches = list(plan.batches(3, Source.for_test(1)))  # three records only: most batches are empty
    assert [step for step, _ in batches] == list(range(plan.steps))
    assert sum(len(indices) == 0 for _, indices in batches) > 0.8 * plan.steps


def test_the_true_number_of_records_changes_neither_rate_nor_divisor_nor_noise(plan):
    sizes = {
        records: [len(b) for _, b in plan.batches(records, Source.for_test(1))] for records in (1000, 4000)
    }
    for records, drawn in sizes.items():
        spread = (records * plan.sampling_rate / plan.steps) ** 0.5
        assert abs(np.mean(drawn) - records * plan.sampling_rate) < 4 * spread
        assert abs(np.mean(drawn) - records * plan.sampling_rate * 1.1) > 4 * spread  # what it would notice
    assert plan == PrivacyPlan(**FIELDS)
    assert plan.divisor == 64
    assert not any(str(records) in json.dumps(plan.to_json()) for records in (1000, 4000))


def test_a_resumed_run_gets_the_batches_it_would_have_had(plan):
    whole = list(plan.batches(500, Source.for_test(2)))
    rest = list(plan.batches(500, Source(Source.for_test(2).key), start=100))
    assert [step for step, _ in rest] == list(range(100, plan.steps))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole[100:], rest, strict=True))
    assert list(plan.batches(500, Source(), start=plan.steps)) == []


@pytest.mark.parametrize("start", [-1, 121])
def test_batches_start_inside_the_plan(plan, start):
    with pytest.raises(ConfigError, match="start"):
        plan.batches(500, Source(), start=start)


def noise_is_right(values, plan, factor=1.0):
    """Kolmogorov and Smirnov; fixed key, alarm for one key in a hundred."""
    promised = factor * plan.noise_multiplier * plan.max_norm / plan.batch_size
    return kstest(values.numpy(), norm(scale=promised).cdf).pvalue > 0.01


def test_the_noise_has_the_calibrated_size_for_a_batch_of_any_size(plan):
    released = plan.privatize(zeros(plan), Source.for_test(1), step=0)["w"]
    assert noise_is_right(released, plan)


@pytest.mark.parametrize("wrong", [0.9, 0.97, 1.03, 1.1])
def test_the_test_above_would_notice_three_percent(plan, wrong):
    released = plan.privatize(zeros(plan), Source.for_test(1), step=0)["w"]
    assert not noise_is_right(released, plan, factor=wrong)


def test_the_sum_is_divided_by_the_expected_batch_size(plan):
    gradients = torch.full((1000,), 1e4)
    for step in (0, 1, 2):  # batches of different sizes
        noise = plan.privatize(zeros(plan, 1000), Source.for_test(1), step)["w"]
        released = plan.privatize(ClippedSum({"w": gradients}, plan.max_norm), Source.for_test(1), step)["w"]
        assert torch.allclose(released - noise, gradients / plan.batch_size, rtol=1e-5)


def test_parameters_and_steps_get_noise_of_their_own(plan):
    empty = ClippedSum({name: torch.zeros(30_000) for name in ("a", "b")}, plan.max_norm)
    first, second = (plan.privatize(empty, Source.for_test(1), step) for step in (0, 1))
    rows = np.stack([noise.numpy() for release in (first, second) for noise in release.values()])
    assert np.abs(np.corrcoef(rows)[np.triu_indices(4, 1)]).max() < 4 / 30_000**0.5


def test_repeating_a_step_after_a_crash_releases_the_same_thing(plan):
    key = Source().key
    once, again = (plan.privatize(zeros(plan, 50), Source(key), 7)["w"] for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("sensitivity", [0.25, 0.5000001, 1.0, math.nan])
def test_a_sum_clipped_to_another_norm_is_refused(plan, sensitivity):
    with pytest.raises(PrivacyError, match="sensitivity"):
        plan.privatize(ClippedSum({"w": torch.zeros(3)}, sensitivity), Source(), 0)


@pytest.mark.parametrize("step", [-1, 120, 10**6])
def test_a_step_that_was_not_paid_for_is_refused(plan, step):
    with pytest.raises(PrivacyError, match="paid for"):
        plan.privatize(zeros(plan, 3), Source(), step)


def test_a_plan_survives_json_and_is_checked_again(plan):
    people = PrivacyPlan(**FIELDS, unit="person")
    assert people.neighbours == "add or remove one person"
    for each in (plan, people):
        assert PrivacyPlan.from_json(json.loads(json.dumps(each.to_json()))) == each
    with pytest.raises(PrivacyError):
        PrivacyPlan.from_json({**plan.to_json(), "delta": 0.5})
    for damaged in ({**plan.to_json(), "noise_multiplier": 0.1}, {"epsilon": 1.0}):
        with pytest.raises(ConfigError, match="not a privacy plan"):
            PrivacyPlan.from_json(damaged)
