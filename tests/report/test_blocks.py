import math

import pytest
from report_examples import png

from dpwavelet.errors import ConfigError
from dpwavelet.report import (
    Bars,
    Entry,
    Interval,
    Intervals,
    Line,
    Lines,
    Missing,
    Number,
    Origin,
    Picture,
    Row,
    Series,
    Sheet,
    Strip,
    Table,
)
from dpwavelet.report.blocks import pixels

LINE = Line("a", [(0.0, 1.0)], Origin.DP)
SERIES = Series("a", [1.0, 2.0], Origin.DP)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table(title="T", rows=[]), "rows"),
        (lambda: Lines(title="T", x="x", y="y", lines=[]), "lines"),
        (lambda: Bars(title="T", categories=[], series=[SERIES]), "categories"),
        (lambda: Bars(title="T", categories=["a"], series=[]), "series"),
        (lambda: Intervals(title="T", rows=[]), "rows"),
        (lambda: Sheet(title="T", entries=[]), "entries"),
        (lambda: Missing(""), "words"),
    ],
)
def test_an_empty_block_is_refused_and_missing_is_the_way_to_say_so(make, message):
    with pytest.raises(ConfigError, match=rf"there must be {message}.*Missing"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table(title="T", rows=[Row("a", ("1", "2"), Origin.DP)]), "got 2 cells for 'a'.*wanted 1"),
        (lambda: Bars(title="T", categories=["a"], series=[SERIES]), "got 2 values of 'a'.*wanted 1"),
        (lambda: Bars(title="T", categories=["a", "b"], series=[SERIES] * 4), "4 series.*without colour"),
        (lambda: Lines(title="T", x="x", y="y", lines=[LINE] * 6), "6 lines.*without colour"),
    ],
)
def test_counts_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_bar_below_zero_is_refused():
    with pytest.raises(ConfigError, match="start at zero"):
        Bars(title="T", categories=["a"], series=[Series("a", [-1.0], Origin.DP)])


@pytest.mark.parametrize("y", [None, math.nan, math.inf])
def test_a_line_without_a_finite_point_is_refused(y):
    with pytest.raises(ConfigError, match="no finite point"):
        Lines(title="T", x="x", y="y", lines=[Line("a", [(0.0, y)], Origin.DP)])


def test_a_line_needs_finite_places():
    with pytest.raises(ConfigError, match="x must be finite"):
        Lines(title="T", x="x", y="y", lines=[Line("a", [(0.0, 1.0), (math.nan, 1.0)], Origin.DP)])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(value=0.0123, interval=(0.01, 0.015), unit="nats"), "0.0123 nats (0.0100 to 0.0150)"),
        (Number(value=None, why="too few samples"), "unknown: too few samples"),
        (Number(value=math.nan), "unknown: the number is not finite"),
        (Number(value=math.inf, why="a division by zero"), "unknown: a division by zero"),
    ],
)
def test_a_number_is_shown_with_its_error_or_with_the_reason_why_it_is_not_known(number, text):
    assert f"{number}" == number.shown == text


def test_a_sheet_counts_its_pictures():
    picture = Picture(png(8, 0), "coarse")
    strips = [Strip("ours", (picture, picture), Origin.DP), Strip("theirs", (picture,), Origin.PUBLIC)]
    sheet = Sheet(title="T", entries=[Entry("a", strips), Entry("b", strips[1:])])
    assert (sheet.pictures, sheet.widest) == (4, 2)


def test_the_size_of_a_picture_is_read_from_its_file_and_other_files_are_refused():
    assert pixels(png(24, 0)) == (24, 24)
    for wrong in (b"GIF89a" + bytes(30), b"\x89PNG", b""):
        with pytest.raises(ConfigError, match="must be a PNG"):
            pixels(wrong)


def test_an_origin_belongs_to_every_row():
    with pytest.raises(ConfigError, match="the origin of Samples"):
        Intervals(title="T", rows=[Interval("Samples", Number(value=1.0), "DP")])
