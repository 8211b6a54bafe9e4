import math
import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from report_examples import BARE_RELEASE, HOSTILE, RELEASE, Page, png, release_report

from dpwavelet.errors import ConfigError
from dpwavelet.report import (
    Fact,
    ReleaseReport,
    Sample,
    attack_bounds,
    release_json,
    render_card,
    render_release,
)
from dpwavelet.report.page import data_uri
from dpwavelet.report.release import budget_lines

HEADINGS = [
    "What it draws",
    "The guarantee",
    "Measurements bought with the budget",
    "What the samples show",
    "How the budget was spent",
    "What is not promised",
    "How to check this",
    "What it cost",
    "What it was made from",
    "Notes",
]


def test_the_sections_come_in_this_order_and_those_without_content_are_left_out():
    assert Page(render_release(RELEASE)).within("h2") == HEADINGS
    assert Page(render_release(BARE_RELEASE)).within("h2") == ["The guarantee", "How to check this"]


def test_the_old_fields_alone_still_make_a_page_and_a_card():
    report = ReleaseReport(
        title="Portraits",
        version="0.0.1",
        promise="Little.",
        epsilon=1.0,
        delta=1e-5,
        unit="one image",
        facts=[],
        cost=[],
        samples=[],
    )
    assert "Portraits" in render_release(report)
    assert "bought" not in render_card(report)
    assert release_json(report)["pictures"] == 0


def test_every_picture_is_on_the_page_with_its_size_and_its_caption_as_alt_text():
    report = release_report(HOSTILE)
    images = {image["src"]: image for image in Page(render_release(report)).all("img")}
    for caption, coarse, fine in [*report.samples, *report.public_samples]:
        for content, size in ((coarse, "16"), (fine, "64")):
            image = images.pop(data_uri(content))
            assert (image["width"], image["height"]) == (size, size)
            assert caption in image["alt"]
    assert images == {}


def test_pictures_of_the_release_are_marked_dp_and_those_of_the_public_model_public():
    rows = re.findall(
        r'<p>(This release|Public model alone) <span class="badge \w+">(\w+)</span>', render_release(RELEASE)
    )
    assert rows == [("This release", "DP"), ("Public model alone", "public")] * 2


def test_every_number_of_the_page_is_dp_or_public():
    marks = re.findall(r'class="badge (\w+)">(\w+)<', render_release(RELEASE))
    assert {mark for _, mark in marks} == {"DP", "public"}
    origins = re.findall(r"'origin': '(\w+)'", str(release_json(RELEASE)))
    assert set(origins) == {"DP", "public"}


def test_what_was_bought_is_shown_with_its_noise_and_marked_dp():
    text = Page(render_release(RELEASE)).read()
    assert "41.33 points" in text
    assert "plus or minus 1.9 in 95 of 100 cases" in text
    assert "| FD-thumb | 41.33 points, plus or minus 1.9 in 95 of 100 cases |" in render_card(RELEASE)


def test_public_samples_with_other_captions_are_refused():
    with pytest.raises(ConfigError, match="same order"):
        replace(RELEASE, public_samples=[one._replace(caption="x") for one in RELEASE.public_samples])


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_a_release_without_a_promise_is_refused(epsilon, delta):
    with pytest.raises(ConfigError, match=r"epsilon|delta"):
        replace(RELEASE, epsilon=epsilon, delta=delta)


def test_a_sample_that_is_not_a_png_is_refused():
    with pytest.raises(ConfigError, match="must be a PNG"):
        render_release(replace(RELEASE, samples=[Sample("a cat", b"GIF89a", png(8, 0))], public_samples=[]))


def test_the_card_has_a_yaml_header_and_the_whole_guarantee():
    card = render_card(release_report(HOSTILE))
    _, header, body = card.split("---\n", 2)
    parsed = yaml.safe_load(header)
    assert parsed["library_name"] == "dpwavelet"
    assert "differential-privacy" in parsed["tags"]
    assert "(ε = 8, δ = 5.1×10⁻⁵)" in body
    for text in ("| Noise multiplier | 0.81 |", "Privacy of the public images.", "at most"):
        assert text in body


def test_text_keeps_its_place_in_the_card():
    card = render_card(replace(RELEASE, title=HOSTILE, provenance=[Fact("a | b", HOSTILE)]))
    assert r"\<script\>alert('x')" in card
    assert r"| a \| b | " in card
    assert "\n# heading" not in card


# Closed form for pure epsilon (Kairouz, Oh, Viswanath 2015): odds of e^eps to 1, so e / (e + 1) = 73.1059%.
def test_even_odds_under_pure_epsilon_one_are_bounded_by_randomized_response():
    assert attack_bounds(1.0, 1e-10)[0].value == "at most 73.11%"


@given(epsilon=st.floats(0.01, 90.0), delta=st.floats(1e-10, 0.1))
def test_a_weaker_promise_never_bounds_an_attacker_more(epsilon, delta):
    def shares(e, d):
        return [float(fact.value.removeprefix("at most ").removesuffix("%")) for fact in attack_bounds(e, d)]

    ours, weaker = shares(epsilon, delta), shares(1.1 * epsilon, 1.1 * delta)
    assert all(50 < share <= 100 for share in ours[:1])
    assert ours[1:] == sorted(ours[1:])
    assert all(a <= b for a, b in zip(ours, weaker, strict=True))


def test_no_epsilon_of_the_curve_is_below_the_true_one_and_one_point_makes_none():
    (block,) = budget_lines(RELEASE.epsilon_curve)
    assert [y for _, y in block.lines[0].points] == [0.0, 4.13, 6.0, 8.0]
    assert budget_lines([(1, 1.0)]) == []
    assert "<desc>" not in render_release(BARE_RELEASE)
