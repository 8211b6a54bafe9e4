"""What a page is made of: tables, lines, bars, intervals, sheets of pictures, words, and what is missing.

A block is a value: text and numbers, each with its origin, checked when made. How it looks is in `page.html`,
where it lies in a chart in `charts.py`, and what of it stands in the JSON twin in `twins.py`. Everything that
is text stays text, whatever it holds.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Generic, NamedTuple

from dpwavelet.errors import ConfigError
from dpwavelet.report.figures import measured
from dpwavelet.report.origins import From, Origin, check_origin

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_LINES, MOST_SERIES = 5, 3  # as many as are told apart without colour


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number and how sure it is; `None`, or one that is not finite, is unknown, and `why` says why."""

    value: float | None
    error: float | None = None  # standard error
    interval: tuple[float, float] | None = None
    confidence: float | None = None  # of the interval
    unit: str = ""
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a finite number."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def reason(self) -> str:
        """Why there is none, in words."""
        return "" if self.known else self.why or "the number is not finite"

    @property
    def shown(self) -> str:
        """As the page writes it."""
        if self.value is None or not self.known:
            return f"unknown: {self.reason}"
        return measured(self.value, self.error, self.interval, self.unit)

    def __str__(self) -> str:
        return self.shown


Cell = str | Number


class Fact(NamedTuple):
    """One line of a table that may be published."""

    name: str
    value: str
    origin: Origin = Origin.PUBLIC


class Row(NamedTuple, Generic[From]):
    """One line of a table."""

    name: str
    cells: Sequence[Cell]
    origin: From


@dataclass(frozen=True, kw_only=True)
class Table(Generic[From]):
    """Rows of cells under named columns; `names` heads the column of their names."""

    kind: ClassVar[str] = "table"
    title: str
    rows: Sequence[Row[From]]
    columns: Sequence[str] = ("Value",)
    names: str = "What"

    def __post_init__(self) -> None:
        _need(self.rows, f"rows in the table {self.title!r}")
        for row in self.rows:
            check_origin(row.origin, row.name)
            _same_count(len(row.cells), len(self.columns), f"cells for {row.name!r} in {self.title!r}")


class Line(NamedTuple, Generic[From]):
    """Points of one curve, in order; a `y` of None or not a number leaves a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    origin: From
    faint: bool = False  # the raw values behind a smoother curve

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points that are finite."""
        return [(float(x), float(y)) for x, y in self.points if y is not None and math.isfinite(y)]


@dataclass(frozen=True, kw_only=True)
class Lines(Generic[From]):
    """Curves in one plot, on linear or on doubly logarithmic axes."""

    kind: ClassVar[str] = "lines"
    title: str
    x: str
    y: str
    lines: Sequence[Line[From]]
    logarithmic: bool = False

    def __post_init__(self) -> None:
        _need(self.lines, f"lines in the chart {self.title!r}")
        _at_most(len(self.lines), MOST_LINES, f"lines in the chart {self.title!r}")
        for line in self.lines:
            check_origin(line.origin, line.name)
            if not all(math.isfinite(x) for x, _ in line.points):
                raise ConfigError(f"x must be finite in the line {line.name!r} of {self.title!r}.")
            if not line.known:
                raise ConfigError(
                    f"the line {line.name!r} of {self.title!r} has no finite point; say with Missing why."
                )


class Series(NamedTuple, Generic[From]):
    """One value for every category; None where there is none."""

    name: str
    values: Sequence[float | None]
    origin: From


@dataclass(frozen=True, kw_only=True)
class Bars(Generic[From]):
    """One to three series side by side over the same categories, from zero."""

    kind: ClassVar[str] = "bars"
    title: str
    categories: Sequence[str]
    series: Sequence[Series[From]]
    unit: str = ""
    names: str = "What"

    def __post_init__(self) -> None:
        _need(self.categories, f"categories in the chart {self.title!r}")
        _need(self.series, f"series in the chart {self.title!r}")
        _at_most(len(self.series), MOST_SERIES, f"series in the chart {self.title!r}")
        for one in self.series:
            check_origin(one.origin, one.name)
            _same_count(len(one.values), len(self.categories), f"values of {one.name!r} in {self.title!r}")
            if any(value is not None and value < 0 for value in one.values):
                raise ConfigError(f"bars start at zero, and {one.name!r} of {self.title!r} goes below.")


