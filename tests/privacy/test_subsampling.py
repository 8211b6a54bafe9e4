"""Every record joins every step by its own coin; each test has a twin that shows what it would notice."""

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.subsampling import poisson_batch
from dpwavelet.randomness import Source

RECORDS, RATE, STEPS = 40, 0.15, 5_000


def draw(rate=RATE, records=RECORDS, steps=STEPS, seed=3):
    """Who joined when, [steps, records]."""
    source, joined = Source.for_test(seed), np.zeros((steps, records), bool)
    for step in range(steps):
        joined[step, poisson_batch(source, step, records, rate)] = True
    return joined


def shuffled(seed=3):
    """The usual wrong way: batches of one size from a shuffled list."""
    generator, joined = np.random.default_rng(seed), np.zeros((STEPS, RECORDS), bool)
    for row in joined:
        row[generator.permutation(RECORDS)[: int(RECORDS * RATE)]] = True
    return joined


def rate_is_right(joined):
    return binomtest(int(joined.sum()), joined.size, RATE).pvalue > 0.001


def records_are_independent(joined):
    """The correlations of all pairs, squared and added: chi-squared, alarm 0.1 percent."""
    centred = (joined - RATE) / (RATE * (1 - RATE)) ** 0.5
    pairs = (centred.T @ centred)[np.triu_indices(RECORDS, 1)] / len(joined) ** 0.5
    return chi2.sf((pairs**2).sum(), len(pairs)) > 0.001


def sizes_are_binomial(joined):
    """The variance of the batch size against N q (1 - q), alarm 0.2 percent."""
    sizes = joined.sum(1)
    ratio = (len(sizes) - 1) * sizes.var(ddof=1) / (RECORDS * RATE * (1 - RATE))
    return chi2.ppf(0.001, len(sizes) - 1) < ratio < chi2.ppf(0.999, len(sizes) - 1)


@pytest.fixture(scope="module")
def joined():
    return draw()


def test_each_record_joins_at_the_rate(joined):
    assert rate_is_right(joined)
    assert all(binomtest(int(count), STEPS, RATE).pvalue > 1e-4 for count in joined.sum(0))


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_the_test_above_would_notice_a_tenth(wrong):
    assert not rate_is_right(draw(rate=RATE * wrong))


def test_records_join_independently_of_each_other(joined):
    assert records_are_independent(joined)


def test_the_test_above_would_notice_records_that_go_together(joined):
    together = joined.copy()
    together[:, 1] = joined[:, 0]
    assert not records_are_independent(together)
    assert not records_are_independent(shuffled())


def test_batch_sizes_vary_as_a_binomial(joined):
    assert sizes_are_binomial(joined)


def test_the_test_above_would_notice_shuffled_batches():
    assert not sizes_are_binomial(shuffled())


def test_steps_are_independent_of_each_other(joined):
    again = (joined[1:] & joined[:-1]).sum()
    assert binomtest(int(again), joined[1:].size, RATE**2).pvalue > 0.001
    sticky = joined[1:] | (joined[:-1] & (np.arange(RECORDS) == 0))  # one record that stays for two steps
    assert binomtest(int((sticky & joined[:-1]).sum()), sticky.size, RATE**2).pvalue < 0.001


def test_empty_batches_happen_as_often_as_they_should():
    empty = int((~draw(rate=0.02).any(1)).sum())
    assert binomtest(empty, STEPS, 0.98**RECORDS).pvalue > 0.001
    assert binomtest(empty, STEPS, 0.98 ** (RECORDS + 4)).pvalue < 0.001  # what the test would notice
    assert binomtest(0, STEPS, 0.98**RECORDS).pvalue < 0.001


def test_a_batch_is_ordered_int64_and_repeats_for_its_source_and_step():
    batch, again = (poisson_batch(Source.for_test(1), 7, 1000, 0.1) for _ in range(2))
    assert batch.dtype == np.int64
    assert np.array_equal(batch, again)
    assert np.array_equal(batch, np.unique(batch))
    assert not np.array_equal(batch, poisson_batch(Source.for_test(2), 7, 1000, 0.1))


def test_one_more_record_changes_nobody_elses_coin():
    fewer, more = (poisson_batch(Source.for_test(1), 7, records, 0.3) for records in (1000, 1001))
    assert np.array_equal(fewer, more[more < 1000])


def test_a_rate_of_one_takes_everyone_and_no_records_give_an_empty_batch():
    assert np.array_equal(poisson_batch(Source.for_test(1), 0, 500, 1.0), np.arange(500))
    assert len(poisson_batch(Source.for_test(1), 0, 0, 0.5)) == 0


@pytest.mark.parametrize("coin", [1, 2**20, 2**52])
def test_the_rate_is_exact_in_53_bits_and_never_rounded_up(coin, monkeypatch):
    monkeypatch.setattr(Source, "uniforms", lambda *_: np.array([coin * 2.0**-53]))
    exact = coin * 2.0**-53
    assert len(poisson_batch(Source(), 0, 1, exact)) == 1
    assert len(poisson_batch(Source(), 0, 1, np.nextafter(exact, 0).item())) == 0


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ConfigError, match="sampling_rate"):
        poisson_batch(Source(), 0, 10, rate)


def test_negative_steps_and_records_are_refused():
    for step, records in ((-1, 10), (0, -1)):
        with pytest.raises(ConfigError, match="negative"):
            poisson_batch(Source(), step, records, 0.5)
