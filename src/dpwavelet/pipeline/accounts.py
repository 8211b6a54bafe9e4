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


def beside(data: Path, split: str | None, own: DataLedger, people: bool = False) -> list[Beside]:
    """Ledgers with entries, in the same place, of parts of the folder that share records with this split.

    Of `people` all parts are found: whoever has pictures in two splits is in both.
    """
    if not any(path != own.path for path in own.path.parent.glob("*.jsonl")):
        return []
    whole = open_folder(data)
    splits = sorted({record.split for record in whole.records if record.split is not None})
    if not splits:
        return []
    digests = in_order(lambda index: hashlib.sha256(whole.read(index)).digest(), range(len(whole)))
    known = list(zip([record.split for record in whole.records], digests, strict=True))
    parts = {part: [d for of, d in known if part is None or of == part] for part in (None, *splits)}
    found = []
    for part, files in parts.items():
        if part == split or not (people or set(files) & set(parts[split])):
            continue
        fingerprint = hashlib.sha256(b"".join(sorted(files))).hexdigest()
        ledger = DataLedger.open(ledger_path(fingerprint, own.path.parent), fingerprint)
        if ledger.entries and ledger.path != own.path:
            found.append(Beside("the whole folder" if part is None else f"the split {part!r}", ledger))
    return found


def check_beside(
    data: Path, split: str | None, own: DataLedger, plans: list[PrivacyPlan], tell: Callable[[str], None]
) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it.

    Splits that share nothing with one another do not add up, so the whole folder is compared with each alone;
    people may be in all of them, and then everything counts at once.
    """
    own.check_room(*plans)
    people = any(plan.unit == "person" for plan in plans)
    found = beside(data, split, own, people)
    ledgers = [one.ledger for one in found]
    for ledger in ledgers:
        others = [each for each in ledgers if each is not ledger] if people else []
        ledger.check_room(*plans, beside=[own, *others])
        own.check_room(*plans, beside=ledgers if people else [ledger])
    for one in found:
        if one.ledger.runs:
            tell(
                f"warning: {one.name} has runs too, in {one.ledger.path}. They used some of the same images "
                "or people, so what they cost adds to what this costs."
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
