"""Promises of private training that only a deliberate break showed to be untested; see tests/breaks.

The batches are chosen by the test and the weights hardly move, so that steps can be compared with each other.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.training import PrivateTraining, train_privately
from dpwavelet.transformer import ImageTransformer, RecordLosses, TransformerConfig

STILL = {"learning_rate": 1e-30, "mixed_precision": False, "chunk": 16}
CONFIG = TransformerConfig(words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=1, heads=2)


def fresh(kind: type[ImageTransformer] = ImageTransformer) -> ImageTransformer:
    model = kind(CONFIG)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def made_up(count: int, captions: int) -> PrivateTokens:
    """Records of random tokens, each with so many different captions."""
    generator = np.random.default_rng(0)
    words = generator.integers(2, 40, size=(count, captions, 6), dtype=np.int16)
    words[:, :, 0] = 1
    rows = np.arange(CAPTION_CHOICES) % captions
    return PrivateTokens(generator.integers(16, size=(count, 4), dtype=np.int16), words[:, rows], (4,))


def train(
    folder: Path,
    batches: Sequence[Sequence[int]],
    records: PrivateTokens,
    settings: PrivateTraining,
    monkeypatch: pytest.MonkeyPatch,
    model: ImageTransformer | None = None,
) -> tuple[list[Tensor], list[list[float]]]:
    """Run one step for each batch; give its clipped sum as one vector, and the losses of its records."""
    plan = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=len(batches), max_norm=1.0)
    sums: list[Tensor] = []
    losses: list[list[float]] = []
    privatize, accumulate = PrivacyPlan.privatize, RecordClipper.accumulate

    def chosen(*_: object, **__: object) -> Any:
        for step, batch in enumerate(batches):
            losses.append([])
            yield step, np.array(batch, dtype=np.int64)

    def seen(self: RecordClipper, *args: Any, **options: Any) -> Any:
        found = accumulate(self, *args, **options)
        losses[-1].extend(found.losses.tolist())
        return found

    def released(self: PrivacyPlan, clipped: Any, *args: Any, **options: Any) -> dict[str, Tensor]:
        sums.append(torch.cat([value.flatten() for value in clipped.values.values()]))
        return privatize(self, clipped, *args, **options)

    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
    with monkeypatch.context() as patch:
        patch.setattr(PrivacyPlan, "batches", chosen)
        patch.setattr(RecordClipper, "accumulate", seen)
        patch.setattr(PrivacyPlan, "privatize", released)
        train_privately(model or fresh(), records, plan, settings, folder / "work", ledger, "a")
    return sums, losses


def test_every_drawn_record_is_in_the_sum_of_its_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [[record] for record in range(40)]
    settings = PrivateTraining(**STILL, caption_dropout=0.0)
    (together, *single), _ = train(tmp_path, [range(40), *alone], made_up(40, 1), settings, monkeypatch)
    assert all(0.9 < float(one.norm()) <= 1 for one in single)  # so that each of them would be missed
    assert float((together - torch.stack(single).sum(0)).norm()) < 1e-4


def test_a_record_has_the_same_loss_whoever_is_drawn_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = [3, 7, 20], [0, 3, 5, 7, 20, 31]
    settings = PrivateTraining(**STILL, caption_dropout=0.5)
    found = []
    for name, batch in (("few", few), ("many", many)):
        if name == "many":  # the same key, so the same captions
            (tmp_path / name / "work").mkdir(parents=True)
            key = (tmp_path / "few" / "work" / "run.json").read_bytes()
            (tmp_path / name / "work" / "run.json").write_bytes(key)
        _, losses = train(tmp_path / name, [batch] * 16, made_up(40, 5), settings, monkeypatch)
        found.append([dict(zip(batch, step, strict=True)) for step in losses])
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx({record: theirs[record] for record in few}, abs=1e-5)
    assert len({round(step[3], 3) for step in found[0]}) > 1  # the captions do change from step to step


class Hiding(ImageTransformer):
    """Uses the weight of its word head outside that layer's call."""

    def losses(self, captions: Tensor, tokens: Sequence[Tensor]) -> RecordLosses:
        found = super().losses(captions, tokens)
        return replace(found, image=found.image + self.word_head.weight.square().sum())


def test_a_model_that_hides_a_use_of_its_weights_is_refused_before_anything_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="do not add up"):
        train(tmp_path, [[0, 1]], made_up(40, 1), PrivateTraining(**STILL), monkeypatch, fresh(Hiding))
    assert Ledger.open(tmp_path / "ledger.jsonl").charged_steps("a") == 0
