"""Whose books images are in: their own ledger, and those of other sets that share records with them.

A ledger belongs to the very images that were asked for, so the whole folder and each of its splits have one
each, and so has a set that has grown by an image. Splits are found through the folder. Sets of other times
and places are found by the digests of their image files, which lie beside each ledger from its first entry
on, under its name.

A record is in the sets that hold its file. A person may be in every set that is linked with these: by a
folder, by a file that both hold, or over others that are. Wherever people are protected they count so.

Letters: N image files, L ledgers.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpwavelet.checkpoint import write_bytes
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.images.files import in_order
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.private import PrivateImages, fingerprint_of
from dpwavelet.pipeline.opening import check_data
from dpwavelet.privacy.budget import DataLedger, ledger_path
from dpwavelet.privacy.plan import PrivacyPlan

IMAGES = ".images"  # the sorted digests of a ledger's image files: what its name is the SHA-256 of
NAMED = re.compile(r"[0-9a-f]{64}\.jsonl")
DIGEST = hashlib.sha256().digest_size
OWNER_ALONE = 0o600

Digests = NDArray[np.bytes_]  # [N], of image files


@dataclass(frozen=True, repr=False)
class Books:
    """The ledger of the images that were asked for, and which images those are."""

    data: Path | None  # where they lie, with all splits; nothing where only the ledger is at hand
    files: Sequence[bytes]  # SHA-256 of every image file
    ledger: DataLedger

    @classmethod
    def of(cls, data: Path, files: Sequence[bytes], folder: Path | None) -> "Books":
        """Those of files that were read already; `folder` is that of all ledgers."""
        fingerprint = fingerprint_of(files)
        return cls(data, files, DataLedger.open(ledger_path(fingerprint, folder), fingerprint))

    @classmethod
    def open(cls, data: Path, split: str | None = None, folder: Path | None = None) -> "Books":
        """Those of a data set, wherever its images lie now, as `run` finds them; reads every file."""
        check_data(data)
        images = PrivateImages.open(data, 1, split)  # at any size: it reads files, not pixels
        return cls.of(data, images.digests(), folder)

    @classmethod
    def kept(cls, path: Path) -> "Books":
        """Those of a ledger whose images may lie elsewhere, or nowhere now."""
        if not is_of_data(path):
            raise ConfigError(f"{path} is no ledger of a data set: those are named by 64 hexadecimal digits.")
        return cls(None, _kept_images(path) or (), DataLedger.open(path, path.stem))

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, Digests]]:
        """The folder and its splits by the fingerprints of their images: what each is called, its files."""
        return {} if self.data is None else _parts(self.data)

    @cached_property
    def known(self) -> Digests:
        """The same files, to be looked up."""
        return _array(self.files)


@dataclass(frozen=True, eq=False)
class Beside:
    """A ledger of other images, some of them the same."""

    name: str  # of its images: the whole folder, a split, or another set
    ledger: DataLedger
    files: Digests = field(repr=False)


@dataclass(frozen=True)
class Around:
    """A ledger with what lies around it: others, by which of them one record or person may be in at once."""

    own: DataLedger
    groups: Sequence[Sequence[Beside]]
    unknown: Sequence[Path]  # ledgers of which nobody can tell which images they are of

    @property
    def each(self) -> list[Beside]:
        """The ledgers of all groups, each once."""
        return list({one.ledger.path: one for group in self.groups for one in group}.values())

    @property
    def units(self) -> list[str]:
        """What runs protect, here and beside, each kind once."""
        ledgers = [self.own, *(one.ledger for one in self.each)]
        return list(dict.fromkeys(unit for ledger in ledgers for unit in ledger.units))

    @property
    def spent(self) -> bool:
        """Whether any run was begun, here or beside."""
        return bool(self.units)

    @property
    def warning(self) -> str:
        """A sentence on ledgers that may share images with this one; empty if there are none."""
        if not self.unknown:
            return ""
        more = f" and {len(self.unknown) - 1:,} more" if self.unknown[1:] else ""
        return (
            f"warning: {self.unknown[0]}{more} does not know its images, as those of an early version, so "
            "nobody can tell whether it shares some with these; `dpwavelet ledger show` on the folder of "
            "those mends it."
        )


def is_of_data(path: Path) -> bool:
    """Whether this is a file with the name of a data set's ledger, which is a fingerprint of images."""
    return path.is_file() and NAMED.fullmatch(path.name) is not None


def open_ledger(data: Path, folder: Path | None = None, split: str | None = None) -> DataLedger:
    """The ledger of a data set, wherever its images lie now, as `run` finds it."""
    return Books.open(data, split, folder).ledger


def around(books: Books, plans: Sequence[PrivacyPlan] = ()) -> Around:
    """Ledgers with entries, in the same place, of images that share records with these.

    They come in groups, by which sets one record is in: what the ledgers of a group hold was learnt from the
    same record, and adds up. Where these plans or any of those runs protect people, all that are linked are
    one group.
    """
    linked, unknown = _linked(books)
    ledgers = [books.ledger, *(one.ledger for one in linked)]
    units = [plan.unit for plan in plans] + [unit for ledger in ledgers for unit in ledger.units]
    people = any(unit.startswith("person") for unit in units)
    return Around(books.ledger, _grouped(books, linked, people), unknown)


