"""Captions to word ids and back, over a small public vocabulary.

A word that the vocabulary holds is one id. Any other word is spelled in letters: first letter, then letters
that join on to it, at most `SPELLED` of them, so an unseen word still says something and never fails. What
the ids mean is fixed by public text alone; private captions are only ever looked up, never counted.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.errors import ConfigError, ModelError

PAD, START = 0, 1
SPELLED = 8
_SPECIAL = ("<pad>", "<start>")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_TOKEN = re.compile(r"[a-z]+|[0-9]|[.,]")


@cache
def common_words() -> tuple[str, ...]:
    """Plain English words that people use to describe pictures; part of the package."""
    text = resources.files("dpwavelet").joinpath("words.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def split(caption: str) -> list[str]:
    """Lower-case words, single digits, commas and full stops; everything else separates."""
    return _TOKEN.findall(caption.lower().replace("'s ", " "))


class Vocabulary:
    """An ordered list of words; ids are positions in it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        if self.words[:2] != _SPECIAL:
            raise ModelError("the vocabulary must begin with <pad> and <start>; the model folder is damaged.")
        self._ids = {word: index for index, word in enumerate(self.words)}
        missing = [piece for piece in (*_pieces(), ",", ".") if piece not in self._ids]
        if missing:
            raise ModelError(f"the vocabulary lacks the signs {missing[:5]}; the model folder is damaged.")
        if len(self._ids) < len(self.words):
            raise ModelError("the vocabulary holds a word twice; the model folder is damaged.")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, captions: Iterable[str] = ()) -> "Vocabulary":
        """Special marks, letters, common words, then every word of these public captions."""
        words = dict.fromkeys((*_SPECIAL, *_pieces(), *common_words()))
        for caption in captions:
            words.update(dict.fromkeys(split(caption)))
        return cls(list(words))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.json`."""
        words = read_json(path)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ModelError(f"{path} must be a JSON list of words; the model folder is damaged.")
        try:
            return cls(words)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        write_json(path, list(self.words))

    def ids(self, caption: str, length: int) -> list[int]:
        """START and then the ids of a caption, cut off at `length` ids in all."""
        found = [START]
        for word in split(caption):
            found.extend([self._ids[word]] if word in self._ids else self._spell(word))
        return found[:length]

    def encode(self, captions: Sequence[str], length: int) -> Tensor:
        """Ids [B, L] padded with PAD; L is the longest caption, `length` at most."""
        if length < 1:
            raise ConfigError(f"captions need at least one position, got {length}.")
        rows = [self.ids(caption, length) for caption in captions]
        width = max(map(len, rows), default=1)
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(
            -1, width
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The caption that ids spell; marks are left out."""
        text = ""
        for index in ids:
            word = self.words[index]
            if word in _SPECIAL:
                continue
            if word.startswith("-") and len(word) == 2:
                text += " " + word[1:]
            elif word.startswith("+"):
                text += word[1:]
            elif word in ".,":
                text += word
            else:
                text += " " + word
        return text.strip()

    def _spell(self, word: str) -> list[int]:
        letters = word[:SPELLED]
        return [self._ids["-" + letters[0]], *(self._ids["+" + letter] for letter in letters[1:])]


def _pieces() -> list[str]:
    """Letters that begin a spelled word (-a) and that go on with one (+a)."""
    return [sign + character for sign in "-+" for character in _CHARACTERS]
