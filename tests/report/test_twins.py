import json
import math
import re
from collections import Counter

import numpy as np
import pytest
from report_examples import (
    BARE_PRIVATE,
    BARE_RELEASE,
    PRIVATE,
    RELEASE,
    Page,
    leaves,
    numbers_in,
    numbers_of_twin,
    png,
)

from dpwavelet.checkpoint import canonical_json
from dpwavelet.report import (
    Bars,
    Interval,
    Intervals,
    Line,
    Lines,
    Missing,
    Number,
    Origin,
    Series,
    private_json,
    release_json,
    render_private,
    render_release,
)
from dpwavelet.report.twins import block_json

TWINS = {
    "release": (render_release(RELEASE), release_json(RELEASE)),
    "bare release": (render_release(BARE_RELEASE), release_json(BARE_RELEASE)),
    "private": (render_private(PRIVATE), private_json(PRIVATE)),
    "bare private": (render_private(BARE_PRIVATE), private_json(BARE_PRIVATE)),
}


@pytest.fixture(params=TWINS)
def twins(request: pytest.FixtureRequest) -> tuple[str, dict]:
    return TWINS[request.param]


def test_every_number_on_the_page_is_in_its_twin(twins):
    page, twin = twins
    shown = numbers_in(Page(page).read())
    assert len(shown) >= 3
    assert shown <= numbers_of_twin(twin)


def test_the_check_above_would_notice_a_number_that_is_only_on_the_page():
    page, twin = TWINS["private"]
    page = page.replace("</main>", "<p>0.31337</p></main>")
    assert numbers_in(Page(page).read()) - numbers_of_twin(twin) == {"0.31337"}


def test_whatever_the_twin_says_is_shown_is_on_the_page(twins):
    page, twin = twins
    text = Page(page).read()

    def shown(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["shown"]] if isinstance(value.get("shown"), str) else []
            return own + [text for inner in value.values() for text in shown(inner)]
        return [text for inner in value for text in shown(inner)] if isinstance(value, list) else []

    assert len(shown(twin)) >= 3
    assert all(each in text for each in shown(twin))


def test_every_origin_in_the_twin_is_a_mark_on_the_page(twins):
    page, twin = twins
    origins = re.findall(r'"origin": ?"(\w+)"', json.dumps(twin)) + list(twin["origins"])
    assert Counter(re.findall(r'class="badge \w+">(\w+)<', page)) == Counter(origins)


def test_a_twin_is_canonical_json_without_pictures(twins):
    _, twin = twins
    assert json.loads(canonical_json(twin)) == twin
    assert not any(isinstance(leaf, str) and "base64" in leaf for leaf in leaves(twin))


def test_pictures_are_counted(twins):
    page, twin = twins
    assert twin["pictures"] == page.count("<img ")


def test_headings_words_and_reasons_agree(twins):
    page, twin = twins
    text = Page(page)
    assert text.within("h2") == [section["heading"] for section in twin["sections"]]
    for section in twin["sections"]:
        assert all(words in text.read() for words in section["words"])
        assert all(block["why"] in text.read() for block in section["blocks"] if block["kind"] == "missing")


def test_numbers_are_exact_where_the_page_rounds():
    twin = release_json(RELEASE)
    assert twin["epsilon"] == 7.9996
    (bought,) = (section for section in twin["sections"] if section["id"] == "bought")
    assert bought["blocks"][0]["rows"][0]["cells"][0]["value"] == 41.3271
    assert bought["blocks"][0]["rows"][0]["origin"] == "DP"


def test_a_private_twin_says_that_it_is_private_and_of_each_number_where_it_comes_from():
    twin = private_json(PRIVATE)
    assert twin["kind"] == "private"
    assert "as sensitive as your images" in twin["warning"][0]
    (distances,) = (section for section in twin["sections"] if section["id"] == "distances")
    row = distances["blocks"][1]["rows"][0]
    assert (row["value"], row["interval"], row["origin"]) == (0.0123, [0.0103, 0.0143], "private")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_null_and_says_why(wrong):
    line = Line("a", [(0.0, 1.0), (1.0, wrong)], Origin.DP)
    blocks = [
        block_json(Intervals(title="T", rows=[Interval("a", Number(value=wrong, why="too few"), Origin.DP)])),
        block_json(Lines(title="T", x="x", y="y", lines=[line])),
        block_json(
            Bars(title="T", categories=["a"], series=[Series("a", [wrong and abs(wrong)], Origin.DP)])
        ),
    ]
    assert (blocks[0]["rows"][0]["value"], blocks[0]["rows"][0]["why"]) == (None, "too few")
    assert blocks[1]["lines"][0]["points"][1] == {"x": 1.0, "value": None, "why": "there is a gap"}
    assert blocks[2]["series"][0]["values"][0]["value"] is None
    assert blocks[2]["series"][0]["values"][0]["why"]
    canonical_json(blocks)


@pytest.mark.parametrize(
    "number", [Number(value=1.0, error=math.nan), Number(value=1.0, interval=(0.5, math.inf))]
)
def test_an_error_that_is_no_number_is_null_too(number):
    row = block_json(Intervals(title="T", rows=[Interval("a", number, Origin.DP)]))["rows"][0]
    assert (row["value"], row["error"], row["interval"]) == (1.0, None, None)
    assert row["why"] == "how sure it is, is not known"
    canonical_json(row)


def test_numbers_of_array_libraries_become_plain_ones():
    line = Line("a", [(np.int64(3), np.float32(0.5))], Origin.DP)
    assert block_json(Lines(title="T", x="x", y="y", lines=[line]))["lines"][0]["points"] == [
        {"x": 3.0, "value": 0.5}
    ]


def test_what_is_missing_is_a_block_with_its_reason():
    assert block_json(Missing("Too few.")) == {"kind": "missing", "why": "Too few."}


def test_the_examples_have_pictures_and_blocks_of_every_kind():
    kinds = {block["kind"] for section in private_json(PRIVATE)["sections"] for block in section["blocks"]}
    assert kinds == {"table", "lines", "bars", "intervals", "sheet", "words", "missing"}
    assert png(8, 0).startswith(b"\x89PNG")
