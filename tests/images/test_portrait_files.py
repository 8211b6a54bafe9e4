import io

import numpy as np
import pytest
from PIL import Image

from dpwavelet.images.portrait_files import png, write_part
from dpwavelet.images.portrait_painting import render
from dpwavelet.images.portrait_people import portraits


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (64, 64)])
def test_a_png_file_holds_every_pixel(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


def test_a_picture_takes_no_more_bytes_than_the_best_of_all_filters_would(tmp_path):
    images = render(portraits(50, seed=7), 64)
    filtered = io.BytesIO()
    for image in images:
        Image.fromarray(image).save(filtered, "PNG", compress_level=1)
    assert sum(len(png(image)) for image in images) <= filtered.tell()


def test_a_part_is_the_same_files_as_in_the_whole(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir(), part.mkdir()
    lines = write_part(whole, 0, 12, seed=7, size=16)
    assert write_part(part, 5, 3, seed=7, size=16) == lines[5:8]
    assert sorted(path.name for path in part.iterdir()) == ["000005.png", "000006.png", "000007.png"]
    for path in part.iterdir():
        assert path.read_bytes() == (whole / path.name).read_bytes()
