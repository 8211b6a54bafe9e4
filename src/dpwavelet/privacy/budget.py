"""What all runs on one data set cost together, and how much its owner allows.

Privacy losses add up over everything that was ever learnt from the same images. So each data set has a ledger
of its own, outside the run folders, named by the fingerprint of its images: renaming or moving them leads to
the same file. Its entries hold public plans and events, so all that it says can be computed from it alone.

A run that was begun holds its whole plan reserved until it finishes or is abandoned. From then on the steps
that were charged count, and mechanisms that are no steps (a histogram) count whole from the beginning.

    account = Account.open(DataLedger.open(ledger_path(images), images), Ledger.open(own), run, plan)
    account.append({"kind": "charged", "run": run, "steps": 10})  # in both, before steps 0 to 9
    account.finish(run)
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import (
    Event,
    Gaussian,
    PoissonGaussian,
    check_delta,
    check_epsilon,
    epsilon_pld,
    epsilon_pld_quick,
    epsilon_rdp,
    event_from_json,
    event_to_json,
)
from dpwavelet.privacy.ledger import Ledger, Run
from dpwavelet.privacy.plan import PrivacyPlan

FOLDER_VARIABLE = "DPWAVELET_LEDGERS"


@dataclass(frozen=True)
class Cap:
    """The most that all runs together may cost."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)


def ledger_path(images: str, folder: Path | None = None) -> Path:
    """Where the ledger of the images with this fingerprint stands."""
    return ledgers_folder(folder) / f"{images}.jsonl"


def ledgers_folder(folder: Path | None = None) -> Path:
    """Where ledgers of data sets stand: in `folder`, DPWAVELET_LEDGERS, or home."""
    if folder is None:
        named = os.environ.get(FOLDER_VARIABLE)
        folder = Path(named) if named else _home() / ".dpwavelet" / "ledgers"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"{folder} is a file; ledgers stand in a folder, one file a data set. Name a folder."
        )
    return folder


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "this account has no home folder to keep a ledger in; name another with --ledger or "
            f"{FOLDER_VARIABLE}."
        ) from None


def begun(
    run: str, plan: PrivacyPlan, images: str, name: str = "", allowed: Iterable[str] = ()
) -> dict[str, Any]:
    """The entry that begins a run; `name` is for the owner's eyes, `allowed` are refusals overruled."""
    return {
        "kind": "begun",
        "run": run,
        "name": name,
        "images": images,
        "plan": plan.to_json(),
        "events": [event_to_json(event) for event in plan.events],
        "allowed": sorted(allowed),
    }


def events_until(entry: Mapping[str, Any], steps: int) -> tuple[Event, ...]:
    """The mechanisms of a begun run, of which the first `steps` training steps were charged.

    Training is the one Poisson event with the plan's steps; if that leaves a doubt, everything counts whole.
    """
    events = tuple(event_from_json(value) for value in entry["events"])
    planned = entry["plan"]["steps"]
    training = [event for event in events if isinstance(event, PoissonGaussian) and event.steps == planned]
    if len(training) != 1:
        return events
    others = tuple(event for event in events if event is not training[0])
    return (*others, replace(training[0], steps=steps)) if steps else others


def composed(
    events: Iterable[Event],
    delta: float,
    bound: Callable[[tuple[Event, ...], float], float] = epsilon_pld_quick,
) -> float:
    """An upper bound on the epsilon of all events together, infinite where the accountant refuses."""
    together = _merged(events)
    return _bounded(bound, together, delta) if together else 0.0


@lru_cache(maxsize=1 << 12)
def _bounded(
    bound: Callable[[tuple[Event, ...], float], float], events: tuple[Event, ...], delta: float
) -> float:
    """One sum is asked for under every cap that it counts under, and takes up to seconds."""
    try:
        return bound(events, delta)
    except PrivacyError:
        return math.inf


