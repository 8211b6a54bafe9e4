"""A certificate says what is promised, in numbers and words, and nothing that comes from the records."""

import json
import os
import stat
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dpwavelet.checkpoint import canonical_json
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.certificate import NOT_PROMISED, contribution, make_certificate, statement
from dpwavelet.privacy.keys import public_bytes, sign, signing_key
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.release_files import CERTIFICATE, SIGNATURE
from dpwavelet.randomness import Source

PLAN = PrivacyPlan(epsilon=1.0, delta=1e-4, records=2000, batch_size=64, steps=50, max_norm=1.0)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def certify(plan=PLAN, **changes):
    arguments = {
        "files": {"samples.jsonl": "cd" * 32},
        "ledger_position": 3,
        "ledger_head": "ab" * 32,
        "private_scales": [1],
        "captions": "Captions were part of every record.",
    }
    return make_certificate(plan, **{**arguments, **changes})


def test_the_certificate_says_everything_that_is_needed_to_recompute_the_promise():
    certificate = json.loads(canonical_json(certify()))
    assert certificate["events"] == [
        {
            "mechanism": "PoissonGaussian",
            "sampling_rate": 0.032,
            "noise_multiplier": PLAN.noise_multiplier,
            "steps": 50,
        }
    ]
    assert certificate["epsilon"] == 1.0 >= certificate["epsilon_pld"]
    assert certificate["epsilon_rdp"] > certificate["epsilon_pld"]
    assert certificate["unit"] == "record"
    assert certificate["neighbours"] == "add or remove one record"
    assert certificate["records_declared"] == 2000
    assert certificate["delta"] == 1e-4
    assert certificate["max_norm"] == 1.0
    assert certificate["private_scales"] == [1]
    assert certificate["captions"] == "Captions were part of every record."
    assert certificate["ledger"] == {"position": 3, "head": "ab" * 32}
    assert certificate["not_promised"] == list(NOT_PROMISED)
    assert {"torch", "dp-accounting"} <= certificate["versions"].keys()
    assert certificate["files"] == {"samples.jsonl": "cd" * 32}


def test_the_certificate_is_a_function_of_public_arguments_alone():
    # The true number of records enters only `batches`; two owners with different data certify the same.
    again = PrivacyPlan.from_json(PLAN.to_json())
    list(again.batches(1987, Source()))
    content = canonical_json(certify())
    assert canonical_json(certify(again)) == content
    assert b"1987" not in content
    assert b"fingerprint" not in content


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../private/ledger.jsonl", "./a", "", CERTIFICATE, SIGNATURE]
)
def test_no_certificate_is_made_for_a_path_that_leaves_the_release_or_for_itself(path):
    with pytest.raises(ConfigError, match="no path inside"):
        certify(files={path: "0" * 64})


def test_extra_facts_are_kept_but_may_not_replace_the_promise():
    assert certify(extra={"title": "faces"})["title"] == "faces"
    with pytest.raises(ConfigError, match="epsilon"):
        certify(extra={"epsilon": 0.1})


def test_what_bounds_a_person_is_said_by_the_name_of_the_field_and_the_number_of_records():
    people = replace(PLAN, unit="person", group_by="patient", per_unit=3, max_norm=0.5)
    certificate = certify(people)
    assert (certificate["plan"]["group_by"], certificate["plan"]["per_unit"]) == ("patient", 3)
    assert certificate["contribution"] == contribution(people)
    for words in ("field 'patient'", "at most 3 of their records", "norm 0.5"):
        assert words in contribution(people)
    assert "nothing bounds how many" in certify()["contribution"]
    assert "as the owner tells" in contribution(replace(PLAN, unit="person"))


def test_a_signing_key_is_made_once_and_only_the_owner_may_read_it(tmp_path):
    path = tmp_path / "keys" / "owner.pem"
    key = signing_key(path)
    again = signing_key(path)
    assert public_bytes(key) == public_bytes(again)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with pytest.raises(PrivacyError, match="chmod 600"):
            signing_key(path)


def test_a_broken_signing_key_is_refused_and_not_replaced(tmp_path):
    path = tmp_path / "owner.pem"
    signing_key(path)
    path.write_text("not a key")
    with pytest.raises(ConfigError, match="no usable key"):
        signing_key(path)
    assert path.read_text() == "not a key"


def test_a_signature_is_ed25519_and_can_be_checked_without_this_library():
    claim = json.loads(sign(b"words", OWNER))
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(claim["public_key"]))
    key.verify(bytes.fromhex(claim["signature"]), b"words")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"records": 5000, "delta": 5000**-1.1}, "up to a probability of 8.6e-05."),  # 8.534e-05
        ({"records": 700, "delta": 700**-1.1}, "up to a probability of 0.00075."),  # 0.000742
        ({"delta": 1e-4}, "up to a probability of 0.0001."),
        ({"epsilon": 1.0000001}, "e^1.00001,"),
        ({"epsilon": 0.5}, "e^0.5,"),
    ],
)
def test_the_statement_rounds_what_it_promises_up(changes, words):
    assert words in statement(replace(PLAN, **changes))


def test_the_statement_says_in_plain_words_what_an_attacker_can_achieve():
    words = statement(PLAN)
    assert "any one record" in words
    assert "e^1," in words
    share = float(words.split("at most ")[-1].split("%")[0])
    assert 1 < share < 2.7  # guessing gives 1 percent, epsilon alone would allow e percent
