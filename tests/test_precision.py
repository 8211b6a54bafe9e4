"""Products in bfloat16 are taken where the processor has them, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dpwavelet import precision
from dpwavelet.model import create
from dpwavelet.precision import mixed_precision, multiplies_bfloat16, rounds_products
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.text import Vocabulary
from dpwavelet.training import PrivateTraining, loop
from dpwavelet.training.losses import record_losses
from dpwavelet.training.views import drawn_units

CPU = torch.device("cpu")


def has(monkeypatch: pytest.MonkeyPatch, they: bool) -> None:
    """Take this processor for one that has such products, or has none."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda kind: they)


@pytest.mark.parametrize(
    ("machine", "taken", "avx512", "amx", "expected"),
    [
        ("x86_64", False, False, False, False),  # AVX2 alone: many desktops
        ("x86_64", True, False, False, False),  # AVX512 without them: torch would emulate them
        ("AMD64", True, True, False, True),
        ("x86_64", True, False, True, True),
        ("aarch64", True, False, False, True),
        ("aarch64", False, False, False, False),
    ],
)
def test_a_processor_multiplies_them_only_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, taken: bool, avx512: bool, amx: bool, expected: bool
) -> None:
    monkeypatch.setattr(precision, "machine", lambda: machine)
    monkeypatch.setattr(torch._C, "_has_mkldnn", True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: taken)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision._processor_multiplies() is expected


def test_other_devices_are_asked_for_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not multiplies_bfloat16.__wrapped__("cuda")
    assert not multiplies_bfloat16.__wrapped__("mps")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert multiplies_bfloat16.__wrapped__("cuda")


@pytest.mark.parametrize("unknown", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_a_torch_that_no_longer_knows_a_question_is_taken_to_say_no(
    monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    monkeypatch.setattr(precision, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch._C, "_has_mkldnn", True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: False)
    monkeypatch.delattr(torch.cpu, unknown)
    assert not precision._processor_multiplies()


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("they", [True, False])
def test_products_are_rounded_where_that_is_wanted_and_there(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, they: bool
) -> None:
    has(monkeypatch, they)
    with mixed_precision(CPU, wanted):
        product = torch.ones(2, 3) @ torch.ones(3, 2)
    assert product.dtype == (torch.bfloat16 if wanted and they else torch.float32)
    assert rounds_products(CPU, wanted) is (wanted and they)


def test_without_them_a_private_step_computes_and_clips_as_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The margin for rounded products is part of the sensitivity, so it must go when they do."""
    transformer, settings = create("tiny", Vocabulary.of(), seed=0).transformer, PrivateTraining()
    rows = [each[:, 0] for each in drawn_units(transformer, (16,), 4, 6)][:3]
    plan = PrivacyPlan(epsilon=2.0, delta=1e-4, records=1000, batch_size=50, steps=3, max_norm=0.5)
    made: dict[bool, float] = {}
    losses: dict[bool, torch.Tensor] = {}
    for they in (True, False):
        has(monkeypatch, they)
        losses[they] = record_losses(transformer, settings, (16,), *rows)
        found = loop._checked_clipper(
            transformer, dict(transformer.named_parameters()), _Shapes(), plan, settings
        )
        made[they] = found[0].precision.rounding
    exact = record_losses(transformer, replace(settings, mixed_precision=False), (16,), *rows)
    assert torch.equal(losses[False], exact)
    assert not torch.equal(losses[True], exact)
    assert made == {True: 2.0**-8, False: 0.0}


class _Shapes:
    """What a clipper is told of records."""

    scales, captions, owners = (16,), np.zeros((1000, 1, 6), np.int16), None
