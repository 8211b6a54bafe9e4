"""Where things lie in a chart. Pure geometry: numbers in, places in percent out; `page.html` draws them.

A place is a percentage of the width or the height of the plot, from its left or its top edge. So a plot takes
any width, and its text and strokes keep their size on a phone and on paper.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dpwavelet.report.blocks import Bars, Intervals, Line, Lines, Mark
from dpwavelet.report.figures import plain

MOST_TICKS = 6
MOST_POINTS = 600  # of a line that are drawn; more make the page large and look the same
LISTED = 21  # points of a line in the table below a chart
LEAST_RATE = 1e-3  # where logarithmic axes begin; what is less lies on the edge
LONGEST_BAR = 100.0

Ticks = Sequence[tuple[float, str]]
Place = tuple[float, float]


class Axis(NamedTuple):
    """An axis: `at` gives the place of a value in percent, `ticks` are places with their text."""

    at: Callable[[float], float]
    ticks: Ticks


def linear_axis(values: Iterable[float]) -> Axis:
    """From zero, unless the values are far from it and near each other, not alike; the ends are round."""
    values = list(values)
    low, high = min(values), max(values)
    if low >= 0 and (low < 0.6 * high or high - low <= 1e-9 * high):
        low = 0.0
    marks = round_numbers(low, high)
    start, length = marks[0], marks[-1] - marks[0]

    def at(value: float) -> float:
        return round(100 * (value - start) / length, 2)

    return Axis(at, [(at(mark), plain(mark)) for mark in marks])


def logarithmic_axis(largest: float) -> Axis:
    """Decades from `LEAST_RATE` to the one that holds `largest`."""
    first = round(math.log10(LEAST_RATE))
    last = max(first + 1, math.ceil(math.log10(max(largest, LEAST_RATE)) - 1e-9))

    def at(value: float) -> float:
        return round(100 * (math.log10(max(value, LEAST_RATE)) - first) / (last - first), 2)

    return Axis(at, [(at(10.0**power), f"{10.0**power:g}") for power in range(first, last + 1)])


def round_numbers(low: float, high: float) -> list[float]:
    """Two to six round numbers, evenly spaced, the first at or below `low`, the last at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # alike but for rounding
        low, high = low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2
    rough = (high - low) / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for size in (power * nice for nice in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
        if last - first < MOST_TICKS:
            break
    return [float(f"{size * k:.12g}") for k in range(first, last + 1)]


class Curve(NamedTuple):
    """One line: runs of places without a gap."""

    name: str
    origin: Any
    look: int
    faint: bool
    runs: Sequence[Sequence[Place]]
    summary: str


class Plot(NamedTuple):
    """A line chart."""

    curves: Sequence[Curve]
    x_ticks: Ticks
    y_ticks: Ticks
    margin: int  # letters that the longest label of y needs
    square: bool  # both axes are the same
    end: tuple[Place, str] | None  # of a curve that is alone, and its last value


def plot(block: Lines[Any]) -> Plot:
    """Place the curves of a line chart."""
    points = [(x, y) for line in block.lines for x, y in line.known]
    if block.logarithmic:
        across, upward = (logarithmic_axis(max(one)) for one in zip(*points, strict=True))
    else:
        across, upward = (linear_axis(one) for one in zip(*points, strict=True))

    def place(point: tuple[float, float]) -> Place:
        return across.at(point[0]), round(100 - upward.at(point[1]), 2)

    curves = [
        Curve(
            line.name,
            line.origin,
            look,
            line.faint,
            [[place(point) for point in thin(run, MOST_POINTS)] for run in _runs(line, block.logarithmic)],
            summary(line),
        )
        for look, line in enumerate(block.lines, 1)
    ]
    y_ticks = [(round(100 - y, 2), text) for y, text in upward.ticks]
    same = [text for _, text in across.ticks] == [text for _, text in upward.ticks]
    last = points[-1]
    end = (place(last), plain(last[1])) if len(curves) == 1 else None
    return Plot(curves, across.ticks, y_ticks, max(len(text) for _, text in y_ticks), same, end)


def summary(line: Line[Any]) -> str:
    """A line in one sentence, for those who do not see it."""
    points = line.known
    (first, start), (last, end) = points[0], points[-1]
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    return (
        f"{line.name}: from {plain(start)} at {plain(first)} to {plain(end)} at {plain(last)}, "
        f"between {plain(lowest)} and {plain(highest)}."
    )


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def listed(line: Line[Any]) -> list[tuple[str, str]]:
    """The points that the table below a chart shows, as text."""
    return [(plain(x), plain(y)) for x, y in thin(line.known, LISTED)]


def _runs(line: Line[Any], logarithmic: bool) -> list[list[tuple[float, float]]]:
    """The finite points, parted where one is missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line.points:
        if y is not None and math.isfinite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [_from_the_edge(run) if logarithmic else run for run in runs if run]


def _from_the_edge(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A run on logarithmic axes: of the points up to the edge only the last, which is drawn on it."""
    before = sum(x <= LEAST_RATE * (1 + 1e-9) for x, _ in run)
    return run[max(0, before - 1) :]


class Dot(NamedTuple):
    """One row of intervals, placed; `None` where the number is unknown."""

    at: float | None
    low: float | None
    high: float | None
    mark: Mark
    summary: str


class Dots(NamedTuple):
    """All rows on one axis, with the band of what is attainable."""

    rows: Sequence[Dot]
    ticks: Ticks
    band: Place | None
    goal: float | None


def dots(block: Intervals[Any]) -> Dots | None:
    """Place the rows of intervals; without any known number there is no chart."""
    ends = [_ends(row.number.value, row.number.error, row.number.interval) for row in block.rows]
    values = [value for end in ends if end for value in end]
    if not values:
        return None
    axis = linear_axis(values)
    rows = []
    for row, end in zip(block.rows, ends, strict=True):
        at, low, high = (axis.at(value) for value in end) if end else (None, None, None)
        rows.append(Dot(at, low, high, row.mark, f"{row.name}: {row.number.shown}"))
    goal = next((dot for dot in rows if dot.mark is Mark.REFERENCE and dot.at is not None), None)
    band = (goal.low, goal.high) if goal and goal.low is not None and goal.high is not None else None
    return Dots(rows, axis.ticks, band, goal.at if goal else None)


def _ends(
    value: float | None, error: float | None, interval: tuple[float, float] | None
) -> tuple[float, float, float] | None:
    """A value with the ends of its whiskers: its interval, or one standard error, or itself."""
    if value is None or not math.isfinite(value):
        return None
    low, high = interval or (value - (error or 0.0), value + (error or 0.0))
    return value, low if math.isfinite(low) else value, high if math.isfinite(high) else value


def bars(block: Bars[Any]) -> Sequence[Sequence[float | None]]:
    """The length of every bar in percent, a row for each category, a column for each series."""
    finite = [
        value for one in block.series for value in one.values if value is not None and math.isfinite(value)
    ]
    largest = max(finite, default=0.0) or 1.0
    return [
        [
            None if value is None or not math.isfinite(value) else round(LONGEST_BAR * value / largest, 2)
            for value in values
        ]
        for values in zip(*(one.values for one in block.series), strict=True)
    ]
