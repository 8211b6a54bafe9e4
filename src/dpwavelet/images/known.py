"""Which pictures a public model has seen, told by short digests beside its weights.

Each is the first eight bytes of the SHA-256 of the decoded picture at the model's own size, so a new name or
another lossless format changes nothing, and two different pictures agree with probability 2^-64. Only the
KEPT smallest are kept: they are an even sample of any set, and 0.8 MB at most.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.images.duplicates import digest

KNOWN = "trained_on.safetensors"
KEPT = 100_000


def known_of(pixels: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """The digests of pictures [3, S, S], sorted, of which `write_known` makes a file."""
    return np.unique(_short(digest(one) for one in pixels))[:KEPT]


def write_known(folder: Path, known: NDArray[np.int64]) -> None:
    """Put the digests of all public images that a model learned from into its folder."""
    write_tensors(folder / KNOWN, {"digests": torch.from_numpy(known)})


def read_known(folder: Path) -> NDArray[np.int64]:
    """What `write_known` wrote, sorted; empty for a model that does not say."""
    if not (folder / KNOWN).is_file():
        return np.empty(0, np.int64)
    digests: NDArray[np.int64] = read_tensors(folder / KNOWN)["digests"].numpy()
    return digests


def share_known(known: NDArray[np.int64], digests: Iterable[bytes]) -> float:
    """Which share of these pictures, by their SHA-256, the model has seen; an estimate if it saw many."""
    asked = _short(digests)
    if len(known) == KEPT:
        asked = asked[asked <= known[-1]]
    return float(np.isin(asked, known).mean()) if len(asked) and len(known) else 0.0


def _short(digests: Iterable[bytes]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(value[:8] for value in digests), np.dtype("<i8")).astype(np.int64)
