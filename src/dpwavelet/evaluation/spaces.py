"""A feature space: which network makes an image a row of numbers, and what distances between rows are named.

A name says whose features they are. "FID" and "KID" are kept for the published Inception weights; every other
network's distances are named by it. Two numbers are comparable if their space is the same: network, weights,
resize. No network is loaded here.

Letters: B images, S side, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, DataError

AT_ONCE, SMALL = 64, 64  # images that a network sees together, of at most so many pixels a side
AT_ONCE_LARGE = 16  # of larger ones


@dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """What must be told beside a distance."""

    name: str  # of the network
    label: str  # of the Fréchet distance
    kernel_label: str
    side: int  # pixels that images are brought to, S
    columns: int  # D
    digest: str  # SHA-256 of the weights

    @property
    def resize(self) -> str:
        """The one resize, that of `images.files.decode`, in words."""
        return (
            f"centre square to {self.side} x {self.side} pixels, by the mean of whole blocks where they fit, "
            "else Lanczos"
        )

    def named(self, formula: str) -> str:
        """The name of another number on these features."""
        return f"{formula}-{self.name}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Extractor(FeatureSpace):
    """A feature space and its network, frozen: uint8 images [B, 3, S, S] to features [B, D]."""

    compute: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def rows(self, pixels: Tensor) -> NDArray[np.float32]:
        """A row for each image.

        Guarantee: a row depends on its own image alone. The network sees equally many images every time,
        black ones after the last, so that neighbours do not change how sums are rounded either.
        """
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, self.side, self.side):
            raise ConfigError(
                f"{self.name} takes images uint8 [B, 3, {self.side}, {self.side}], got {pixels.dtype} "
                f"{list(pixels.shape)}; open the set at {self.side} pixels."
            )
        together = AT_ONCE if self.side <= SMALL else AT_ONCE_LARGE
        found = np.empty((len(pixels), self.columns), np.float32)
        with torch.autocast(pixels.device.type, enabled=False):
            for start in range(0, len(pixels), together):
                part = pixels[start : start + together]
                whole = F.pad(part, (0, 0, 0, 0, 0, 0, 0, together - len(part)))
                found[start : start + len(part)] = self.compute(whole)[: len(part)].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise DataError(f"{self.name} gave features that are not finite; are its weights whole?")
        return found

    def rows_of_any(self, pixels: Tensor) -> NDArray[np.float32]:
        """The same of images [B, 3, S, S] of any side, brought to the one that the network wants."""
        side = pixels.shape[-1]
        if side != self.side:
            x = pixels.float()
            whole = side > self.side and side % self.side == 0
            x = (
                F.avg_pool2d(x, side // self.side)
                if whole
                else F.interpolate(x, size=(self.side, self.side), mode="bicubic", antialias=True)
            )
            pixels = x.round().clamp(0, 255).to(torch.uint8)
        return self.rows(pixels)