class DataLedger(Ledger):
    """The ledger of one data set: every run on it, and the cap.

    Guarantee: all that is charged or reserved costs at most the cap in force, where the system has file
    locks. It is decided under the lock, after reading what others wrote, so two processes cannot both spend
    the same rest. Reading the file again repeats no decision.
    """

    def __init__(self, path: Path, images: str | None = None) -> None:
        """Use `DataLedger.open`, which also verifies."""
        super().__init__(path)
        self.images = images
        self.caps: list[Cap] = []  # oldest first; the last is in force

    @classmethod
    def open(cls, path: Path, images: str | None = None) -> "DataLedger":
        """Read and verify the ledger at `path`, of the images with this fingerprint if one is given."""
        ledger = cls(path, images)
        ledger._read()
        return ledger

    @property
    def cap(self) -> Cap | None:
        """The cap in force."""
        return self.caps[-1] if self.caps else None

    def set_cap(self, cap: Cap, beside: Sequence[Sequence["DataLedger"]] = ()) -> None:
        """Put a cap in force; refused below what is charged and reserved already.

        Each group of ledgers `beside` shares records with this one, and counts with it.
        """
        for group in beside:
            units = list(dict.fromkeys(unit for ledger in (self, *group) for unit in ledger.units))
            _check_one_unit(units)
            held = tuple(event for ledger in (self, *group) for unit in units for event in ledger.held(unit))
            if not _affords(cap, held):
                raise PrivacyError(
                    f"a cap of epsilon {cap.epsilon:g} at delta {cap.delta:.3g} is below the "
                    f"{composed(held, cap.delta):.4g} that these images and sets that share some with them "
                    f"hold together (see {', '.join(str(ledger.path) for ledger in group)}); choose a higher "
                    "one."
                )
        self.append({"kind": "cap", "images": self.images, **asdict(cap)})

    def abandon(self, run: str) -> None:
        """Close a run that will not be resumed: its charged steps stay, the rest of its plan is free."""
        self.append({"kind": "abandoned", "run": run})

    def check_room(self, *plans: PrivacyPlan, beside: Sequence["DataLedger"] = ()) -> None:
        """Refuse plans that the cap leaves no room for, together; only `append` decides for good.

        What ledgers `beside` hold, of images of which some are these, counts as if it were held here.
        """
        self._read()
        units = [unit_of(plan.to_json()) for plan in plans]
        held = list[Event]()
        if plans:
            held = [event for other in beside for unit in other.units for event in other.held(unit)]
            units += [unit for other in beside for unit in other.units]
        self._check_room([event for plan in plans for event in plan.events], units, len(plans), held)

    def spent(self, unit: str) -> tuple[Event, ...]:
        """Every mechanism charged so far to runs that protect this unit, one of `units`."""
        return self._events(unit, lambda run: run.charged)

    def held(self, unit: str) -> tuple[Event, ...]:
        """The same with all that runs in flight may still charge."""
        return self._events(unit, lambda run: run.charged if run.closed else run.planned)

    @property
    def units(self) -> list[str]:
        """What the runs protect, each kind once."""
        return list(dict.fromkeys(unit_of(run.begun["plan"]) for run in self.runs.values()))

    def _events(self, unit: str, steps: Callable[[Run], int]) -> tuple[Event, ...]:
        runs = (run for run in self.runs.values() if unit_of(run.begun["plan"]) == unit)
        return tuple(event for run in runs for event in events_until(run.begun, steps(run)))

    def _admit(self, entry: Mapping[str, Any]) -> None:
        super()._admit(entry)
        if entry["kind"] not in ("begun", "cap"):
            return
        images = entry.get("images")
        if not isinstance(images, str) or images != (self.images or images):
            raise PrivacyError(f"{self.path} is the ledger of other images; each data set has its own.")
        if entry["kind"] == "cap":
            Cap(entry["epsilon"], entry["delta"])
        elif not isinstance(entry["plan"].get("group_by"), str | None):
            raise PrivacyError(f"run {entry['run']} names no field by which people are told apart.")
        elif not (type(entry["plan"]["delta"]) is float and type(entry["plan"]["unit"]) is str):
            raise PrivacyError(f"run {entry['run']} does not say what it protects, or at which delta.")
        elif not events_until(entry, 1):
            raise PrivacyError(f"run {entry['run']} names no mechanism, so its cost cannot be told.")

    def _note(self, entry: dict[str, Any], position: int) -> None:
        super()._note(entry, position)
        if entry["kind"] in ("begun", "cap"):
            self.images = entry["images"]
        if entry["kind"] == "cap":
            self.caps.append(Cap(entry["epsilon"], entry["delta"]))

    def _allow(self, entry: Mapping[str, Any]) -> None:
        if entry["kind"] == "begun":
            self._check_room(map(event_from_json, entry["events"]), [unit_of(entry["plan"])])
        elif entry["kind"] == "cap":
            self._check_cap(Cap(entry["epsilon"], entry["delta"]))

    def _check_room(
        self, events: Iterable[Event], units: Sequence[str], runs: int = 1, held: Iterable[Event] = ()
    ) -> None:
        """Refuse what the cap leaves no room for; `held` is of ledgers beside."""
        if self.cap is None or not units:
            return
        _check_one_unit([*self.units, *units])
        before = (*self.held(units[0]), *held)
        after = (*before, *events)
        if not _affords(self.cap, after):
            delta = self.cap.delta
            raise PrivacyError(
                f"all runs on these images may cost epsilon {self.cap.epsilon:g} at delta {delta:.3g}; "
                f"{composed(before, delta):.4g} is charged or reserved, and with "
                f"{'this run' if runs == 1 else f'these {runs} runs'} it would be "
                f"{composed(after, delta):.4g}. Ask for a smaller epsilon, abandon a run that will not be "
                "resumed (dpwavelet ledger show, ledger abandon), or raise the cap (ledger cap), which is in "
                f"{self.path}."
            )

    def _check_cap(self, cap: Cap) -> None:
        _check_one_unit(self.units)
        for unit in self.units:
            held = self.held(unit)
            if not _affords(cap, held):
                raise PrivacyError(
                    f"a cap of epsilon {cap.epsilon:g} at delta {cap.delta:.3g} is below what these images "
                    f"have paid: {composed(self.spent(unit), cap.delta):.4g} is charged, and "
                    f"{composed(held, cap.delta):.4g} with what runs in flight have reserved. Charges cannot "
                    "be taken back; choose a higher cap, or abandon runs that will not be resumed."
                )


