"""The ledgers of a folder of images: of the part that a run uses, and of other parts that share its records.

A ledger belongs to the very images that were asked for, so the whole folder and each of its splits have one
each. A cap on any of them counts what is charged or reserved to all that share records with it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dpwavelet.errors import PrivacyError
from dpwavelet.images.files import in_order
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.opening import check_data
from dpwavelet.privacy.budget import Account, Cap, DataLedger, composed, ledger_path, unit_of
from dpwavelet.privacy.ledger import Ledger, locked
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rounded import up

LOCK = "begin.lock"  # in the folder of ledgers; an empty file


@dataclass(frozen=True)
class Beside:
    """A ledger of other images of the same folder, some of them the same."""

    name: str  # of the part: the whole folder or a split
    ledger: DataLedger


def open_ledger(data: Path, folder: Path | None = None, split: str | None = None) -> DataLedger:
    """The ledger of a data set, wherever its images lie now, as `run` finds it."""
    check_data(data)
    fingerprint = PrivateImages.open(data, 1, split).fingerprint()  # at any size: it reads files, not pixels
    return DataLedger.open(ledger_path(fingerprint, folder), fingerprint)


def beside(data: Path, split: str | None, own: DataLedger, people: bool = False) -> list[tuple[Beside, ...]]:
    """Ledgers with entries, in the same place, of parts of the folder that share records with this split.

    They come in groups, by which parts one record of the split is in: what the ledgers of a group hold was
    learnt from the same record, and adds up. `people` may be in every split, so all parts are one group.
    """
    if not any(path != own.path for path in own.path.parent.glob("*.jsonl")):
        return []
    whole = open_folder(data)
    splits = sorted({record.split for record in whole.records if record.split is not None})
    if not splits:
        return []
    digests = list(in_order(lambda index: hashlib.sha256(whole.read(index)).digest(), range(len(whole))))
    files: dict[str | None, list[bytes]] = {None: digests} | {part: [] for part in splits}
    held_by: dict[bytes, set[str | None]] = {digest: {None} for digest in digests}
    for record, digest in zip(whole.records, digests, strict=True):
        if record.split is not None:
            files[record.split].append(digest)
            held_by[digest].add(record.split)
    sets = (
        {frozenset(files)} if people else {frozenset(parts) for parts in held_by.values() if split in parts}
    )
    ledgers = dict[str | None, Beside]()
    for part in files:
        fingerprint = hashlib.sha256(b"".join(sorted(files[part]))).hexdigest()
        ledger = DataLedger.open(ledger_path(fingerprint, own.path.parent), fingerprint)
        if ledger.entries and ledger.path != own.path:
            ledgers[part] = Beside("the whole folder" if part is None else f"the split {part!r}", ledger)
    groups = {
        tuple(one for part, one in ledgers.items() if part in parts and part != split) for parts in sets
    }
    return sorted((group for group in groups if group), key=lambda group: [one.name for one in group])


def each(groups: Iterable[tuple[Beside, ...]]) -> list[Beside]:
    """The ledgers of all groups, each once."""
    return list({one.name: one for group in groups for one in group}.values())


def check_beside(
    data: Path, split: str | None, own: DataLedger, plans: list[PrivacyPlan], tell: Callable[[str], None]
) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it.

    Two runs that begin at one moment both pass here; `open_account` and `set_cap` decide for good.
    """
    own.check_room(*plans)
    if own.runs and plans:
        tell(_together(own, plans))
    groups = beside(data, split, own, any(plan.unit == "person" for plan in plans))
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


def _together(own: DataLedger, plans: list[PrivacyPlan]) -> str:
    """What earlier runs and these cost together: no certificate tells of another run."""
    unit, delta = unit_of(plans[0].to_json()), plans[0].delta
    events = (*own.held(unit), *(event for plan in plans for event in plan.events))
    others = [name for name in own.units if name != unit]
    more = f" Runs that protect {' and '.join(others)} cost it too, and are not counted." if others else ""
    return (
        f"warning: {own.path} has earlier runs on these images, {len(own.runs)} in all. With "
        f"{'this one' if len(plans) == 1 else 'these'} they cost one {unit} epsilon "
        f"{composed(events, delta):.4g} at delta {up(delta)}.{more} A certificate speaks of its own release "
        "alone, so tell whoever gets this one."
    )


def open_account(
    data: Path,
    split: str | None,
    spendings: DataLedger,
    own: Ledger,
    run: str,
    plan: PrivacyPlan,
    name: str,
    allowed: Iterable[str],
) -> Account:
    """Begin a run in its own ledger and that of its images, or go on with it.

    Guarantee: where the system has file locks, all that is begun in one folder of ledgers is begun in turn,
    so of two runs that share records the second sees what the first reserved.
    """
    assert spendings.images is not None
    with _in_turn(spendings):
        if run not in spendings.runs:
            check_beside(data, split, spendings, [plan], _say_nothing)
        return Account.open(spendings, own, run, plan, spendings.images, name, allowed)


def set_cap(data: Path, split: str | None, own: DataLedger, cap: Cap) -> None:
    """Put a cap in force; refused below what its images hold, in this ledger and those beside it."""
    with _in_turn(own):
        found = beside(data, split, own, people=True)
        units = [unit for ledger in (own, *(one.ledger for one in each(found))) for unit in ledger.units]
        if not any(unit.startswith("person") for unit in units):
            found = beside(data, split, own)
        own.set_cap(cap, [[one.ledger for one in group] for group in found])


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
        own = open_ledger(data, folder, split)
        for one in [Beside(f"the split {split!r}", own), *each(beside(data, split, own))]:
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
