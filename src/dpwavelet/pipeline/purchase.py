"""Measures the generated pictures and the records for the numbers that are bought, and buys them once.

The exact sum lies in `private/measured.safetensors` before noise is made, and what is bought in
`private/bought.json` after it. So a run that is resumed anywhere has one sum for one noise.
"""

from pathlib import Path

import numpy as np

from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.moments import COLUMNS
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.pipeline.bought import (
    DRAWN,
    FEWEST_OF_A_CLASS,
    Bought,
    Generated,
    Measured,
    Prepared,
    buy,
    classes_of,
    kept,
    prepare,
    whose,
)
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.judgement import AT_ONCE, rows_of
from dpwavelet.pipeline.settings import RunSettings, cycled
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress
from dpwavelet.randomness import Source, stream


def purchase(
    images: PrivateImages,
    ours: Pipeline,
    plan: PrivacyPlan,
    settings: RunSettings,
    source: Source,
    private: Path,
    run: str,
    progress: Progress,
) -> list[Bought]:
    """The numbers about the records that the plan pays for, made once and kept in `private`."""
    if not settings.release_metrics:
        return []
    path, exact = private / "bought.json", private / "measured.safetensors"
    if (found := kept(path, run)) is not None:
        return found
    if not exact.is_file():
        _prepared(images, ours, settings, progress).save(exact, run)
    prepared = Prepared.load(exact, run)
    found = buy(settings.release_metrics, settings.classes, prepared, plan, source, settings.seed)
    return kept(path, run, found) or []


def rehearse_purchase(plan: PrivacyPlan, settings: RunSettings) -> list[Bought]:
    """Buy the same numbers about rows drawn by chance, with a key of its own: nothing comes from a record."""
    columns, count = extractor().columns, 2 * (COLUMNS + len(settings.classes))
    random = stream(0, "rehearsal rows")
    classes = np.arange(count) % max(len(settings.classes), 1)
    rows = random.standard_normal((2, count, columns), np.float32)
    metrics, names = settings.release_metrics, settings.classes
    prepared = prepare(metrics, names, Generated(rows[0], classes), Measured(rows[1], classes, None), 0)
    return buy(metrics, names, prepared, plan, Source(), 0)


def _prepared(images: PrivateImages, ours: Pipeline, settings: RunSettings, progress: Progress) -> Prepared:
    space = extractor()
    captions = cycled(settings.captions, max(DRAWN, FEWEST_OF_A_CLASS * len(settings.captions)))
    progress.begin("drawing to measure", len(captions))
    _, full = ours.draw(captions, seed=settings.seed + 1, sampling=settings.sampling, told=progress.advance)
    generated = Generated(rows_of(space, to_bytes(full)), classes_of(captions, settings.classes))
    progress.begin("measuring for the release", len(images))
    rows = []
    for indices, pixels in images.batches(AT_ONCE):
        rows.append(rows_of(space, pixels))
        progress.advance(len(indices))
    texts = [images.label(index) or (images.captions(index) or ("",))[0] for index in range(len(images))]
    owners = whose(images.group(settings.group_by)) if settings.group_by else None
    records = Measured(np.concatenate(rows), classes_of(texts, settings.classes), owners)
    return prepare(settings.release_metrics, settings.classes, generated, records, settings.seed)
