"""Images that anyone may see: what the tokenizer, the detail model and the starting weights learn from.

Shares no base with `PrivateImages`, so that a type checker refuses one where the other is meant.

Shapes: B batch, S side of the square in pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dpwavelet.images.files import decode_many
from dpwavelet.images.layouts import ImageFolder, open_folder


@dataclass(frozen=True)
class PublicImages:
    """Public records in the order of their names, decoded at `size` when asked for."""

    folder: ImageFolder
    size: int

    @classmethod
    def open(cls, path: str | Path, size: int, split: str | None = None) -> "PublicImages":
        """Open a folder or archive of any form; files are decoded later, so broken ones are found later."""
        return cls(open_folder(path, split), size)

    def __len__(self) -> int:
        return len(self.folder)

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
        return decode_many(self.folder, indices, self.size)

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """All images once, in order: indices and pixels uint8 [B, 3, S, S], the last perhaps smaller."""
        for start in range(0, len(self), batch_size):
            indices = list(range(start, min(start + batch_size, len(self))))
            yield indices, self.pixels(indices)
