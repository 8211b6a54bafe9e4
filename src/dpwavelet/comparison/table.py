"""A whole table: what it costs, the cells that are missing, and the files that show all of them."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from dpwavelet.checkpoint import alone_in, canonical_json, read_json
from dpwavelet.comparison.cells import Cell, Known, cells_of, fingerprint, know, numbers_file, shape_of
from dpwavelet.comparison.consent import Price, check_consent, least_price, price, remember, without_privacy
from dpwavelet.comparison.machine import machine
from dpwavelet.comparison.methods import OURS, Method
from dpwavelet.comparison.owned import check_owned
from dpwavelet.comparison.report import write_report
from dpwavelet.comparison.settings import FEWEST, Computing, TableSettings
from dpwavelet.comparison.speed import Speed
from dpwavelet.comparison.told import Told
from dpwavelet.comparison.work import Job, Rehearsal, Work, compute, in_child, read_speed, tell_speed
from dpwavelet.errors import ConfigError, DataError
from dpwavelet.evaluation import Extractor, extractor
from dpwavelet.features import NAME
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.accounts import check_unowned
from dpwavelet.pipeline.opening import check_apart, fewer_than_declared
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress


def make_table(
    data: Path, out: Path, settings: TableSettings, progress: Progress, work: Work = in_child
) -> Path:
    """Compute every cell that is missing in `out`, write the table, and return `out`.

    Guarantee: each private cell is (epsilon, delta)-DP by itself, and is charged before its steps are taken.
    Of the numbers and sheets nothing is promised; see `consent`, which is asked before anything is trained
    on a record.
    """
    check_consent(settings, least_price(settings))
    check_apart(data, out)
    table = _Table.open(data, out, settings)
    if len(table.images) < table.shape.records:
        progress.tell(fewer_than_declared(table.shape.records, len(table.images), people=False))
    if settings.stand_in:
        check_unowned(data, (settings.split, settings.held_out), settings.ledger, progress.tell)
    with alone_in(out):
        cells = table.cells(_steps(table, work))
        cost = price(cells, out)
        check_consent(settings, cost.epsilon)
        missing = [cell for cell in cells if not numbers_file(out, cell.digest).is_file()]
        owned = None
        if not settings.stand_in:
            owned = check_owned(data, table.images, table.known, missing, out, settings, progress)
            out.chmod(0o700)
        remember(settings, out)
        _remove_left_keys(out)
        _compute_all([table.job(cell, owned) for cell in missing], settings.at_once, progress, work)
        write_report(table.told(cells, cost), out)
    return out


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What was asked for, and all that is opened for it before `out` is touched."""

    data: Path
    out: Path
    settings: TableSettings
    known: Mapping[str, Known]
    images: PrivateImages
    held_out: PrivateImages
    space: Extractor
    shape: PrivacyPlan

    @classmethod
    def open(cls, data: Path, out: Path, settings: TableSettings) -> Self:
        known = {method.name: know(method, settings) for method in settings.methods}
        size = _one_size(known)
        images = PrivateImages.open(data, size, settings.split)
        held_out = PrivateImages.open(data, size, settings.held_out)
        for split, found in ((settings.split, images), (settings.held_out, held_out)):
            if len(found) < FEWEST:
                raise DataError(
                    f"{data} has {len(found)} records in the split {split!r}, and a table needs {FEWEST} of "
                    "each; name other splits, or hold out more."
                )
        space = extractor(NAME, settings.features)
        shape = shape_of(settings, len(images))
        return cls(
            data=data, out=out, settings=settings, known=known, images=images, held_out=held_out,
            space=space, shape=shape,
        )  # fmt: skip

    def cells(self, steps: Mapping[str, int]) -> list[Cell]:
        about = {
            "data": fingerprint(self.images),
            "held_out": fingerprint(self.held_out),
            "pictures": self.settings.pictures,
            "features": self.space.digest,
            **self.settings.computing.identity,
        }
        return cells_of(self.settings, self.known, steps, len(self.images), about)

    def job(self, cell: Cell, owned: str | None) -> Job:
        return Job(
            cell=cell,
            place=self.known[cell.name].place if cell.method else None,
            image_size=_one_size(self.known),
            data=self.data,
            split=self.settings.split,
            held_out=self.settings.held_out,
            pictures=self.settings.pictures,
            features=self.settings.features,
            out=self.out,
            computing=_shared(self.settings.computing, self.settings.at_once),
            at_once=self.settings.at_once,
            owned=owned,
            ledger=self.settings.ledger,
            allow=self.settings.allow,
        )

    def told(self, cells: Sequence[Cell], cost: Price) -> Told:
        """The whole table, once all cells are there."""
        return Told(
            data=self.data.name,
            settings=self.settings,
            known=self.known,
            cells=[(cell, read_json(numbers_file(self.out, cell.digest))) for cell in cells],
            cost=cost,
            without_privacy=without_privacy(self.out),
            shape=self.shape,
            held_out=self.held_out,
            features=self.space,
        )


