"""One cell, computed in a process of its own: train, draw, measure, write. So each has its own peak memory.

    cells/NAME.json           identity and numbers
    cells/NAME.safetensors    its pictures, for sheets and for other judges
    ledgers/NAME.jsonl        what the cell was charged
    work/NAME/                checkpoint and key of the noise, until the cell is done

A cell that was interrupted goes on from its checkpoint, and is charged nothing twice.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dpwavelet.checkpoint import read_json, write_json, write_tensors
from dpwavelet.comparison.cells import Cell, fingerprint, numbers_file, pictures_file
from dpwavelet.comparison.consent import LEDGERS
from dpwavelet.comparison.machine import machine
from dpwavelet.comparison.measures import AT_ONCE, HeldOut, Judge, Numbers, judge_of, some_of
from dpwavelet.comparison.methods import Method, open_system, weights_digest
from dpwavelet.comparison.settings import PLAIN_PACE, Computing
from dpwavelet.comparison.speed import REHEARSED, Speed, rehearse
from dpwavelet.comparison.stopwatch import Stopwatch, peak_memory
from dpwavelet.errors import DataError, DpwaveletError, ModelError, OutputError
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.memory import keep_freed_memory
from dpwavelet.pipeline.accounts import open_account
from dpwavelet.pipeline.books import Books
from dpwavelet.pipeline.bought import NO_CLASS, Generated, Prepared
from dpwavelet.pipeline.kept import noted
from dpwavelet.pipeline.likeness import CHOICES, DRAWN, Likeness, buy, measure
from dpwavelet.pipeline.purchase import once
from dpwavelet.pipeline.refusals import check_accountant
from dpwavelet.pipeline.settings import spread
from dpwavelet.privacy.budget import Account
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.ranks import device_named
from dpwavelet.rivals.base import Rival
from dpwavelet.training.resuming import kept_source

REPEAT = "Restore them, or repeat the command for a table of what is there now."

J = TypeVar("J")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell and where everything lies."""

    cell: Cell
    place: Path | None  # of the public weights; nothing for real pictures
    image_size: int
    data: Path
    split: str
    held_out: str
    pictures: int
    features: str | None
    out: Path
    computing: Computing
    at_once: int  # cells that are computed beside one another
    owned: str | None  # fingerprint of private images, whose own ledger is charged too
    ledger: Path | None  # the folder of that ledger
    allow: tuple[str, ...]  # refusals that the owner overruled


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A method whose speed is to be told, and the file to tell it in."""

    method: Method
    place: Path
    image_size: int
    path: Path
    computing: Computing


class Work(Protocol):
    """Whoever calls a function with its job, here or elsewhere."""

    def __call__(self, function: Callable[[J], None], job: J) -> None:
        """Return when it is done; an error of the function is raised here."""


def in_child(function: Callable[[J], None], job: J) -> None:
    """In a fresh process, which ends afterwards, or with this one if that is killed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            refused = pool.submit(_refusal, function, job).result()
        except BrokenProcessPool as error:
            raise OutputError(
                "the process of a cell was ended from outside, as when memory runs out. Cells that are done "
                "are kept; repeat the command to go on."
            ) from error
    if refused is not None:
        kind, message = refused
        raise kind(message)


def _end_with_parent() -> None:
    """End this process with the one that began it. Left alone it would train on in a folder that is free."""
    parent = parent_process()
    assert parent is not None
    Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _refusal(function: Callable[[J], None], job: J) -> tuple[type[DpwaveletError], str] | None:
    """Call, and tell an error of ours in a form that another process can read."""
    try:
        function(job)
    except DpwaveletError as error:
        kind = next(each for each in type(error).__mro__ if each.__module__ == DpwaveletError.__module__)
        return kind, str(error)
    return None


def compute(job: Job) -> None:
    """Compute a cell and write its files, the JSON last."""
    _use(job.computing)
    held_out = PrivateImages.open(job.data, job.image_size, job.held_out)
    _check_images(job, held_out, job.held_out, "held_out")
    asked = HeldOut.read(held_out, job.pictures)
    if job.cell.method is None:
        numbers = _real(job, judge_of(asked, job.features))
    else:
        numbers, pictures = _generated(job, held_out, asked)
        write_tensors(pictures_file(job.out, job.cell.digest), {"pictures": pictures})
    write_json(
        numbers_file(job.out, job.cell.digest),
        {
            "identity": job.cell.identity,
            "threads": torch.get_num_threads(),
            "compiled": job.computing.compiled,
            "at_once": job.at_once,
            "machine": machine(job.computing.device),
            "numbers": numbers,
        },
    )
    if (left := _folder(job)).exists():
        shutil.rmtree(left)


