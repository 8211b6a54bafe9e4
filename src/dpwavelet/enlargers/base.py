"""What every enlarger is, and what several of them share.

Letters: B batch, h and w sides of the coarse picture, S side of the full one.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.checkpoint import canonical_json
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.wavelet import analyze, synthesize

AT_ONCE = 16  # pictures that go through a network together, always as many


class Enlarger(Protocol):
    """Coarse pictures to full ones by something public and frozen: post-processing, so it costs no budget."""

    @property
    def name(self) -> str:
        """What it is, in words for cards and reports."""

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of the files that it adds to those of the model, by name."""

    @property
    def consistent(self) -> bool:
        """Whether analysing a full picture gives the coarse one back."""

    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """Coarse pictures [B, 3, h, w] in [-1, 1] to full ones [B, 3, S, S], on the device of `few`.

        Picture i depends on few[i], captions[i] and (seed, first + i), never on its neighbours or on B.
        """


def enlarger_json(enlarger: Enlarger) -> dict[str, Any]:
    """What tells one enlarger from another, for settings that must be repeated."""
    return {
        "name": enlarger.name,
        "files": dict(enlarger.files),
        "consistent": enlarger.consistent,
    }


def enlarger_digest(enlarger: Enlarger) -> str:
    """SHA-256 of what decides its pictures, whatever its files are called."""
    told = [type(enlarger).__name__, sorted(enlarger.files.values()), enlarger.consistent]
    return sha256(canonical_json(told)).hexdigest()


def consistent(full: Tensor, few: Tensor, wavelet: str) -> Tensor:
    """Put the coarse picture back: `full` [B, 3, S, S], with `few` [B, 3, h, h] as its coarse part.

    Guarantee: analysing the result down to h gives `few`, to rounding: an enlarger can add, never overrule.
    """
    levels = levels_between(few.shape[-1], full.shape[-1])
    if levels == 0:
        return few
    return synthesize([few, *analyze(full, levels, wavelet)[1:]], wavelet)


def levels_between(few: int, full: int) -> int:
    """How often a side doubles from `few` to `full`."""
    levels = (full // few).bit_length() - 1 if few else -1
    if levels < 0 or few << levels != full:
        raise ConfigError(f"a picture of {few} pixels can't be doubled until it has {full}.")
    return levels


def known_levels(few: int, full: int, levels: int) -> int:
    """How many of the `levels` of details a coarse picture of side `few` has already."""
    known = levels - levels_between(few, full)
    if known < 0:
        raise ConfigError(
            f"the coarse pictures have {few} pixels, and this enlarger goes on from {full >> levels} or more."
        )
    return known


def in_batches(function: Callable[..., Tensor], *rows: Tensor, size: int = AT_ONCE) -> Tensor:
    """Apply `function` to so many rows at a time, the last ones padded, so the split changes no bit."""
    found = []
    for start in range(0, len(rows[0]), size):
        parts = [each[start : start + size] for each in rows]
        own = len(parts[0])
        padded = (torch.cat((part, part[-1:].expand(size - own, *part.shape[1:]))) for part in parts)
        found.append(function(*padded)[:own])
    return torch.cat(found)


def grown(picture: Tensor, side: int, once: Callable[[Tensor], Tensor]) -> Tensor:
    """A picture [1, 3, h, h] in [-1, 1] to [1, 3, side, side] by a network of pixels in [0, 1].

    It is applied until the side is reached; what goes beyond is averaged.
    """
    x = ((picture + 1) / 2).clamp(0, 1)
    while x.shape[-1] < side:
        before, x = x.shape[-1], once(x).float()
        if not (x.shape == (1, 3, x.shape[-1], x.shape[-1]) and x.shape[-1] > before):
            raise ModelError(f"the network made {tuple(x.shape)} of a picture of {before} pixels.")
        if not x.isfinite().all():
            raise ModelError("the network made a picture of numbers that aren't finite; its file is damaged.")
        x = x.clamp(0, 1)
    if x.shape[-1] % side:
        raise ModelError(f"the network enlarges to {x.shape[-1]} pixels, which can't be averaged to {side}.")
    return F.avg_pool2d(x, x.shape[-1] // side) * 2 - 1


def together(digests: Mapping[str, str]) -> str:
    """One digest of many files: that of the lines which `sha256sum` prints for them, sorted by name."""
    lines = (f"{value}  {name}\n" for name, value in sorted(digests.items()))
    return sha256("".join(lines).encode()).hexdigest()
