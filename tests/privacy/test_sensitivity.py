"""The table of `benchmarks/sensitivity.py`, small: every layer, in the types that training may compute in."""

import pytest
from loaded import benchmark

from dpwavelet.privacy.clipping import RecordClipper

table = benchmark("sensitivity")
WAYS = [table.Way("float32", "exact"), table.Way("bfloat16", "fast"), table.Way("autocast", "fast")]
CASES = [*((model, WAYS[0]) for model in table.MODELS), *(("tied head", way) for way in WAYS[1:])]


def _named(value: object) -> str:
    return value if isinstance(value, str) else f"{value.model} {value.precision}"


@pytest.mark.parametrize(("model", "way"), CASES, ids=_named)
def test_one_record_moves_the_sum_by_at_most_the_bound(model, way):
    for cell in table.worst(model, way, sizes=(8,)):
        assert 0.9 <= cell.moved <= table.goal(way), cell


@pytest.mark.parametrize("way", WAYS, ids=_named)
def test_the_test_above_would_notice_a_bound_that_is_a_little_too_wide(way, monkeypatch):
    wide = 1.03 if way.precision == "fast" else 1.0002  # the margins for rounding are 1 % and 0.012 %
    monkeypatch.setattr(
        table, "RecordClipper", lambda *args, max_norm, **more: RecordClipper(*args, max_norm=wide, **more)
    )
    for cell in table.worst("LoRA pair", way, sizes=(8,)):
        assert cell.moved > table.goal(way)
