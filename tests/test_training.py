"""Private training as a whole: what one record can do, what a kill can do, what the loop adds to the plan."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError, DataError, PrivacyError
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.privacy.clipping import ClippedSum, RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens, tokenize
from dpwavelet.training import (
    MEASURED,
    Adam,
    Checkpoint,
    Emphasis,
    PrivateTraining,
    Told,
    chunks,
    held_out_loss,
    train_privately,
    train_without_privacy,
)
from dpwavelet.training.losses import record_losses
from dpwavelet.training.settings import HEADS
from dpwavelet.training.views import viewed, views_of
from dpwavelet.transformer import ImageTransformer, TransformerConfig

SETTINGS = PrivateTraining(chunk=16, mixed_precision=False, charge_every=2)
PLAN = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=6, max_norm=1.0)


@pytest.fixture(scope="module")
def transformer() -> ImageTransformer:
    config = TransformerConfig(
        words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=2, heads=2
    )
    model = ImageTransformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def made_up(count: int, seed: int = 0) -> PrivateTokens:
    """Records whose four tokens all equal one of four codes, which their caption names."""
    generator = np.random.default_rng(seed)
    code = generator.integers(4, size=count)
    captions = np.zeros((count, CAPTION_CHOICES, 3), dtype=np.int16)
    captions[:, :, 0] = 1
    captions[:, :, 1] = code[:, None] + 10
    return PrivateTokens(np.repeat(code[:, None], 4, 1).astype(np.int16), captions, (4,))


def trained(
    transformer: ImageTransformer,
    folder: Path,
    plan: PrivacyPlan = PLAN,
    settings: PrivateTraining = SETTINGS,
    told: Told | None = None,
) -> ImageTransformer:
    ledger = Ledger.open(folder / "ledger.jsonl")
    if not ledger.entries:
        ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
    return train_privately(transformer, made_up(120), plan, settings, folder / "work", ledger, "a", told)


def weights(model: ImageTransformer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class TestPromise:
    """Every value that the weights see came from the plan, with the plan's own noise and divisor."""

    @pytest.fixture
    def released(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[ClippedSum, dict[str, Tensor], int]]:
        seen: list[tuple[ClippedSum, dict[str, Tensor], int]] = []
        original = PrivacyPlan.privatize

        def noted(plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
            result = original(plan, clipped, source, step)
            seen.append((clipped, result, step))
            return result

        monkeypatch.setattr(PrivacyPlan, "privatize", noted)
        return seen

    def test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights(
        self,
        transformer: ImageTransformer,
        tmp_path: Path,
        released: list[tuple[ClippedSum, dict[str, Tensor], int]],
    ) -> None:
        student = trained(transformer, tmp_path)
        assert [step for _, _, step in released] == list(range(PLAN.steps))
        replay = ImageTransformer(transformer.config)
        replay.load_state_dict(transformer.state_dict())
        optimizer = Adam(dict(replay.named_parameters()), SETTINGS, PLAN.steps)
        for _, gradients, step in released:
            optimizer.step(gradients, step)
        optimizer.release()
        assert torch.equal(weights(replay), weights(student))

    def test_what_is_released_differs_from_the_clipped_mean_by_noise_of_the_planned_size(
        self,
        transformer: ImageTransformer,
        tmp_path: Path,
        released: list[tuple[ClippedSum, dict[str, Tensor], int]],
    ) -> None:
        trained(transformer, tmp_path)
        noise = torch.cat(
            [
                (result[name] * PLAN.batch_size - value).flatten()
                for clipped, result, _ in released
                for name, value in clipped.values.items()
            ]
        )
        assert len(noise) > 20_000  # a tenth more or less would be 14 standard errors away
        assert float(noise.std()) == pytest.approx(PLAN.noise_multiplier * PLAN.max_norm, rel=0.02)

    def test_the_clipped_sum_is_that_of_the_drawn_records_and_no_other(
        self,
        transformer: ImageTransformer,
        tmp_path: Path,
        released: list[tuple[ClippedSum, dict[str, Tensor], int]],
    ) -> None:
        drawn: list[float] = []
        trained(transformer, tmp_path, told=lambda _, numbers: drawn.append(numbers["drawn"]))
        bound = [float(torch.cat([v.flatten() for v in c.values.values()]).norm()) for c, _, _ in released]
        assert all(norm <= PLAN.max_norm * count + 1e-4 for norm, count in zip(bound, drawn, strict=True))
        assert len(set(drawn)) > 1  # Poisson batches have no fixed size

    def test_an_empty_batch_is_a_step_of_noise(
        self,
        transformer: ImageTransformer,
        tmp_path: Path,
        released: list[tuple[ClippedSum, dict[str, Tensor], int]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("dpwavelet.privacy.plan.poisson_batch", lambda *_: np.zeros(0, dtype=np.int64))
        trained(transformer, tmp_path)
        assert len(released) == PLAN.steps
        assert all(not value.any() for clipped, _, _ in released for value in clipped.values.values())
        assert all(value.any() for _, result, _ in released for value in result.values())

    def test_one_record_moves_the_sum_of_a_step_by_at_most_the_clipping_norm(
        self, transformer: ImageTransformer
    ) -> None:
        records, source = made_up(40), Source.for_test(3)
        student = ImageTransformer(transformer.config)
        student.load_state_dict(transformer.state_dict())
        views = views_of(source, 0, 40, SETTINGS)

        def total(chosen: list[int]) -> Tensor:
            clipper = RecordClipper(student, dict(student.named_parameters()), max_norm=0.7)
            for chunk, own in chunks(np.array(chosen), 16):
                clipper.accumulate(
                    partial(record_losses, student, SETTINGS, records.scales),
                    *viewed(records, chunk, *views),
                    records=own,
                )
            return torch.cat([value.flatten() for value in clipper.finish().values.values()])

        everyone = total(list(range(40)))
        for gone in (0, 15, 16, 39):
            without = total([i for i in range(40) if i != gone])
            assert 0.5 < float((everyone - without).norm()) <= 0.7 * (1 + 1e-4)

    def test_the_caption_a_record_shows_does_not_depend_on_who_else_is_drawn(self) -> None:
        source = Source.for_test(0)
        ((few,), (many,)) = (views_of(source, 5, count, SETTINGS) for count in (20, 50))
        assert np.array_equal(few.choice, many.choice[:20])
        assert torch.equal(few.drops, many.drops[:20])
        assert not np.array_equal(many.choice, views_of(source, 6, 50, SETTINGS)[0].choice)


class TestInterruption:
    """A run that is stopped goes on as if it had not been, and is charged for what it may have taken."""

    @pytest.mark.parametrize("stop", range(1, 6))
    def test_a_run_stopped_after_any_step_ends_with_the_same_weights(
        self, transformer: ImageTransformer, tmp_path: Path, stop: int
    ) -> None:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        expected = weights(trained(transformer, whole, told=None))
        source_key = (whole / "work" / "run.json").read_bytes()
        (broken / "work").mkdir(parents=True)
        (broken / "work" / "run.json").write_bytes(source_key)  # the same randomness for both

        def kill(step: int, _: dict[str, float]) -> None:
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trained(transformer, broken, told=kill)
        charged = Ledger.open(broken / "ledger.jsonl").charged_steps("a")
        assert stop <= charged <= stop + SETTINGS.charge_every
        assert torch.equal(weights(trained(transformer, broken)), expected)
        assert Ledger.open(broken / "ledger.jsonl").charged_steps("a") == PLAN.steps

    def test_steps_that_an_older_copy_of_the_ledger_lacks_are_charged_again(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        expected = weights(trained(transformer, tmp_path))
        path = tmp_path / "ledger.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
        assert Ledger.open(path).charged_steps("a") == 2
        assert torch.equal(weights(trained(transformer, tmp_path)), expected)  # all steps were taken before
        assert Ledger.open(path).charged_steps("a") == PLAN.steps

    def test_steps_are_charged_before_they_are_taken(
        self, transformer: ImageTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "ledger.jsonl"
        original = PrivacyPlan.privatize

        def checked(plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
            assert Ledger.open(path).charged_steps("a") > step
            return original(plan, clipped, source, step)

        monkeypatch.setattr(PrivacyPlan, "privatize", checked)
        trained(transformer, tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda: (replace(PLAN, epsilon=7.0), SETTINGS),
            lambda: (PLAN, replace(SETTINGS, learning_rate=0.5)),
        ],
    )
    def test_a_checkpoint_of_another_promise_or_settings_is_refused(
        self,
        transformer: ImageTransformer,
        tmp_path: Path,
        change: Callable[[], tuple[PrivacyPlan, PrivateTraining]],
    ) -> None:
        trained(transformer, tmp_path)
        plan, settings = change()
        (tmp_path / "ledger.jsonl").unlink()  # or it would be the first to notice another plan
        with pytest.raises(PrivacyError, match="another run, plan or settings"):
            trained(transformer, tmp_path, plan, settings)

    def test_another_plan_than_the_ledger_was_told_is_refused(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        with pytest.raises(PrivacyError, match="begun with another plan, or not at all"):
            train_privately(transformer, made_up(120), PLAN, SETTINGS, tmp_path / "work", ledger, "a")
        ledger.append({"kind": "begun", "run": "a", "plan": replace(PLAN, epsilon=1.0).to_json()})
        with pytest.raises(PrivacyError, match="begun with another plan, or not at all"):
            trained(transformer, tmp_path)
        assert not (tmp_path / "work").exists()

    def test_another_model_to_start_from_is_refused(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        """Even where what differs is not trained: the same noise would hide another sum."""
        settings = replace(SETTINGS, parameters="attention")
        trained(transformer, tmp_path, settings=settings)
        other = deepcopy(transformer)
        with torch.no_grad():
            next(p for name, p in other.named_parameters() if name.startswith(HEADS)).view(-1)[0] += 1e-6
        alike = deepcopy(transformer)
        alike.config = replace(transformer.config, heads=2 * transformer.config.heads)
        for another in (other, alike):
            with pytest.raises(PrivacyError, match="the key for another model to start from"):
                trained(another, tmp_path, settings=settings)
        trained(transformer, tmp_path, settings=settings)

    def test_another_table_of_emphasis_is_refused(
        self, transformer: ImageTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a later version of the package may have: the same noise would hide another sum."""
        trained(transformer, tmp_path)
        reordered = dict(reversed(MEASURED.items()))  # of two parts of one name the first would count
        for table in ({**MEASURED, ".qkv.": Emphasis(2.0, 1.0)}, reordered):
            monkeypatch.setattr("dpwavelet.training.settings.MEASURED", table)
            with pytest.raises(PrivacyError, match="another run, plan or settings"):
                trained(transformer, tmp_path)

    def test_a_state_without_its_key_is_refused(self, transformer: ImageTransformer, tmp_path: Path) -> None:
        trained(transformer, tmp_path)
        (tmp_path / "work" / "run.json").unlink()
        with pytest.raises(PrivacyError, match="randomness is lost"):
            trained(transformer, tmp_path)

    def test_the_state_of_another_run_is_refused(self, transformer: ImageTransformer, tmp_path: Path) -> None:
        for name in ("a", "b"):
            trained(transformer, tmp_path / name)
        state = Path("work") / "state.safetensors"
        (tmp_path / "a" / state).replace(tmp_path / "b" / state)
        with pytest.raises(PrivacyError, match="not written by this run"):
            trained(transformer, tmp_path / "b")

    def test_two_runs_draw_different_noise(self, transformer: ImageTransformer, tmp_path: Path) -> None:
        first, second = (weights(trained(transformer, tmp_path / name)) for name in ("a", "b"))
        assert not torch.equal(first, second)

    def test_only_the_owner_may_read_the_key(self, transformer: ImageTransformer, tmp_path: Path) -> None:
        trained(transformer, tmp_path)
        assert (tmp_path / "work" / "run.json").stat().st_mode & 0o077 == 0


class TestLearning:
    """The loop learns, privately and not, and trains what it is told to."""

    def test_private_training_lowers_the_loss_and_plain_training_lowers_it_more(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        plan = PrivacyPlan(epsilon=50, delta=1e-4, records=120, batch_size=60, steps=40, max_norm=1.0)
        settings = replace(SETTINGS, learning_rate=5e-3, charge_every=20)
        held_out = made_up(50, seed=9)
        before = held_out_loss(transformer, held_out)
        private = held_out_loss(trained(transformer, tmp_path, plan, settings), held_out)
        plain = held_out_loss(
            train_without_privacy(transformer, made_up(120), settings, steps=40, batch_size=60, seed=0),
            held_out,
        )
        assert plain < private < before - 0.3

    @pytest.mark.parametrize(
        ("chosen", "moves"),
        [("attention", "blocks.0.qkv"), ("blocks", "blocks.1.widen"), ("heads", "code_heads.0")],
    )
    def test_only_the_chosen_parameters_move(
        self, transformer: ImageTransformer, tmp_path: Path, chosen: str, moves: str
    ) -> None:
        settings = replace(SETTINGS, parameters=chosen)
        before, after = (
            transformer.state_dict(),
            trained(transformer, tmp_path, settings=settings).state_dict(),
        )
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert f"{moves}.weight" in moved
        assert all(settings.trained(name) for name in moved)
        assert "word_embedding.weight" not in moved

    @pytest.mark.parametrize("schedule", ["linear", "constant", "cosine"])
    @pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (1, 0.05), (7, 0.0), (20, 0.9)])
    def test_the_learning_rate_rises_and_then_goes_as_it_is_told_to(
        self, schedule: Any, steps: int, warmup: float
    ) -> None:
        optimizer = Adam({}, replace(SETTINGS, schedule=schedule, warmup=warmup), steps)
        shares = [optimizer._schedule(step) for step in range(steps)]
        warm = max(round(warmup * steps), 1)
        assert all(0 < share <= 1 for share in shares)
        assert shares[:warm] == pytest.approx([(step + 1) / warm for step in range(warm)])
        after, left = shares[warm:], steps - warm + 1
        if schedule == "constant":
            assert after == [1.0] * (steps - warm)
        elif schedule == "linear":
            assert after == pytest.approx([(left - step) / left for step in range(1, left)])
        else:
            expected = [(1 + math.cos(math.pi * step / left)) / 2 for step in range(1, left)]
            assert after == pytest.approx(expected)

    def test_an_average_of_nothing_releases_the_last_weights(self) -> None:
        given = torch.nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))
        random = torch.Generator().manual_seed(1)
        gradients = [torch.randn(50, generator=random) for _ in range(5)]

        def ended(average: float) -> tuple[Tensor, Tensor]:
            weight = torch.nn.Parameter(given.detach().clone())
            optimizer = Adam({"w": weight}, replace(SETTINGS, average=average, learning_rate=0.1), 5)
            for step, gradient in enumerate(gradients):
                optimizer.step({"w": gradient}, step)
            last = weight.detach().clone()
            optimizer.release()
            return last, weight.detach()

        last, released = ended(0.0)
        assert torch.equal(last, released)
        assert not torch.equal(*ended(0.9))

    def test_an_emphasis_weighs_what_is_clipped(
        self, transformer: ImageTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where nothing is clipped, each sum is its weight times the one without emphasis."""
        plan = replace(PLAN, max_norm=1e6, steps=1)
        sums: dict[str, dict[str, Tensor]] = {}
        monkeypatch.setattr(Checkpoint, "source", lambda *_: Source.for_test(0))
        monkeypatch.setattr(Checkpoint, "save", lambda *_: None)
        for emphasis in ("measured", "even"):

            def noted(
                plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int, at: str = emphasis
            ) -> dict[str, Tensor]:
                sums[at] = clipped.values
                return {name: value.float() for name, value in clipped.values.items()}

            monkeypatch.setattr(PrivacyPlan, "privatize", noted)
            settings = replace(SETTINGS, emphasis=emphasis)
            (tmp_path / emphasis).mkdir()
            trained(transformer, tmp_path / emphasis, plan, settings)
        weighed = {name: SETTINGS.emphasis_of(name).weight for name in sums["even"]}
        assert len(set(weighed.values())) > 2
        for name, value in sums["even"].items():
            assert torch.allclose(sums["measured"][name], weighed[name] * value, rtol=1e-5, atol=1e-9), name

    def test_an_emphasis_multiplies_the_learning_rate(self) -> None:
        rates = {"blocks.1.qkv.weight": 1.4, "code_heads.0.weight": 0.4, "word_head.weight": 1.0}
        for name, rate in rates.items():
            moved = []
            for emphasis in ("measured", "even"):
                weight = torch.nn.Parameter(torch.zeros(20))
                optimizer = Adam({name: weight}, replace(SETTINGS, emphasis=emphasis), 5)
                optimizer.step({name: torch.linspace(-1, 1, 20)}, 0)
                moved.append(weight.detach())
            assert torch.allclose(moved[0], rate * moved[1])

    def test_low_rank_pairs_and_training_without_privacy_have_no_emphasis(
        self, transformer: ImageTransformer
    ) -> None:
        assert SETTINGS.emphasis_of("blocks.0.qkv.up.weight") == (1.0, 1.0)
        plain = [
            train_without_privacy(
                transformer, made_up(20), replace(SETTINGS, emphasis=emphasis), steps=2, batch_size=4, seed=0
            )
            for emphasis in ("measured", "even")
        ]
        assert torch.equal(weights(plain[0]), weights(plain[1]))

    def test_the_starting_weights_stay_as_they_were(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        before = weights(transformer).clone()
        trained(transformer, tmp_path)
        assert torch.equal(weights(transformer), before)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"learning_rate": 0},
            {"average": 1.0},
            {"caption_dropout": 2},
            {"parameters": "x"},
            {"schedule": "x"},
            {"augment": "x"},
            {"views": 0},
            {"rank": 0},
            {"chunk": 0},
            {"per_unit": 0},
        ],
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            PrivateTraining(**wrong)  # type: ignore[arg-type]  # that is what is tested


class TestTokens:
    """Records become tokens one by one."""

    def test_a_record_has_the_same_tokens_whoever_stands_beside_it(
        self, portraits: Path, tiny_model: Path
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        images = PrivateImages.open(portraits, model.image_size)

        def tokens(count: int) -> PrivateTokens:
            return tokenize(
                images.first(count), model.tokenizer, model.vocabulary, scales=1, caption_length=24
            )

        few, many = tokens(10), tokens(130)
        assert np.array_equal(few.image, many.image[:10])
        assert np.array_equal(few.captions, many.captions[:10])

    def test_the_width_of_rows_does_not_depend_on_the_records(
        self, portraits: Path, tiny_model: Path
    ) -> None:
        """Another width rounds every record anew, by more than the margin of clipping."""
        model = Model.from_pretrained(tiny_model)
        images = PrivateImages.open(portraits, model.image_size).first(3)
        found = tokenize(images, model.tokenizer, model.vocabulary, scales=1, caption_length=32)
        assert found.captions.shape == (3, CAPTION_CHOICES, 32)
        assert not found.captions[:, :, -1].any()

    def test_only_the_asked_scales_are_kept(self, portraits: Path, tiny_model: Path) -> None:
        model = Model.from_pretrained(tiny_model)
        images = PrivateImages.open(portraits, model.image_size).first(5)
        for scales in (1, 2, 3):
            found = tokenize(images, model.tokenizer, model.vocabulary, scales=scales, caption_length=24)
            assert found.image.shape == (5, 16 * scales)
            assert found.scales == (16,) * scales

    def test_saved_tokens_come_back(self, tmp_path: Path) -> None:
        records = made_up(7)
        records.save(tmp_path / "tokens.safetensors")
        again = PrivateTokens.load(tmp_path / "tokens.safetensors")
        assert np.array_equal(again.image, records.image)
        assert np.array_equal(again.captions, records.captions)
        assert again.scales == records.scales

    def test_no_records_are_refused(self, portraits: Path, tiny_model: Path) -> None:
        model = Model.from_pretrained(tiny_model)
        with pytest.raises(DataError, match="no records"):
            tokenize(
                PrivateImages.open(portraits, 32).first(0),
                model.tokenizer,
                model.vocabulary,
                scales=1,
                caption_length=9,
            )