def _compute_all(jobs: Sequence[Job], at_once: int, progress: Progress, work: Work) -> None:
    """Compute these cells, so many at once. After an error those that run are finished, and none is begun."""
    progress.begin("cells", len(jobs))
    waiting, running = iter(jobs), dict[Future[None], Cell]()
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            for job in islice(waiting, at_once - len(running)):
                running[pool.submit(work, compute, job)] = job.cell
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(done)
                done.result()
                progress.advance(1, f"{cell.name}, epsilon {cell.epsilon:g}, seed {cell.seed}")


def _shared(computing: Computing, at_once: int) -> Computing:
    """The same for one of so many cells: they share the threads, unless it was said how many each has."""
    if computing.threads is not None or at_once == 1:
        return computing
    return replace(computing, threads=max(torch.get_num_threads() // at_once, 1))


def _remove_left_keys(out: Path) -> None:
    """The keys of cells that are done are gone with their folders, unless a crash left one."""
    for left in (out / "work").glob("*"):
        if numbers_file(out, left.name).is_file():
            shutil.rmtree(left)


def _one_size(known: Mapping[str, Known]) -> int:
    sizes = {name: told.image_size for name, told in known.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(
            f"all methods must draw pictures of one size, got {sizes}; give weights of the same preset."
        )
    return next(iter(sizes.values()))


def _steps(table: _Table, work: Work) -> dict[str, int]:
    """How many steps each method takes: its share of as many as ours, or of as many as fit into its time.

    Both times come from rehearsals on drawn portraits, so no clock that ran on records decides a plan.
    """
    usual = table.shape.batch_size
    trained = [method for method in table.settings.methods if method.trained]
    if table.settings.equal == "records":
        steps = {each.name: each.steps_of(table.shape.steps, usual) for each in trained}
    else:
        steps = _within_equal_time(table, trained, work)
    taken: dict[tuple[str, int, int], str] = {}
    for method in trained:
        what = method.recipe, method.batch_of(usual), steps[method.name]
        if (same := taken.setdefault(what, method.name)) != method.name:
            raise ConfigError(f"{same} and {method.name} are {steps[method.name]} steps both; leave one out.")
    return steps


def _within_equal_time(table: _Table, trained: Sequence[Method], work: Work) -> dict[str, int]:
    """As many steps, by method, as its own batches fit into its share of the seconds of ours."""
    settings, shape, out = table.settings, table.shape, table.out
    computing = _shared(settings.computing, settings.at_once)  # as every cell has it
    ours = _speed(know(Method(system=OURS), settings), out, computing, work)
    seconds = shape.steps * ours.seconds(shape.batch_size)
    return {
        each.name: _speed(table.known[each.name], out, computing, work).steps_within(
            each.share * seconds, each.batch_of(shape.batch_size)
        )
        for each in trained
    }


def _speed(told: Known, out: Path, computing: Computing, work: Work) -> Speed:
    """How fast a method trains; rehearsed once for the same weights, settings and way to compute."""
    what: dict[str, Any] = {
        "method": told.method.recipe,
        "weights": told.weights,
        "training": dict(told.settings),
        **asdict(computing),
        "threads": computing.threads or torch.get_num_threads(),
        "machine": machine(computing.device),
    }
    path = out / "speeds" / f"{sha256(canonical_json(what)).hexdigest()[:24]}.json"
    if not path.is_file():
        work(
            tell_speed,
            Rehearsal(
                method=told.method,
                place=told.place,
                image_size=told.image_size,
                path=path,
                computing=computing,
            ),
        )
    return read_speed(path)
