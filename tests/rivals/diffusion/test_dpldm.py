"""DP-LDM as a rival: from private images to pictures, through the face that rivals share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dpwavelet.images.private import PrivateImages
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rivals import Rival
from dpwavelet.rivals.diffusion import Ddim, DpLdm, Finetuning, create
from dpwavelet.rivals.diffusion.networks import LatentDiffusion
from dpwavelet.rivals.diffusion.records import LatentRecords
from dpwavelet.text import Vocabulary


class TestRival:
    """One system from end to end."""

    def test_it_reads_records_trains_and_draws(
        self, diffusion: LatentDiffusion, portraits: Path, tmp_path: Path
    ) -> None:
        rival: Rival[LatentRecords] = DpLdm(
            diffusion, Finetuning(draws=2, chunk=16, mixed_precision=False), Ddim(steps=2)
        )
        records = rival.prepare(PrivateImages.open(portraits, 32).first(60))
        plan = PrivacyPlan(epsilon=8, delta=1e-3, records=120, batch_size=8, steps=4, max_norm=0.1)
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "a", "plan": plan.to_json()})
        trained = rival.train(records, plan, tmp_path / "work", ledger, "a")
        assert ledger.charged_steps("a") == 4
        assert trained.name == rival.name == "DP-LDM"
        everything = sum(p.numel() for p in diffusion.denoiser.parameters())
        assert 0.3 * everything < trained.trained_parameters < 0.6 * everything
        before, after = (each.draw(["a man", "a woman"], seed=3) for each in (rival, trained))
        assert after.shape == (2, 3, 32, 32)
        assert after.dtype == torch.uint8
        assert not torch.equal(before, after)
        assert trained.reference is diffusion
        further = replace(trained, sampling=Ddim(steps=2, away=1.0))
        assert not torch.equal(further.draw(["a man", "a woman"], seed=3), after)
        few = rival.prepare(PrivateImages.open(portraits, 32).first(3))
        assert rival.held_out_loss(few) == rival.held_out_loss(few) != trained.held_out_loss(few)

    def test_a_preset_makes_one_of_about_the_size_that_is_wanted(self) -> None:
        thumb = create("thumb", Vocabulary.of(), 0)
        unet = sum(p.numel() for p in thumb.diffusion.denoiser.unet.parameters())
        assert 5e6 < unet < 6e6
        assert thumb.diffusion.latent == (4, 16, 16)
        assert not any(p.requires_grad for p in thumb.eval().diffusion.denoiser.parameters())


class TestRecords:
    """Latents and captions, each of one record."""

    def test_a_row_depends_on_its_own_record_alone_and_is_the_mean_latent(
        self, diffusion: LatentDiffusion, portraits: Path
    ) -> None:
        rival, images = DpLdm(diffusion), PrivateImages.open(portraits, 32)
        many, few = rival.prepare(images.first(40)), rival.prepare(images.first(3))
        assert np.array_equal(many.latents[:3], few.latents)
        assert np.array_equal(many.captions[:3], few.captions)
        with torch.no_grad():
            pixels = images.pixels([1]).float() / 127.5 - 1
            expected = diffusion.autoencoder.encode(pixels).latent_dist.mean
        assert np.allclose(few.latents[1], expected[0], atol=2e-3)
        said = diffusion.denoiser.embedder.vocabulary.decode(few.captions[1, 0].tolist())
        assert said.split()[0] == images.captions(1)[0].lower().split()[0]

    def test_no_caption_is_the_empty_one(self, records: LatentRecords) -> None:
        chosen = np.array([3, 3])
        latents, captions = records.batch(chosen, np.array([2, -1]))
        assert torch.equal(latents[0], latents[1])
        assert np.array_equal(captions[0], records.captions[3, 2])
        assert np.array_equal(captions[1], records.empty)
