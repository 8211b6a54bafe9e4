"""Promises of a whole run that only a deliberate break showed to be untested; see tests/breaks."""

import json
import os
from pathlib import Path

import pytest

from dpwavelet.checkpoint import read_json
from dpwavelet.model import digests
from dpwavelet.pipeline import RunSettings, Silent, release, run
from dpwavelet.pipeline.release import Cost
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.training import PrivateTraining

TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)


def settings(model: Path) -> RunSettings:
    """A short run that is given no captions."""
    return RunSettings(
        epsilon=8.0,
        records=120,
        model=str(model),
        batch_size=30,
        steps=4,
        samples=2,
        training=TRAINING,
        judged=0,
    )


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    out = tmp_path_factory.mktemp("run") / "portraits"
    run(portraits, out, settings(tiny_model), Silent())
    return out


def test_all_but_the_transformer_leaves_as_it_came(finished: Path, tiny_model: Path) -> None:
    before, after = digests(tiny_model), digests(finished / "release" / "model")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"transformer.safetensors", "reference.safetensors", "card.json", "config.json"}
    assert after["reference.safetensors"] == before["transformer.safetensors"]
    public, private = (
        read_json(model / "config.json") for model in (tiny_model, finished / "release" / "model")
    )
    assert private == {**public, "reference": True}


def test_a_run_without_given_captions_takes_none_from_the_records(finished: Path) -> None:
    rows = (finished / "release" / "samples" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["", ""]


def test_no_diagnostic_of_private_training_is_in_the_release(finished: Path) -> None:
    steps = [json.loads(line) for line in (finished / "private" / "metrics.jsonl").read_text().splitlines()]
    losses = [str(step["loss"])[:8] for step in steps if step["loss"]]
    assert losses
    for path in (finished / "release").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".html"):
            text = path.read_text(encoding="utf-8")
            assert not [loss for loss in losses if loss in text], path


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_the_owner_may_enter_the_private_folder(finished: Path) -> None:
    assert (finished / "private").stat().st_mode & 0o077 == 0


def test_no_release_tells_how_long_its_training_took(finished: Path) -> None:
    """It follows how many records were drawn, and nothing pays for that."""
    facts = Cost(training=7418.3, sampling=61.77, machine="CPU").facts(samples=3)
    assert [fact.value for fact in facts] == ["about 62 seconds", "CPU"]
    for name in ("card.md", "report.html", "report.json", "certificate.json"):
        assert "Private training" not in (finished / "release" / name).read_text()
    assert "Private training" in (finished / "private" / "report.html").read_text()


def test_what_was_spent_before_an_interruption_stays_in_the_ledger(
    portraits: Path, tiny_model: Path, tmp_path: Path
) -> None:
    class Stop(Silent):
        now = ""

        def begin(self, stage: str, total: int) -> None:
            self.now = stage

        def advance(self, done: int, note: str = "") -> None:
            if self.now == "private training":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(portraits, tmp_path, settings(tiny_model), Stop())
    path = tmp_path / "private" / "ledger.jsonl"
    spent = path.read_bytes()
    assert [entry["kind"] for entry in Ledger.open(path).entries] == ["begun", "keyed", "charged"]
    run(portraits, tmp_path, settings(tiny_model), Silent())
    assert path.read_bytes().startswith(spent)


def test_a_failure_while_the_release_is_written_leaves_none_of_it(
    portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = release.write_certificate

    def killed(folder: Path, *args: object) -> None:
        if folder.parent == tmp_path:  # not in the rehearsal
            raise KeyboardInterrupt
        write(folder, *args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(release, "write_certificate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(portraits, tmp_path, settings(tiny_model), Silent())
    assert not (tmp_path / "release").exists()
    assert not list(tmp_path.glob(".release*"))
