"""Captions to ids and back, over a public vocabulary of words and pieces of words.

A word that the vocabulary holds is one id. An inflected one is its stem and an ending, so that plurals share
an id with their singular. Any other word is cut into the fewest pieces, `SPELLED` of them at most: a start
(-cardi or a whole word), then pieces that join on to it (+omegaly), single letters at worst, so that no word
fails and none fills a caption. What the ids mean is fixed by public text alone; private captions are only
looked up, one at a time, never counted.

The vocabulary is a list of texts, told apart by their first sign:

    word    -a, -cardi    +s, +omegaly    ~ing                      <0> ... <f>
    whole   a start       joins on        joins on to a bent stem   letters of other scripts, in hexadecimal

Lists without <0> ... <f> are of an older kind, with single letters as their only pieces. They still load.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.errors import ConfigError, ModelError

PAD, START = 0, 1  # word ids: nothing here; begin a caption (and end it, as a target)
MOST_IDS = 1 << 15  # words, or codes: records keep them in 16 bits
SPELLED = 8  # a quarter of a caption; English words rarely need more than four
_READ = 64  # letters of a word that are looked at: more than SPELLED pieces of English hold
_SPECIAL = ("<pad>", "<start>")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_HEX = tuple(f"<{digit}>" for digit in "0123456789abcdef")
_OLD_TOKEN = re.compile(r"[a-z]+|[0-9]|[.,]")
_TOKEN = re.compile(r"[a-z]+|[0-9]|[.,]|[^\W_a-z0-9]+")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_LATIN = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_ENDINGS = ("s", "es", "ed", "er", "ly", "y", "ing", "ers", "est")  # shortest first: the longest stem wins


@cache
def common_words() -> tuple[str, ...]:
    """Plain English words that people use to describe pictures; part of the package."""
    return tuple(_lines("words.txt"))


@cache
def pieces() -> tuple[str, ...]:
    """Starts, endings and stems of words that `common_words` lacks; part of the package."""
    return tuple(_lines("pieces.txt"))


def split(caption: str) -> list[str]:
    """Lower-case words without accents, single digits, commas and full stops; everything else separates."""
    text = _POSSESSIVE.sub("", caption.casefold())
    if not text.isascii():
        folded = unicodedata.normalize("NFKD", text.translate(_LATIN))
        plain = "".join(sign for sign in folded if not unicodedata.combining(sign))
        text = unicodedata.normalize("NFC", plain).casefold()
    return _TOKEN.findall(text)


class Vocabulary:
    """An ordered list of words and pieces; ids are positions in it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        if self.words[:2] != _SPECIAL:
            raise ModelError("the vocabulary must begin with <pad> and <start>; the model folder is damaged.")
        self._ids = {word: index for index, word in enumerate(self.words)}
        self._old = _HEX[0] not in self._ids
        needed = (*_single_letters(), *_DIGITS, ",", ".", *(() if self._old else _HEX))
        if missing := [piece for piece in needed if piece not in self._ids]:
            raise ModelError(f"the vocabulary lacks the signs {missing[:5]}; the model folder is damaged.")
        if len(self._ids) < len(self.words):
            raise ModelError("the vocabulary holds a word twice; the model folder is damaged.")
        self._longest = max(map(len, self.words))

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, captions: Iterable[str] = ()) -> "Vocabulary":
        """Special marks, letters, pieces, common words, then the English words of these public captions.

        If these are too many the most frequent are kept; the others are spelled, like any unknown word.
        """
        words = dict.fromkeys((*_SPECIAL, *_HEX, *_single_letters(), *pieces(), *common_words()))
        counts = Counter(word for caption in captions for word in split(caption) if word.isascii())
        new = [word for word in counts if word not in words]
        kept = set(sorted(new, key=lambda word: (-counts[word], word))[: MOST_IDS - len(words)])
        return cls([*words, *(word for word in new if word in kept)])

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
        for word in _old_split(caption) if self._old else split(caption):
            found.extend([self._ids[word]] if word in self._ids else self._spell(word))
        return found[:length]

    def holds(self, word: str) -> bool:
        """Whether a word of `split` is read whole, or as a stem and an ending: public text knows it."""
        return word in self._ids or (not self._old and bool(self._inflected(word)))

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
        text, left = "", [self.words[index] for index in ids if self.words[index] not in _SPECIAL]
        while left:
            if code := list(takewhile(_HEX.__contains__, left)):
                text += " " + _from_hex(code)
                left = left[len(code) :]
                continue
            word = left.pop(0)
            if word[0] == "+":
                text += word[1:]
            elif word[0] == "~":
                text = _bend(text, word[1:])
            elif word in ".,":
                text += word
            else:
                text += " " + word.removeprefix("-")
        return text.strip()

    def _spell(self, word: str) -> list[int]:
        if self._old:
            parts = ["-" + word[0], *("+" + letter for letter in word[1:])]
        elif not word.isascii():
            # Sixteen rows instead of 256 for bytes: no public caption teaches either, and four digits name
            # any letter but the rarest.
            parts = [f"<{digit}>" for digit in word.encode("utf-16-be").hex()]
        else:
            parts = self._inflected(word) or self._fewest(word[:_READ])
        return [self._ids[part] for part in parts[:SPELLED]]

    def _inflected(self, word: str) -> list[str]:
        """A known word of three letters or more and one ending, such as hat +s or bike ~ing; else nothing."""
        for ending in _ENDINGS:
            stem = word.removesuffix(ending)
            if stem != word and len(stem) > 2 and {stem, "+" + ending} <= self._ids.keys():
                return [stem, "+" + ending]
        for piece in ("~ied", "~ier", "~ies", "~iest", "~ing", "~ed", "~er", "~ers", "~est", "~y"):
            base = word.removesuffix(piece[1:])
            for stem in (base + "e", base + "y", base[:-1]):
                if len(stem) > 2 and {stem, piece} <= self._ids.keys() and _bend(stem, piece[1:]) == word:
                    return [stem, piece]
        return []

    def _fewest(self, word: str) -> list[str]:
        """The fewest pieces that make a word; of several ways, the one with the longest first pieces."""
        best: list[tuple[int, list[int], list[str]]] = [(0, [], [])]  # of what follows each place, backwards
        for start in range(len(word) - 1, -1, -1):
            ways = []
            for end in range(start + 1, min(len(word), start + self._longest) + 1):
                for piece in self._known(word[start:end], first=start == 0):
                    count, lengths, rest = best[len(word) - end]
                    ways.append((count + 1, [start - end, *lengths], [piece, *rest]))
            best.append(min(ways))
        return best[-1][2]

    def _known(self, text: str, first: bool) -> Iterator[str]:
        """Entries that may stand for a part of a word; a short word seldom means itself in a longer."""
        if first and len(text) > 3 and text in self._ids:
            yield text
        piece = ("-" if first else "+") + text
        if piece in self._ids:
            yield piece


def _bend(stem: str, ending: str) -> str:
    """Join an ending as English does: bike ~ing is biking, lady ~ies is ladies, jog ~er is jogger."""
    if stem.endswith("e") or (stem.endswith("y") and ending.startswith("i")):
        return stem[:-1] + ending
    return stem + stem[-1:] + ending


def _from_hex(code: list[str]) -> str:
    """The letters of <0>, <4>, <3>, <0> and so on; a letter that was cut off is lost."""
    digits = "".join(piece[1] for piece in code)
    return bytes.fromhex(digits[: len(digits) // 4 * 4]).decode("utf-16-be", "ignore")


def _old_split(caption: str) -> list[str]:
    return _OLD_TOKEN.findall(caption.lower().replace("'s ", " "))


def _single_letters() -> list[str]:
    """Letters that begin a spelled word (-a) and that go on with one (+a)."""
    return [sign + letter for sign in "-+" for letter in _LETTERS]


def _lines(name: str) -> list[str]:
    return resources.files("dpwavelet").joinpath(name).read_text(encoding="utf-8").split()
