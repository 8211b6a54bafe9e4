"""A certificate tampered with in any way fails, and an honest one passes without trusting anything."""

import hashlib
import json
import os
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpwavelet.checkpoint import digest
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.privacy.accounting import Gaussian, event_to_json
from dpwavelet.privacy.certificate import (
    NOT_PROMISED,
    SENTENCES,
    make_certificate,
    mechanisms_allow,
    write_certificate,
)
from dpwavelet.privacy.keys import public_bytes
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.release_files import CERTIFICATE, SIGNATURE, digest_release, paths_in
from dpwavelet.privacy.verification import changed_model_files, verify_release
from dpwavelet.rounded import up

PLAN = PrivacyPlan(epsilon=1.0, delta=1e-4, records=2000, batch_size=64, steps=50, max_norm=1.0)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def certify(folder, plan=PLAN, **changes):
    arguments = {
        "files": digest_release(folder),
        "ledger_position": 3,
        "ledger_head": "ab" * 32,
        "private_scales": [1],
        "captions": "Captions were part of every record.",
    }
    return make_certificate(plan, **{**arguments, **changes})


@pytest.fixture
def release(tmp_path):
    """A small release, complete and signed."""
    folder = tmp_path / "release"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.safetensors").write_bytes(b"weights")
    (folder / "model" / "config.json").write_text('{"private_scales": 1}')
    (folder / "samples.jsonl").write_text("{}\n")
    write_certificate(folder, certify(folder), OWNER)
    return folder


def failures(folder, public_key=None):
    result = verify_release(folder, public_key)
    assert result.ok == all(ok for ok, _ in result.lines)
    return [text for ok, text in result.lines if not ok]


def promise_of(certificate):
    """What report.json tells of it."""
    told = {"promise": "statement", "epsilon": "epsilon", "delta": "delta", "unit": "unit"}
    shown = {"epsilon": up(certificate["epsilon"]), "delta": up(certificate["delta"])}
    return {name: certificate[field] for name, field in told.items()} | {"shown": shown, "sections": []}


def with_measurements(certificate):
    """The same with a number that looks bought."""
    table = {"title": "Measured with noise", "rows": [["Accuracy", 0.913]]}
    return promise_of(certificate) | {"sections": [{"id": "bought", "blocks": [table]}]}


def resign(folder, change, key=OWNER):
    """Let a dishonest owner change the certificate and sign it again."""
    certificate = json.loads((folder / CERTIFICATE).read_bytes())
    change(certificate)
    write_certificate(folder, certificate, key)


def test_an_honest_release_verifies_and_says_what_it_cannot_prove(release):
    result = verify_release(release)
    assert result.ok, result.lines
    assert any("whose certificate" in sentence for sentence in result.cannot_prove)
    assert any("declared number" in sentence for sentence in result.cannot_prove)
    assert any("captions, versions" in sentence for sentence in result.cannot_prove)
    known = verify_release(release, public_bytes(OWNER))
    assert known.ok
    assert len(known.cannot_prove) == len(result.cannot_prove) - 1


@pytest.mark.parametrize("path", ["model/weights.safetensors", "samples.jsonl"])
def test_a_changed_file_fails(release, path):
    (release / path).write_bytes(b"something else")
    assert f"{path} has been changed" in failures(release)


def test_a_missing_file_fails(release):
    (release / "samples.jsonl").unlink()
    assert "samples.jsonl is missing" in failures(release)


@pytest.mark.parametrize("path", ["extra.txt", ".hidden", "model/more.bin", "model/certificate.json"])
def test_an_extra_file_fails(release, path):
    (release / path).write_text("x")
    assert f"{path} is not in the certificate" in failures(release)


def test_what_differs_in_the_model_alone_is_named(release):
    assert changed_model_files(release) == []
    (release / "card.md").write_text("x")
    assert changed_model_files(release) == []
    listed = sorted(path for path in paths_in(release) if path.startswith("model/"))
    (release / listed[0]).write_bytes(b"x")
    (release / "model" / "zzz").write_bytes(b"x")
    assert changed_model_files(release) == [listed[0], "model/zzz"]
    (release / CERTIFICATE).write_text("[]")
    assert changed_model_files(release) == [CERTIFICATE]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("model/../../secret", "model/../../secret"),
        ("model/a\nok    signed", "model/a\\nok    signed"),
        ("model/\x1b[2J", "model/\\x1b[2J"),
    ],
)
def test_a_path_of_a_hostile_certificate_is_not_opened_nor_shown_as_it_is(
    release, tmp_path, monkeypatch, path, shown
):
    (tmp_path / "secret").write_text("x")
    resign(release, lambda certificate: certificate["files"].update({path: "0" * 64}))
    opened = []
    monkeypatch.setattr(
        "dpwavelet.privacy.verification.digest", lambda file: opened.append(file) or digest(file)
    )
    assert changed_model_files(release) == [shown]
    assert opened and all(file.resolve().is_relative_to(release) for file in opened)


