"""What came from the private records by any way but the accountant, searched for in a release before sealing.

Two kinds of content are treated apart (docs/design/0005). What the private model drew is differentially
private already. Holding it back because it resembles a record would undo that: what is *not* held back
would then tell what the records are not. So drawn pictures are known by their digests, which say nothing
about the records, and how near they come is told to the owner alone, in
`private/`. Everything else has no business to come from a record, and the smallest piece that does ends the
sealing: a picture that nobody drew, a file name, a caption, a secret.
"""

import base64
import binascii
import hashlib
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from dpwavelet.errors import DataError
from dpwavelet.images.files import decode
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.prints import Prints, alike
from dpwavelet.privacy.refusals import Refusal
from dpwavelet.privacy.release_files import has_a_place
from dpwavelet.text import split

TELLING_WORDS = 5  # in a row, which so many records have that they could be anybody's:
COMMON = 5
_ADVICE = "Nothing was sealed, and there is no release."
_DATA_URI = re.compile(r"data:[\w/+.-]*;base64,([A-Za-z0-9+/=\s]+)")
_WORD = re.compile(r"[^\W_]+")
_NOT_DRAWN = "a picture that the model did not draw"
_KEY = 5  # words by which a phrase is looked up

Words = tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Watch:
    """The private records, as far as is needed to find them again. Its repr shows none.

    Guarantee: `check_captions` and `check_release` decide by what the private model did not make, so a
    release that passes them has the distribution that was accounted for.
    """

    images: PrivateImages
    prints: Prints

    def check_captions(self, captions: Sequence[str]) -> None:
        """Refuse captions to draw with that come from the records; asked before anything is spent."""
        for caption in captions:
            for phrases in (self._captions, self._names):
                for _, what in phrases.within(caption):
                    raise Refusal(
                        "leak", f"the caption to draw with, {caption!r}, holds {what}",
                        "Write captions of your own.",
                    )  # fmt: skip

    def rare_words(self, captions: Sequence[str], known: Callable[[str], bool]) -> list[str]:
        """Words of captions to draw with that may name somebody, in the order of the alphabet.

        Public text does not know them (`known`), and some records have them in their captions, but fewer
        than could be anybody.
        """
        words = {word for caption in captions for word in split(caption)}
        strange = {word for word in words if word.isalpha() and not known(word)}
        seen = Counter[str]()
        for record in self.images.folder.records if strange else ():
            seen.update(strange & {word for caption in record.captions for word in split(caption)})
        return sorted(word for word, count in seen.items() if count < COMMON)

    def check_release(
        self,
        folder: Path,
        certificate: Mapping[str, Any],
        *,
        drawn: Collection[bytes],
        captions: Sequence[str],
        secrets: Mapping[str, str],
    ) -> None:
        """Refuse a folder, or its certificate, with anything of the records that was not drawn.

        `drawn` are the SHA-256 of the pictures as the generator made them, `captions` those they were drawn
        for, given and checked before. `secrets` are texts by their names.
        """
        released = "\n".join(captions)
        known = {words for phrases in (self._names, self._captions) for words, _ in phrases.within(released)}
        for text in _strings(certificate):
            self._check_text("certificate.json", text, known, secrets)
        for path in sorted(file for file in folder.rglob("*") if file.is_file()):
            place, content = path.relative_to(folder).as_posix(), path.read_bytes()
            if not has_a_place(place):
                _refuse(place, self._whose(content) or "a file of a kind that no release has")
            if hashlib.sha256(content).digest() in drawn:
                continue
            self._check_file(place, content, drawn, secrets)
            for text in _texts(place, content):
                self._check_text(place, text, known, secrets)

    def check_drawn(self, pictures: Tensor) -> None:
        """Refuse pictures, bytes [B, 3, S, S], of which one is a record, pixel for pixel.

        Only for a rehearsal, whose pictures nobody will see: there it shows a defect before anything is
        spent, and decides nothing about the pictures of the real run.
        """
        for index, pixels in enumerate(Prints.of(pictures).pixels):
            if pixels in self._pixels:
                _refuse(
                    f"picture {index} of the rehearsal", f"the pixels of {self._name(self._pixels[pixels])}"
                )

    def compare(self, pictures: Tensor) -> dict[str, Any]:
        """How near drawn pictures, bytes [B, 3, S, S], come to records: for the owner's eyes only."""
        near = []
        for start in range(0, len(pictures), 64):
            drawn = Prints.of(pictures[start : start + 64])
            for index, record in self._nearest(drawn).items():
                same = drawn.pixels[index] in self._pixels
                near.append({"picture": start + index, "record": self._name(record), "same_pixels": same})
        return {"pictures": len(pictures), "near": near}

    def _check_file(
        self, place: str, content: bytes, drawn: Collection[bytes], secrets: Mapping[str, str]
    ) -> None:
        """Refuse a file that is a picture, shows one, or holds a secret, unless the model drew it."""
        if place.endswith(".png") or self._shown(content) is not None or self._whose(content):
            _refuse(place, self._whose(content) or _NOT_DRAWN)
        for inner in _embedded(place, content):
            if hashlib.sha256(inner).digest() not in drawn:
                _refuse(place, self._whose(inner) or _NOT_DRAWN)
        for name, secret in secrets.items():
            if secret.encode() in content:
                _refuse(place, name)

    def _check_text(
        self, place: str, text: str, known: Collection[Words], secrets: Mapping[str, str]
    ) -> None:
        """Refuse a secret, a file name of a record, or a telling caption that is none of the `known`."""
        for name, secret in secrets.items():
            if secret in text:
                _refuse(place, name)
        for phrases in (self._names, self._captions):
            for words, what in phrases.within(text):
                if words not in known:
                    _refuse(place, what)

    def _whose(self, content: bytes) -> str:
        """The record that a file or picture comes from, as far as can be told, in words."""
        if (record := self._files.get(hashlib.sha256(content).digest())) is not None:
            return f"the file of {self._name(record)}"
        pixels = self._shown(content)
        if pixels is None:
            return ""
        shown = Prints.of(pixels[None])
        if (record := self._pixels.get(shown.pixels[0])) is not None:
            return f"the pixels of {self._name(record)}"
        if (record := self._nearest(shown).get(0)) is not None:
            return f"nearly the pixels of {self._name(record)}"
        return ""

    def _shown(self, content: bytes) -> Tensor | None:
        """The picture that a file shows, at the size of the records."""
        try:
            return decode(content, self.images.size, "picture")
        except DataError:
            return None

    def _nearest(self, drawn: Prints) -> dict[int, int]:
        """A record that each picture is alike to, for those that have one."""
        found: dict[int, int] = {}
        for start in range(0, len(self.prints), 8192):
            part = range(start, min(start + 8192, len(self.prints)))
            pictures, records = alike(drawn, self.prints.take(part)).nonzero()
            for picture, record in zip(pictures.tolist(), records.tolist(), strict=True):
                found.setdefault(picture, start + record)
        return found

    def _name(self, record: int) -> str:
        return f"the record {self.images.folder.records[record].name}"

    @cached_property
    def _files(self) -> dict[bytes, int]:
        return {digest: record for record, digest in enumerate(self.prints.files)}

    @cached_property
    def _pixels(self) -> dict[bytes, int]:
        """Records by their pixels; flat ones, which anybody might draw, tell nothing."""
        contrast = self.prints.sketches.contrast
        return {digest: record for record, digest in enumerate(self.prints.pixels) if contrast[record]}

    @cached_property
    def _names(self) -> "Phrases":
        """File names of the records, but those that samples have too, and telling stems."""
        phrases = Phrases()
        for record in self.images.folder.records:
            name = PurePosixPath(record.name)
            if not has_a_place(f"samples/{name.name}"):
                phrases.add(name.name, f"the file name {record.name}", verbatim=True)
            if len(name.stem) >= 8 and re.search(r"\d", name.stem) and re.search(r"[^\W\d_]", name.stem):
                phrases.add(name.stem, f"the file name {record.name}", verbatim=True)
        return phrases

    @cached_property
    def _captions(self) -> "Phrases":
        """Captions that tell whose they are: with a run of words that few records have.

        Whoever writes by the same grammar as the records is bound to hit on some of their captions; those are
        made of runs that many have, and tell nothing.
        """
        records = self.images.folder.records
        runs = [{run for caption in record.captions for run in _runs(caption)} for record in records]
        seen, count = np.unique(np.array([run for own in runs for run in own], np.int64), return_counts=True)
        rare = set(seen[count < COMMON].tolist())
        phrases = Phrases()
        for record in records:
            for caption in record.captions:
                if not rare.isdisjoint(_runs(caption)):
                    phrases.add(caption, f"the caption of the record {record.name}")
        return phrases


