"""Images that only the accountant's plan may learn from.

Shares no base with `PublicImages`, so that a type checker refuses one where the other is meant. Its repr
shows no record and no count. Who may import this module is fixed in the import contract of the project.

Guarantee: every method is a fixed function of the records themselves; nothing is normalised, balanced or
filtered by what the other records are.

Shapes: B batch, S side of the square in pixels.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from dpwavelet.errors import DataError
from dpwavelet.images.files import decode, decode_many, in_order
from dpwavelet.images.layouts import ImageFolder, open_folder

_LISTED = 10  # broken files named in one message


def fingerprint_of(digests: Iterable[bytes]) -> str:
    """What `PrivateImages.fingerprint` finds, from the digests of the files."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


@dataclass(frozen=True, repr=False)
class PrivateImages:
    """Private records in the order of their names, decoded at `size` when asked for."""

    folder: ImageFolder
    size: int
    expected: Sequence[bytes] = ()  # SHA-256 of every file as it was looked at; none where nobody looked yet

    @classmethod
    def open(cls, path: str | Path, size: int, split: str | None = None) -> "PrivateImages":
        """Open a folder or archive of any form; files are decoded later, so broken ones are found later."""
        return cls(open_folder(path, split), size)

    def __len__(self) -> int:
        return len(self.folder)

    def __repr__(self) -> str:
        return f"PrivateImages(size={self.size})"

    @property
    def names(self) -> tuple[str, ...]:
        """File name of every record."""
        return self.folder.names

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of one record; from its label if it has none; empty if it has neither."""
        return self.folder.captions(index)

    def label(self, index: int) -> str | None:
        """Class name of one record."""
        return self.folder.records[index].label

    def group(self, field: str) -> list[str]:
        """One field of every record, such as its identity; a record without it is a DataError."""
        return self.folder.group(field)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """The chosen images, uint8 [B, 3, S, S]; a broken file is a DataError that names it."""
        return decode_many(self, indices, self.size)

    def read(self, index: int) -> bytes:
        """Bytes of one image file. Guarantee: those that were looked at, if these are; else a DataError."""
        data = self.folder.read(index)
        if self.expected and hashlib.sha256(data).digest() != self.expected[index]:
            raise DataError(
                f"{self.names[index]} is not the file that was looked at when this began, and only that "
                "one is accounted for; leave the images as they are, and begin again."
            )
        return data

    def holding(self, digests: Sequence[bytes]) -> "PrivateImages":
        """The same records, of which files with other digests are refused from now on."""
        return replace(self, expected=digests)

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """All images once, in order: indices and pixels uint8 [B, 3, S, S], the last perhaps smaller."""
        for start in range(0, len(self), batch_size):
            indices = list(range(start, min(start + batch_size, len(self))))
            yield indices, self.pixels(indices)

    def first(self, count: int) -> "PrivateImages":
        """The first `count` records only, for dry runs. Its fingerprint is its own, not that of the whole."""
        return PrivateImages(self.folder.first(count), self.size, self.expected[:count])

    def fingerprint(self) -> str:
        """SHA-256 over the sorted SHA-256 of every image file: which images these are, whatever their names.

        Captions, labels and order do not enter, so renaming or recaptioning a set does not make it a new one.
        """
        return fingerprint_of(self.digests())

    def digests(self) -> list[bytes]:
        """SHA-256 of every image file."""
        return list(in_order(lambda i: hashlib.sha256(self.folder.read(i)).digest(), range(len(self))))

    def verify(self) -> None:
        """Decode every file; one DataError lists those that cannot be."""
        broken = [error for error in in_order(self._error, range(len(self))) if error is not None]
        if not broken:
            return
        more = [f"and {len(broken) - _LISTED} more"] if len(broken) > _LISTED else []
        listed = "\n  ".join(broken[:_LISTED] + more)
        raise DataError(f"{len(broken)} of {len(self)} images cannot be used:\n  {listed}")

    def _error(self, index: int) -> str | None:
        """Why one file cannot be decoded, or nothing."""
        try:
            decode(self.folder.read(index), self.size, self.folder.records[index].name)
        except DataError as error:
            return str(error)
        return None
