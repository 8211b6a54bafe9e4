"""Rows on disk instead of in memory: a file of numbers without a header, read through a memory map.

`unnamed` rows live in a temporary file that has no name, so nothing of them is left behind, even by a process
that is killed. `kept` rows live in a folder with a JSON file beside them that says what they are, whole or
absent. What they are of is not known here. Rows of private records are private: keep them where those may be.

Letters: N rows, D features.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpwavelet.checkpoint import canonical_json, digest, read_json, whole_folder, write_json
from dpwavelet.errors import DataError, ModelError, OutputError
from dpwavelet.evaluation.rows import BLOCK, Rows

FORMAT = 1
BYTES, FACTS = "rows.f32", "rows.json"

Pieces = Iterable[NDArray[np.float32]]


def unnamed(pieces: Iterable[Rows], columns: int, kind: DTypeLike = np.float32) -> Rows:
    """All pieces [n, D], one after another, as one array [N, D] that is read when it is used."""
    try:
        with tempfile.TemporaryFile() as file:
            count = _write(file, pieces, kind)
            return np.memmap(file, kind, "r", shape=(count, columns))
    except OSError as error:
        raise OutputError(
            f"cannot write rows to {tempfile.gettempdir()}: {error.strerror or error}; "
            "free space, or set TMPDIR."
        ) from error


def some(rows: Rows, chosen: NDArray[np.int64]) -> Rows:
    """The chosen rows of many, without holding them in memory."""
    parts = (rows[chosen[start : start + BLOCK]] for start in range(0, len(chosen), BLOCK))
    return unnamed(parts, rows.shape[1], rows.dtype)


def kept(folder: Path, about: Mapping[str, str | int], columns: int, compute: Callable[[], Pieces]) -> Rows:
    """Rows that were kept below `folder` already, or are computed and kept now.

    `about` must hold all that they depend on: the digests of the images and of the network, the resize.
    Changed or damaged rows are a ModelError that names their folder.
    """
    place = folder / hashlib.sha256(canonical_json({"format": FORMAT, **about})).hexdigest()
    if not place.is_dir():
        with whole_folder(place) as building:
            with (building / BYTES).open("wb") as file:
                count = _write(file, compute(), np.float32)
            facts = {"rows": count, "columns": columns, "sha256": digest(building / BYTES)}
            write_json(building / FACTS, {"format": FORMAT, **facts, "about": dict(about)})
    return _read(place, columns)


def _read(place: Path, columns: int) -> Rows:
    told: Any = read_json(place / FACTS)
    try:
        if (told["format"], told["columns"]) != (FORMAT, columns):
            raise ValueError(f"format {told['format']!r} of {told['columns']!r} columns")
        if digest(place / BYTES) != told["sha256"]:
            raise ValueError("the file was changed")
        return np.memmap(place / BYTES, np.float32, "r", shape=(int(told["rows"]), columns))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{place} does not hold the rows that it should ({error}); remove it.") from error


def _write(file: IO[bytes], pieces: Iterable[Rows], kind: DTypeLike) -> int:
    """How many rows were written; none at all are refused."""
    count = 0
    for piece in pieces:
        file.write(np.ascontiguousarray(piece, kind).tobytes())
        count += len(piece)
    file.flush()
    if not count:
        raise DataError("there are no images to make rows of; is the set empty?")
    return count
