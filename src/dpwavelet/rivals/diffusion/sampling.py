"""Pictures from captions: DDIM with classifier-free guidance, every picture from a seed of its own.

Letters: B pictures, C x h x w a latent, S side of the square in pixels.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.images.sheet import to_bytes
from dpwavelet.randomness import torch_stream
from dpwavelet.rivals.diffusion.networks import LatentDiffusion


@dataclass(frozen=True, kw_only=True)
class Ddim:
    """How pictures are drawn."""

    steps: int = 50
    guidance: float = 5.0  # 1 is none: the caption as it is learned
    at_once: int = 64
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.at_once < 1 or not self.guidance >= 0:
            raise ConfigError("steps and at_once must be at least 1, and guidance at least 0.")


@torch.no_grad()
def draw(diffusion: LatentDiffusion, captions: Sequence[str], sampling: Ddim, seed: int) -> Tensor:
    """Pictures of captions, bytes [B, 3, S, S].

    Picture i depends on (seed, i) and its caption alone, but for rounding, whoever is drawn beside it.
    """
    found = []
    for start in range(0, len(captions), sampling.at_once):
        some = captions[start : start + sampling.at_once]
        noise = [
            torch.randn(diffusion.latent, generator=torch_stream(seed, "diffusion", start + index))
            for index in range(len(some))
        ]
        latents = denoised(diffusion, torch.stack(noise), some, sampling)
        found.append(to_bytes(diffusion.decode(latents)).cpu())
    return torch.cat(found) if found else torch.zeros(0, 3, *[diffusion.image_size] * 2, dtype=torch.uint8)


@torch.no_grad()
def denoised(diffusion: LatentDiffusion, noise: Tensor, captions: Sequence[str], sampling: Ddim) -> Tensor:
    """Latents [B, C, h, w] that noise of that shape becomes."""
    denoiser, scheduler = diffusion.denoiser, deepcopy(diffusion.scheduler)
    if sampling.steps > diffusion.times:
        raise ConfigError(f"there are {diffusion.times} times, too few for {sampling.steps} steps.")
    scheduler.set_timesteps(sampling.steps)
    guided = sampling.guidance != 1
    ids = denoiser.embedder.encode([*captions, *([""] * len(captions) if guided else [])]).to(denoiser.device)
    with torch.autocast(denoiser.device.type, torch.bfloat16, enabled=sampling.mixed_precision):
        read = denoiser.embedder(ids)
    x = noise.to(denoiser.device)
    for time in scheduler.timesteps.tolist():
        both = torch.cat((x, x)) if guided else x
        times = torch.full((len(both),), time, device=x.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=sampling.mixed_precision):
            said = denoiser.said(both, times, *read).float()
        if guided:
            told, untold = said.chunk(2)
            said = untold + sampling.guidance * (told - untold)
        x = scheduler.step(said, time, x).prev_sample
    return x
