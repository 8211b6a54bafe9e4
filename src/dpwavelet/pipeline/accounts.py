"""The ledgers of a folder of images: of the part that a run uses, and of other parts that share its records.

A ledger belongs to the very images that were asked for, so the whole folder and each of its splits have one
each. A cap on any of them counts what is charged or reserved to all that share records with it. That is
looked up before a run begins; under the lock of its own ledger only the cap of that one decides.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpwavelet.errors import PrivacyError
from dpwavelet.images.files import in_order
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.opening import check_data
from dpwavelet.privacy.budget import DataLedger, ledger_path
from dpwavelet.privacy.plan import PrivacyPlan


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


def beside(data: Path, split: str | None, own: DataLedger) -> list[Beside]:
    """Ledgers with entries, in the same place, of parts of the folder that share records with this split."""
    if not any(path != own.path for path in own.path.parent.glob("*.jsonl")):
        return []
    whole = open_folder(data)
    splits = sorted({record.split for record in whole.records if record.split is not None})
    others = [None] if split is not None else splits
    if not splits:
        return []
    digests = in_order(lambda index: hashlib.sha256(whole.read(index)).digest(), range(len(whole)))
    known = list(zip([record.split for record in whole.records], digests, strict=True))
    found = []
    for other in others:
        part = sorted(digest for of, digest in known if other is None or of == other)
        fingerprint = hashlib.sha256(b"".join(part)).hexdigest()
        ledger = DataLedger.open(ledger_path(fingerprint, own.path.parent), fingerprint)
        if ledger.entries and ledger.path != own.path:
            found.append(Beside("the whole folder" if other is None else f"the split {other!r}", ledger))
    return found


def check_beside(
    data: Path, split: str | None, own: DataLedger, plans: list[PrivacyPlan], tell: Callable[[str], None]
) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it."""
    own.check_room(*plans)
    for other in beside(data, split, own):
        other.ledger.check_room(*plans, beside=own)
        own.check_room(*plans, beside=other.ledger)
        if other.ledger.runs:
            tell(
                f"warning: {other.name} has runs too, in {other.ledger.path}. They used some of the same "
                "images, so what they cost adds to what this costs."
            )


def check_unowned(
    data: Path, splits: tuple[str, ...], folder: Path | None, tell: Callable[[str], None]
) -> None:
    """Refuse to take images for a stand-in that somebody set a cap on; warn where they have private runs."""
    for split in splits:
        own = open_ledger(data, folder, split)
        for one in [Beside(f"the split {split!r}", own), *beside(data, split, own)]:
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
