"""What an audit sees of a run: the releases and nothing before them, and their slopes along records."""

import numpy as np
import pytest
import torch

from dpwavelet.audit.canaries import draw_canaries
from dpwavelet.audit.updates import UpdateScores, watched
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.training import Adam, PrivateTraining
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


def test_a_watched_plan_releases_the_same_and_shows_only_that():
    seen = []
    plan = watched(PLAN, lambda step, released: seen.append((step, released)))
    assert plan.to_json() == PLAN.to_json()
    clipped = ClippedSum({"w": torch.ones(5)}, 1.0)
    released = plan.privatize(clipped, Source.for_test(0), 2)
    plain = PLAN.privatize(clipped, Source.for_test(0), 2)
    assert torch.equal(released["w"], plain["w"])
    assert [step for step, _ in seen] == [2]
    assert torch.equal(seen[0][1]["w"], plain["w"])
    assert not torch.equal(seen[0][1]["w"] * PLAN.divisor, clipped.values["w"])


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
                float((g * released[name]).sum())
                for name, g in zip(parameters, grads, strict=True)
                if g is not None
            )
        optimizer.step(released, step)
    assert scores.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
