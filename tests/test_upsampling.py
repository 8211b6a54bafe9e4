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


def noise(model: DetailModel, count: int, height: int, width: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, model.config.noise, height << level, width << level, generator=generator)
        for level in range(model.config.levels)
    ]


def enlarge(model: DetailModel, coarse: Tensor, seed: int = 0) -> Tensor:
    return model.enlarge(coarse, noise(model, *(coarse.shape[i] for i in (0, 2, 3)), seed=seed))


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
        image = enlarge(made(levels, wavelet), coarse)
        assert image.shape == (2, 3, height << levels, width << levels)
        assert (analyze(image, levels, wavelet)[0] - coarse).abs().max() < 1e-5

    def test_it_begins_as_smooth_enlargement_around_the_coarse_image(self) -> None:
        model, image = made(levels=1), pictures(2, 16)
        coarse = analyze(image, 1)[0]
        model.start(analyze(image, 1))
        smooth = F.interpolate(coarse, scale_factor=2, mode="bicubic")
        torch.testing.assert_close(
            analyze(enlarge(model, coarse), 1)[1], analyze(smooth, 1)[1], atol=1e-6, rtol=0
        )

    def test_details_are_drawn_and_the_same_noise_draws_the_same(self) -> None:
        model, coarse = made(), pictures(2, 8)
        once, again, otherwise = (enlarge(model, coarse, seed) for seed in (1, 1, 2))
        assert torch.equal(once, again)
        assert (once - otherwise).abs().mean() > 1e-3

    def test_noise_at_every_level_counts(self) -> None:
        model, coarse = made(), pictures(1, 8)
        first, other = noise(model, 1, 8, 8, 0), noise(model, 1, 8, 8, 1)
        details = model.details(coarse, first)
        late = model.details(coarse, [first[0], other[1]])
        assert torch.equal(details[0], late[0])
        assert not torch.equal(details[1], late[1])

    def test_known_details_are_kept_and_the_missing_ones_follow_them(self) -> None:
        model, bands = made(), analyze(pictures(2, 32), 2)
        drawn = noise(model, 2, 8, 8)
        image = model.enlarge(bands[0], drawn, known=[bands[1]])
        torch.testing.assert_close(analyze(image, 2)[1], bands[1], atol=1e-5, rtol=0)
        assert not torch.equal(
            model.details(bands[0], drawn, [bands[1]])[1], model.details(bands[0], drawn)[1]
        )

    def test_image_i_draws_its_noise_from_the_seed_and_i_alone(self) -> None:
        model = made()
        all_of_them, last = model.draw_noise(5, 8, seed=3), model.draw_noise(2, 8, seed=3, first=3)
        assert all(torch.equal(a[3:], b) for a, b in zip(all_of_them, last, strict=True))
        assert not torch.equal(all_of_them[0][0], all_of_them[0][1])
        assert not torch.equal(all_of_them[0], model.draw_noise(5, 8, seed=4)[0])
        assert [tuple(each.shape) for each in model.draw_noise(0, 8, seed=3)] == [
            (0, 4, 8, 8),
            (0, 4, 16, 16),
        ]
        many = torch.cat([each.flatten() for each in model.draw_noise(40, 8, seed=5)])
        assert abs(float(many.mean())) < 0.03
        assert abs(float(many.std()) - 1) < 0.03

    def test_even_a_wild_model_cannot_overrule_the_coarse_image(self) -> None:
        model, coarse = made(), pictures(2, 8)
        model.spread.fill_(30.0)
        image = enlarge(model, coarse)
        assert image.abs().max() > 5
        assert (analyze(image, 2)[0] - coarse).abs().max() < 1e-5

    @pytest.mark.parametrize("levels", [1, 2])
    def test_details_come_coarse_to_fine_one_for_each_level(self, levels: int) -> None:
        shapes = [
            tuple(band.shape) for band in made(levels).details(pictures(2, 4), noise(made(levels), 2, 4, 4))
        ]
        assert shapes == [(2, 9, 4 << level, 4 << level) for level in range(levels)]

    def test_the_same_image_gives_the_same_bits_whatever_stands_beside_it(self) -> None:
        model, coarse, others = made(), pictures(3, 8), pictures(3, 8, seed=1)
        others[1] = coarse[1]
        assert torch.equal(enlarge(model, coarse)[1], enlarge(model, others)[1])


class TestStart:
    """The unit of each level."""

    def test_a_level_is_measured_in_its_own_spread(self) -> None:
        model, bands = made(), analyze(pictures(3, 16), 2)
        model.start(bands)
        units = [max(float((band**2).mean() ** 0.5), 1e-3) for band in bands[1:]]
        assert model.spread.tolist() == pytest.approx(units)

    def test_bands_without_any_detail_have_a_unit_too(self) -> None:
        model = made()
        model.start(analyze(torch.zeros(2, 3, 16, 16), 2))
        assert model.spread.tolist() == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"depth": 0}, {"features": 7}, {"noise": 0}])
def test_a_shape_that_does_not_fit_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1 level, 1 block, 8 features"):
        DetailConfig(**wrong)
