"""The two reports of a run, each as a page for people and as JSON for programs, and the card of the model.

`release` may be published, because every input is DP, computed from something DP, or public. `private` shows
what was measured on private records and must stay with them. Both are made of the same `blocks`. Where their
numbers come from is in their type (`origins`), and the release refuses what is private twice: by that type,
and at run time. `measured` makes blocks of private scores; `charts`, `page` and `twins` turn blocks into HTML
and JSON.
"""

from dpwavelet.report.blocks import (
    Bars,
    Entry,
    Fact,
    Interval,
    Intervals,
    Line,
    Lines,
    Mark,
    Missing,
    Number,
    Picture,
    Row,
    Series,
    Sheet,
    Strip,
    Table,
    Words,
)
from dpwavelet.report.figures import about
from dpwavelet.report.measured import Near, PrivateFact, Scored
from dpwavelet.report.origins import Origin, PrivateOrigin
from dpwavelet.report.private import PrivateReport, private_json, render_private
from dpwavelet.report.release import (
    Bought,
    ReleaseReport,
    Sample,
    attack_bounds,
    release_json,
    render_card,
    render_release,
)

__all__ = [
    "Bars",
    "Bought",
    "Entry",
    "Fact",
    "Interval",
    "Intervals",
    "Line",
    "Lines",
    "Mark",
    "Missing",
    "Near",
    "Number",
    "Origin",
    "Picture",
    "PrivateFact",
    "PrivateOrigin",
    "PrivateReport",
    "ReleaseReport",
    "Row",
    "Sample",
    "Scored",
    "Series",
    "Sheet",
    "Strip",
    "Table",
    "Words",
    "about",
    "attack_bounds",
    "private_json",
    "release_json",
    "render_card",
    "render_private",
    "render_release",
]
