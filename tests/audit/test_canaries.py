"""Canaries in one real training run: under the claim when it is kept, over it when it is broken."""

from math import inf

import numpy as np
import pytest

from dpwavelet.audit.canaries import (
    as_people,
    chosen,
    draw_canaries,
    flip,
    join,
    of_records,
    of_units,
    one_run,
)
from dpwavelet.audit.updates import UpdateScores
from dpwavelet.model import Model
from dpwavelet.privacy import plan as plans
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens
from dpwavelet.training import PrivateTraining, train_privately

M = 300
SETTINGS = PrivateTraining(mixed_precision=False, charge_every=100)


@pytest.fixture(scope="module")
def model(tiny_model):
    return Model.from_pretrained(tiny_model)


@pytest.fixture
def bound(model, tmp_path):
    """Train once with canaries at a claim, and bound epsilon by the updates."""

    def audited(epsilon):
        plan = PrivacyPlan(
            epsilon=epsilon, delta=1e-6, records=M // 2, batch_size=M // 4, steps=8, max_norm=0.1
        )
        records = draw_canaries(M, model.transformer.config, 1, seed=0)
        present = flip(M, 0, "canaries")
        updates = UpdateScores(model.transformer, records, SETTINGS, plan.steps)
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
        train_privately(
            model.transformer,
            chosen(records, present),
            plan,
            SETTINGS,
            tmp_path / "work",
            ledger,
            "a",
            released=updates,
        )
        return one_run(updates.scores, present, plan.delta, 0.95)

    return audited


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_the_bound_of_a_run_that_keeps_its_promise_stays_under_the_claim(bound, epsilon):
    assert bound(epsilon).epsilon <= epsilon


@pytest.mark.slow
def test_the_bound_of_a_run_without_noise_exceeds_the_claim(bound, monkeypatch):
    monkeypatch.setattr(
        plans, "add_noise", lambda clipped, *_: {n: v.float() for n, v in clipped.values.items()}
    )
    assert bound(1.0).epsilon > 1.0


@pytest.mark.slow
def test_the_bound_of_a_run_without_clipping_exceeds_the_claim(bound, monkeypatch):
    sums = RecordClipper._sums_of
    monkeypatch.setattr(
        RecordClipper, "_sums_of", lambda self, losses, bound, *rest: sums(self, losses, inf, *rest)
    )
    assert bound(1.0).epsilon > 1.0


def test_canaries_are_records_that_training_takes(model):
    config = model.transformer.config
    records = draw_canaries(12, config, 1, seed=3)
    captions, tokens = records.batch(np.arange(12), np.zeros(12, np.int64))
    assert bool(model.transformer.losses(captions, tokens).image.isfinite().all())
    assert np.array_equal(records.image, draw_canaries(12, config, 1, seed=3).image)
    assert not np.array_equal(records.image, draw_canaries(12, config, 1, seed=4).image)


def test_joined_records_are_those_of_both(model):
    few = draw_canaries(3, model.transformer.config, 1, seed=0)
    short = PrivateTokens(few.image, few.captions[:, :, :2], few.scales)
    both = join(short, few)
    assert len(both) == 6
    assert np.array_equal(both.captions[3:], few.captions)
    assert np.array_equal(both.captions[:3, :, :2], short.captions)
    assert not both.captions[:3, :, 2:].any()
    assert np.array_equal(chosen(both, np.arange(6) % 5 == 0).image, few.image[[0, 2]])


def test_a_person_is_in_with_all_records_or_with_none(model):
    records = draw_canaries(5, model.transformer.config, 1, seed=0).owned_by(["a", "b", "a", "c", "b"])
    people = join(records, as_people(draw_canaries(2, model.transformer.config, 1, seed=1), 3))
    assert people.owners.tolist() == [0, 1, 0, 2, 1, 3, 3, 3, 4, 4, 4]
    assert np.array_equal(people.image[8], people.image[10])
    coins = np.array([True, False, True, True, False])
    members = chosen(people, coins)
    assert members.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert members.units == 3
    assert np.array_equal(members.image, people.image[[0, 2, 3, 5, 6, 7]])
    assert np.flatnonzero(of_records(coins, people)).tolist() == [0, 2, 3, 5, 6, 7]
    assert of_units(np.arange(5.0), records).tolist() == [1.0, 2.5, 3.0]


def test_coins_are_fair_and_each_name_has_its_own():
    coins = flip(10_000, 0, "images")
    assert abs(coins.mean() - 0.5) < 0.02
    assert 0.45 < (coins == flip(10_000, 0, "canaries")).mean() < 0.55


def test_perfect_scores_are_bounded_by_their_number_and_inverted_ones_show_nothing():
    present = flip(400, 0, "canaries")
    found = one_run(present.astype(np.float64), present, 0.0, 0.95)
    assert (found.guesses, found.right) == (400, 395)  # 205 are in, and 200 guesses say so
    assert 3 < found.epsilon < 4
    assert one_run(-present.astype(np.float64), present, 0.0, 0.95).epsilon == 0


def test_scores_without_meaning_exceed_nothing_as_often_as_promised():
    random = np.random.default_rng(0)
    present = random.integers(2, size=(300, 100)).astype(bool)
    false = [one_run(random.normal(size=100), coins, 0.0, 0.6).epsilon > 0 for coins in present]
    assert np.mean(false) <= 0.4  # three bounds at 0.6 each would come to 0.6
