"""Blocks of the private page, made from private scores and from the logs of a run.

Here seals are broken: `reveal` is called, and what comes out is marked private. So every block that these
functions return is refused by the release page.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.report.blocks import (
    Bars,
    Entry,
    Fact,
    Interval,
    Intervals,
    Line,
    Lines,
    Mark,
    Missing,
    Number,
    Picture,
    Row,
    Series,
    Sheet,
    Strip,
    Table,
)
from dpwavelet.report.origins import Origin, PrivateOrigin

AnyOrigin = Origin | PrivateOrigin
Curve = Sequence[tuple[float, float]]
PRIVATE = PrivateOrigin.PRIVATE
SMOOTHED = 100  # steps from which a curve of training is drawn smoothed too
DIAGONAL = ((0.0, 0.0), (1.0, 1.0))


class PrivateFact(NamedTuple):
    """One line of a table that must stay in `private/`."""

    name: str
    value: str | PrivateScore
    origin: PrivateOrigin = PRIVATE


class Scored(NamedTuple):
    """One row of a measure: of which pictures, the score, and what its dot stands for."""

    name: str
    score: PrivateScore
    mark: Mark = Mark.OURS


class Near(NamedTuple):
    """A generated picture and the record that is nearest to it, as PNG files."""

    caption: str
    sample_png: bytes
    record_png: bytes
    record: str  # its name in the folder
    distance: PrivateScore | None = None


def number(score: PrivateScore) -> Number:
    """What a score holds, as a number of the private page."""
    found = score.reveal()
    return Number(
        value=found.value,
        error=found.error,
        interval=found.interval,
        confidence=found.confidence,
        unit=found.unit,
    )


def measure(title: str, rows: Sequence[Scored], about: str = "") -> Intervals[PrivateOrigin]:
    """Scores of one kind on one axis: ours, what they are compared with, and what is attainable."""
    return Intervals(
        title=title,
        rows=[
            Interval(row.name, number(row.score), PRIVATE, row.mark, row.score.reveal().words) for row in rows
        ],
        about=about,
    )


def score_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Sequence[PrivateScore | str]], names: str = "What"
) -> Table[PrivateOrigin]:
    """Scores in rows and columns, as accuracies by class."""
    return Table(
        title=title,
        columns=columns,
        rows=[
            Row(name, [cell if isinstance(cell, str) else number(cell) for cell in cells], PRIVATE)
            for name, cells in rows.items()
        ],
        names=names,
    )


def any_facts(title: str, facts: Sequence[Fact | PrivateFact]) -> Table[AnyOrigin]:
    """Facts of any origin as a table."""
    return Table(title=title, rows=[Row(fact.name, (_cell(fact.value),), fact.origin) for fact in facts])


def balance(
    title: str,
    categories: Sequence[str],
    *,
    records: Sequence[float | None],
    samples: Sequence[float | None],
    names: str = "Class",
) -> Bars[AnyOrigin]:
    """How often, in percent, each class or word is in the records and in the samples.

    Counts in samples are private too: they were drawn with captions of records, or counted by a classifier
    that learned from records.
    """
    series: list[Series[AnyOrigin]] = [
        Series("samples", samples, PRIVATE),
        Series("records", records, PRIVATE),
    ]
    return Bars(title=title, categories=categories, series=series, unit="%", names=names)


def training(
    steps: Iterable[Mapping[str, float]], batch_size: float | None = None
) -> list[Lines[AnyOrigin] | Missing]:
    """The curves of `private/metrics.jsonl`, a mapping a line; `batch_size` is the expected one."""
    found = [one for one in steps if "step" in one]
    if not found:
        return [Missing("The run left no private/metrics.jsonl, so there are no curves of training.")]
    blocks: list[Lines[AnyOrigin] | Missing] = []
    for key, title, y in (
        ("loss", "Loss of the drawn records", "nats"),
        ("clipped", "Share of gradients that were clipped", "share"),
        ("drawn", "Records that joined each step", "records"),
    ):
        points = [(one["step"], one[key]) for one in found if key in one]
        if not any(math.isfinite(value) for _, value in points):
            blocks.append(Missing(f"{title}: private/metrics.jsonl has no finite number of it."))
            continue
        lines: list[Line[AnyOrigin]] = list(_smoothed(points))
        if key == "drawn" and batch_size is not None:
            ends = [(points[0][0], batch_size), (points[-1][0], batch_size)]
            lines.append(Line("expected", ends, Origin.PUBLIC))
        blocks.append(Lines(title=title, x="steps", y=y, lines=lines))
    return blocks


def roc(
    attacks: Mapping[str, Curve], by_mechanism: Curve, by_promise: Curve, title: str = "Membership inference"
) -> Lines[AnyOrigin]:
    """True over false positives of attacks on records, under what mechanism and promise allow."""
    lines: list[Line[AnyOrigin]] = [Line(name, curve, PRIVATE) for name, curve in attacks.items()]
    lines += [
        Line("allowed by the mechanism", by_mechanism, Origin.PUBLIC),
        Line("allowed by epsilon and delta", by_promise, Origin.PUBLIC),
        Line("guessing", ((1e-3, 1e-3), (1.0, 1.0)), Origin.PUBLIC),
    ]
    return Lines(title=title, x="false positives", y="true positives", lines=lines, logarithmic=True)


def calibration(curves: Mapping[str, Curve], title: str = "Calibration") -> Lines[AnyOrigin]:
    """How often a classifier is right where it says how sure it is; on the diagonal, as often as it says."""
    lines: list[Line[AnyOrigin]] = [Line(name, curve, PRIVATE) for name, curve in curves.items()]
    lines.append(Line("as sure as right", DIAGONAL, Origin.PUBLIC))
    return Lines(title=title, x="confidence", y="share that is right", lines=lines)


def nearness(pairs: Sequence[Near], title: str = "Samples beside their nearest record") -> Sheet[AnyOrigin]:
    """Generated pictures, each with the record that is nearest."""
    return Sheet(title=title, entries=[Entry(pair.caption, _pair(pair)) for pair in pairs])


def _pair(pair: Near) -> list[Strip[AnyOrigin]]:
    apart = "" if pair.distance is None else f"{pair.distance.name}: {number(pair.distance).shown}"
    return [
        Strip("Sample", (Picture(pair.sample_png, "finished"),), Origin.DP, ""),
        Strip("Nearest record", (Picture(pair.record_png, pair.record),), PRIVATE, apart),
    ]


def _cell(value: str | PrivateScore) -> str | Number:
    return value if isinstance(value, str) else number(value)


def _smoothed(points: Sequence[tuple[float, float]]) -> list[Line[PrivateOrigin]]:
    """The curve, and for a long one its moving mean over a fiftieth of it, which is easier to read."""
    if len(points) < SMOOTHED:
        return [Line("each step", points, PRIVATE)]
    last = deque[float](maxlen=len(points) // 50)
    means: list[tuple[float, float | None]] = []
    for step, value in points:
        if math.isfinite(value):
            last.append(value)
        means.append((step, fmean(last) if last else None))
    return [
        Line(f"mean of {last.maxlen} steps", means, PRIVATE),
        Line("each step", points, PRIVATE, faint=True),
    ]
