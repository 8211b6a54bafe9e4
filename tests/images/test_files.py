import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpwavelet.errors import DataError
from dpwavelet.images.files import decode, decode_many, describe, in_order


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width=40, height=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(width, height, depth=8, colour=2, body=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


class Files(list):
    names = property(lambda self: [f"{i}.png" for i in range(len(self))])

    def read(self, index):
        return self[index]


def test_an_image_of_the_asked_size_comes_back_untouched():
    image = noise()
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(decode(encoded(image), 40, "a.png"), expected)


@given(factor=st.integers(2, 5), size=st.integers(1, 12))
def test_an_integer_factor_is_the_mean_of_whole_blocks(factor, size):
    image = noise(size * factor, size * factor)
    blocks = np.array(image, np.float64).reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    got = decode(encoded(image), size, "a.png").permute(1, 2, 0).numpy()
    assert np.abs(got - blocks).max() < 0.75  # Pillow multiplies by a rounded 1 / factor²


def test_a_wide_image_is_cropped_to_its_middle():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    assert torch.equal(
        decode(encoded(image), 10, "a.png").unique(), torch.tensor([0, 255], dtype=torch.uint8)
    )
    assert (decode(encoded(image), 10, "a.png")[2] == 255).all()


@pytest.mark.parametrize("size", [(7, 7), (50, 31), (333, 200), (3, 500)])
def test_any_size_becomes_the_asked_square(size):
    assert decode(encoded(noise(*size)), 16, "a.png").shape == (3, 16, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_every_accepted_format_decodes_and_is_described(kind):
    data = encoded(Image.new("RGB", (20, 10), (200, 40, 40)), kind)
    facts = describe(data)
    assert (facts.width, facts.height, facts.format) == (20, 10, kind)
    middle = decode(data, 8, "a")[:, 4, 4].int()
    assert (middle - torch.tensor([200, 40, 40])).abs().max() <= 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_an_error_that_names_it(kind, part):
    data = encoded(noise(64, 64), kind)
    with pytest.raises(DataError, match="cut"):
        decode(data[: int(len(data) * part)], 16, "cut")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_damaged_bytes_never_raise_anything_but_a_data_error(kind):
    data, dice = encoded(noise(24, 24), kind), random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[dice.randrange(len(data))] = dice.randrange(256)
        for look in (describe, lambda data: decode(data, 8, "damaged")):
            try:
                look(bytes(damaged))
            except DataError:
                pass
            except Warning as warning:
                assert not isinstance(warning, Image.DecompressionBombWarning)


@pytest.mark.parametrize("side", [8_001, 9_500, 20_000, 2**31 - 1])
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(side):
    for look in (describe, lambda data: decode(data, 64, "bomb.png")):
        with pytest.raises(DataError, match=f"{side} x {side} pixels"):
            look(png(side, side))


def test_a_file_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr("dpwavelet.images.files.BYTES_LIMIT", 100)
    with pytest.raises(DataError, match="at most 100"):
        decode(encoded(noise()), 8, "a.png")


def test_text_is_no_image():
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        decode(b"hello", 8, "a.png")


def test_sixteen_bit_grey_is_scaled_by_its_whole_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).repeat(256).reshape(256, 256)
    data = encoded(Image.fromarray(ramp))
    assert decode(encoded(Image.fromarray(np.full((8, 8), 0xFF00, np.uint16))), 8, "a.png").max() == 254
    assert decode(data, 256, "a.png")[0, :, 0].tolist() == list(range(256))
    assert "16-bit to 8-bit, by the full 16-bit range" in describe(data).conversions


def test_sixteen_bit_colour_keeps_its_upper_byte_and_is_reported():
    row = b"\0" + struct.pack(">HHH", 0xFF00, 0x8000, 0x0100) * 4
    data = png(4, 4, depth=16, body=row * 4)
    assert decode(data, 4, "a.png")[:, 0, 0].tolist() == [255, 128, 1]
    assert describe(data).depth == 16


def test_sixteen_bit_tiff_is_reported_and_scaled():
    data = encoded(Image.fromarray(np.full((8, 8), 32896, np.uint16)), "TIFF")
    assert describe(data).depth == 16
    assert decode(data, 8, "a.tif").unique().tolist() == [128]


def test_sixteen_bits_whose_zero_is_white_are_turned_as_eight_are():
    """As radiographs are stored now and then."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    upright = decode(encoded(Image.fromarray(ramp), "TIFF", tiffinfo={262: 1}), 8, "a.tif")
    turned = decode(encoded(Image.fromarray(ramp), "TIFF", tiffinfo={262: 0}), 8, "a.tif")
    assert (upright.int() + turned.int() == 255).all()
    assert upright.float().std() > 50


def test_twelve_bits_are_refused_and_not_taken_for_sixteen():
    data = bytearray(encoded(Image.fromarray(np.full((8, 8), 4095, np.uint16)), "TIFF"))
    entry = data.index(struct.pack("<HHL", 258, 3, 1)) + 8  # bits of each sample
    data[entry : entry + 2] = struct.pack("<H", 12)
    with pytest.raises(DataError, match=r"a\.tif"):
        decode(bytes(data), 8, "a.tif")


def test_a_clear_value_of_sixteen_bit_grey_is_laid_over_white():
    grey = np.full((8, 8), 40000, np.uint16)
    grey[:4] = 7
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    data = png(8, 8, depth=16, colour=0, body=body)
    chunk = b"tRNS" + struct.pack(">H", 7)
    clear = struct.pack(">L", 2) + chunk + struct.pack(">L", zlib.crc32(chunk))
    place = data.index(b"IDAT") - 4
    picture = decode(data[:place] + clear + data[place:], 8, "a.png")
    assert picture[0, :, 0].tolist() == [255] * 4 + [156] * 4


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bit_pixels_are_refused(mode):
    with pytest.raises(DataError, match="32-bit"):
        decode(encoded(Image.new(mode, (8, 8)), "TIFF"), 8, "a.tif")


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(encoded(clear), 8, "a.png") == 255).all()
    assert "transparency laid over white" in describe(encoded(clear)).conversions
    palette = Image.new("P", (8, 8), 0)
    assert (decode(encoded(palette, transparency=0), 8, "a.png") == 255).all()


def test_grey_palette_and_black_and_white_become_rgb():
    for mode, words in [("L", "grey"), ("1", "grey"), ("P", "palette")]:
        data = encoded(noise().convert(mode))
        assert decode(data, 40, "a.png").shape == (3, 40, 40)
        assert any(words in conversion for conversion in describe(data).conversions)


def test_cmyk_becomes_rgb_and_is_reported():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    red, green, blue = decode(data, 8, "a.jpg")[:, 4, 4].tolist()
    assert red > 240 and green < 15 and blue < 15
    assert describe(data).conversions == ("CMYK to RGB",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = Image.new("RGB", (32, 32), "white")
    upright.paste("black", (0, 0, 16, 8))
    methods = Image.Transpose
    stored = {
        2: methods.FLIP_LEFT_RIGHT,
        3: methods.ROTATE_180,
        4: methods.FLIP_TOP_BOTTOM,
        5: methods.TRANSPOSE,
        6: methods.ROTATE_90,
        7: methods.TRANSVERSE,
        8: methods.ROTATE_270,
    }
    image = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(image, exif=exif)
    assert torch.equal(decode(data, 32, "a.png"), decode(encoded(upright), 32, "b.png"))
    assert describe(data).exif_rotated == (orientation != 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_this_is_reported(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second])
    facts = describe(data)
    assert facts.frames == 2 and "first frame of several" in facts.conversions
    assert decode(data, 8, "a")[0].min() > 240


def test_a_large_photograph_decodes_close_to_its_full_decoding():
    smooth = noise(16, 16).resize((1024, 1024), Image.Resampling.BICUBIC)
    whole = np.array(Image.open(io.BytesIO(encoded(smooth, "JPEG"))).resize((32, 32), Image.Resampling.BOX))
    got = decode(encoded(smooth, "JPEG"), 32, "a.jpg").permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - whole).max() <= 3


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_many_images_come_in_the_order_asked_for(workers):
    folder = Files(encoded(Image.new("RGB", (8, 8), (i, i, i))) for i in range(60))
    indices = [59, 0, 7, 7, *range(50)]
    assert decode_many(folder, indices, 8, workers)[:, 0, 0, 0].tolist() == indices


def test_no_images_are_an_empty_batch():
    assert decode_many(Files(), [], 8).shape == (0, 3, 8, 8)


@given(count=st.integers(0, 700), workers=st.integers(1, 3))
def test_parallel_work_keeps_its_order_and_loses_nothing(count, workers):
    assert list(in_order(lambda i: i * i, range(count), workers)) == [i * i for i in range(count)]
