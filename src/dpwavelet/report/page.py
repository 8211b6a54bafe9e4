"""A page of sections as one HTML file that needs no other: no scripts, nothing loaded, pictures inside.

`page.html` is the frame and the look of every block, `page.css` the style of both themes and of paper.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from dpwavelet.report import charts
from dpwavelet.report.blocks import Number, Section, pixels
from dpwavelet.report.origins import Origin, PrivateOrigin
from dpwavelet.rounded import up


@dataclass(frozen=True, kw_only=True)
class Page:
    """What stands around the sections; a `warning` is shown above everything, and on every sheet of paper."""

    title: str
    version: str
    promise: str
    epsilon: float | None  # nothing where no epsilon holds for all that the page tells
    delta: float | None
    unit: str
    origins: Mapping[Origin | PrivateOrigin, str]
    sections: Sequence[Section[Any]]
    warning: Sequence[str] = ()


def render(page: Page) -> str:
    """The page as HTML."""
    text = template("page.html", escape=True).render(page=page, style=Markup(text_of("page.css")))
    return text.lstrip()  # the macros leave empty lines


@cache
def template(name: str, *, escape: bool) -> Template:
    """One of the templates beside this file; in HTML, whatever is put in is escaped."""
    environment = Environment(
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        data_uri=data_uri,
        pixels=pixels,
        markdown=as_markdown,
        up=up,
    )
    environment.globals.update(
        bars=charts.bars, dots=charts.dots, plot=charts.plot, listed=charts.listed, shown=shown
    )
    return environment.from_string(text_of(name))


def shown(value: float | None, unit: str) -> str:
    """A bare number of a chart, as text."""
    return Number(value=value, unit=unit).shown if value is not None else "none"


def text_of(name: str) -> str:
    """A file beside this one."""
    return files("dpwavelet.report").joinpath(name).read_text(encoding="utf-8")


def data_uri(png: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    special = {ord(mark): f"\\{mark}" for mark in r"\`*_[]<>|#~"}
    return " ".join(text.split()).translate(special)
