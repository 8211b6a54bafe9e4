"""The detail model adds and never overrules."""

import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.upsampling import DetailConfig, DetailModel
from dpwavelet.wavelet import analyze


def made(levels: int, wavelet: str = "haar") -> DetailModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DetailModel(DetailConfig(levels=levels, features=16, depth=2, wavelet=wavelet))


def pictures(size: int = 16) -> Tensor:
    smooth = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(smooth, size=size, mode="bilinear")


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior4.4"])
def test_the_coarse_image_survives_whatever_the_model_adds(levels: int, wavelet: str) -> None:
    coarse = torch.rand(2, 3, 8, 8) * 2 - 1
    model = made(levels, wavelet)
    for p in model.parameters():
        p.data.mul_(3)
    full = model.enlarge(coarse)
    assert full.shape == (2, 3, 8 << levels, 8 << levels)
    torch.testing.assert_close(analyze(full, levels, wavelet)[0], coarse, atol=1e-5, rtol=0)
    assert (
        float((full - coarse.repeat_interleave(1 << levels, -1).repeat_interleave(1 << levels, -2)).std()) > 0
    )


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    model, coarse = made(2), torch.rand(3, 3, 4, 4)
    torch.testing.assert_close(model.enlarge(coarse)[1:2], model.enlarge(coarse[1:2]), atol=1e-6, rtol=1e-5)


def test_training_makes_details_better_than_none() -> None:
    bands = analyze(pictures(), 2)
    model = made(2)
    model.measure_spread(bands)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = model.loss(bands[0], bands)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    nothing = pictures().sub(torch.nn.functional.interpolate(bands[0], size=16)).square().mean()
    assert model.enlarge(bands[0]).sub(pictures()).square().mean() < 0.5 * nothing


def test_the_unit_of_a_level_is_the_size_of_its_details() -> None:
    model, bands = made(2), analyze(pictures(), 2)
    model.measure_spread(bands)
    torch.testing.assert_close(model.spread, torch.stack([band.square().mean().sqrt() for band in bands[1:]]))


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError):
        DetailConfig(levels=0)
