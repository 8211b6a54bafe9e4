"""The whole audit by the command line: of drawn portraits for anyone, of private images for the owner."""

import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from dpwavelet import cli
from dpwavelet.audit.run import AuditSettings, DrawnAudit, PrivateAudit, expected_members
from dpwavelet.errors import ConfigError
from dpwavelet.images.drawn import draw_to
from dpwavelet.privacy import plan as plans
from dpwavelet.privacy.ledger import Ledger

QUICK = ["--steps", "3", "--batch-size", "50", "--canaries", "20", "--samples", "4"]


def call(*arguments):
    before, sys.argv = sys.argv, ["dpwavelet", "audit", *map(str, arguments)]
    try:
        cli.main()
        return 0
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before


def test_drawn_portraits_are_audited_and_written_down(tiny_model, tmp_path, capsys):
    status = call(
        "--epsilon", 4, "--out", tmp_path, "--model", tiny_model, "--portraits", 220, "--repeats", 60, *QUICK
    )
    printed = capsys.readouterr().out
    assert status == 0, printed
    written = json.loads((tmp_path / "audit.json").read_text())
    (audited,) = written["audits"]
    assert written["private"] is False
    assert audited["within_claim"]
    assert 0 < audited["bounds"]["game, Poisson-sampled Gaussian"] <= 4
    assert set(audited["bounds"].values()) == {
        audited["game"]["gaussian"],
        audited["game"]["any_mechanism"],
        audited["by_updates"]["epsilon"],
        audited["by_loss"]["epsilon"],
    }
    assert audited["plan"]["records"] == 100
    assert [attack["attack"] for attack in audited["membership"]] == ["likelihood", "likelihood gained"]
    assert 0 < audited["copying"]["p_value"] <= 1
    table = (tmp_path / "audit.txt").read_text()
    assert table.strip() in printed
    assert "under the claim" in table
    assert "Evidence, not proof" in table
    picture = ElementTree.fromstring((tmp_path / "roc-epsilon-4.svg").read_text())
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 5
    assert "href" not in (tmp_path / "roc-epsilon-4.svg").read_text()


def test_a_broken_build_ends_with_status_one(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plans, "add_noise", lambda clipped, *_: clipped.values)
    arguments = ["--epsilon", 4, "--out", tmp_path, "--model", tiny_model, "--portraits", 220]
    assert call(*arguments, "--repeats", 60, *QUICK) == 1
    assert "OVER THE CLAIM" in capsys.readouterr().out


def test_results_on_private_images_stay_private_and_are_charged(tiny_model, tmp_path, capsys):
    data, out, ledgers = tmp_path / "data", tmp_path / "out", tmp_path / "ledgers"
    draw_to(data, 210, seed=3, size=32)
    arguments = [data, "--epsilon", 4, "--out", out, "--model", tiny_model, "--ledger", ledgers, *QUICK]
    assert call(*arguments, "--repeats", 50) == 0
    assert [path.name for path in out.iterdir()] == ["private"]
    assert (out / "private").stat().st_mode & 0o077 == 0
    written = json.loads((out / "private" / "audit.json").read_text())
    assert written["private"] is True
    assert "PRIVATE" in (out / "private" / "audit.txt").read_text()
    (spent,) = ledgers.iterdir()
    for ledger in (Ledger.open(spent), Ledger.open(out / "private" / "ledger.jsonl")):
        (run,) = ledger.runs.values()
        assert (run.charged, run.closed) == (3, "finished")
    assert call(*arguments) == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())


def test_several_claims_on_private_images_are_refused(tiny_model, portraits, tmp_path, capsys):
    assert call(portraits, "--epsilon", 1, "--epsilon", 4, "--out", tmp_path, "--model", tiny_model) == 2
    assert "one --epsilon" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "private").exists()


def test_the_two_kinds_of_result_share_no_base():
    assert set(DrawnAudit.__mro__) & set(PrivateAudit.__mro__) == {object}


def test_half_of_the_images_are_declared():
    assert [expected_members(count) for count in (1001, 650, 250, 180)] == [500, 300, 100, 90]


@pytest.mark.parametrize("wrong", [{"canaries": 3}, {"samples": 0}, {"repeats": 0}, {"confidence": 1.0}])
def test_audits_too_small_to_mean_anything_are_refused(wrong):
    with pytest.raises(ConfigError):
        AuditSettings(**wrong)
