"""The owner's report: what it measures, that none of it reaches the release, what it says when it cannot."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dpwavelet import Pipeline
from dpwavelet.checkpoint import write_json
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.generation import Sampling
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, Silent, judge_again, owner_report, run
from dpwavelet.pipeline.bought import Prepared, prepare
from dpwavelet.pipeline.judgement import Evidence, gather
from dpwavelet.pipeline.owner_parts import COMPARED, PARTS, Released
from dpwavelet.pipeline.owner_report import _audit as _audit_blocks
from dpwavelet.pipeline.owner_report import check_audit, measured
from dpwavelet.pipeline.release import Seal
from dpwavelet.pipeline.settings import FEWEST
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.report import Missing
from dpwavelet.training import PrivateTraining, resuming

CAPTIONS = ("a woman with red hair", "a man with a beard")
TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)


def settings(model: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 3, "samples": 3,
        "captions": CAPTIONS, "training": TRAINING, "judged": 40, "release_metrics": ("fd", "accuracy"),
        "metrics_epsilon": 2.0, "classes": ("woman", "man"),
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run that was judged, and that bought two numbers."""
    out = tmp_path_factory.mktemp("run") / "portraits"
    run(portraits, out, settings(tiny_model), Silent())
    return out


@pytest.fixture(scope="module")
def evidence(portraits: Path, tiny_model: Path) -> Evidence:
    pipeline = Pipeline(Model.from_pretrained(tiny_model))
    return gather(PrivateImages.open(portraits, 32), pipeline, pipeline, settings(tiny_model), Silent())


