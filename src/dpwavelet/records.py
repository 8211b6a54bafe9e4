"""Private records as token ids, and the units they belong to: what training reads and nothing else.

Every record becomes tokens once, by a fixed public function of that record alone.

Letters: M records, U units, N private image tokens, L caption positions, B units of a batch, k records of
one unit in a step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.errors import DataError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.randomness import stream
from dpwavelet.text import PAD, Vocabulary
from dpwavelet.tokenizer import SpectralTokenizer
from dpwavelet.transformer import ImageTransformer

CAPTION_CHOICES = 5  # captions of one record that are kept; a step uses one of them


@dataclass(frozen=True)
class PrivateTokens:
    """Private records as token ids: what training reads and nothing else. Lives in `private/` only."""

    image: NDArray[np.int16]  # [M, N], scales one after the other
    captions: NDArray[np.int16]  # [M, CAPTION_CHOICES, L], padded; a record's captions repeat to fill the row
    scales: tuple[int, ...]  # tokens of each private scale
    owners: NDArray[np.int64] | None = None  # [M], whose record each is, 0 to U - 1; nothing if M units

    def __len__(self) -> int:
        return len(self.image)

    @property
    def units(self) -> int:
        """U: how many records, or people, there truly are."""
        return len(self) if self.owners is None else len(self._of_owner)

    def save(self, path: Path) -> None:
        """Write to a safetensors file below `private/`."""
        write_tensors(path, self.to_tensors())

    @classmethod
    def load(cls, path: Path) -> "PrivateTokens":
        """Read what `save` wrote."""
        return cls.from_tensors(read_tensors(path))

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything in it, by name."""
        arrays = {"image": self.image, "captions": self.captions, "scales": np.array(self.scales)}
        owners = {} if self.owners is None else {"owners": self.owners}
        return {name: torch.from_numpy(array) for name, array in (arrays | owners).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "PrivateTokens":
        """The records that `to_tensors` gave."""
        owners = tensors["owners"].numpy() if "owners" in tensors else None
        scales = tuple(tensors["scales"].tolist())
        return cls(tensors["image"].numpy(), tensors["captions"].numpy(), scales, owners)

    def owned_by(self, names: Sequence[str]) -> "PrivateTokens":
        """The same records with the person of each; equal names are one person."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return replace(self, owners=np.array([numbers[name] for name in names]))

    def redrawn(self, transformer: ImageTransformer) -> "PrivateTokens":
        """As many made-up records, in pairs if these have owners: nothing in them comes from a record."""
        count, length = len(self), transformer.config.caption_length
        drawn = drawn_tokens(transformer, self.scales, count, length)
        return drawn if self.owners is None else replace(drawn, owners=np.arange(count) // 2)

    def members(self, units: NDArray[np.int64], coins: NDArray[np.float64], at_most: int) -> "Members":
        """The records that stand for each unit in a step: of one person those with the smallest coins.

        `coins` [M] come from the secret source, one a record. Guarantee: the row of a unit depends on its
        own records and their coins alone.
        """
        if self.owners is None:
            return Members(units[:, None], torch.ones(len(units), 1))
        rows = np.empty((len(units), at_most), np.int64)
        shares = torch.zeros(len(units), at_most)
        for row, share, unit in zip(rows, shares, units, strict=True):
            own = self._of_owner[unit]
            chosen = own[np.argsort(coins[own], kind="stable")[:at_most]]
            row[:] = chosen[0]
            row[: len(chosen)] = chosen
            share[: len(chosen)] = 1 / len(chosen)
        return Members(rows, shares)

    def batch(self, records: NDArray[np.int64], choice: NDArray[np.int64]) -> tuple[Tensor, list[Tensor]]:
        """Captions [B, L] (one choice a record) and token ids [B, N] of each private scale."""
        captions = torch.from_numpy(self.captions[records, choice].astype(np.int64))
        tokens = torch.from_numpy(self.image[records].astype(np.int64))
        return captions, list(torch.split(tokens, list(self.scales), dim=1))

    @cached_property
    def _of_owner(self) -> list[NDArray[np.int64]]:
        """The records of each unit."""
        assert self.owners is not None
        order = np.argsort(self.owners, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.owners))[:-1])


@dataclass(frozen=True)
class Members:
    """Records [B, k] of each unit, and their shares [B, k] in its loss; each row of shares adds up to one."""

    records: NDArray[np.int64]
    shares: Tensor


def tokenize(
    images: PrivateImages,
    tokenizer: SpectralTokenizer,
    vocabulary: Vocabulary,
    *,
    scales: int,
    caption_length: int,
    told: Callable[[int], None] | None = None,
) -> PrivateTokens:
    """Encode every record, a few at a time; each row depends on its own record alone, its width on none."""
    rows, captions = [], []
    for indices, pixels in images.batches(128):
        ids = tokenizer.encode(from_bytes(pixels).to(tokenizer.spread), scales)
        rows.append(torch.cat(ids, 1).to(torch.int16).numpy(force=True))
        for index in indices:
            texts = images.captions(index) or ("",)
            captions.append(
                [vocabulary.ids(texts[k % len(texts)], caption_length) for k in range(CAPTION_CHOICES)]
            )
        if told is not None:
            told(len(indices))
    if not rows:
        raise DataError("there are no records to train on.")
    table = np.full((len(captions), CAPTION_CHOICES, caption_length), PAD, dtype=np.int16)
    for record, choices in enumerate(captions):
        for choice, caption in enumerate(choices):
            table[record, choice, : len(caption)] = caption
    return PrivateTokens(np.concatenate(rows), table, tokenizer.config.tokens[:scales])


def drawn_tokens(
    transformer: ImageTransformer, scales: tuple[int, ...], count: int, length: int
) -> PrivateTokens:
    """Made-up records with captions of this length, drawn by chance and from no image."""
    generator = stream(0, "drawn records")
    tokens = generator.integers(transformer.config.codes, size=(count, sum(scales)), dtype=np.int16)
    captions = generator.integers(2, transformer.config.words, size=(count, 1, length), dtype=np.int16)
    captions[:, :, 0] = 1
    return PrivateTokens(tokens, np.repeat(captions, CAPTION_CHOICES, 1), scales)