def _linked(books: Books) -> tuple[list[Beside], list[Path]]:
    """Ledgers with entries that are linked with this one, and those of which nobody can tell."""
    own, ours, unknown = books.ledger.path, books.known, list[Path]()
    others = dict[Path, tuple[str, Digests]]()  # opened only if they are linked: strangers may be locked away
    paths = [path for path in ledgers_in(own.parent) if path != own and path.stat().st_size]
    if not paths:
        return [], []  # and no file need be read once more to tell splits apart
    for path in paths:
        if path.stem in books.parts:
            others[path] = books.parts[path.stem]
            continue
        kept = _kept_images(path)
        if kept is None:
            unknown.append(path)
            continue
        files = _array(kept)
        shared = int(np.isin(ours, files).sum())
        more = f"with {shared:,} of these images" if shared else "which shares images with one of those"
        others[path] = f"another set ({path.stem[:8]}, {more})", files
    reached = np.unique(np.concatenate([ours, *(files for _, files in books.parts.values())]))
    linked = dict[Path, tuple[str, Digests]]()
    while found := {
        path: (name, files)
        for path, (name, files) in others.items()
        if path not in linked and np.isin(files, reached).any()
    }:
        linked |= found
        reached = np.unique(np.concatenate([reached, *(files for _, files in found.values())]))
    opened = [Beside(name, DataLedger.open(path, path.stem), files) for path, (name, files) in linked.items()]
    return sorted((one for one in opened if one.ledger.entries), key=lambda one: one.name), unknown


def ledgers_in(folder: Path) -> list[Path]:
    """Every ledger in a folder; one that cannot be listed hides what was spent, and is refused."""
    try:
        names = [entry.name for entry in os.scandir(folder)]  # unlike glob, it says what it may not see
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PrivacyError(
            f"{folder} cannot be listed ({error.strerror}), so nobody can tell what was spent on images that "
            "these share; have whoever owns it let you read it, or name another folder of ledgers."
        ) from error
    return [folder / name for name in sorted(names) if NAMED.fullmatch(name)]


def _grouped(books: Books, linked: Sequence[Beside], people: bool) -> list[tuple[Beside, ...]]:
    """Groups of which none lies within another: all as one, or by which sets one record is in."""
    if people:
        return [tuple(linked)] if linked else []
    if not linked:
        return []
    held = np.stack([np.isin(books.known, one.files) for one in linked], axis=1)  # [N, L]
    patterns = np.unpackbits(np.unique(np.packbits(held, axis=1), axis=0), axis=1, count=len(linked))
    groups = {frozenset(map(int, np.flatnonzero(pattern))) for pattern in patterns}
    widest = [group for group in groups if group and not any(group < other for other in groups)]
    found = [tuple(linked[place] for place in sorted(group)) for group in widest]
    return sorted(found, key=lambda group: [one.name for one in group])


def _parts(data: Path) -> Mapping[str, tuple[str, Digests]]:
    whole = open_folder(data)
    splits = sorted({record.split for record in whole.records if record.split is not None})
    if not splits:
        return {}
    digests = list(in_order(lambda index: hashlib.sha256(whole.read(index)).digest(), range(len(whole))))
    found = {fingerprint_of(digests): ("the whole folder", _array(digests))}
    for split in splits:
        files = [
            digest for record, digest in zip(whole.records, digests, strict=True) if record.split == split
        ]
        found.setdefault(fingerprint_of(files), (f"the split {split!r}", _array(files)))
    return found


def _array(files: Sequence[bytes]) -> Digests:
    return np.array(files, f"S{DIGEST}")


def _kept_images(ledger: Path) -> list[bytes] | None:
    """Digests of the image files that a ledger is of, or nothing if it does not know them."""
    path = ledger.with_suffix(IMAGES)
    try:
        kept = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        raise PrivacyError(
            f"{path} cannot be read ({error.strerror}), so nobody can tell whether these images are among "
            "those of that ledger; have whoever owns it let you read it, or name another folder of ledgers."
        ) from error
    if hashlib.sha256(kept).hexdigest() != ledger.stem:
        raise PrivacyError(
            f"{path} does not hold the digests of the images that it is named after, so nobody can tell "
            "whether these are among them; `dpwavelet ledger show` on the folder of those writes it anew."
        )
    return [kept[start : start + DIGEST] for start in range(0, len(kept), DIGEST)]


def keep_images(books: Books) -> None:
    """Write beside a ledger which images it is of, so that later sets can be compared with them."""
    path = books.ledger.path.with_suffix(IMAGES)
    content = b"".join(sorted(books.files))
    if books.files and not _holds(path, content):
        write_bytes(path, content, OWNER_ALONE)


def _holds(path: Path, content: bytes) -> bool:
    """Whether this is a file of its owner alone with just this content."""
    try:
        return path.stat().st_mode & 0o077 == 0 and path.read_bytes() == content
    except OSError:
        return False
