"""Several views of a record in one step: one loss, one gradient, one clipping, whoever else is there."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from chosen_steps import CONFIG, STILL, fresh, train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_json
from dpwavelet.errors import ConfigError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.variants import mirrored_caption, numbers
from dpwavelet.model import Model
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import CAPTION_CHOICES, Members, PrivateTokens, tokenize
from dpwavelet.training import (
    Checkpoint,
    PrivateTraining,
    Told,
    chunks,
    train_privately,
    train_without_privacy,
)
from dpwavelet.training.losses import record_losses, unit_losses
from dpwavelet.training.views import View, rows_of, viewed, views_of
from dpwavelet.transformer import ImageTransformer

MANY = PrivateTraining(**STILL, views=3, augment="crops", caption_dropout=0.3)
C = 1.0


def made_up(count: int, variants: int = 8, seed: int = 0) -> PrivateTokens:
    """Records of random tokens in every variant, with five captions and five others when mirrored."""
    generator = np.random.default_rng(seed)
    captions, mirrored = generator.integers(2, 40, size=(2, count, CAPTION_CHOICES, 6), dtype=np.int16)
    captions[:, :, 0] = mirrored[:, :, 0] = 1
    image, others = (
        generator.integers(16, size=shape, dtype=np.int16) for shape in ((count, 4), (count, variants - 1, 4))
    )
    return PrivateTokens(image, captions, (4,), variants=others, mirrored=mirrored)


def kept(records: PrivateTokens, which: list[int]) -> PrivateTokens:
    """Some of the records."""
    return replace(records, **{name: table[which] for name, table in records.tables.items()})  # type: ignore[arg-type]


class TestCoins:
    """What a view shows comes from the source, for each record, step and view by itself."""

    def test_how_a_record_is_seen_does_not_depend_on_how_many_others_there_are(self) -> None:
        source = Source.for_test(0)
        for few, many in zip(*(views_of(source, 5, count, MANY) for count in (20, 50)), strict=True):
            assert np.array_equal(few.variant, many.variant[:20])
            assert np.array_equal(few.choice, many.choice[:20])
            assert torch.equal(few.drops, many.drops[:20])

    def test_no_two_views_or_steps_share_their_coins(self) -> None:
        source = Source.for_test(0)
        views = [*views_of(source, 1, 400, MANY), *views_of(source, 0, 400, MANY)]
        for name, chance in (("variant", 1 / 8), ("choice", 1 / 5), ("drops", 0.7**2 + 0.3**2)):
            coins = [np.asarray(getattr(view, name)) for view in views]
            for first in range(len(coins)):
                for second in range(first):
                    same = (coins[first] == coins[second]).mean()
                    assert abs(same - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5

    def test_within_a_view_variant_caption_and_dropout_are_independent(self) -> None:
        (view, *_) = views_of(Source.for_test(0), 0, 20_000, MANY)
        for first, second in ((view.variant, view.choice), (view.choice, view.drops.numpy())):
            assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 20_000**0.5
        counts = np.bincount(view.variant, minlength=8)
        assert len(counts) == len(numbers("crops")) and np.abs(counts - 2500).max() < 5 * 2188**0.5

    def test_one_view_of_images_as_they_are_is_what_training_always_did(self) -> None:
        source = Source.for_test(0)
        (view,) = views_of(source, 3, 50, PrivateTraining())
        assert not view.variant.any()
        choices = source.uniforms(("views", 3), 50)
        assert np.array_equal(view.choice, np.minimum((choices * 5).astype(int), 4))
        assert np.array_equal(view.drops, source.uniforms(("dropped captions", 3), 50) <= 0.1)

    def test_mirror_draws_the_picture_and_its_mirror_image_only(self) -> None:
        (view,) = views_of(Source.for_test(0), 0, 100, PrivateTraining(augment="mirror"))
        assert set(view.variant) == {0, 1}


class TestPromise:
    """One record is worth one clipped gradient, in however many views it is seen."""

    @settings(max_examples=20)
    @given(
        views=st.integers(1, 5),
        augment=st.sampled_from(["none", "mirror", "crops"]),
        gone=st.integers(0, 19),
        seed=st.integers(0, 99),
    )
    def test_removing_a_record_moves_the_sum_by_at_most_the_clipping_norm(
        self, views: int, augment: str, gone: int, seed: int
    ) -> None:
        asked = replace(MANY, views=views, augment=augment)
        records, model, source = made_up(20, seed=seed), fresh(), Source.for_test(seed)
        seen = views_of(source, 0, 20, asked)
        whole = clipped_sum(model, records, list(range(20)), seen, asked)
        without = clipped_sum(model, records, [i for i in range(20) if i != gone], seen, asked)
        assert 0.5 < float((whole - without).norm()) <= C * (1 + 1e-4)

    def test_the_test_above_would_notice_views_that_are_clipped_one_by_one(self) -> None:
        records, model = made_up(20), fresh()
        seen = views_of(Source.for_test(0), 0, 20, MANY)
        one_by_one = sum(clipped_sum(model, records, [7], [view], MANY) for view in seen)
        assert float(torch.as_tensor(one_by_one).norm()) > 1.5 * C

    def test_removing_a_record_moves_the_sum_of_a_step_of_training_by_no_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records, everyone = made_up(40), list(range(40))
        sums = []
        for gone in (None, 0, 4, 5, 39):
            batch = [record for record in everyone if record != gone]
            (found,), _ = train(tmp_path / str(gone), [batch], records, MANY, monkeypatch, seed=1)
            sums.append(found)
        for without in sums[1:]:
            assert 0.5 < float((sums[0] - without).norm()) <= C * (1 + 1e-4)

    def test_a_record_has_the_same_loss_whoever_is_drawn_with_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few, many = [3, 7, 20], [0, 3, 5, 7, 20, 31]
        found = []
        for name, batch in (("few", few), ("many", many)):
            _, losses = train(tmp_path / name, [batch] * 8, made_up(40), MANY, monkeypatch, seed=2)
            found.append([dict(zip(batch, step, strict=True)) for step in losses])
        for ours, theirs in zip(*found, strict=True):
            assert ours == pytest.approx({record: theirs[record] for record in few}, abs=1e-5)
        assert len({round(step[3], 3) for step in found[0]}) == 8

    def test_the_gradient_that_is_clipped_is_that_of_the_mean_loss_of_the_views(self) -> None:
        """Against autograd, one view at a time."""
        records, model = made_up(20), fresh()
        seen = views_of(Source.for_test(3), 0, 20, MANY)
        losses = [
            record_losses(model, MANY, records.scales, *viewed(records, np.array([7]), view)).mean()
            for view in seen
        ]
        mean = torch.stack(losses).mean()
        parameters = list(model.parameters())
        gradient = torch.cat(
            [g.flatten() for g in torch.autograd.grad(mean, parameters, materialize_grads=True)]
        )
        for norm in (1e6, C):
            ours = clipped_sum(model, records, [7], seen, MANY, norm)
            expected = gradient * min(1.0, norm / float(gradient.norm()))
            torch.testing.assert_close(ours.float(), expected, rtol=1e-3, atol=1e-5)

    def test_near_duplicates_in_many_views_move_the_sum_by_no_more_in_sixteen_bits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a run: 16-bit products, clipped with the margin that is meant for them."""
        monkeypatch.setattr("dpwavelet.precision.multiplies_bfloat16", lambda kind: True)
        asked = replace(MANY, views=8, mixed_precision=True, chunk=256)
        records, model = kept(made_up(2), [0] * 31 + [1]), fresh()
        seen = [
            replace(view, variant=np.resize(view.variant[:1], 32), choice=np.resize(view.choice[:1], 32))
            for view in views_of(Source.for_test(0), 0, 32, replace(asked, caption_dropout=0.0))
        ]
        whole = clipped_sum(model, records, list(range(32)), seen, asked, precision="fast")
        for gone in (0, 31):
            units = [i for i in range(32) if i != gone]
            without = clipped_sum(model, records, units, seen, asked, precision="fast")
            assert 0.5 < float((whole - without).norm()) <= C

    def test_equal_views_are_worth_one(self) -> None:
        records, model = made_up(20), fresh()
        (view, *_) = views_of(Source.for_test(3), 0, 20, MANY)
        once, thrice = (clipped_sum(model, records, [4, 9], [view] * v, MANY) for v in (1, 3))
        torch.testing.assert_close(once, thrice, rtol=1e-5, atol=1e-6)


