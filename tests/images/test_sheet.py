"""Pictures for people: bytes and back without a change, and sheets of the size that was asked for."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dpwavelet.images.sheet import from_bytes, png, sheet, to_bytes


def pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def opened(data: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    every = torch.arange(256).to(torch.uint8)
    assert torch.equal(to_bytes(from_bytes(every)), every)
    assert from_bytes(every)[[0, 255]].tolist() == [-1.0, 1.0]


def test_values_outside_are_clamped_and_values_between_rounded() -> None:
    assert to_bytes(torch.tensor([-9.0, 9.0, 0.003, -0.005])).tolist() == [0, 255, 128, 127]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (32, 32)])
def test_png_gives_the_same_pixels_back(height: int, width: int) -> None:
    image = pixels(3, height, width)
    assert torch.equal(opened(png(image)), image)
    assert torch.equal(opened(png(from_bytes(image))), image)


def test_png_holds_pixels_and_nothing_else() -> None:
    data = png(pixels(3, 8, 8))
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append(data[place + 4 : place + 8])
        place += 12 + length
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}


def test_a_sheet_shows_every_image_enlarged_in_its_place_on_white() -> None:
    rows = [pixels(3, 3, 8, 8), from_bytes(pixels(2, 3, 4, 4))]
    made = sheet(rows, 16, gap=2)
    assert made.shape == (3, 2 * 18, 3 * 18)
    assert made.dtype == torch.uint8
    for line, row in enumerate(rows):
        row = row if row.dtype == torch.uint8 else to_bytes(row)
        factor = 16 // row.shape[-1]
        for column, image in enumerate(row):
            cell = made[:, 18 * line : 18 * line + 18, 18 * column : 18 * column + 18]
            assert torch.equal(
                cell[:, :16, :16], image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            )
            assert (cell[:, 16:] == 255).all()
            assert (cell[:, :, 16:] == 255).all()
    assert (made[:, 18:, 36:] == 255).all()  # the shorter row ends in white
