"""Streams repeat and do not mix; the source is AES-256-CTR, and its normals are normal far into the tails.

Statistical tests use a fixed key, so they give one answer for ever; each would raise a false alarm for about
one key in a hundred or fewer, and has a twin that shows what it notices.
"""

import hashlib
import hmac

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest, norm

from dpwavelet import randomness
from dpwavelet.errors import ConfigError
from dpwavelet.randomness import LARGEST_NORMAL, Source, stream, torch_stream

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def source():
    return Source.for_test(1)


@pytest.fixture(scope="module")
def normals(source):
    return source.normals(("normals",), 400_000)


def test_fine_normals_are_normal_and_repeat():
    found = Source.for_test(0).fine_normals(("a", 1), 100_000)
    assert found.dtype == np.float64
    assert kstest(found, norm.cdf).pvalue > 0.01
    assert kstest(found, norm(scale=1.02).cdf).pvalue < 0.01  # what the line above would notice
    assert np.array_equal(found[:10], Source.for_test(0).fine_normals(("a", 1), 10))
    assert not np.array_equal(found[:10], Source.for_test(0).fine_normals(("a", 2), 10))
    assert abs(np.corrcoef(found[::2], found[1::2])[0, 1]) < 0.02


def test_a_stream_repeats_for_its_seed_and_names():
    assert np.array_equal(stream(3, "weights", 1).random(9), stream(3, "weights", 1).random(9))
    ours, again = (torch.rand(9, generator=torch_stream(3, "weights")) for _ in range(2))
    assert torch.equal(ours, again)


@pytest.mark.parametrize(
    "other", [(4, "weights", 1), (3, "weights", 2), (3, "weights1"), (3, "weights", "1")]
)
def test_another_seed_or_name_is_another_stream(other):
    assert not np.array_equal(stream(3, "weights", 1).random(9), stream(*other).random(9))
    ours, others = (torch.rand(9, generator=torch_stream(*names)) for names in ((3, "weights", 1), other))
    assert not torch.equal(ours, others)


def test_the_keystream_is_aes_256_in_counter_mode_under_a_key_for_the_position():
    # The block cipher alone, checked against NIST SP 800-38A F.1.5, and counters written out by hand.
    def block_cipher(key, blocks):
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)

    nist_key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    nist_plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    assert block_cipher(nist_key, nist_plain).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"
    subkey = hmac.digest(KEY, b'["bytes", "noise", 3, "w"]', hashlib.sha256)
    counters = b"".join(i.to_bytes(16, "big") for i in range(5))
    assert Source(KEY).bytes(("noise", 3, "w"), 77) == block_cipher(subkey, counters)[:77]


def test_the_stream_of_a_key_never_changes_between_versions():
    # Frozen: a checkpoint written by an earlier version must resume with the same batches and noise.
    assert Source(KEY).bytes(("a", 1), 8).hex() == "760ffd8197043d9e"
    assert Source(KEY).uniforms(("a", 1), 2).tolist() == [0.8114723174267627, 0.8436583637546559]
    assert Source(KEY).normals(("a", 1), 3) == pytest.approx([-0.20350097, -0.32751957, -2.2460923], rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 3000), more=st.integers(0, 3000))
def test_a_shorter_request_is_the_beginning_of_a_longer_one(count, more):
    source = Source.for_test(2)
    for draw in (source.uniforms, source.normals):
        assert np.array_equal(draw(("x",), count), draw(("x",), count + more)[:count])
    assert source.bytes(("x",), count) == source.bytes(("x",), count + more)[:count]


def test_normals_do_not_depend_on_the_size_of_the_pieces(source, monkeypatch):
    whole = source.normals(("pieces",), 50_001)
    monkeypatch.setattr(randomness, "PAIRS_AT_ONCE", 1000)
    assert np.array_equal(whole, source.normals(("pieces",), 50_001))


def test_normals_are_standard_normal(normals):
    assert normals.dtype == np.float32
    assert kstest(normals, norm.cdf).pvalue > 0.01


@pytest.mark.parametrize("wrong", [0.9, 0.98, 1.02, 1.1])
def test_the_test_above_would_notice_a_fiftieth(normals, wrong):
    assert kstest(normals, norm(scale=wrong).cdf).pvalue < 0.01