def clipped_sum(
    model: ImageTransformer,
    records: PrivateTokens,
    units: list[int],
    views: list[View],
    asked: PrivateTraining,
    max_norm: float = C,
    precision: Literal["exact", "fast"] = "exact",
) -> Tensor:
    """The sum over these records as the loop of training computes it."""
    clipper = RecordClipper(model, dict(model.named_parameters()), max_norm=max_norm, precision=precision)
    for chunk, own in chunks(np.array(units), asked.units_at_once):
        members = Members(chunk[:, None], torch.ones(len(chunk), 1))
        rows = rows_of(records, members, views)
        clipper.accumulate(partial(unit_losses, model, asked, records.scales), *rows, records=own)
    return torch.cat([value.flatten() for value in clipper.finish().values.values()])


class TestSeen:
    """Rows of a record are its own, and a mirrored one has the captions of the mirror image."""

    def test_captions_and_tokens_are_those_of_record_caption_and_variant(self) -> None:
        records = made_up(9)
        assert records.variants is not None and records.mirrored is not None
        rng = np.random.default_rng(0)
        rows, choice, number = (rng.integers(n, size=(6, 2)) for n in (9, CAPTION_CHOICES, 8))
        captions, tokens = records.seen(rows, choice, number)
        for at in np.ndindex(6, 2):
            r, c, n = rows[at], choice[at], number[at]
            image = records.image[r] if n == 0 else records.variants[r, n - 1]
            words = records.mirrored[r, c] if n % 2 else records.captions[r, c]
            assert tokens[at].tolist() == image.tolist()
            assert captions[at].tolist() == words.tolist()

    def test_images_without_variants_are_seen_as_they_are(self) -> None:
        records = replace(made_up(5), variants=None, mirrored=None)
        rows = np.arange(5)
        captions, tokens = records.seen(rows, np.ones_like(rows), np.zeros_like(rows))
        assert np.array_equal(tokens, records.image)
        assert np.array_equal(captions, records.captions[:, 1])

    def test_a_run_that_needs_more_variants_than_there_are_is_refused_before_it_begins(
        self, tmp_path: Path
    ) -> None:
        plan = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=30, steps=2, max_norm=1.0)
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        with pytest.raises(ConfigError, match="needs 8 variants of every image, but the records have 2"):
            train_privately(fresh(), made_up(120, 2), plan, MANY, tmp_path / "work", ledger, "a")
        assert not (tmp_path / "work").exists()
        with pytest.raises(ConfigError, match="have 2"):
            train_without_privacy(fresh(), made_up(120, 2), MANY, steps=1, batch_size=4, seed=0)

    @pytest.mark.parametrize(("mirrored", "augment"), [(True, "shifts"), (False, "mirror")])
    def test_mirror_images_are_not_taken_for_shifts_nor_shifts_for_mirror_images(
        self, mirrored: bool, augment: Any
    ) -> None:
        records = made_up(20) if mirrored else replace(made_up(20), mirrored=None)
        asked = replace(MANY, augment=augment)
        with pytest.raises(ConfigError, match=f"{'with' if mirrored else 'without'} mirror images"):
            train_without_privacy(fresh(), records, asked, steps=1, batch_size=4, seed=0)

    def test_shifted_images_keep_their_captions(self) -> None:
        records = replace(made_up(5, 4), mirrored=None)
        rows = np.arange(5)
        captions, tokens = records.seen(rows, np.ones_like(rows), 3 * np.ones_like(rows))
        assert records.variants is not None
        assert np.array_equal(tokens, records.variants[:, 2])
        assert np.array_equal(captions, records.captions[:, 1])
        assert records.redrawn(fresh()).mirrored is None
        train_without_privacy(
            fresh(), records, replace(MANY, augment="shifts"), steps=1, batch_size=4, seed=0
        )

    def test_records_in_all_variants_can_be_trained_as_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = made_up(40)
        bare = replace(records, variants=None, mirrored=None)
        asked = replace(MANY, augment="none")
        (with_them,), _ = train(tmp_path / "a", [range(40)], records, asked, monkeypatch, seed=0)
        (without,), _ = train(tmp_path / "b", [range(40)], bare, asked, monkeypatch, seed=0)
        assert torch.equal(with_them, without)

    def test_made_up_records_for_a_rehearsal_come_in_as_many_variants(self) -> None:
        for variants in (2, 8):
            found = made_up(5, variants).redrawn(fresh())
            assert found.variant_count == variants
            assert found.variants is not None and found.variants.shape == (5, variants - 1, 4)