class Phrases:
    """Phrases that are looked for in texts, whatever their case and punctuation; each with what it is."""

    def __init__(self) -> None:
        self._table = defaultdict[Words, list[tuple[Words, str, str]]](list)
        self._lengths = set[int]()

    def add(self, phrase: str, what: str, *, verbatim: bool = False) -> None:
        """Look for `phrase` too; with `verbatim`, punctuation must agree."""
        words = _words(phrase)
        if words:
            self._table[words[:_KEY]].append((words, phrase.lower() if verbatim else "", what))
            self._lengths.add(min(len(words), _KEY))

    def within(self, text: str) -> Iterator[tuple[Words, str]]:
        """Each phrase that `text` holds, and what it is."""
        words, lower = _words(text), text.lower()
        for start in range(len(words)):
            for length in (n for n in self._lengths if start + n <= len(words)):
                for phrase, verbatim, what in self._table.get(words[start : start + length], ()):
                    if words[start : start + len(phrase)] != phrase:
                        continue
                    if not verbatim or re.search(rf"(?<!\w){re.escape(verbatim)}(?!\w)", lower):
                        yield phrase, what


def _words(text: str) -> Words:
    return tuple(_WORD.findall(text.lower()))


def _runs(caption: str) -> list[int]:
    """Every run of TELLING_WORDS words in a caption, as a number."""
    words = _words(caption)
    return [hash(words[i : i + TELLING_WORDS]) for i in range(len(words) - TELLING_WORDS + 1)]


def _texts(place: str, content: bytes) -> Iterator[str]:
    """The texts in a file as a reader would see them, pictures left out."""
    text = content.decode("utf-8", "replace")
    if place.endswith(".safetensors"):
        yield content[8 : 8 + int.from_bytes(content[:8], "little")].decode("utf-8", "replace")
    elif place.endswith((".json", ".jsonl")):
        lines = text.split("\n") if place.endswith(".jsonl") else [text]
        for line in lines:
            yield from _strings(json.loads(line)) if line.strip() else ()
    elif place.endswith(".html"):
        yield html.unescape(_DATA_URI.sub("", text))
    elif place.endswith(".md"):
        yield text.replace("\\", "")
    else:
        yield text


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _embedded(place: str, content: bytes) -> Iterator[bytes]:
    """Files that a text carries inside."""
    if place.endswith(".safetensors"):
        return
    for found in _DATA_URI.finditer(content.decode("utf-8", "replace")):
        try:
            yield base64.b64decode(found[1], validate=False)
        except binascii.Error:
            yield found[1].encode()


def _refuse(place: str, found: str) -> None:
    raise Refusal("leak", f"{place} holds {found}", _ADVICE)
