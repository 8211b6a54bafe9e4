"""Public pretraining of both networks: it learns, resumes, and leaves a folder that loads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.features import FeatureNetwork
from dpwavelet.images.public import PublicImages
from dpwavelet.pretraining.loop import Schedule
from dpwavelet.pretraining.stages import PublicPixels
from dpwavelet.randomness import stream
from dpwavelet.rivals.diffusion.networks import LatentDiffusion, create
from dpwavelet.rivals.diffusion.pretrain import (
    DiffusionPretraining,
    encode_all,
    pretrain,
    scale_latents,
    train_autoencoder,
    train_denoiser,
)
from dpwavelet.rivals.diffusion.sampling import Ddim, draw
from dpwavelet.rivals.diffusion.training import Finetuning, record_losses
from dpwavelet.rivals.diffusion.weights import load
from dpwavelet.text import Vocabulary


def silent(*_: object) -> None:
    """Watch nothing."""


@pytest.fixture(scope="module")
def images(portraits: Path) -> PublicPixels:
    return PublicPixels.read(PublicImages.open(portraits, 32)).first(40)


def fresh() -> LatentDiffusion:
    return create("tiny", Vocabulary.of(), seed=0)


def distance(diffusion: LatentDiffusion, images: PublicPixels) -> float:
    _, some = images.draw(16, stream(9, "seen"))
    return float((diffusion.decode(diffusion.encode(some)) - some).abs().mean())


class TestAutoencoder:
    """Pixels to latents and back."""

    def test_it_learns_pictures_and_the_judge_stays_out_of_it(
        self, images: PublicPixels, tmp_path: Path
    ) -> None:
        diffusion = fresh()
        before, numbers = distance(diffusion.eval(), images), []
        schedule = Schedule(steps=30, batch_size=8, learning_rate=1e-2, weight_decay=0.0)
        train_autoencoder(
            diffusion, images, schedule, 0, tmp_path / "state", lambda *told: numbers.append(told[3]),
            FeatureNetwork.from_pretrained(),
        )  # fmt: skip
        assert distance(diffusion, images) < 0.6 * before
        assert {"loss", "pixels", "seen", "spread", "judge"} <= numbers[-1].keys()
        assert not any(p.requires_grad for p in diffusion.autoencoder.parameters())

    def test_latents_of_public_pictures_get_unit_variance(self, images: PublicPixels) -> None:
        diffusion = fresh().eval()
        scale_latents(diffusion, images, seed=0)
        found = encode_all(diffusion, images)
        assert found.shape == (2, 40, 4, 8, 8)
        assert float(found.astype(np.float32).std()) == pytest.approx(1, abs=0.1)
        assert diffusion.autoencoder.config.scaling_factor != 1


class TestDenoiser:
    """What is wrong with noisy latents."""

    def test_it_learns_and_its_average_is_what_remains(self, images: PublicPixels, tmp_path: Path) -> None:
        diffusion = fresh().eval()
        scale_latents(diffusion, images, seed=0)
        latents = torch.from_numpy(encode_all(diffusion, images)[0].astype(np.float32))

        def loss() -> float:
            noise = torch.randn(40, 1, *diffusion.latent, generator=torch.Generator().manual_seed(0))
            ids = diffusion.denoiser.embedder.encode(images.captions)
            times = torch.arange(0, 1000, 25)[:, None]
            settings = Finetuning(mixed_precision=False)
            with torch.no_grad():
                return float(record_losses(diffusion, settings, latents, ids, times, noise).mean())

        before = loss()
        schedule = Schedule(steps=40, batch_size=16, learning_rate=5e-3, weight_decay=0.0)
        train_denoiser(diffusion, images, schedule, 0, tmp_path / "state", silent)
        assert loss() < before - 0.2

    def test_it_goes_on_after_a_stop_as_if_there_had_been_none(
        self, images: PublicPixels, tmp_path: Path
    ) -> None:
        schedule = Schedule(steps=4, batch_size=4, save_every=1, weight_decay=0.0)

        def weights(diffusion: LatentDiffusion) -> Tensor:
            return torch.cat([p.flatten() for p in diffusion.denoiser.parameters()])

        whole, broken, again = fresh(), fresh(), fresh()
        train_denoiser(whole, images, schedule, 0, tmp_path / "whole", silent)
        with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
            calls = iter([False, False, True])

            def killed(*args: object) -> Tensor:
                if next(calls):
                    raise KeyboardInterrupt
                return record_losses(*args)

            patch.setattr("dpwavelet.rivals.diffusion.pretrain.record_losses", killed)
            train_denoiser(broken, images, schedule, 0, tmp_path / "broken", silent)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "dpwavelet.rivals.diffusion.pretrain.encode_all", None
            )  # its latents are still there
            train_denoiser(again, images, schedule, 0, tmp_path / "broken", silent)
        assert torch.equal(weights(again), weights(whole))


class TestWhole:
    """Both stages, to a folder."""

    RUN = DiffusionPretraining(
        preset="tiny",
        drawn_heads=6,
        autoencoder=Schedule(steps=2, batch_size=4),
        denoiser=Schedule(steps=2, batch_size=4),
    )

    def test_it_ends_in_a_folder_that_loads_and_is_not_trained_again(
        self, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images, out = PublicImages.open(portraits, 32), tmp_path / "model"
        monkeypatch.setattr(PublicPixels, "read", classmethod(lambda cls, some: read(some).first(20)))
        seen: list[int] = []
        monkeypatch.setattr(
            "dpwavelet.rivals.diffusion.pretrain.encode_all",
            lambda diffusion, public: seen.append(len(public)) or encode_all(diffusion, public),
        )
        made = pretrain(images, self.RUN, out, silent)
        assert seen == [26]  # what the denoiser learns from: the drawn heads too
        few = Ddim(steps=2)
        expected = draw(made, ["a man"], few, seed=0)
        assert torch.equal(draw(load(out), ["a man"], few, seed=0), expected)
        assert load(out).card["stages"].keys() == {"autoencoder", "denoiser"}
        assert load(out).card["trained_on"]["drawn_heads"] == 6
        for stage in ("autoencoder", "denoiser"):
            monkeypatch.setattr(f"dpwavelet.rivals.diffusion.pretrain.train_{stage}", None)
        again = pretrain(images, self.RUN, out, silent)
        assert torch.equal(draw(again, ["a man"], few, seed=0), expected)
        with pytest.raises(ConfigError, match="another run"):
            pretrain(images, replace(self.RUN, seed=1), out, silent)


def test_a_share_of_the_steps_is_a_shorter_run() -> None:
    short = DiffusionPretraining().scaled(0.1)
    assert (short.autoencoder.steps, short.denoiser.steps, short.drawn_heads) == (160, 500, 1200)
    with pytest.raises(ConfigError, match="above 0"):
        DiffusionPretraining().scaled(0)


read = PublicPixels.read