def test_a_model_folder_that_is_a_link_is_named(release, tmp_path):
    (release / "model").rename(tmp_path / "model")
    (release / "model").symlink_to(tmp_path / "model")
    assert "model" in changed_model_files(release)


@pytest.mark.parametrize("name", [".DS_Store", "samples/._00001.png", "Thumbs.db"])
def test_what_a_file_browser_left_is_named_as_such_and_still_counts(release, name):
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_bytes(b"seen")
    told = failures(release)
    assert any(f"{name} is not in the certificate; a file browser leaves" in text for text in told)


@pytest.mark.skipif(os.name != "posix", reason="POSIX links")
@pytest.mark.parametrize("name", ["samples.jsonl", "linked", CERTIFICATE])
def test_a_link_fails_even_if_it_leads_to_the_right_content(release, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_bytes((release / name).read_bytes() if (release / name).exists() else b"")
    (release / name).unlink(missing_ok=True)
    (release / name).symlink_to(outside)
    assert f"{name} is a link or no plain file" in failures(release)


@pytest.mark.skipif(os.name != "posix", reason="POSIX links")
def test_a_linked_folder_is_not_entered(release, tmp_path):
    (release / "model").rename(tmp_path / "model")
    (release / "model").symlink_to(tmp_path / "model")
    assert "model is a link or no plain file" in failures(release)
    with pytest.raises(OutputError, match="copies, not links"):
        digest_release(release)


OUTSIDE = [
    "/etc/passwd",
    "../private/ledger.jsonl",
    "model/../../x",
    "C:\\x",
    "a\\..\\b",
    "./a",
    "a//b",
    "",
    "..",
    "a\x00",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leaves_the_release_is_never_opened(release, monkeypatch, path):
    resign(release, lambda certificate: certificate["files"].update({path: "0" * 64}))
    assert f"{path!r} would lead outside the release" in failures(release)


def test_any_change_of_the_certificate_breaks_the_signature(release):
    content = (release / CERTIFICATE).read_bytes()
    (release / CERTIFICATE).write_bytes(content.replace(b'"epsilon":1.0', b'"epsilon":0.5'))
    assert "the signature does not fit the certificate" in failures(release)
    (release / CERTIFICATE).write_bytes(content.replace(b'"epsilon":1.0', b'"epsilon": 1.0'))
    assert "canonical" in failures(release)[0]


def test_a_signature_by_somebody_else_fails_when_the_owner_is_known(release):
    forger = Ed25519PrivateKey.generate()
    resign(release, lambda certificate: None, key=forger)
    assert failures(release) == []  # nobody said who should have signed
    (told,) = failures(release, public_bytes(OWNER))
    assert told.startswith(f"the certificate is signed with another key ({public_bytes(forger).hex()[:16]}")
    assert public_bytes(OWNER).hex()[:16] in told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"algorithm":"none","public_key":"","signature":""}',
        b'{"algorithm":"Ed25519","public_key":"zz","signature":""}',
        b'{"algorithm":"Ed25519","public_key":"00","signature":"00"}',
    ],
)
def test_a_signature_that_is_no_signature_fails(release, content):
    (release / SIGNATURE).write_bytes(content)
    assert len(failures(release)) == 1
    assert len(failures(release, public_bytes(OWNER))) == 1


def test_a_missing_signature_or_certificate_fails(release):
    (release / SIGNATURE).unlink()
    assert "certificate.sig cannot be read" in failures(release)[0]
    (release / CERTIFICATE).unlink()
    assert "certificate.json cannot be read" in failures(release)[0]


def quiet(certificate):
    """Claim less noise than the promise needs."""
    certificate["events"][0]["noise_multiplier"] *= 0.99


def cheap(certificate):
    certificate["epsilon"] = certificate["plan"]["epsilon"] = 0.9


def short(certificate):
    certificate["events"][0]["steps"] = 49


def rare(certificate):
    certificate["events"][0]["sampling_rate"] = 0.03