class Account:
    """One run in the ledger of its data set and in its own, charged together.

    Guarantee: what is charged here is on disk in the ledger of the data set, then in the run's own, before
    `append` returns. `open` brings the second up to the first after a crash between the two writes.
    """

    def __init__(self, data: DataLedger, own: Ledger) -> None:
        """Use `Account.open`, which also makes the two agree."""
        self.data, self.own = data, own

    @classmethod
    def open(
        cls,
        data: DataLedger,
        own: Ledger,
        run: str,
        plan: PrivacyPlan,
        images: str,
        name: str = "",
        allowed: Iterable[str] = (),
    ) -> "Account":
        """Begin a run in both ledgers, or go on with one that was interrupted.

        Refuses a run whose two accounts contradict each other: one of them was lost or replaced, and going on
        would take steps that nobody pays for.
        """
        entry = begun(run, plan, images, name, allowed)
        there, here = data.runs.get(run), own.runs.get(run)
        if here and here.begun.get("images") != images:
            raise PrivacyError(
                "the images are not those that this run was begun with; restore them, or choose another "
                "--out."
            )
        if here and (there is None or there.charged < here.charged):
            raise PrivacyError(
                f"{data.path} does not know all that run {run} was charged; it is another ledger or an old "
                f"copy. Name the folder of the right one with --ledger or {FOLDER_VARIABLE}, or restore it."
            )
        if there and there.closed == "abandoned":
            raise PrivacyError(f"run {run} was abandoned and cannot go on; begin another in another --out.")
        for known in (there, here):
            if known and any(known.begun[told] != entry[told] for told in ("events", "plan")):
                raise PrivacyError(
                    f"run {run} was begun with other mechanisms: its plan or this software has changed. "
                    "Begin another in another --out."
                )
        if there and there.charged and here is None:
            raise PrivacyError(
                f"run {run} was charged {there.charged} steps, but {own.path} does not know it: what it "
                "learnt is lost. Restore its private folder, or abandon it and begin anew in another --out."
            )
        if there and there.closed == "finished" and here and here.charged < there.charged:
            raise PrivacyError(
                f"run {run} was finished, but {own.path} knows only a part of it: another copy of the folder "
                "has taken its steps. Go on with that copy, or begin another run in another --out."
            )
        if there is None:
            data.append(entry)
        if here is None:
            own.append(entry)
        if (charged := data.charged_steps(run)) > own.charged_steps(run):
            own.append({"kind": "charged", "run": run, "steps": charged})
        return cls(data, own)

    def charged_steps(self, run: str) -> int:
        """Up to how many steps this run has been charged in both ledgers."""
        return min(self.data.charged_steps(run), self.own.charged_steps(run))

    def plan_of(self, run: str) -> Mapping[str, Any]:
        """What this run was begun with in its own ledger."""
        return self.own.plan_of(run)

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add an entry to both ledgers and return its position in the run's own."""
        self.data.append(entry)
        return self.own.append(entry)

    def bind(self, run: str, key: str) -> None:
        """Bind the run to the key of its noise in both ledgers, or refuse another key than they know."""
        self.data.bind(run, key)
        self.own.bind(run, key)

    def note_sum(self, run: str, other: int, digest: str) -> None:
        """Note in both ledgers which sum a mechanism adds its noise to, or refuse another than they know."""
        self.data.note_sum(run, other, digest)
        self.own.note_sum(run, other, digest)

    def finish(self, run: str) -> int:
        """Close the run in both ledgers, once; the position of that entry in the run's own."""
        self.data.finish(run)
        return self.own.finish(run)


