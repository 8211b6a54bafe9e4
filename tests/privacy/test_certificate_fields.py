"""Every field of a certificate is changed, and signed again by its dishonest owner: `verify` must notice."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.budget import begun
from dpwavelet.privacy.certificate import FALSE_ALARMS, attack, make_certificate, statement, write_certificate
from dpwavelet.privacy.keys import (
    KEY_VARIABLE,
    key_file,
    public_bytes,
    public_pem,
    read_public_key,
    signing_key,
)
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.release_files import CERTIFICATE, digest_release
from dpwavelet.privacy.verification import SAID, read_certificate, verify_release

PLAN = PrivacyPlan(epsilon=1.0, delta=1e-4, records=2000, batch_size=64, steps=50, max_norm=1.0)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def ledger(tmp_path):
    """The ledger of two runs, of which the second is certified."""
    ledger = Ledger.open(tmp_path / "private" / "ledger.jsonl")
    for run, plan in (("first", replace(PLAN, epsilon=3.0)), ("second", PLAN)):
        ledger.append(begun(run, plan, "images", allowed=["duplicates"]))
        ledger.append({"kind": "charged", "run": run, "steps": 50})
        ledger.append({"kind": "finished", "run": run})
    return ledger


@pytest.fixture
def release(tmp_path, ledger):
    """A small release of the second run, complete and signed."""
    folder = tmp_path / "release"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text('{"private_scales": 1}')
    certificate = make_certificate(
        PLAN,
        files=digest_release(folder),
        ledger_position=5,
        ledger_head=ledger.head,
        private_scales=[1],
        captions="Captions were part of every record.",
        allowed=["duplicates"],
        extra={"public_weights": {"transformer.safetensors": "ab" * 32}},
    )
    write_certificate(folder, certificate, OWNER)
    return folder


def failures(folder: Path, **known):
    return [text for ok, text in verify_release(folder, public_bytes(OWNER), **known).lines if not ok]


def resign(folder: Path, change) -> None:
    certificate = json.loads((folder / CERTIFICATE).read_bytes())
    change(certificate)
    write_certificate(folder, certificate, OWNER)


def leaves(value, path=()):
    """The path of every number and text in a JSON value."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, inner in items for leaf in leaves(inner, (*path, name))]
    return [path]


def put(value, path, change):
    """The same JSON with one leaf changed."""
    value = copy.deepcopy(value)
    place = value
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = change(place[path[-1]])
    return value


def changed(leaf):
    """Another value of the same kind, in the direction that promises more."""
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        return leaf + 1
    if isinstance(leaf, float):
        return leaf * 0.9
    return [*leaf, 7] if isinstance(leaf, list) else f"not {leaf}"


def test_every_leaf_that_can_be_checked_is(release, ledger):
    certificate = read_certificate(release)
    kept = []
    for path in leaves(certificate):
        write_certificate(release, put(certificate, path, changed), OWNER)
        if not failures(release, ledger=ledger.path):
            kept.append(path[0])
    assert set(kept) <= set(SAID)


def test_every_field_that_is_left_out_is_missed(release, ledger):
    certificate = read_certificate(release)
    for name in certificate.keys() - set(SAID):
        write_certificate(
            release, {other: value for other, value in certificate.items() if other != name}, OWNER
        )
        assert failures(release, ledger=ledger.path), name


def test_what_cannot_be_checked_is_named(release):
    resign(release, lambda certificate: certificate.update(quality="the best"))
    sentence = verify_release(release).cannot_prove[-1]
    assert all(name in sentence for name in ("captions", "versions", "public_weights", "quality"))


def test_numbers_about_records_that_no_mechanism_paid_for_are_noticed(release):
    resign(release, lambda certificate: certificate.update(measured=[{"metric": "fd", "value": 3.0}]))
    assert any("measured" in text for text in failures(release))
    assert "measured" in verify_release(release).cannot_prove[-1]
    resign(release, lambda certificate: certificate.update(measured=[]))
    assert not failures(release)


