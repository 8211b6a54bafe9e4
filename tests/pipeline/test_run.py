"""A whole run on drawn portraits with a tiny model: from a folder to a release that verifies."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dpwavelet import Pipeline
from dpwavelet.checkpoint import alone_in, digest
from dpwavelet.errors import ConfigError, DataError, OutputError, PrivacyError
from dpwavelet.generation import Sampling
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline import (
    RunSettings,
    Silent,
    declared,
    dry_run,
    make_plan,
    open_ledger,
    opening,
    plan_for,
    run,
)
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.refusals import Refusal
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.training import PrivateTraining, resuming
from dpwavelet.wavelet import analyze

CAPTIONS = ("a woman with red hair on a blue background", "a man with a beard")
TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)


def settings(model: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 5, "samples": 3,
        "captions": CAPTIONS, "training": TRAINING, "judged": 0,
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    out = tmp_path_factory.mktemp("run") / "portraits"
    run(str(portraits), str(out), settings(tiny_model))  # as README has it: names of folders, nobody watching
    return out


class TestRelease:
    """What a run leaves behind."""

    def test_it_has_the_files_of_the_format_and_verifies(self, finished: Path) -> None:
        release = finished / "release"
        assert {path.name for path in release.iterdir()} == {
            "model", "samples", "certificate.json", "certificate.sig", "card.md", "report.html",
            "report.json",
        }  # fmt: skip
        assert {path.name for path in (finished / "private").iterdir()} >= {
            "ledger.jsonl",
            "checkpoint",
            "tokens",
        }
        result = verify_release(release)
        assert result.ok, result.lines

    def test_its_samples_are_an_image_folder_with_the_captions_that_were_asked_for(
        self, finished: Path
    ) -> None:
        folder = finished / "release" / "samples"
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert [row["text"] for row in rows] == [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
        for row in rows:
            with Image.open(folder / row["file_name"]) as image:
                assert image.size == (32, 32)
                assert not image.info  # no metadata travels with a picture

    def test_nothing_that_only_the_records_know_is_written_into_it(
        self, finished: Path, portraits: Path
    ) -> None:
        release, private = finished / "release", finished / "private"
        images = PrivateImages.open(portraits, 32)
        begun = Ledger.open(private / "ledger.jsonl").entries[0]
        key = json.loads((private / "checkpoint" / "run.json").read_text())["key"]
        secret = [begun["images"], images.fingerprint(), key, str(portraits), "000129.png", "130"]
        secret += [images.captions(index)[0] for index in range(20)]
        for path in release.rglob("*"):
            if path.suffix in (".json", ".md", ".sig", ".jsonl"):
                text = path.read_text()
                assert not [word for word in secret if word in text and word != "130"], path
        certificate = json.loads((release / "certificate.json").read_text())
        assert certificate["records_declared"] == 120

    def test_a_changed_file_is_noticed(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        release = run(portraits, tmp_path / "run", settings(tiny_model, steps=1, samples=1), Silent())
        card = release / "card.md"
        card.write_text(card.read_text() + " ")
        assert not verify_release(release).ok

    def test_the_ledger_holds_the_run_from_beginning_to_end(self, finished: Path) -> None:
        entries = Ledger.open(finished / "private" / "ledger.jsonl").entries
        assert [entry["kind"] for entry in entries] == ["begun", "keyed", *["charged"] * 3, "finished"]
        assert [entry["steps"] for entry in entries if entry["kind"] == "charged"] == [2, 4, 5]

    def test_config_yaml_says_what_was_asked(self, finished: Path) -> None:
        kept = yaml.safe_load((finished / "config.yaml").read_text())
        assert kept["settings"]["epsilon"] == 8.0
        assert kept["plan"]["steps"] == 5

    def test_a_finished_release_is_not_overwritten(
        self, finished: Path, portraits: Path, tiny_model: Path
    ) -> None:
        before = (finished / "release" / "certificate.json").read_bytes()
        with pytest.raises(ConfigError, match="finished release"):
            run(portraits, finished, settings(tiny_model), Silent())
        assert (finished / "release" / "certificate.json").read_bytes() == before

    def test_without_captions_the_certificate_says_so(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        release = run(
            portraits, tmp_path / "run", settings(tiny_model, captions=(), steps=1, samples=2), Silent()
        )
        assert "drawn without any" in json.loads((release / "certificate.json").read_text())["captions"]

    def test_without_samples_the_release_is_the_model_alone(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        release = run(portraits, tmp_path / "run", settings(tiny_model, samples=0, steps=1), Silent())
        assert not (release / "samples").exists()
        assert verify_release(release).ok


class TestInterruption:
    """A run that stops goes on, and never leaves half a release."""

    def test_it_goes_on_after_a_stop_in_any_stage(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        class Stop(Silent):
            def __init__(self, stage: str) -> None:
                self.stage, self.now, self.calls = stage, "", 0

            def begin(self, stage: str, total: int) -> None:
                self.now = stage

            def advance(self, done: int, note: str = "") -> None:
                if self.now == self.stage:
                    raise KeyboardInterrupt

        out = tmp_path / "run"
        for stage in ("checking images", "images to tokens", "private training", "drawing samples"):
            with pytest.raises(KeyboardInterrupt):
                run(portraits, out, settings(tiny_model), Stop(stage))
            assert not (out / "release").exists()
            assert not list(out.glob(".release*"))
        run(portraits, out, settings(tiny_model), Silent())
        assert verify_release(out / "release").ok
        kinds = [entry["kind"] for entry in Ledger.open(out / "private" / "ledger.jsonl").entries]
        assert kinds.count("begun") == kinds.count("finished") == 1
        assert Ledger.open(out / "private" / "ledger.jsonl").entries[-2]["steps"] == 5

    def test_other_settings_do_not_continue_it(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        class Stop(Silent):
            def advance(self, done: int, note: str = "") -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), Stop())
        # The plan is written once the images have been checked.
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), _StopAt("images to tokens"))
        with pytest.raises(ConfigError, match=r"other settings \(settings.epsilon was 8.0 and is 4.0, plan"):
            run(portraits, tmp_path / "run", settings(tiny_model, epsilon=4.0), Silent())

    @pytest.mark.parametrize("content", ["", "[1, 2]", "run: [", "run: 1\n", "\xff"])
    def test_a_broken_config_is_told_in_a_sentence(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, content: str
    ) -> None:
        out = tmp_path / "run"
        out.mkdir()
        (out / "config.yaml").write_bytes(content.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"config\.yaml .*restore it"):
            run(portraits, out, settings(tiny_model), Silent())

    def test_another_process_is_kept_out(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        with alone_in(tmp_path / "run"), pytest.raises(OutputError, match="another process"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert not (tmp_path / "run").exists()

    def test_what_a_release_may_not_be_called_is_told_before_anything_is_spent(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        (name, *_) = PrivateImages.open(portraits, 32).names
        data = tmp_path / "data"
        shutil.copytree(portraits, data)
        (data / name).rename(data / "margaret rutherford 1951.png")
        table = (data / "metadata.jsonl").read_text().replace(name, "margaret rutherford 1951.png")
        (data / "metadata.jsonl").write_text(table)
        out = tmp_path / "margaret rutherford 1951"
        with pytest.raises(Refusal, match="the file name"):
            run(data, out, settings(tiny_model), Silent())
        assert not Ledger.open(out / "private" / "ledger.jsonl").entries
        with pytest.raises(Refusal, match="the file name"):
            dry_run(data, settings(tiny_model), Silent(), out=out)

    def test_other_images_do_not_continue_it(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), _StopAt("private training"))
        draw_to(tmp_path / "others", 130, seed=2, size=32)
        with pytest.raises(PrivacyError, match="not those"):
            run(tmp_path / "others", tmp_path / "run", settings(tiny_model), Silent())


class _StopAt(Silent):
    def __init__(self, stage: str) -> None:
        self.stage = stage

    def begin(self, stage: str, total: int) -> None:
        if stage == self.stage:
            raise KeyboardInterrupt


class TestPlan:
    """What is public before a record is opened."""

    def test_the_number_of_records_is_declared_or_rounded_down(self, tiny_model: Path) -> None:
        assert declared(settings(tiny_model, records=8159), 9000) == 8159
        assert declared(settings(tiny_model, records=None), 8159) == 8100

    def test_adding_a_record_changes_no_public_number(self, tiny_model: Path) -> None:
        asked = settings(tiny_model, records=None, batch_size=None, steps=None)
        assert make_plan(asked, declared(asked, 8159)) == make_plan(asked, declared(asked, 8160))

    def test_a_declared_number_does_not_tell_that_so_many_are_there(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        watcher, asked = Told(), settings(tiny_model, records=131)
        certificate = json.loads(
            (run(portraits, tmp_path / "run", asked, watcher) / "certificate.json").read_text()
        )
        (line,) = (line for line in watcher.lines if "were declared" in line)
        assert "131 records were declared, and there are 130" in line
        assert certificate["plan"] == make_plan(asked, 131).to_json()
        assert certificate["records_declared"] == 131
        assert verify_release(tmp_path / "run" / "release").ok

    def test_a_delta_that_would_let_a_record_be_published_is_refused_whatever_was_declared(
        self, portraits: Path, tiny_model: Path
    ) -> None:
        asked = settings(tiny_model, records=100, delta=0.009, batch_size=20)
        with pytest.raises(PrivacyError, match="below one over the 130 that are there"):
            dry_run(portraits, asked, Silent())
        assert dry_run(portraits, settings(tiny_model, records=100, delta=0.007, batch_size=20), Silent())

    def test_the_usual_delta_would_let_no_record_be_published_however_many_rounding_hides(
        self, tiny_model: Path
    ) -> None:
        """Where it would be refused, the refusal would tell that records are more than rounding says."""
        undeclared = settings(tiny_model, records=None, delta=None, batch_size=20)
        for found in (100, 199, 299, 1_099):
            plan = plan_for(undeclared, found)
            assert plan.delta < 1 / found
            assert plan.delta == plan_for(undeclared, plan.records).delta
        assert plan_for(undeclared, 200).delta == 200**-1.1
        with pytest.raises(PrivacyError, match="below one over the 199 that are there"):
            plan_for(settings(tiny_model, records=100, delta=None, batch_size=20), 199)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"steps": 0}, "steps"),
            ({"batch_size": 0}, "batch_size"),
            ({"classes": ("cat", "dog")}, "none is bought"),
        ],
    )
    def test_nothing_that_was_asked_for_is_put_right_in_silence(
        self, tiny_model: Path, changes: dict[str, object], words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            make_plan(settings(tiny_model, **changes), 120)

    def test_a_dry_run_spends_and_keeps_nothing(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        plan = dry_run(portraits, settings(tiny_model), Silent())
        assert plan.steps == 5
        assert not list(tmp_path.iterdir())


class TestRehearsal:
    """Before anything is spent every stage runs once, and no record reaches the disk."""

    def test_an_accuracy_of_many_classes_is_rehearsed_with_all_of_their_captions(
        self, portraits: Path, tiny_model: Path
    ) -> None:
        classes = ("hat", "beard", "glasses")
        bought = {"release_metrics": ("fd", "accuracy"), "metrics_epsilon": 1.0, "classes": classes}
        captions = tuple(f"a person with a {name}" for name in classes)
        plan = dry_run(portraits, settings(tiny_model, captions=captions, **bought), Silent())
        assert plan.measures

    def test_what_it_writes_is_the_same_whatever_the_records(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draw_to(tmp_path / "others", 130, seed=2, size=32)
        monkeypatch.setattr(resuming, "Source", lambda key=None: Source(key or bytes(32)))
        monkeypatch.setattr(tempfile, "TemporaryDirectory", _Kept)
        _Kept.folder = tmp_path
        wrote = []
        for data in (portraits, tmp_path / "others"):
            _Kept.made = []
            dry_run(data, settings(tiny_model), Silent())
            (folder,) = _Kept.made
            names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert "nearness.json" not in names
            # those that differ between two rehearsals of one folder: salts, keys and clock times
            names -= {
                "ledger.jsonl",
                "key.pem",
                "release/report.html",
                "release/report.json",
                "release/card.md",
            }
            names -= {"release/certificate.json", "release/certificate.sig"}
            wrote.append({name: digest(folder / name) for name in names})
        assert wrote[0] == wrote[1]
        trained = {"checkpoint/state.safetensors", "metrics.jsonl", "release/model/transformer.safetensors"}
        assert wrote[0].keys() > trained

    def test_a_record_that_cannot_be_read_stops_it_before_anything_is_spent(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(images: PrivateImages, *_: object, **__: object) -> None:
            raise DataError(f"{len(images)} records cannot be encoded")

        monkeypatch.setattr(opening, "tokenize", broken)
        with pytest.raises(DataError, match="10 records cannot be encoded"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert not (tmp_path / "run" / "private" / "ledger.jsonl").exists()


class _Kept:
    """A temporary folder that stays, as after a kill."""

    folder: Path
    made: list[Path]

    def __init__(self, prefix: str) -> None:
        self.made.append(Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder)))

    def __enter__(self) -> str:
        return str(self.made[-1])

    def __exit__(self, *_: object) -> None:
        pass


class TestPipeline:
    """The Python face of a release."""

    def test_a_release_draws_the_pictures_that_it_ships(self, finished: Path) -> None:
        pictures = Pipeline.from_pretrained(finished / "release").generate(
            [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
        )
        with Image.open(finished / "release" / "samples" / "000001.png") as shipped:
            assert np.array_equal(np.asarray(pictures[1]), np.asarray(shipped))

    def test_a_release_brings_the_public_model_along_and_is_led_away_from_it(
        self, finished: Path, tiny_model: Path
    ) -> None:
        pipeline = Pipeline.from_pretrained(finished / "release")
        public, reference = Model.from_pretrained(tiny_model).transformer, pipeline.model.reference
        assert reference is not None
        began, kept = public.state_dict(), reference.state_dict()
        assert all(torch.equal(kept[name], began[name]) for name in began)
        told = [text for _, text in verify_release(finished / "release").lines]
        assert any("is a transformer of the starting weights" in text for text in told)
        few, other = (
            pipeline.draw_coarse(["a woman"] * 2, seed=3, sampling=Sampling(guidance=4, away=away))
            for away in (1.0, 0.0)
        )
        assert not torch.equal(few, other)

    def test_coarse_pictures_are_what_the_fine_ones_shrink_to(self, finished: Path) -> None:
        pipeline = Pipeline.from_pretrained(finished / "release")
        coarse, full = pipeline.draw(CAPTIONS, seed=3)
        torch.testing.assert_close(analyze(full, 2)[0], coarse, atol=1e-5, rtol=0)
        assert pipeline.generate(CAPTIONS, seed=3, coarse=True)[0].size == (8, 8)

    def test_a_seed_repeats_a_picture_and_another_does_not(self, finished: Path) -> None:
        pipeline = Pipeline.from_pretrained(finished / "release")
        first, again, other = (pipeline.draw(CAPTIONS, seed=seed)[1] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_what_is_no_text_is_refused(self, finished: Path) -> None:
        with pytest.raises(ConfigError, match="a caption must be a text, got None"):
            Pipeline.from_pretrained(finished / "release").generate(["a woman", None])  # type: ignore[list-item]

    def test_it_is_shown_in_a_line(self, finished: Path) -> None:
        shown = repr(Pipeline.from_pretrained(finished / "release"))
        assert "Model('tiny', 32 pixels, dpwavelet, trained under differential privacy)" in shown
        assert len(shown) < 400

    @pytest.mark.parametrize("text", ["a woman", ""])
    def test_one_text_instead_of_a_list_is_refused(self, finished: Path, text: str) -> None:
        with pytest.raises(ConfigError, match="list"):
            Pipeline.from_pretrained(finished / "release").generate(text)


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)


class TestBeforeAnythingIsSpent:
    """What was found is told, and a dry run refuses what the run would."""

    def test_form_captions_and_warnings_are_told(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(portraits, data)
        rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row["text"] = "word " * (60 if number < 3 else 2)
        (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        dark = Image.fromarray(np.full((32, 32), 3000, np.uint16))
        dark.save(data / rows[0]["file_name"])
        (data / "scan.heic").write_bytes(b"x")
        watcher = Told()
        dry_run(data, settings(tiny_model, ledger=tmp_path / "ledgers"), watcher)
        assert watcher.lines[0].startswith("130 images, read as metadata")
        (heic, cut, black) = watcher.lines[1:]
        assert "1 .heic file" in heic
        assert "3 of 130 captions are longer than the 23 words" in cut
        assert "1 of 130 pictures come out nearly black" in black

    @pytest.mark.parametrize(("texts", "told"), [("uma mulher sorridente", True), ("a woman smiling", False)])
    def test_captions_that_public_weights_cannot_read_are_told(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, texts: str, told: bool
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(portraits, data)
        rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
        (data / "metadata.jsonl").write_text("\n".join(json.dumps(row | {"text": texts}) for row in rows))
        watcher = Told()
        dry_run(data, settings(tiny_model), watcher)
        assert ("390 of 390 words in the captions are none" in "\n".join(watcher.lines)) == told

    def test_a_dry_run_refuses_a_place_where_the_run_cannot_go(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, finished: Path
    ) -> None:
        (tmp_path / "file").write_text("x")
        for out, words in (
            (portraits / "run", "the folder of images"),
            (finished, "finished release"),
            (tmp_path / "file" / "run", "cannot write to"),
            (tmp_path / "file", "is a file"),
        ):
            with pytest.raises((ConfigError, OutputError), match=words):
                dry_run(portraits, settings(tiny_model), Silent(), out=out)
        with pytest.raises(OutputError, match="cannot write to"):
            dry_run(portraits, settings(tiny_model, ledger=tmp_path / "file" / "ledgers"), Silent())
        assert not (portraits / "run").exists()

    def test_settings_are_kept_as_plain_values(self, tmp_path: Path) -> None:
        given: dict[str, Any] = {"records": np.int64(500), "model": tmp_path, "captions": ["a"]}
        asked = RunSettings(epsilon=8.0, **given)
        assert json.loads(json.dumps(asked.to_json()))["records"] == 500
        assert (asked.model, asked.captions) == (str(tmp_path), ("a",))

    def test_a_file_is_no_place_for_a_run(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(ConfigError, match="is a file"):
            run(portraits, tmp_path / "file", settings(tiny_model), Silent())

    def test_captions_beyond_the_samples_are_told_of(self, portraits: Path, tiny_model: Path) -> None:
        watcher = Told()
        dry_run(portraits, settings(tiny_model, captions=("a", "b", "c"), samples=2), watcher)
        assert "of 3 captions the first 2 are drawn" in "\n".join(watcher.lines)

    @pytest.mark.parametrize(
        "wrong",
        [{"captions": "a man"}, {"captions": (1, 2)}, {"release_metrics": "fd"}, {"allow": "duplicates"},
         {"samples": "4"}, {"steps": 2.0}, {"judged": True}, {"model": None}, {"captions": None},
         {"samples": None}],
    )  # fmt: skip
    def test_settings_of_another_kind_are_refused_before_anything_is_spent(
        self, wrong: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
            RunSettings(epsilon=8.0, **wrong)  # type: ignore[arg-type]  # that is the point

    def test_a_dry_run_refuses_a_key_that_others_can_read(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        key = tmp_path / "key.pem"
        key.write_text("x")
        key.chmod(0o644)
        with pytest.raises(PrivacyError, match="can be read by others"):
            dry_run(portraits, settings(tiny_model, key=key), Silent())
        dry_run(portraits, settings(tiny_model, key=tmp_path / "new.pem"), Silent())
        assert not (tmp_path / "new.pem").exists()

    def test_a_run_leaves_nothing_where_its_ledger_cannot_be_written(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="cannot write to"):
            run(
                portraits,
                tmp_path / "run",
                settings(tiny_model, ledger=tmp_path / "file" / "ledgers"),
                Silent(),
            )
        assert not (tmp_path / "run" / "config.yaml").exists()

    def test_a_run_and_a_release_are_no_data(self, finished: Path, tiny_model: Path, tmp_path: Path) -> None:
        for data, words in ((finished, "the folder of a run"), (finished / "release", "a release")):
            for refused in (
                lambda data=data: run(data, tmp_path / "run", settings(tiny_model), Silent()),
                lambda data=data: open_ledger(data, tmp_path),
            ):
                with pytest.raises(ConfigError, match=words):
                    refused()

    def test_the_receiver_reads_under_which_terms_the_public_weights_stand(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        model.with_transformer(
            model.transformer, {"data": "Pictures of nothing; not commercial"}
        ).save_pretrained(tmp_path / "model")
        release = run(portraits, tmp_path / "run", settings(tmp_path / "model", steps=1, samples=0), Silent())
        for name in ("card.md", "report.html"):
            assert "Pictures of nothing; not commercial" in (release / name).read_text()
        assert "license_name: " in (release / "card.md").read_text()
