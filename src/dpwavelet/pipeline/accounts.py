"""The ledgers of images: of the set that a run uses, and of other sets that share records with it.

A ledger belongs to the very images that were asked for, so the whole folder and each of its splits have one
each, and so has a set that has grown by an image. A cap on any of them counts what is charged or reserved to
all that share records with it. Splits are found through the folder. Sets of other times and places are found
by the digests of their image files, which lie beside each ledger from its first entry on, under its name.

A record is in the sets that hold its file. A person may be in every set that is linked with these: by a
folder, by a file that both hold, or over others that are. Wherever people are protected they count so.

Letters: N image files, L ledgers.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpwavelet.checkpoint import write_bytes
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.images.files import in_order
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.private import PrivateImages, fingerprint_of
from dpwavelet.pipeline.opening import check_data
from dpwavelet.privacy.accounting import Event
from dpwavelet.privacy.budget import Account, Cap, DataLedger, composed, ledger_path, unit_of
from dpwavelet.privacy.ledger import Ledger, locked
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rounded import up

LOCK = "begin.lock"  # in the folder of ledgers; an empty file
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


@dataclass(frozen=True)
class Room:
    """What a plan would add to what ledgers hold already, and whether caps leave room for it."""

    unit: str
    delta: float
    epsilon: float | None  # that one unit pays with all that is held; nothing where nothing is
    refused: str  # by which words `run` would refuse it; empty where caps leave room
    besides: str = ""  # on runs that this does not count

    @property
    def text(self) -> str:
        """What all cost together in a sentence, which is empty where nothing was spent or caps refuse."""
        if self.refused or self.epsilon is None:
            return ""
        return (
            f"with what earlier runs hold, the most that one {self.unit} of these has paid in all is epsilon "
            f"{self.epsilon:.4g} at delta {up(self.delta)}.{self.besides}"
        )

    @property
    def known(self) -> float | None:
        """The same epsilon, or nothing where it is beyond what can be accounted for."""
        return self.epsilon if self.epsilon is not None and math.isfinite(self.epsilon) else None


@dataclass(frozen=True, eq=False)
class Beside:
    """A ledger of other images, some of them the same."""

    name: str  # of its images: the whole folder, a split, or another set
    ledger: DataLedger
    files: Digests = field(repr=False)


def is_of_data(path: Path) -> bool:
    """Whether this is a file with the name of a data set's ledger, which is a fingerprint of images."""
    return path.is_file() and NAMED.fullmatch(path.name) is not None


def open_ledger(data: Path, folder: Path | None = None, split: str | None = None) -> DataLedger:
    """The ledger of a data set, wherever its images lie now, as `run` finds it."""
    return Books.open(data, split, folder).ledger


def beside(books: Books, plans: Sequence[PrivacyPlan] = ()) -> list[tuple[Beside, ...]]:
    """Ledgers with entries, in the same place, of images that share records with these.

    They come in groups, by which sets one record is in: what the ledgers of a group hold was learnt from the
    same record, and adds up. Where these plans or any of those runs protect people, all that are linked are
    one group.
    """
    return _looked(books, plans)[0]


def _looked(books: Books, plans: Sequence[PrivacyPlan]) -> tuple[list[tuple[Beside, ...]], list[Path]]:
    """The groups beside, and ledgers of which nobody can tell whether they belong to them."""
    linked, unknown = _linked(books)
    units = [plan.unit for plan in plans] + _units(books, [linked])
    return _grouped(books, linked, any(unit.startswith("person") for unit in units)), unknown


def _linked(books: Books) -> tuple[list[Beside], list[Path]]:
    """Ledgers with entries that are linked with this one, and those of which nobody can tell."""
    own, ours, unknown = books.ledger.path, books.known, list[Path]()
    others = dict[Path, tuple[str, Digests]]()  # opened only if they are linked: strangers may be locked away
    paths = [path for path in _ledgers(own.parent) if path != own and path.stat().st_size]
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


