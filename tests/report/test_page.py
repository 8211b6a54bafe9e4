"""What holds for both pages: structure, escape, nothing from outside, contrast."""

import re
from base64 import b64encode
from dataclasses import replace
from itertools import pairwise

import pytest
from report_examples import (
    BARE_PRIVATE,
    BARE_RELEASE,
    HOSTILE,
    PRIVATE,
    RELEASE,
    Page,
    png,
    private_report,
    release_report,
)

from dpwavelet.report import (
    Bars,
    Entry,
    Interval,
    Intervals,
    Line,
    Lines,
    Missing,
    Number,
    Origin,
    Picture,
    Row,
    Series,
    Sheet,
    Strip,
    Table,
    Words,
    measured,
    render_private,
    render_release,
)
from dpwavelet.report.blocks import Block, Section
from dpwavelet.report.page import Page as Frame
from dpwavelet.report.page import render, text_of

PAGES = {
    "release": render_release(RELEASE),
    "release without the public model": render_release(replace(RELEASE, public_samples=[])),
    "bare release": render_release(BARE_RELEASE),
    "private": render_private(PRIVATE),
    "bare private": render_private(BARE_PRIVATE),
}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(PAGES[request.param])


def test_the_page_is_well_nested_with_one_heading_and_a_caption_a_table(page):
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) > 0
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [section["aria-labelledby"] for section in page.all("section")] == ids


def test_the_check_of_nesting_would_notice_a_tag_left_open():
    with pytest.raises(AssertionError):
        Page("<main><p>text</main>")


def test_headings_leave_no_level_out_and_come_in_order(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_there_is_one_landmark_of_each_kind_and_a_language(page):
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("nav")[0]["aria-label"]


def test_every_section_can_be_reached_from_the_list(page):
    assert [link["href"] for link in page.all("a")] == [
        f"#{section['aria-labelledby']}" for section in page.all("section")
    ]


def test_every_heading_of_a_table_says_what_it_heads_and_every_part_keeps_its_role(page):
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    roles = {"table": "table", "th": ("columnheader", "rowheader"), "thead": "rowgroup", "tbody": "rowgroup"}
    for tag, role in roles.items():
        assert all(cell["role"] in role for cell in page.all(tag))


def test_a_drawing_has_a_role_and_words_or_is_hidden_as_an_ornament(page):
    for svg in page.all("svg"):
        part_of_another = "viewbox" in svg or "overflow" in svg
        assert svg.get("role") == "img" or svg.get("aria-hidden") == "true" or part_of_another


@pytest.mark.parametrize("name", ["release", "private"])
def test_every_chart_has_a_title_and_a_description(name):
    charts = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", PAGES[name], re.DOTALL)
    assert charts
    assert all(re.match(r"<svg[^>]*>\s*<title>[^<]+</title>\s*<desc>[^<]+</desc>", chart) for chart in charts)


def test_every_line_chart_has_its_points_as_a_table():
    for name in ("release", "private"):
        page = Page(PAGES[name])
        charts = [figure for figure in page.all("figure") if figure["class"].startswith("chart")]
        assert len(charts) == len(page.all("details")) > 0


def test_every_picture_has_a_text(page):
    assert all(image["alt"] for image in page.all("img"))


def test_the_page_loads_nothing_from_outside_and_runs_nothing(page):
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_no_address_is_written_anywhere(text):
    assert not re.search(r"url\(|@import|https?:|//\w", re.sub(r"base64,[\w+/=]+", "", text))


@pytest.mark.parametrize(
    "text", [render_release(release_report(HOSTILE)), render_private(private_report(HOSTILE))]
)
def test_text_never_becomes_markup_in_any_block(text):
    page = Page(text)
    tame = Page(PAGES["release" if "What it draws" in text else "private"])
    assert "<script" not in text
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in tame.elements]
    assert [sorted(each) for _, each in page.elements] == [sorted(each) for _, each in tame.elements]
    for tag in ("h1", "caption", "th", "td", "figcaption", "p", "title", "desc", "dd"):
        assert any("<script>alert('x')</script> \"quoted\"" in each for each in page.within(tag)), tag


def blocks_of(text: str) -> list[Block[Origin]]:
    """One block of every kind, with this text in every place for text."""
    number = Number(value=1.5, error=0.5, unit=text)
    unknown = Number(value=None, why=text)
    strip = Strip(text, [Picture(png(8, 0), text)], Origin.DP, text)
    return [
        Table(
            title=text,
            columns=[text] * 3,
            rows=[Row(text, (text, number, unknown), Origin.DP)],
            names=text,
        ),
        Lines(title=text, x=text, y=text, lines=[Line(text, [(0.0, 1.0), (1.0, 2.0)], Origin.DP)]),
        Bars(title=text, categories=[text], series=[Series(text, [1.0], Origin.DP)], unit=text, names=text),
        Intervals(
            title=text, rows=[Interval(text, n, Origin.DP, note=text) for n in (number, unknown)], about=text
        ),
        Sheet(title=text, entries=[Entry(text, [strip, strip])]),
        Words(text, Origin.DP),
        Missing(text),
    ]


