"""The whole audit by the command line: of drawn portraits for anyone, of private images for the owner."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from command_line import status_of

from dpwavelet.audit import run as module
from dpwavelet.audit.run import AuditSettings, DrawnAudit, PrivateAudit, expected_members
from dpwavelet.errors import ConfigError
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.privacy import plan as plans
from dpwavelet.privacy.budget import Cap, DataLedger, ledger_path
from dpwavelet.privacy.ledger import Ledger

QUICK = ["--steps", "3", "--batch-size", "50", "--canaries", "20", "--samples", "4"]


def call(*arguments):
    return status_of("audit", *arguments)


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
    assert audited["bounds"] == {
        "game, Poisson-sampled Gaussian": audited["game"]["gaussian"],
        "game, any mechanism": audited["game"]["any_mechanism"],
        "one run, canaries by updates": audited["by_updates"]["epsilon"],
        "one run, canaries by likelihood": audited["by_loss"]["epsilon"],
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
    monkeypatch.setattr(
        plans, "add_noise", lambda clipped, *_: {n: v.float() for n, v in clipped.values.items()}
    )
    arguments = ["--epsilon", 4, "--out", tmp_path, "--model", tiny_model, "--portraits", 220]
    assert call(*arguments, "--repeats", 60, *QUICK) == 1
    assert "OVER THE CLAIM" in capsys.readouterr().out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "data"
    draw_to(folder, 210, seed=3, size=32)
    return folder


def with_people(images, folder, person_of):
    """The same images, of which each has the person that `person_of` gives its number."""
    shutil.copytree(images, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"patient": person_of(index)}) for index, row in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_results_on_private_images_stay_private_and_are_charged(images, tiny_model, tmp_path, capsys):
    out, ledgers = tmp_path / "out", tmp_path / "ledgers"
    arguments = [images, "--epsilon", 4, "--out", out, "--model", tiny_model, "--ledger", ledgers, *QUICK]
    assert call(*arguments, "--repeats", 50) == 0, capsys.readouterr()
    assert [path.name for path in out.iterdir()] == ["private"]
    assert (out / "private").stat().st_mode & 0o077 == 0
    assert not (out / "private" / "checkpoint").exists()  # the key of its noise
    written = json.loads((out / "private" / "audit.json").read_text())
    assert written["private"] is True
    assert written["allowed"] == []
    assert "PRIVATE" in (out / "private" / "audit.txt").read_text()
    (spent,) = ledgers.glob("*.jsonl")
    assert spent.stem == PrivateImages.open(images, 32).fingerprint()
    for ledger in (Ledger.open(spent), Ledger.open(out / "private" / "ledger.jsonl")):
        (run,) = ledger.runs.values()
        assert (run.charged, run.closed) == (3, "finished")
    assert call(*arguments) == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())


def test_every_attack_is_judged_by_who_took_part(images, tiny_model, tmp_path, monkeypatch):
    """Guesses against coins turned round would find a sound build broken, and a broken one sound."""
    judged, joined, trained_on = [], [], []

    def spied(name, noted, about):
        function = getattr(module, name)

        def spy(*given, **options):
            noted.append(about(*given))
            return function(*given, **options)

        monkeypatch.setattr(module, name, spy)

    spied("join", joined, lambda first, second: (first.image, second.image))
    spied("train_privately", trained_on, lambda transformer, members, *rest: members.image)
    spied("one_run", judged, lambda scores, present, *rest: ("canaries", present))
    spied("membership", judged, lambda attack, scores, present, bound: ("images", present))
    spied("copying", judged, lambda samples, pictures, present, *rest: ("images", present))
    arguments = [images, "--epsilon", 4, "--out", tmp_path, "--model", tiny_model, "--repeats", 20, *QUICK]
    assert call(*arguments) == 0
    ((members,), ((own, canaries),)) = trained_on, joined
    rows = {"images": own, "canaries": canaries}
    took_part = {row.tobytes() for row in members}
    assert len(took_part) == len(members)  # no two rows alike, so a row is known by its tokens
    assert sorted(side for side, _ in judged) == ["canaries"] * 2 + ["images"] * 3
    for side, present in judged:
        assert present.tolist() == [row.tobytes() in took_part for row in rows[side]]


def test_people_are_audited_as_people(images, tiny_model, tmp_path, capsys, monkeypatch):
    data = with_people(images, tmp_path / "data", lambda index: f"p{index if index < 200 else index - 200}")
    trained_on = []
    train = module.train_privately

    def noted(transformer, members, plan, settings, *rest, **options):
        trained_on.append((members, plan, settings))
        return train(transformer, members, plan, settings, *rest, **options)

    monkeypatch.setattr(module, "train_privately", noted)
    arguments = [data, "--epsilon", 4, "--out", tmp_path / "out", "--model", tiny_model, *QUICK]
    assert call(*arguments, "--repeats", 50, "--group-by", "patient", "--per-person", 2) == 0
    assert "declared people" in capsys.readouterr().out
    ((members, plan, settings),) = trained_on
    assert (plan.unit, plan.group_by, plan.per_unit, plan.records) == ("person", "patient", 2, 100)
    assert settings.per_unit == 2
    (found,) = json.loads((tmp_path / "out" / "private" / "audit.json").read_text())["audits"]
    assert found["members"] == members.units
    sizes = np.bincount(members.owners)
    assert (sizes == 3).sum() in range(3, 18)  # of 20 canaries, each with three copies, half or so are in
    assert all(attack["members"] + attack["others"] == 200 for attack in found["membership"])


@pytest.mark.parametrize(
    ("name", "allowed"), [("several-per-person", True), ("duplicates", True), ("delta", False)]
)
def test_what_a_run_refuses_an_audit_refuses_before_anything_is_spent(
    images, tiny_model, tmp_path, capsys, name, allowed
):
    data, more = tmp_path / "data", []
    if name == "several-per-person":
        with_people(images, data, lambda index: f"p{index // 2}")
    else:
        shutil.copytree(images, data)
    if name == "duplicates":
        shutil.copy(data / "000001.png", data / "000002.png")
    if name == "delta":
        more = ["--delta", 0.01]
    out, ledgers = tmp_path / "out", tmp_path / "ledgers"
    arguments = [
        data,
        "--epsilon",
        4,
        "--out",
        out,
        "--model",
        tiny_model,
        "--ledger",
        ledgers,
        *QUICK,
        *more,
    ]
    assert call(*arguments) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"refused ({name})" in told
    assert (f"--allow {name}" in told) == allowed
    assert not out.exists()
    assert not ledgers.exists()


def test_what_the_owner_allowed_stands_in_the_audit(images, tiny_model, tmp_path):
    data = with_people(images, tmp_path / "data", lambda index: f"p{index // 2}")
    arguments = [data, "--epsilon", 4, "--out", tmp_path, "--model", tiny_model, "--repeats", 20, *QUICK]
    assert call(*arguments, "--allow", "several-per-person", "--ledger", tmp_path / "ledgers") == 0
    written = json.loads((tmp_path / "private" / "audit.json").read_text())
    assert [rule["name"] for rule in written["allowed"]] == ["several-per-person"]
    for attack in written["audits"][0]["membership"]:
        assert attack["curve"][-1] == [1.0, 1.0]
    (spent,) = (tmp_path / "ledgers").glob("*.jsonl")
    for ledger in (Ledger.open(spent), Ledger.open(tmp_path / "private" / "ledger.jsonl")):
        (run,) = ledger.runs.values()
        assert run.begun["allowed"] == ["several-per-person"]


def test_a_cap_stops_an_audit_and_leaves_nothing(images, tiny_model, tmp_path, capsys):
    fingerprint = PrivateImages.open(images, 32).fingerprint()
    ledger = DataLedger.open(ledger_path(fingerprint, tmp_path / "ledgers"), fingerprint)
    ledger.set_cap(Cap(1.0, 1e-4))
    out = tmp_path / "out"
    arguments = [images, "--epsilon", 4, "--out", out, "--model", tiny_model, *QUICK]
    assert call(*arguments, "--ledger", tmp_path / "ledgers") == 2
    assert "may cost epsilon 1" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_people_and_refusals_belong_to_private_images(tiny_model, tmp_path, capsys):
    for more in (
        ["--group-by", "patient"], ["--allow", "duplicates"], ["--per-person", "2"], ["--split", "train"],
        ["--ledger", tmp_path],
    ):  # fmt: skip
        assert call("--out", tmp_path, "--model", tiny_model, *more) == 2
        assert "about private images" in " ".join(capsys.readouterr().err.split())


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
