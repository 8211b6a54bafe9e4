"""DP-LlamaGen as one system: its records, its private training under a plan, its pictures."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dpwavelet.rivals
from dpwavelet.errors import ConfigError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.privacy.clipping import ClippedSum, RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens
from dpwavelet.rivals import Rival
from dpwavelet.rivals.llamagen import LlamaGen, LlamaTraining, create
from dpwavelet.rivals.llamagen.sampling import LlamaSampling
from dpwavelet.rivals.llamagen.transformer import LlamaTransformer
from dpwavelet.text import Vocabulary
from dpwavelet.training import Adam, learner

SETTINGS = LlamaTraining(chunk=16, mixed_precision=False, charge_every=2)
PLAN = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=4, max_norm=1.0)
LORA = replace(SETTINGS, parameters="lora", rank=2)


@pytest.fixture(scope="module")
def rival(portraits: Path) -> LlamaGen:
    made = create("tiny", Vocabulary.of(), 0)
    images = from_bytes(PrivateImages.open(portraits, 32).pixels(range(8)))
    made.tokenizer.start(images, torch.Generator().manual_seed(0))
    with torch.no_grad():  # as after training: the output is not zero
        made.transformer.output.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    return replace(made, settings=SETTINGS, sampling=LlamaSampling(batch_size=4)).eval()


@pytest.fixture(scope="module")
def images(portraits: Path) -> PrivateImages:
    return PrivateImages.open(portraits, 32).first(120)


@pytest.fixture(scope="module")
def records(rival: LlamaGen, images: PrivateImages) -> PrivateTokens:
    return rival.prepare(images)


def trained(
    rival: LlamaGen, records: PrivateTokens, folder: Path, plan: PrivacyPlan = PLAN
) -> tuple[LlamaGen, Ledger, list[Mapping[str, float]]]:
    ledger = Ledger.open(folder / "ledger.jsonl")
    if not ledger.entries:
        ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
    told: list[Mapping[str, float]] = []
    found = rival.train(records, plan, folder / "work", ledger, "a", lambda _, numbers: told.append(numbers))
    return found, ledger, told


def weights(model: LlamaTransformer) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


class TestRecords:
    """Tokens of the whole picture and words of its captions, each record by itself."""

    def test_a_record_is_its_raster_and_its_captions(
        self, rival: LlamaGen, records: PrivateTokens, images: PrivateImages
    ) -> None:
        assert records.image.shape == (120, 64)
        assert records.scales == (64,)
        assert records.captions.shape == (120, 5, 24)
        assert len(np.unique(records.image)) > 20
        ids = rival.words.ids(images.captions(3)[0], 24)
        assert records.captions[3, 0, : len(ids)].tolist() == ids

    def test_it_does_not_depend_on_who_stands_beside_it(
        self, rival: LlamaGen, records: PrivateTokens, images: PrivateImages
    ) -> None:
        fewer = rival.prepare(images.first(37))
        assert np.array_equal(fewer.image, records.image[:37])
        assert np.array_equal(fewer.captions, records.captions[:37])

    def test_variants_of_pictures_are_encoded_where_they_are_wanted(
        self, rival: LlamaGen, images: PrivateImages
    ) -> None:
        mirrored = replace(rival, settings=replace(SETTINGS, augment="mirror")).prepare(images.first(3))
        assert mirrored.variants is not None
        flipped = from_bytes(images.pixels(range(3))).flip(-1)
        assert np.array_equal(mirrored.variants[:, 0], rival.tokenizer.encode(flipped).numpy())

    def test_they_come_back_from_a_file(self, records: PrivateTokens, tmp_path: Path) -> None:
        records.save(tmp_path / "tokens.safetensors")
        assert np.array_equal(PrivateTokens.load(tmp_path / "tokens.safetensors").image, records.image)

    def test_no_rival_opens_a_folder_of_private_images(self) -> None:
        (root,) = dpwavelet.rivals.__path__
        sources = {path: path.read_text(encoding="utf-8") for path in Path(root).rglob("*.py")}
        assert len(sources) > 5
        assert not [path for path, text in sources.items() if "PrivateImages.open" in text]
        assert not [path for path, text in sources.items() if "open_folder" in text]


class TestTraining:
    """The whole loop of `training`, on this model."""

    def test_every_step_is_charged_and_the_weights_move(
        self, rival: LlamaGen, records: PrivateTokens, tmp_path: Path
    ) -> None:
        before = {name: p.clone() for name, p in weights(rival.transformer).items()}
        found, ledger, told = trained(rival, records, tmp_path)
        assert ledger.charged_steps("a") == PLAN.steps
        assert len(told) == PLAN.steps
        assert all(0 < numbers["loss"] < 2 * math.log(64) for numbers in told)
        assert all(torch.equal(p, before[name]) for name, p in weights(rival.transformer).items())
        moved = [name for name, p in weights(found.transformer).items() if not torch.equal(p, before[name])]
        assert set(moved) == set(before)

    def test_only_what_the_plan_released_reaches_the_weights(
        self,
        rival: LlamaGen,
        records: PrivateTokens,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seen: list[tuple[int, dict[str, Tensor]]] = []
        sizes: list[Tensor] = []
        original = PrivacyPlan.privatize

        def noted(plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
            result = original(plan, clipped, source, step)
            seen.append((step, result))
            noise = [
                (result[name] * plan.batch_size - value).flatten() for name, value in clipped.values.items()
            ]
            sizes.append(torch.cat(noise))
            return result

        monkeypatch.setattr(PrivacyPlan, "privatize", noted)
        found, _, _ = trained(rival, records, tmp_path)
        assert [step for step, _ in seen] == list(range(PLAN.steps))
        replay = LlamaTransformer(rival.transformer.config)
        replay.load_state_dict(rival.transformer.state_dict())
        optimizer = Adam(dict(replay.named_parameters()), SETTINGS, PLAN.steps)
        for step, gradients in seen:
            optimizer.step(gradients, step)
        optimizer.release()
        for name, value in weights(replay).items():
            assert torch.equal(value, weights(found.transformer)[name])
        spread = float(torch.cat(sizes).std())  # of 450,000 numbers
        assert spread == pytest.approx(PLAN.noise_multiplier * PLAN.max_norm, rel=0.01)

    def test_a_run_that_was_killed_goes_on_where_it_was(
        self, rival: LlamaGen, records: PrivateTokens, tmp_path: Path
    ) -> None:
        whole, _, _ = trained(rival, records, tmp_path)
        again, ledger, told = trained(rival, records, tmp_path)
        assert not told  # nothing was left to do
        assert ledger.charged_steps("a") == PLAN.steps
        for name, value in weights(whole.transformer).items():
            assert torch.equal(value, weights(again.transformer)[name])

    def test_its_private_step_compiles_and_takes_the_same_steps(
        self, rival: LlamaGen, records: PrivateTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = RecordClipper.compile
        compiled: list[int] = []

        def quickly(clipper: RecordClipper, losses: Any, *shown: Tensor) -> None:
            compiled.append(len(shown))
            original(clipper, losses, *shown, backend="eager")

        monkeypatch.setattr(RecordClipper, "compile", quickly)
        monkeypatch.setattr("dpwavelet.randomness.os.urandom", bytes)  # the same key twice
        plain, _, _ = trained(rival, records, tmp_path / "plain")
        faster, _, _ = trained(rival.computing(torch.device("cpu"), True), records, tmp_path / "compiled")
        assert compiled
        for name, value in weights(plain.transformer).items():
            assert torch.allclose(value, weights(faster.transformer)[name], atol=1e-5)

    def test_with_a_weak_promise_it_learns(
        self, rival: LlamaGen, records: PrivateTokens, tmp_path: Path
    ) -> None:
        plan = PrivacyPlan(epsilon=100, delta=1e-4, records=120, batch_size=60, steps=10, max_norm=1.0)
        before = rival.held_out_loss(records)
        eager = replace(
            rival, settings=replace(SETTINGS, learning_rate=1e-2, average=0.0, chunk=60, charge_every=10)
        )
        found, _, _ = trained(eager, records, tmp_path, plan)
        assert before == pytest.approx(math.log(64), abs=0.05)
        assert found.held_out_loss(records) < before - 0.1

    @pytest.mark.parametrize("settings", [SETTINGS, LORA], ids=["all", "lora"])
    def test_one_record_moves_the_sum_by_at_most_the_clipping_norm(
        self, rival: LlamaGen, records: PrivateTokens, settings: LlamaTraining
    ) -> None:
        student, parameters = learner(rival.transformer, settings)
        captions, (ids,) = records.batch(np.arange(12), np.zeros(12, np.int64))

        def total(chosen: list[int]) -> dict[str, Tensor]:
            clipper = RecordClipper(student, parameters, max_norm=0.01)
            clipper.accumulate(lambda c, i: student.losses(c, [i]).image, captions[chosen], ids[chosen])
            return clipper.finish().values

        everyone, without = total(list(range(12))), total(list(range(11)))
        moved = torch.cat([(everyone[name] - without[name]).flatten() for name in everyone]).norm()
        assert 0.009 < float(moved) <= 0.01


class TestParameters:
    """What is trained, by the names that parts have here."""

    @pytest.mark.parametrize(
        ("parameters", "parts"),
        [
            ("attention", (".wqkv.", ".wo.")),
            ("heads", ("output.", "norm.weight", "tok_embeddings.")),
            ("blocks", ("layers.",)),
        ],
    )
    def test_a_choice_trains_its_parts_and_no_others(
        self, rival: LlamaGen, parameters: str, parts: tuple[str, ...]
    ) -> None:
        settings = replace(SETTINGS, parameters=parameters)  # type: ignore[arg-type]
        chosen = {name for name in weights(rival.transformer) if settings.trained(name)}
        assert all(any(part in name for part in parts) for name in chosen)
        assert all(any(part in name for name in chosen) for part in parts)
        counted = sum(weights(rival.transformer)[name].numel() for name in chosen)
        assert replace(rival, settings=settings).trained_parameters == counted
        assert not [name for name in chosen if parameters == "heads" and name.startswith("layers.")]

    def test_low_rank_pairs_stand_beside_wqkv_and_wo_alone(
        self, rival: LlamaGen, records: PrivateTokens, tmp_path: Path
    ) -> None:
        lora = replace(rival, settings=LORA)
        assert lora.trained_parameters == 2 * 2 * ((32 + 96) + (32 + 32))  # layers, rank, sides
        found, _, _ = trained(lora, records, tmp_path)
        before, after = weights(rival.transformer), weights(found.transformer)
        assert before.keys() == after.keys()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {f"layers.{n}.attention.{part}.weight" for n in range(2) for part in ("wqkv", "wo")}
        for name in moved:
            assert int(torch.linalg.matrix_rank(after[name] - before[name], tol=1e-4)) <= 2


class TestPictures:
    """Bytes of the size of the preset."""

    def test_a_caption_and_a_seed_make_one_picture(self, rival: LlamaGen) -> None:
        captions = ["a smiling woman", "", "a man with a red hat", "a boy", "a girl with black hair"]
        first, again, other = (rival.draw(captions, seed) for seed in (0, 0, 1))
        assert first.shape == (5, 3, 32, 32)
        assert first.dtype == torch.uint8
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(rival.draw(captions[:1], 0), first[:1])

    def test_it_has_the_face_of_a_rival(self, rival: LlamaGen) -> None:
        face: Rival[PrivateTokens] = rival
        assert face.name == "DP-LlamaGen"
        assert face.trained_parameters == sum(p.numel() for p in rival.transformer.parameters())


def test_the_thumb_preset_is_about_as_large_as_our_transformer() -> None:
    with torch.device("meta"):
        made = create("thumb", Vocabulary.of(), 0)
    assert sum(p.numel() for p in made.transformer.parameters()) == pytest.approx(5.3e6, rel=0.02)


def test_parts_of_different_models_are_refused(rival: LlamaGen) -> None:
    config = replace(rival.transformer.config, codes=65)
    with pytest.raises(ConfigError, match="mixed up"):
        replace(rival, transformer=LlamaTransformer(config))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="tiny, thumb"):
        create("huge", Vocabulary.of(), 0)