@pytest.mark.parametrize("scales", ["1000000000000", "1" + 30 * "0", "0", "true", '"1"', "[" * 100_000])
def test_a_model_that_tells_nonsense_of_its_scales_is_no_more_than_wrong(release, scales):
    (release / "model" / "config.json").write_text(f'{{"private_scales": {scales}}}')
    found = " ".join(failures(release))
    assert "model/config.json says" in found or "model/config.json cannot be read" in found


def test_a_signature_without_end_is_no_more_than_wrong(release):
    (release / "certificate.sig").write_text("[" * 100_000)
    assert any("certificate.sig cannot be read" in text for text in failures(release))


def test_any_changed_leaf_breaks_the_signature(release):
    certificate = read_certificate(release)
    signature = (release / "certificate.sig").read_bytes()
    for path in leaves(certificate):
        if path == ("format",):
            continue
        write_certificate(release, put(certificate, path, changed), OWNER)
        (release / "certificate.sig").write_bytes(signature)
        assert "the signature does not fit the certificate" in failures(release), path


def quieter_words(certificate):
    certificate["statement"] = certificate["statement"].replace("at most 2.", "at most 1.")


def gentler_attack(certificate):
    certificate["attack"]["from_epsilon_delta"] = 0.011


def rarer_alarms(certificate):
    certificate["attack"]["false_positive_rate"] = 0.001


def kinder_reason(certificate):
    certificate["allowed"][0]["sentence"] = "Nothing of importance."


def impossible_allowance(certificate):
    certificate["allowed"] = [{"name": "leak", "sentence": "x"}]


def fewer_warnings(certificate):
    certificate["not_promised"] = certificate["not_promised"][1:]


def more_scales(certificate):
    certificate["private_scales"] = []


def more_noise(certificate):
    certificate["events"][0]["noise_multiplier"] *= 2


def accountant_above_epsilon(certificate):
    certificate["epsilon_pld"] = 1.5


@pytest.mark.parametrize(
    "lie",
    [
        quieter_words, gentler_attack, rarer_alarms, kinder_reason, impossible_allowance, fewer_warnings,
        more_scales, more_noise, accountant_above_epsilon,
    ],
    ids=lambda lie: lie.__name__,
)  # fmt: skip
def test_a_signed_lie_in_words_or_numbers_is_noticed(release, lie):
    assert "at most 2." in statement(PLAN)
    resign(release, lie)
    assert failures(release)


def test_the_attack_is_bounded_by_the_budget_and_lower_by_the_mechanisms():
    bounds = attack(PLAN)
    assert bounds["false_positive_rate"] == FALSE_ALARMS == 0.01
    assert bounds["from_epsilon_delta"] == pytest.approx(0.01 * 2.718281828 + 1e-4)  # e^1 x 1% + delta
    assert 0.01 < bounds["from_mechanisms"] < bounds["from_epsilon_delta"]


def quieter_by_less_than_versions_differ(certificate):
    certificate["events"][0]["noise_multiplier"] *= 1.001


