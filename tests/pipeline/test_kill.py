"""SIGKILL at any moment of a run: it goes on to the same end, and never leaves half a release.

What a killed run leaves changes only where it makes, writes, flushes, renames or removes a file or folder. So
a life ends just before one of these operations, or in the middle of a file; which one is drawn by chance. A
kill between two of them leaves what a kill before the second leaves.
"""

import multiprocessing
import os
import random
import signal
import sys
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from dpwavelet.checkpoint import digest, read_json, read_tensors
from dpwavelet.memory import keep_freed_memory
from dpwavelet.pipeline import RunSettings, Silent, declared, make_plan, purchase, run
from dpwavelet.privacy.certificate import statement
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Key, Source
from dpwavelet.report.page import template
from dpwavelet.training import PrivateTraining, loop, resuming

KILLS, KILLS_A_RUN = 50, 5
PAGE = 4096  # bytes; a shorter write, as that of a ledger's line, is not cut in the middle by a kill
STEPS, CHARGED = 6, 2  # steps of the run, and how many are charged at once
FEW = 40  # pictures by which what is bought is measured
RUN, PRIVATE = "run", Path("run") / "private"
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="finds the path of an open file in /proc")


@dataclass
class Moment:
    """What stands on the disk when a life has ended."""

    status: int  # 0, or the negative signal
    ledgers: list[list[tuple[str, int | None]]]  # the run's own and that of the data set: kinds and steps
    steps: int  # of the checkpoint
    key: str | None
    release: bool | None  # whether it verifies; none if there is none
    unfinished: int  # folders in which a release was being built
    finished: bool  # nothing is left to do, though the life may have been taken after that


@dataclass
class Outcome:
    """One run from its beginning, through every kill, to its end."""

    moments: list[Moment] = field(default_factory=list)
    weights: str = ""
    model: str = ""
    epsilon: float = 0.0


