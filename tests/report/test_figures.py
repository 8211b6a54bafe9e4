import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.report.figures import about, at_most, measured, plain
from dpwavelet.rounded import rounded_up, up

DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@given(value=st.floats(1e-30, 1e6))
def test_a_printed_bound_is_never_below_the_number_and_within_one_percent(value):
    printed = float(up(value).replace("×10", "e").translate(DIGITS))
    assert value <= printed * (1 + 1e-12)
    assert printed <= value * 1.0101


def test_bounds_have_three_figures_and_nothing_stays_nothing():
    assert [up(value) for value in (7.9996, 0.0, 12.3401, 5.0947e-5)] == ["8", "0", "12.4", "5.1×10⁻⁵"]
    assert float(rounded_up(4.1234)) == 4.13


def test_a_share_is_rounded_up_to_two_decimals_and_ends_at_one():
    assert [at_most(share) for share in (0.731059, 0.5, 1.2)] == [
        "at most 73.11%",
        "at most 50%",
        "at most 100%",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (9.314, "about 9.3 seconds"),
        (119, "about 120 seconds"),
        (634, "about 11 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_durations_keep_two_figures(seconds, words):
    assert about(seconds) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8159, "8,159"),
        (0.0, "0"),
        (-3.0, "-3"),
        (0.123456, "0.1235"),
        (12345.6, "12,346"),
        (1.5e-7, "1.5×10⁻⁷"),
    ],
)
def test_plain_numbers_have_four_figures_and_whole_ones_all(value, text):
    assert plain(value) == text


@given(value=st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-12))
def test_a_plain_number_is_within_a_thousandth(value):
    printed = float(plain(value).replace(",", "").replace("×10", "e").translate(DIGITS))
    assert printed == pytest.approx(value, rel=1e-3, abs=0)


def test_a_measurement_has_as_many_decimals_as_its_error_allows():
    assert measured(0.0123456, interval=(0.0102, 0.0145)) == "0.0123 (0.0102 to 0.0145)"
    assert measured(41.3271, error=1.9, unit="points") == "41.3 points ± 1.9"
    assert measured(71.24, interval=(70.1, 72.3), unit="%") == "71.2% (70.1 to 72.3)"
    assert measured(1234.6, error=25.0) == "1,235 ± 25"


@pytest.mark.parametrize("width", [None, 0.0, math.inf, math.nan])
def test_without_a_usable_error_only_the_number_is_written(width):
    assert measured(0.5, error=width) == "0.5"
    assert measured(0.5, interval=None if width is None else (0.5, 0.5 + width)) == "0.5"
