"""The detail model: from the coarse image that the private model made to a full one, coarse band untouched.

It draws the missing wavelet details level by level and inverts the transform, so the coarse image survives
exactly: the public model can add, never overrule. Noise comes in beside the image at every level, so that
details are drawn and not averaged: what is not known is filled in, another time otherwise. Trained on public
images only, on coarse images that went through the tokenizer with some tokens drawn anew by the transformer,
so that it forgives a private model's mistakes (pretraining/detail_stage.py).

Letters: B batch, F features, Z noise channels, h and w sides of the coarse image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream
from dpwavelet.wavelet import analyze, synthesize


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Shape of the detail model: one trunk at the coarse size, one lighter stage for each further level."""

    levels: int = 2
    wavelet: str = "haar"
    features: int = 80
    depth: int = 6
    noise: int = 4  # channels Z

    def __post_init__(self) -> None:
        if self.levels < 1 or self.depth < 1 or self.features < 8 or self.noise < 1:
            raise ConfigError(
                "a detail model needs at least 1 level, 1 block, 8 features and 1 channel of noise; got "
                f"{self.levels}, {self.depth}, {self.features} and {self.noise}."
            )


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
    """Draw the details of one level from the image at that level and the features of the level before."""

    def __init__(self, features: int, depth: int, noise: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3 + noise, features, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(depth)))
        self.leave = nn.Conv2d(features, 9, 3, padding=1)

    def forward(self, image: Tensor, noise: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, 3, h, w], [B, Z, h, w] and [B, F, h, w] to details [B, 9, h, w] and features [B, F, h, w]."""
        x = self.enter(torch.cat((image, noise), 1))
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
        self.stages = nn.ModuleList(Stage(w, d, config.noise) for w, d in zip(widths, depths, strict=True))
        self.rises = nn.ModuleList(nn.Conv2d(before, 4 * after, 1) for before, after in pairwise(widths))
        # Standard deviation of each level's details over public images: the unit of the prediction.
        self.register_buffer("spread", torch.ones(config.levels))

    def details(self, coarse: Tensor, noise: Sequence[Tensor], known: Sequence[Tensor] = ()) -> list[Tensor]:
        """Details of every level, coarse to fine, for coarse images [B, 3, h, w] in [-1, 1].

        One [B, Z, h, w] of normal noise a level, its side doubling. Details that are `known` are kept.
        """
        bands, features = [coarse], None
        for level, stage in enumerate(self.stages):
            image = synthesize(bands, self.config.wavelet)
            if level > 0:
                features = F.pixel_shuffle(self.rises[level - 1](features), 2)
            details, features = stage(image, noise[level], features)
            drawn = self._smooth(image) + details.float() * self.spread[level]
            bands.append(known[level] if level < len(known) else drawn)
        return bands[1:]

    @torch.no_grad()
    def enlarge(self, coarse: Tensor, noise: Sequence[Tensor], known: Sequence[Tensor] = ()) -> Tensor:
        """Full images [B, 3, h 2^levels, w 2^levels]; analysing them gives `coarse` and `known` back."""
        return synthesize([coarse, *self.details(coarse, noise, known)], self.config.wavelet)

    def draw_noise(self, count: int, side: int, seed: int, first: int = 0) -> list[Tensor]:
        """Noise for images `first` and on, whose coarse side is `side`; image i draws from (seed, i)."""
        sides = [side << level for level in range(self.config.levels)]
        shapes = [(self.config.noise, s, s) for s in sides]
        drawn = [
            [
                stream(seed, "detail noise", first + index, level).standard_normal(shape, dtype=np.float32)
                for level, shape in enumerate(shapes)
            ]
            for index in range(count)
        ]
        return [
            torch.from_numpy(np.stack([image[level] for image in drawn])) if count else torch.empty(0, *shape)
            for level, shape in enumerate(shapes)
        ]

    @torch.no_grad()
    def start(self, bands: Sequence[Tensor]) -> None:
        """Set the unit of each level from the bands of public images, and begin as a smooth enlargement."""
        self.spread.copy_(torch.stack([band.square().mean().sqrt().clamp_min(1e-3) for band in bands[1:]]))
        for stage in self.stages:
            assert isinstance(stage, Stage)
            for parameter in stage.leave.parameters():
                parameter.zero_()

    def _smooth(self, image: Tensor) -> Tensor:
        """The details [B, 9, h, w] that smooth enlargement of an image [B, 3, h, w] would have.

        What the network says is added to them: without, a picture begins as blocks.
        """
        larger = F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False)
        return analyze(larger, 1, self.config.wavelet)[1]
