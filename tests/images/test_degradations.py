import numpy as np
import pytest
import torch

from dpwavelet.images.degradations import DEGRADATIONS, jpeg, noise, pixelate, shuffle
from dpwavelet.images.drawn import portraits, render


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.from_numpy(render(portraits(6, 0), 64).transpose(0, 3, 1, 2).copy())


def worse(name: str, pictures: torch.Tensor, strength: float) -> torch.Tensor:
    return DEGRADATIONS[name](pictures, strength, np.random.default_rng(0))


@pytest.mark.parametrize("name", DEGRADATIONS)
class TestEvery:
    def test_strength_zero_changes_nothing(self, name, pictures):
        assert torch.equal(worse(name, pictures, 0.0), pictures)

    def test_more_strength_is_further_from_the_picture(self, name, pictures):
        far = [
            float((worse(name, pictures, strength).float() - pictures.float()).abs().mean())
            for strength in (0.0, 0.2, 0.5, 1.0)
        ]
        assert far == sorted(far) and far[0] < far[1] < far[3]

    def test_the_kind_and_shape_stay_and_the_input_too(self, name, pictures):
        before = pictures.clone()
        found = worse(name, pictures, 0.7)
        assert found.dtype == torch.uint8 and found.shape == pictures.shape
        assert torch.equal(pictures, before)


def test_noise_has_the_stated_size():
    grey = torch.full((8, 3, 64, 64), 128, dtype=torch.uint8)
    found = noise(grey, 0.1, np.random.default_rng(0)).float()
    assert float(found.std()) == pytest.approx(255 * 0.03, rel=0.02)


def test_pixels_are_squares_of_one_colour(pictures):
    found = pixelate(pictures, 1.0, np.random.default_rng(0))
    squares = found.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    assert torch.equal(squares.amin(4), squares.amax(4))


def test_shuffling_moves_squares_and_loses_none(pictures):
    found = shuffle(pictures, 1.0, np.random.default_rng(0))

    def squares(x: torch.Tensor) -> list[list[bytes]]:
        cut = x.unfold(2, 8, 8).unfold(3, 8, 8)
        return [
            sorted(picture[:, i, j].numpy().tobytes() for i in range(8) for j in range(8)) for picture in cut
        ]

    assert squares(found) == squares(pictures)


def test_jpeg_needs_no_chance(pictures):
    assert torch.equal(*(jpeg(pictures, 0.5, np.random.default_rng(seed)) for seed in (0, 1)))
