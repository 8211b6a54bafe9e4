"""Private records as token ids, and the units they belong to: what training reads and nothing else.

Every record becomes tokens once, by a fixed public function of that record alone.

Letters: M records, V variants of an image, U units, N private image tokens, L caption positions, B units of a
batch, k records of one unit in a step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import digest_of, read_tensors, write_tensors
from dpwavelet.errors import DataError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.images.variants import Augment, is_mirrored, mirrored_caption, mirrors, numbers, variant
from dpwavelet.randomness import stream
from dpwavelet.text import PAD, START

AT_ONCE = 64  # pictures, always: how many there are must not change how one of them is rounded
CAPTION_CHOICES = 5  # captions of one record that are kept; a step uses one of them


class TokenCounts(Protocol):
    """The part of a tokenizer's config that is read here."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        ...


class ImageTokenizer(Protocol):
    """Pictures to tokens: a fixed public function of each picture alone."""

    @property
    def config(self) -> TokenCounts:
        """Its shape."""
        ...

    @property
    def spread(self) -> Tensor:
        """A tensor that lies where the pictures must."""
        ...

    def encode(self, image: Tensor, scales: int | None = None) -> list[Tensor]:
        """Token ids [B, N] of the first `scales` scales of images [B, 3, S, S] in [-1, 1]."""
        ...


class Words(Protocol):
    """Captions to ids: START, then those of a caption alone."""

    def ids(self, caption: str, length: int) -> list[int]:
        """At most `length` ids."""
        ...


class ModelShape(Protocol):
    """The part of a model's config that is read here."""

    @property
    def words(self) -> int:
        """V: ids of words, with PAD and START."""
        ...

    @property
    def codes(self) -> int:
        """K: ids of image tokens."""
        ...

    @property
    def caption_length(self) -> int:
        """L: positions of a caption."""
        ...


class Shaped(Protocol):
    """A model, for made-up records that fit it."""

    @property
    def config(self) -> ModelShape:
        """Its shape."""
        ...


