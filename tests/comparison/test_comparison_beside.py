"""Others beside ours: ratios, which seeds are apart, and what ours takes to be as near."""

import pytest

from dpwavelet.comparison.beside import Beside, beside_ours
from dpwavelet.comparison.cells import REAL
from dpwavelet.comparison.summary import Mean, Row


def row(method: str, epsilon: float = 1.0, **numbers: float | tuple[float, ...]) -> Row:
    values = {name: each if isinstance(each, tuple) else (each,) for name, each in numbers.items()}
    return Row(
        method=method,
        epsilon=epsilon,
        seeds=1,
        numbers={name: Mean(values=each) for name, each in values.items()},
    )


def ours(
    method: str = "dp-wavelet", fd: float | tuple[float, ...] = 10.0, seen: float = 100.0, **more: float
) -> Row:
    return row(method, **{"fd_full": fd, "records_seen": seen, "seconds": seen / 10, **more})  # type: ignore[arg-type]


def theirs(
    method: str = "dp-ldm", fd: float | tuple[float, ...] = 30.0, seen: float = 100.0, **more: float
) -> Row:
    return row(method, **{"fd_full": fd, "records_seen": seen, "seconds": seen, **more})  # type: ignore[arg-type]


def one(*rows: Row) -> Beside:
    (found,) = beside_ours(rows)
    return found


def test_ratios_are_theirs_over_ours_of_what_both_have() -> None:
    found = one(ours(peak_bytes=2e9), theirs(peak_bytes=5e9, perceptual=1.0))
    assert found.ratios == pytest.approx({"fd_full": 3, "seconds": 10, "peak_bytes": 2.5})
    assert (found.method, found.epsilon, found.ours) == ("dp-ldm", 1.0, "dp-wavelet")


@pytest.mark.parametrize(
    ("of_ours", "of_theirs", "apart"),
    [
        ((1.0, 2.0), (3.0, 4.0), 1),
        ((3.0, 4.0), (1.0, 2.0), -1),
        ((1.0, 3.0), (2.0, 4.0), 0),
        ((1.0,), (1.0,), 0),
    ],
)
def test_apart_is_what_no_seed_contradicts(
    of_ours: tuple[float, ...], of_theirs: tuple[float, ...], apart: int
) -> None:
    assert one(ours(fd=of_ours), theirs(fd=of_theirs)).apart == {"fd_full": apart}


def test_beside_is_the_row_with_as_many_records_or_the_one_with_the_most() -> None:
    own = [ours("dp-wavelet@0.1", 15, seen=10), ours(), ours("dp-wavelet@0.5", 12, seen=50)]
    assert one(*own, theirs(seen=50)).ours == "dp-wavelet@0.5"
    assert one(*own, theirs(seen=70)).ours == "dp-wavelet"


def test_where_none_saw_as_many_it_is_the_row_with_the_same_share() -> None:
    """As in a table of equal time."""
    own = [ours(seen=900), ours("dp-wavelet@0.25", seen=225), ours("dp-wavelet@0.25/4", seen=230)]
    assert one(*own, theirs("dp-ldm@0.25", seen=90)).ours == "dp-wavelet@0.25"
    assert one(*own, theirs("dp-ldm@0.25/4", seen=95)).ours == "dp-wavelet@0.25/4"
    assert one(*own, theirs("dp-ldm@0.5", seen=180)).ours == "dp-wavelet"


def test_as_near_is_the_cheapest_row_of_ours_that_is() -> None:
    own = [ours(), ours("dp-wavelet@0.1", 20, seen=10), ours("dp-wavelet@0.2", 35, seen=20)]
    found = one(*own, theirs(seen=100, fd=30))
    assert (found.reached, found.seconds_to_reach) == ("dp-wavelet@0.1", 100.0)


def test_as_near_can_be_no_row_or_one_that_no_record_touched() -> None:
    nothing = one(ours(), theirs(fd=5))
    assert (nothing.reached, nothing.seconds_to_reach) == (None, None)
    public = row("public", 0.0, fd_full=25.0)
    untrained = one(public, ours(), theirs(fd=30))
    assert (untrained.reached, untrained.seconds_to_reach) == ("public", None)
    assert one(public, ours(), theirs(fd=24)).reached == "dp-wavelet"


def test_a_row_that_nobody_timed_is_the_cheapest_only_if_there_is_no_other() -> None:
    untimed = row("dp-wavelet@0.1", fd_full=20.0, records_seen=10.0)
    found = one(ours(), untimed, theirs())
    assert (found.reached, found.seconds_to_reach) == ("dp-wavelet", 10.0)
    found = one(untimed, theirs())
    assert (found.reached, found.seconds_to_reach) == ("dp-wavelet@0.1", None)


def test_as_near_is_as_near_by_every_distance() -> None:
    own = [ours(perceptual=0.9), ours("dp-wavelet@0.1", 20, seen=10, perceptual=1.1)]
    assert one(*own, theirs(fd=30, perceptual=1.0)).reached == "dp-wavelet"
    assert one(*own, theirs(fd=30, perceptual=1.2)).reached == "dp-wavelet@0.1"


def test_theirs_is_cheapest_too() -> None:
    """A method that took long for what fewer steps or no records give did not need that time."""
    short = theirs("dp-ldm@0.1", fd=29, seen=10)
    found = {each.method: each for each in beside_ours([ours(), short, theirs(fd=30)])}
    assert (found["dp-ldm"].their, found["dp-ldm"].seconds_to_reach) == ("dp-ldm@0.1", 1.0)
    assert (found["dp-ldm@0.1"].their, found["dp-ldm@0.1"].seconds_to_reach) == ("dp-ldm@0.1", 1.0)
    untrained = one(row("public:dp-ldm", 0.0, fd_full=28.0), ours(), theirs(fd=30))
    assert (untrained.their, untrained.seconds_to_reach) == ("public:dp-ldm", None)


def test_few_pictures_are_judged_by_the_kernel_distance() -> None:
    own = row("dp-wavelet", kd_full=0.1, records_seen=1.0, seconds=2.0)
    other = row("dp-ldm", kd_full=0.3, records_seen=1.0, seconds=8.0)
    assert one(own, other).seconds_to_reach == 4.0


def test_a_distance_of_nothing_has_no_ratio() -> None:
    """An unbiased one may be zero or less."""
    found = one(ours(kd_full=-0.01), theirs(kd_full=0.3))
    assert "kd_full" not in found.ratios
    assert found.apart["kd_full"] == 1


def test_only_what_learned_at_the_same_epsilon_is_set_beside() -> None:
    rows = [row(REAL, 0.0, fd_full=1.0), row("public:dp-ldm", 0.0, fd_full=40.0), ours(), theirs()]
    other = row("dp-ldm", 10.0, fd_full=3.0, records_seen=1.0, seconds=1.0)
    assert [found.epsilon for found in beside_ours([*rows, other])] == [1.0]
    assert beside_ours([theirs()]) == []


def test_chosen_pictures_stand_beside_chosen_ones() -> None:
    own = [ours("dp-wavelet:chosen@0.1", 5, seen=10), ours("dp-wavelet:chosen", 4), ours("dp-wavelet", 10)]
    plain = one(*own, theirs())
    assert (plain.ours, plain.reached) == ("dp-wavelet", "dp-wavelet")
    chosen = one(*own, theirs("dp-ldm:chosen"))
    assert (chosen.ours, chosen.reached) == ("dp-wavelet:chosen", "dp-wavelet:chosen@0.1")
    assert beside_ours([ours(), theirs("dp-ldm:chosen")]) == []
