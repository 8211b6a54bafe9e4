"""Who pays for a table: asked before anything is computed.

A table is not private as a whole. Its distances are exact, sheets show held-out records, and whoever chooses
a method by them learns from records past every plan. So nothing is computed before one of two things is said:

    --stand-in          the records are public, and only stand for private ones: nobody is harmed
    --spend EPSILON     the records are private. EPSILON must be at least the sum of the epsilon of all cells,
                        those of earlier tables in the same folder included. Every cell is charged to the
                        ledger of the data set too, so a cap that its owner set holds; the same refusals apply
                        as to a run; there is no training without privacy; and the folder is for the owner
                        alone, as private as the images.

The sum is the simplest bound that is true: one person's record takes part in every cell.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.comparison.cells import CELLS, Cell, epsilon_text
from dpwavelet.comparison.settings import NO_PRIVACY, TableSettings
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.ledger import Ledger

LEDGERS = "ledgers"


@dataclass(frozen=True, kw_only=True)
class Price:
    """What private training costs in all: both are sums over the same cells."""

    epsilon: float
    delta: float


def price(cells: Iterable[Cell], out: Path) -> Price:
    """The price of these cells and of all others that were begun in `out`."""
    own = {
        cell.digest: Price(epsilon=cell.plan.epsilon, delta=cell.plan.delta) for cell in cells if cell.plan
    }
    found = begun(out)  # a cell may have been begun more than once
    for digest, one in own.items():
        known = found.get(digest, one)
        found[digest] = max(known, one, key=lambda each: each.epsilon)
    return _together(found.values())


def begun(out: Path) -> dict[str, Price]:
    """The price of every private cell in `out`, by its digest: of those with numbers, and of those begun.

    Cells that another machine computed bring no ledger along, and one that never ended has no numbers.
    """
    found: dict[str, Price] = {}
    for path in sorted((out / CELLS).glob("*.json")):
        if plan := read_json(path)["identity"].get("plan"):
            found[path.stem] = Price(epsilon=float(plan["epsilon"]), delta=float(plan["delta"]))
    for path in sorted((out / LEDGERS).glob("*.jsonl")):
        plans = [run.begun["plan"] for run in Ledger.open(path).runs.values()]
        found[path.stem] = _together(
            Price(epsilon=float(plan["epsilon"]), delta=float(plan["delta"])) for plan in plans
        )
    return found


def without_privacy(out: Path) -> bool:
    """Whether a cell in `out` was trained without privacy: then no epsilon holds for all of them."""
    found = (read_json(path)["identity"]["epsilon"] for path in (out / CELLS).glob("*.json"))
    return epsilon_text(NO_PRIVACY) in found


def remember(settings: TableSettings, out: Path) -> None:
    """Note in the folder whether its records are private, and refuse a table that says otherwise.

    Cells of a stand-in were charged to nobody, and those of private records are for their owner alone.
    """
    path, private = out / "records.json", not settings.stand_in
    if not path.is_file():
        write_json(path, {"private": private})
    if read_json(path)["private"] != private:
        said = (
            "--stand-in: its cells were charged to nobody" if private else "--spend: it is its owner's alone"
        )
        raise PrivacyError(f"{out} was begun with {said}. Choose another --out.")


def least_price(settings: TableSettings) -> float:
    """The sum of the epsilon of the cells that are asked for; known before anything is rehearsed."""
    finite = sum(epsilon for epsilon in settings.epsilons if epsilon != NO_PRIVACY)
    return settings.seeds * sum(method.trained for method in settings.methods) * finite


def check_consent(settings: TableSettings, cost: float) -> None:
    """Refuse a table whose price nobody accepted, and name it."""
    if settings.stand_in and settings.spend is not None:
        raise ConfigError(
            "--stand-in says that the records are public, --spend that they are private; give one of them."
        )
    if settings.stand_in:
        return
    if settings.spend is None:
        raise PrivacyError(
            f"this table trains on the records cell by cell, and costs epsilon {cost:g} in all; its numbers "
            "are exact and have no promise. If anyone may see the records, say --stand-in. If they are "
            f"private and this is accepted, say --spend {cost:g}."
        )
    if NO_PRIVACY in settings.epsilons:
        raise PrivacyError("with private records there is no cell without privacy: leave out --epsilon inf.")
    if not math.isfinite(settings.spend):
        raise PrivacyError(f"--spend must be a finite number, got {settings.spend:g}; say --spend {cost:g}.")
    if not settings.spend >= cost * (1 - 1e-9):  # a sum of tenths is not quite what it says
        raise PrivacyError(
            f"--spend {settings.spend:g} is less than the {cost:g} that this table costs in all; leave out "
            f"methods, budgets or seeds, or say --spend {cost:g}."
        )


def _together(prices: Iterable[Price]) -> Price:
    found = list(prices)
    return Price(
        epsilon=math.fsum(each.epsilon for each in found), delta=math.fsum(each.delta for each in found)
    )
