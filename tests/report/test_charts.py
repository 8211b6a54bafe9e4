import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.report import Bars, Interval, Intervals, Line, Lines, Mark, Number, Origin, Series
from dpwavelet.report.charts import (
    LEAST_RATE,
    bars,
    dots,
    linear_axis,
    listed,
    logarithmic_axis,
    plot,
    round_numbers,
    summary,
    thin,
)

FINITE = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(values=st.lists(FINITE, min_size=1, max_size=5))
def test_axes_hold_all_values_between_two_to_six_even_ticks(values):
    axis = linear_axis(values)
    assert all(-0.01 <= axis.at(value) <= 100.01 for value in values)
    places = [place for place, _ in axis.ticks]
    assert 2 <= len(places) <= 6
    assert (places[0], places[-1]) == (0.0, 100.0)
    steps = [b - a for a, b in pairwise(places)]
    assert max(steps) - min(steps) < 0.05


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1.0, 8.0], ["0", "2", "4", "6", "8"]),
        ([71.0, 88.0], ["70", "75", "80", "85", "90"]),
        ([-0.002, 0.04], ["-0.01", "0", "0.01", "0.02", "0.03", "0.04"]),
    ],
)
def test_axes_start_at_zero_unless_the_values_are_far_from_it(values, ticks):
    assert [text for _, text in linear_axis(values).ticks] == ticks


def test_a_share_that_is_always_whole_ends_at_one():
    assert [text for _, text in linear_axis([1.0, 1.0, 1.0]).ticks][-1] == "1"
    assert linear_axis([1.0]).at(1.0) == 100


@given(low=FINITE, length=st.floats(1e-3, 1e6))
def test_round_numbers_reach_over_both_ends_by_less_than_a_step(low, length):
    found = round_numbers(low, low + length)
    step = found[1] - found[0]
    slack = 1e-6 * max(abs(low), length, 1)
    assert found[0] <= low + slack
    assert low + length <= found[-1] + slack
    assert low - found[0] <= step + slack
    assert found[-1] - (low + length) <= step + slack


def test_a_logarithmic_axis_has_a_tick_for_each_decade_and_keeps_what_is_less_on_its_edge():
    axis = logarithmic_axis(1.0)
    assert [text for _, text in axis.ticks] == ["0.001", "0.01", "0.1", "1"]
    assert [axis.at(value) for value in (0.0, LEAST_RATE, 0.1, 1.0)] == [0, 0, 66.67, 100]


def lines(*points, logarithmic=False, **more):
    return Lines(
        title="T", x="x", y="y", lines=[Line("a", points, Origin.DP, **more)], logarithmic=logarithmic
    )


def test_a_curve_lies_where_its_numbers_say():
    drawn = plot(lines((0.0, 0.0), (5.0, 4.0), (10.0, 8.0)))
    assert drawn.curves[0].runs == [[(0.0, 100.0), (50.0, 50.0), (100.0, 0.0)]]
    assert drawn.end == ((100.0, 0.0), "8")
    assert drawn.margin == 1


@pytest.mark.parametrize("gap", [None, math.nan])
def test_a_missing_point_leaves_a_gap(gap):
    (curve,) = plot(lines((0.0, 1.0), (1.0, 1.0), (2.0, gap), (3.0, gap), (4.0, 1.0))).curves
    assert [len(run) for run in curve.runs] == [2, 1]


def test_left_of_the_edge_only_the_last_point_is_drawn():
    (curve,) = plot(lines((0.0, 0.0), (0.0, 0.02), (0.01, 0.1), (1.0, 1.0), logarithmic=True)).curves
    assert curve.runs[0][0] == (0.0, pytest.approx(100 * (2 - math.log10(2)) / 3, abs=0.01))
    assert len(curve.runs[0]) == 3


def test_the_end_is_marked_only_where_a_curve_is_alone():
    two = Lines(title="T", x="x", y="y", lines=[Line(name, [(0, 0), (1, 1)], Origin.DP) for name in "ab"])
    assert plot(two).end is None
    assert plot(two).square


@given(count=st.integers(2, 3000), most=st.integers(2, 600))
def test_thinned_points_are_few_in_order_and_keep_both_ends(count, most):
    points = [(float(k), 0.0) for k in range(count)]
    found = thin(points, most)
    assert len(found) == min(count, most)
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert found == sorted(set(found))


def test_a_line_is_told_in_words_and_in_a_short_list():
    (line,) = lines(*((float(k), k / 10) for k in range(1, 101))).lines
    assert summary(line) == "a: from 0.1 at 1 to 10 at 100, between 0.1 and 10."
    assert len(listed(line)) == 21
    assert (listed(line)[0], listed(line)[-1]) == (("1", "0.1"), ("100", "10"))


def intervals(*numbers):
    marks = [Mark.OURS, Mark.OTHER, Mark.REFERENCE]
    return Intervals(
        title="T",
        rows=[
            Interval(mark.value, number, Origin.DP, mark)
            for number, mark in zip(numbers, marks, strict=False)
        ],
    )


def test_dots_lie_between_their_whiskers_and_what_is_attainable_is_a_band():
    drawn = dots(
        intervals(Number(value=4, interval=(3, 6)), Number(value=8, error=1), Number(value=1, error=0.5))
    )
    assert [(row.low, row.at, row.high) for row in drawn.rows] == [(30, 40, 60), (70, 80, 90), (5, 10, 15)]
    assert (drawn.band, drawn.goal) == ((5, 15), 10)


def test_a_row_of_an_unknown_number_has_no_dot_and_no_known_number_makes_no_chart():
    drawn = dots(intervals(Number(value=4, error=1), Number(value=None, why="too few")))
    assert drawn.rows[1].at is None
    assert "too few" in drawn.rows[1].summary
    assert (drawn.band, drawn.goal) == (None, None)
    assert dots(intervals(Number(value=math.nan))) is None


def test_the_longest_bar_fills_the_width_and_others_are_in_proportion():
    chart = Bars(
        title="T",
        categories=["a", "b"],
        series=[Series("x", [10.0, 40.0], Origin.DP), Series("y", [None, 20.0], Origin.PUBLIC)],
    )
    assert bars(chart) == [[25.0, None], [100.0, 50.0]]
    assert bars(Bars(title="T", categories=["a"], series=[Series("x", [0.0], Origin.DP)])) == [[0.0]]


@pytest.mark.parametrize("values", [[0.3, 0.1 + 0.2], [100.0, 99.99999999999999], [0.95, 0.9500000000000001]])
def test_values_that_differ_by_rounding_have_an_axis(values):
    axis = linear_axis(values)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert len(axis.ticks) > 1
