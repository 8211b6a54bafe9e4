"""Wavelets: PyWavelets is the witness, and every transform can be undone."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError
from dpwavelet.wavelet import WAVELETS, analyze, synthesize


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("size", [(2, 2), (6, 2), (4, 10), (16, 8), (64, 64)])
def test_one_level_is_that_of_pywavelets(wavelet: str, size: tuple[int, int]) -> None:
    x = image(*size)
    few, (high_low, low_high, high_high) = pywt.dwt2(x.numpy(), wavelet, mode="periodization")
    approximation, details = analyze(x, 1, wavelet)
    expected = np.concatenate((low_high, high_low, high_high), 1)
    np.testing.assert_allclose(2 * approximation.numpy(), few, atol=1e-11)
    np.testing.assert_allclose(2 * details.numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_deeper_levels_are_those_of_pywavelets_with_every_band_halved_once_a_level(wavelet: str) -> None:
    x = image(128, 80)
    approximation, *details = analyze(x, 3, wavelet)
    few, *theirs = pywt.wavedec2(x.numpy(), wavelet, mode="periodization", level=3)
    np.testing.assert_allclose(2**3 * approximation.numpy(), few, atol=1e-11)
    for level, found, (high_low, low_high, high_high) in zip((3, 2, 1), details, theirs, strict=True):
        expected = np.concatenate((low_high, high_low, high_high), 1)
        np.testing.assert_allclose(2**level * found.numpy(), expected, atol=1e-11)


@settings(max_examples=50)
@given(
    height=st.integers(1, 10),
    width=st.integers(1, 10),
    levels=st.integers(1, 3),
    wavelet=st.sampled_from(WAVELETS),
)
def test_synthesis_undoes_analysis_at_every_even_size(
    height: int, width: int, levels: int, wavelet: str
) -> None:
    x = image(height << levels, width << levels)
    torch.testing.assert_close(synthesize(analyze(x, levels, wavelet), wavelet), x, atol=1e-10, rtol=0)


@given(levels=st.integers(1, 3), wavelet=st.sampled_from(WAVELETS), kept=st.integers(1, 4))
def test_the_first_bands_make_the_image_at_their_scale(levels: int, wavelet: str, kept: int) -> None:
    x = image(16, 24)
    bands = analyze(x, levels, wavelet)
    kept = min(kept, len(bands))
    shallower = levels - (kept - 1)
    expected = analyze(x, shallower, wavelet)[0] if shallower else x
    torch.testing.assert_close(synthesize(bands[:kept], wavelet), expected, atol=1e-10, rtol=0)


def test_the_haar_approximation_is_the_image_shrunk_by_averaging_boxes() -> None:
    x = image(32, 16)
    torch.testing.assert_close(analyze(x, 2)[0], torch.nn.functional.avg_pool2d(x, 4))


def test_bands_come_coarsest_first_with_three_times_the_channels_in_details() -> None:
    shapes = [tuple(band.shape[1:]) for band in analyze(image(32, 16), 2)]
    assert shapes == [(3, 8, 4), (9, 8, 4), (9, 16, 8)]


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "sym4"])
@pytest.mark.parametrize(("band", "level"), [(0, 3), (1, 3), (2, 2), (3, 1)])
def test_an_error_on_a_band_at_level_l_is_two_to_the_l_times_larger_on_the_image(
    wavelet: str, band: int, level: int
) -> None:
    bands = analyze(image(32, 16), 3, wavelet)
    error = torch.randn_like(bands[band])
    spoilt = [*bands[:band], bands[band] + error, *bands[band + 1 :]]
    change = synthesize(spoilt, wavelet) - synthesize(bands, wavelet)
    assert float(change.norm()) == pytest.approx(2**level * float(error.norm()))


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_an_image_has_the_same_bits_alone_and_in_a_batch(wavelet: str) -> None:
    batch = image(16, 16).float()
    alone = analyze(batch[1:], 2, wavelet)
    assert all(
        torch.equal(one[0], both[1]) for one, both in zip(alone, analyze(batch, 2, wavelet), strict=True)
    )


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_gradients_flow_both_ways(wavelet: str) -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: tuple(analyze(y, 2, wavelet)), (x,))
    bands = tuple(band.detach().requires_grad_() for band in analyze(x, 2, wavelet))
    assert torch.autograd.gradcheck(lambda *b: synthesize(b, wavelet), bands)


@pytest.mark.parametrize(
    ("height", "width", "levels", "named"),
    [(7, 8, 1, "7 x 8"), (8, 6, 2, "divide by 4"), (8, 8, 4, "divide by 16"), (8, 8, 0, "0 wavelet levels")],
)
def test_a_size_that_does_not_halve_is_refused(height: int, width: int, levels: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        analyze(image(height, width), levels)


def test_an_unknown_wavelet_is_refused() -> None:
    with pytest.raises(ConfigError, match="haar"):
        analyze(image(8, 8), 1, "db3")
