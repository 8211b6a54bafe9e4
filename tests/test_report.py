import io
import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpwavelet.errors import ConfigError
from dpwavelet.report import (
    Fact,
    Origin,
    ReleaseReport,
    Sample,
    about,
    attack_bounds,
    render_card,
    render_release,
)
from dpwavelet.report.release import _curve, _data_uri, _ticks, _up

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('x')</script> \"quoted\" & `code` | cell\n# heading"


def png(size: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 90, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(caption: str, shade: int) -> Sample:
    return Sample(caption, png(16, shade), png(64, shade))


REPORT = ReleaseReport(
    title="Portraits",
    version="0.0.1",
    promise="One image more or less changes little.",
    epsilon=7.9996,
    delta=5.0947e-5,
    unit="one image with its captions",
    facts=[Fact("Noise multiplier", "0.81"), Fact("Epsilon by RDP", "8.87")],
    cost=[Fact("Private training", about(634))],
    samples=[sample("a smiling woman", 10), sample(HOSTILE, 20)],
    public_samples=[sample("a smiling woman", 30), sample(HOSTILE, 40)],
    epsilon_curve=[(100, 4.0), (200, 6.0), (400, 7.9996)],
    provenance=[Fact("Tokenizer", "sha256 00ff")],
    not_promised=["Privacy of the public images."],
)
BARE = replace(
    REPORT, samples=[], public_samples=[], epsilon_curve=[], cost=[], provenance=[], not_promised=[], facts=[]
)


class Page(HTMLParser):
    """Every element with its attributes and depth; fails when tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("report", [REPORT, replace(REPORT, public_samples=[]), BARE])
def test_the_page_is_well_nested_with_one_heading_and_a_caption_a_table(report):
    page = Page(render_release(report))
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) > 0
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {section["aria-labelledby"] for section in page.all("section")} == set(ids)


def test_the_check_of_nesting_would_notice_a_tag_left_open():
    with pytest.raises(AssertionError):
        Page("<main><p>text</main>")


@pytest.mark.parametrize("field", ["title", "version", "promise", "unit"])
def test_text_never_becomes_markup(field):
    text = render_release(
        replace(REPORT, **{field: HOSTILE}, not_promised=[HOSTILE], facts=[Fact(HOSTILE, HOSTILE)])
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#39;x&#39;)") >= 5
    assert Page(text).all("script") == []


def test_the_page_loads_nothing_from_outside():
    text = render_release(REPORT)
    page = Page(text)
    loaded = [a[name] for _, a in page.elements for name in ("src", "href", "srcset", "data") if a.get(name)]
    assert loaded
    assert all(address.startswith("data:image/png;base64,") for address in loaded)
    assert not re.search(r"url\(|@import|https?:", text)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_picture_is_on_the_page_with_its_size_and_its_caption_as_alt_text():
    images = {image["src"]: image for image in Page(render_release(REPORT)).all("img")}
    for caption, coarse, fine in [*REPORT.samples, *REPORT.public_samples]:
        for content, size in ((coarse, "16"), (fine, "64")):
            image = images.pop(_data_uri(content))
            assert (image["width"], image["height"]) == (size, size)
            assert caption in image["alt"]
    assert images == {}


def test_pictures_of_the_release_are_marked_dp_and_those_of_the_public_model_public():
    rows = re.findall(
        r'<p>(This release|Public model)[^<]*<span class="badge \w+">(\w+)</span>', render_release(REPORT)
    )
    assert rows == [("This release", "DP"), ("Public model", "public")] * 2


def test_the_report_has_no_place_for_private_numbers():
    assert {origin.value for origin in Origin} == {"DP", "public"}
    assert not any("private" in field.name for field in fields(ReleaseReport))


def test_public_samples_with_other_captions_are_refused():
    with pytest.raises(ConfigError, match="same order"):
        replace(REPORT, public_samples=REPORT.public_samples[::-1])


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_a_release_without_a_promise_is_refused(epsilon, delta):
    with pytest.raises(ConfigError, match=r"epsilon|delta"):
        replace(REPORT, epsilon=epsilon, delta=delta)


def test_a_sample_that_is_not_a_png_is_refused():
    with pytest.raises(ConfigError, match="must be a PNG"):
        render_release(replace(REPORT, samples=[Sample("a cat", b"GIF89a", png(8, 0))], public_samples=[]))


def test_the_card_has_a_yaml_header_and_the_whole_guarantee():
    card = render_card(REPORT)
    _, header, body = card.split("---\n", 2)
    parsed = yaml.safe_load(header)
    assert parsed["library_name"] == "dpwavelet"
    assert "differential-privacy" in parsed["tags"]
    assert "(ε = 8, δ = 5.1×10⁻⁵)" in body
    for text in (
        "one image with its captions",
        "| Noise multiplier | 0.81 |",
        "Privacy of the public images.",
        "at most",
    ):
        assert text in body


def test_text_keeps_its_place_in_the_card():
    card = render_card(replace(REPORT, title=HOSTILE, provenance=[Fact("a | b", HOSTILE)]))
    assert r"\<script\>alert('x')" in card
    assert r"| a \| b | " in card
    assert "\n# heading" not in card


# Closed form for pure epsilon (Kairouz, Oh, Viswanath 2015): odds of e^eps to 1, so e / (e + 1) = 73.1059%.
def test_even_odds_under_pure_epsilon_one_are_bounded_by_randomized_response():
    assert attack_bounds(1.0, 1e-12)[0].value == "at most 73.11%"


@given(epsilon=st.floats(0.01, 90.0), delta=st.floats(1e-12, 0.1))
def test_a_weaker_promise_never_bounds_an_attacker_more(epsilon, delta):
    def shares(e, d):
        return [float(fact.value.removeprefix("at most ").removesuffix("%")) for fact in attack_bounds(e, d)]

    ours, weaker = shares(epsilon, delta), shares(1.1 * epsilon, 1.1 * delta)
    assert all(50 < share <= 100 for share in ours[:1])
    assert ours[1:] == sorted(ours[1:])
    assert all(a <= b for a, b in zip(ours, weaker, strict=True))


@given(value=st.floats(1e-30, 1e6))
def test_a_printed_bound_is_never_below_the_number_and_within_one_percent(value):
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    printed = float(_up(value).replace("×10", "e").translate(digits))
    assert value <= printed * (1 + 1e-12)
    assert printed <= value * 1.0101


@given(largest=st.floats(1e-6, 1e7))
def test_axes_start_at_zero_and_reach_the_largest_value_in_few_steps(largest):
    ticks = _ticks(largest)
    assert ticks[0] == 0
    assert ticks[-1] >= largest * (1 - 1e-9)
    assert 2 <= len(ticks) <= 6


def test_the_curve_stays_in_its_box_and_one_point_makes_none():
    curve = _curve(REPORT.epsilon_curve)
    for point in curve.line.split():
        x, y = map(float, point.split(","))
        assert 44 <= x <= 600
        assert 20 <= y <= 220
    assert _curve([(1, 1.0)]) is None
    assert "<svg" not in render_release(BARE)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (9.314, "about 9.3 seconds"),
        (119, "about 120 seconds"),
        (634, "about 11 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_durations_keep_two_figures(seconds, words):
    assert about(seconds) == words
