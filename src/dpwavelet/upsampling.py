"""The detail model: from the coarse image that the private model made to a full one, coarse band untouched.

It predicts the missing wavelet details level by level and inverts the transform, so the coarse image survives
exactly: the public model can add, never overrule. Trained on public images only, on coarse images that went
through the tokenizer with some of their tokens swapped, so that it forgives a private model's mistakes.

Letters: B batch, F features, h and w sides of the coarse image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.wavelet import synthesize


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Shape of the detail model: one trunk at the coarse size, one lighter stage for each further level."""

    levels: int = 2
    wavelet: str = "haar"
    features: int = 80
    depth: int = 6

    def __post_init__(self) -> None:
        if self.levels < 1 or self.depth < 1 or self.features < 8:
            raise ConfigError("a detail model needs at least 1 level, 1 block and 8 features.")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input; borders repeat the edge."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] to the same."""
        change: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + change


class Stage(nn.Module):
    """Predict the details of one level from the image at that level and the features of the level before."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(depth)))
        self.leave = nn.Conv2d(features, 9, 3, padding=1)

    def forward(self, image: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Image [B, 3, h, w] and features [B, F, h, w] to details [B, 9, h, w] and features [B, F, h, w]."""
        x = self.enter(image)
        x = self.blocks(x if features is None else x + features)
        return self.leave(F.silu(x)), x


class DetailModel(nn.Module):
    """See the module's first lines."""

    spread: Tensor

    def __init__(self, config: DetailConfig) -> None:
        super().__init__()
        self.config = config
        widths = [max(config.features >> level, 8) for level in range(config.levels)]
        depths = [max(config.depth >> level, 1) for level in range(config.levels)]
        self.stages = nn.ModuleList(Stage(w, d) for w, d in zip(widths, depths, strict=True))
        self.rises = nn.ModuleList(nn.Conv2d(before, 4 * after, 1) for before, after in pairwise(widths))
        # Standard deviation of each level's details over public images: the unit of the prediction.
        self.register_buffer("spread", torch.ones(config.levels))

    def details(self, coarse: Tensor) -> list[Tensor]:
        """Details of every level, coarse to fine, for coarse images [B, 3, h, w] in [-1, 1]."""
        bands, features = [coarse], None
        for level, stage in enumerate(self.stages):
            image = synthesize(bands, self.config.wavelet)
            if level > 0:
                features = F.pixel_shuffle(self.rises[level - 1](features), 2)
            details, features = stage(image, features)
            bands.append(details.float() * self.spread[level])
        return bands[1:]

    @torch.no_grad()
    def enlarge(self, coarse: Tensor) -> Tensor:
        """Full images [B, 3, h 2^levels, w 2^levels]; analysing them gives `coarse` back."""
        return synthesize([coarse, *self.details(coarse)], self.config.wavelet)

    def loss(self, coarse: Tensor, bands: Sequence[Tensor]) -> Tensor:
        """Mean absolute error on details, in units of their spread, against true `bands` of public images."""
        predicted = self.details(coarse)
        errors = [
            F.l1_loss(guess / unit, true / unit)
            for guess, true, unit in zip(predicted, bands[1:], self.spread, strict=True)
        ]
        return torch.stack(errors).mean()

    @torch.no_grad()
    def measure_spread(self, bands: Sequence[Tensor]) -> None:
        """Set the unit of each level from the bands of public images; once, before training."""
        self.spread.copy_(torch.stack([band.square().mean().sqrt().clamp_min(1e-3) for band in bands[1:]]))
