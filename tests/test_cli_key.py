"""The command line around keys, refusals, exports and the ledger of a run."""

import json
from pathlib import Path

import pytest
from command_line import call, refused

from dpwavelet.privacy.keys import KEY_VARIABLE
from dpwavelet.privacy.refusals import RULES


def test_one_key_is_shown_exported_used_and_recognised(
    portraits: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "owner.pem"))
    status, shown, told = call(capsys, "key", "show")
    assert (status, shown) == (2, "")  # a mistyped path makes no key that has signed nothing
    assert f"no key at {tmp_path / 'owner.pem'}" in " ".join(told.split())
    export = ("key", "export", "--out", tmp_path / "owner.pub")
    refused(capsys, export, f"no key at {tmp_path / 'owner.pem'}", "say --new")
    assert not (tmp_path / "owner.pem").exists()
    assert call(capsys, *export, "--new")[0] == 0
    refused(capsys, (*export, "--new"), "there is a key at")
    assert call(capsys, *export)[0] == 0
    refused(capsys, ("key", "show", "--key", tmp_path / "owner.pub"), "holds a public key")
    status, shown, told = call(capsys, "key", "show")
    assert (status, told) == (0, "")
    out = tmp_path / "run"
    status, _, errors = call(
        capsys, "train", portraits, "--epsilon", "8", "--model", tiny_model, "--steps", "2", "--batch-size",
        "30", "--out", out, "--allow", "duplicates", "--allow", "few-records", "--judge", "0",
    )  # fmt: skip
    assert status == 0, errors
    for known in (shown.strip(), tmp_path / "owner.pub"):
        status, text, _ = call(
            capsys, "verify", out / "release", "--public-key", known, "--ledger",
            out / "private" / "ledger.jsonl",
        )  # fmt: skip
        assert status == 0, text
        assert "the ledger holds this run" in text
        assert "whose certificate" not in text
        assert f"signed with the key that was given: {shown[:16]}" in text
    status, text, _ = call(capsys, "verify", out / "release")
    assert "signed with the key that the release brings, whosever it is" in text
    of_data = tmp_path / f"{'ab' * 32}.jsonl"
    of_data.write_text("")
    status, _, errors = call(capsys, "verify", out / "release", "--ledger", of_data)
    assert status == 2
    assert "private/ledger.jsonl" in " ".join(errors.split())
    status, text, _ = call(capsys, "verify", out / "release", "--public-key", "00" * 32)
    assert status == 1
    for form in ("registry", "nist"):
        status, text, _ = call(capsys, "export", out / "release", "--format", form)
        assert status == 0
        assert RULES["duplicates"].sentence in json.dumps(json.loads(text))
    card = out / "release" / "card.md"
    card.write_text(card.read_text() + " ")
    status, text, errors = call(capsys, "export", out / "release")
    assert status == 2
    assert "card.md has been changed" in errors
    assert text == ""


def test_a_key_that_nobody_named_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    status, _, errors = call(capsys, "key", "show")
    assert status == 2
    assert KEY_VARIABLE in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["leak", "anything"])
def test_what_cannot_be_allowed_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, _, errors = call(capsys, "run", tmp_path / "nowhere", "--epsilon", "8", "--allow", name)
    assert status == 2
    assert name in errors
    assert "several-per-person" in errors


def test_a_release_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = call(capsys, "export", tmp_path)
    assert status == 2
    assert "name a release folder" in errors
