"""What was done to private records, in the order it was done: append-only, hash-chained JSON lines.

Each line holds a SHA-256 of its own content and one of the line before it, so a line that is changed, dropped
from the middle or slipped in is found by number; the head digest, written into a certificate, pins the end
against someone who recomputes them all. Each line carries a random salt, so a published digest says nothing
about the entries under it. The ledger itself is private.

A run is begun, bound to the key of its noise, charged in blocks of steps before they are taken, and finished:

    ledger = Ledger.open(private / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": run, "plan": plan.to_json()})
    ledger.bind(run, source.digest)
    ledger.append({"kind": "charged", "run": run, "steps": 50})  # before steps 0 to 49
    ledger.append({"kind": "finished", "run": run})

A run that will not be resumed can be abandoned instead. Any other kind of entry (a histogram, an evaluation)
is kept as it comes. `budget` adds up the runs of one data set, in a ledger of its own.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import hexdigits
from typing import Any, Protocol

from dpwavelet.checkpoint import canonical_json, sync_folder
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError, PrivacyError

if sys.platform != "win32":
    import fcntl

GENESIS = "0" * 64  # the "previous" digest of the first line


class Charges(Protocol):
    """What private training needs of a ledger."""

    def charged_steps(self, run: str) -> int:
        """Up to how many steps this run has been charged, whether or not it took them."""

    def plan_of(self, run: str) -> Mapping[str, Any]:
        """What this run was begun with, as `PrivacyPlan.to_json` gives it; empty if it was not begun."""

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add an entry and return its position; on return the disk has it."""

    def bind(self, run: str, key: str) -> None:
        """Note by which key, told by its digest, the run draws its noise; from then on refuse any other."""

    def note_sum(self, run: str, other: int, digest: str) -> None:
        """Note to which sum mechanism `other` of the plan adds its noise; from then on refuse any other."""


@dataclass(frozen=True)
class Mend:
    """A ledger that is whole again, and what became of its unfinished line."""

    ledger: "Ledger"
    line: int
    cut: Path | None  # where its bytes are kept; nothing if it lacked only its end and counts


@dataclass
class Run:
    """One run as its entries leave it."""

    begun: Mapping[str, Any]  # the entry
    charged: int = 0  # steps
    key: str = ""  # digest of the key of its noise, as soon as that is used
    sums: dict[int, str] = field(default_factory=dict)  # digests of those beside training, as they are made
    closed: str = ""  # finished, abandoned, or nothing while it may go on
    last: int = 0  # position of its latest entry

    @property
    def planned(self) -> int:
        """The steps of its plan."""
        return int(self.begun["plan"]["steps"])


