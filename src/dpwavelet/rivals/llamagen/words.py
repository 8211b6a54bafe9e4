"""Captions to ids for each kind of prefix: our vocabulary, names of classes, or pieces of T5.

All of them begin with START, as `records` wants, and say nothing by START alone.

Letters: B captions, L ids of a caption, F width of features.
"""

import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from dpwavelet.checkpoint import digest_of
from dpwavelet.errors import ConfigError, DataError, ModelError
from dpwavelet.records import Words
from dpwavelet.rivals.llamagen.prefixes import to_the_end
from dpwavelet.text import PAD, START

MADE = "a photo of a "  # how a caption begins that was made from a label


class ClassNames:
    """A public list of classes; a caption is the name of one of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._numbers = {_plain(name): number for number, name in enumerate(self.names)}
        if not self.names or len(self._numbers) < len(self.names):
            raise ConfigError(f"{len(self.names)} classes need as many different names.")

    def ids(self, caption: str, length: int) -> list[int]:
        """START and the class, which is 2 for the first; START alone for an empty caption."""
        name = _plain(caption.removeprefix(MADE))
        if not name:
            return [START]
        if name not in self._numbers:
            raise DataError(
                f"no class is called {caption!r}; a class-conditional model draws its {len(self.names)} "
                "classes only, by their names."
            )
        return [START, 2 + self._numbers[name]][:length]


class T5:
    """A frozen T5 encoder and its pieces of words, from a folder of the library `transformers`.

    The published text-to-image networks were trained with `flan-t5-xl`. Of their cleaning of captions only
    lower case is done here.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Read the encoder from a folder on disk; nothing is downloaded."""
        try:
            package = importlib.import_module("transformers")
        except ImportError as error:
            raise ConfigError(
                "text features need the package transformers: pip install 'dpwavelet[transformers]' "
                f"({error})."
            ) from error
        try:
            tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            encoder = package.T5EncoderModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder} holds no T5 encoder that transformers can read: {error}.") from error
        return cls(tokenizer, encoder.eval().requires_grad_(False))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a copy of a model reads with the same encoder."""
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights, and of how they are used but not of where they lie."""
        shape = sorted(
            (k, repr(v)) for k, v in self.encoder.config.to_dict().items() if not k.startswith("_")
        )
        return digest_of(self.encoder.state_dict(), repr(shape))

    @property
    def pieces(self) -> int:
        """How many ids it knows."""
        return int(self.encoder.config.vocab_size)

    def ids(self, caption: str, length: int) -> list[int]:
        """START, then the pieces of a caption and the mark of their end; START alone for an empty one."""
        text = caption.strip().lower()
        pieces = self.tokenizer(text, max_length=length - 1, truncation=True).input_ids if text else []
        return [START, *pieces]

    @torch.no_grad()
    def __call__(self, captions: Tensor) -> Tensor:
        """Features [B, L - 1, F] of captions [B, L]; zeros before those of what was said."""
        place = next(self.encoder.parameters()).device
        ids = captions[:, 1:].to(place)
        if not ids.shape[1]:
            return torch.zeros(len(ids), 0, int(self.encoder.config.d_model), device=captions.device)
        seen = ids != PAD
        found = self.encoder(input_ids=ids, attention_mask=seen.long()).last_hidden_state
        # A row without pieces has nothing to attend to, and whatever comes of that is left out.
        rows = torch.where(seen[..., None], found, 0.0).float()
        _, empty = to_the_end(ids)
        order = (torch.arange(ids.shape[1], device=place) - empty[:, None]) % ids.shape[1]
        return rows.gather(1, order[..., None].expand_as(rows)).to(captions.device)


def said(words: Words, captions: Sequence[str], length: int) -> Tensor:
    """Ids [B, L] of captions, as wide as they may be: what one is must not change the width of another."""
    rows = [words.ids(caption, length) for caption in captions]
    table = torch.full((len(rows), length), PAD)
    for row, own in zip(table, rows, strict=True):
        row[: len(own)] = torch.tensor(own)
    return table


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