@pytest.fixture(scope="module")
def outcomes(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """A run that nobody killed, and as many others as it takes to be killed fifty times."""
    wanted = RunSettings(
        epsilon=2.0, records=120, model=str(tiny_model), batch_size=60, steps=STEPS, samples=2,
        captions=("a woman with red hair",), judged=0, release_metrics=("fd",), metrics_epsilon=0.5,
        training=PrivateTraining(chunk=64, mixed_precision=False, charge_every=CHARGED),
    )  # fmt: skip
    warm = multiprocessing.get_context("forkserver")
    warm.set_forkserver_preload(["dpwavelet.pipeline"])
    ours, theirs = warm.Pipe()
    process = warm.Process(
        target=_nursery, args=(portraits, tmp_path_factory.mktemp("kills"), wanted, theirs)
    )
    process.start()
    theirs.close()
    found: list[Outcome] = ours.recv()
    process.join()
    return found


@pytest.mark.slow
@LINUX_ONLY
class TestKill:
    """A run that is killed fifty times, here and there."""

    def test_every_run_ends_with_the_weights_of_the_run_that_nobody_killed(
        self, outcomes: list[Outcome]
    ) -> None:
        killed = sum(moment.status == -signal.SIGKILL for outcome in outcomes for moment in outcome.moments)
        assert killed == KILLS
        assert [moment.status for moment in outcomes[0].moments] == [0]
        assert all(outcome.moments[-1].finished for outcome in outcomes)
        assert len({outcome.weights for outcome in outcomes}) == 1
        assert len({outcome.model for outcome in outcomes}) == 1

    def test_no_step_is_charged_twice_or_dropped_and_epsilon_is_the_planned_one(
        self, outcomes: list[Outcome]
    ) -> None:
        charges = [("charged", steps) for steps in range(CHARGED, STEPS + 1, CHARGED)]
        whole = [("begun", None), ("keyed", None), *charges, ("summed", None), ("finished", None)]
        for outcome in outcomes:
            ledgers = outcome.moments[-1].ledgers
            told = ([entry for entry in each if entry[0] != "key deleted"] for each in ledgers)
            assert list(told) == [whole, whole]
            assert outcome.moments[-1].release is True  # its epsilon was computed anew
            assert outcome.epsilon == outcomes[0].epsilon <= 2.0

    def test_at_every_kill_the_ledgers_tell_what_was_begun_and_the_release_is_whole_or_absent(
        self, outcomes: list[Outcome]
    ) -> None:
        for moment in (moment for outcome in outcomes for moment in outcome.moments):
            assert moment.release is not False
            for ledger in moment.ledgers:
                charged = max((steps for _, steps in ledger if steps), default=0)
                assert moment.steps <= charged <= min(moment.steps + CHARGED, STEPS)
                assert len(set(ledger)) == len(ledger)

    def test_the_key_of_the_noise_never_changes_once_a_step_was_charged(
        self, outcomes: list[Outcome]
    ) -> None:
        for outcome in outcomes:
            keys = [moment.key for moment in outcome.moments if any(s for _, s in moment.ledgers[0])]
            assert len(set(keys)) == 1
            assert None not in keys

    def test_half_a_release_is_removed_by_the_life_that_finishes_it(self, outcomes: list[Outcome]) -> None:
        assert any(moment.unfinished for outcome in outcomes for moment in outcome.moments)
        assert not any(outcome.moments[-1].unfinished for outcome in outcomes)

    def test_the_kills_fell_before_between_and_after_the_steps(self, outcomes: list[Outcome]) -> None:
        killed = [m for outcome in outcomes for m in outcome.moments if m.status]
        assert {m.steps for m in killed} >= {0, 2, 4, 6}
        assert any(not ledger for m in killed for ledger in m.ledgers)
        assert any(m.ledgers[0] and m.ledgers[0][-1][0] == "finished" for m in killed)


def _nursery(data: Path, folder: Path, wanted: RunSettings, reply: Connection) -> None:
    """Let runs live and die, as copies of this process, which has imported and accounted but not computed."""
    try:
        reply.send(_outcomes(data, folder, wanted))
    except BaseException:
        traceback.print_exc()
        raise


def _outcomes(data: Path, folder: Path, wanted: RunSettings) -> list[Outcome]:
    keep_freed_memory()
    plan = make_plan(wanted, declared(wanted, 0))
    statement(plan)
    for name, escape in (("page.html", True), ("card.md", False)):
        template(name, escape=escape)
    chance = random.Random(0)
    whole = Outcome([_life(data, folder / "whole", wanted, None, False)])
    operations = int((folder / "whole" / "operations").read_text())
    outcomes, left = [whole], KILLS
    while left:
        place = folder / str(len(outcomes))
        outcome, spared = Outcome(), max(left - KILLS_A_RUN, 0)
        while not outcome.moments or not outcome.moments[-1].finished:
            last = chance.randrange(chance.choice((16, 40, operations))) if left > spared else None
            outcome.moments.append(_life(data, place, wanted, last, chance.random() < 0.3))
            left -= outcome.moments[-1].status != 0
        outcomes.append(outcome)
    for outcome, place in zip(outcomes, ("whole", *map(str, range(1, len(outcomes)))), strict=True):
        outcome.weights = digest(folder / place / PRIVATE / "checkpoint" / "state.safetensors")
        outcome.model = digest(folder / place / RUN / "release" / "model" / "transformer.safetensors")
        outcome.epsilon = read_json(folder / place / RUN / "release" / "certificate.json")["epsilon_pld"]
    return outcomes


def _life(data: Path, place: Path, wanted: RunSettings, last: int | None, torn: bool) -> Moment:
    """Run or resume until the operation of number `last`, and look at what is left."""
    place.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            os.environ["DPWAVELET_LEDGERS"] = str(place / "ledgers")
            operations = _die_at(last, place, torn)
            double = _predictable(place / PRIVATE / "ledger.jsonl")
            loop.Source = resuming.Source = double  # type: ignore[misc]
            purchase.DRAWN = FEW
            run(data, place / RUN, wanted, Silent())
            (place / "operations").write_text(str(operations[0]))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the run did not go on"
    return _look(place, status)


def _look(place: Path, status: int) -> Moment:
    ledgers = [place / PRIVATE / "ledger.jsonl", *(place / "ledgers").glob("*.jsonl")]
    entries = [[(e["kind"], e.get("steps")) for e in Ledger.open(path).entries] for path in ledgers]
    key, state = (place / PRIVATE / "checkpoint" / name for name in ("run.json", "state.safetensors"))
    release = place / RUN / "release"
    return Moment(
        status,
        entries + [[]] * (2 - len(entries)),
        int(read_tensors(state)["steps"]) if state.exists() else 0,
        read_json(key)["key"] if key.exists() else None,
        verify_release(release).ok if release.exists() else None,
        len(list((place / RUN).glob(".release.*"))),
        status == 0 or (release.exists() and (place / PRIVATE / "report.json").exists()),
    )


def _die_at(last: int | None, place: Path, torn: bool) -> list[int]:
    """Count what changes files below `place`, and die just before operation `last`.

    If `torn`, in the middle of writing the first file from there on that is long enough to have a middle.
    """
    count = [0]
    kinds = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link")

    def operation(path: object, file: int | None = None) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(str(place)):
            return
        if last is not None and count[0] >= last:
            long = file is not None and os.fstat(file).st_size > PAGE and Path(path).suffix != ".jsonl"
            if torn and file is not None and long:
                os.ftruncate(file, os.fstat(file).st_size // 2)
            if long or not torn:
                os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in kinds or writes:
            operation(arguments[0])

    def on_open_file(original: Any) -> Any:
        def replacement(file: int, *arguments: Any) -> Any:
            operation(Path(f"/proc/self/fd/{file}").readlink(), file)
            return original(file, *arguments)

        return replacement

    os.fsync, os.write = on_open_file(os.fsync), on_open_file(os.write)
    sys.addaudithook(heard)
    return count


def _predictable(ledger: Path) -> type[Source]:
    """A source that makes the same key each time, until steps were charged: then a new one is a mistake."""

    class Predictable(Source):
        def __init__(self, key: Key | None = None) -> None:
            charged = ledger.exists() and '"kind":"charged"' in ledger.read_text()
            super().__init__(key or (os.urandom(32) if charged else b"predictable, for this test only."))

    return Predictable