def _ledgers(folder: Path) -> list[Path]:
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


def each(groups: Iterable[Sequence[Beside]]) -> list[Beside]:
    """The ledgers of all groups, each once."""
    return list({one.ledger.path: one for group in groups for one in group}.values())


def _units(books: Books, groups: Iterable[Sequence[Beside]]) -> list[str]:
    """What runs protect, here and beside, each kind once."""
    ledgers = [books.ledger, *(one.ledger for one in each(groups))]
    return list(dict.fromkeys(unit for ledger in ledgers for unit in ledger.units))


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


def _keep_images(books: Books) -> None:
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


def mend_images(books: Books) -> None:
    """Write anew which images a ledger with entries is of, where it does not know them."""
    if books.ledger.entries:
        _keep_images(books)


def unknown_beside(books: Books) -> str:
    """A warning of ledgers in the same place of which nobody can tell whether they share images with this."""
    return _warning(_linked(books)[1])


def _warning(unknown: Sequence[Path]) -> str:
    if not unknown:
        return ""
    more = f" and {len(unknown) - 1:,} more" if unknown[1:] else ""
    return (
        f"warning: {unknown[0]}{more} does not know its images, as those of an early version, so nobody can "
        "tell whether it shares some with these; `dpwavelet ledger show` on the folder of those mends it."
    )


