import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpwavelet.images.duplicates import Sketches, digest, joined, near, same, sketch


def pictures(count, seed=0):
    """Smooth random images [N, 3, 32, 32] with contrast."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    smooth = [Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in coarse]
    return np.stack([np.array(image) for image in smooth]).transpose(0, 3, 1, 2)


def of_hashes(hashes):
    """Sketches that agree in everything but the hash."""
    count = len(hashes)
    return Sketches(
        hashes=np.asarray(hashes, np.uint64),
        patterns=np.full((count, 64), 0.125, np.float16),
        contrast=np.ones(count, bool),
    )


def test_equal_pixels_are_one_group_and_different_ones_none():
    images = pictures(5)
    assert same([digest(image) for image in images]) == []
    again = [*images, images[3], images[1], images[3]]
    assert same([digest(image) for image in again]) == [[1, 6], [3, 5, 7]]


def test_a_copy_with_noise_or_another_brightness_is_near():
    images = pictures(30)
    noisy = np.clip(images + np.random.default_rng(1).normal(0, 4, images.shape), 0, 255).astype(np.uint8)
    darker = (images * 0.8).astype(np.uint8)
    assert near(sketch(np.concatenate([images, noisy, darker]))) == [[i, 30 + i, 60 + i] for i in range(30)]


def test_different_pictures_are_not_near():
    assert near(sketch(pictures(2000))) == []


def test_images_without_contrast_are_near_to_none():
    noise = np.random.default_rng(0).integers(126, 131, (50, 3, 32, 32), dtype=np.uint8)
    flat = np.full((50, 3, 32, 32), 90, np.uint8)
    assert near(sketch(np.concatenate([noise, flat]))) == []


def test_near_hashes_of_unlike_patterns_are_not_linked():
    sketches = of_hashes([0, 1])
    assert near(sketches) == [[0, 1]]
    sketches.patterns[1, :32] *= -1
    assert near(sketches) == []


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8), st.integers(0, 12), st.data())
def test_the_groups_are_those_of_all_pairs_compared_one_by_one(seeds, bits, data):
    flips = st.integers(0, 2**64 - 1).map(lambda x: x & (x >> 1) & 0x1111_0000_1111_0000)
    hashes = seeds + [seed ^ data.draw(flips) for seed in seeds for _ in range(2)]
    groups = [{i} for i in range(len(hashes))]
    for i in range(len(hashes)):
        for j in range(i):
            if (hashes[i] ^ hashes[j]).bit_count() <= bits:
                union = groups[i] | groups[j]
                for k in union:
                    groups[k] = union
    expected = sorted(sorted(group) for group in {frozenset(group) for group in groups} if len(group) > 1)
    assert near(of_hashes(hashes), bits=bits) == expected


def test_chunks_joined_are_the_whole():
    images = pictures(10)
    whole, parts = sketch(images), joined([sketch(images[:4]), sketch(images[4:])])
    assert np.array_equal(whole.hashes, parts.hashes)
    assert np.array_equal(whole.contrast, parts.contrast)


@pytest.mark.parametrize("different", [1, 20, 2**10, 2**63])
def test_twenty_thousand_images_take_seconds_however_alike_they_are(different):
    hashes = np.random.default_rng(0).integers(0, different, 20_000)
    start = time.monotonic()
    near(of_hashes(hashes))
    assert time.monotonic() - start < 10
