"""Noise has the promised size for every parameter and step, and is never shared between them.

Fixed key; each Kolmogorov-Smirnov test raises a false alarm for one key in a hundred.
"""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.noise import add_noise, gaussian_like
from dpwavelet.randomness import Source

SHAPES = {"weight": (200, 150), "bias": (40_000,), "table": (10, 20, 150)}
MULTIPLIER, SENSITIVITY = 1.7, 0.4


@pytest.fixture(scope="module")
def noise():
    """What is added to an empty batch, by parameter."""
    return add_noise(zeros(), MULTIPLIER, Source.for_test(4), step=2)


def zeros():
    return ClippedSum({name: torch.zeros(shape) for name, shape in SHAPES.items()}, SENSITIVITY)


@pytest.mark.parametrize("name", SHAPES)
def test_noise_on_each_parameter_is_gaussian_of_the_promised_size(noise, name):
    promised = norm(scale=MULTIPLIER * SENSITIVITY)
    assert noise[name].shape == SHAPES[name]
    assert noise[name].dtype == torch.float32
    assert kstest(noise[name].flatten().numpy(), promised.cdf).pvalue > 0.01


@pytest.mark.parametrize("wrong", [0.9, 0.95, 1.05, 1.1])
def test_the_test_above_would_notice_a_twentieth(noise, wrong):
    for values in noise.values():
        scaled = norm(scale=MULTIPLIER * SENSITIVITY * wrong)
        assert kstest(values.flatten().numpy(), scaled.cdf).pvalue < 0.01


def test_parameters_and_steps_have_unrelated_noise(noise):
    later = add_noise(zeros(), MULTIPLIER, Source.for_test(4), step=3)
    rows = np.stack([v.flatten()[:30_000].numpy() for v in (*noise.values(), *later.values())])
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(correlations).max() < 4.5 / 30_000**0.5
    shared = np.corrcoef(rows[0], rows[1] + 0.05 * rows[0])[0, 1]  # what the test would notice
    assert abs(shared) > 4.5 / 30_000**0.5


def test_noise_is_added_to_the_sum_and_nothing_else_happens(noise):
    values = {name: torch.randn(shape, generator=torch.manual_seed(0)) for name, shape in SHAPES.items()}
    noisy = add_noise(ClippedSum(values, SENSITIVITY), MULTIPLIER, Source.for_test(4), step=2)
    assert all(torch.equal(noisy[name], values[name] + noise[name]) for name in SHAPES)


def test_a_double_precision_sum_is_rounded_after_the_noise_and_not_before(noise):
    values = {name: torch.full(shape, 1e9 + 1 / 3, dtype=torch.float64) for name, shape in SHAPES.items()}
    noisy = add_noise(ClippedSum(values, SENSITIVITY), MULTIPLIER, Source.for_test(4), step=2)
    for name, value in values.items():
        assert torch.equal(noisy[name], (value + noise[name]).float())


def test_the_same_key_and_step_repeat_the_noise_and_another_key_does_not(noise):
    again, other = (add_noise(zeros(), MULTIPLIER, Source.for_test(seed), step=2) for seed in (4, 5))
    assert all(torch.equal(noise[name], again[name]) for name in SHAPES)
    assert not any(torch.equal(noise[name], other[name]) for name in SHAPES)


def test_the_noise_on_a_parameter_does_not_depend_on_which_others_there_are(noise):
    alone = ClippedSum({"bias": torch.zeros(SHAPES["bias"])}, SENSITIVITY)
    assert torch.equal(add_noise(alone, MULTIPLIER, Source.for_test(4), 2)["bias"], noise["bias"])


def test_scalars_and_empty_tensors_get_noise_in_their_shape():
    for shape in ((), (0,), (3, 0)):
        assert gaussian_like(torch.zeros(shape), 1.0, Source(), ("x",)).shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_a_sum_narrower_than_float32_is_refused(dtype):
    with pytest.raises(PrivacyError, match="float32"):
        add_noise(ClippedSum({"w": torch.zeros(3, dtype=dtype)}, 1.0), 1.0, Source(), 0)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_hides_nothing_is_refused(std):
    with pytest.raises(PrivacyError, match="standard deviation"):
        gaussian_like(torch.zeros(3), std, Source(), ("x",))
    with pytest.raises(PrivacyError, match="standard deviation"):
        add_noise(ClippedSum({"w": torch.zeros(3)}, std), 1.0, Source(), 0)
