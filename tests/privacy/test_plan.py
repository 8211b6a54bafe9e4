"""The plan refuses promises that mean nothing, and what it computes agrees with itself."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from dpwavelet.errors import ConfigError, DpwaveletError, PrivacyError
from dpwavelet.privacy.accounting import Gaussian, PoissonGaussian, delta_for, epsilon_pld, epsilon_rdp
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import FEWEST_RECORDS
from dpwavelet.randomness import Source

FIELDS = {
    "epsilon": 1.0,
    "delta": 1e-4,
    "records": 2000,
    "batch_size": 64,
    "steps": 120,
    "max_norm": 0.5,
}


OTHERS = (Gaussian(20.0, 2), PoissonGaussian(0.02, 3.0, 100), Gaussian(40.0, 1))


@pytest.fixture(scope="module")
def plan():
    return PrivacyPlan(**FIELDS)


@pytest.fixture
def beside():
    """A plan with other mechanisms; a new one each time, as it knows which of them were made."""
    return PrivacyPlan(**FIELDS, others=OTHERS)


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
    with pytest.raises(PrivacyError, match="few-records"):
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


class Word(str):
    """Looks like a word that it is not."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("record")


@pytest.mark.parametrize("wrong", ["", "pixel", "Record", None, 1, Word("a tenth of a record")])
def test_a_unit_that_nothing_here_protects_is_refused(wrong):
    with pytest.raises(ConfigError, match="unit"):
        PrivacyPlan(**FIELDS, unit=wrong)


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


def test_a_plan_of_an_earlier_version_has_no_others_and_no_people(plan):
    kept = plan.to_json()
    del kept["others"], kept["group_by"], kept["per_unit"]
    assert PrivacyPlan.from_json(kept) == plan


def test_others_are_paid_for_by_the_same_epsilon(plan, beside):
    assert beside.events == (beside.event, *OTHERS)
    assert beside.noise_multiplier > 1.01 * plan.noise_multiplier
    assert 0.997 * beside.epsilon < epsilon_pld(beside.events, beside.delta) <= beside.epsilon
    assert beside.pld_epsilon == epsilon_pld(beside.events, beside.delta)
    assert beside.rdp_epsilon == epsilon_rdp(beside.events, beside.delta) > beside.pld_epsilon


def test_others_are_spent_from_the_beginning(beside):
    begun = beside.epsilon_spent(0)
    assert epsilon_pld(OTHERS, beside.delta) <= begun < beside.epsilon
    reported = [begun, *(beside.epsilon_spent(step) for step in (1, 60, 119, 120))]
    assert reported == sorted(reported)
    for step, spent in zip((1, 60, 119), reported[1:], strict=False):
        training = PoissonGaussian(beside.sampling_rate, beside.noise_multiplier, step)
        assert epsilon_pld((training, *OTHERS), beside.delta) <= spent <= beside.epsilon


def test_others_survive_json_and_are_checked_again(beside):
    kept = json.loads(json.dumps(beside.to_json()))
    again = PrivacyPlan.from_json(kept)
    assert again == beside
    assert again.noise_multiplier == beside.noise_multiplier
    kept["others"][0]["noise_multiplier"] = -1.0
    with pytest.raises(ConfigError, match="noise_multiplier"):
        PrivacyPlan.from_json(kept)
    for damaged in ([{"mechanism": "Free"}], ["Gaussian"], [None]):
        with pytest.raises(PrivacyError, match="no mechanism"):
            PrivacyPlan.from_json({**kept, "others": damaged})
    for damaged in (7, None):
        with pytest.raises(ConfigError, match="not a privacy plan"):
            PrivacyPlan.from_json({**kept, "others": damaged})


class Tuple(tuple):
    """A tuple that could answer differently each time."""


class Free(Gaussian):
    """Costs what it says it costs."""

    def __eq__(self, other):
        return True

    __hash__ = Gaussian.__hash__


@pytest.mark.parametrize(
    "wrong",
    [None, list(OTHERS), OTHERS[0], (None,), ("Gaussian",), ((20.0, 2),), Tuple(OTHERS), (Free(20.0, 2),)],
)
def test_others_that_are_no_mechanisms_are_refused(wrong):
    with pytest.raises(ConfigError):
        PrivacyPlan(**FIELDS, others=wrong)


def test_others_that_leave_nothing_are_refused_before_training():
    greedy = PrivacyPlan(**FIELDS, others=(Gaussian(1.0, 1),))
    with pytest.raises(PrivacyError, match="leaves nothing"):
        greedy.privatize(zeros(greedy, 3), Source(), 0)


