"""A run with a warm start: what it costs, that it is made once, and what training begins from."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from dpwavelet import cli
from dpwavelet.checkpoint import digest, read_tensors
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, Silent, dry_run, learning, make_plan, opening, run
from dpwavelet.pipeline.kept import noted
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.settings import warm_place
from dpwavelet.pipeline.start import REHEARSAL, starting_model
from dpwavelet.privacy.accounting import Gaussian, PoissonGaussian, epsilon_pld
from dpwavelet.privacy.certificate import WARM_START
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens, drawn_tokens
from dpwavelet.training import PrivateTraining, resuming, train_privately
from dpwavelet.transformer import ImageTransformer
from dpwavelet.warm_start import begin_from, release, surprise

BOUGHT = {"release_metrics": ("fd",), "metrics_epsilon": 2.0}


def settings(model: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 1,
        "captions": ("a woman with red hair",), "judged": 0, "warm_start": 1.0,
        "training": PrivateTraining(chunk=32, mixed_precision=False, charge_every=2),
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpwavelet.pipeline.start.Moving", lambda seed: replace(REHEARSAL, seed=seed))


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that also bought a number."""
    out = tmp_path_factory.mktemp("warm") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpwavelet.pipeline.start.Moving", lambda seed: replace(REHEARSAL, seed=seed))
        run(portraits, out, settings(tiny_model, **BOUGHT), Silent())
    return out


