"""What runs on images cost with all that was spent before, and whether caps leave room for it.

A cap on a ledger counts what is charged or reserved to all ledgers that share records with it; which those
are is told by `books`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpwavelet.errors import PrivacyError
from dpwavelet.pipeline.books import Around, Beside, Books, around, keep_images, ledgers_in
from dpwavelet.privacy.budget import Account, Cap, DataLedger, composed, ledgers_folder, unit_of
from dpwavelet.privacy.ledger import Ledger, locked
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rounded import up

LOCK = "begin.lock"  # in the folder of ledgers; an empty file


@dataclass(frozen=True)
class Room:
    """What a plan would add to what ledgers hold already, and whether caps leave room for it."""

    unit: str
    delta: float
    epsilon: float | None = None  # that one unit pays with all that is held; nothing where nothing is
    refused: str = ""  # by which words `run` would refuse it; empty where caps leave room
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


def check_beside(books: Books, plans: Sequence[PrivacyPlan], tell: Callable[[str], None]) -> None:
    """Refuse plans that a cap leaves no room for, of this ledger or of one that shares records with it.

    Two runs that begin at one moment both pass here; `open_account` and `set_cap` decide for good.
    """
    near = around(books, plans)
    _check_caps(near, plans)
    if near.own.runs and plans:
        tell(_together(near.own, plans))
    if near.warning:
        tell(near.warning)
    for one in near.each:
        if one.ledger.runs:
            tell(
                f"warning: {one.name} has runs too, in {one.ledger.path}. They used some of the same images "
                "or people, so what they cost adds to what this costs."
            )
    if plans and any(one.ledger.runs for one in near.each):
        unit, delta = unit_of(plans[0].to_json()), plans[0].delta
        tell(
            f"warning: with this, the most that one {unit} of these has paid in all is epsilon "
            f"{_most(near, unit, delta, plans):.4g} at delta {up(delta)}.{not_counted(unit, near.units)}"
        )


def rooms_for(data: Path, split: str | None, folder: Path | None, plans: Sequence[PrivacyPlan]) -> list[Room]:
    """What `check_beside` would say of each of these plans alone, told instead of raised."""
    if not ledgers_in(ledgers_folder(folder)):  # nothing was spent, and no image need be read
        return [Room(unit_of(plan.to_json()), plan.delta) for plan in plans]
    books = Books.open(data, split, folder)
    return [room_for(books, plan) for plan in plans]


def room_for(books: Books, plan: PrivacyPlan) -> Room:
    """The same of one plan for images that were read already."""
    near, unit, refused = around(books, [plan]), unit_of(plan.to_json()), ""
    try:
        _check_caps(near, [plan])
    except PrivacyError as error:
        refused = str(error)
    most = _most(near, unit, plan.delta, [plan]) if near.spent else None
    return Room(unit, plan.delta, most, refused, not_counted(unit, near.units))


def _check_caps(near: Around, plans: Sequence[PrivacyPlan]) -> None:
    near.own.check_room(*plans)
    for group in near.groups:
        ledgers = [near.own, *(one.ledger for one in group)]
        for ledger in ledgers:
            ledger.check_room(*plans, beside=[other for other in ledgers if other is not ledger])


def held_together(near: Around, delta: float | None) -> list[dict[str, Any]]:
    """For each kind of unit the most that one pays for what ledgers of a group hold, with this one.

    As JSON; an epsilon of null is beyond what can be accounted for.
    """
    if not near.groups or delta is None:
        return []
    return [
        {"unit": unit, "delta": delta, "epsilon": most if math.isfinite(most) else None}
        for unit in near.units
        for most in [_most(near, unit, delta)]
    ]


def _most(near: Around, unit: str, delta: float, plans: Sequence[PrivacyPlan] = ()) -> float:
    """The most that one of these units pays for all that is held, in one group and here, and for plans."""
    asked = [event for plan in plans for event in plan.events]
    sums = []
    for group in ((), *near.groups):
        ledgers = [near.own, *(one.ledger for one in group)]
        sums.append(composed([*asked, *(e for ledger in ledgers for e in ledger.held(unit))], delta))
    return max(sums)


def not_counted(unit: str, units: Sequence[str]) -> str:
    """A sentence on runs that a sum for this unit leaves out; empty if there are none."""
    others = [name for name in units if name != unit]
    return f" Runs that protect {' and '.join(others)} cost it too, and are not counted." if others else ""


def _together(own: DataLedger, plans: Sequence[PrivacyPlan]) -> str:
    """What earlier runs and these cost together: no certificate tells of another run."""
    unit, delta = unit_of(plans[0].to_json()), plans[0].delta
    return (
        f"warning: {own.path} has earlier runs on these images, {len(own.runs)} in all. With "
        f"{'this one' if len(plans) == 1 else 'these'} they cost one {unit} epsilon "
        f"{_most(Around(own, (), ()), unit, delta, plans):.4g} at delta {up(delta)}."
        f"{not_counted(unit, own.units)} A certificate speaks of its own release alone, so tell whoever "
        "gets this one."
    )


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
        keep_images(books)
        return Account.open(spendings, own, run, plan, spendings.images, name, allowed)


def set_cap(books: Books, cap: Cap) -> None:
    """Put a cap in force; refused below what its images hold, in this ledger and those beside it."""
    with _in_turn(books.ledger):
        groups = around(books).groups
        keep_images(books)
        books.ledger.set_cap(cap, [[one.ledger for one in group] for group in groups])


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
        for one in [own, *around(books).each]:
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
