"""Features are checked before they are measured, and subsets are disjoint and public."""

import numpy as np
import pytest
import torch

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.evaluation.rows import BLOCK, blocks, checked, checked_pair, disjoint


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_tensors_of_any_real_type_are_features(kind):
    tensor = torch.tensor([[1.0, 2.0], [3.0, -4.0]], requires_grad=kind.is_floating_point).to(kind)
    ((_, block),) = blocks(checked(tensor))
    assert block.dtype == np.float64
    assert block.tolist() == [[1, 2], [3, -4]]


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2), complex), np.zeros((2, 2, 2))]
)
def test_what_is_no_table_of_numbers_is_refused(wrong):
    with pytest.raises(ConfigError, match="one row for each image"):
        checked(wrong)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e41, -1e41])
def test_a_value_that_would_spoil_a_distance_is_refused_by_its_row(wrong):
    rows = np.zeros((BLOCK + 10, 3))
    rows[BLOCK + 4, 1] = wrong
    with pytest.raises(DataError, match=f"row {BLOCK + 4} is not"):
        checked(rows)


def test_sets_of_other_features_are_refused():
    with pytest.raises(ConfigError, match="3 and 2 columns"):
        checked_pair(np.zeros((4, 3)), np.zeros((4, 2)))


def test_disjoint_subsets_have_their_sizes_and_share_no_row():
    first, second = disjoint(50, (20, 30), seed=3)
    assert sorted([*first, *second]) == list(range(50))
    assert (len(first), len(second)) == (20, 30)


def test_disjoint_subsets_depend_on_the_seed_alone():
    once, again, other = (disjoint(100, (10,), seed=seed)[0].tolist() for seed in (1, 1, 2))
    assert once == again != other


@pytest.mark.parametrize("sizes", [(), (0, 3), (6, 5)])
def test_subsets_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match="disjoint subsets of 10 rows"):
        disjoint(10, sizes, seed=0)