def page_of(block: Block[Origin], text: str) -> str:
    section = Section(id="a", heading=text, words=[text], blocks=[block], items=[text], code=text)
    return render(
        Frame(
            title=text,
            version=text,
            promise=text,
            epsilon=1.0,
            delta=1e-5,
            unit=text,
            origins={Origin.DP: text},
            sections=[section],
            warning=[text, text],
        )
    )


@pytest.mark.parametrize(
    "index", range(7), ids=["table", "lines", "bars", "intervals", "sheet", "words", "missing"]
)
def test_no_place_for_text_in_any_block_lets_markup_through(index):
    hostile, tame = (page_of(blocks_of(text)[index], text) for text in (HOSTILE, "tame"))
    assert "<script" not in hostile
    assert hostile.count("&lt;script&gt;alert") == tame.count("tame")
    shapes = [[(tag, sorted(each)) for tag, each in Page(text).elements] for text in (hostile, tame)]
    assert shapes[0] == shapes[1]


def test_the_check_of_escapes_would_notice_markup_that_gets_through():
    text = render_release(release_report("<b>bold</b>")).replace("&lt;", "<").replace("&gt;", ">")
    assert Page(text).all("b")


def test_pictures_are_inside_the_page_and_the_rest_of_it_is_small():
    """The page of 64 samples weighs what their pictures weigh, and at most two kilobytes for each caption."""
    samples = [one._replace(caption=f"caption {k}") for k, one in enumerate([RELEASE.samples[0]] * 64)]
    text = render_release(replace(RELEASE, samples=samples, public_samples=samples))
    pictures = [content for one in samples for content in one[1:]] * 2
    weight = sum(len(b64encode(content)) for content in pictures)
    assert text.count("data:image/png;base64,") == len(pictures) == 256
    assert weight < len(text) < weight + 64 * 2048 + 60_000


def test_a_page_of_very_long_curves_stays_small():
    long = replace(BARE_RELEASE, epsilon_curve=[(k, k / 2e4) for k in range(20_000)])
    assert len(render_release(long)) < len(PAGES["bare release"]) + 30_000


THEMES = ("light", "dark", "print")
PAIRS = [  # text and what is behind it
    *((text, ground) for text in ("ink", "soft", "mark") for ground in ("page", "card", "wash")),
    *(("public", ground) for ground in ("page", "card", "wash")),
    ("on-dp", "dp"),
    ("on-private", "private"),
    ("caution", "on-caution"),
]


def colours(theme: str, css: str = "") -> dict[str, str]:
    """The variables of a theme; those of the light one hold unless another sets them."""
    blocks = re.findall(r":root \{(.*?)\}", css or text_of("page.css"), re.DOTALL)
    assert len(blocks) == 3
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    return found[THEMES.index(theme)]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.1."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known grey that just fails


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_can_be_read_on_its_ground_in_every_theme(theme, text, ground):
    found = colours(theme)
    assert contrast(found[text], found[ground]) >= 4.5


def test_every_colour_of_the_page_is_one_of_the_variables():
    rules = re.sub(r":root \{.*?\}", "", text_of("page.css"), flags=re.DOTALL)
    rules = re.sub(r"@page \{.*?\} \}", "", rules)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", rules)
    used = set(re.findall(r"var\(--([\w-]+)\)", rules))
    assert used == set(colours("light"))


def test_what_is_told_by_colour_is_told_by_shape_too():
    css = text_of("page.css")
    looks = {name: re.findall(rf"\.{name}\.look\d[^}}]*\}}", css) for name in ("curve", "bar")}
    assert [len(looks["curve"]), len(looks["bar"])] == [5, 3]
    dashes = [re.findall(r"dasharray: ([^;]+);", rule) for rule in looks["curve"]]
    assert len({tuple(dash) for dash in dashes}) == 5
    fills = [(re.findall(r"fill: ([^;]+);", rule), "dasharray" in rule) for rule in looks["bar"]]
    assert len({str(fill) for fill in fills}) == 3


def test_a_bar_keeps_the_look_and_the_line_of_its_series_when_an_earlier_one_has_none():
    """Of words that no sample has, the records' bar must not pass for one of the samples."""
    chart = measured.balance("Words", ["smiling", "hat"], records=[80.0, 20.0], samples=[None, 40.0])
    text = render_private(replace(BARE_PRIVATE, balance=[chart]))
    rows = re.findall(r"<title>(smiling|hat)</title>.*?</svg>", text, re.DOTALL)
    drawn = {
        word: re.findall(r'<rect class="bar look(\d)" x="1" y="(\d+)"', part)
        for word, part in re.findall(r"<title>(smiling|hat)</title>(.*?)</svg>", text, re.DOTALL)
    }
    assert rows == ["smiling", "hat"]
    first, second = [(str(look), str(12 * look - 10)) for look in (1, 2)]
    assert drawn == {"smiling": [second], "hat": [first, second]}
