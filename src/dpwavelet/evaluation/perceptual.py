"""How different pictures look from the real ones whose captions they were drawn with, stage by stage.

The protocol of DP-Wavelet: the perceptual distance between a sample and the real image of its caption. The
coarse samples are measured too, so that the private stage and the public one are told apart. For that they
are enlarged to full size by bicubic interpolation (smooth: a wavelet synthesis without details would show
edges of squares that nobody drew), and the coarse band of the real image by the same.

    coarse        enlarged coarse sample and enlarged coarse band: the private stage alone
    enlarged      enlarged coarse sample and real image: what leaves the house if no detail is added
    full          sample and real image: with the detail of the public stage
    band          enlarged coarse band and real image: a perfect private stage, and no detail
    swapped       sample and the real image of another caption: were captions ignored, it would be like `full`
    other         a real image and another one

What is computed from private records is private, these numbers included.

Letters: B images, S side, s side of the coarse image, P pairs.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.features import NAME, FeatureNetwork, perceptual_distance
from dpwavelet.images.sheet import from_bytes
from dpwavelet.randomness import stream
from dpwavelet.wavelet import analyze

AT_ONCE = 64  # pairs of images in memory as floats


@dataclass(frozen=True, eq=False)
class Distance:
    """A distance between two pictures, and the name that its numbers carry."""

    name: str
    between: Callable[[Tensor, Tensor], Tensor]  # two of [B, 3, S, S] in [-1, 1] to [B]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Mean distances that tell the private stage from the public one."""

    coarse: Measured
    enlarged: Measured
    band: Measured
    detail: Measured  # full less enlarged, pair by pair: below 0, the public stage helps


@dataclass(frozen=True, kw_only=True)
class PerceptualPairs:
    """Mean distances, all by the same network; see the module's first lines. Sizes count both sides."""

    distance: str
    full: Measured
    swapped: Measured
    other: Measured
    stages: Stages | None  # where coarse samples were given

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def by_network(network: FeatureNetwork, name: str = NAME) -> Distance:
    """The distance on a feature network of ours; `name` is the network's."""
    return Distance(
        f"perceptual distance ({name})", lambda first, second: perceptual_distance(network, first, second)
    )


def perceptual_pairs(
    distance: Distance,
    real: Tensor,
    full: Tensor,
    coarse: Tensor | None = None,
    *,
    wavelet: str = "haar",
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> PerceptualPairs:
    """Of real images and samples [B, 3, S, S], and coarse samples [B, 3, s, s], in the same order.

    All are uint8 or in [-1, 1]. Each real image stands in one row only, or the errors are too small. S is
    2^levels s, and `wavelet` makes the coarse band of the real ones. `swapped` and `other` are of disjoint
    pairs of rows at random, so that no row counts twice.
    """
    _check(real, full)
    bootstrap = bootstrap or Bootstrap()
    first, second = _paired(len(real), seed)
    here = _Walk(distance, bootstrap)
    rows = np.arange(len(real))
    of_full = here.distances((full, rows), (real, rows))
    swapped = here.distances((full, first), (real, second)) + here.distances((full, second), (real, first))
    return PerceptualPairs(
        distance=distance.name,
        full=here.mean("full", of_full),
        swapped=here.mean("swapped", swapped / 2),
        other=here.mean("other", here.distances((real, first), (real, second))),
        stages=None if coarse is None else _stages(here, real, of_full, coarse, wavelet),
    )


@dataclass(frozen=True, eq=False)
class _Walk:
    """Distances of chosen rows of two sets, a few at a time."""

    distance: Distance
    bootstrap: Bootstrap

    @torch.no_grad()
    def distances(
        self,
        first: tuple[Tensor, NDArray[np.int64]],
        second: tuple[Tensor, NDArray[np.int64]],
        side: int | None = None,
    ) -> NDArray[np.float64]:
        """[P] between rows of one and of the other, enlarged to the greater side, or to `side`."""
        side = side or max(first[0].shape[-1], second[0].shape[-1])
        found = []
        for start in range(0, len(first[1]), AT_ONCE):
            pictures = [
                enlarged(_floats(images[torch.from_numpy(places[start : start + AT_ONCE])]), side)
                for images, places in (first, second)
            ]
            found.append(self.distance.between(*pictures).double().cpu().numpy())
        return np.concatenate(found)

    def mean(self, what: str, each: NDArray[np.float64], signed: bool = False) -> Measured:
        """Of distances [P], which are independent."""
        return from_influences(
            f"{self.distance.name}, {what}",
            float(each.mean()),
            [each],
            (len(each), len(each)),
            self.bootstrap,
            at_least=-math.inf if signed else 0.0,
        )


def _stages(here: _Walk, real: Tensor, of_full: NDArray[np.float64], coarse: Tensor, wavelet: str) -> Stages:
    rows = np.arange(len(real))
    levels = _levels(real, coarse)
    small = torch.cat([analyze(_floats(part), levels, wavelet)[0] for part in torch.split(real, AT_ONCE)])
    of_coarse = here.distances((coarse, rows), (real, rows))
    return Stages(
        coarse=here.mean("coarse", here.distances((coarse, rows), (small, rows), real.shape[-1])),
        enlarged=here.mean("enlarged", of_coarse),
        band=here.mean("band", here.distances((small, rows), (real, rows))),
        detail=here.mean("detail", of_full - of_coarse, signed=True),
    )


def _paired(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint pairs of rows; an odd one is left over."""
    order = stream(seed, "pairs of images").permutation(count)
    half = count // 2
    return order[:half], order[half : 2 * half]


def _levels(real: Tensor, coarse: Tensor) -> int:
    """How often the side of a real image is halved to that of a coarse one."""
    levels = round(math.log2(real.shape[-1] / coarse.shape[-1]))
    if levels < 1 or len(real) != len(coarse) or coarse.shape[-1] << levels != real.shape[-1]:
        raise ConfigError(
            f"coarse samples {list(coarse.shape)} do not belong to images {list(real.shape)}; give one for "
            "each, of a half of the side, a quarter, and so on."
        )
    return levels


def _check(real: Tensor, full: Tensor) -> None:
    if real.shape != full.shape or real.ndim != 4 or real.shape[1] != 3 or len(real) < 4:
        raise ConfigError(
            f"images and samples are pairs [B, 3, S, S] of at least 4, got {list(real.shape)} and "
            f"{list(full.shape)}; give the samples that were drawn with the captions of these images."
        )


def _floats(images: Tensor) -> Tensor:
    return from_bytes(images) if images.dtype == torch.uint8 else images.float()


def enlarged(images: Tensor, side: int) -> Tensor:
    """[B, 3, s, s] to [B, 3, side, side]; bicubic overshoot is cut off."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1)
