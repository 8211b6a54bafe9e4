"""A forecast follows from the plan, drawn portraits and runs on public stand-ins, and spends nothing."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet import cli
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline import forecast as module
from dpwavelet.pipeline.forecast import (
    Speed,
    expected_quality,
    forecast,
    stand_ins,
    time_training,
)
from dpwavelet.privacy import refusals
from dpwavelet.privacy.accounting import calibrate_noise, delta_for
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import signal_to_noise
from dpwavelet.training import PrivateTraining, trained_parameters

PLAN = PrivacyPlan(epsilon=8.0, delta=1e-5, records=1000, batch_size=100, steps=30, max_norm=1.0)
SPEED = Speed(
    encode=0.01, chunk=2.0, step=0.5, records_in_chunk=50, records_of_unit=1, peak=10**9, record=1000
)
TRAINING = PrivateTraining(chunk=16)


def test_signal_to_noise_is_the_norm_of_a_mean_over_that_of_its_noise() -> None:
    d, B, sigma, C = 40_000, 128, 1.7, 0.3
    noise = np.random.default_rng(0).normal(scale=sigma * C, size=d) / B
    assert signal_to_noise(batch_size=B, steps=1, noise_multiplier=sigma, parameters=d) == pytest.approx(
        C / np.linalg.norm(noise), rel=0.02
    )


def test_only_what_is_trained_gets_noise(tiny_model: Path) -> None:
    model = Model.from_pretrained(tiny_model)
    everything, few = (
        trained_parameters(model.transformer, replace(TRAINING, parameters=kind))
        for kind in ("all", "attention")
    )
    assert 0 < few < everything == sum(p.numel() for p in model.transformer.parameters())


class TestQuality:
    """What public stand-ins lead one to expect."""

    def test_the_stand_ins_are_what_they_say(self) -> None:
        model = Model.from_pretrained("thumb")
        assert len(stand_ins()) >= 2
        for known in stand_ins():
            assert known.preset == model.preset
            assert known.parameters == trained_parameters(model.transformer, PrivateTraining())
            losses = [run.loss for run in sorted(known.private, key=lambda run: run.epsilon)]
            assert known.zero_shot > losses[0]
            assert losses == sorted(losses, reverse=True)
            assert losses[-1] > known.plain

    @pytest.mark.parametrize("known", stand_ins(), ids=lambda known: known.name)
    def test_their_noise_is_what_a_plan_would_use(self, known: module.StandIn) -> None:
        for run in known.private:
            noise = calibrate_noise(
                epsilon=run.epsilon,
                delta=delta_for(known.records),
                sampling_rate=known.batch_size / known.records,
                steps=known.steps,
            )
            assert run.noise_multiplier == pytest.approx(noise, rel=3e-3)

    @pytest.mark.parametrize("known", stand_ins(), ids=lambda known: known.name)
    def test_a_run_is_foretold_by_itself_and_lies_in_the_band_of_all(self, known: module.StandIn) -> None:
        for run in known.private:
            share = (known.zero_shot - run.loss) / (known.zero_shot - known.plain)
            s = signal_to_noise(
                batch_size=known.batch_size,
                steps=known.steps,
                noise_multiplier=run.noise_multiplier,
                parameters=known.parameters,
            )
            alone = expected_quality(s, known.records, [replace(known, private=(run,))])
            together = expected_quality(s, known.records, stand_ins())
            assert alone is not None
            assert together is not None
            assert alone.low == pytest.approx(share) == alone.high
            assert together.low - 1e-9 <= share <= together.high + 1e-9
            assert together.measured

    @given(s=st.floats(1e-6, 1e6))
    def test_less_noise_promises_more_and_never_all(self, s: float) -> None:
        here, there = (expected_quality(each, 8000, stand_ins()) for each in (s, 1.1 * s))
        assert here is not None
        assert there is not None
        assert 0 < here.low <= here.high < 1
        assert here.low < there.low
        assert here.high < there.high

    def test_beyond_what_was_measured_it_says_so(self) -> None:
        for s in (0.01, 100.0):
            band = expected_quality(s, 8000, stand_ins())
            assert band is not None
            assert not band.measured
            assert "beyond what was measured" in str(band)

    def test_few_records_are_beyond_what_was_measured_however_little_noise_there_is(self) -> None:
        many, few = (expected_quality(1.5, records, stand_ins()) for records in (8000, 1000))
        assert many is not None
        assert few is not None
        assert many.measured
        assert not few.measured
        assert (few.low, few.high) == (many.low, many.high)

    def test_nothing_is_said_of_fewer_parameters_which_were_measured_to_learn_less(self) -> None:
        model = Model.from_pretrained("thumb")
        assert forecast(PLAN, model, TRAINING).quality is not None
        assert forecast(PLAN, model, replace(TRAINING, parameters="lora")).quality is None

    def test_nothing_is_said_of_a_model_that_was_not_measured(self, tiny_model: Path) -> None:
        assert expected_quality(1.0, 8000, []) is None
        found = forecast(PLAN, Model.from_pretrained(tiny_model), TRAINING)
        assert found.quality is None
        assert "no quality is known" in found.quality_text

    def test_steps_count_as_well_as_the_noise_of_one(self) -> None:
        model = Model.from_pretrained("thumb")
        short = forecast(replace(PLAN, steps=1), model, TRAINING)
        long = forecast(PLAN, model, TRAINING)
        assert short.signal_to_noise > long.signal_to_noise  # less noise in the only step
        assert short.quality is not None
        assert long.quality is not None
        # and yet less is learnt from it
        assert short.quality.low < 0.5 * long.quality.low
        assert short.quality.high < 0.7 * long.quality.high


class TestTime:
    """Hours and memory on this machine."""

    def test_hours_add_up(self) -> None:
        seconds = 1000 * 0.01 + 30 * (2.5 * 2.0 + 0.5)  # a batch of 100 fills two to three chunks of 50
        assert SPEED.hours(PLAN) == pytest.approx(seconds / 3600)
        people = replace(SPEED, records_of_unit=3)
        seconds = 3000 * 0.01 + 30 * (6.5 * 2.0 + 0.5)
        assert people.hours(PLAN) == pytest.approx(seconds / 3600)

    def test_memory_grows_with_the_records_and_not_with_the_batch(self) -> None:
        assert SPEED.memory(PLAN) == 10**9 + 1000 * 1000
        assert SPEED.memory(replace(PLAN, batch_size=1000)) == SPEED.memory(PLAN)
        assert replace(SPEED, peak=None).memory(PLAN) is None

    def test_timing_takes_real_steps_on_drawn_portraits_and_keeps_nothing(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        opened: list[Path] = []
        steps: list[int] = []
        train = module.train_privately

        def watched(*arguments: object, **more: object) -> object:
            steps.append(len(arguments[1]))
            return train(*arguments, **more)

        class Watched(PrivateImages):
            @classmethod
            def open(cls, folder: Path, *rest: object) -> PrivateImages:
                opened.append(folder)
                return PrivateImages.open(folder, *rest)

        monkeypatch.setattr(module, "train_privately", watched)
        monkeypatch.setattr(module, "PrivateImages", Watched)
        model = Model.from_pretrained(tiny_model)
        before = {name: p.clone() for name, p in model.transformer.named_parameters()}
        speed = time_training(model, TRAINING)
        assert [folder.name for folder in opened] == ["portraits"]
        assert opened[0].is_relative_to(tmp_path)
        assert steps == [16, 32]
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(before[name], p) for name, p in model.transformer.named_parameters())
        assert min(speed.encode, speed.chunk) > 0
        assert speed.step >= 0
        assert speed.record >= model.private_tokens * 2
        assert 0 < speed.hours(PLAN) < 1
        assert speed.peak is None or 10**7 < speed.peak < 10**12

    def test_without_timing_time_and_memory_are_left_open(self, tiny_model: Path) -> None:
        found = forecast(PLAN, Model.from_pretrained(tiny_model), TRAINING)
        assert (found.hours, found.memory) == (None, None)
        assert (found.time_text, found.memory_text) == ("-", "-")

    @pytest.mark.parametrize(("hours", "text"), [(0.001, "1 min"), (0.5, "30 min"), (12.34, "12.3 h")])
    def test_time_is_told_in_words(self, tiny_model: Path, hours: float, text: str) -> None:
        found = forecast(PLAN, Model.from_pretrained(tiny_model), TRAINING)
        assert replace(found, hours=hours).time_text == text


class TestCommand:
    """`dpwavelet plan` as a user types it."""

    @pytest.fixture
    def plan(
        self,
        portraits: Path,
        tiny_model: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[..., str]:
        def call(*words: str, timing: bool = False, status: int = 0) -> str:
            options = ["--model", str(tiny_model)] + ([] if timing else ["--no-timing"])
            monkeypatch.setattr(sys, "argv", ["dpwavelet", "plan", str(portraits), *options, *words])
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert stopped.value.code == status
            return capsys.readouterr().out

        return call

    def test_what_a_run_would_refuse_is_said(
        self, plan: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "would end here" not in plan("--epsilon", "8")
        monkeypatch.setattr(refusals, "LEAST_SIGNAL", 1e9)
        told = " ".join(plan("--epsilon", "8").split())
        assert "epsilon 8: `run` would end here: refused (few-records): all that the run can learn" in told
        (row,) = json.loads(plan("--epsilon", "8", "--json"))
        assert [text.split()[1] for text in row["refused"]] == ["(few-records):"]

    def test_what_metrics_cost_is_part_of_it(self, plan: Callable[..., str]) -> None:
        (plain,), (less,) = (
            json.loads(plan("--epsilon", "8", "--json", *more)) for more in ((), ("--metrics-epsilon", "2"))
        )
        assert less["noise_multiplier"] > plain["noise_multiplier"]
        assert len(less["others"]) == 1 and not plain["others"]

    def test_several_epsilons_follow_one_option_or_each_their_own(self, plan: Callable[..., str]) -> None:
        listed = json.loads(plan("--epsilon", "4", "8", "--json"))
        assert [row["epsilon"] for row in listed] == [4.0, 8.0]
        assert json.loads(plan("--epsilon", "4", "--json", "--epsilon", "8")) == listed
        assert json.loads(plan("--epsilon=4", "8", "--json")) == listed
        strong, weak = listed
        assert strong["noise_multiplier"] > weak["noise_multiplier"]
        assert strong["signal_to_noise"] < weak["signal_to_noise"]
        assert strong["epsilon_rdp"] > 4.0
        assert (strong["hours"], strong["memory_bytes"], strong["quality"]) == (None, None, None)

    def test_the_table_and_its_twin_say_the_same(self, plan: Callable[..., str]) -> None:
        (row,) = json.loads(plan("--epsilon", "8", "--json"))
        text = plan("--epsilon", "8")
        for number in (f"{row['noise_multiplier']:.3f}", f"{row['signal_to_noise']:.3f}", str(row["steps"])):
            assert number in text

    def test_with_timing_it_tells_hours_and_memory(self, plan: Callable[..., str]) -> None:
        (row,) = json.loads(plan("--epsilon", "8", "--json", timing=True))
        assert row["hours"] > 0
        assert row["memory_bytes"] is None or row["memory_bytes"] > 0

    @pytest.mark.parametrize("wrong", [["0"], ["1", "-2"], ["1", "nan"]])
    def test_what_is_no_budget_is_refused(self, plan: Callable[..., str], wrong: list[str]) -> None:
        plan("--epsilon", *wrong, status=2)