def lesser(certificate):
    certificate["epsilon_pld"] *= 0.99


def tight(certificate):
    certificate["epsilon_rdp"] *= 0.9


def certain(certificate):
    certificate["delta"] = 1e-6


def loose(certificate):
    certificate["delta"] = certificate["plan"]["delta"] = 0.01


def silent(certificate):
    certificate["events"] = []


def strange(certificate):
    certificate["events"].append({"mechanism": "Magic"})


def hidden(certificate):
    certificate["events"].append({"mechanism": "Gaussian", "noise_multiplier": 3.0, "count": 1})


def grouped(certificate):
    certificate["unit"] = "person"


def many(certificate):
    certificate["records_declared"] = 10**6


def wide(certificate):
    certificate["max_norm"] = 0.1


def mute(certificate):
    del certificate["plan"]


def wordy(certificate):
    certificate["epsilon"] = "1.0"


def infinite(certificate):
    certificate["events"][0] = {
        "mechanism": "PoissonGaussian",
        "sampling_rate": 0.032,
        "noise_multiplier": 0.01,
        "steps": 10**9,
    }


LIES = [
    quiet,
    cheap,
    short,
    rare,
    lesser,
    tight,
    certain,
    loose,
    silent,
    strange,
    hidden,
    grouped,
    many,
    wide,
    mute,
]


@pytest.mark.parametrize("lie", [*LIES, wordy, infinite], ids=lambda lie: lie.__name__)
def test_a_certificate_that_contradicts_itself_fails_though_its_owner_signed_it(release, lie):
    resign(release, lie)
    found = failures(release, public_bytes(OWNER))
    assert found
    assert all("sign" not in text for text in found)


@pytest.mark.parametrize("files", [None, [], {"samples.jsonl": None}])
def test_a_certificate_without_a_list_of_files_fails(release, files):
    resign(release, lambda certificate: certificate.update(files=files))
    assert "the certificate lists no files" in failures(release)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b'{"epsilon":NaN}', b"\xff", b"{}"])
def test_a_certificate_that_is_no_certificate_fails(release, content):
    (release / CERTIFICATE).write_bytes(content)
    assert "certificate.json cannot be read" in failures(release)[0]


HISTOGRAM = Gaussian(50.0, 2)
BESIDE = replace(PLAN, others=(HISTOGRAM, Gaussian(60.0, 1)))


def fewer(certificate):
    certificate["events"].pop()


def more(certificate):
    """One that costs next to nothing, so that the stated epsilon covers it."""
    certificate["events"].append(event_to_json(Gaussian(5000.0, 1)))


def twice_as_noisy(certificate):
    certificate["events"][1]["noise_multiplier"] *= 2


def made_once(certificate):
    certificate["events"][1]["count"] = 1


def slightly_noisier(certificate):
    certificate["events"][0]["noise_multiplier"] *= 1.004


def in_another_order(certificate):
    certificate["events"].reverse()


def planned_without(certificate):
    certificate["plan"]["others"].pop()


@pytest.mark.parametrize(
    "lie",
    [fewer, more, twice_as_noisy, made_once, slightly_noisier, in_another_order, planned_without],
    ids=lambda lie: lie.__name__,
)
def test_a_certificate_lists_the_mechanisms_of_its_plan_and_no_other(release, lie):
    write_certificate(release, certify(release, BESIDE), OWNER)
    assert failures(release) == []
    resign(release, lie)
    assert any("disagree on events" in text for text in failures(release)), failures(release)


def test_a_certificate_for_people_shows_what_bounds_them(release):
    people = replace(PLAN, unit="person", group_by="patient", per_unit=3)
    write_certificate(release, certify(release, people), OWNER)
    result = verify_release(release)
    assert result.ok
    shown = [text for _, text in result.lines if "field 'patient'" in text]
    assert len(shown) == 1
    assert "at most 3" in shown[0]
    assert not any("contribution" in sentence for sentence in result.cannot_prove)


@pytest.mark.parametrize("change", [{"group_by": "name"}, {"per_unit": 1}, {"group_by": None}])
def test_a_certificate_for_people_that_says_something_else_in_words_fails(release, change):
    people = replace(PLAN, unit="person", group_by="patient", per_unit=3)
    write_certificate(release, certify(release, people), OWNER)
    resign(release, lambda certificate: certificate["plan"].update(change))
    assert any("contribution" in text for text in failures(release))