@dataclass(frozen=True)
class PrivateTokens:
    """Private records as token ids: what training reads and nothing else. Lives in `private/` only."""

    image: NDArray[np.int16]  # [M, N], scales one after the other
    captions: NDArray[np.int16]  # [M, CAPTION_CHOICES, L], padded; a record's captions repeat to fill the row
    scales: tuple[int, ...]  # tokens of each private scale
    owners: NDArray[np.int64] | None = None  # [M], whose record each is, 0 to U - 1; nothing if M units
    variants: NDArray[np.int16] | None = None  # [M, V - 1, N], of each image but the first; nothing if V is 1
    mirrored: NDArray[np.int16] | None = None  # [M, CAPTION_CHOICES, L], of mirrored variants, if there are

    def __len__(self) -> int:
        return len(self.image)

    @property
    def units(self) -> int:
        """U: how many records, or people, there truly are."""
        return len(self) if self.owners is None else len(self._of_owner)

    @property
    def variant_count(self) -> int:
        """V: how many variants of an image there are."""
        return 1 if self.variants is None else 1 + self.variants.shape[1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in it. Private: whoever has a guess could test it."""
        return digest_of(self.to_tensors())

    @property
    def tables(self) -> dict[str, NDArray[np.int16]]:
        """Everything that is kept of records as ids, by name, each [M, ...]."""
        tables = {"image": self.image, "captions": self.captions}
        more = {"variants": self.variants, "mirrored": self.mirrored}
        return tables | {name: table for name, table in more.items() if table is not None}

    def save(self, path: Path) -> None:
        """Write to a safetensors file below `private/`."""
        write_tensors(path, self.to_tensors())

    @classmethod
    def load(cls, path: Path) -> "PrivateTokens":
        """Read what `save` wrote."""
        return cls.from_tensors(read_tensors(path))

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything in it, by name."""
        arrays: dict[str, NDArray[Any]] = {**self.tables, "scales": np.array(self.scales)}
        if self.owners is not None:
            arrays["owners"] = self.owners
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "PrivateTokens":
        """The records that `to_tensors` gave."""
        scales = tuple(tensors["scales"].tolist())
        optional = {
            name: tensors[name].numpy() for name in ("owners", "variants", "mirrored") if name in tensors
        }
        return cls(tensors["image"].numpy(), tensors["captions"].numpy(), scales, **optional)

    def owned_by(self, names: Sequence[str]) -> "PrivateTokens":
        """The same records with the person of each; equal names are one person."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return replace(self, owners=np.array([numbers[name] for name in names]))

    def redrawn(self, transformer: Shaped) -> "PrivateTokens":
        """As many made-up records, in pairs if these have owners: nothing in them comes from a record."""
        count, length = len(self), self.captions.shape[2]
        mirrored = self.mirrored is not None
        drawn = drawn_tokens(transformer, self.scales, count, length, self.variant_count, mirrored=mirrored)
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

    def seen(
        self, records: NDArray[np.int64], choice: NDArray[np.int64], number: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Captions [..., L] and token ids [..., N] of records [...], each with a caption and a variant."""
        image, captions = self.image[records], self.captions[records, choice]
        if self.variants is not None:
            others, first = self.variants[records, np.maximum(number - 1, 0)], number == 0
            image = np.where(first[..., None], image, others)
        if self.mirrored is not None:
            exchanged = np.array([is_mirrored(n) for n in range(self.variant_count)])[number]
            captions = np.where(exchanged[..., None], self.mirrored[records, choice], captions)
        return torch.from_numpy(captions.astype(np.int64)), torch.from_numpy(image.astype(np.int64))

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
    tokenizer: ImageTokenizer,
    vocabulary: Words,
    *,
    scales: int,
    caption_length: int,
    augment: Augment = "none",
    told: Callable[[int], None] | None = None,
) -> PrivateTokens:
    """Encode every record, a few at a time; each row depends on its own record alone, its width on none.

    `augment` says which variants of every image are encoded beside it; they are the same for every record.
    """
    shape = len(images), sum(tokenizer.config.tokens[:scales])
    # Made first: small arrays that stay between large ones that go keep the heap from using their room again.
    rows = {number: np.empty(shape, np.int16) for number in numbers(augment)}
    texts: list[tuple[str, ...]] = []
    for indices, pixels in images.batches(AT_ONCE):
        pictures = from_bytes(pixels[torch.arange(AT_ONCE) % len(pixels)]).to(tokenizer.spread)
        for number, own in rows.items():
            ids = torch.cat(tokenizer.encode(variant(pictures, number), scales), 1)[: len(indices)]
            own[indices] = ids.numpy(force=True)
        texts.extend(images.captions(index) or ("",) for index in indices)
        if told is not None:
            told(len(indices))
    if not texts:
        raise DataError("there are no records to train on.")
    image, *others = rows.values()
    captions = _caption_table(texts, vocabulary, caption_length)
    tokens = PrivateTokens(image, captions, tokenizer.config.tokens[:scales])
    if others:
        tokens = replace(tokens, variants=np.stack(others, 1))
    if not mirrors(augment):
        return tokens
    exchanged = [tuple(map(mirrored_caption, each)) for each in texts]
    mirrored = _caption_table(exchanged, vocabulary, caption_length)
    return replace(tokens, mirrored=mirrored)


def _caption_table(
    texts: Sequence[tuple[str, ...]], vocabulary: Words, caption_length: int
) -> NDArray[np.int16]:
    """Ids [M, CAPTION_CHOICES, L] of the captions of each record, which repeat to fill the row."""
    table = np.full((len(texts), CAPTION_CHOICES, caption_length), PAD, dtype=np.int16)
    for row, own in zip(table, texts, strict=True):
        for choice in range(CAPTION_CHOICES):
            caption = vocabulary.ids(own[choice % len(own)], caption_length)
            row[choice, : len(caption)] = caption
    return table


def drawn_tokens(
    transformer: Shaped,
    scales: tuple[int, ...],
    count: int,
    length: int,
    variants: int = 1,
    *,
    mirrored: bool = False,
) -> PrivateTokens:
    """Made-up records with captions of this length, drawn by chance and from no image."""
    generator = stream(0, "drawn records")
    tokens = generator.integers(transformer.config.codes, size=(count, sum(scales)), dtype=np.int16)
    captions = generator.integers(2, transformer.config.words, size=(count, 1, length), dtype=np.int16)
    captions[:, :, 0] = START
    drawn = PrivateTokens(tokens, np.repeat(captions, CAPTION_CHOICES, 1), scales)
    if variants == 1:
        return drawn
    shape = (count, variants - 1, sum(scales))
    others = generator.integers(transformer.config.codes, size=shape, dtype=np.int16)
    return replace(drawn, variants=others, mirrored=drawn.captions if mirrored else None)
