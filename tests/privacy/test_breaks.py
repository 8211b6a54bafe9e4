"""Promises of `privacy` that only a deliberate break showed to be untested; see tests/breaks."""

import fcntl
import os
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from dpwavelet.privacy.accounting import PoissonGaussian, attack_bound, calibrate_noise, epsilon_pld
from dpwavelet.privacy.certificate import make_certificate, statement, write_certificate
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.release_files import CERTIFICATE
from dpwavelet.randomness import Source


@pytest.mark.parametrize(("precision", "distance"), [("exact", 2.0**-14), ("fast", 4.5 * 2.0**-8)])
def test_a_clipped_record_keeps_its_distance_from_the_bound(precision: str, distance: float) -> None:
    """That room is what rounding may use up elsewhere: exact 2**-13, fast 2**-8 and 2**-6 for products."""
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 40, bias=False), 10 * torch.randn(1, 40)
    clipper = RecordClipper(nn.Sequential(layer), max_norm=1.0, precision=precision)
    clipper.accumulate(lambda x: layer(x).square().sum(1), x)
    (total,) = clipper.finish().values.values()
    assert 0.98 < float(total.double().norm()) <= 1 - distance


def test_a_new_key_has_256_bits_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter((bytes(range(32)), bytes(range(32, 64))))
    monkeypatch.setattr(os, "urandom", lambda count: next(given)[:count])
    assert [Source().key for _ in range(2)] == [bytes(range(32)), bytes(range(32, 64))]


def test_a_charge_waits_while_somebody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has the lock first and charges; ours reads that charge before it writes its own."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.open(path)
    ledger.append({"kind": "begun", "run": "a", "plan": {"steps": 9}})
    flock, waited = fcntl.flock, []

    def somebody_else_first(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and not waited:
            waited.append(operation)
            Ledger.open(path).append({"kind": "charged", "run": "a", "steps": 4})
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", somebody_else_first)
    ledger.append({"kind": "charged", "run": "a", "steps": 9})
    assert waited
    assert [entry.get("steps") for entry in Ledger.open(path).entries] == [None, 4, 9]


@pytest.mark.parametrize("miss", [1.0001, 1.0005, 1.0015])
def test_calibration_takes_no_noise_that_nearly_reaches_the_target(miss: float) -> None:
    """The search begins at noise 1, which costs a little more than may be spent."""
    epsilon = epsilon_pld([PoissonGaussian(1.0, 1.0, 36)], 1e-5) / miss
    noise = calibrate_noise(epsilon=epsilon, delta=1e-5, sampling_rate=1.0, steps=36)
    assert epsilon_pld([PoissonGaussian(1.0, noise, 36)], 1e-5) <= epsilon


@pytest.mark.parametrize("steps", [50, 70])
def test_no_number_of_a_certificate_is_rounded_in_its_own_favour(tmp_path: Path, steps: int) -> None:
    plan = PrivacyPlan(epsilon=2.0, delta=1e-4, records=2000, batch_size=64, steps=steps, max_norm=1.0)
    certificate = make_certificate(
        plan, files={}, ledger_position=0, ledger_head="", private_scales=[1], captions="none"
    )
    write_certificate(tmp_path, certificate, Ed25519PrivateKey.generate())
    assert certificate["epsilon_pld"] == plan.pld_epsilon
    assert certificate["epsilon_rdp"] == plan.rdp_epsilon
    assert repr(plan.pld_epsilon) in (tmp_path / CERTIFICATE).read_text()
    assert float(statement(plan).split("at most ")[-1].split("%")[0]) >= 100 * attack_bound(plan.events, 0.01)