class TestPlan:
    def test_it_and_training_together_cost_what_was_asked(self, tiny_model: Path) -> None:
        plan = make_plan(settings(tiny_model, warm_start=0.5), 2000)
        training_event, start = plan.events
        assert isinstance(training_event, PoissonGaussian)
        assert isinstance(start, Gaussian) and start.count == 1
        assert 7.9 < epsilon_pld(plan.events, plan.delta) <= 8.0
        assert 0.49 < epsilon_pld((start,), plan.delta) <= 0.5
        plain = make_plan(settings(tiny_model, warm_start=None), 2000)
        assert plain.others == ()
        assert plain.noise_multiplier < plan.noise_multiplier

    def test_its_place_is_the_one_after_the_metrics(self, tiny_model: Path) -> None:
        metrics, start = make_plan(settings(tiny_model, **BOUGHT), 2000).others
        assert metrics == make_plan(settings(tiny_model, warm_start=None, **BOUGHT), 2000).others[0]
        assert start == make_plan(settings(tiny_model), 2000).others[0] != metrics
        assert warm_place(settings(tiny_model, **BOUGHT)) == 1
        assert warm_place(settings(tiny_model)) == 0
        assert warm_place(settings(tiny_model, warm_start=None, **BOUGHT)) is None

    @pytest.mark.parametrize("share", [0.0, -1.0, 8.0, float("nan")])
    def test_a_share_that_is_no_part_of_epsilon_is_refused(self, tiny_model: Path, share: float) -> None:
        with pytest.raises(ConfigError, match="warm_start"):
            settings(tiny_model, warm_start=share)

    def test_the_command_line_hands_it_on(
        self, portraits: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[RunSettings] = []

        def noted(data: Path, wanted: RunSettings, *_: object) -> PrivacyPlan:
            asked.append(wanted)
            return make_plan(wanted, 1000)

        monkeypatch.setattr(cli, "dry_run", noted)
        words = ["run", str(portraits), "--epsilon", "4", "--model", str(tiny_model), "--dry-run"]
        for more in ([], ["--warm-start", "0.3"]):
            assert CliRunner().invoke(cli.app, [*words, *more]).exit_code == 0
        assert [one.warm_start for one in asked] == [None, 0.3]


class TestRun:
    def test_its_release_verifies_and_says_what_the_mechanism_is(self, finished: Path) -> None:
        result = verify_release(finished / "release")
        assert result.ok, result.lines
        assert (True, WARM_START) in result.lines
        certificate = json.loads((finished / "release" / "certificate.json").read_text())
        assert certificate["warm_start"] == WARM_START
        assert [event["mechanism"] for event in certificate["events"]] == [
            "PoissonGaussian",
            "Gaussian",
            "Gaussian",
        ]
        assert WARM_START in (finished / "release" / "card.md").read_text()

    def test_it_was_charged_before_training(self, finished: Path) -> None:
        begun, *_ = Ledger.open(finished / "private" / "ledger.jsonl").entries
        assert begun["kind"] == "begun"
        assert [event["mechanism"] for event in begun["events"]] == [
            "PoissonGaussian",
            "Gaussian",
            "Gaussian",
        ]

    def test_the_exact_sum_stays_in_private(self, finished: Path) -> None:
        assert (finished / "private" / "surprise.safetensors").is_file()
        names = {path.name for path in (finished / "release").rglob("*")}
        assert not names & {"surprise.safetensors", "start.safetensors"}

    def test_training_begins_from_what_was_kept(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = _training_noted(monkeypatch)
        run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        rehearsed, real = given
        kept = read_tensors(tmp_path / "run" / "private" / "start.safetensors")
        assert {name.partition(".")[2] for name in kept} == real.keys()
        assert all(value.equal(real[name.partition(".")[2]]) for name, value in kept.items())
        public = Model.from_pretrained(tiny_model).transformer.state_dict()
        assert not real["cell_position.weight"].equal(public["cell_position.weight"])
        assert not real["cell_position.weight"].equal(rehearsed["cell_position.weight"])

    def test_without_one_training_begins_from_the_public_model(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = _training_noted(monkeypatch)
        release = run(portraits, tmp_path / "run", settings(tiny_model, warm_start=None), Silent())
        public = Model.from_pretrained(tiny_model).transformer.state_dict()
        assert all(value.equal(public[name]) for name, value in given[1].items())
        assert "warm_start" not in json.loads((release / "certificate.json").read_text())
        assert not (tmp_path / "run" / "private" / "start.safetensors").exists()

    def test_a_dry_run_walks_it_and_keeps_nothing(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        walked: list[int] = []
        monkeypatch.setattr(
            "dpwavelet.pipeline.start.surprise",
            lambda *given: walked.append(len(given[2])) or surprise(*given),
        )
        assert len(dry_run(portraits, settings(tiny_model), Silent()).others) == 1
        assert walked == [10]
        assert not list(tmp_path.iterdir())


class TestResuming:
    """One run has one sum for one noise, wherever it is stopped."""

    def test_one_that_was_stopped_before_the_noise_adds_it_to_the_sum_that_it_had(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("dpwavelet.pipeline.start.release", _stop_after(1))
            with pytest.raises(Stopped):
                run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert (tmp_path / "run" / "private" / "surprise.safetensors").is_file()
        assert not (tmp_path / "run" / "private" / "start.safetensors").exists()
        monkeypatch.setattr("dpwavelet.pipeline.start.surprise", _stop_after(0))  # nothing is measured again
        assert verify_release(run(portraits, tmp_path / "run", settings(tiny_model), Silent())).ok

    def test_one_that_was_stopped_in_training_goes_on_from_the_start_that_it_had(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(learning, "train_privately", _stop_after(1))
            with pytest.raises(Stopped):
                run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        kept = digest(tmp_path / "run" / "private" / "start.safetensors")
        for name in ("surprise", "release", "begin_from"):
            monkeypatch.setattr(f"dpwavelet.pipeline.start.{name}", _stop_after(0))
        given = _training_noted(monkeypatch)
        run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        path = tmp_path / "run" / "private" / "start.safetensors"
        assert digest(path) == kept
        assert all(
            value.equal(given[0][name.partition(".")[2]]) for name, value in read_tensors(path).items()
        )

    def test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where two machines go on with one run and measure the records each in its own way."""
        monkeypatch.setattr("dpwavelet.pipeline.start.begin_from", _stop_after(1))
        with pytest.raises(Stopped):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        shutil.copytree(tmp_path / "run", tmp_path / "copy" / "run")
        (tmp_path / "copy" / "run" / "private" / "surprise.safetensors").unlink()
        monkeypatch.setattr("dpwavelet.pipeline.start.surprise", lambda *given: _doubled(surprise(*given)))
        monkeypatch.setattr("dpwavelet.pipeline.start.release", _stop_after(0))
        with pytest.raises(PrivacyError, match="to another sum"):
            run(portraits, tmp_path / "copy" / "run", settings(tiny_model), Silent())

    def test_a_stop_changes_no_bit_of_the_release(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resuming, "Source", lambda key=None: Source(key or bytes(32)))
        found = []
        for stopped in (False, True):
            out = tmp_path / str(stopped)
            if stopped:
                with monkeypatch.context() as patch, pytest.raises(Stopped):
                    patch.setattr("dpwavelet.pipeline.start.begin_from", _stop_after(1))
                    run(portraits, out, settings(tiny_model), Silent())
            release = run(portraits, out, settings(tiny_model), Silent())
            found.append(digest(release / "model" / "transformer.safetensors"))
        assert found[0] == found[1]


class Noted:
    """Keeps what it is told of sums."""

    def __init__(self) -> None:
        self.digests = list[tuple[str, int, str]]()

    def note_sum(self, run: str, other: int, digest: str) -> None:
        self.digests.append((run, other, digest))


class TestNoted:
    """A ledger tells one sum from another, and nothing of either."""

    def test_values_bound_form_and_key_decide_the_digest(self) -> None:
        total = ClippedSum({"sum": torch.arange(4.0, dtype=torch.float64)}, 1.0)
        others = [
            replace(total, sensitivity=2.0),  # the same values with noise of another size give them away
            ClippedSum({"sum": total.values["sum"].nextafter(torch.tensor(9.0, dtype=torch.float64))}, 1.0),
            ClippedSum({"sum": total.values["sum"].view(2, 2)}, 1.0),
        ]
        ledger, source = Noted(), Source.for_test(0)
        assert noted(total, ledger, "a", 1, source) is total  # type: ignore[arg-type]  # all that is asked
        for one in (total, *others):
            noted(one, ledger, "a", 1, source)  # type: ignore[arg-type]
        noted(total, ledger, "a", 1, Source.for_test(1))  # type: ignore[arg-type]
        assert ledger.digests[0] == ledger.digests[1]
        assert len(set(ledger.digests)) == 5
        content = total.values["sum"].numpy().tobytes()
        assert hashlib.sha256(content).hexdigest() not in str(ledger.digests)


class TestStartingModel:
    """The stage alone, on made-up records."""

    def start(
        self, model: Model, tokens: PrivateTokens, folder: Path, run: str = "one", **changes: object
    ) -> dict[str, Tensor]:
        asked = settings(Path("none"), **changes)
        here = Ongoing(make_plan(asked, 120), asked, run, folder, Silent())
        ledger = Ledger.open(folder / "ledger.jsonl")
        if run not in ledger.runs:
            ledger.append({"kind": "begun", "run": run, "plan": here.plan.to_json()})
        found = starting_model(model, tokens, here, lambda: Source.for_test(0), ledger, REHEARSAL)
        return dict(found.transformer.state_dict())

    def test_data_sets_with_one_noisy_sum_have_one_start(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        few, many = self.tokens(model, 20), self.tokens(model, 60)
        generator = torch.Generator().manual_seed(0)  # a hundred times as much, and any scale saturates
        noisy = torch.randn(16 * 8, dtype=torch.float64, generator=generator) * 50
        monkeypatch.setattr("dpwavelet.pipeline.start.release", lambda *_, **__: noisy.clone())
        starts = [
            self.start(model, tokens, tmp_path / str(n)) for n, tokens in enumerate((few, many, few, few))
        ]
        assert self.same(starts[0], starts[1])
        assert not self.same(starts[0], dict(model.transformer.state_dict()))

    def test_the_start_follows_the_noise_and_not_the_sum_alone(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        seen: list[tuple[Tensor, Tensor]] = []

        def noted(noisy: Tensor, plan: PrivacyPlan, *given: object) -> ImageTransformer:
            seen.append((noisy, torch.tensor(plan.others[0].noise_multiplier)))
            return model.transformer

        monkeypatch.setattr("dpwavelet.pipeline.start.begin_from", noted)
        self.start(model, self.tokens(model, 20), tmp_path)
        kept = read_tensors(tmp_path / "surprise.safetensors")
        ((noisy, multiplier),) = seen
        noise = (noisy - kept["one.sum"]) / (kept["one.sensitivity"] * multiplier)
        assert noise.numel() == 16 * 8
        assert 0.8 < float(noise.std()) < 1.2  # 3.2 standard errors

    def test_a_sum_or_a_start_of_another_run_is_refused(self, tiny_model: Path, tmp_path: Path) -> None:
        model = Model.from_pretrained(tiny_model)
        tokens = self.tokens(model, 20)
        self.start(model, tokens, tmp_path)
        with pytest.raises(PrivacyError, match="another run"):
            self.start(model, tokens, tmp_path, run="two")
        (tmp_path / "start.safetensors").unlink()
        with pytest.raises(PrivacyError, match="another run"):
            self.start(model, tokens, tmp_path, run="two")

    def test_more_units_than_can_be_added_up_are_refused_before_anything_is_spent(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "MOST_UNITS", 100)
        with pytest.raises(ConfigError, match="--warm-start"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert not (tmp_path / "run" / "private" / "ledger.jsonl").exists()

    def tokens(self, model: Model, count: int) -> PrivateTokens:
        config = model.transformer.config
        return drawn_tokens(model.transformer, config.tokens[:1], count, config.caption_length)

    def same(self, one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return all(np.array_equal(one[name], other[name]) for name in one)


class Stopped(Exception):
    """Somebody pulled the plug."""


def _doubled(total: ClippedSum) -> ClippedSum:
    return replace(total, values={name: 2 * value for name, value in total.values.items()})


def _stop_after(calls: int) -> Callable[..., object]:
    """Passes so many calls on to the real thing, those of the rehearsal, and stops at the next."""
    left = [calls]
    real = {"release": release, "begin_from": begin_from, "train_privately": train_privately}

    def stop(*given: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        kind = (
            "release" if "bound" in named else "begin_from" if type(given[0]) is Tensor else "train_privately"
        )
        return real[kind](*given, **named)

    return stop


def _training_noted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What each private training began from."""
    given = list[dict[str, Tensor]]()

    def noted(transformer: ImageTransformer, *more: object, **named: object) -> ImageTransformer:
        given.append({name: value.clone() for name, value in transformer.state_dict().items()})
        return train_privately(transformer, *more, **named)

    monkeypatch.setattr(learning, "train_privately", noted)
    return given
