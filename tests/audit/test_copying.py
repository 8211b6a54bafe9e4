"""Copying: found when samples repeat members, not found when they repeat nobody or both sides alike."""

import numpy as np
import pytest

from dpwavelet.audit import copying as module
from dpwavelet.audit.copying import copying
from dpwavelet.errors import DataError

RANDOM = np.random.default_rng(0)
RECORDS = RANDOM.normal(size=(200, 12)).astype(np.float32)
PRESENT = RANDOM.integers(2, size=200).astype(bool)


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch):
    monkeypatch.setattr(module, "SHUFFLES", 199)


def near(rows, spread):
    noise = np.random.default_rng(1).normal(0, spread, size=(len(rows), 12))
    return (RECORDS[rows] + noise).astype(np.float32)


def test_samples_near_members_are_found():
    found = copying(near(np.flatnonzero(PRESENT)[:30], 0.3), RECORDS, PRESENT, 0)
    assert found.p_value == 1 / 200
    assert found.nearest_is_member > 0.9
    assert found.distance_to_members < found.distance_to_others


def test_samples_near_anybody_are_no_copies():
    found = [
        copying(near(np.arange(30) * 6, 0.3), RECORDS, np.random.default_rng(s).random(200) < 0.5, s).p_value
        for s in range(40)
    ]
    assert np.mean(np.array(found) <= 0.1) <= 0.25  # 0.1, and 3 standard errors
    assert np.mean(found) > 0.3


def test_one_attractive_member_is_no_proof_however_many_samples_are_near_it():
    member = np.flatnonzero(PRESENT)[:1]
    assert copying(near(np.repeat(member, 500), 0.01), RECORDS, PRESENT, 0).p_value > 0.3


def test_people_are_shuffled_with_all_their_records():
    """Twenty records of one person are one coin: near samples are then no proof, as those of twenty are."""
    rows = np.arange(20)
    samples = np.tile(near(rows, 0.01), (3, 1))
    together = np.concatenate((np.zeros(20, int), 1 + np.arange(180)))
    one = copying(samples, RECORDS, np.arange(181) % 2 == 0, 0, together)
    assert one.nearest_is_member == 1.0
    assert one.p_value > 0.1
    apart = (np.arange(200) < 20) | (np.arange(200) % 2 == 0)
    assert copying(samples, RECORDS, apart, 0).p_value == 1 / 200


def test_exact_copies_are_counted_by_side():
    rows = [*np.flatnonzero(PRESENT)[:3], *np.flatnonzero(~PRESENT)[:2]]
    found = copying(np.concatenate((RECORDS[rows], near([5], 1.0))), RECORDS, PRESENT, 0)
    assert (found.samples, found.exact_members, found.exact_others) == (6, 3, 2)


def test_distances_are_those_of_a_plain_search():
    samples = near(np.arange(10), 2.0)
    found = copying(samples, RECORDS, PRESENT, 0)
    for side, mean in ((PRESENT, found.distance_to_members), (~PRESENT, found.distance_to_others)):
        plain = [min(np.sqrt(np.mean((s - r) ** 2)) for r in RECORDS[side]) for s in samples]
        assert mean == pytest.approx(np.mean(plain), rel=1e-5)


def test_one_side_alone_is_refused():
    with pytest.raises(DataError, match="both sides"):
        copying(RECORDS[:3], RECORDS, np.ones(200, bool), 0)
