"""What is kept of a picture to recognise it again: two digests, a sketch and its colours, 600 bytes in all.

`alike` is what we call nearly the same picture: near by `images.duplicates` (shape, without colour), and of
the same colours, unless one of the two is grey. Copies that were recompressed, halved in size or made grey
pass, and most that are 15 % brighter or lost a pixel at each border. Strangers hardly do: of 32 million pairs
of drawn portraits, whose shapes are few, one to four were alike (three sets), so of 64 drawn pictures and
8,000 records at most 0.07 pairs are by chance; of 41 million pairs of faces, only the same photographs were.

Shapes: N pictures, A and B likewise.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import DataError
from dpwavelet.images import duplicates
from dpwavelet.images.files import decode, in_order
from dpwavelet.images.inspection import DARK
from dpwavelet.images.private import PrivateImages

SAME_COLOURS = 0.99  # cosine of two 8x8 colour thumbnails less their mean
GREY = 1.0  # mean difference of the channels, in levels, under which a picture has no colours to compare
_AT_ONCE = 512


@dataclass(frozen=True, repr=False)
class Prints:
    """Prints of N pictures. Its repr shows none."""

    files: Sequence[bytes]  # SHA-256 of the file, empty where there is none
    pixels: Sequence[bytes]  # SHA-256 of the decoded picture
    sketches: duplicates.Sketches
    colours: NDArray[np.float16]  # [N, 192], of length one, or zero for a grey picture
    dark: NDArray[np.bool_]  # [N], whether it uses less than an eighth of the range

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def of(cls, pixels: Tensor, files: Sequence[bytes] = ()) -> "Prints":
        """Prints of decoded pictures, uint8 [N, 3, S, S]; they must not be flat to be alike."""
        small, tiny = (F.adaptive_avg_pool2d(pixels.float(), side) for side in (duplicates.SIDE, 8))
        flat = tiny.flatten(1) - tiny.mean((1, 2, 3))[:, None]
        flat[(tiny - tiny.mean(1, keepdim=True)).abs().mean((1, 2, 3)) < GREY] = 0
        return cls(
            files or [b""] * len(pixels),
            [duplicates.digest(image.numpy()) for image in pixels],
            duplicates.sketch(small.round().byte().numpy()),
            F.normalize(flat, eps=1e-6).half().numpy(),
            (pixels.amax((1, 2, 3)) < DARK).numpy(),
        )

    @classmethod
    def of_records(cls, images: PrivateImages, told: Callable[[int], None]) -> "Prints":
        """Read every file once; if any cannot be decoded, one DataError lists all of those."""
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            indices = range(start, min(start + _AT_ONCE, len(images)))
            try:
                seen = list(in_order(lambda index: _look(images, index), indices))
            except DataError:
                images.verify()
                raise
            files, pixels = zip(*seen, strict=True)
            parts.append(cls.of(torch.stack(pixels), files))
            told(len(indices))
        return cls(
            [digest for part in parts for digest in part.files],
            [digest for part in parts for digest in part.pixels],
            duplicates.joined([part.sketches for part in parts]),
            np.concatenate([part.colours for part in parts]),
            np.concatenate([part.dark for part in parts]),
        )

    def take(self, indices: Sequence[int]) -> "Prints":
        """Those of some of the pictures."""
        chosen = np.asarray(indices, np.int64)
        s = self.sketches
        return Prints(
            [self.files[index] for index in indices],
            [self.pixels[index] for index in indices],
            duplicates.Sketches(
                hashes=s.hashes[chosen], patterns=s.patterns[chosen], contrast=s.contrast[chosen]
            ),
            self.colours[chosen],
            self.dark[chosen],
        )


def alike(ours: Prints, theirs: Prints) -> NDArray[np.bool_]:
    """Which of A pictures are nearly the same as which of B: [A, B]."""
    a, b = ours.sketches, theirs.sketches
    wrong_bits = (64 - _signs(a.hashes) @ _signs(b.hashes).T) / 2
    shapes = a.patterns.astype(np.float32) @ b.patterns.astype(np.float32).T
    colours = ours.colours.astype(np.float32) @ theirs.colours.astype(np.float32).T
    grey = (ours.colours == 0).all(1, keepdims=True) | (theirs.colours == 0).all(1, keepdims=True).T
    near = (wrong_bits <= duplicates.NEAR_BITS) & (shapes >= duplicates.ALIKE)
    found: NDArray[np.bool_] = near & (grey | (colours >= SAME_COLOURS))
    found &= a.contrast[:, None] & b.contrast[None]
    return found


def exact_repeats(prints: Prints) -> list[list[int]]:
    """Groups of pictures with the very same pixels."""
    return duplicates.same(prints.pixels)


def near_repeats(prints: Prints) -> Iterator[tuple[int, int]]:
    """Pairs of pictures that are alike and not the same; of exact repeats only the first takes part."""
    contrast = prints.sketches.contrast.copy()
    contrast[[copy for group in exact_repeats(prints) for copy in group[1:]]] = False
    once = replace(prints.sketches, contrast=contrast)
    for group in duplicates.near(once):
        whole = prints.take(group)
        for start in range(0, len(group), _AT_ONCE):
            part = range(start, min(start + _AT_ONCE, len(group)))
            first, second = np.nonzero(alike(whole.take(part), whole))
            for i, j in zip(first + start, second, strict=True):
                if i < j:
                    yield group[i], group[j]


def _look(images: PrivateImages, index: int) -> tuple[bytes, Tensor]:
    """Digest and picture of one file."""
    data = images.folder.read(index)
    return hashlib.sha256(data).digest(), decode(data, images.size, images.folder.records[index].name)


def _signs(hashes: duplicates.Hashes) -> NDArray[np.float32]:
    """The 64 bits of each hash as +1 and -1: [N, 64]."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8), axis=1)
    return bits.astype(np.float32) * 2 - 1