class TestLedger:
    """`verify --ledger`: the certified place is the end of this very run."""

    def test_the_owners_ledger_confirms_the_run(self, release, ledger):
        result = verify_release(release, public_bytes(OWNER), ledger.path)
        assert result.ok, result.lines
        assert result.lines[-1][1] == "the ledger holds this run at entry 5"
        assert not any("give the ledger" in sentence for sentence in result.cannot_prove)
        assert any("give the ledger" in sentence for sentence in verify_release(release).cannot_prove)

    def test_it_may_have_grown_since(self, release, ledger):
        ledger.append(begun("third", PLAN, "images"))
        assert failures(release, ledger=ledger.path) == []

    @pytest.mark.parametrize("position", [-1, 2, 4, 6, None, True])
    def test_another_place_fails(self, release, ledger, position):
        resign(release, lambda certificate: certificate["ledger"].update(position=position))
        assert failures(release, ledger=ledger.path)

    @pytest.mark.parametrize("head", ["0" * 64, "ab" * 32, None])
    def test_another_head_fails(self, release, ledger, head):
        resign(release, lambda certificate: certificate["ledger"].update(head=head))
        assert "certified head" in failures(release, ledger=ledger.path)[0]

    def test_another_ledger_a_torn_one_and_none_fail(self, release, ledger, tmp_path):
        other = Ledger.open(tmp_path / "other.jsonl")
        for entry in ledger.entries:
            other.append(entry)  # the same entries under other salts
        assert failures(release, ledger=other.path)
        ledger.path.write_bytes(ledger.path.read_bytes()[:-10])
        assert "line 6" in failures(release, ledger=ledger.path)[0]
        assert failures(release, ledger=tmp_path / "nowhere.jsonl")

    def test_a_run_that_overruled_other_refusals_fails(self, release, tmp_path):
        for allowed, fails in (([], True), (["few-records"], True), (["duplicates"], False)):
            ledger = Ledger.open(tmp_path / f"{allowed}.jsonl")
            ledger.append(begun("second", PLAN, "images", allowed=allowed))
            ledger.append({"kind": "charged", "run": "second", "steps": 50})
            ledger.append({"kind": "finished", "run": "second"})
            resign(release, lambda c, ledger=ledger: c["ledger"].update(position=2, head=ledger.head))
            found = failures(release, ledger=ledger.path)
            assert bool(found) == fails
            assert not fails or "overruled other refusals" in found[0]

    def test_a_run_that_was_not_charged_whole_fails(self, release, tmp_path):
        ledger = Ledger.open(tmp_path / "short.jsonl")
        ledger.append(begun("second", PLAN, "images", allowed=["duplicates"]))
        ledger.append({"kind": "charged", "run": "second", "steps": 49})
        ledger.append({"kind": "finished", "run": "second"})
        resign(release, lambda c: c["ledger"].update(position=2, head=ledger.head))
        assert "not charged whole" in failures(release, ledger=ledger.path)[0]

    def test_a_run_of_another_plan_or_with_other_noise_fails(self, release, ledger):
        resign(release, lambda c: c["ledger"].update(position=2))
        assert "another plan" in failures(release, ledger=ledger.path)[0]
        resign(release, lambda c: c["ledger"].update(position=5))
        assert failures(release, ledger=ledger.path) == []
        resign(release, quieter_by_less_than_versions_differ)
        assert failures(release) == []
        assert "another plan" in failures(release, ledger=ledger.path)[0]


class TestKey:
    """One key for all runs, and its public half for reviewers."""

    def test_a_key_is_named_by_argument_before_environment(self, monkeypatch):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        assert key_file(None) is None
        monkeypatch.setenv(KEY_VARIABLE, "all.pem")
        assert key_file(None) == Path("all.pem")
        assert key_file(Path("mine.pem")) == Path("mine.pem")

    def test_a_public_key_is_read_from_digits_and_from_either_kind_of_file(self, tmp_path):
        wanted = public_bytes(OWNER)
        (tmp_path / "owner.pub").write_bytes(public_pem(OWNER))
        (tmp_path / "owner.hex").write_text(wanted.hex() + "\n")
        for given in (wanted.hex(), wanted.hex().upper(), tmp_path / "owner.pub", tmp_path / "owner.hex"):
            assert read_public_key(str(given)) == wanted
        loaded = load_pem_public_key(public_pem(OWNER))  # as any other program reads it
        assert loaded.public_bytes(Encoding.Raw, PublicFormat.Raw) == wanted

    def test_what_is_no_public_key_is_refused(self, tmp_path):
        other = generate_private_key(SECP256R1())
        pem = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "other.pub").write_bytes(pem)
        (tmp_path / "empty").write_bytes(b"")
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        for given in ("ab", "zz" * 32, tmp_path / "other.pub", tmp_path / "empty", tmp_path / "binary"):
            with pytest.raises(ConfigError, match=r"key"):
                read_public_key(str(given))

    def test_a_key_of_another_kind_is_refused(self, tmp_path):
        path = tmp_path / "other.pem"
        other = generate_private_key(SECP256R1())
        path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="Ed25519"):
            signing_key(path)
