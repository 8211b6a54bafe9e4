import re
from dataclasses import fields, replace

import pytest
from report_examples import BARE_PRIVATE, PRIVATE, RELEASE, Page, score

from dpwavelet.errors import ConfigError
from dpwavelet.report import Missing, PrivateReport, measured, private_json, render_private, render_release
from dpwavelet.report.page import data_uri
from dpwavelet.report.private import WARNING

HEADINGS = [
    "What was promised, and what it cost",
    "How near the samples come to the records",
    "Picture by picture",
    "Whether samples show what was asked for",
    "What the samples are good for",
    "Balance",
    "Training",
    "How the budget was spent",
    "Audit",
    "The nearest records",
    "What it was made from",
]


@pytest.mark.parametrize("report", [PRIVATE, BARE_PRIVATE])
def test_the_sections_come_in_this_order_and_none_is_left_out(report):
    assert Page(render_private(report)).within("h2") == HEADINGS


@pytest.mark.parametrize("report", [PRIVATE, BARE_PRIVATE])
def test_the_page_says_before_all_else_that_it_is_as_sensitive_as_the_images(report):
    text = render_private(report)
    words = Page(text)
    first = next(each for around, each in words.texts if "body" in around)
    assert first == WARNING[0] == "Private: this page is as sensitive as your images."
    assert "Keep it in private/." in words.read()
    assert words.within("title")[0].startswith("Private: ")
    assert '@top-left { content: "Private: as sensitive as the images"' in text


def test_the_release_page_says_no_such_thing():
    assert "Private:" not in render_release(RELEASE)
    assert "@top-left" not in render_release(RELEASE)


def test_whatever_is_missing_says_why_in_its_section():
    text = render_private(BARE_PRIVATE)
    sections = re.findall(r"<section.*?</section>", text, re.DOTALL)
    assert len(sections) == len(HEADINGS)
    reasons = [re.findall(r'<p class="missing">([^<]+)</p>', section) for section in sections]
    assert all(len(reason) == 1 for reason in reasons)
    assert len({reason[0] for reason in reasons}) == len(HEADINGS)


def test_a_given_reason_takes_the_place_of_the_usual_one_or_stands_beside_what_is_there():
    why = "Too few samples for a Fréchet distance: 64, needs 257; the kernel distance is shown."
    assert why in Page(render_private(PRIVATE)).within("p")
    alone = Page(render_private(replace(BARE_PRIVATE, distances=[Missing(why)]))).within("p")
    assert why in alone
    assert not any("No distances between samples" in each for each in alone)


def test_every_field_reaches_the_page():
    full = render_private(PRIVATE)
    for field in fields(PrivateReport):
        if field.name in ("title", "version", "promise", "epsilon", "delta", "unit"):
            continue
        assert render_private(replace(PRIVATE, **{field.name: ()})) != full, field.name


def test_numbers_from_records_are_marked_private_and_others_what_they_are():
    rows = {
        row["name"]: row["origin"]
        for section in private_json(PRIVATE)["sections"]
        for block in section["blocks"]
        for row in block.get("rows", [])
    }
    assert rows["Records found"] == rows["Private training"] == rows["Samples, finished"] == "private"
    assert rows["Epsilon"] == rows["Machine"] == "public"
    marks = re.findall(r'class="badge (\w+)">(\w+)<', render_private(PRIVATE))
    assert {mark for _, mark in marks} == {"DP", "public", "private"}


def test_a_sample_stands_beside_its_nearest_record_and_each_is_marked():
    (sheet,) = PRIVATE.nearness
    ours, record = sheet.entries[0].strips
    page = Page(render_private(PRIVATE))
    sources = [image["src"] for image in page.all("img")]
    assert sources == [data_uri(ours.pictures[0].png), data_uri(record.pictures[0].png)]
    assert (ours.origin.value, record.origin.value) == ("DP", "private")
    assert "KD-thumb: 0.25" in page.read()


def test_a_report_without_a_promise_is_refused():
    with pytest.raises(ConfigError, match="epsilon"):
        replace(PRIVATE, epsilon=0.0)


def test_scores_are_told_on_this_page():
    text = Page(render_private(PRIVATE)).read()
    for told in ("0.0123 (0.0103 to 0.0143)", "634.2 s", "71.2% (69.4 to 73.0)", "of 64 and 8,159 images"):
        assert told in text
    assert measured.number(score(0.5)).value == 0.5
