"""The small network learns what pixels show, repeats bit for bit, and mixes no examples."""

import numpy as np
import pytest
import torch

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Part
from dpwavelet.evaluation.small_cnn import SmallCnn
from dpwavelet.images.sheet import from_bytes

TINY = SmallCnn(widths=(8, 16), epochs=4, batch_size=16, learning_rate=1e-2)
NOTHING = Part(torch.empty(0, 3, 16, 16), np.empty(0, np.int64))


def coloured(n: int, seed: int) -> Part:
    """Noise with a bright square somewhere, in one of three colours."""
    random = np.random.default_rng(seed)
    classes = random.integers(3, size=n)
    images = random.integers(0, 120, (n, 3, 16, 16), dtype=np.uint8)
    for image, k in zip(images, classes, strict=True):
        y, x = random.integers(10, size=2)
        image[k, y : y + 6, x : x + 6] = 255
    return Part(torch.from_numpy(images), classes)


def test_it_learns_drawn_colours_and_not_shuffled_ones():
    part, test = coloured(160, 0), coloured(100, 1)
    shuffled = Part(part.inputs, np.random.default_rng(2).permutation(part.classes))
    right, chance = (
        (TINY.learn(one, NOTHING, 3, 0)(test.inputs).argmax(1) == test.classes).mean()
        for one in (part, shuffled)
    )
    assert right > 0.9
    assert chance < 0.6


def test_it_repeats_bit_for_bit_and_another_seed_is_another_network():
    part = coloured(40, 3)
    state = torch.get_rng_state()
    once, again, other = (TINY.learn(part, NOTHING, 3, seed)(part.inputs) for seed in (0, 0, 1))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert torch.equal(state, torch.get_rng_state())


def test_bytes_and_floats_and_arrays_are_the_same_pictures():
    part = coloured(30, 4)
    scores = TINY.learn(part, NOTHING, 3, 0)
    expected = scores(part.inputs)
    assert np.array_equal(scores(from_bytes(part.inputs)), expected)
    assert np.array_equal(scores(part.inputs.numpy()), expected)
    learned = TINY.learn(Part(from_bytes(part.inputs), part.classes), NOTHING, 3, 0)
    assert np.array_equal(learned(part.inputs), expected)


def test_no_picture_changes_the_score_of_another():
    part = coloured(20, 5)
    scores = TINY.learn(part, NOTHING, 3, 0)
    assert scores(part.inputs[:1]) == pytest.approx(scores(part.inputs)[:1], abs=1e-5)


def test_one_class_can_be_learned():
    part = coloured(5, 6)
    assert TINY.learn(Part(part.inputs, np.zeros(5, np.int64)), NOTHING, 1, 0)(part.inputs).shape == (5, 1)


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (12,)}, {"epochs": 0}, {"learning_rate": 0.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        SmallCnn(**wrong)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ConfigError, match=r"images \[N, 3, S, S\]"):
        TINY.learn(Part(np.zeros((4, 7)), np.zeros(4, np.int64)), NOTHING, 1, 0)