ODD = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-5, 5), st.text(max_size=6), st.just(()),
    st.just(OTHERS), st.sampled_from([np.float64(1.0), np.int64(50), "record", "person", 1e-300, 10**40]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from([*FIELDS, "unit", "others", "group_by", "per_unit"]), value=ODD)
def test_whatever_a_field_is_given_the_plan_is_refused_or_keeps_its_word(name, value):
    try:
        odd = PrivacyPlan(**{**FIELDS, name: value})
        noise = odd.noise_multiplier
    except DpwaveletError:
        return
    others = OTHERS if name == "others" and value else ()
    training = PoissonGaussian(odd.batch_size / odd.records, noise, odd.steps)
    assert epsilon_pld((training, *others), odd.delta) <= odd.epsilon
    assert odd.delta < 1 / odd.records
    assert PrivacyPlan.from_json(json.loads(json.dumps(odd.to_json()))) == odd


FORCED = [
    ("epsilon", math.nan), ("epsilon", 0.0), ("delta", 0.5), ("records", 3), ("batch_size", 10**6),
    ("steps", 0), ("max_norm", math.inf), ("unit", "pixel"), ("group_by", "name"), ("per_unit", 2),
    ("others", None), ("others", (Free(20.0, 2),)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FORCED)
def test_no_noise_is_made_for_a_field_that_was_forced(beside, name, value):
    object.__setattr__(beside, name, value)
    with pytest.raises(DpwaveletError):
        beside.privatize(ClippedSum({"w": torch.zeros(3)}, 0.5), Source(), 0)
    with pytest.raises(DpwaveletError):
        beside.privatize_sum(ClippedSum({"w": torch.zeros(3)}, 0.5), Source(), sensitivity=0.5, other=0)
    with pytest.raises(DpwaveletError):
        beside.batches(500, Source())


def test_what_is_computed_follows_the_fields_and_cannot_be_planted(plan):
    forced = PrivacyPlan(**FIELDS)
    assert forced.noise_multiplier == plan.noise_multiplier
    vars(forced).update(noise_multiplier=0.01, pld_epsilon=0.1, events=(), sampling_rate=1e-9)
    assert forced.noise_multiplier == plan.noise_multiplier
    assert forced.pld_epsilon == plan.pld_epsilon
    assert forced.events == plan.events
    object.__setattr__(forced, "epsilon", 0.5)  # the noise of another epsilon was already asked for
    assert forced.noise_multiplier == dataclasses.replace(plan, epsilon=0.5).noise_multiplier


@pytest.mark.parametrize("members", [{}, {"noise_multiplier": 0.01}, {"privatize": print}])
def test_there_is_no_other_kind_of_plan(members):
    with pytest.raises(PrivacyError, match="Cheaper would be another PrivacyPlan"):
        type("Cheaper", (PrivacyPlan,), members)
    with pytest.raises(PrivacyError, match="Cheaper would be another PrivacyPlan"):
        type("Cheaper", (type("Mixin", (), members), PrivacyPlan), {})


def test_what_bounds_a_person_changes_no_number_and_is_refused_for_records(plan):
    people = PrivacyPlan(**FIELDS, unit="person", group_by="patient", per_unit=3)
    assert people.events == plan.events
    assert PrivacyPlan.from_json(json.loads(json.dumps(people.to_json()))) == people
    for bound in ({"group_by": "patient"}, {"per_unit": 2}):
        with pytest.raises(ConfigError, match="speak of people"):
            PrivacyPlan(**FIELDS, **bound)
    for wrong in ("", 7, True, b"patient"):
        with pytest.raises(ConfigError, match="name of a field"):
            PrivacyPlan(**FIELDS, unit="person", group_by=wrong)
    for wrong in (0, -1, 1.5, None):
        with pytest.raises(ConfigError, match="per_unit"):
            PrivacyPlan(**FIELDS, unit="person", per_unit=wrong)


class TestPrivatizeSum:
    """Noise for a mechanism beside training: of its own size, at its own place, once."""

    COUNTS = 100_000

    def made(self, plan, other=0, use=0, value=0.0, sensitivity=2.0):
        total = ClippedSum({"w": torch.full((self.COUNTS,), value)}, sensitivity)
        made = plan.privatize_sum(total, Source.for_test(4), sensitivity=sensitivity, other=other, use=use)
        return made["w"]

    @pytest.mark.parametrize(("other", "multiplier"), [(0, 20.0), (2, 40.0)])
    def test_the_noise_has_the_size_of_its_mechanism(self, beside, other, multiplier):
        noise = self.made(beside, other).numpy()
        assert kstest(noise, norm(scale=2.0 * multiplier).cdf).pvalue > 0.01
        for wrong in (0.97, 1.03):  # what the test would notice
            assert kstest(noise, norm(scale=wrong * 2.0 * multiplier).cdf).pvalue < 0.01

    def test_the_sum_is_not_divided(self, beside):
        noise = self.made(PrivacyPlan(**FIELDS, others=OTHERS))
        assert torch.allclose(self.made(beside, value=1e4) - noise, torch.tensor(1e4).double(), rtol=1e-5)

    def test_what_is_published_lies_on_a_grid_that_says_nothing_about_the_sum(self, beside):
        """Without the grid, which float32 numbers the noise can be would show in the last bits."""
        for value in (0.0, 0.1, 1e5 + 1 / 3):
            found = self.made(PrivacyPlan(**FIELDS, others=OTHERS), value=value)
            assert found.dtype == torch.float64
            assert torch.equal(found * 8, (found * 8).round())  # 40 is above 2^5, so an eighth, 2^(5 - 8)
            assert not torch.equal(found * 4, (found * 4).round())

    def test_no_step_and_no_other_use_shares_the_noise(self, beside):
        rows = [self.made(beside, other, use).numpy() for other, use in ((0, 0), (0, 1), (2, 0))]
        rows += [beside.privatize(zeros(beside), Source.for_test(1), step)["w"].numpy() for step in (0, 1)]
        correlations = np.corrcoef(np.stack(rows))[np.triu_indices(len(rows), 1)]
        assert np.abs(correlations).max() < 4.5 / self.COUNTS**0.5

    def test_each_use_happens_once_in_the_life_of_a_plan_object(self, beside):
        for use in (0, 1):
            self.made(beside, 0, use)
            with pytest.raises(PrivacyError, match="made already"):
                self.made(beside, 0, use)
        assert beside == PrivacyPlan(**FIELDS, others=OTHERS)
        assert beside.to_json() == PrivacyPlan(**FIELDS, others=OTHERS).to_json()

    def test_after_a_crash_the_same_sum_is_released_again(self):
        once, again = (self.made(PrivacyPlan(**FIELDS, others=OTHERS), value=3.0) for _ in range(2))
        assert torch.equal(once, again)

    @pytest.mark.parametrize("other", [1, 3, -1, True, 0.0, None, "0"])
    def test_only_a_gaussian_of_the_plan_can_be_made(self, beside, other):
        with pytest.raises(PrivacyError, match="no Gaussian"):
            self.made(beside, other)
        with pytest.raises(PrivacyError, match="no Gaussian"):
            self.made(PrivacyPlan(**FIELDS), other)

    @pytest.mark.parametrize("use", [2, -1, True, 0.0, None])
    def test_a_use_that_was_not_paid_for_is_refused(self, beside, use):
        with pytest.raises(PrivacyError, match="paid for"):
            self.made(beside, 0, use)

    @pytest.mark.parametrize("stated", [1.0, 3.0, math.nan])
    def test_a_sum_of_another_sensitivity_is_refused(self, beside, stated):
        total = ClippedSum({"w": torch.zeros(3)}, stated)
        with pytest.raises(PrivacyError, match="sensitivity"):
            beside.privatize_sum(total, Source(), sensitivity=2.0, other=0)
        self.made(beside)  # a refused use is not used up

    @pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan, "2", None])
    def test_a_sensitivity_that_bounds_nothing_is_refused(self, beside, wrong):
        with pytest.raises(PrivacyError, match="sensitivity"):
            beside.privatize_sum(
                ClippedSum({"w": torch.zeros(3)}, wrong), Source(), sensitivity=wrong, other=0
            )


class Slight(float):
    """Equals every number, and multiplies to nothing."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __rmul__(self, other):
        return 1e-9

    __hash__ = float.__hash__


def test_a_sensitivity_that_only_pretends_is_refused(beside):
    total = ClippedSum({"w": torch.zeros(3)}, Slight(1e-9))
    with pytest.raises(PrivacyError, match="sensitivity"):
        beside.privatize(total, Source(), 0)
    with pytest.raises(PrivacyError, match="sensitivity"):
        beside.privatize_sum(total, Source(), sensitivity=2.0, other=0)
