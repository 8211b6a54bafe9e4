"""Separable wavelets with periodized borders, any number of levels, exact inverses.

`analyze` splits an image into its approximation and, coarse to fine, the details of each level; `synthesize`
puts the first few of them together again, so the first band alone is a thumbnail and each further band
doubles its size ("partial decoding"). Nothing here is learned and nothing looks at data.

Scaling: every level divides its four bands by two, so with Haar the approximation *is* the box-downsampled
image, in the image's own range. With an orthonormal filter an error of size e on a band at level l is an
error of 2^l e on the pixels it covers, spread over them evenly.

Shapes: B batch, C channels, H height, W width (both divisible by two at every level).
"""

import operator
from collections.abc import Iterable, Sequence
from functools import cache, reduce

import pywt
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError

WAVELETS = ("haar", "db2", "db4", "sym4", "bior2.2", "bior4.4")


def analyze(image: Tensor, levels: int, wavelet: str = "haar") -> list[Tensor]:
    """Split [B, C, H, W] into [approximation, details of level `levels`, ..., details of level 1].

    Level l has height H / 2^l. Details hold the bands (low-high, high-low, high-high) one after the other:
    [B, 3 C, H / 2^l, W / 2^l].
    """
    _check(image, levels, wavelet)
    details: list[Tensor] = []
    for _ in range(levels):
        image, detail = _split(image, wavelet)
        details.append(detail)
    return [image, *reversed(details)]


def synthesize(bands: Sequence[Tensor], wavelet: str = "haar") -> Tensor:
    """Invert `analyze`; with only the first s bands, give the image at that scale."""
    image = bands[0]
    for details in bands[1:]:
        image = _join(image, details, wavelet)
    return image


def _split(image: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """One level: [B, C, H, W] to its approximation [B, C, H/2, W/2] and details [B, 3C, H/2, W/2]."""
    low, high, _, _ = _filters(wavelet)
    rows_low, rows_high = _filter_down(image, low, -2), _filter_down(image, high, -2)
    details = (
        _filter_down(rows_low, high, -1),
        _filter_down(rows_high, low, -1),
        _filter_down(rows_high, high, -1),
    )
    return _filter_down(rows_low, low, -1) / 2, torch.cat(details, dim=1) / 2


def _join(image: Tensor, details: Tensor, wavelet: str) -> Tensor:
    """Invert `_split`."""
    _, _, low, high = _filters(wavelet)
    low_high, high_low, high_high = details.chunk(3, dim=1)
    rows_low = _filter_up(image, low, -1) + _filter_up(low_high, high, -1)
    rows_high = _filter_up(high_low, low, -1) + _filter_up(high_high, high, -1)
    return (_filter_up(rows_low, low, -2) + _filter_up(rows_high, high, -2)) * 2


def _filter_down(x: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
    """Circular convolution, every second sample: y[i] = sum_k taps[k] x[2 i + F/2 - k], F = len(taps)."""
    half = len(taps) // 2
    even, odd = torch.unflatten(x, dim, (-1, 2)).unbind(x.ndim + dim + 1)
    return _sum(
        tap * torch.roll((even, odd)[(half - k) % 2], -((half - k) // 2), dim)
        for k, tap in enumerate(taps)
        if tap
    )


def _filter_up(y: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
    """Zeros between the samples, then circular convolution: x[2 i - F/2 + 1 + k] += taps[k] y[i]."""
    half = len(taps) // 2
    phases: list[list[Tensor]] = [[], []]
    for k, tap in enumerate(taps):
        if tap:
            shift, phase = divmod(1 - half + k, 2)
            phases[phase].append(tap * torch.roll(y, shift, dim))
    axis = y.ndim + dim
    return torch.stack((_sum(phases[0]), _sum(phases[1])), axis + 1).flatten(axis, axis + 1)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(operator.add, terms)


@cache
def _filters(name: str) -> tuple[tuple[float, ...], ...]:
    """Analysis low and high pass, then synthesis low and high pass, as PyWavelets defines them."""
    return tuple(tuple(float(tap) for tap in taps) for taps in pywt.Wavelet(name).filter_bank)


def _check(image: Tensor, levels: int, wavelet: str) -> None:
    if wavelet not in WAVELETS:
        raise ConfigError(f"wavelet must be one of {', '.join(WAVELETS)}, got {wavelet!r}.")
    height, width = image.shape[-2:]
    if levels < 1 or height % 2**levels or width % 2**levels:
        raise ConfigError(
            f"{levels} wavelet levels need an image whose sides divide by {2 ** max(levels, 1)}, "
            f"got {height} x {width}; resize it or use fewer levels."
        )
