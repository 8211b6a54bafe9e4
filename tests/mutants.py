"""Plant each deliberate break of `breaks` in a copy of the code, and see its tests fail.

    python tests/mutants.py [--only TEXT] [--jobs 2] [--list | --markdown]

A break is caught when every test named for it fails in its own body, by an assertion or by an error that the
code raises. A test that cannot be collected, is skipped or fails in its set-up, a misspelt name in the break
and a run without end prove nothing and count as not caught. First, all these tests must pass unbroken.

Every break gets a process of its own, forked after the large libraries were imported and before ours is, so
that it costs little more than its tests. Nothing outside a temporary folder is written.
"""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
from breaks import BREAKS, Break

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 3600  # seconds that one process may take, the one that runs all tests unbroken too
LARGE = (
    "torch",
    "scipy.stats",
    "dp_accounting.pld.privacy_loss_distribution",
    "dp_accounting.rdp",
    "PIL.Image",
)
CARELESS = (
    "NameError",
    "UnboundLocalError",
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "TypeError",
    "AttributeError",
)
"""What a carelessly written break raises; no test is proved by it."""

CAUGHT, PASSED = "caught", "passed"
SINGLE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Unfit(Exception):
    """A break or a test that can prove nothing as it stands."""


def planted(text: str, one: Break) -> str:
    """The source with the break in it; the old text must be there exactly once."""
    if (found := text.count(one.old)) != 1:
        raise Unfit(f"stale: {one.file} holds the old text {found} times; bring it up to date")
    broken = text.replace(one.old, one.new)
    try:
        compile(broken, one.file, "exec")
    except SyntaxError as error:
        raise Unfit(f"{one.file} would be no Python any more: {error}") from error
    return broken


def package(root: Path) -> Path:
    """The one package below src/."""
    (found,) = (path.parent for path in (root / "src").glob("*/__init__.py"))
    return found


def markdown(chosen: Sequence[Break] = BREAKS) -> str:
    """The table of docs/guarantee.md."""
    rows = ["| break | what it would mean | caught by |", "| --- | --- | --- |"]
    for one in chosen:
        tests = "<br>".join(f"`{test}`" for test in one.tests)
        rows.append(f"| {one.name} | {one.why} | {tests} |")
    return "\n".join(rows) + "\n"


