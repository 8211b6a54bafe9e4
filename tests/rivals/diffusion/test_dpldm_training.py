"""Private fine-tuning as a whole: what reaches the weights, what is charged, what a kill can do."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.rivals.diffusion import training
from dpwavelet.rivals.diffusion.networks import LatentDiffusion
from dpwavelet.rivals.diffusion.records import LatentRecords
from dpwavelet.rivals.diffusion.training import (
    Finetuning,
    held_out_loss,
    train_privately,
    train_without_privacy,
    trained_parameters,
)
from dpwavelet.training import Adam, Told

PLAN = PrivacyPlan(epsilon=8, delta=1e-3, records=120, batch_size=8, steps=4, max_norm=0.1)
SETTINGS = Finetuning(draws=2, chunk=12, mixed_precision=False, charge_every=2)
Released = list[tuple[ClippedSum, dict[str, Tensor], int]]


def trained(
    diffusion: LatentDiffusion,
    records: LatentRecords,
    folder: Path,
    plan: PrivacyPlan = PLAN,
    settings: Finetuning = SETTINGS,
    told: Told | None = None,
) -> LatentDiffusion:
    ledger = Ledger.open(folder / "ledger.jsonl")
    if not ledger.entries:
        ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
    return train_privately(diffusion, records, plan, settings, folder / "work", ledger, "a", told)


def stopped(step: int, _: dict[str, float], after: int = 1) -> None:
    if step == after:
        raise KeyboardInterrupt


def weights(diffusion: LatentDiffusion) -> Tensor:
    return torch.cat([p.detach().flatten() for p in diffusion.denoiser.parameters()])


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Released:
    seen: Released = []
    original = PrivacyPlan.privatize

    def noted(plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
        result = original(plan, clipped, source, step)
        seen.append((clipped, result, step))
        return result

    monkeypatch.setattr(PrivacyPlan, "privatize", noted)
    return seen


class TestPromise:
    """Every value that the weights see came from the plan."""

    def test_only_privatized_gradients_of_every_step_reach_the_weights_and_only_the_trained_ones(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path, released: Released
    ) -> None:
        before = {name: p.clone() for name, p in diffusion.denoiser.named_parameters()}
        student = trained(diffusion, records, tmp_path)
        assert [step for _, _, step in released] == list(range(PLAN.steps))
        replay = {name: torch.nn.Parameter(before[name].clone()) for name in released[0][1]}
        optimizer = Adam(replay, SETTINGS.adam, PLAN.steps)
        for _, gradients, step in released:
            optimizer.step(gradients, step)
        optimizer.release()
        for name, p in student.denoiser.named_parameters():
            assert torch.equal(p, replay.get(name, before[name]))
            assert torch.equal(diffusion.denoiser.get_parameter(name), before[name])  # the start stays
        moved = {name for name, p in student.denoiser.named_parameters() if not torch.equal(p, before[name])}
        assert moved == set(trained_parameters(diffusion.denoiser, SETTINGS))

    def test_noise_is_the_plans_and_so_is_the_divisor(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path, released: Released
    ) -> None:
        trained(diffusion, records, tmp_path)
        noise = torch.cat(
            [
                (result[name] * PLAN.batch_size - value).flatten()
                for clipped, result, _ in released
                for name, value in clipped.values.items()
            ]
        )
        assert len(noise) > 500_000  # one in a hundred more or less would be ten standard errors away
        assert float(noise.std()) == pytest.approx(PLAN.noise_multiplier * PLAN.max_norm, rel=0.01)

    def test_the_sum_is_no_longer_than_the_drawn_records_allow(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path, released: Released
    ) -> None:
        drawn: list[float] = []
        trained(diffusion, records, tmp_path, told=lambda _, numbers: drawn.append(numbers["drawn"]))
        norms = [float(torch.cat([v.flatten() for v in c.values.values()]).norm()) for c, _, _ in released]
        assert all(0 < n <= PLAN.max_norm * count + 1e-6 for n, count in zip(norms, drawn, strict=True))
        assert len(set(drawn)) > 1  # Poisson batches have no fixed size

    def test_an_empty_batch_is_a_step_of_noise(
        self,
        diffusion: LatentDiffusion,
        records: LatentRecords,
        tmp_path: Path,
        released: Released,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("dpwavelet.privacy.plan.poisson_batch", lambda *_: np.zeros(0, dtype=np.int64))
        student = trained(diffusion, records, tmp_path)
        assert len(released) == PLAN.steps
        assert all(not value.any() for clipped, _, _ in released for value in clipped.values.values())
        assert not torch.equal(weights(student), weights(diffusion))

    def test_what_a_record_is_shown_does_not_depend_on_who_else_is_drawn(
        self, diffusion: LatentDiffusion, records: LatentRecords
    ) -> None:
        def shown(chosen: list[int], step: int) -> tuple[Tensor, ...]:
            source = Source.for_test(0)
            return training._rows(diffusion, records, SETTINGS, source, step, np.array(chosen))

        alone, beside = shown([5], 3), shown([1, 5, 9], 3)
        assert all(torch.equal(a[0], b[1]) for a, b in zip(alone, beside, strict=True))
        assert not torch.equal(beside[3][0], beside[3][1])
        _, _, times, noise = shown([5], 4)
        assert not torch.equal(times, alone[2])
        assert not torch.equal(noise, alone[3])
        assert not torch.equal(noise[0, 0], noise[0, 1])

    def test_times_are_uniform_one_in_each_part(self) -> None:
        coins = np.random.default_rng(0).random((4000, 4))
        times = training._spread(coins, 1000)
        assert torch.equal(times // 250, torch.arange(4).expand(4000, 4))
        counts = torch.bincount(times.flatten(), minlength=1000).double()
        assert float(((counts - 16) ** 2 / 16).sum()) < 1150  # chi-squared of 996: passes with 99.97 %
        assert int(training._spread(np.ones((1, 4)), 1000).max()) == 999

    def test_a_caption_is_dropped_as_often_as_is_said(
        self, diffusion: LatentDiffusion, records: LatentRecords
    ) -> None:
        settings = replace(SETTINGS, caption_dropout=0.5)
        source, empty = Source.for_test(0), torch.from_numpy(records.empty.astype(np.int64))
        everyone = np.arange(120)
        ids = [training._rows(diffusion, records, settings, source, s, everyone)[1] for s in range(2)]
        share = float((torch.cat(ids) == empty).all(1).float().mean())
        assert 0.37 < share < 0.63  # 0.5 at four standard errors

    def test_a_plan_for_people_is_refused(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path
    ) -> None:
        plan = replace(PLAN, unit="person", group_by="identity")
        with pytest.raises(PrivacyError, match="protects records"):
            trained(diffusion, records, tmp_path, plan)


class TestInterruption:
    """A run that is stopped goes on as if it had not been, and is charged for what it may have taken."""

    @pytest.mark.parametrize("stop", [1, 3])
    def test_a_run_stopped_after_any_step_ends_with_the_same_weights(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path, stop: int
    ) -> None:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        expected = weights(trained(diffusion, records, whole))
        (broken / "work").mkdir(parents=True)
        (broken / "work" / "run.json").write_bytes((whole / "work" / "run.json").read_bytes())

        with pytest.raises(KeyboardInterrupt):
            trained(diffusion, records, broken, told=partial(stopped, after=stop))
        charged = Ledger.open(broken / "ledger.jsonl").charged_steps("a")
        assert stop <= charged <= stop + SETTINGS.charge_every
        assert torch.equal(weights(trained(diffusion, records, broken)), expected)
        assert Ledger.open(broken / "ledger.jsonl").charged_steps("a") == PLAN.steps

    def test_steps_that_an_older_copy_of_the_ledger_lacks_are_charged_again(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path
    ) -> None:
        expected = weights(trained(diffusion, records, tmp_path))
        path = tmp_path / "ledger.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
        assert Ledger.open(path).charged_steps("a") == 2
        assert torch.equal(weights(trained(diffusion, records, tmp_path)), expected)
        assert Ledger.open(path).charged_steps("a") == PLAN.steps

    def test_steps_are_charged_before_a_record_is_looked_at(
        self,
        diffusion: LatentDiffusion,
        records: LatentRecords,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path, steps = tmp_path / "ledger.jsonl", []
        original = training._rows

        def checked(*args: object) -> tuple[Tensor, ...]:
            steps.append(args[4])
            assert Ledger.open(path).charged_steps("a") > steps[-1]
            return original(*args)

        monkeypatch.setattr(training, "_rows", checked)
        trained(diffusion, records, tmp_path)
        assert set(steps) == set(range(PLAN.steps))

    @pytest.mark.parametrize("change", [{"draws": 3}, {"first_block": 1}, {"learning_rate": 0.5}])
    def test_a_checkpoint_of_other_settings_is_refused(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path, change: dict[str, float]
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            trained(diffusion, records, tmp_path, told=stopped)
        with pytest.raises(PrivacyError, match="another run, plan or settings"):
            trained(diffusion, records, tmp_path, settings=replace(SETTINGS, **change))

    def test_a_checkpoint_of_another_start_is_refused(
        self, diffusion: LatentDiffusion, records: LatentRecords, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            trained(diffusion, records, tmp_path, told=stopped)
        other = diffusion.with_denoiser(deepcopy(diffusion.denoiser))
        with torch.no_grad():
            other.denoiser.unet.conv_in.bias[0] += 1e-6
        noise = replace(
            diffusion,
            scheduler=type(diffusion.scheduler).from_config(diffusion.scheduler.config, beta_end=0.03),
        )
        for another in (other, noise):
            with pytest.raises(PrivacyError, match="the key for another model to start from"):
                trained(another, records, tmp_path)


class TestChoice:
    """What is trained, and that it learns."""

    def test_whole_modules_or_their_attention_alone_from_a_block_on(self, diffusion: LatentDiffusion) -> None:
        denoiser = diffusion.denoiser
        modules = set(trained_parameters(denoiser, SETTINGS))
        attention = set(trained_parameters(denoiser, replace(SETTINGS, trained="attention")))
        later = set(trained_parameters(denoiser, replace(SETTINGS, first_block=2)))
        assert attention < modules
        first = "unet.down_blocks.0.attentions.0."
        block = f"{first}transformer_blocks.0."
        assert {
            f"{block}attn1.to_q.weight",
            f"{block}attn2.to_out.0.bias",
            f"{block}norm2.weight",
        } < attention
        assert {
            f"{block}ff.net.2.weight",
            f"{block}norm3.bias",
            f"{first}proj_in.weight",
        } < modules - attention
        assert {name.split(".attentions")[0] for name in modules - later} == {
            "unet.down_blocks.0",
            "unet.down_blocks.1",
        }
        assert "unet.mid_block.attentions.0.proj_in.weight" in later
        embedder = {f"embedder.{name}" for name, _ in denoiser.embedder.named_parameters()}
        assert embedder < attention & later
        assert not any("resnets" in name or "conv" in name or "time" in name for name in modules)

    def test_private_training_lowers_the_loss(
        self,
        diffusion: LatentDiffusion,
        records: LatentRecords,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("dpwavelet.privacy.plan.calibrate_noise", lambda **_: 0.05)  # hardly private
        plan = replace(PLAN, batch_size=16, steps=12, max_norm=1.0)
        settings = replace(SETTINGS, learning_rate=1e-2, chunk=32, charge_every=12)
        few = replace(records, latents=records.latents[:16], captions=records.captions[:16])
        before = held_out_loss(diffusion, few, settings)
        after = held_out_loss(trained(diffusion, records, tmp_path, plan, settings), few, settings)
        assert after < before - 0.1

    def test_plain_training_lowers_the_loss_and_changes_the_same_weights(
        self, diffusion: LatentDiffusion, records: LatentRecords
    ) -> None:
        settings = replace(SETTINGS, learning_rate=1e-2, chunk=8)
        few = replace(records, latents=records.latents[:16], captions=records.captions[:16])
        before = held_out_loss(diffusion, few, settings)
        some, same, other = (
            train_without_privacy(diffusion, few, settings, steps=12, batch_size=16, seed=seed)
            for seed in (0, 0, 1)
        )
        assert held_out_loss(some, few, settings) < before - 0.1
        assert torch.equal(weights(some), weights(same))
        assert not torch.equal(weights(some), weights(other))
        changed = {
            name
            for (name, new), old in zip(
                some.denoiser.named_parameters(), diffusion.denoiser.parameters(), strict=True
            )
            if not torch.equal(new, old)
        }
        assert changed == trained_parameters(diffusion.denoiser, settings).keys()
        assert not any(p.requires_grad for p in some.denoiser.parameters())

    @pytest.mark.parametrize(
        "wrong", [{"draws": 0}, {"trained": "all"}, {"first_block": -1}, {"learning_rate": 0}, {"chunk": 0}]
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            Finetuning(**wrong)
