"""The people of a drawn set: an endless list for every seed, of traits and a caption each.

A person depends on the seed and on the place in the list alone, so any part of a set can be made anywhere,
in any order. Nothing here draws a pixel.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from dpwavelet.images.portrait_captions import describe
from dpwavelet.images.portrait_traits import Dice, Traits, draw_traits

DRAWS = 128  # uniform numbers set aside for one portrait; a multiple of the four that Philox makes at a time
TRAIT_DRAWS = 96  # the first of them choose traits, the others words


@dataclass(frozen=True, kw_only=True)
class Portrait(Traits):
    """Everything needed to draw one portrait, and a sentence that is true of it."""

    caption: str


def portraits(count: int, seed: int, start: int = 0) -> list[Portrait]:
    """The portraits `start` to `start + count` of the endless list that `seed` names."""
    key = hashlib.sha256(f"{seed}/portrait".encode()).digest()[:16]
    bits = np.random.Philox(key=int.from_bytes(key), counter=start * DRAWS // 4)
    table = np.random.Generator(bits).random((count, DRAWS))  # row i is the same whatever the count
    return [_portrait(row) for row in table.tolist()]


def _portrait(row: list[float]) -> Portrait:
    traits = draw_traits(Dice(iter(row[:TRAIT_DRAWS])))
    return Portrait(**vars(traits), caption=describe(traits, Dice(iter(row[TRAIT_DRAWS:]))))