class _Seen:
    """Notes how the tests of one run went."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.unproved: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(f"{report.nodeid} cannot be collected", report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash else str(report.longrepr)
        if report.when == "call" and report.failed and not message.startswith(CARELESS):
            self.failed.append(message)
        elif report.failed or report.skipped:
            self._note(f"{report.nodeid} proves nothing in its {report.when}", message)
        elif report.when == "call":
            self.passed += 1

    def _note(self, what: str, message: str) -> None:
        self.unproved.append(f"{what}: {' '.join(message.split())[-300:]}")  # one line, and its end says why


def _trial(tests: Sequence[str]) -> str:
    """`caught` if a test fails, `passed` if all pass, or why neither can be said."""
    seen = _Seen()
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "--maxfail=1"]
    code = pytest.main([*options, *(f"tests/{test}" for test in tests)], plugins=[seen])
    if seen.unproved:
        return seen.unproved[0]
    if seen.failed:
        return CAUGHT
    return PASSED if code == 0 and seen.passed else f"no test ran: pytest ended with {code}"


def _child(answer: Connection, copy: Path, name: str, trials: Sequence[Sequence[str]]) -> None:
    """Run the trials on the copy, in a process that has not imported our package yet."""
    signal.alarm(LONGEST)
    os.chdir(copy)
    os.environ.update(SINGLE | {"PYTHONPATH": str(copy / "src"), "CI": "true"})
    sys.dont_write_bytecode = True
    ours = [str(ROOT / "src"), str(ROOT / "tests")]
    sys.path[:] = [str(copy / "src"), *(path for path in sys.path if path not in ours)]
    log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    found = [_trial(tests) for tests in trials]
    origin = getattr(sys.modules.get(name), "__file__", None) or "nowhere"
    if not Path(origin).resolve().is_relative_to(copy.resolve()):
        found = [f"the tests imported {name} from {origin}, not from the copy"]
    answer.send(found)


class _Trials:
    """Copies of the code, and the processes that run tests on them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.name = package(ROOT).name
        self.copies = [folder / str(job) for job in range(jobs)]
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        for copy in self.copies:
            for part in ("src", "tests"):
                shutil.copytree(ROOT / part, copy / part, ignore=ignored)
            shutil.copy(ROOT / "pyproject.toml", copy)

    def unbroken(self, tests: Sequence[str]) -> None:
        """Raise unless all tests pass on the code as it is."""
        answer = self._start(self.copies[0], [tests])
        wait([answer])
        (found,) = self._read(answer)
        if found != PASSED:
            log = (self.copies[0] / "log").read_text(encoding="utf-8", errors="replace")
            raise Unfit(f"{log[-3000:]}\nwithout any break, not all tests pass: {found}")

    def verdicts(self, chosen: Sequence[Break]) -> Iterator[tuple[Break, str]]:
        """Every break with `caught` or what else came of it, as they end."""
        waiting, free = list(reversed(chosen)), list(self.copies)
        running: dict[Connection, tuple[Break, Path, str]] = {}
        while waiting or running:
            while waiting and free:
                one, copy = waiting.pop(), free[-1]
                path = package(copy) / one.file
                whole = path.read_text(encoding="utf-8")
                try:
                    path.write_text(planted(whole, one), encoding="utf-8")
                except Unfit as error:
                    yield one, str(error)
                else:
                    running[self._start(free.pop(), [[test] for test in one.tests])] = one, copy, whole
            for answer in wait(list(running)):
                assert isinstance(answer, Connection)
                one, copy, whole = running.pop(answer)
                found = self._read(answer)
                (package(copy) / one.file).write_text(whole, encoding="utf-8")
                free.append(copy)
                yield one, _verdict(one, found)

    def _start(self, copy: Path, trials: Sequence[Sequence[str]]) -> Connection:
        forked = get_context("fork")
        ours, theirs = forked.Pipe(duplex=False)
        forked.Process(target=_child, args=(theirs, copy, self.name, trials), daemon=False).start()
        theirs.close()
        return ours

    def _read(self, answer: Connection) -> list[str]:
        try:
            found: list[str] = answer.recv()
        except EOFError:
            found = [f"the tests crashed, or did not end within {LONGEST} s"]
        return found


def _verdict(one: Break, found: Sequence[str]) -> str:
    if survived := [test for test, result in zip(one.tests, found, strict=False) if result == PASSED]:
        return f"SURVIVED {', '.join(survived)}"
    return next((result for result in found if result != CAUGHT), CAUGHT)


def main() -> int:
    """Judge the breaks and print a line for each; 1 if any was not caught."""
    parser = argparse.ArgumentParser(description="Plant deliberate breaks and see the tests fail.")
    parser.add_argument("--only", default="", metavar="TEXT", help="breaks whose name or file contains TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="breaks tried at once")
    parser.add_argument("--list", action="store_true", help="name the breaks and stop")
    parser.add_argument("--markdown", action="store_true", help="write the table of docs/guarantee.md")
    asked = parser.parse_args()
    chosen = [one for one in BREAKS if asked.only in one.name or asked.only in one.file]
    if not chosen:
        parser.error(f"no break is named like {asked.only!r}; --list names them")
    if asked.markdown:
        print(markdown(chosen), end="")
    elif asked.list:
        print("\n".join(f"{one.file:28} {one.name}" for one in chosen))
    else:
        return _judge(chosen, asked.jobs)
    return 0


def _judge(chosen: Sequence[Break], jobs: int) -> int:
    os.environ.update(SINGLE)
    for name in LARGE:
        with suppress(ImportError):
            importlib.import_module(name)
    caught = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trials = _Trials(Path(folder), max(1, min(jobs, len(chosen))))
        try:
            trials.unbroken(sorted({test for one in chosen for test in one.tests}))
        except Unfit as error:
            print(error)
            return 1
        for one, found in trials.verdicts(chosen):
            caught += found == CAUGHT
            print(f"{found:8} {one.file:28} {one.name}", flush=True)
    print(f"{caught} of {len(chosen)} breaks are caught.")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
