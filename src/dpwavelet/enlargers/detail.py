"""The default: the detail model that comes with the weights.

It learned to draw with all of its noise. Drawn with less, its textures are calmer, and on pictures unlike
those that it learned from they come nearer to real ones (docs/log.md, 2026-11-27).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpwavelet.enlargers.base import in_batches, known_levels
from dpwavelet.errors import ConfigError
from dpwavelet.upsampling import DetailModel
from dpwavelet.wavelet import analyze

NOISE = 0.25  # of the noise that it learned with; 0 draws the same details for any seed


@dataclass(frozen=True)
class DetailEnlarger:
    """See the module's first line. Bands that the coarse picture has are kept, the others are drawn."""

    detail: DetailModel = field(repr=False)
    side: int
    noise: float = NOISE
    name: str = "the detail model of the public weights"
    files: Mapping[str, str] = field(default_factory=dict)  # it's one of the model's own
    consistent: bool = True  # by how it's built

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ConfigError(
                f"noise must be from 0 to 1, the noise that was learned with; got {self.noise}."
            )

    @torch.no_grad()
    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """See `Enlarger`; captions don't matter."""
        known = known_levels(few.shape[-1], self.side, self.detail.config.levels)
        noise = self.detail.draw_noise(len(few), few.shape[-1] >> known, seed, first)

        def enlarged(part: Tensor, *noise: Tensor) -> Tensor:
            coarse, *details = analyze(part, known, self.detail.config.wavelet) if known else [part]
            return self.detail.enlarge(coarse, noise, details)

        return in_batches(enlarged, few, *(self.noise * each.to(few.device) for each in noise))