class Mark(StrEnum):
    """What a dot stands for; each has a shape of its own."""

    OURS = "this release"
    OTHER = "something to compare with"
    REFERENCE = "attainable"  # real against real; its interval is drawn behind the other rows


class Interval(NamedTuple, Generic[From]):
    """One dot with whiskers."""

    name: str
    number: Number
    origin: From
    mark: Mark = Mark.OURS
    note: str = ""  # of how many images, by which rule


@dataclass(frozen=True, kw_only=True)
class Intervals(Generic[From]):
    """Numbers of one kind on one axis; `about` says in a sentence how to read them."""

    kind: ClassVar[str] = "intervals"
    title: str
    rows: Sequence[Interval[From]]
    about: str = ""

    def __post_init__(self) -> None:
        _need(self.rows, f"rows in the chart {self.title!r}")
        for row in self.rows:
            check_origin(row.origin, row.name)


class Picture(NamedTuple):
    """A PNG file and what it shows, in a word or two."""

    png: bytes
    name: str


class Strip(NamedTuple, Generic[From]):
    """Pictures of one origin that belong together."""

    name: str
    pictures: Sequence[Picture]
    origin: From
    note: str = ""


class Entry(NamedTuple, Generic[From]):
    """A caption with its pictures."""

    caption: str
    strips: Sequence[Strip[From]]


@dataclass(frozen=True, kw_only=True)
class Sheet(Generic[From]):
    """Pictures with captions; `title` names the sheet for those who do not see it."""

    kind: ClassVar[str] = "sheet"
    title: str
    entries: Sequence[Entry[From]]

    def __post_init__(self) -> None:
        _need(self.entries, f"entries in the sheet {self.title!r}")
        for strip in (strip for entry in self.entries for strip in entry.strips):
            check_origin(strip.origin, strip.name)

    @property
    def pictures(self) -> int:
        """How many there are."""
        return sum(len(strip.pictures) for entry in self.entries for strip in entry.strips)

    @property
    def widest(self) -> int:
        """The most pictures in a strip."""
        return max(len(strip.pictures) for entry in self.entries for strip in entry.strips)


@dataclass(frozen=True)
class Words(Generic[From]):
    """A paragraph of the caller's."""

    kind: ClassVar[str] = "words"
    text: str
    origin: From

    def __post_init__(self) -> None:
        check_origin(self.origin, "these words")


@dataclass(frozen=True)
class Missing:
    """What is not on the page, and why, in a sentence."""

    kind: ClassVar[str] = "missing"
    why: str

    def __post_init__(self) -> None:
        _need(self.why, "words of why something is missing")


Block = Table[From] | Lines[From] | Bars[From] | Intervals[From] | Sheet[From] | Words[From] | Missing


@dataclass(frozen=True, kw_only=True)
class Section(Generic[From]):
    """One part of a page: heading, the page's own words, and blocks in order; links lead to its `id`."""

    id: str
    heading: str
    words: Sequence[str] = ()
    blocks: Sequence[Block[From]] = ()
    items: Sequence[str] = ()
    code: str = ""


def facts_table(title: str, facts: Sequence[Fact]) -> Table[Origin]:
    """Facts as a table."""
    return Table(title=title, rows=[Row(fact.name, (fact.value,), fact.origin) for fact in facts])


def pixels(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, read from its header."""
    if len(png) < 24 or not png.startswith(PNG_SIGNATURE):
        raise ConfigError(f"a picture must be a PNG file, got {len(png)} bytes that start with {png[:8]!r}.")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _need(given: Sequence[object], what: str) -> None:
    if not given:
        raise ConfigError(f"there must be {what}, got none; leave the block out, or say with Missing why.")


def _at_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise ConfigError(f"got {count} {what}; more than {most} cannot be told apart without colour.")


def _same_count(count: int, wanted: int, what: str) -> None:
    if count != wanted:
        raise ConfigError(f"got {count} {what}, wanted {wanted}.")
