"""Repeated images: the same pixels, and nearly the same.

Each record is one unit of privacy, so a picture that is there twice counts twice: its owner is protected
less than the certificate says. Pure functions on arrays; which files they came from is not known here.

An image's pattern is the 64 lowest frequencies of its 32x32 grey thumbnail without their mean, at length
one, and its hash their sign against the median. Two images are near if their hashes differ in at most
NEAR_BITS = 6 of 64 bits and their patterns have a cosine of at least ALIKE = 0.975, or if their hashes are
equal. On portraits, copies that were recompressed, halved in size, made grey or 15 % brighter pass, and half
of those that lost two pixels at each border; hashes alone would also link strangers in the same pose. Nearly
flat images (standard deviation under FLAT grey levels) have no pattern but noise and count as near to none.

Shapes: N images, K pairs.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SIDE = 32
NEAR_BITS = 6
ALIKE = 0.975
FLAT = 6.0

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def digest(image: NDArray[np.uint8]) -> bytes:
    """SHA-256 of one decoded image, whatever file format it came in."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def same(digests: Sequence[Hashable]) -> list[list[int]]:
    """Groups of two or more equal digests, each in order, ordered by their first."""
    places = defaultdict[Hashable, list[int]](list)
    for index, value in enumerate(digests):
        places[value].append(index)
    return [group for group in places.values() if len(group) > 1]


@dataclass(frozen=True, kw_only=True)
class Sketches:
    """What is kept of N images: hash [N], pattern [N, 64], and whether there is contrast to compare [N]."""

    hashes: Hashes
    patterns: NDArray[np.float16]
    contrast: NDArray[np.bool_]


def sketch(images: NDArray[np.uint8]) -> Sketches:
    """Sketches of thumbnails [N, 3, 32, 32]."""
    grey = images.astype(np.float32).transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114], np.float32)
    cosines = _cosines()
    rows, columns = _lowest()
    low = (cosines @ grey @ cosines.T)[:, rows, columns]  # [N, 64]
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)  # [N, 8]
    length = np.linalg.norm(low, axis=1, keepdims=True)
    return Sketches(
        hashes=np.ascontiguousarray(bits).view(np.uint64)[:, 0],
        patterns=(low / np.maximum(length, 1e-6)).astype(np.float16),
        contrast=grey.std(axis=(1, 2)) >= FLAT,
    )


def joined(parts: Sequence[Sketches]) -> Sketches:
    """Sketches of several chunks as one."""
    return Sketches(
        hashes=np.concatenate([part.hashes for part in parts]),
        patterns=np.concatenate([part.patterns for part in parts]),
        contrast=np.concatenate([part.contrast for part in parts]),
    )


def near(sketches: Sketches, bits: int = NEAR_BITS, alike: float = ALIKE) -> list[list[int]]:
    """Groups of two or more images with contrast, linked by near pairs.

    Every pair of near hashes is looked at: of `bits` + 1 bands of a hash, one at least is the same in both.
    Memory is O(N), time the number of pairs that share a band. Of equal hashes the first stands for all.
    """
    chosen = np.flatnonzero(sketches.contrast)
    values, first_place, which = np.unique(sketches.hashes[chosen], return_index=True, return_inverse=True)
    patterns = sketches.patterns[chosen[first_place]].astype(np.float32)
    root = np.arange(len(values))
    for first, second in _close_pairs(values, bits):
        apart = root[first] != root[second]
        first, second = first[apart], second[apart]
        kept = np.einsum("kf,kf->k", patterns[first], patterns[second]) >= alike
        _join(root, first[kept], second[kept])
    groups = defaultdict[int, list[int]](list)
    for index, value in zip(chosen.tolist(), root[which].tolist(), strict=True):
        groups[value].append(index)
    return sorted(group for group in groups.values() if len(group) > 1)


def _close_pairs(values: Hashes, bits: int) -> Iterator[tuple[Indices, Indices]]:
    """Pairs [K], [K] of positions whose values differ in at most `bits` bits, perhaps more than once."""
    edges = np.linspace(0, 64, bits + 2).round().astype(int)
    for low, high in pairwise(edges):
        keys = (values >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1)
        order = np.argsort(keys, kind="stable")
        sorted_values, ends = values[order], np.searchsorted(keys[order], keys[order], side="right")
        left, step = np.arange(len(values)), 1
        while len(left := left[left + step < ends[left]]):  # those with a partner `step` places on
            close = _differing_bits(sorted_values[left] ^ sorted_values[left + step]) <= bits
            if close.any():
                yield order[left[close]], order[left[close] + step]
            step += 1


def _join(root: Indices, first: Indices, second: Indices) -> None:
    """Merge the groups of every pair; `root` [N] names each group by its smallest member."""
    while True:
        a, b = root[first], root[second]
        if (a == b).all():
            return
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := root[root], root):
            root[:] = shorter


def _differing_bits(words: Hashes) -> NDArray[np.uint64]:
    """Number of ones in each word, summed in pairs, then nibbles, then bytes."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    pairs = np.uint64(0x3333333333333333)
    words = (words & pairs) + ((words >> np.uint64(2)) & pairs)
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.uint64] = (words * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts


def _cosines() -> NDArray[np.float32]:
    """The orthonormal DCT-II matrix [32, 32]: row k is a cosine of k half-waves."""
    k, x = np.ogrid[:SIDE, :SIDE]
    waves: NDArray[np.float64] = np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE))
    waves *= np.where(k == 0, 1, 2**0.5) / SIDE**0.5
    return waves.astype(np.float32)


def _lowest() -> tuple[Indices, Indices]:
    """Row and column of the 64 lowest frequencies but the mean, lowest first."""
    k = np.arange(SIDE)
    distance = (k[:, None] ** 2 + k[None, :] ** 2).ravel()
    return np.unravel_index(np.argsort(distance, kind="stable")[1:65], (SIDE, SIDE))  # type: ignore[return-value]  # a pair
