import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.frechet import frechet_distance
from dpwavelet.evaluation.moments import Frame, noisy_frechet

COLUMNS = 6


def gaussian(count: int, seed: int, shift: float = 0.0, width: float = 1.0) -> np.ndarray:
    scales = width * np.linspace(1.0, 0.3, COLUMNS + 2)
    return np.random.default_rng(seed).standard_normal((count, COLUMNS + 2)) * scales + shift


def frame(generated: np.ndarray) -> Frame:
    return Frame.around(generated, COLUMNS)


class TestVectors:
    @given(
        row=st.lists(st.sampled_from([0.0, 0.5, -3.0, 1e6, -1e30]), min_size=8, max_size=8),
        seed=st.integers(0, 9),
    )
    def test_no_row_brings_a_vector_longer_than_the_bound(self, row, seed):
        here = frame(gaussian(50, seed))
        assert np.linalg.norm(here.vectors(np.array([row]))) <= here.bound * (1 + 1e-12)

    def test_the_bound_is_reached_so_it_is_no_larger_than_it_must_be(self):
        here = frame(gaussian(50, 0))
        longest = np.linalg.norm(here.vectors(np.full((1, 8), 1e9)))
        assert longest == pytest.approx(here.bound, rel=1e-12)
        assert here.bound == math.sqrt(1 + 1 + 4)

    def test_a_vector_depends_on_its_own_row_alone(self):
        here, rows = frame(gaussian(50, 0)), gaussian(20, 1)
        assert np.array_equal(here.vectors(rows)[3], here.vectors(rows[3:4])[0])

    def test_moments_of_the_sum_are_those_of_the_rows(self):
        generated = gaussian(4000, 0)
        here, rows = frame(generated), gaussian(3000, 1, width=0.4)  # all within reach
        mean, covariance = here.moments(here.vectors(rows).sum(0))
        used = (rows[:, :COLUMNS] - here.centre) / here.radius
        assert np.allclose(mean, used.mean(0))
        assert np.allclose(covariance, np.cov(used.T, bias=True), atol=1e-12)

    def test_too_few_generated_pictures_make_no_frame(self):
        with pytest.raises(ConfigError, match="draw more"):
            Frame.around(gaussian(COLUMNS, 0), COLUMNS)


class TestDistance:
    def test_without_noise_it_is_the_frechet_distance_of_these_columns(self):
        generated, real = gaussian(3000, 0, width=0.4), gaussian(5000, 1, shift=0.05, width=0.35)
        here = frame(np.vstack([generated, 3 * generated]))  # wide enough for both
        found = noisy_frechet(here.vectors(real).sum(0), 0.0, generated, here, seed=0)
        reference = frechet_distance(real[:, :COLUMNS], generated[:, :COLUMNS]).value
        assert found.value == pytest.approx(reference, rel=2e-2)
        assert found.noise < 1e-12

    def test_equal_populations_come_out_near_zero_under_noise(self):
        """Fifteen private sets; uncorrected, noise alone would show as a distance."""
        generated = gaussian(2000, 0)
        here, found = frame(generated), []
        for seed in range(15):
            total = here.vectors(gaussian(2000, seed + 1)).sum(0)
            noise = np.random.default_rng(seed).standard_normal(len(total))
            found.append(noisy_frechet(total + 20.0 * noise, 20.0, generated, here, seed).value)
        far = noisy_frechet(here.vectors(gaussian(2000, 1, shift=0.5)).sum(0), 20.0, generated, here, 0).value
        assert np.mean(found) < 0.05 * far

    def test_the_stated_noise_is_that_of_repeated_releases(self):
        generated, real = gaussian(2000, 0), gaussian(2000, 1, shift=0.3)
        here = frame(generated)
        total = here.vectors(real).sum(0)
        runs = [
            noisy_frechet(
                total + 15.0 * np.random.default_rng(seed).standard_normal(len(total)),
                15.0,
                generated,
                here,
                0,
            )
            for seed in range(60)
        ]
        spread = np.std([run.value for run in runs], ddof=1)
        stated = np.mean([run.noise for run in runs])
        assert 0.6 < stated / spread < 1.6  # 60 draws know a deviation to a tenth

    @pytest.mark.parametrize(("count", "clear"), [(2_000, False), (24_000, True)])
    def test_a_distance_that_is_told_lies_within_its_stated_noise(self, count, clear):
        """With the noise that half of an epsilon buys. Where it is too large nothing is told."""
        spread = 1 / np.sqrt(1 + np.arange(24))
        draw = np.random.default_rng(0).standard_normal
        generated, real = draw((1000, 24)) * spread, 0.3 * spread + 0.7 * draw((count, 24)) * spread
        here = Frame.around(generated.astype(np.float32))
        total = here.vectors(real.astype(np.float32)).sum(0)
        exact = noisy_frechet(total, 0.0, generated, here, 0)
        assert exact.clear and exact.lost < 1e-9
        deviation = 6 * math.sqrt(8)
        found = [
            noisy_frechet(total + deviation * draw(len(total)), deviation, generated, here, seed)
            for seed in range(10)
        ]
        held = [abs(one.value - exact.value) <= 2 * one.noise for one in found]
        assert {one.clear for one in found} == {clear}
        assert sum(held) >= 8 if clear else not any(held)

    def test_a_sum_of_noise_alone_still_gives_a_finite_number(self):
        generated = gaussian(200, 0)
        here = frame(generated)
        noise = np.random.default_rng(0).standard_normal(len(here.vectors(generated)[0]))
        found = noisy_frechet(-1e4 * np.abs(noise), 1e4, generated, here, 0)
        assert math.isfinite(found.value) and math.isfinite(found.noise)
        assert found.value >= 0
