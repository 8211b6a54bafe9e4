"""Two folders of images, and how far apart they are: everything from files to numbers in one call."""

from dataclasses import replace
from pathlib import Path

from dpwavelet.evaluation.compare import STEPS, Comparison, ComparisonSettings, compare
from dpwavelet.evaluation.rows import Rows, disjoint
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.progress import Progress, Silent


def evaluate(
    real: Pictures,
    generated: Pictures,
    extractor: Extractor,
    settings: ComparisonSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare generated images with real ones, and real ones with real ones.

    Nothing is written but to `cache`, where the feature rows of both sets are kept if it is given. With
    `at_most`, twice as many real images are read where there are so many: the others serve the reference.
    """
    settings, progress = settings or ComparisonSettings(), progress or Silent()
    most = settings.at_most
    chosen = {
        "real": _some(real, most and 2 * most, settings.seed),
        "generated": _some(generated, most, settings.seed),
    }
    rows: list[Rows] = []
    for name, pictures in chosen.items():
        progress.begin(f"{name} images", len(pictures))
        rows.append(rows_of(pictures, extractor, cache=cache, told=progress.advance))
    progress.begin("comparing", STEPS)
    found = compare(rows[0], rows[1], extractor, settings, told=progress.advance)
    notes = [note for name, pictures in chosen.items() for note in _notes(name, pictures)]
    return replace(found, notes=(*notes, *found.notes))


def _some(pictures: Pictures, most: int | None, seed: int) -> Pictures:
    if most is None or len(pictures) <= most:
        return pictures
    return pictures.some(disjoint(len(pictures), (most,), seed)[0])


def _notes(name: str, pictures: Pictures) -> list[str]:
    """What a reader should know of the files."""
    found = [f"Of the {name} set: {warning}" for warning in pictures.warnings]
    if (smallest := pictures.smallest()) < pictures.side:
        found.append(
            f"Some {name} images have {smallest} pixels a side and were enlarged to {pictures.side}: "
            "the blur of that counts as a difference."
        )
    return found
