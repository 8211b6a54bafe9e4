"""The ledgers of images: of the set that a run uses, and of other sets that share records with it.

A ledger belongs to the very images that were asked for, so the whole folder and each of its splits have one
each, and so has a set that has grown by an image. A cap on any of them counts what is charged or reserved to
all that share records with it. Splits are found through the folder. Sets of other times and places are found
by the digests of their image files, which lie beside each ledger from its first entry on, under its name.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
DIGEST = hashlib.sha256().digest_size


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
        return cls(None, _kept_images(path), DataLedger.open(path, path.stem))


@dataclass(frozen=True)
class Room:
    """What a plan would add to what ledgers hold already, and whether caps leave room for it."""

    unit: str
    delta: float
    epsilon: float | None  # that one unit pays with all that is held; nothing where nothing is
    refused: str  # by which words `run` would refuse it; empty where caps leave room

    @property
    def text(self) -> str:
        """What all cost together in a sentence, which is empty where nothing was spent or caps refuse."""
        if self.refused or self.epsilon is None:
            return ""
        return (
            f"with what earlier runs hold, one {self.unit} that all of them used pays epsilon "
            f"{self.epsilon:.4g} at delta {up(self.delta)}."
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


def is_of_data(path: Path) -> bool:
    """Whether this is a file with the name of a data set's ledger, which is a fingerprint of images."""
    return path.is_file() and re.fullmatch(r"[0-9a-f]{64}\.jsonl", path.name) is not None


def open_ledger(data: Path, folder: Path | None = None, split: str | None = None) -> DataLedger:
    """The ledger of a data set, wherever its images lie now, as `run` finds it."""
    return Books.open(data, split, folder).ledger


def beside(books: Books, people: bool = False) -> list[tuple[Beside, ...]]:
    """Ledgers with entries, in the same place, of images that share records with these.

    They come in groups, by which sets one record is in: what the ledgers of a group hold was learnt from the
    same record, and adds up. `people` may be in every set of which an image or the folder is shared, so all
    those are one group.
    """
    return _grouped(books, _near(books), people)


def adding(books: Books) -> list[tuple[Beside, ...]]:
    """What `beside` finds by the units that runs protect: people only where some runs protect them."""
    near = _near(books)
    people = any(unit.startswith("person") for unit in _units(books, [list(near)]))
    return _grouped(books, near, people)


def _near(books: Books) -> dict[Beside, set[bytes]]:
    """Ledgers with entries of images of the same folder or with some of the same images: which are shared."""
    own = books.ledger.path
    others = sorted(path for path in own.parent.glob("*.jsonl") if path != own)
    parts = _parts(books) if others else {}
    ours, found = set(books.files), dict[Beside, set[bytes]]()
    for path in others:
        name, files = parts[path.stem] if path.stem in parts else ("", _kept_images(path))
        shared = ours.intersection(files)
        if not shared and not name:
            continue
        ledger = DataLedger.open(path, path.stem)
        if ledger.entries:
            name = name or f"another set ({path.stem[:8]}, with {len(shared):,} of these images)"
            found[Beside(name, ledger)] = shared
    return found


def _grouped(books: Books, near: Mapping[Beside, set[bytes]], people: bool) -> list[tuple[Beside, ...]]:
    """Groups of which none lies within another: all as one, or by which sets one record is in."""
    if people:
        groups = {tuple(near)}
    else:
        groups = {tuple(one for one in near if file in near[one]) for file in books.files}
    widest = [one for one in groups if one and not any(set(one) < set(other) for other in groups)]
    return sorted(widest, key=lambda group: [one.name for one in group])


def each(groups: Iterable[Sequence[Beside]]) -> list[Beside]:
    """The ledgers of all groups, each once."""
    return list({one.ledger.path: one for group in groups for one in group}.values())


def _units(books: Books, groups: Iterable[Sequence[Beside]]) -> list[str]:
    """What runs protect, here and beside, each kind once."""
    ledgers = [books.ledger, *(one.ledger for one in each(groups))]
    return list(dict.fromkeys(unit for ledger in ledgers for unit in ledger.units))


