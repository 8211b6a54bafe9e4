"""The default: the detail model that comes with the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpwavelet.enlargers.base import in_batches, known_levels
from dpwavelet.upsampling import DetailModel
from dpwavelet.wavelet import analyze


@dataclass(frozen=True)
class DetailEnlarger:
    """See the module's first line. Bands that the coarse picture has are kept, the others are drawn."""

    detail: DetailModel
    side: int
    name: str = "the detail model of the public weights"
    files: Mapping[str, str] = field(default_factory=dict)  # it's one of the model's own
    consistent: bool = True  # by how it's built

    @torch.no_grad()
    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """See `Enlarger`; captions don't matter."""
        known = known_levels(few.shape[-1], self.side, self.detail.config.levels)
        noise = self.detail.draw_noise(len(few), few.shape[-1] >> known, seed, first)

        def enlarged(part: Tensor, *noise: Tensor) -> Tensor:
            coarse, *details = analyze(part, known, self.detail.config.wavelet) if known else [part]
            return self.detail.enlarge(coarse, noise, details)

        return in_batches(enlarged, few, *(each.to(few.device) for each in noise))
