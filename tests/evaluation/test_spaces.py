"""A row depends on its image alone, to the last bit, and what an extractor cannot take is refused."""

from dataclasses import replace

import pytest
import torch
from networks import tiny_extractor, tiny_network

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.evaluation.spaces import AT_ONCE, Extractor
from dpwavelet.images.sheet import from_bytes


@pytest.fixture(scope="module")
def by() -> Extractor:
    return tiny_extractor()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (AT_ONCE + 9, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_rows_are_the_features_of_the_network(by, pixels):
    expected = tiny_network()(from_bytes(pixels))[0]
    assert by.rows(pixels) == pytest.approx(expected.numpy(), abs=1e-5)
    assert by.rows(pixels).shape == (len(pixels), by.columns)


def test_a_row_is_the_same_bits_whoever_else_is_in_the_batch(by, pixels):
    whole = by.rows(pixels)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(2))
    assert (by.rows(pixels[order]) == whole[order]).all()
    assert (by.rows(pixels[5:6]) == whole[5:6]).all()
    assert (by.rows(pixels[-9:]) == whole[-9:]).all()


def test_mixed_precision_around_the_call_changes_nothing(by, pixels):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = by.rows(pixels[:4])
    assert (mixed == by.rows(pixels[:4])).all()


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
    ],
)
def test_images_of_another_kind_or_side_are_refused(by, wrong):
    with pytest.raises(ConfigError, match="open the set at 32 pixels"):
        by.rows(wrong)


def test_no_images_have_no_rows(by):
    assert by.rows(torch.zeros(0, 3, 32, 32, dtype=torch.uint8)).shape == (0, 12)


def test_features_that_are_not_finite_are_a_defect_of_the_weights(by, pixels):
    broken = replace(by, compute=lambda x: by.compute(x) / 0)
    with pytest.raises(DataError, match="are its weights whole"):
        broken.rows(pixels[:2])


def test_the_resize_is_told_with_its_side(by):
    assert "32 x 32" in by.resize
