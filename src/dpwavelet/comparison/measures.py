"""The numbers of a cell: pictures for the captions of held-out records, beside those records.

Coarse pictures are the same of every method and of real pictures: the Haar approximation two levels down,
enlarged. So a method that has no coarse stage has a coarse distance too.

What is computed from private records is private, these numbers included.

Letters: B pictures, D features, S side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation import (
    Labelled,
    TooFewRowsError,
    by_network,
    class_obedience,
    extractor,
    frechet_distance,
    kernel_distance,
    perceptual_pairs,
)
from dpwavelet.evaluation.perceptual import enlarged
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.features import NAME, FeatureNetwork
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, to_bytes
from dpwavelet.randomness import stream
from dpwavelet.wavelet import analyze

LEVELS = 2  # from a full picture down to what is called coarse here
FEWEST_LABELLED = 200  # held-out records, for a probe that learns from half of them
AT_ONCE = 256

Rows = NDArray[np.float32]
Numbers = dict[str, float | None]


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut:
    """Held-out records: pictures as bytes [B, 3, S, S], the first caption of each, and its class."""

    pixels: Tensor
    captions: Sequence[str]
    labels: Sequence[str | None]

    @classmethod
    def read(cls, images: PrivateImages, most: int) -> "HeldOut":
        """At most so many, the same ones for every method and seed."""
        chosen = some_of(images, most, "held-out records", 0)
        captions = [(images.captions(index) or ("",))[0] for index in chosen]
        return cls(images.pixels(chosen), captions, [images.label(index) for index in chosen])


@dataclass(frozen=True, eq=False)
class Judge:
    """One feature network, and held-out records as it sees them."""

    held_out: HeldOut
    space: Extractor
    network: FeatureNetwork | None  # for pairs of pictures; nothing where only rows are known

    @cached_property
    def full(self) -> Rows:
        """Rows of the held-out pictures."""
        return self.rows(self.held_out.pixels)

    @cached_property
    def coarse(self) -> Rows:
        """Rows of their coarse parts."""
        return self.rows(coarse_of(self.held_out.pixels))

    def rows(self, pixels: Tensor) -> Rows:
        """Features [B, D]."""
        return np.concatenate([self.space.rows_of_any(part) for part in torch.split(pixels, AT_ONCE)])

    def numbers(self, pixels: Tensor, labels: Sequence[str | None], *, paired: bool) -> Numbers:
        """Of pictures of these classes; `paired` if each was drawn for a held-out caption."""
        full, coarse = self.rows(pixels), self.rows(coarse_of(pixels))
        found: Numbers = {
            "fd_coarse": _frechet(self.coarse, coarse),
            "fd_full": _frechet(self.full, full),
            "kd_full": kernel_distance(self.full, full).value,
            "perceptual": None,
            "class_found": self._classes(full, labels),
        }
        if paired and self.network is not None:
            pairs = perceptual_pairs(by_network(self.network), self.held_out.pixels, pixels)
            found["perceptual"] = pairs.full.value
        return found

    def _classes(self, rows: Rows, labels: Sequence[str | None]) -> float | None:
        known, asked = _labelled(self.full, self.held_out.labels), _labelled(rows, labels)
        if known is None or asked is None or len(known.labels) < FEWEST_LABELLED:
            return None
        return class_obedience(known, asked, seed=0).generated.value


def some_of(images: PrivateImages, most: int, name: str, seed: int) -> list[int]:
    """Places of at most `most` records, chosen by the seed, in order."""
    if len(images) <= most:
        return list(range(len(images)))
    chosen: list[int] = np.sort(stream(seed, name).choice(len(images), size=most, replace=False)).tolist()
    return chosen


def judge_of(held_out: HeldOut, features: str | None) -> Judge:
    """By the bundled feature network, or by one in a folder."""
    return Judge(held_out, extractor(NAME, features), FeatureNetwork.from_pretrained(features))


def coarse_of(pixels: Tensor) -> Tensor:
    """Bytes [B, 3, S, S] of the coarse part of pictures of that shape."""
    side = pixels.shape[-1]
    if side % 2**LEVELS:
        raise ConfigError(f"pictures of {side} pixels have no coarse part {LEVELS} levels down.")
    parts = torch.split(pixels, AT_ONCE)
    return torch.cat([to_bytes(enlarged(analyze(from_bytes(part), LEVELS)[0], side)) for part in parts])


def _frechet(real: Rows, generated: Rows) -> float | None:
    try:
        return frechet_distance(real, generated).value
    except TooFewRowsError:
        return None


def _labelled(rows: Rows, labels: Sequence[str | None]) -> Labelled | None:
    told = [index for index, label in enumerate(labels) if label is not None]
    return Labelled(rows[told], [str(labels[index]) for index in told]) if told else None
