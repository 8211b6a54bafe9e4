"""Statistics of rows are those of numpy, however the rows come, and survive the disk."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.rows import BLOCK
from dpwavelet.evaluation.statistics import Statistics, cached

ROWS = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1.0, 5.0, 0.1, 0.0]) + 3.0


def same(one: Statistics, other: Statistics, rel: float = 1e-12) -> bool:
    return (
        one.count == other.count
        and np.allclose(one.mean, other.mean, rtol=rel, atol=0)
        and np.allclose(one.scatter, other.scatter, rtol=rel, atol=1e-12)
    )


@given(cuts=st.lists(st.integers(1, 59), max_size=6, unique=True), seed=st.integers(0, 99))
def test_order_and_pieces_change_nothing(cuts, seed):
    rows = np.random.default_rng(seed).permutation(ROWS)
    assert same(Statistics.of(np.split(rows, sorted(cuts))), Statistics.of([ROWS]))


@pytest.mark.parametrize("count", [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_they_are_those_of_numpy(count):
    rows = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
    found = Statistics.of([rows])
    wide = rows.astype(np.float64)
    assert np.allclose(found.mean, wide.mean(0), rtol=1e-12)
    assert np.allclose(found.scatter, np.cov(wide.T, bias=True) * count, rtol=1e-10, atol=1e-12)


def test_two_halves_add_up_whatever_their_sizes():
    assert same(Statistics.of([ROWS[:1]]) + Statistics.of([ROWS[1:]]), Statistics.of([ROWS]))


def test_a_large_common_offset_costs_no_digits():
    offset = 2.0**30  # exact to add; a sum of squares would have lost 18 of 53 bits, and the spread with them
    rows = np.round(ROWS * 1024) / 1024
    found = Statistics.of([rows[:7] + offset, rows[7:] + offset])
    assert np.allclose(found.covariance, np.cov(rows.T), rtol=1e-7, atol=1e-7)


def test_the_covariance_of_one_row_is_refused():
    with pytest.raises(ConfigError, match="at least 2 rows, got 1"):
        _ = Statistics.of([ROWS[:1]]).covariance


def test_no_rows_and_other_features_are_refused():
    with pytest.raises(ConfigError, match="at least one row"):
        Statistics.of([])
    with pytest.raises(ConfigError, match="4 and 3 features"):
        Statistics.of([ROWS]) + Statistics.of([ROWS[:, :3]])


def test_a_folder_gives_back_every_bit(tmp_path):
    made = Statistics.of([ROWS])
    made.save(tmp_path / "kept", {"network": "thumb"})
    read = Statistics.load(tmp_path / "kept")
    assert read.count == made.count
    assert read.mean.tobytes() == made.mean.tobytes()
    assert read.scatter.tobytes() == made.scatter.tobytes()
    assert json.loads((tmp_path / "kept" / "statistics.json").read_text())["about"] == {"network": "thumb"}


@pytest.mark.parametrize("change", [{"format": 2}, {"count": 0}, {"features": 5}, {"count": "many"}])
def test_a_folder_that_does_not_fit_is_refused(tmp_path, change):
    Statistics.of([ROWS]).save(tmp_path, {})
    told = json.loads((tmp_path / "statistics.json").read_text())
    (tmp_path / "statistics.json").write_text(json.dumps(told | change))
    with pytest.raises(ModelError, match="does not hold statistics"):
        Statistics.load(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"statistics\.json"):
        Statistics.load(tmp_path / "nowhere")


def test_the_cache_computes_once_for_each_thing_that_is_described(tmp_path):
    computed = []

    def compute() -> Statistics:
        computed.append(1)
        return Statistics.of([ROWS + len(computed)])

    first = cached(tmp_path, {"images": "a", "resize": "box"}, compute)
    assert same(first, cached(tmp_path, {"resize": "box", "images": "a"}, compute))
    assert len(computed) == 1
    assert not same(first, cached(tmp_path, {"images": "a", "resize": "area"}, compute))
    assert len(computed) == 2