class TestStored:
    """Variants on the disk."""

    def test_saved_variants_come_back(self, tmp_path: Path) -> None:
        records = made_up(7).owned_by(list("aabbccd"))
        records.save(tmp_path / "tokens.safetensors")
        again = PrivateTokens.load(tmp_path / "tokens.safetensors")
        assert again.tables.keys() == {"image", "captions", "variants", "mirrored"}
        assert all(np.array_equal(again.tables[name], table) for name, table in records.tables.items())
        assert again.owners is not None and again.owners.tolist() == [0, 0, 1, 1, 2, 2, 3]

    def test_images_as_they_are_are_stored_as_they_always_were(self, tmp_path: Path) -> None:
        records = replace(made_up(7), variants=None, mirrored=None)
        records.save(tmp_path / "tokens.safetensors")
        assert read_tensors(tmp_path / "tokens.safetensors").keys() == {"image", "captions", "scales"}
        assert PrivateTokens.load(tmp_path / "tokens.safetensors").variant_count == 1


@pytest.fixture(scope="module")
def found(portraits: Path, tiny_model: Path) -> dict[str, PrivateTokens]:
    """The drawn portraits as tokens, ten of them and all, as they are and in all variants."""
    model = Model.from_pretrained(tiny_model)
    images = PrivateImages.open(portraits, model.image_size)

    def tokens(count: int, augment: str) -> PrivateTokens:
        return tokenize(
            images.first(count), model.tokenizer, model.vocabulary, scales=2, caption_length=24,
            augment=augment,  # type: ignore[arg-type]
        )  # fmt: skip

    return {
        f"{augment} {n}": tokens(n, augment) for augment in ("none", "shifts", "crops") for n in (10, 130)
    }