def check_beside(books: Books, plans: Sequence[PrivacyPlan], tell: Callable[[str], None]) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it.

    Two runs that begin at one moment both pass here; `open_account` and `set_cap` decide for good.
    """
    _check(books, plans, tell, *_looked(books, plans))


def _check(
    books: Books,
    plans: Sequence[PrivacyPlan],
    tell: Callable[[str], None],
    groups: Sequence[Sequence[Beside]],
    unknown: Sequence[Path],
) -> None:
    own = books.ledger
    own.check_room(*plans)
    if own.runs and plans:
        tell(_together(books, plans))
    for group in groups:
        ledgers = [own, *(one.ledger for one in group)]
        for ledger in ledgers:
            ledger.check_room(*plans, beside=[other for other in ledgers if other is not ledger])
    if warning := _warning(unknown):
        tell(warning)
    for one in each(groups):
        if one.ledger.runs:
            tell(
                f"warning: {one.name} has runs too, in {one.ledger.path}. They used some of the same images "
                "or people, so what they cost adds to what this costs."
            )
    if plans and any(one.ledger.runs for one in each(groups)):
        unit, delta = unit_of(plans[0].to_json()), plans[0].delta
        most = max(composed(_events(unit, books, group, plans), delta) for group in groups)
        tell(
            f"warning: with this, the most that one {unit} of these has paid in all is epsilon {most:.4g} at "
            f"delta {up(delta)}.{_not_counted(unit, _units(books, groups))}"
        )


def room_for(books: Books, plan: PrivacyPlan) -> Room:
    """What `check_beside` would say of this plan, told instead of raised."""
    (groups, unknown), unit, most = _looked(books, [plan]), unit_of(plan.to_json()), None
    if books.ledger.runs or any(one.ledger.runs for one in each(groups)):
        most = max(composed(_events(unit, books, group, [plan]), plan.delta) for group in ((), *groups))
    try:
        _check(books, [plan], _say_nothing, groups, unknown)
    except PrivacyError as error:
        return Room(unit, plan.delta, most, str(error))
    return Room(unit, plan.delta, most, "", _not_counted(unit, _units(books, groups)))


def any_kept(folder: Path | None) -> bool:
    """Whether there is any ledger in the place where those of data sets are kept."""
    return any(ledger_path("", folder).parent.glob("*.jsonl"))


def held_together(
    books: Books, groups: Sequence[Sequence[Beside]], delta: float | None
) -> list[dict[str, Any]]:
    """For each kind of unit the most that one pays for what ledgers of a group hold, with this one.

    As JSON; an epsilon of null is beyond what can be accounted for.
    """
    found = list[dict[str, Any]]()
    if not groups or delta is None:
        return found
    for unit in _units(books, groups):
        most = max(composed(_events(unit, books, group), delta) for group in groups)
        found.append({"unit": unit, "delta": delta, "epsilon": most if math.isfinite(most) else None})
    return found


def _not_counted(unit: str, units: Sequence[str]) -> str:
    """A sentence on runs that a sum for this unit leaves out; empty if there are none."""
    others = [name for name in units if name != unit]
    return f" Runs that protect {' and '.join(others)} cost it too, and are not counted." if others else ""


def _together(books: Books, plans: Sequence[PrivacyPlan]) -> str:
    """What earlier runs and these cost together: no certificate tells of another run."""
    own = books.ledger
    unit, delta = unit_of(plans[0].to_json()), plans[0].delta
    return (
        f"warning: {own.path} has earlier runs on these images, {len(own.runs)} in all. With "
        f"{'this one' if len(plans) == 1 else 'these'} they cost one {unit} epsilon "
        f"{composed(_events(unit, books, (), plans), delta):.4g} at delta {up(delta)}."
        f"{_not_counted(unit, own.units)} A certificate speaks of its own release alone, so tell whoever "
        "gets this one."
    )


def _events(
    unit: str, books: Books, group: Sequence[Beside], plans: Sequence[PrivacyPlan] = ()
) -> list[Event]:
    """What runs that protect this unit hold, here and beside, and what these plans would add."""
    ledgers = [books.ledger, *(one.ledger for one in group)]
    held = [event for ledger in ledgers for event in ledger.held(unit)]
    return [*held, *(event for plan in plans for event in plan.events)]


def open_account(
    books: Books, own: Ledger, run: str, plan: PrivacyPlan, name: str, allowed: Iterable[str]
) -> Account:
    """Begin a run in its own ledger and that of its images, or go on with it.

    Guarantee: where the system has file locks, all that is begun in one folder of ledgers is begun in turn,
    so of two runs that share records the second sees what the first reserved.
    """
    spendings = books.ledger
    assert spendings.images is not None
    with _in_turn(spendings):
        if run not in spendings.runs:
            check_beside(books, [plan], _say_nothing)
        _keep_images(books)
        return Account.open(spendings, own, run, plan, spendings.images, name, allowed)


def set_cap(books: Books, cap: Cap) -> None:
    """Put a cap in force; refused below what its images hold, in this ledger and those beside it."""
    own = books.ledger
    with _in_turn(own):
        groups = beside(books)
        _keep_images(books)
        own.set_cap(cap, [[one.ledger for one in group] for group in groups])


@contextmanager
def _in_turn(ledger: DataLedger) -> Iterator[None]:
    """Alone among all that begin runs or set caps in this folder of ledgers."""
    with locked(ledger.path.parent / LOCK):
        yield


def _say_nothing(line: str) -> None:
    """It was said when the data were checked."""


def check_unowned(
    data: Path, splits: tuple[str, ...], folder: Path | None, tell: Callable[[str], None]
) -> None:
    """Refuse to take images for a stand-in that somebody set a cap on; warn where they have private runs."""
    for split in splits:
        books = Books.open(data, split, folder)
        own = Beside(f"the split {split!r}", books.ledger, books.known)
        for one in [own, *each(beside(books))]:
            if one.ledger.cap is not None:
                raise PrivacyError(
                    f"{one.name} of {data} has a cap on what may be spent, in {one.ledger.path}, so its "
                    "records are somebody's and no stand-in. Say --spend and what you accept."
                )
            if one.ledger.runs:
                tell(
                    f"warning: {one.name} of {data} has private runs, in {one.ledger.path}. If its records "
                    "are private, say --spend instead of --stand-in."
                )
