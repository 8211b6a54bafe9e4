from dataclasses import fields, replace

import pytest
from report_examples import PRIVATE, RELEASE, png, score

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.report import (
    Bought,
    Fact,
    Number,
    Origin,
    PrivateFact,
    PrivateOrigin,
    ReleaseReport,
    Row,
    Sample,
    Scored,
    Table,
    Words,
    measured,
)
from dpwavelet.report.origins import check_publishable

SCORE = score(41.3271)
PRIVATE_BLOCKS = [
    block
    for part in (PRIVATE.distances, PRIVATE.perceptual, PRIVATE.usefulness, PRIVATE.balance, PRIVATE.training)
    for block in part
    if block.kind != "missing"
]


def test_the_release_report_has_no_place_for_private_numbers():
    assert {origin.value for origin in Origin} == {"DP", "public"}
    assert not any("private" in field.name for field in fields(ReleaseReport))


@pytest.mark.parametrize("field", [field.name for field in fields(ReleaseReport)])
@pytest.mark.parametrize("wrap", [lambda score: score, lambda score: [score], lambda score: {"a": (score,)}])
def test_a_private_score_is_refused_in_every_field_at_any_depth(field, wrap):
    with pytest.raises(PrivacyError, match=rf"the release report\.{field}.*'KD-thumb'.*private/report.html"):
        replace(RELEASE, **{field: wrap(SCORE)})


@pytest.mark.parametrize(
    "given",
    [
        {"facts": [Fact("FD", SCORE)]},
        {"facts": [Fact(SCORE, "1")]},
        {"cost": [PrivateFact("Private training", "634.25 s")]},
        {"samples": [Sample(SCORE, png(8, 0), png(8, 0))], "public_samples": []},
        {"bought": [Bought("FD", SCORE, "none")]},
        {"bought": [Bought("FD", SCORE.reveal(), "none")]},
        {"balance": [Table(title="T", rows=[Row("a", (SCORE,), Origin.DP)])]},
        {"balance": [Table(title="T", rows=[Row("a", (Number(value=SCORE),), Origin.DP)])]},
        {"notes": [Words("Distance 41.3", PrivateOrigin.PRIVATE)]},
        {"notes": [measured.measure("FD", [Scored("Samples", SCORE)])]},
        *({"balance": [block]} for block in PRIVATE_BLOCKS),
    ],
)
def test_what_is_private_is_refused_on_the_release_page(given):
    with pytest.raises(PrivacyError, match="--release-metrics"):
        replace(RELEASE, **given)


def test_a_refusal_does_not_tell_the_number():
    with pytest.raises(PrivacyError) as caught:
        replace(RELEASE, facts=[Fact("FD", SCORE)])
    assert "41" not in str(caught.value)


def test_a_score_cannot_be_written_into_a_fact():
    with pytest.raises(PrivacyError, match="'KD-thumb'"):
        Fact("FD", f"{SCORE}")


@pytest.mark.parametrize("origin", ["private", "DP", "public", None, 1])
def test_a_text_is_no_origin(origin):
    with pytest.raises(ConfigError, match="the origin of"):
        replace(RELEASE, facts=[Fact("FD", "41.3", origin)])
    with pytest.raises(ConfigError, match="the origin of"):
        Words("Distance 41.3", origin)


def test_what_could_be_looked_into_only_once_is_refused():
    with pytest.raises(ConfigError, match=r"cost is an iterator.*give a list"):
        replace(RELEASE, cost=(Fact("Machine", "CPU") for _ in range(1)))


def test_what_is_dp_or_public_passes():
    check_publishable(RELEASE, "the report")
    check_publishable({"a": [1, 2.5, None, b"x", {Origin.DP}]}, "the report")
