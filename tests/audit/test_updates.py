"""What an audit sees of a run: the releases and nothing before them, and their slopes along records."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from dpwavelet.audit.canaries import draw_canaries
from dpwavelet.audit.updates import UpdateScores
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.training import Adam, PrivateTraining, train_privately
from dpwavelet.transformer import ImageTransformer, TransformerConfig

PLAN = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=3, max_norm=1.0)
SETTINGS = PrivateTraining(mixed_precision=False, caption_weight=0.3)


@pytest.fixture
def transformer():
    config = TransformerConfig(
        words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=2, heads=2
    )
    model = ImageTransformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def test_what_is_shown_of_a_run_is_what_its_weights_follow_from_and_no_more(
    transformer, tmp_path, monkeypatch
):
    """Adam on what was shown ends at the trained weights, so it has all of the noise."""
    sums, privatize = [], PrivacyPlan.privatize

    def noted(plan, clipped, source, step):
        sums.append({name: value / plan.divisor for name, value in clipped.values.items()})
        return privatize(plan, clipped, source, step)

    monkeypatch.setattr(PrivacyPlan, "privatize", noted)
    records = draw_canaries(60, transformer.config, 1, seed=0)
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": "a", "plan": PLAN.to_json()})
    seen = []
    trained = train_privately(
        transformer, records, PLAN, SETTINGS, tmp_path / "work", ledger, "a",
        released=lambda step, update: seen.append((step, update)),
    )  # fmt: skip
    assert [step for step, _ in seen] == [0, 1, 2]
    replica = deepcopy(transformer)
    optimizer = Adam(dict(replica.named_parameters()), SETTINGS, PLAN.steps)
    for step, update in seen:
        optimizer.step(dict(update), step)
    optimizer.release()
    for name, weight in trained.named_parameters():
        assert torch.equal(weight, dict(replica.named_parameters())[name]), name
    for (_, update), bare in zip(seen, sums, strict=True):
        noise = torch.cat([(update[name] - bare[name]).flatten() for name in update])
        promised = PLAN.noise_multiplier * PLAN.max_norm / PLAN.divisor
        assert float(noise.std()) == pytest.approx(promised, rel=0.05)


def test_a_score_is_the_sum_over_steps_of_release_times_gradient_at_the_weights_of_the_step(transformer):
    records = draw_canaries(3, transformer.config, 1, seed=0)
    random = torch.Generator().manual_seed(1)
    releases = [
        {name: torch.randn(p.shape, generator=random) for name, p in transformer.named_parameters()}
        for _ in range(PLAN.steps)
    ]
    scores = UpdateScores(transformer, records, SETTINGS, PLAN.steps)
    for step, released in enumerate(releases):
        scores(step, released)
    expected = np.zeros(3)
    parameters = dict(transformer.named_parameters())
    optimizer = Adam(parameters, SETTINGS, PLAN.steps)
    for step, released in enumerate(releases):
        for row in range(3):
            losses = transformer.losses(*records.batch(np.array([row]), np.array([0])))
            total = (losses.image + 0.3 * losses.caption).sum()
            grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
            expected[row] += sum(
                SETTINGS.emphasis_of(name).weight * float((g * released[name]).sum())
                for name, g in zip(parameters, grads, strict=True)
                if g is not None
            )
        optimizer.step(released, step)
    assert scores.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