def tell_speed(job: Rehearsal) -> None:
    """Rehearse a method on drawn portraits and write down how fast it trains."""
    _use(job.computing)
    rival = _opened(job.method, job.place, job.computing)
    with TemporaryDirectory(prefix="dpwavelet-") as name:
        folder = Path(name)
        draw_to(folder / "portraits", REHEARSED, seed=0, size=job.image_size, workers=1)
        portraits = PrivateImages.open(folder / "portraits", job.image_size)
        write_json(job.path, asdict(rehearse(rival, portraits, folder)))


def read_speed(path: Path) -> Speed:
    """What `tell_speed` wrote."""
    return Speed(**read_json(path))


def _real(job: Job, judge: Judge) -> Numbers:
    """Records that were trained on, as if somebody had generated them: what a perfect generator reaches."""
    images = PrivateImages.open(job.data, job.image_size, job.split)
    _check_images(job, images, job.split, "data")
    chosen = some_of(images, len(judge.held_out.pixels), "real against real", job.cell.seed)
    labels = [images.label(index) for index in chosen]
    found = judge.numbers(images.pixels(chosen), labels, paired=False)
    return {"pictures": float(len(chosen)), **found}


def _check_images(job: Job, images: PrivateImages, split: str, what: str) -> None:
    """Refuse records that are not those the cell was named by: they are opened again, perhaps hours later."""
    if fingerprint(images) != job.cell.identity[what]:
        raise DataError(
            f"the images of the split {split!r} in {job.data} are not those that this table was begun with. "
            f"{REPEAT}"
        )


def _generated(job: Job, held_out: PrivateImages, asked: HeldOut) -> tuple[Numbers, Tensor]:
    assert job.cell.method is not None and job.place is not None
    if weights_digest(job.place) != job.cell.identity["weights"]:
        raise ModelError(f"the weights in {job.place} are not those that this table was begun with. {REPEAT}")
    rival = _opened(job.cell.method, job.place, job.computing)
    costs: Numbers = {"trained_parameters": None}
    likeness = None
    if job.cell.method.trained:
        costs["trained_parameters"] = float(rival.trained_parameters)
        rival, likeness, more = _trained(job, rival, asked.captions)
        costs |= more
    costs.setdefault("peak_bytes", peak_memory(device_named(job.computing.device)))
    started = time.perf_counter()
    pictures = _drawn(rival, likeness, list(asked.captions), job.cell.seed)
    costs["pictures_a_second"] = len(pictures) / (time.perf_counter() - started)
    costs["own_loss"] = rival.held_out_loss(rival.prepare(held_out))
    found = judge_of(asked, job.features).numbers(pictures, asked.labels, paired=True)
    return {"pictures": float(len(pictures)), **found, **costs}, pictures


def _drawn(rival: Rival[Any], likeness: Likeness | None, captions: list[str], seed: int) -> Tensor:
    """Pictures of captions, each one of several where there is a likeness to choose by."""
    if likeness is None:
        return rival.draw(captions, seed)
    return likeness.choose(lambda other: (rival.draw(captions, other),), seed, CHOICES)[0]


def _trained(
    job: Job, rival: Rival[Any], captions: Sequence[str]
) -> tuple[Rival[Any], Likeness | None, Numbers]:
    """The system after training on the records, privately if the cell has a plan, and what it took.

    With it what its pictures are chosen by, if the plan pays for that.
    """
    cell = job.cell
    images = PrivateImages.open(job.data, job.image_size, job.split)
    images = images.holding(images.digests())  # first: a file that changes after the check is refused then
    _check_images(job, images, job.split, "data")
    started = time.perf_counter()
    records = rival.prepare(images)
    preparing = time.perf_counter() - started
    costs: Numbers = {"seconds_to_prepare": preparing}
    if cell.plan is not None:  # the accountant's own time is the same for every method, and is not counted
        costs |= {
            "spent": cell.plan.pld_epsilon,
            "delta": cell.plan.delta,
            "noise_multiplier": cell.plan.noise_multiplier,
        }
    device = device_named(job.computing.device)
    watch = Stopwatch(_folder(job) / "seconds.json", lambda: peak_memory(device))
    if cell.plan is None:
        rival = rival.train_plainly(
            records, steps=cell.steps, batch_size=cell.batch_size, seed=cell.seed, pace=PLAIN_PACE
        )
    else:
        rival = _privately(job, cell.plan, rival, records, watch)
        costs["clipped"] = watch.clipped
    seconds = watch.seconds
    costs["peak_bytes"] = watch.peak_bytes
    likeness = _likeness(job, rival, images, captions, watch) if cell.chooses else None
    seen = cell.steps * cell.batch_size
    return (
        rival,
        likeness,
        {
            **costs,
            "seconds": preparing + seconds + watch.measuring,
            "seconds_per_1000": 1000 * seconds / seen,
            "records_seen": float(seen),
        },
    )