def _parts(books: Books) -> Mapping[str, tuple[str, Sequence[bytes]]]:
    """The folder and its splits by the fingerprints of their images: what each is called, and its files."""
    if books.data is None:
        return {}
    whole = open_folder(books.data)
    splits = sorted({record.split for record in whole.records if record.split is not None})
    if not splits:
        return {}
    digests = list(in_order(lambda index: hashlib.sha256(whole.read(index)).digest(), range(len(whole))))
    found = {fingerprint_of(digests): ("the whole folder", digests)}
    for split in splits:
        files = [
            digest for record, digest in zip(whole.records, digests, strict=True) if record.split == split
        ]
        found.setdefault(fingerprint_of(files), (f"the split {split!r}", files))
    return found


def _kept_images(ledger: Path) -> list[bytes]:
    """Digests of the image files that a ledger is of, or none if it does not know them."""
    path = ledger.with_suffix(IMAGES)
    if not path.is_file():
        return []
    try:
        kept = path.read_bytes()
    except OSError as error:
        raise PrivacyError(
            f"{path} cannot be read ({error.strerror}), so nobody can tell whether these images are among "
            "those of that ledger; have whoever owns it let you read it, or name another folder of ledgers."
        ) from error
    if hashlib.sha256(kept).hexdigest() != ledger.stem:
        raise PrivacyError(
            f"{path} does not hold the digests of the images that it is named after, so nobody can tell "
            "whether these are among them; restore it, or delete it if you know that they are not."
        )
    return [kept[start : start + DIGEST] for start in range(0, len(kept), DIGEST)]


def _keep_images(books: Books) -> None:
    """Write beside a ledger which images it is of, so that later sets can be compared with them."""
    path = books.ledger.path.with_suffix(IMAGES)
    if books.files and not path.is_file():
        write_bytes(path, b"".join(sorted(books.files)))
        path.chmod(0o600)  # as the ledger


def check_beside(books: Books, plans: Sequence[PrivacyPlan], tell: Callable[[str], None]) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it.

    Two runs that begin at one moment both pass here; `open_account` and `set_cap` decide for good.
    """
    own = books.ledger
    own.check_room(*plans)
    if own.runs and plans:
        tell(_together(books, plans))
    groups = beside(books, any(plan.unit == "person" for plan in plans))
    for group in groups:
        ledgers = [own, *(one.ledger for one in group)]
        for ledger in ledgers:
            ledger.check_room(*plans, beside=[other for other in ledgers if other is not ledger])
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
            f"warning: with this, one {unit} that all of them used pays epsilon {most:.4g} at delta "
            f"{up(delta)}."
        )


def room_for(books: Books, plan: PrivacyPlan) -> Room:
    """What `check_beside` would say of this plan, told instead of raised."""
    unit, groups = unit_of(plan.to_json()), beside(books, plan.unit == "person")
    most = None
    if books.ledger.runs or any(one.ledger.runs for one in each(groups)):
        most = max(composed(_events(unit, books, group, [plan]), plan.delta) for group in ((), *groups))
    try:
        check_beside(books, [plan], _say_nothing)
    except PrivacyError as error:
        return Room(unit, plan.delta, most, str(error))
    return Room(unit, plan.delta, most, "")


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


def _together(books: Books, plans: Sequence[PrivacyPlan]) -> str:
    """What earlier runs and these cost together: no certificate tells of another run."""
    own = books.ledger
    unit, delta = unit_of(plans[0].to_json()), plans[0].delta
    others = [name for name in own.units if name != unit]
    more = f" Runs that protect {' and '.join(others)} cost it too, and are not counted." if others else ""
    return (
        f"warning: {own.path} has earlier runs on these images, {len(own.runs)} in all. With "
        f"{'this one' if len(plans) == 1 else 'these'} they cost one {unit} epsilon "
        f"{composed(_events(unit, books, (), plans), delta):.4g} at delta {up(delta)}.{more} A certificate "
        "speaks of its own release alone, so tell whoever gets this one."
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
        groups = adding(books)
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
        for one in [Beside(f"the split {split!r}", books.ledger), *each(beside(books))]:
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
