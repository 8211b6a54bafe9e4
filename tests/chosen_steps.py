"""Private training with chosen batches and key, seen from inside: the sum and the losses of each step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.checkpoint import write_json
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens
from dpwavelet.training import Checkpoint, PrivateTraining, train_privately
from dpwavelet.transformer import ImageTransformer, TransformerConfig

STILL = {"learning_rate": 1e-30, "mixed_precision": False, "chunk": 16}
"""Weights that hardly move, so that steps can be compared with each other."""
CONFIG = TransformerConfig(words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=1, heads=2)


def fresh(kind: type[ImageTransformer] = ImageTransformer) -> ImageTransformer:
    model = kind(CONFIG)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def train(
    folder: Path,
    batches: Sequence[Sequence[int]],
    records: PrivateTokens,
    settings: PrivateTraining,
    monkeypatch: pytest.MonkeyPatch,
    model: ImageTransformer | None = None,
    seed: int | None = None,
    max_norm: float = 1.0,
) -> tuple[list[Tensor], list[list[float]]]:
    """Run one step for each batch; give its clipped sum as one vector, and the losses of its records.

    With a `seed` the key is one that anyone can predict.
    """
    plan = PrivacyPlan(
        epsilon=8, delta=1e-4, records=120, batch_size=30, steps=len(batches), max_norm=max_norm
    )
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
    if seed is not None:
        checkpoint = Checkpoint(folder / "work", plan, settings, "a")
        write_json(checkpoint.key_path, checkpoint.identity | {"key": Source.for_test(seed).key.hex()})
    with monkeypatch.context() as patch:
        patch.setattr(PrivacyPlan, "batches", chosen)
        patch.setattr(RecordClipper, "accumulate", seen)
        patch.setattr(PrivacyPlan, "privatize", released)
        train_privately(model or fresh(), records, plan, settings, folder / "work", ledger, "a")
    return sums, losses
