"""Pictures from captions: DDIM with classifier-free guidance, every picture from a seed of its own.

Letters: B pictures, C x h x w a latent, S side of the square in pixels.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.generation import check_away, guided_by
from dpwavelet.images.sheet import to_bytes
from dpwavelet.precision import mixed_precision
from dpwavelet.randomness import torch_stream
from dpwavelet.rivals.diffusion.networks import Denoiser, LatentDiffusion


@dataclass(frozen=True, kw_only=True)
class Ddim:
    """How pictures are drawn; `eta` 0 adds no noise on the way, 1 as much as the process has."""

    steps: int = 50
    guidance: float = 2.0  # 1 is none: the caption as it is learned
    away: float = 0.0  # share of it that leads away from the public network, as some of DP-Wavelet's does
    eta: float = 1.0
    at_once: int = 64
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.at_once < 1 or not self.guidance >= 0:
            raise ConfigError(
                "steps and at_once must be at least 1, and guidance at least 0; got "
                f"{self.steps}, {self.at_once} and {self.guidance}."
            )
        check_away(self.away)
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta is from 0 to 1; got {self.eta}.")


@torch.no_grad()
def draw(
    diffusion: LatentDiffusion,
    captions: Sequence[str],
    sampling: Ddim,
    seed: int,
    reference: LatentDiffusion | None = None,
) -> Tensor:
    """Pictures of captions, bytes [B, 3, S, S].

    Picture i depends on (seed, i) and its caption alone, but for rounding, whoever is drawn beside it.
    `reference` has the public network that `sampling.away` is about; without one nothing leads away from it.
    """
    found = []
    for start in range(0, len(captions), sampling.at_once):
        some = captions[start : start + sampling.at_once]
        noise = _Noise(
            diffusion.latent, [torch_stream(seed, "diffusion", start + i) for i in range(len(some))]
        )
        latents = denoised(diffusion, noise.next(), some, sampling, reference, noise.next)
        found.append(to_bytes(diffusion.decode(latents)).cpu())
    return torch.cat(found) if found else torch.zeros(0, 3, *[diffusion.image_size] * 2, dtype=torch.uint8)


class _Noise:
    """Normal numbers of the shape of latents, each picture's from a generator of its own."""

    def __init__(self, shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> None:
        self._shape, self._generators = shape, generators

    def next(self) -> Tensor:
        """The next ones [B, C, h, w]."""
        return torch.stack([torch.randn(self._shape, generator=each) for each in self._generators])


@torch.no_grad()
def denoised(
    diffusion: LatentDiffusion,
    noise: Tensor,
    captions: Sequence[str],
    sampling: Ddim,
    reference: LatentDiffusion | None = None,
    more: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Latents [B, C, h, w] that noise of that shape becomes; `eta` takes noise from `more`, or adds none."""
    scheduler, device = deepcopy(diffusion.scheduler), diffusion.denoiser.device
    if sampling.steps > diffusion.times:
        raise ConfigError(f"there are {diffusion.times} times, too few for {sampling.steps} steps.")
    scheduler.set_timesteps(sampling.steps)
    guided = sampling.guidance != 1
    away = sampling.away if guided and reference is not None else 0.0
    untold = [""] * len(captions)
    readings = [_Reading(diffusion.denoiser, [*captions, *(untold if guided else [])], sampling)]
    if reference is not None and away > 0:
        readings.append(_Reading(reference.denoiser, untold, sampling))
    x, eta = noise.to(device), sampling.eta if more is not None else 0.0
    for time in scheduler.timesteps.tolist():
        versions = [version for reading in readings for version in reading.versions(x, time)]
        said = guided_by(versions, sampling.guidance, away)
        added = more().to(device) if more is not None and eta > 0 else None
        x = scheduler.step(said, time, x, eta=eta, variance_noise=added).prev_sample
    return x


class _Reading:
    """A denoiser that knows what it is told: captions, and perhaps those of the same pictures again."""

    def __init__(self, denoiser: Denoiser, captions: Sequence[str], sampling: Ddim) -> None:
        self._denoiser, self._mixed = denoiser, sampling.mixed_precision
        ids = denoiser.embedder.encode(list(captions)).to(denoiser.device)
        with self._precision():
            self._read = denoiser.embedder(ids)
        self._rows = len(ids)

    def versions(self, x: Tensor, time: int) -> tuple[Tensor, ...]:
        """What it says of latents x [B, C, h, w] at this time, once for each time that captions were told."""
        rows = x.repeat(self._rows // len(x), 1, 1, 1)
        times = torch.full((self._rows,), time, device=x.device)
        with self._precision():
            said = self._denoiser.said(rows, times, *self._read).float()
        return torch.split(said, len(x))

    def _precision(self) -> torch.autocast:
        return mixed_precision(self._denoiser.device, self._mixed)
