"""Tensors to pictures."""

import io

import numpy as np
import torch
from PIL import Image

from dpwavelet.images.sheet import from_bytes, png, sheet, to_bytes


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_bytes(from_bytes(every)), every)


def test_values_outside_are_clamped() -> None:
    assert to_bytes(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_png_holds_the_pixels_and_nothing_else() -> None:
    pixels = torch.randint(256, (3, 5, 7), dtype=torch.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels.permute(1, 2, 0).numpy())
        assert not image.info


def test_a_sheet_enlarges_each_image_and_sets_rows_under_each_other() -> None:
    found = sheet([torch.zeros(3, 3, 4, 4), torch.ones(2, 3, 8, 8)], side=8, gap=1)
    assert found.shape == (3, 18, 27)
    assert found[0, 0, 0] == 128
    assert found[0, 9, 0] == 255