class TestRun:
    def test_the_owners_page_and_its_twin_lie_in_private(self, finished: Path) -> None:
        page = (finished / "private" / "report.html").read_text()
        twin = json.loads((finished / "private" / "report.json").read_text())
        assert twin["kind"] == "private"
        assert "Private: this page is as sensitive as your images." in page
        shown = {section["id"] for section in twin["sections"]}
        assert shown >= {
            "distances",
            "perceptual",
            "obedience",
            "usefulness",
            "balance",
            "training",
            "nearness",
        }

    def test_what_was_measured_on_records_is_not_in_the_release(self, finished: Path) -> None:
        """Its numbers are written with all their digits in the twin; none of those is in the release."""
        twin = json.loads((finished / "private" / "report.json").read_text())
        private = {value for value in _private_numbers(twin) if len(str(value)) > 9}
        assert len(private) > 100
        for path in (finished / "release").rglob("*"):
            if path.suffix in (".html", ".json", ".md"):
                text = path.read_text()
                assert not [value for value in private if str(value) in text], path

    def test_the_same_numbers_would_be_found_where_they_are(self, finished: Path) -> None:
        """The twin of the test above."""
        text = (finished / "private" / "report.json").read_text()
        private = _private_numbers(json.loads(text))
        assert all(str(value) in text for value in private)

    def test_what_was_bought_is_in_the_release_as_it_is_kept(self, finished: Path) -> None:
        kept = json.loads((finished / "private" / "bought.json").read_text())
        certificate = json.loads((finished / "release" / "certificate.json").read_text())
        assert [one["metric"] for one in kept["bought"]] == ["fd", "accuracy"]
        assert certificate["measured"] == kept["bought"]
        assert [event["mechanism"] for event in certificate["events"]] == ["PoissonGaussian", "Gaussian"]
        result = verify_release(finished / "release")
        assert result.ok, result.lines
        assert any("measured" in text for text in result.cannot_prove)

    def test_a_judged_run_gives_the_same_release_as_one_that_is_not(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resuming, "Source", lambda key=None: Source(key or bytes(32)))
        monkeypatch.setattr("dpwavelet.pipeline.purchase.DRAWN", 40)
        found = []
        for judged in (0, 40):
            release = run(portraits, tmp_path / str(judged), settings(tiny_model, judged=judged), Silent())
            kept = [path for path in sorted(release.rglob("*")) if path.parent.name in ("model", "samples")]
            certificate = json.loads((release / "certificate.json").read_text())
            found.append([certificate["measured"], *(path.read_bytes() for path in kept)])
        assert found[0] == found[1]

    def test_without_judging_the_page_says_so(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        wanted = settings(
            tiny_model, judged=0, samples=0, release_metrics=(), metrics_epsilon=None, classes=()
        )
        run(portraits, tmp_path / "run", wanted, Silent())
        twin = json.loads((tmp_path / "run" / "private" / "report.json").read_text())
        (distances,) = [section for section in twin["sections"] if section["id"] == "distances"]
        assert [block["kind"] for block in distances["blocks"]] == ["missing"]


class TestResuming:
    def test_a_run_that_was_stopped_after_buying_releases_what_it_bought(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["dpwavelet.pipeline.run"], "Seal", _stop_real(tmp_path))
            with pytest.raises(Stopped):
                run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        path = tmp_path / "run" / "private" / "bought.json"
        told = json.loads(path.read_text())
        for one in told["bought"]:
            one["value"] = 0.123456789
        write_json(path, told)
        monkeypatch.setattr("dpwavelet.pipeline.purchase.buy", _stop)  # and nothing is bought again
        monkeypatch.setattr("dpwavelet.pipeline.purchase.Prepared.load", _stop)
        release = run(portraits, tmp_path / "run", settings(tiny_model, judged=0), Silent())
        certificate = json.loads((release / "certificate.json").read_text())
        assert [one["value"] for one in certificate["measured"]] == [0.123456789] * 2

    def test_a_run_that_was_stopped_before_the_noise_adds_it_to_the_sum_that_it_had(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("dpwavelet.pipeline.purchase.Prepared.load", _stop)
            with pytest.raises(Stopped):
                run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert (tmp_path / "run" / "private" / "measured.safetensors").is_file()
        monkeypatch.setattr("dpwavelet.pipeline.purchase.prepare", _stop)  # nothing is measured again
        run(portraits, tmp_path / "run", settings(tiny_model, judged=0), Silent())

    def test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["dpwavelet.pipeline.run"], "Seal", _stop_real(tmp_path))
            with pytest.raises(Stopped):
                run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        for name in ("measured.safetensors", "bought.json"):
            (tmp_path / "run" / "private" / name).unlink()

        def prepared(*given: Any) -> Prepared:
            found = prepare(*given)
            doubled = {name: 2 * value for name, value in found.total.values.items()}
            return replace(found, total=replace(found.total, values=doubled))

        monkeypatch.setattr("dpwavelet.pipeline.purchase.prepare", prepared)
        monkeypatch.setattr("dpwavelet.pipeline.purchase.buy", _stop)
        with pytest.raises(PrivacyError, match="to another sum"):
            run(portraits, tmp_path / "run", settings(tiny_model, judged=0), Silent())

    def test_a_defect_in_judging_holds_no_release_up(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dpwavelet.pipeline.owner_report.gather", _stop)
        wanted = settings(tiny_model, release_metrics=(), metrics_epsilon=None, classes=())
        with pytest.raises(Stopped):
            run(portraits, tmp_path / "run", wanted, Silent())
        assert verify_release(tmp_path / "run" / "release").ok
        monkeypatch.undo()
        with pytest.raises(ConfigError, match="other settings"):  # or it would hand over another promise
            run(portraits, tmp_path / "run", replace(wanted, epsilon=4.0), Silent())
        run(portraits, tmp_path / "run", wanted, Silent())  # asked again, it judges and is done
        assert (tmp_path / "run" / "private" / "report.json").is_file()
        with pytest.raises(ConfigError, match="finished release"):
            run(portraits, tmp_path / "run", wanted, Silent())

    def test_captions_that_name_no_class_are_refused_before_anything_is_spent(self, tiny_model: Path) -> None:
        with pytest.raises(ConfigError, match="'dog' alone"):
            settings(tiny_model, classes=("woman", "dog"))


class TestSecondLook:
    def test_a_finished_run_is_judged_again_and_its_release_stays(
        self, finished: Path, portraits: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "portraits"
        shutil.copytree(finished, out)
        before = {path: path.read_bytes() for path in (out / "release").rglob("*") if path.is_file()}
        page = judge_again(out, portraits, 24, Silent(), audit=_audit(tmp_path))
        twin = json.loads((out / "private" / "report.json").read_text())
        parts = {section["id"]: section["blocks"] for section in twin["sections"]}
        assert page == out / "private" / "report.html"
        assert (
            "24" in json.dumps(parts["cost"]) and "40" in (finished / "private" / "report.json").read_text()
        )
        assert "Private training" in json.dumps(parts["cost"])  # what the run took is still told
        assert [block["kind"] for block in parts["audit"]] == ["table", "lines"]
        assert before == {path: path.read_bytes() for path in (out / "release").rglob("*") if path.is_file()}

    def test_the_samples_that_are_looked_at_are_those_of_the_release(
        self, finished: Path, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, looked = tmp_path / "portraits", list[Released]()
        shutil.copytree(finished, out)
        nearest = owner_report.nearest
        monkeypatch.setattr(
            owner_report, "nearest", lambda here, shown: (looked.append(shown), nearest(here, shown))[1]
        )
        judge_again(out, portraits, 24, Silent(), seed=5)
        (shown,) = looked
        folder = out / "release" / "samples"
        for index, picture in enumerate(shown.pictures):
            with Image.open(folder / f"{index:06d}.png") as image:
                assert np.array_equal(np.asarray(image), picture.permute(1, 2, 0).numpy())
        told = [json.loads(line)["text"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert list(shown.captions) == told and len(told) == len(shown.pictures) > 1

    def test_what_is_missing_or_no_audit_is_told_before_anything_is_drawn(
        self, finished: Path, portraits: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "portraits"
        shutil.copytree(finished, out)
        with pytest.raises(ConfigError, match="holds no audits"):
            judge_again(out, portraits, 24, Silent(), audit=out / "private" / "report.json")
        with pytest.raises(ConfigError, match="is not there"):
            judge_again(out, portraits, 24, Silent(), audit=out / "audit.json")
        (out / "private" / "ledger.jsonl").unlink()
        with pytest.raises(ConfigError, match="no ledger"):
            judge_again(out, portraits, 24, Silent())

    @pytest.mark.parametrize("wrong", [[{}], [{"plan": {"epsilon": 8.0}, "bounds": [1.0]}], [7], {"plan": 8}])
    def test_an_audit_of_another_form_is_refused_beforehand_and_a_gap_afterwards(
        self, wrong: object, tmp_path: Path
    ) -> None:
        path = tmp_path / "audit.json"
        write_json(path, {"audits": wrong})
        with pytest.raises(ConfigError, match="holds no audits"):
            check_audit(path)
        for _ in range(2):
            (gap,) = _audit_blocks(path)
            assert isinstance(gap, Missing)
            path.write_text("no json")

    def test_a_run_from_before_a_setting_of_drawing_is_drawn_without_it(
        self, finished: Path, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, asked = tmp_path / "portraits", list[RunSettings]()
        shutil.copytree(finished, out)
        kept = yaml.safe_load((out / "config.yaml").read_text())
        del kept["settings"]["sampling"]["doubt"]
        (out / "config.yaml").write_text(yaml.safe_dump(kept))
        monkeypatch.setattr(
            "dpwavelet.pipeline.owner_report.gather", lambda *given: (asked.append(given[3]), _stop())
        )
        with pytest.raises(Stopped):
            judge_again(out, portraits, 24, Silent())
        assert asked[0].sampling == Sampling(doubt=0.0)

    def test_so_few_pictures_that_nothing_is_compared_leave_the_page_as_it_is(
        self, finished: Path, portraits: Path
    ) -> None:
        page = finished / "private" / "report.html"
        before = page.read_bytes()
        with pytest.raises(ConfigError, match="or at least 20 pictures, got 19"):
            judge_again(finished, portraits, 19, Silent())
        assert page.read_bytes() == before

    def test_other_images_are_refused(self, finished: Path, tmp_path: Path) -> None:
        draw_to(tmp_path / "others", 130, seed=9, size=32)
        with pytest.raises(ConfigError, match="not those of the run"):
            judge_again(finished, tmp_path / "others", 24, Silent())

    def test_a_folder_without_a_run_is_refused(self, portraits: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no finished run"):
            judge_again(tmp_path, portraits, 24, Silent())


class TestEvidence:
    def test_pictures_are_drawn_for_records_with_their_captions(self, evidence: Evidence) -> None:
        assert len(evidence.places) == len(evidence.real) == len(evidence.ours.full) == 40
        numbers = evidence.numbers[evidence.places]
        assert torch.equal(evidence.real, evidence.images.pixels(numbers.tolist()))
        assert evidence.asked == [evidence.images.captions(number)[0] for number in numbers]

    def test_others_are_the_records_that_nothing_was_drawn_for(self, evidence: Evidence) -> None:
        assert set(evidence.others) | set(evidence.places) == set(range(130))
        assert not set(evidence.others) & set(evidence.places)

    def test_a_row_is_that_of_its_record(self, evidence: Evidence) -> None:
        place = int(evidence.places[3])
        assert np.allclose(evidence.records[place], evidence.rows(evidence.real[3:4])[0], atol=1e-5)

    def test_its_repr_shows_nothing(self, evidence: Evidence) -> None:
        assert "array" not in repr(evidence) and "tensor" not in repr(evidence)

    @pytest.mark.parametrize("side", [32, 64, 128, 80])
    def test_pictures_of_any_side_have_rows(self, evidence: Evidence, side: int) -> None:
        pictures = to_bytes(torch.rand(2, 3, side, side) * 2 - 1)
        assert evidence.space.rows_of_any(pictures).shape == (2, evidence.space.columns)


class TestParts:
    @pytest.mark.parametrize("name", PARTS)
    def test_every_part_finds_something(self, evidence: Evidence, name: str) -> None:
        blocks = measured(PARTS[name], evidence)
        assert blocks
        if name != "usefulness":  # drawn portraits have captions and no classes
            assert not any(isinstance(block, Missing) for block in blocks), blocks

    def test_records_with_classes_show_what_classifiers_learn(self, evidence: Evidence) -> None:
        labels = ["woman" if "woman" in caption else "man" for caption in evidence.captions]
        blocks = measured(PARTS["usefulness"], replace(evidence, labels=labels))
        titles = [block.title for block in blocks if not isinstance(block, Missing)]
        assert len(titles) == 6  # two learners: how right, class by class, calibration

    def test_records_that_were_all_drawn_for_leave_none_to_learn_from_and_that_is_said(
        self, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labels = ["woman" if "woman" in caption else "man" for caption in evidence.captions]
        everywhere = replace(evidence, labels=labels)
        monkeypatch.setattr(Evidence, "others", np.zeros(0, np.int64))
        for part in ("obedience", "usefulness"):
            blocks = measured(PARTS[part], everywhere)
            assert any(isinstance(block, Missing) and "--judge" in block.why for block in blocks), part

    def test_a_part_that_cannot_be_measured_says_why(self, evidence: Evidence) -> None:
        def broken(_: Evidence) -> list:
            raise ConfigError("there are too few")

        (block,) = measured(broken, evidence)
        assert isinstance(block, Missing) and "there are too few" in block.why

    def test_few_pictures_are_not_compared(self) -> None:
        assert FEWEST >= 10
        assert COMPARED > 257  # or no Fréchet distance would ever be shown


def _audit(folder: Path) -> Path:
    """A small audit.json of the form that the command writes."""
    curve = [[0.0, 0.0], [0.1, 0.2], [1.0, 1.0]]
    rates = {"rates": [0.01, 0.1, 1.0], "by_mechanism": [0.1, 0.3, 1.0], "by_promise": [0.2, 0.5, 1.0]}
    one = {
        "plan": {"epsilon": 8.0}, "bounds": {"game": 7.5}, "curve": rates,
        "membership": [{"attack": "likelihood", "curve": curve}],
    }  # fmt: skip
    write_json(folder / "audit.json", {"audits": [one]})
    return folder / "audit.json"


class Stopped(Exception):
    """Somebody pulled the plug."""


def _stop(*_: object, **__: object) -> None:
    raise Stopped


def _stop_real(folder: Path) -> Callable[..., Seal]:
    """Stops when the real release is about to be sealed, and lets the rehearsal before it pass."""

    def seal(*given: object) -> Seal:
        if not (folder / "run" / "private" / "bought.json").is_file():
            return Seal(*given)  # type: ignore[arg-type]  # as it was called
        raise Stopped

    return seal


def _private_numbers(value: object, inside: bool = False) -> list[float]:
    """Every number in a JSON value below something that is marked private."""
    if isinstance(value, dict):
        here = inside or value.get("origin") == "private"
        return [number for inner in value.values() for number in _private_numbers(inner, here)]
    if isinstance(value, list):
        return [number for inner in value for number in _private_numbers(inner, inside)]
    return [value] if inside and isinstance(value, float) else []
