"""A part of a drawn set as files: pictures in a folder, and the lines of metadata that go with them.

The bytes depend on the seed, the size and the places in the list alone. Who writes which part is not known
here.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpwavelet.images.portrait_painting import render
from dpwavelet.images.portrait_people import portraits

_PNG = b"\x89PNG\r\n\x1a\n"
_RGB = (8, 2, 0, 0, 0)  # bits a channel, colour without alpha, then deflate, filters by row, not interlaced


def write_part(folder: Path, start: int, count: int, seed: int, size: int) -> list[str]:
    """Write the pictures of portraits `start` to `start + count`; return their lines of metadata."""
    people = portraits(count, seed, start)
    lines = []
    for index, (person, image) in enumerate(zip(people, render(people, size), strict=True), start):
        name = f"{index:06d}.png"
        (folder / name).write_bytes(png(image))
        lines.append(json.dumps({"file_name": name, "text": person.caption} | person.fields()) + "\n")
    return lines


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture [H, W, 3] as a PNG file.

    Pillow tries five filters on every row, which takes most of its time and saves no byte on flat colours.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each starts with 0, the filter that changes nothing
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, *_RGB)
    return (
        _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.data, 1)) + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