def told_delta(ledger: DataLedger, *others: DataLedger) -> float | None:
    """At which delta costs are told: that of the cap of the first, or the smallest of all runs."""
    plans = [float(run.begun["plan"]["delta"]) for each in (ledger, *others) for run in each.runs.values()]
    return ledger.cap.delta if ledger.cap else min(plans, default=None)


def summary(
    ledger: DataLedger, delta: float | None = None, beside: Sequence[Sequence[DataLedger]] = ()
) -> dict[str, Any]:
    """What `dpwavelet ledger show` says, as JSON; an epsilon of null is beyond what can be accounted for.

    `left` is the cap less the most that is held, here and in a group of ledgers `beside`. A run of that
    epsilon would leave some over: unlike budgets add up to less than their sum.
    """
    if delta is None:
        delta = told_delta(ledger)
    if delta is not None:
        check_delta(delta)

    def epsilon(events: Iterable[Event]) -> float | None:
        return None if delta is None else _or_none(composed(events, delta))

    runs = [
        {
            "run": name,
            "name": run.begun.get("name", ""),
            "unit": unit_of(run.begun["plan"]),
            "state": run.closed or "in flight",
            "steps": run.charged,
            "planned": run.planned,
            "epsilon": epsilon(events_until(run.begun, run.charged)),
            "epsilon_planned": epsilon(events_until(run.begun, run.planned)),
        }
        for name, run in ledger.runs.items()
    ]
    together = {
        unit: {"charged": epsilon(ledger.spent(unit)), "held": epsilon(ledger.held(unit))}
        for unit in ledger.units
    }
    cap = ledger.cap
    held = max(_held([ledger, *group], cap.delta) for group in ((), *beside)) if cap else 0.0
    return {
        "images": ledger.images,
        "head": ledger.head,
        "delta": delta,
        "runs": runs,
        "together": together,
        "caps": [asdict(each) for each in ledger.caps],
        "left": max(cap.epsilon - held, 0.0) if cap else None,
    }


def _held(ledgers: Sequence[DataLedger], delta: float) -> float:
    """The most that these hold together for any one kind of unit."""
    units = dict.fromkeys(unit for each in ledgers for unit in each.units)
    sums = ([event for each in ledgers for event in each.held(unit)] for unit in units)
    return max((composed(events, delta) for events in sums), default=0.0)


def _affords(cap: Cap, events: tuple[Event, ...]) -> bool:
    """Whether all events fit under the cap; every bound is an upper one, so the first that fits decides."""
    return any(
        composed(events, cap.delta, bound) <= cap.epsilon
        for bound in (epsilon_rdp, epsilon_pld_quick, epsilon_pld)
    )


def _merged(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same mechanisms, equal ones counted together: the accountant then works once for each kind."""
    counts: Counter[Event] = Counter()
    for event in events:
        if isinstance(event, Gaussian):
            counts[replace(event, count=1)] += event.count
        else:
            counts[replace(event, steps=1)] += event.steps
    merged = (
        replace(one, count=count) if isinstance(one, Gaussian) else replace(one, steps=count)
        for one, count in counts.items()
    )
    return tuple(sorted(merged, key=repr))


def _check_one_unit(units: list[str]) -> None:
    """Refuse to add up what protects different units: the sum would be a promise to neither."""
    if len(kinds := sorted(set(units))) > 1:
        raise PrivacyError(
            f"runs that protect {' and '.join(kinds)} do not add up to one epsilon, so one cap cannot hold "
            "for both; keep them in ledgers of their own with --ledger."
        )


def unit_of(plan: Mapping[str, Any]) -> str:
    """What a plan protects. By another field people are others, and one of them may be many of the first."""
    unit, field = plan["unit"], plan.get("group_by")
    return f"{unit} by {field}" if field else str(unit)


def _or_none(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