class TestTokenize:
    """Variants are made where images become tokens."""

    def test_a_record_has_the_same_variants_whoever_stands_beside_it(
        self, found: dict[str, PrivateTokens]
    ) -> None:
        few, many = found["crops 10"].tables, found["crops 130"].tables
        assert few["variants"].shape == (10, 7, 32) and few["variants"].dtype == np.int16
        assert all(np.array_equal(table, many[name][:10]) for name, table in few.items())

    def test_the_first_variant_is_the_image_as_it_is(self, found: dict[str, PrivateTokens]) -> None:
        assert np.array_equal(found["none 130"].image, found["crops 130"].image)
        assert np.array_equal(found["none 130"].captions, found["crops 130"].captions)
        assert found["none 130"].variants is None

    def test_shifts_are_the_variants_of_crops_that_are_not_mirrored(
        self, found: dict[str, PrivateTokens]
    ) -> None:
        shifts, crops = found["shifts 130"], found["crops 130"]
        assert shifts.variants is not None and crops.variants is not None
        assert shifts.variant_count == 4 and shifts.mirrored is None
        assert np.array_equal(shifts.variants, crops.variants[:, 1::2])

    def test_variants_have_other_tokens(self, found: dict[str, PrivateTokens]) -> None:
        records = found["crops 130"]
        assert records.variants is not None
        for one in np.moveaxis(records.variants, 1, 0):
            assert (one != records.image).mean() > 0.2

    def test_a_mirrored_caption_names_the_other_side(self, portraits: Path, tiny_model: Path) -> None:
        model = Model.from_pretrained(tiny_model)
        images = PrivateImages.open(portraits, model.image_size).first(2)
        texts = (("a man on the left", "looks right"), ("a bright hat",))
        words = dict(enumerate(texts))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PrivateImages, "captions", lambda self, index: words[index])
            found = tokenize(
                images, model.tokenizer, model.vocabulary, scales=1, caption_length=24, augment="mirror"
            )
        assert found.mirrored is not None
        for record, own in enumerate(texts):
            for choice in range(CAPTION_CHOICES):
                caption = own[choice % len(own)]
                said = [model.vocabulary.decode(t[record, choice]) for t in (found.captions, found.mirrored)]
                assert said == [caption, mirrored_caption(caption)]