class Ledger:
    """The verified entries of one ledger file, and the only way to add to it.

    Guarantee: `append` returns after the entry is on disk, and refuses what would hide a cost: steps of a run
    that was not begun or is closed, fewer steps than before, more than the plan's. Several processes may
    append; each sees the others' entries first, where the system has file locks.
    """

    def __init__(self, path: Path) -> None:
        """Use `Ledger.open`, which also verifies."""
        self.path = path
        self.head = GENESIS
        self.runs: dict[str, Run] = {}  # in the order in which they were begun
        self._entries: list[dict[str, Any]] = []
        self._size = 0

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Read and verify the ledger at `path`; one that does not exist yet is empty."""
        ledger = cls(path)
        ledger._read()
        return ledger

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """Every entry so far, oldest first."""
        return tuple(self._entries)

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add an entry and return its position; on return the disk has it."""
        with locked(self.path) as file:
            self._catch_up(file)
            self._admit(entry)
            self._allow(entry)
            line = _seal(
                {
                    "position": len(self._entries),
                    "previous": self.head,
                    "salt": secrets.token_hex(16),
                    "entry": dict(entry),
                }
            )
            _write(file, line + b"\n", self._size, self.path)
            self._accept(line)
        return len(self._entries) - 1

    @classmethod
    def mend(cls, path: Path) -> "Mend":
        """Put right a last line that a power cut left unfinished, and nothing else.

        A line that lacks only its end is given it, and counts. Of any other the beginning is kept in a file
        beside the ledger, then cut off; what it said is unknown. Nothing was done on the strength of it:
        `append` returns only once the disk has the whole line, and no step is taken before it returns. Should
        a disk have lied about that for one ledger of a run, its other ledger still tells: see
        `budget.Account.open`.

        Refused, with the file as it was: a line before it that does not follow, an end that is no beginning
        of the next line, and a ledger that is whole. Whoever can write the file can also cut whole lines off;
        only a published head tells of that.
        """
        ledger = cls(path)
        with locked(path) as file:
            rest = ledger._take_in(file)
            torn = rest.rstrip(b"\0")  # zeros: the file system kept the length and lost the text
            whole, line = ledger._size, len(ledger._entries) + 1
            if not rest:
                raise ConfigError(f"{path} has no unfinished line, so there is nothing to mend.")
            if _is_json(torn):
                ledger._accept(torn)
                os.ftruncate(file, whole + len(torn))
                _write(file, b"\n", whole + len(torn), path)
                return Mend(ledger, line, None)
            if not _begins_line(torn, len(ledger._entries), ledger.head):
                raise PrivacyError(
                    f"{path}, line {line}: what stands after the last whole line is not the beginning of "
                    "another, so no power cut left it. Restore the ledger from a copy."
                )
            kept = path.with_name(f"{path.name}.line-{line}-{hashlib.sha256(rest).hexdigest()[:8]}.torn")
            with locked(kept) as copy:
                os.ftruncate(copy, 0)
                _write(copy, rest, 0, kept)
            os.ftruncate(file, whole)
            os.fsync(file)
        return Mend(ledger, line, kept)

    def charged_steps(self, run: str) -> int:
        """Up to how many steps this run has been charged, whether or not it took them."""
        return self.runs[run].charged if run in self.runs else 0

    def plan_of(self, run: str) -> Mapping[str, Any]:
        """What this run was begun with, as `PrivacyPlan.to_json` gives it; empty if it was not begun."""
        return self.runs[run].begun["plan"] if run in self.runs else {}

    def bind(self, run: str, key: str) -> None:
        """Note by which key, told by its digest, the run draws its noise; from then on refuse any other.

        Two copies of a folder with keys of their own would each learn from every step that was charged once.
        """
        self._read()
        known = self.runs.get(run)
        if known and (known.key == key or (known.closed and not known.key)):
            return  # as noted, or closed before ledgers told keys
        self.append({"kind": "keyed", "run": run, "key": key})

    def note_sum(self, run: str, other: int, digest: str) -> None:
        """Note to which sum the mechanism `other` of the plan adds its noise; from then on refuse any other.

        Its noise is a function of the key. Two copies of a folder that measured the records each in its own
        way, as machines that draw differently do, would add one noise to two sums.
        """
        self._read()
        if run not in self.runs or self.runs[run].sums.get(other) != digest:
            self.append({"kind": "summed", "run": run, "other": other, "digest": digest})

    def finish(self, run: str) -> int:
        """Close a run whose steps were all charged, once; the position of the entry that closed it."""
        known = self.runs.get(run)
        if known and known.closed == "finished":
            return known.last
        if known and known.charged < known.planned:
            raise PrivacyError(
                f"run {run} is charged up to step {known.charged} of {known.planned} in {self.path}, so it "
                "is not finished; go on with it, or abandon it."
            )
        return self.append({"kind": "finished", "run": run})

    def _read(self) -> None:
        if self.path.exists():
            with locked(self.path, to_write=False) as file:
                self._catch_up(file)

    def _allow(self, entry: Mapping[str, Any]) -> None:
        """Refuse a new entry that the owner does not allow; asked under the lock, of new entries only."""

    def _admit(self, entry: Mapping[str, Any]) -> None:
        """Refuse an entry that contradicts those before it."""
        kind, run = entry.get("kind"), entry.get("run")
        if not isinstance(kind, str):
            raise PrivacyError(
                f"a ledger entry says its kind, such as begun, charged or finished; got {entry!r}."
            )
        if kind not in ("begun", "keyed", "charged", "summed", "finished", "abandoned"):
            return
        if not isinstance(run, str) or not run:
            raise PrivacyError(f"a ledger entry of kind {kind} names its run; got {entry!r}.")
        known = self.runs.get(run)
        if kind == "begun":
            if known:
                raise PrivacyError(f"run {run} was already begun in {self.path}.")
            if type(dict(entry.get("plan") or {}).get("steps")) is not int:
                raise PrivacyError(f"run {run} begins with its plan, as PrivacyPlan.to_json gives it.")
            return
        if not known:
            raise PrivacyError(f"run {run} was never begun in {self.path}.")
        if kind == "keyed" and not re.fullmatch("[0-9a-f]{64}", str(entry.get("key"))):
            raise PrivacyError(f"run {run} tells the key of its noise by a SHA-256; got {entry!r}.")
        if kind == "keyed" and known.key not in ("", entry["key"]):
            raise PrivacyError(
                f"run {run} draws its noise by another key, as {self.path} says: another copy of its folder "
                "takes its steps. Go on with that copy, or begin another run in another --out."
            )
        if kind == "summed":
            _check_sum(entry, known.sums, self.path)
        if known.closed and not (kind == "summed" and known.closed == "finished"):  # it was paid for at once
            raise PrivacyError(
                f"run {run} was {known.closed}; nothing more can be charged to it. Begin another."
            )
        if kind == "charged":
            steps = entry.get("steps")
            if type(steps) is not int or not known.charged < steps <= known.planned:
                raise PrivacyError(
                    f"run {run} is charged up to step {known.charged} of {known.planned}; the next charge "
                    f"lies between, got {steps!r}."
                )

    def _catch_up(self, file: int) -> None:
        """Verify what has been added to the file since we last looked."""
        if self._take_in(file):
            raise PrivacyError(
                f"{self.path}, line {len(self._entries) + 1}: the last line is torn, as when power fails. "
                f"What it announced was never done: `dpwavelet ledger mend {self.path}` cuts that unfinished "
                "line off and keeps it beside."
            )

    def _take_in(self, file: int) -> bytes:
        """Verify every whole line that was added, and return what stands after the last of them."""
        size = os.fstat(file).st_size
        if size < self._size:
            raise PrivacyError(
                f"{self.path} has become shorter; a ledger only grows. Restore it from a copy."
            )
        os.lseek(file, self._size, os.SEEK_SET)
        with os.fdopen(os.dup(file), "rb") as stream:
            *lines, torn = stream.read().split(b"\n")
        for line in lines:
            self._accept(line)
        return torn

    def _accept(self, line: bytes) -> None:
        """Take in one complete line, or refuse it with its number."""
        position = len(self._entries)
        try:
            value = json.loads(line)
            if _seal(value) != line or not isinstance(value["entry"], dict):
                raise ValueError("its content is not what was written")
            if (value["position"], value["previous"]) != (position, self.head):
                raise ValueError("it does not follow from the line before it")
            self._admit(value["entry"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DpwaveletError) as error:
            raise PrivacyError(
                f"{self.path}, line {position + 1}: edited or damaged ({error}); what was spent on this data "
                "can no longer be told. Restore the ledger from a copy."
            ) from error
        self._entries.append(value["entry"])
        self.head = hashlib.sha256(line).hexdigest()
        self._size += len(line) + 1
        self._note(value["entry"], position)

    def _note(self, entry: dict[str, Any], position: int) -> None:
        """Keep what an admitted entry says of its run."""
        kind = entry["kind"]
        if kind == "begun":
            self.runs[entry["run"]] = Run(entry, last=position)
        elif kind == "summed":
            self.runs[entry["run"]].sums[entry["other"]] = entry["digest"]
        elif kind in ("keyed", "charged", "finished", "abandoned"):
            run = self.runs[entry["run"]]
            run.last = position
            if kind == "keyed":
                run.key = entry["key"]
            elif kind == "charged":
                run.charged = entry["steps"]
            else:
                run.closed = kind


def _check_sum(entry: Mapping[str, Any], known: Mapping[int, str], path: Path) -> None:
    """Refuse what names no sum, or another than was noted for the same mechanism."""
    other, digest = entry.get("other"), entry.get("digest")
    if type(other) is not int or not re.fullmatch("[0-9a-f]{64}", str(digest)):
        raise PrivacyError(f"a sum is told by the number of its mechanism and a digest; got {dict(entry)!r}.")
    if known.get(other, digest) != digest:
        raise PrivacyError(
            f"run {entry['run']} has added the noise of mechanism {other} beside training to another sum, as "
            f"{path} says: another copy of its folder has measured the records. Go on with that copy, or "
            "begin another run in another --out."
        )


def _seal(value: dict[str, Any]) -> bytes:
    """The one line that spells these values, with a digest of them."""
    content = {name: value[name] for name in ("position", "previous", "salt", "entry")}
    seal = hashlib.sha256(canonical_json(content)).hexdigest()
    return canonical_json({**content, "digest": seal})


def _is_json(text: bytes) -> bool:
    """Whether this is a whole JSON value; no beginning of an object is."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _begins_line(torn: bytes, position: int, head: str) -> bool:
    """Whether these bytes may begin the line at this position, as far as they go."""
    try:
        text = getincrementaldecoder("utf-8")().decode(torn)  # the cut may fall into a character
    except UnicodeDecodeError:
        return False
    start = f'{{"digest":"{"?" * 64}","entry":{{'
    if not _fits(text[: len(start)], start):
        return False
    if len(text) < len(start):
        return True
    try:
        _, end = json.JSONDecoder().raw_decode(text, len(start) - 1)
    except ValueError:  # cut within the entry
        return min(torn) >= ord(" ")
    return _fits(text[end:], f',"position":{position},"previous":"{head}","salt":"{"?" * 32}"}}')


def _fits(text: str, shape: str) -> bool:
    """Whether the text is the beginning of this shape, in which ? is any hexadecimal digit."""
    pairs = zip(text, shape, strict=False)
    return len(text) <= len(shape) and all(
        own == wanted or (wanted == "?" and own in hexdigits) for own, wanted in pairs
    )


def _write(file: int, line: bytes, size: int, path: Path) -> None:
    """Put one line at the end and on the disk; a failure leaves the file as it was."""
    try:
        if os.write(file, line) != len(line):
            raise OSError(errno.ENOSPC, "the disk is full")
        os.fsync(file)
        if not size:
            sync_folder(path.parent)
    except OSError as error:
        os.ftruncate(file, size)
        raise OutputError(
            f"cannot write {path}: {error.strerror}; nothing was charged. Free space and resume."
        ) from error


@contextmanager
def locked(path: Path, to_write: bool = True) -> Iterator[int]:
    """The open file: ours alone until the block ends, or, for reading, free of half-written lines.

    Whoever comes second waits, where the system has file locks.
    """
    try:
        if to_write:
            _make_folder(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        else:
            file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"cannot open {path}: {error.strerror}; without a ledger nothing is spent."
        ) from error
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX if to_write else fcntl.LOCK_SH)
        yield file
    finally:
        os.close(file)


def _make_folder(folder: Path) -> None:
    """Make a folder that only the owner may enter, if it is missing, and make its name durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
