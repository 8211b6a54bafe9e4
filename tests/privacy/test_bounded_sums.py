import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.bounded_sums import GRID_BITS, LARGEST_BOUND, MOST_UNITS, NAME, bounded_sum

GRID = 2.0**-GRID_BITS * 2  # of a bound of 1: the power of two above it
ODD = st.sampled_from([0.0, 1e-300, 0.3, 1.0, 7.0, 1e30, 1e308, -1e308, math.inf, -math.inf, math.nan])


def rows(seed: int, count: int, size: float = 1.0) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal((count, 5))


def total(vectors: np.ndarray, bound: float = 1.0, owners: np.ndarray | None = None) -> np.ndarray:
    return bounded_sum(vectors, bound, owners).values[NAME].numpy()


class TestSensitivity:
    @given(
        count=st.integers(0, 40),
        size=st.sampled_from([1e-3, 0.3, 1.0, 1e6]),
        bound=st.sampled_from([1e-6, 1.0, math.sqrt(8), 1e9]),
        odd=st.lists(ODD, min_size=5, max_size=5),
        seed=st.integers(0, 99),
    )
    def test_one_record_moves_the_sum_by_at_most_the_bound(self, count, size, bound, odd, seed):
        others = rows(seed, count, size)
        with_one = np.vstack([others, [odd]])
        moved = np.linalg.norm(total(with_one, bound) - total(others, bound))
        assert moved <= bound

    @given(
        several=st.integers(1, 6),
        odd=st.lists(ODD, min_size=5, max_size=5),
        seed=st.integers(0, 99),
    )
    def test_one_person_with_all_records_moves_the_sum_by_at_most_the_bound(self, several, odd, seed):
        others, own = rows(seed, 12, 3.0), np.vstack([rows(seed + 1, several, 3.0), [odd]])
        owners = np.arange(12) // 2
        joined = np.concatenate([owners, np.full(len(own), 6)])
        before = total(others, 1.0, owners)
        assert np.linalg.norm(total(np.vstack([others, own]), 1.0, joined) - before) <= 1.0

    @pytest.mark.parametrize("bound", [math.sqrt(2), math.sqrt(8), 0.3])
    def test_totals_are_whole_multiples_of_a_power_of_two_so_adding_up_rounds_nothing(self, bound):
        grid = 2.0 ** (math.frexp(bound)[1] - GRID_BITS)
        found = total(rows(2, 5000), bound) / grid
        assert np.array_equal(found, np.round(found))
        assert MOST_UNITS * bound / grid <= 2**53

    @pytest.mark.parametrize("copies", [1_000, 100_000])
    def test_near_duplicates_of_the_largest_length_add_no_rounding(self, copies):
        one = np.array([[0.6, 0.8, 1e-9, -1e-9, 0.0]])
        many = np.repeat(one, copies, 0)
        moved = np.linalg.norm(total(np.vstack([many, one])) - total(many))
        assert 1 - 1e-8 < moved <= 1.0

    def test_a_plain_sum_of_unclipped_rows_would_be_noticed(self):
        others, long = rows(0, 5), np.full((1, 5), 3.0)
        assert np.linalg.norm((others.sum(0) + long[0]) - others.sum(0)) > 1.0

    def test_the_bound_is_carried_as_the_sensitivity(self):
        assert bounded_sum(rows(0, 3), 2.5).sensitivity == 2.5


class TestValues:
    def test_rows_within_the_bound_are_added_up_as_they_are(self):
        vectors = rows(3, 200, 0.1)
        assert np.allclose(total(vectors), vectors.sum(0), atol=200 * GRID)

    def test_a_longer_row_keeps_its_direction(self):
        found = total(np.array([[3.0, 4.0, 0.0, 0.0, 0.0]]))
        assert np.allclose(found, [0.6, 0.8, 0, 0, 0], atol=2 * GRID)

    def test_a_row_that_is_not_finite_counts_as_zero(self):
        vectors = np.vstack([rows(1, 4, 0.1), [[math.nan, 0, 0, 0, 0]], [[math.inf, 0, 0, 0, 0]]])
        assert np.array_equal(total(vectors), total(vectors[:4]))

    def test_a_person_brings_the_mean_of_their_records(self):
        vectors = np.array([[0.2, 0, 0, 0, 0], [0.4, 0, 0, 0, 0], [0, 0.5, 0, 0, 0]])
        found = total(vectors, 1.0, np.array([7, 7, 2]))
        assert np.allclose(found, [0.3, 0.5, 0, 0, 0], atol=3 * GRID)

    def test_order_changes_no_bit(self):
        vectors, mixed = rows(5, 300), np.random.default_rng(1).permutation(300)
        assert np.array_equal(total(vectors), total(vectors[mixed]))

    @pytest.mark.parametrize("at_once", [1, 7, 300])
    @pytest.mark.parametrize("people", [False, True])
    def test_how_many_are_added_up_at_once_changes_no_bit(self, at_once, people, monkeypatch):
        vectors = np.vstack([rows(5, 300), [[math.nan, 0, 0, 0, 0]]])
        owners = np.random.default_rng(2).integers(0, 90, 301) if people else None
        whole = total(vectors, 1.0, owners)
        monkeypatch.setattr("dpwavelet.privacy.bounded_sums.AT_ONCE", at_once)
        assert np.array_equal(total(vectors, 1.0, owners), whole)

    def test_nobody_gives_zero(self):
        assert np.array_equal(total(np.empty((0, 5))), np.zeros(5))
        assert np.array_equal(total(np.empty((0, 5)), 1.0, np.empty(0, np.int64)), np.zeros(5))


class TestRefusals:
    @pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan, 1, 1e-200, 2 * LARGEST_BOUND])
    def test_a_bound_that_is_no_usual_number_above_0_is_refused(self, bound):
        with pytest.raises(PrivacyError, match="a bound from"):
            bounded_sum(rows(0, 2), bound)

    def test_more_units_than_add_up_exactly_are_refused(self, monkeypatch):
        monkeypatch.setattr("dpwavelet.privacy.bounded_sums.MOST_UNITS", 3)
        with pytest.raises(PrivacyError, match="exactly"):
            bounded_sum(rows(0, 4), 1.0)

    def test_owners_of_other_records_are_refused(self):
        with pytest.raises(PrivacyError, match="owners"):
            bounded_sum(rows(0, 4), 1.0, np.zeros(3, np.int64))
