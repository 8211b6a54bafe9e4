"""DDIM with guidance: by seed, picture by picture, against what the formula must end at."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.rivals.diffusion.networks import SCHEDULE, Denoiser, LatentDiffusion
from dpwavelet.rivals.diffusion.sampling import Ddim, denoised, draw

FEW = Ddim(steps=3, at_once=2)
CAPTIONS = ["a red hat", "two dogs", "a house"]


class Whether(nn.Module):
    """Reads whether there is a caption."""

    def encode(self, captions: list[str]) -> Tensor:
        return torch.tensor([[bool(caption)] for caption in captions]).long()

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return ids, ids


class Knowing(Denoiser):
    """Says exactly what velocity leads to one latent: `told` for a caption, `untold` for none."""

    def __init__(self, told: float, untold: float) -> None:
        super().__init__(nn.Linear(1, 1), Whether())
        betas = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000, dtype=torch.float64) ** 2
        self.kept, self.values = (1 - betas).cumprod(0).float(), (untold, told)

    def said(self, noisy: Tensor, times: Tensor, states: Tensor, shown: Tensor) -> Tensor:
        x0 = torch.tensor(self.values)[states[:, 0]].reshape(-1, 1, 1, 1)
        kept = self.kept[times].reshape(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * x0) / (1 - kept).sqrt()
        return kept.sqrt() * noise - (1 - kept).sqrt() * x0


class TestDdim:
    """Pictures by seed."""

    def test_the_same_seed_draws_the_same_pictures_and_another_others(
        self, diffusion: LatentDiffusion
    ) -> None:
        first = draw(diffusion, CAPTIONS, FEW, seed=1)
        assert first.shape == (3, 3, 32, 32)
        assert first.dtype == torch.uint8
        assert torch.equal(draw(diffusion, CAPTIONS, FEW, seed=1), first)
        assert not torch.equal(draw(diffusion, CAPTIONS, FEW, seed=2), first)

    def test_a_picture_does_not_depend_on_those_beside_it(self, diffusion: LatentDiffusion) -> None:
        whole = draw(diffusion, CAPTIONS, replace(FEW, at_once=3), seed=1).int()
        apart = draw(diffusion, CAPTIONS, replace(FEW, at_once=1), seed=1).int()
        assert int((whole - apart).abs().max()) <= 1
        assert not torch.equal(whole[0], whole[1])

    def test_no_captions_are_no_pictures(self, diffusion: LatentDiffusion) -> None:
        assert draw(diffusion, [], FEW, seed=1).shape == (0, 3, 32, 32)

    def test_the_caption_matters_and_the_more_the_stronger_the_guidance(
        self, diffusion: LatentDiffusion
    ) -> None:
        noise = torch.randn(1, *diffusion.latent, generator=torch.Generator().manual_seed(0))

        def latent(caption: str, guidance: float) -> Tensor:
            return denoised(diffusion, noise, [caption], Ddim(steps=5, guidance=guidance))

        plain, empty = latent("a red hat", 1.0), latent("", 1.0)
        assert torch.allclose(latent("a red hat", 0.0), empty, atol=1e-5)
        assert 0 < (plain - empty).norm() < 0.7 * (latent("a red hat", 3.0) - empty).norm()

    @pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
    def test_what_should_be_said_leads_back_to_the_latent(
        self, diffusion: LatentDiffusion, kind: str
    ) -> None:
        scheduler = type(diffusion.scheduler)(**SCHEDULE, prediction_type=kind)
        other = replace(diffusion, scheduler=scheduler)
        x, noise = torch.randn(2, 3, *diffusion.latent, generator=torch.Generator().manual_seed(0)).unbind()
        times = torch.tensor([0, 400, 999])
        noisy, said = other.noised(x, noise, times)
        kept = Knowing(0, 0).kept[times].reshape(-1, 1, 1, 1)
        assert torch.allclose(noisy, kept.sqrt() * x + (1 - kept).sqrt() * noise, atol=1e-5)
        expected = noise if kind == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * x
        assert torch.allclose(said, expected, atol=1e-5)

    @pytest.mark.parametrize("guidance", [1.0, 2.5])
    def test_a_denoiser_that_knows_the_latent_ends_there(
        self, diffusion: LatentDiffusion, guidance: float
    ) -> None:
        knowing = diffusion.with_denoiser(Knowing(told=0.8, untold=0.3))
        noise = torch.randn(2, *diffusion.latent, generator=torch.Generator().manual_seed(0))
        found = denoised(knowing, noise, ["x", "y"], Ddim(steps=50, guidance=guidance))
        expected = 0.3 + guidance * (0.8 - 0.3)  # guidance is linear in what is said, and so in the latent
        assert float(found.mean()) == pytest.approx(expected, abs=0.02)
        assert float(found.std()) < 0.06  # the last step leaves the noise of time 0, 0.04

    @pytest.mark.parametrize(("away", "middle"), [(0.0, 0.3), (0.5, 0.2), (1.0, 0.1)])
    def test_a_share_of_the_guidance_leads_away_from_the_public_network(
        self, diffusion: LatentDiffusion, away: float, middle: float
    ) -> None:
        knowing = diffusion.with_denoiser(Knowing(told=0.8, untold=0.3))
        public = diffusion.with_denoiser(Knowing(told=0.9, untold=0.1))
        noise = torch.randn(2, *diffusion.latent, generator=torch.Generator().manual_seed(0))
        sampling = Ddim(steps=50, guidance=2.5, away=away)
        found = denoised(knowing, noise, ["x", "y"], sampling, public)
        assert float(found.mean()) == pytest.approx(middle + 2.5 * (0.8 - middle), abs=0.02)
        alone = denoised(knowing, noise, ["x", "y"], sampling)  # without a public one: away from itself
        assert float(alone.mean()) == pytest.approx(0.3 + 2.5 * (0.8 - 0.3), abs=0.02)

    def test_noise_on_the_way_is_of_each_picture_alone(self, diffusion: LatentDiffusion) -> None:
        whole = draw(diffusion, CAPTIONS, FEW, seed=1).int()
        assert not torch.equal(whole, draw(diffusion, CAPTIONS, replace(FEW, eta=0.0), seed=1).int())
        apart = draw(diffusion, CAPTIONS, replace(FEW, at_once=1), seed=1).int()
        assert int((whole - apart).abs().max()) <= 1

    @pytest.mark.parametrize(
        "wrong", [{"steps": 0}, {"guidance": -1.0}, {"at_once": 0}, {"away": 1.5}, {"eta": -0.1}]
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            Ddim(**wrong)

    def test_more_steps_than_times_are_refused(self, diffusion: LatentDiffusion) -> None:
        with pytest.raises(ConfigError, match="1000 times"):
            draw(diffusion, ["a"], Ddim(steps=1001), seed=0)
