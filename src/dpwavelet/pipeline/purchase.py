"""Measures generated pictures and records for what is bought beside training, and buys each once.

The exact sum of either, of the numbers that a release tells and of the likeness that pictures are chosen by,
lies in `private/` before noise is made. So a run that is resumed anywhere has one sum for one noise.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpwavelet.enlargers import enlarger_digest
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.moments import COLUMNS
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.pipeline import likeness as likenesses
from dpwavelet.pipeline.bought import (
    BOUGHT,
    DRAWN,
    FEWEST_OF_A_CLASS,
    NO_CLASS,
    Bought,
    Generated,
    Measured,
    Prepared,
    buy,
    classes_of,
    keep_numbers,
    kept_numbers,
    prepare,
    whose,
)
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.judgement import AT_ONCE
from dpwavelet.pipeline.kept import noted
from dpwavelet.pipeline.likeness import Likeness
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.settings import RunSettings, cycled, likeness_place, spread
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress
from dpwavelet.randomness import Source, stream

Owners = NDArray[np.int64]


def purchase(
    images: PrivateImages, ours: Pipeline, here: Ongoing, source: Source, ledger: Charges
) -> list[Bought]:
    """The numbers about the records that the plan pays for, made once and kept in `private`."""
    settings, run = here.settings, here.name
    if not settings.release_metrics:
        return []
    path, exact = here.private / "bought.json", here.private / "measured.safetensors"
    if (found := kept_numbers(path, run)) is not None:
        return found
    prepared = once(exact, run, lambda: _prepared(images, ours, settings, here.progress))
    noted(prepared.total, ledger, run, BOUGHT, source)
    found = buy(
        settings.release_metrics, settings.classes, prepared, here.plan, source, settings.seed,
        chosen=ours.drawings > 1,
    )  # fmt: skip
    keep_numbers(path, run, found)
    return found


def purchase_likeness(
    images: PrivateImages, ours: Pipeline, here: Ongoing, source: Source, ledger: Charges
) -> Likeness | None:
    """What pictures are chosen by, if the plan pays for it; its exact sum is made once, kept in `private`.

    The noise is a function of the key of the run, so whoever resumes it reads the same likeness again.
    """
    settings, progress = here.settings, here.progress
    if (place := likeness_place(settings)) is None:
        return None
    space = extractor()

    def measured() -> Prepared:
        captions = spread(settings.captions, likenesses.DRAWN)
        progress.begin("drawing to measure", len(captions))
        _, full = ours.draw(
            captions, seed=settings.seed + 2, sampling=settings.sampling, told=progress.advance
        )
        drawn = space.rows_of_any(to_bytes(full))
        total = likenesses.measure(drawn, _rows(space, images, progress), _owners(images, settings))
        return Prepared(Generated(drawn, np.full(len(drawn), NO_CLASS)), total)

    prepared = once(here.private / "moments.safetensors", here.name, measured)
    rows, choices = prepared.generated.rows, settings.choices
    total = noted(prepared.total, ledger, here.name, place, source)
    found = likenesses.buy(total, rows, here.plan, place, source, space.digest, choices)
    return replace(found, enlarger=enlarger_digest(ours.used))


def rehearse_purchase(plan: PrivacyPlan, settings: RunSettings) -> list[Bought]:
    """Buy the same numbers about rows drawn by chance, with a key of its own: nothing comes from a record."""
    count = 2 * (COLUMNS + len(settings.classes))
    classes = np.arange(count) % max(len(settings.classes), 1)
    rows = _chance(extractor(), count)
    metrics, names = settings.release_metrics, settings.classes
    prepared = prepare(metrics, names, Generated(rows[0], classes), Measured(rows[1], classes, None), 0)
    return buy(metrics, names, prepared, plan, Source(), 0)


def rehearse_likeness(plan: PrivacyPlan, settings: RunSettings) -> Likeness | None:
    """The same of a likeness."""
    if (place := likeness_place(settings)) is None:
        return None
    space = extractor()
    drawn, records = _chance(space, 2 * COLUMNS)
    total = likenesses.measure(drawn, records, None)
    return likenesses.buy(total, drawn, plan, place, Source(), space.digest, settings.choices)


def once(exact: Path, run: str, measure: Callable[[], Prepared]) -> Prepared:
    """What was measured exactly, the first time and never again."""
    if not exact.is_file():
        measure().save(exact, run)
    return Prepared.load(exact, run)


def _prepared(images: PrivateImages, ours: Pipeline, settings: RunSettings, progress: Progress) -> Prepared:
    space = extractor()
    captions = cycled(settings.captions, max(DRAWN, FEWEST_OF_A_CLASS * len(settings.captions)))
    progress.begin("drawing to measure", ours.drawings * len(captions))
    _, full = ours.draw(captions, seed=settings.seed + 1, sampling=settings.sampling, told=progress.advance)
    generated = Generated(space.rows_of_any(to_bytes(full)), classes_of(captions, settings.classes))
    rows = _rows(space, images, progress)
    texts = [images.label(index) or (images.captions(index) or ("",))[0] for index in range(len(images))]
    records = Measured(rows, classes_of(texts, settings.classes), _owners(images, settings))
    return prepare(settings.release_metrics, settings.classes, generated, records, settings.seed)


def _rows(space: Extractor, images: PrivateImages, progress: Progress) -> NDArray[np.float32]:
    """Features of every record, each of that record alone."""
    progress.begin("measuring for the release", len(images))
    rows = []
    for indices, pixels in images.batches(AT_ONCE):
        rows.append(space.rows_of_any(pixels))
        progress.advance(len(indices))
    return np.concatenate(rows)


def _owners(images: PrivateImages, settings: RunSettings) -> Owners | None:
    return whose(images.group(settings.group_by)) if settings.group_by else None


def _chance(space: Extractor, count: int) -> NDArray[np.float32]:
    """Rows drawn by chance: two sets of so many."""
    return stream(0, "rehearsal rows").standard_normal((2, count, space.columns), np.float32)
