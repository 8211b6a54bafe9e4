"""Perceptual distances tell equal from blurred, matched from swapped, and one stage from the other."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.perceptual import Distance, by_network, perceptual_pairs
from dpwavelet.features import FeatureConfig, FeatureNetwork, perceptual_distance
from dpwavelet.images.degradations import blur
from dpwavelet.images.drawn import portraits, render
from dpwavelet.images.sheet import from_bytes, to_bytes
from dpwavelet.wavelet import analyze

PIXELS = Distance("mean square", lambda a, b: (a - b).square().mean((1, 2, 3)))


@pytest.fixture(scope="module")
def network() -> Distance:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = FeatureConfig(widths=(8, 16), depth=1, features=16, classes=4, image_size=32)
        return by_network(FeatureNetwork(config).eval().requires_grad_(False), "tiny")


@pytest.fixture(scope="module")
def real() -> Tensor:
    return torch.from_numpy(render(portraits(40, 0), 32)).permute(0, 3, 1, 2).contiguous()


def blurred(images: Tensor, strength: float) -> Tensor:
    return blur(images, strength, np.random.default_rng(0))


def test_equal_pictures_are_no_distance_apart(network, real):
    found = perceptual_pairs(network, real, real)
    assert (found.full.value, found.full.interval) == (0.0, (0.0, 0.0))
    assert found.swapped.value == pytest.approx(found.other.value)
    assert found.stages is None
    assert found.full.name == "perceptual distance (tiny), full"


def test_the_distance_grows_with_blur(network, real):
    values = [perceptual_pairs(network, real, blurred(real, s)).full.value for s in (0.0, 0.25, 0.5, 1.0)]
    assert sorted(values) == values
    assert len(set(values)) == 4


def test_it_is_the_mean_of_the_pairs_in_their_order(network, real):
    full = blurred(real, 0.5)
    each = [
        float(network.between(from_bytes(a[None]), from_bytes(b[None])))
        for a, b in zip(real, full, strict=True)
    ]
    found = perceptual_pairs(network, real, full).full
    assert found.value == pytest.approx(np.mean(each), rel=1e-5)
    assert found.error == pytest.approx(np.std(each, ddof=1) / 40**0.5, rel=1e-5)
    assert found.sizes == (40, 40)


def test_samples_of_their_captions_are_nearer_than_of_other_captions_and_ignorant_ones_are_not(network, real):
    obedient = perceptual_pairs(network, real, blurred(real, 0.3))
    ignorant = perceptual_pairs(network, real, blurred(real, 0.3).roll(1, 0))
    assert obedient.full.interval[1] < obedient.swapped.interval[0]
    assert ignorant.full.interval[0] < ignorant.swapped.interval[1]
    assert ignorant.full.interval[1] > ignorant.swapped.interval[0]


def test_other_is_of_disjoint_pairs_of_different_pictures(real):
    """Seen in pictures that are numbers: no picture meets itself, and none stands in two pairs."""
    numbers = torch.arange(9.0)[:, None, None, None].expand(9, 3, 8, 8) / 9
    met: list[tuple[float, float]] = []

    def between(a: Tensor, b: Tensor) -> Tensor:
        met.extend(
            zip(a[:, 0, 0, 0].mul(9).round().tolist(), b[:, 0, 0, 0].mul(9).round().tolist(), strict=True)
        )
        return (a - b).square().mean((1, 2, 3))

    found = perceptual_pairs(Distance("numbers", between), numbers, numbers)
    swapped, back, other = met[9:13], met[13:17], met[17:]
    assert len(set(sum(other, ()))) == 8
    assert swapped == other == [(b, a) for a, b in back]
    assert found.other.sizes == (4, 4)


def stages(distance: Distance, real: Tensor, full: Tensor, coarse: Tensor):
    found = perceptual_pairs(distance, real, full, coarse).stages
    assert found is not None
    return found


def test_a_private_stage_that_fails_and_a_public_one_that_fails_are_told_apart(network, real):
    band = analyze(from_bytes(real), 2)[0]
    good = stages(network, real, real, band)
    no_detail = F.interpolate(band, size=(32, 32), mode="bicubic").clamp(-1, 1)
    public_fails = stages(network, from_bytes(real), no_detail, band)
    private_fails = stages(network, real, real.roll(1, 0), band.roll(1, 0))
    assert good.coarse.value == pytest.approx(0.0, abs=1e-6)
    assert public_fails.coarse.value == pytest.approx(0.0, abs=1e-6)
    assert private_fails.coarse.value > 0.01
    assert good.detail.interval[1] < 0  # detail helps
    assert public_fails.detail.value == pytest.approx(0.0, abs=1e-6)
    assert good.enlarged.value == pytest.approx(good.band.value)
    assert private_fails.enlarged.value > private_fails.band.value == pytest.approx(good.band.value)


def test_stages_are_what_the_first_lines_say_by_plain_pixels(real):
    x, full = from_bytes(real), from_bytes(blurred(real, 0.5))
    coarse = analyze(full.flip(0), 1)[0]

    def big(images: Tensor) -> Tensor:
        return F.interpolate(images, size=(32, 32), mode="bicubic").clamp(-1, 1)

    found, band = stages(PIXELS, x, full, coarse), F.avg_pool2d(x, 2)
    expected = {"coarse": (big(coarse), big(band)), "enlarged": (big(coarse), x), "band": (big(band), x)}
    for name, (a, b) in expected.items():
        assert getattr(found, name).value == pytest.approx(float((a - b).square().mean()), rel=1e-4)
    assert found.detail.value == pytest.approx(
        float((full - x).square().mean() - (big(coarse) - x).square().mean()), rel=1e-4
    )


def test_bytes_and_floats_are_the_same_pictures(network, real):
    full = blurred(real, 0.4)
    once = perceptual_pairs(network, real, full, to_bytes(analyze(from_bytes(full), 1)[0]))
    floats = from_bytes(to_bytes(analyze(from_bytes(full), 1)[0]))
    assert perceptual_pairs(network, from_bytes(real), from_bytes(full), floats) == once


def test_our_own_network_is_named_thumb_and_json_is_plain(real):
    config = FeatureConfig(widths=(8,), depth=1, features=4, classes=2, image_size=32)
    network = FeatureNetwork(config).eval()
    distance = by_network(network)
    a, b = from_bytes(real[:4]), from_bytes(real[4:8])
    assert torch.equal(distance.between(a, b), perceptual_distance(network, a, b))
    found = perceptual_pairs(distance, real, real)
    assert (
        json.loads(json.dumps(found.to_json(), allow_nan=False))["distance"] == "perceptual distance (thumb)"
    )


@pytest.mark.parametrize("shape", [(40, 3, 24, 24), (40, 3, 32, 32), (39, 3, 16, 16), (40, 3, 64, 64)])
def test_coarse_samples_that_do_not_belong_are_refused(real, shape):
    with pytest.raises(ConfigError, match="do not belong"):
        perceptual_pairs(PIXELS, real, real, torch.zeros(shape))


def test_sets_that_are_no_pairs_are_refused(real):
    with pytest.raises(ConfigError, match="pairs"):
        perceptual_pairs(PIXELS, real, real[:-1])
    with pytest.raises(ConfigError, match="at least 4"):
        perceptual_pairs(PIXELS, real[:3], real[:3])
