"""The white-box game: it comes close to the claim of a sound engine, and far over that of a broken one."""

from functools import cache
from math import inf

import numpy as np
import pytest
import torch

from dpwavelet.audit.game import CANARIES, Victims, play, short_plan
from dpwavelet.privacy import noise, plan
from dpwavelet.privacy.accounting import delta_for
from dpwavelet.privacy.clipping import ClippedSum, RecordClipper
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source


@cache  # its noise is computed once
def promise(epsilon):
    return short_plan(
        PrivacyPlan(epsilon=epsilon, delta=delta_for(100), records=100, batch_size=10, steps=90, max_norm=0.5)
    )


def played(epsilon, repeats):
    return play(promise(epsilon), repeats, 0.95, Source.for_test)


def test_the_game_is_played_under_the_promise_of_the_plan():
    short = promise(4.0)
    assert (short.epsilon, short.delta, short.max_norm, short.steps) == (4.0, delta_for(100), 0.5, 2)
    assert short.sampling_rate == 0.5


def test_canaries_are_orthogonal_and_louder_than_the_clipping_norm():
    victims = Victims()
    clipper = RecordClipper(victims.model, max_norm=0.5)
    found = clipper.accumulate(victims.losses, torch.arange(CANARIES))
    assert float(found.norms.min()) > 100 * 0.5
    clipped = clipper.finish().values
    assert victims.along(clipped) == pytest.approx(np.full(CANARIES, 0.5), rel=1e-3)
    assert float(clipped["1.weight"].norm()) < 0.01 * 0.5 * CANARIES


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "repeats"), [(8.0, 500), (4.0, 650), (1.0, 1800)])
def test_a_sound_engine_is_bounded_within_a_tenth_of_its_claim_and_never_over_it(epsilon, repeats):
    found = played(epsilon, repeats)
    assert 0.9 * epsilon < found.gaussian <= epsilon
    assert found.any_mechanism <= epsilon


def test_guesses_come_from_the_releases_alone(monkeypatch):
    """Where releases are noise alone, half of the guesses are right."""

    def noise_alone(clipped, *at):
        nothing = {name: torch.zeros_like(value) for name, value in clipped.values.items()}
        return noise.add_noise(ClippedSum(nothing, clipped.sensitivity), *at)

    monkeypatch.setattr(plan, "add_noise", noise_alone)
    found = played(8.0, 20)
    assert abs(found.accuracy - 0.5) < 4 * 0.5 / (20 * CANARIES) ** 0.5


def without_noise(monkeypatch):
    monkeypatch.setattr(
        plan, "add_noise", lambda clipped, *_: {n: v.float() for n, v in clipped.values.items()}
    )


def with_four_fifths_of_the_noise(monkeypatch):
    monkeypatch.setattr(plan, "add_noise", lambda c, sigma, *at: noise.add_noise(c, 0.8 * sigma, *at))


def without_clipping(monkeypatch):
    sums = RecordClipper._sums_of
    monkeypatch.setattr(
        RecordClipper, "_sums_of", lambda self, losses, bound, *rest: sums(self, losses, inf, *rest)
    )


def with_twice_the_clipping_norm(monkeypatch):
    finish = RecordClipper.finish

    def louder(self):
        clipped = finish(self)
        return ClippedSum({name: 2 * value for name, value in clipped.values.items()}, clipped.sensitivity)

    monkeypatch.setattr(RecordClipper, "finish", louder)


def with_weights_left_out_of_the_norm(monkeypatch):
    sums = RecordClipper._sums_of

    def lighter(self, *rest):
        weights, self._weights = self._weights, {}
        found, values, norms = sums(self, *rest)
        self._weights = weights
        return {name: weights.get(name, 1.0) * value for name, value in found.items()}, values, norms

    monkeypatch.setattr(RecordClipper, "_sums_of", lighter)


def without_sampling(monkeypatch):
    monkeypatch.setattr(plan, "poisson_batch", lambda source, step, records, rate: np.arange(records))


@pytest.mark.parametrize(
    ("broken", "epsilon"),
    [
        (without_noise, 1.0),
        (without_noise, 4.0),
        (without_noise, 8.0),
        (without_clipping, 1.0),
        (without_clipping, 4.0),
        (without_clipping, 8.0),
        (with_twice_the_clipping_norm, 4.0),
        (with_weights_left_out_of_the_norm, 4.0),
        (without_sampling, 4.0),
    ],
)
def test_a_broken_engine_is_found_over_its_claim(monkeypatch, epsilon, broken):
    broken(monkeypatch)
    assert played(epsilon, 60).gaussian > epsilon


@pytest.mark.slow
def test_a_fifth_less_noise_is_noticed(monkeypatch):
    with_four_fifths_of_the_noise(monkeypatch)
    assert played(8.0, 300).gaussian > 8.0
