"""Looks at private records before a table is computed of them, and refuses what `pipeline.run` refuses."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from dpwavelet.comparison.cells import Cell, Known
from dpwavelet.comparison.methods import open_system
from dpwavelet.comparison.settings import TableSettings
from dpwavelet.comparison.work import begun_as
from dpwavelet.images.private import PrivateImages, fingerprint_of
from dpwavelet.pipeline.accounts import check_beside
from dpwavelet.pipeline.books import Books
from dpwavelet.pipeline.opening import REHEARSED
from dpwavelet.pipeline.prints import Prints
from dpwavelet.pipeline.refusals import check_duplicates, check_people, check_seen
from dpwavelet.privacy.refusals import Refusal, check_delta, check_signal, signal_to_noise
from dpwavelet.progress import Progress


def check_owned(
    data: Path,
    images: PrivateImages,
    known: Mapping[str, Known],
    cells: Iterable[Cell],
    out: Path,
    settings: TableSettings,
    progress: Progress,
) -> str:
    """Refuse private records, or the missing `cells` of a table of them; the fingerprint of the records.

    Guarantee: no cell is begun in a ledger, and nothing is trained on a record.
    """
    missing = [cell for cell in cells if cell.plan]
    for cell in missing:
        _check_signal(cell, known[cell.name].trained_parameters, settings)
        if cell.plan:
            check_delta(cell.plan.delta, len(images))
    check_people(images.folder, None, settings.allow)
    progress.begin("checking images", len(images))
    prints = Prints.of_records(images, progress.advance)
    for told in known.values():
        check_seen(data, prints, str(told.place), told.card, "Compare methods whose weights never saw them.")
    check_duplicates(images, prints, None, settings.allow)
    books = Books.of(data, prints.files, settings.ledger)
    fresh = [
        cell for cell in missing if begun_as(cell, out) not in books.ledger.runs
    ]  # others hold their room
    plans = [cell.plan for cell in fresh if cell.plan]
    check_beside(books, plans, progress.tell)
    for name in dict.fromkeys(cell.name for cell in missing):
        _check_losses(known[name], images.first(REHEARSED))
    return fingerprint_of(prints.files)


def _check_signal(cell: Cell, parameters: int, settings: TableSettings) -> None:
    assert cell.plan is not None
    signal = signal_to_noise(
        batch_size=cell.plan.batch_size,
        steps=cell.plan.steps,
        noise_multiplier=cell.plan.noise_multiplier,
        parameters=parameters,
    )
    check_signal(signal, settings.allow)


def _check_losses(told: Known, few: PrivateImages) -> None:
    """Refuse weights whose losses of these records are not finite."""
    rival = open_system(told.method, told.place).rival
    loss = rival.held_out_loss(rival.prepare(few))
    if loss is not None and not math.isfinite(loss):
        raise Refusal(
            "non-finite",
            f"the mean loss of {len(few)} rehearsed records by {told.method.name} is no finite number",
            "The starting weights are damaged: name others with --weights.",
        )