def test_both_members_of_a_pair_are_normal_and_unrelated(normals):
    pairs = normals.reshape(-1, 2)
    assert all(kstest(member, norm.cdf).pvalue > 0.005 for member in pairs.T)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / len(pairs) ** 0.5
    assert abs(np.corrcoef((pairs**2).T)[0, 1]) < 4 / len(pairs) ** 0.5


@pytest.mark.parametrize("distance", [3.0, 4.0, 4.5])
def test_tails_have_the_right_weight(source, distance):
    values = source.normals(("tails",), 4_000_000)
    beyond = int((np.abs(values) > distance).sum())
    assert binomtest(beyond, len(values), 2 * norm.sf(distance)).pvalue > 0.003
    thinner = int((np.abs(values * 0.9) > distance).sum())  # what the test would notice
    assert binomtest(thinner, len(values), 2 * norm.sf(distance)).pvalue < 0.003


@pytest.mark.parametrize(("word", "radius"), [(b"\x00", LARGEST_NORMAL), (b"\xff", 0.0)])
def test_the_most_extreme_keystream_gives_a_finite_normal(source, monkeypatch, word, radius):
    class Constant:
        def update_into(self, zeros, buffer):
            buffer[: len(zeros)] = word * len(zeros)

    monkeypatch.setattr(Source, "_keystream", lambda *_: Constant())
    values = source.normals(("x",), 100)
    assert np.hypot(values[0], values[1]) == pytest.approx(radius, abs=1e-5)
    assert np.isfinite(values).all()


def test_uniforms_are_uniform_above_zero_and_at_most_one(source):
    values = source.uniforms(("uniforms",), 300_000)
    assert kstest(values, "uniform").pvalue > 0.01
    assert values.min() > 0
    assert values.max() <= 1
    assert np.array_equal(values * 2**53, np.floor(values * 2**53))
    assert kstest(values**1.02, "uniform").pvalue < 0.01  # what the test would notice


@pytest.mark.parametrize(
    "other", [("noise", 0, "b"), ("noise", 1, "a"), ("batch", 0, "a"), ("noise", "0", "a")]
)
def test_positions_are_independent_of_each_other(source, other):
    here, there = source.normals(("noise", 0, "a"), 100_000), source.normals(other, 100_000)
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / 100_000**0.5
    leaking = 0.98 * there + 0.02 * here  # what the test would notice
    assert abs(np.corrcoef(here, leaking)[0, 1]) > 4 / 100_000**0.5


def test_different_kinds_of_numbers_at_one_position_share_nothing():
    words = np.frombuffer(Source(KEY).bytes(("x",), 8 * 100), "<u8") >> np.uint64(11)
    uniforms = Source(KEY).uniforms(("x",), 100) * 2**53 - 1
    assert not np.any(words.astype(np.float64) == uniforms)


def test_a_new_source_is_keyed_by_the_operating_system_and_a_key_restores_it():
    ours, other = Source(), Source()
    assert ours.bytes(("x",), 32) != other.bytes(("x",), 32)
    assert Source(ours.key).bytes(("x",), 32) == ours.bytes(("x",), 32)


def test_a_source_for_tests_depends_on_its_seed_alone():
    assert Source.for_test(5).key == Source.for_test(5).key != Source.for_test(6).key


def test_the_key_is_not_shown():
    source = Source(KEY)
    assert KEY.hex() not in repr(source)
    assert repr(KEY) not in repr(source)
    assert repr(source) == "Source(key=<hidden>)"


@pytest.mark.parametrize("key", [b"", b"short", "x" * 32, bytes(33), 7])
def test_a_key_that_is_not_32_bytes_is_refused(key):
    with pytest.raises(ConfigError, match="32 bytes"):
        Source(key)


@pytest.mark.parametrize("position", [(1.0,), (True,), (None,), (b"x",), (("a",),), (np.int64(1),)])
def test_a_position_of_anything_but_text_and_whole_numbers_is_refused(position):
    with pytest.raises(ConfigError, match="int and str"):
        Source(KEY).bytes(position, 1)