@pytest.mark.parametrize(
    "named", ["transformer.safetensors", "reference.safetensors", "detail.safetensors", None]
)
def test_the_public_model_in_a_release_is_compared_with_the_weights_that_are_named(release, named):
    brought = release / "model" / "reference.safetensors"
    brought.write_bytes(b"public")
    digest = hashlib.sha256(b"public").hexdigest()
    weights = {"public_weights": {named: digest}} if named else {}
    write_certificate(release, certify(release, extra=weights), OWNER)
    result = verify_release(release)
    assert result.ok, result.lines
    shown = [text for _, text in result.lines if brought.name in text]
    doubted = [text for text in result.cannot_prove if brought.name in text]
    known = named == "transformer.safetensors"  # a reference beside it is what a release started from
    assert (len(shown), len(doubted)) == ((1, 0) if known else (0, 1))
    brought.write_bytes(b"private")
    assert any("has been changed" in text for text in failures(release))
    lines = verify_release(release).lines
    assert not any(ok for ok, text in lines if brought.name in text)  # said of the file, not of its digest


@pytest.mark.parametrize("weights", [7, [], {"transformer.safetensors": 7}])
def test_public_weights_that_are_named_badly_prove_nothing(release, weights):
    (release / "model" / "reference.safetensors").write_bytes(b"public")
    write_certificate(release, certify(release, extra={"public_weights": weights}), OWNER)
    assert any("reference.safetensors is public" in text for text in verify_release(release).cannot_prove)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("report.json", lambda c: promise_of(c) | {"epsilon": 0.1}),
        ("report.json", lambda c: promise_of(c) | {"promise": "Nobody can tell anything."}),
        ("report.json", lambda c: promise_of(c) | {"unit": "person"}),
        ("report.json", lambda c: promise_of(c) | {"shown": {"epsilon": "0.1", "delta": "1e-9"}}),
        ("report.json", with_measurements),
        ("report.json", lambda c: {}),
        ("report.json", lambda c: []),
        ("model/card.json", lambda c: {"plan": c["plan"] | {"epsilon": 0.1}}),
        ("model/card.json", lambda c: f'{{"plan": {{"epsilon": 0.1}}, "plan": {json.dumps(c["plan"])}}}'),
        ("report.json", lambda c: json.dumps(promise_of(c)).replace("{", '{"epsilon": 0.1, ', 1)),
    ],
)
def test_another_promise_in_another_file_fails(release, path, told):
    content = told(certify(release))
    (release / path).write_text(content if isinstance(content, str) else json.dumps(content))
    write_certificate(release, certify(release), OWNER)
    (wrong,) = failures(release)
    assert wrong.startswith(path)


DIGESTS = ["a52b5fff", "91902b4b", "60ff375f"]  # of what releases out there must say
FORMATS = [f"dpwavelet certificate {number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("said", FORMATS)
@pytest.mark.parametrize("form", [*FORMATS, "dpwavelet certificate 4"])
def test_a_certificate_of_an_older_format_says_what_that_format_must(release, form, said):
    def older(certificate):
        certificate["format"] = form
        certificate["not_promised"] = list(SENTENCES[said])

    resign(release, older)
    assert (not failures(release)) is (form == said or (form, said) == (FORMATS[0], FORMATS[1]))


def test_what_each_format_says_stays_as_it_was():
    assert list(SENTENCES) == FORMATS
    digests = [
        hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:8] for texts in SENTENCES.values()
    ]
    assert digests == DIGESTS
    assert SENTENCES[FORMATS[2]] == NOT_PROMISED


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
def test_a_statement_may_not_promise_three_thousandths_too_much(release, epsilon):
    write_certificate(release, certify(release, replace(PLAN, epsilon=epsilon)), OWNER)
    assert not failures(release)
    allow = 100 * mechanisms_allow(replace(PLAN, epsilon=epsilon).events)

    def promise_more(certificate):
        said = re.search(r"at most ([0-9.]+)%", certificate["statement"])[1]
        less = f"{allow * 0.997:.4f}"
        certificate["statement"] = certificate["statement"].replace(f"most {said}%", f"most {less}%")

    resign(release, promise_more)
    assert any("disagree on statement" in text for text in failures(release))


def test_what_the_owner_overruled_is_told_with_the_promise(release):
    write_certificate(release, certify(release, allowed=["duplicates", "few-records"]), OWNER)
    told = [
        text for ok, text in verify_release(release).lines if ok and "the owner allowed beforehand" in text
    ]
    assert [text.split(": ")[0].split()[-1] for text in told] == ["duplicates", "few-records"]
    assert "at least k times the privacy loss" in told[0]


