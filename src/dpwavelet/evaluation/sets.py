"""A set of images as feature rows, a few images in memory at a time.

`Pictures` reads any folder or archive of images, and pictures that somebody holds in memory the same way, so
that both are resized by the same rule. `rows_of` takes them or any set of images of this project. Nothing
here knows whether the images are private; whoever calls it on private records keeps the rows, and their
cache, where those records may be.

Letters: B batch, N images, S side of the square in pixels.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.evaluation.rows import Rows
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.evaluation.stored import kept, unnamed
from dpwavelet.images.files import Readable, decode, describe, in_order
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.sheet import png

BATCH = 256
LISTED = 10  # broken files named in one message
LOOKED_AT = 200  # headers that tell whether images are enlarged

Told = Callable[[int], None]


class Images(Protocol):
    """Images at the side that an extractor wants: `Pictures`, and every set of images of this project."""

    def __len__(self) -> int:
        """How many there are, N."""

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """All of them once, in order: indices and pixels uint8 [B, 3, S, S]."""


@dataclass(frozen=True, repr=False)
class Pictures:
    """Chosen files of a folder or archive, decoded at `side` when asked for. Its repr shows no record."""

    files: Readable
    side: int
    chosen: Sequence[int]
    warnings: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path, side: int, split: str | None = None) -> "Pictures":
        """All images of a folder or archive of any known form; of a release folder, its samples."""
        folder = open_folder(_samples(Path(path)), split)
        return cls(folder, side, range(len(folder)), folder.warnings)

    @classmethod
    def held(cls, pixels: Tensor, side: int) -> "Pictures":
        """Pictures [N, 3, H, W] in memory, uint8 or in [-1, 1], resized as files are."""
        return cls(Held(pixels), side, range(len(pixels)))

    def __len__(self) -> int:
        return len(self.chosen)

    def __repr__(self) -> str:
        return f"Pictures(side={self.side})"

    def some(self, places: NDArray[np.int64]) -> "Pictures":
        """Those at these places."""
        return replace(self, chosen=[self.chosen[place] for place in places.tolist()])

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """All images once, in order: places and pixels uint8 [B, 3, S, S].

        A file that cannot be decoded is a DataError; it lists the others too, for which all are decoded.
        """
        decoded = self._decoder()
        for start in range(0, len(self), batch_size):
            places = list(range(start, min(start + batch_size, len(self))))
            try:
                pixels = torch.stack(list(in_order(decoded, [self.chosen[place] for place in places])))
            except DataError as error:
                raise self._broken() from error
            yield places, pixels

    def digest(self) -> str:
        """SHA-256 over the SHA-256 of every file, in order; names, captions and labels do not enter."""
        total = hashlib.sha256()
        for each in in_order(lambda index: hashlib.sha256(self.files.read(index)).digest(), self.chosen):
            total.update(each)
        return total.hexdigest()

    def smallest(self) -> int:
        """The shortest side in pixels, by the headers of some 200 files, spread evenly."""
        looked_at = self.chosen[:: max(1, len(self) // LOOKED_AT)]
        found = [side for side in in_order(self._shorter_side, looked_at) if side is not None]
        return min(found, default=self.side)

    def _shorter_side(self, index: int) -> int | None:
        try:
            facts = describe(self.files.read(index))
        except DataError:
            return None  # it is named when it is decoded
        return min(facts.width, facts.height)

    def _decoder(self) -> Callable[[int], Tensor]:
        return lambda index: decode(self.files.read(index), self.side, self.files.names[index])

    def _broken(self) -> DataError:
        """What is wrong with every file that cannot be used."""
        decoded = self._decoder()

        def wrong(index: int) -> str | None:
            try:
                decoded(index)
            except DataError as error:
                return str(error)
            return None

        errors = [error for error in in_order(wrong, self.chosen) if error is not None]
        more = [f"and {len(errors) - LISTED} more"] if len(errors) > LISTED else []
        listed = "\n  ".join(errors[:LISTED] + more)
        return DataError(f"{len(errors)} of {len(self)} images cannot be used:\n  {listed}")


@dataclass(frozen=True, eq=False, repr=False)
class Held:
    """Pictures in memory, as the image files that they would be."""

    pixels: Tensor

    @property
    def names(self) -> list[str]:
        """What a message calls them."""
        return [f"picture {place}" for place in range(len(self.pixels))]

    def read(self, index: int) -> bytes:
        """One of them as PNG."""
        return png(self.pixels[index].cpu())


def rows_of(
    images: Images,
    extractor: Extractor,
    *,
    cache: Path | None = None,
    digest: str | None = None,
    told: Told = lambda done: None,
) -> Rows:
    """A feature row for each image, float32 [N, D], on disk and not in memory.

    Without `cache` nothing of them is left behind. With it, rows that were computed before are read again;
    `digest` says of which images they are, and only `Pictures` know theirs. `told` hears of finished images.
    """
    if cache is None:
        return unnamed(_pieces(images, extractor, told), extractor.columns)
    if digest is None:
        if not isinstance(images, Pictures):
            raise ConfigError("rows are kept by the digest of their images; give it, or leave out the cache.")
        digest = images.digest()
    about = {
        "images": digest,
        "features": extractor.digest,
        "resize": extractor.resize,
        "pillow": PIL.__version__,
    }
    computed = 0

    def heard(done: int) -> None:
        nonlocal computed
        computed += done
        told(done)

    rows = kept(cache, about, extractor.columns, lambda: _pieces(images, extractor, heard))
    told(len(rows) - computed)
    return rows


def _pieces(images: Images, extractor: Extractor, told: Told) -> Iterator[NDArray[np.float32]]:
    for places, pixels in images.batches(BATCH):
        yield extractor.rows(pixels)
        told(len(places))


def _samples(path: Path) -> Path:
    """The samples of a release folder, and any other path as it is."""
    if not (path / "certificate.json").is_file():
        return path
    if not (path / "samples").is_dir():
        raise DataError(f"the release {path} has no samples; draw some with `dpwavelet sample {path}`.")
    return path / "samples"
