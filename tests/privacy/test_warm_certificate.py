"""What a certificate says of a warm start and a likeness, and what `verify` confirms of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpwavelet.privacy.accounting import Gaussian
from dpwavelet.privacy.certificate import LIKENESS, WARM_START, make_certificate, write_certificate
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.release_files import digest_release
from dpwavelet.privacy.verification import verify_release

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PLAIN = PrivacyPlan(epsilon=4.0, delta=1e-4, records=2000, batch_size=64, steps=20, max_norm=1.0)
ONE, TWO = (replace(PLAIN, others=(Gaussian(20.0, 1),) * count) for count in (1, 2))
MEASURED = [{"metric": "fd", "value": 3.0}]


def told(folder: Path, plan: PrivacyPlan, **extra: Any) -> tuple[bool, str]:
    """Whether a release with this certificate verifies, and all lines about it."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text('{"private_scales": 1}')
    certificate = make_certificate(
        plan, files=digest_release(folder), ledger_position=1, ledger_head="0" * 64, private_scales=[1],
        captions="none", extra=extra,
    )  # fmt: skip
    write_certificate(folder, certificate, OWNER)
    result = verify_release(folder)
    return result.ok, "\n".join(text for _, text in result.lines)


def test_what_a_warm_start_is_can_be_read_where_its_cost_was_recomputed(tmp_path: Path) -> None:
    ok, lines = told(tmp_path, ONE, warm_start=WARM_START)
    assert ok and WARM_START in lines
    ok, lines = told(tmp_path, ONE)
    assert ok and WARM_START not in lines


def test_a_warm_start_that_no_mechanism_paid_for_is_noticed(tmp_path: Path) -> None:
    ok, lines = told(tmp_path, PLAIN, warm_start=WARM_START)
    assert not ok and "disagree on warm_start" in lines and WARM_START not in lines


def test_one_mechanism_does_not_pay_for_metrics_and_a_start(tmp_path: Path) -> None:
    assert not told(tmp_path, ONE, warm_start=WARM_START, measured=MEASURED)[0]
    assert told(tmp_path, TWO, warm_start=WARM_START, measured=MEASURED)[0]
    assert told(tmp_path, ONE, measured=MEASURED)[0]


@pytest.mark.parametrize("words", ["", "It costs nothing.", None, 1])
def test_other_words_for_it_are_noticed(tmp_path: Path, words: object) -> None:
    assert not told(tmp_path, ONE, warm_start=words)[0]


def test_a_likeness_that_no_mechanism_paid_for_is_noticed(tmp_path: Path) -> None:
    ok, lines = told(tmp_path, PLAIN, likeness=LIKENESS)
    assert not ok and "disagree on likeness" in lines
    ok, lines = told(tmp_path, ONE, likeness=LIKENESS)
    assert ok and LIKENESS in lines
    assert not told(tmp_path, ONE, likeness="It costs nothing.")[0]


def test_two_mechanisms_do_not_pay_for_three_sums(tmp_path: Path) -> None:
    said = {"likeness": LIKENESS, "warm_start": WARM_START}
    assert not told(tmp_path, ONE, **said)[0]
    assert told(tmp_path, TWO, **said)[0]
    assert not told(tmp_path, TWO, **said, measured=MEASURED)[0]


def test_a_likeness_that_nothing_is_said_of_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "likeness.safetensors").write_bytes(b"numbers about records")
    ok, lines = told(tmp_path, ONE)
    assert not ok and "disagree on likeness" in lines
    assert told(tmp_path, ONE, likeness=LIKENESS)[0]