class TestInterruption:
    """A run that is stopped goes on as if it had not been, whatever its options."""

    @pytest.mark.parametrize(
        "options",
        [
            {"views": 3, "augment": "crops"},
            {"views": 2, "parameters": "lora", "rank": 2, "schedule": "cosine"},
            {"parameters": "heads", "schedule": "constant", "average": 0.0},
        ],
    )
    @pytest.mark.parametrize("stop", [1, 3])
    def test_a_stopped_run_ends_with_the_same_weights(
        self, tmp_path: Path, options: dict[str, object], stop: int
    ) -> None:
        asked = PrivateTraining(chunk=8, mixed_precision=False, charge_every=2, **options)  # type: ignore[arg-type]
        plan = PrivacyPlan(epsilon=8, delta=1e-4, records=120, batch_size=12, steps=4, max_norm=1.0)

        def end(name: str, told: Told | None) -> ImageTransformer:
            folder = tmp_path / name
            ledger = Ledger.open(folder / "ledger.jsonl")
            if not ledger.entries:
                ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
                checkpoint = Checkpoint(folder / "work", plan, asked, "a")
                key = Source.for_test(0).key.hex()
                write_json(checkpoint.key_path, checkpoint.identity | {"key": key})
            return train_privately(fresh(), made_up(120), plan, asked, folder / "work", ledger, "a", told)

        def kill(step: int, _: dict[str, float]) -> None:
            if step == stop:
                raise KeyboardInterrupt

        whole = end("whole", None).state_dict()
        with pytest.raises(KeyboardInterrupt):
            end("broken", kill)
        again = end("broken", None).state_dict()
        assert again.keys() == whole.keys() == ImageTransformer(CONFIG).state_dict().keys()
        assert all(torch.equal(value, whole[name]) for name, value in again.items())
        start = fresh().state_dict()
        assert any(not torch.equal(value, start[name]) for name, value in whole.items())


def test_views_are_averaged_without_privacy_too() -> None:
    records, asked = made_up(60), PrivateTraining(mixed_precision=False, views=4, augment="crops")
    losses: list[float] = []
    train_without_privacy(
        fresh(), records, asked, steps=30, batch_size=40, seed=0,
        told=lambda _, numbers: losses.append(numbers["loss"]),
    )  # fmt: skip
    assert losses[0] == pytest.approx(np.log(16), rel=0.1)  # of one view, not of four
    assert losses[-1] < losses[0] - 0.03


def test_a_chunk_of_several_views_holds_fewer_units() -> None:
    assert [PrivateTraining(views=v).units_at_once for v in (1, 4, 8, 100)] == [32, 8, 4, 1]
