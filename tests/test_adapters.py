"""Low-rank pairs: they start from the model, are clipped like all else, and end as plain weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chosen_steps import STILL, train
from torch import Tensor

from dpwavelet.adapters import Adapted, adapt, merge
from dpwavelet.audit.canaries import draw_canaries
from dpwavelet.audit.updates import UpdateScores
from dpwavelet.checkpoint import write_json
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.training import (
    Adam,
    Checkpoint,
    PrivateTraining,
    held_out_loss,
    learner,
    train_privately,
    train_without_privacy,
    trained_parameters,
)
from dpwavelet.transformer import ImageTransformer, TransformerConfig

CONFIG = TransformerConfig(words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=2, heads=2)
LORA = PrivateTraining(parameters="lora", rank=3, chunk=16, mixed_precision=False, charge_every=2)
PLAN = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=6, max_norm=1.0)
RECORDS = draw_canaries(120, CONFIG, 1, seed=0)


@pytest.fixture(scope="module")
def transformer() -> ImageTransformer:
    model = ImageTransformer(CONFIG)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def losses(model: ImageTransformer) -> Tensor:
    rows = np.arange(20)
    found = model.losses(*RECORDS.batch(rows, np.zeros_like(rows)))
    return torch.stack((found.image, found.caption)).detach()


def begun(folder: Path, settings: PrivateTraining = LORA, seed: int = 0) -> Ledger:
    """A run with a key that anyone can predict."""
    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": "a", "plan": PLAN.to_json()})
    checkpoint = Checkpoint(folder / "work", PLAN, settings, "a")
    write_json(checkpoint.key_path, checkpoint.identity | {"key": Source.for_test(seed).key.hex()})
    return ledger


def test_an_adapted_model_begins_as_the_model_to_the_last_bit(transformer: ImageTransformer) -> None:
    student, _ = learner(transformer, LORA)
    assert sum(isinstance(layer, Adapted) for layer in student.modules()) == 4 * CONFIG.depth
    assert torch.equal(losses(student), losses(transformer))


def test_making_pairs_draws_the_same_numbers_every_time_and_none_from_elsewhere(
    transformer: ImageTransformer,
) -> None:
    before = torch.random.get_rng_state()
    pairs = [learner(transformer, LORA)[1] for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    downs = [weight for name, weight in pairs[0].items() if name.endswith("qkv.down.weight")]
    assert not torch.equal(*downs)


def test_merged_weights_compute_what_the_pairs_did_under_the_names_of_the_model(
    transformer: ImageTransformer,
) -> None:
    student, pairs = learner(transformer, LORA)
    with torch.no_grad():
        for name, weight in pairs.items():
            weight.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    adapted = losses(student)
    assert float((adapted - losses(transformer)).abs().max()) > 0.05
    merge(student)
    torch.testing.assert_close(losses(student), adapted, rtol=1e-4, atol=1e-5)
    shapes = {name: value.shape for name, value in transformer.state_dict().items()}
    assert {name: value.shape for name, value in student.state_dict().items()} == shapes


def test_pairs_are_all_that_gets_noise(transformer: ImageTransformer) -> None:
    _, pairs = learner(transformer, LORA)
    assert sum(p.numel() for p in pairs.values()) == trained_parameters(transformer, LORA)
    assert trained_parameters(transformer, LORA) == 2 * 3 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)
    everything = sum(p.numel() for p in transformer.parameters())
    assert trained_parameters(transformer, PrivateTraining()) == everything


@pytest.mark.parametrize("rank", [17, 1000])
def test_a_rank_that_a_layer_does_not_have_is_refused(transformer: ImageTransformer, rank: int) -> None:
    with pytest.raises(ConfigError, match="rank must be from 1 to 16"):
        learner(transformer, PrivateTraining(parameters="lora", rank=rank))


def test_the_released_weights_follow_from_what_was_released_and_from_nothing_else(
    transformer: ImageTransformer, tmp_path: Path
) -> None:
    seen: list[dict[str, Tensor]] = []
    student = train_privately(
        transformer, RECORDS, PLAN, LORA, tmp_path / "work", begun(tmp_path), "a",
        released=lambda _, update: seen.append(dict(update)),
    )  # fmt: skip
    assert len(seen) == PLAN.steps
    replay, pairs = learner(transformer, LORA)
    assert all(update.keys() == pairs.keys() for update in seen)
    optimizer = Adam(pairs, LORA, PLAN.steps)
    for step, update in enumerate(seen):
        optimizer.step(update, step)
    optimizer.release()
    merge(replay)
    ours, theirs, start = (model.state_dict() for model in (student, replay, transformer))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    moved = {name for name in start if not torch.equal(ours[name], start[name])}
    layers = ("qkv", "mix", "widen", "narrow")
    assert moved == {f"blocks.{block}.{layer}.weight" for block in range(2) for layer in layers}


def test_one_record_moves_the_sum_over_pairs_by_at_most_the_clipping_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PrivateTraining(**STILL, parameters="lora", rank=3)
    everyone = list(range(40))
    batches = [everyone, *(everyone[:gone] + everyone[gone + 1 :] for gone in (0, 15, 16, 39))]
    sums = []
    for number, batch in enumerate(batches):  # each in step 0 of a run with the same key
        (found,), _ = train(
            tmp_path / str(number), [batch], RECORDS, settings, monkeypatch, seed=0, max_norm=0.1
        )
        sums.append(found)
    assert len(sums[0]) == trained_parameters_of_one_block()
    for without in sums[1:]:
        assert 0.05 < float((sums[0] - without).norm()) <= 0.1 * (1 + 1e-4)


def trained_parameters_of_one_block() -> int:
    return 3 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    transformer: ImageTransformer, tmp_path: Path, stop: int
) -> None:
    whole = train_privately(
        transformer, RECORDS, PLAN, LORA, tmp_path / "a" / "work", begun(tmp_path / "a"), "a"
    )

    def kill(step: int, _: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    work, ledger = tmp_path / "b" / "work", begun(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        train_privately(transformer, RECORDS, PLAN, LORA, work, ledger, "a", kill)
    resumed = train_privately(transformer, RECORDS, PLAN, LORA, work, ledger, "a")
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_pairs_learn(transformer: ImageTransformer) -> None:
    settings = PrivateTraining(parameters="lora", rank=4, mixed_precision=False, learning_rate=0.02)
    alike = replace(RECORDS, image=np.full_like(RECORDS.image, 3))
    after = train_without_privacy(transformer, alike, settings, steps=40, batch_size=60, seed=0)
    assert held_out_loss(after, alike) < held_out_loss(transformer, alike) - 0.2


def test_an_audit_follows_a_run_that_trains_pairs(transformer: ImageTransformer, tmp_path: Path) -> None:
    scores = UpdateScores(transformer, RECORDS, LORA, PLAN.steps)
    train_privately(
        transformer, RECORDS, PLAN, LORA, tmp_path / "work", begun(tmp_path), "a", released=scores
    )
    assert np.isfinite(scores.scores).all()
    assert np.abs(scores.scores).max() > 0


def test_a_module_without_a_linear_layer_stays_as_it_is() -> None:
    norm = torch.nn.Sequential(torch.nn.LayerNorm(4))
    adapt(norm, 2)
    merge(norm)
    assert [type(layer) for layer in norm] == [torch.nn.LayerNorm]
