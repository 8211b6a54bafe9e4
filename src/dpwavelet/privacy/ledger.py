"""What has been done to one private data set, in the order it was done: append-only, hash-chained JSON lines.

Each line holds a SHA-256 of its own content and one of the line before it, so a line that is changed, dropped
from the middle or slipped in is found by number; the head digest, written into a certificate, pins the end
against someone who recomputes them all. Each line carries a random salt, so a published digest says nothing
about the entries under it. The ledger itself is private.

A run is begun, charged in blocks of steps before they are taken, and finished:

    ledger = Ledger.open(private / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": run, "plan": plan.to_json()})
    ledger.append({"kind": "charged", "run": run, "steps": 50})  # before steps 0 to 49
    ledger.append({"kind": "finished", "run": run})

Any other kind of entry (a histogram, an evaluation) is kept as it comes.
"""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpwavelet.checkpoint import canonical_json
from dpwavelet.errors import OutputError, PrivacyError

if sys.platform != "win32":
    import fcntl

GENESIS = "0" * 64  # the "previous" digest of the first line


class Ledger:
    """The verified entries of one ledger file, and the only way to add to it.

    Guarantee: `append` returns after the entry is on disk, and refuses what would hide a cost: steps of a run
    that was not begun or has finished, fewer steps than before, more than the plan's. Several processes may
    append; each sees the others' entries first, where the system has file locks.
    """

    def __init__(self, path: Path) -> None:
        """Use `Ledger.open`, which also verifies."""
        self.path = path
        self.head = GENESIS
        self._entries: list[dict[str, Any]] = []
        self._size = 0

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Read and verify the ledger at `path`; one that does not exist yet is empty."""
        ledger = cls(path)
        if path.exists():
            ledger._catch_up(path.read_bytes())
        return ledger

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """Every entry so far, oldest first."""
        return tuple(self._entries)

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add an entry and return its position; on return the disk has it."""
        with self._locked() as file:
            self._catch_up(self.path.read_bytes())
            self._admit(entry)
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

    def charged_steps(self, run: str) -> int:
        """Up to how many steps this run has been charged, whether or not it took them."""
        return max((entry["steps"] for entry in self._of(run, "charged")), default=0)

    def _of(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self._entries if entry.get("run") == run and entry.get("kind") == kind]

    def _admit(self, entry: Mapping[str, Any]) -> None:
        """Refuse an entry that contradicts those before it."""
        kind, run = entry.get("kind"), entry.get("run")
        if not isinstance(kind, str):
            raise PrivacyError(
                f"a ledger entry says its kind, such as begun, charged or finished; got {entry!r}."
            )
        if kind not in ("begun", "charged", "finished"):
            return
        if not isinstance(run, str) or not run:
            raise PrivacyError(f"a ledger entry of kind {kind} names its run; got {entry!r}.")
        begun = self._of(run, "begun")
        if bool(begun) == (kind == "begun"):
            raise PrivacyError(f"run {run} was {'already' if begun else 'never'} begun in {self.path}.")
        if self._of(run, "finished"):
            raise PrivacyError(f"run {run} has finished; nothing more can be charged to it. Begin another.")
        if kind == "charged":
            steps, before, planned = entry.get("steps"), self.charged_steps(run), begun[0]["plan"]["steps"]
            if type(steps) is not int or not before < steps <= planned:
                raise PrivacyError(
                    f"run {run} is charged up to step {before} of {planned}; the next charge lies between, "
                    f"got {steps!r}."
                )
        if kind == "begun" and type(dict(entry.get("plan") or {}).get("steps")) is not int:
            raise PrivacyError(f"run {run} begins with its plan, as PrivacyPlan.to_json gives it.")

    def _catch_up(self, content: bytes) -> None:
        """Verify what has been added to the file since we last looked."""
        if len(content) < self._size:
            raise PrivacyError(
                f"{self.path} has become shorter; a ledger only grows. Restore it from a copy."
            )
        lines = content[self._size :].split(b"\n")
        for line in lines[:-1]:
            self._accept(line)
        if lines[-1]:
            raise PrivacyError(
                f"{self.path}, line {len(self._entries) + 1}: the last line is torn, as when power fails. "
                "What it announced was never done: delete that unfinished line, then go on."
            )

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
        except (ValueError, KeyError, TypeError, PrivacyError) as error:
            raise PrivacyError(
                f"{self.path}, line {position + 1}: edited or damaged ({error}); what was spent on this data "
                "can no longer be told. Restore the ledger from a copy."
            ) from error
        self._entries.append(value["entry"])
        self.head = hashlib.sha256(line).hexdigest()
        self._size += len(line) + 1

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, ours alone until the block ends."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise OutputError(
                f"cannot open {self.path}: {error.strerror}; without a ledger nothing is spent."
            ) from error
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _seal(value: dict[str, Any]) -> bytes:
    """The one line that spells these values, with a digest of them."""
    content = {name: value[name] for name in ("position", "previous", "salt", "entry")}
    seal = hashlib.sha256(canonical_json(content)).hexdigest()
    return canonical_json({**content, "digest": seal})


def _write(file: int, line: bytes, size: int, path: Path) -> None:
    """Put one line at the end and on the disk; a failure leaves the file as it was."""
    try:
        if os.write(file, line) != len(line):
            raise OSError(28, "the disk is full")
        os.fsync(file)
        if not size and sys.platform != "win32":
            _sync_folder(path.parent)
    except OSError as error:
        os.ftruncate(file, size)
        raise OutputError(
            f"cannot write {path}: {error.strerror}; nothing was charged. Free space and resume."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
