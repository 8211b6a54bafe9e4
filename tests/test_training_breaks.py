"""Promises of private training that only a deliberate break showed to be untested; see tests/breaks.

The batches are chosen by the test and the weights hardly move, so that steps can be compared with each other.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chosen_steps import STILL, fresh, train
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.training import PrivateTraining
from dpwavelet.transformer import ImageTransformer, RecordLosses


def made_up(count: int, captions: int) -> PrivateTokens:
    """Records of random tokens, each with so many different captions."""
    generator = np.random.default_rng(0)
    words = generator.integers(2, 40, size=(count, captions, 6), dtype=np.int16)
    words[:, :, 0] = 1
    rows = np.arange(CAPTION_CHOICES) % captions
    return PrivateTokens(generator.integers(16, size=(count, 4), dtype=np.int16), words[:, rows], (4,))


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