def _likeness(
    job: Job, rival: Rival[Any], images: PrivateImages, captions: Sequence[str], watch: Stopwatch
) -> Likeness:
    """What the only sum beside training in the plan of the cell tells of the records; it was charged with it.

    The exact sum lies in the folder before noise is made, and the ledgers know it, as they know the key of
    the noise: a cell that is resumed, and one whose folder was copied, have one sum for one noise.
    """
    plan, folder, space = job.cell.plan, _folder(job), extractor()
    run, source = _name_run(job.cell, job.out), kept_source(folder)
    assert plan is not None

    def measured() -> Prepared:
        started = time.perf_counter()
        drawn = space.rows_of_any(rival.draw(spread(tuple(captions), DRAWN), job.cell.seed + 1))
        records = np.concatenate([space.rows_of_any(pixels) for _, pixels in images.batches(AT_ONCE)])
        total = measure(drawn, records, None)
        watch.measured(time.perf_counter() - started)
        return Prepared(Generated(drawn, np.full(len(drawn), NO_CLASS)), total)

    prepared = once(folder / "moments.safetensors", run, measured)
    total = noted(prepared.total, _account(job, plan), run, 0, source)
    return buy(total, prepared.generated.rows, plan, 0, source, space.digest)


def _privately(job: Job, plan: PrivacyPlan, rival: Rival[Any], records: Any, watch: Stopwatch) -> Rival[Any]:
    """Train under the cell's own plan, charged to its own ledger and, of private images, to theirs."""
    run = _name_run(job.cell, job.out)
    ledger = _account(job, plan)
    trained = rival.train(records, plan, _folder(job), ledger, run, watch.told)
    watch.keep()
    ledger.finish(run)
    return trained


def _account(job: Job, plan: PrivacyPlan) -> Ledger | Account:
    """The cell's own ledger and, of private images, theirs; begun, if the cell was not."""
    folder = _folder(job)
    own = Ledger.open(job.out / LEDGERS / f"{job.cell.digest}.jsonl")
    run = _name_run(job.cell, job.out)
    check_accountant(own, run, folder)
    if job.owned is None:
        if run not in own.runs:
            own.append({"kind": "begun", "run": run, "plan": plan.to_json()})
        return own
    books = Books.open(job.data, job.split, job.ledger)
    if books.ledger.images != job.owned:
        raise DataError(f"the images in {job.data} are not those that this table was begun with. {REPEAT}")
    account = open_account(books, own, run, plan, f"compare: {job.cell.name}", job.allow)
    check_accountant(own, run, folder)
    return account


def begun_as(cell: Cell, out: Path) -> str | None:
    """What the ledgers call the training of this cell in `out`; nothing before it is named."""
    own = Ledger.open(out / LEDGERS / f"{cell.digest}.jsonl")
    if own.runs:
        return next(iter(own.runs))
    path = _work(cell, out) / "id.json"
    return str(read_json(path)["run"]) if path.is_file() else None


def _name_run(cell: Cell, out: Path) -> str:
    """The name that it has, or a new one.

    No other folder has the same name for it: each has a key of its own, so each must be charged.
    """
    if (known := begun_as(cell, out)) is not None:
        return known
    run = f"{cell.digest}-{secrets.token_hex(8)}"
    write_json(_work(cell, out) / "id.json", {"run": run})
    return run


def _folder(job: Job) -> Path:
    return _work(job.cell, job.out)


def _work(cell: Cell, out: Path) -> Path:
    return out / "work" / cell.digest


def _use(computing: Computing) -> None:
    keep_freed_memory()
    if computing.threads is not None:
        torch.set_num_threads(computing.threads)


def _opened(method: Method, folder: Path, computing: Computing) -> Rival[Any]:
    rival = open_system(method, folder).rival
    return rival.computing(device_named(computing.device), computing.compiled)