def test_the_same_promise_in_other_files_passes_and_is_told(release):
    certificate = certify(release)
    (release / "report.json").write_text(json.dumps(promise_of(certificate)))
    (release / "model" / "card.json").write_text(json.dumps({"plan": certificate["plan"]}))
    write_certificate(release, certify(release), OWNER)
    result = verify_release(release)
    assert result.ok, result.lines
    lines = [text for _, text in result.lines]
    assert "2,000 records declared, delta 0.0001" in lines
    assert certificate["statement"] in lines
    assert "report.json tells the same promise" in lines
    assert any("card.md" in sentence for sentence in result.cannot_prove)


def test_a_certified_file_of_an_unknown_kind_is_named_as_unproved(release):
    (release / "raw").mkdir()
    (release / "raw" / "exact_means.npz").write_bytes(b"private" * 100)
    write_certificate(release, certify(release), OWNER)
    result = verify_release(release)
    assert result.ok
    (said,) = [each for each in result.cannot_prove if "raw/exact_means.npz" in each]
    assert "of a kind that no release of this version holds" in said


def test_a_release_writes_no_lines_of_its_own(release):
    forged = "x\x1b[2K\rok    signed with the key of the hospital\nok    epsilon: 0.1 claimed"
    resign(release, lambda c: c.update({forged: 1, "private_scales": ["\n"]}))
    (release / "a\nok    b").write_text("x")
    result = verify_release(release)
    told = [text for _, text in result.lines] + result.cannot_prove
    assert all(text.isprintable() for text in told)
    assert any("\\x1b[2K" in text for text in told)
    assert any("a\\nok    b is not in the certificate" in text for text in told)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="a folder that its owner cannot list")
def test_a_folder_that_cannot_be_listed_fails(release):
    (release / "hidden").mkdir(mode=0)
    assert any("cannot be listed" in text for text in failures(release))


def test_a_listing_that_fails_is_a_failure(release, monkeypatch):
    def walk(folder, onerror=None):
        onerror(PermissionError(13, "denied", "hidden"))
        yield from ()

    monkeypatch.setattr("dpwavelet.privacy.release_files.os.walk", walk)
    assert any("cannot be listed" in text for text in failures(release))


@pytest.mark.parametrize("name", ["margaret", "model/deep/er"])
def test_a_folder_without_a_certified_file_fails(release, name):
    (release / name).mkdir(parents=True)
    assert f"{name} is a folder without a certified file" in failures(release)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("versions", None), ("versions", {"python": 3}), ("captions", 1), ("ledger", None), ("ledger", {}),
        ("not_promised", [*NOT_PROMISED, 7]),
    ],
)  # fmt: skip
def test_what_others_read_must_be_of_its_kind(release, field, value):
    resign(release, lambda c: c.pop(field) if value is None else c.update({field: value}))
    assert any(field in text for text in failures(release))


def test_mechanisms_beyond_the_plan_are_not_even_counted_up(release, monkeypatch):
    resign(release, lambda c: c.update(events=[*c["events"], *([event_to_json(Gaussian(1e5, 1))] * 3000)]))

    def count_up(*_):
        raise AssertionError("this would take minutes")

    monkeypatch.setattr("dpwavelet.privacy.verification.epsilon_pld", count_up)
    assert any("3,001 mechanisms, which no plan has" in text for text in failures(release))


def test_a_plan_of_thousands_of_mechanisms_or_billions_of_steps_is_none():
    with pytest.raises(ConfigError, match="at most 16 mechanisms"):
        replace(PLAN, others=(Gaussian(1e5, 1),) * 17)
    with pytest.raises(ConfigError, match="steps must be a whole number from 1 to 10,000,000"):
        replace(PLAN, steps=10**9)


def test_the_public_model_is_judged_by_itself_and_not_by_a_stray_file(release):
    (release / "model" / "reference.safetensors").write_bytes(b"public")
    weights = {"public_weights": {"transformer.safetensors": hashlib.sha256(b"public").hexdigest()}}
    write_certificate(release, certify(release, extra=weights), OWNER)
    (release / ".DS_Store").write_bytes(b"seen")
    result = verify_release(release)
    assert not result.ok
    assert any(ok and "reference.safetensors is a transformer" in text for ok, text in result.lines)
    assert not any("reference.safetensors is public" in text for text in result.cannot_prove)
