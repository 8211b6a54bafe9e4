"""Attention in the U-Net: one function by two ways, and the written-out one where a way back is needed."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dpwavelet.rivals.diffusion.networks import Attending, LatentDiffusion, diffusers, set_attention


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call of the fused kernel."""
    calls: list[int] = []
    kernel = F.scaled_dot_product_attention

    def counted(*args: Tensor, **named: Tensor) -> Tensor:
        calls.append(1)
        found: Tensor = kernel(*args, **named)
        return found

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return calls


def said(diffusion: LatentDiffusion) -> Tensor:
    noisy = torch.randn(4, *diffusion.latent, generator=torch.Generator().manual_seed(0))
    ids = diffusion.denoiser.embedder.encode(["a red hat", "two dogs"])
    found: Tensor = diffusion.denoiser(noisy, torch.tensor([5, 500, 900, 3]), ids)
    return found.detach()


class TestAttention:
    """`Attending`, in a U-Net of ours and in one of another kind."""

    def test_both_ways_say_the_same_and_only_drawing_takes_the_fused_one(
        self, diffusion: LatentDiffusion, fused_calls: list[int]
    ) -> None:
        with torch.enable_grad():
            learning = said(diffusion)
        assert not fused_calls
        with torch.no_grad():
            drawing = said(diffusion)
        assert len(fused_calls) == len(diffusion.denoiser.unet.attn_processors)
        assert float((learning - drawing).abs().max()) < 1e-5
        assert float(drawing.abs().max()) > 0.1

    def test_attention_of_another_kind_stays_as_it_is(self) -> None:
        class Unet:
            def __init__(self) -> None:
                kinds = diffusers().models.attention_processor
                self.attn_processors = {
                    "plain": kinds.AttnProcessor2_0(),
                    "other": kinds.AttnAddedKVProcessor2_0(),
                }

            def set_attn_processor(self, ways: dict[str, object]) -> None:
                self.ways = ways

        unet = Unet()
        set_attention(unet)
        assert isinstance(unet.ways["plain"], Attending)
        assert unet.ways["other"] is unet.attn_processors["other"]
