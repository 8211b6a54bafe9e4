"""The detail model adds details and leaves the coarse image as it was."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.upsampling import DetailConfig, DetailModel
from dpwavelet.wavelet import WAVELETS, analyze


def made(levels: int = 2, wavelet: str = "haar") -> DetailModel:
    with torch.random.fork_rng():
        torch.manual_seed(levels)
        model = DetailModel(DetailConfig(levels=levels, wavelet=wavelet, features=8, depth=2))
    return model.eval()


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """Smooth random images in [-1, 1] [count, 3, side, side]."""
    few = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(few, size=side, mode="bilinear")


def trained(model: DetailModel, bands: list[Tensor], steps: int) -> tuple[list[float], Tensor]:
    """Losses of some steps of Adam, and the coarse images enlarged afterwards."""
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(steps):
        loss = model.loss(bands[0], bands)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model.enlarge(bands[0])


class TestEnlarge:
    """A full image around the coarse one."""

    @settings(max_examples=30)
    @given(
        levels=st.integers(1, 3),
        wavelet=st.sampled_from(WAVELETS),
        height=st.integers(1, 5),
        width=st.integers(1, 5),
        seed=st.integers(0, 99),
    )
    def test_analysing_the_result_gives_the_coarse_image_back(
        self, levels: int, wavelet: str, height: int, width: int, seed: int
    ) -> None:
        coarse = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        image = made(levels, wavelet).enlarge(coarse)
        assert image.shape == (2, 3, height << levels, width << levels)
        assert (analyze(image, levels, wavelet)[0] - coarse).abs().max() < 1e-5

    def test_the_details_are_its_own_and_not_those_of_plain_enlargement(self) -> None:
        coarse = pictures(2, 8)
        plain = coarse.repeat_interleave(4, -1).repeat_interleave(4, -2)
        assert (made().enlarge(coarse) - plain).abs().max() > 0.01

    def test_even_a_wild_model_cannot_overrule_the_coarse_image(self) -> None:
        model, coarse = made(), pictures(2, 8)
        model.spread.fill_(30.0)
        image = model.enlarge(coarse)
        assert image.abs().max() > 5
        assert (analyze(image, 2)[0] - coarse).abs().max() < 1e-5

    @pytest.mark.parametrize("levels", [1, 2])
    def test_details_come_coarse_to_fine_one_for_each_level(self, levels: int) -> None:
        shapes = [tuple(band.shape) for band in made(levels).details(pictures(2, 4))]
        assert shapes == [(2, 9, 4 << level, 4 << level) for level in range(levels)]

    def test_the_same_image_gives_the_same_bits_whatever_stands_beside_it(self) -> None:
        model, coarse, others = made(), pictures(3, 8), pictures(3, 8, seed=1)
        others[1] = coarse[1]
        assert torch.equal(model.enlarge(coarse), model.enlarge(coarse))
        assert torch.equal(model.enlarge(coarse)[1], model.enlarge(others)[1])


class TestLearning:
    """What the loss measures, and that it falls."""

    def test_the_loss_is_the_mean_over_levels_of_absolute_errors_in_units_of_their_spread(self) -> None:
        model, bands = made(), analyze(pictures(3, 16), 2)
        model.measure_spread(bands)
        units = [max(float((band**2).mean() ** 0.5), 1e-3) for band in bands[1:]]
        errors = [
            float((guess - true).detach().abs().mean()) / unit
            for guess, true, unit in zip(model.details(bands[0]), bands[1:], units, strict=True)
        ]
        assert float(model.loss(bands[0], bands).detach()) == pytest.approx(sum(errors) / 2, rel=1e-5)

    def test_details_that_are_right_cost_nothing(self) -> None:
        model = made()
        bands = [pictures(2, 4)]
        bands += [band.detach() for band in model.details(bands[0])]
        assert float(model.loss(bands[0], bands).detach()) == 0.0

    def test_bands_without_any_detail_have_a_unit_too(self) -> None:
        model = made()
        model.measure_spread(analyze(torch.zeros(2, 3, 16, 16), 2))
        assert model.spread.tolist() == pytest.approx([1e-3, 1e-3])

    def test_some_steps_lower_the_loss_and_the_error_on_pixels(self) -> None:
        images = pictures(4, 16)
        bands, model = analyze(images, 2), made().train()
        model.measure_spread(bands)
        losses, enlarged = trained(model, bands, steps=30)
        assert losses[-1] < 0.7 * losses[0]
        blurred = bands[0].repeat_interleave(4, -1).repeat_interleave(4, -2)
        assert F.mse_loss(enlarged, images) < 0.7 * F.mse_loss(blurred, images)

    def test_training_repeats_bit_for_bit(self) -> None:
        bands = analyze(pictures(2, 16), 2)
        assert torch.equal(*(trained(made().train(), bands, steps=3)[1] for _ in range(2)))


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"depth": 0}, {"features": 7}])
def test_a_shape_that_does_not_fit_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1 level, 1 block and 8 features"):
        DetailConfig(**wrong)
