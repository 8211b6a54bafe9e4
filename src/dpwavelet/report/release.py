"""What a release says about itself, rendered twice: `report.html` and `card.md`.

The page stands alone: no scripts, nothing loaded from outside (its own policy forbids it), pictures inside
as data. Whatever the caller passes is text, never markup.

A fact carries its origin, and `Origin` has no member for what was measured on private records. So such
a number cannot be put on this page by mistake; it would have to be given a false name.
"""

import math
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from importlib.resources import files
from typing import NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined, Template

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import best_true_positive_rate, check_delta, check_epsilon

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
FALSE_ALARMS = (0.001, 0.01, 0.1)


class Origin(StrEnum):
    """Where something on the page comes from."""

    DP = "DP"  # from the private records through the accountant, or computed from such a thing
    PUBLIC = "public"  # settings, public weights and rounded clock times; nothing from a private record


class Fact(NamedTuple):
    """One line of a table."""

    name: str
    value: str
    origin: Origin = Origin.PUBLIC


class Sample(NamedTuple):
    """One generated picture as PNG files: what the next-token model drew, and the finished image."""

    caption: str
    coarse_png: bytes
    fine_png: bytes


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """Everything that the page and the card of one release say.

    Captions come from the user or a public list, never from the records. Clock times depend a little on
    how many records each step drew, so they are written with `about`.
    """

    title: str
    version: str
    promise: str
    epsilon: float
    delta: float
    unit: str
    facts: Sequence[Fact]
    cost: Sequence[Fact]
    samples: Sequence[Sample]
    public_samples: Sequence[Sample] = ()
    epsilon_curve: Sequence[tuple[int, float]] = ()
    provenance: Sequence[Fact] = ()
    not_promised: Sequence[str] = ()
    license: str = "other"

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        ours = [sample.caption for sample in self.samples]
        theirs = [sample.caption for sample in self.public_samples]
        if theirs and theirs != ours:
            raise ConfigError(
                "public_samples must have the captions of samples in the same order, so that each pair "
                f"shows what the data added; got {len(theirs)} for {len(ours)} samples."
            )


def render_release(report: ReleaseReport) -> str:
    """The page, as HTML that needs no other file."""
    return _template("release.html", escape=True).render(
        report=report,
        origins=Origin,
        pairs=_pairs(report),
        facts=_facts(report),
        bounds=attack_bounds(report.epsilon, report.delta),
        curve=_curve(report.epsilon_curve),
    )


def render_card(report: ReleaseReport) -> str:
    """The model card, as Markdown under a YAML header."""
    header = {
        "license": report.license,
        "library_name": "dpwavelet",
        "pipeline_tag": "text-to-image",
        "tags": ["differential-privacy", "dp-sgd", "synthetic-data", "image-generation", "wavelet"],
    }
    body = _template("card.md", escape=False).render(
        report=report, facts=_facts(report), bounds=attack_bounds(report.epsilon, report.delta)
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{body}"


def attack_bounds(epsilon: float, delta: float) -> list[Fact]:
    """What the promise leaves to an attacker who knows every other record and guesses whether one was used.

    At even odds at most (e^epsilon + delta) / (e^epsilon + 1) of the guesses are right (Kairouz, Oh and
    Viswanath 2015). Percentages are rounded up.
    """
    shrink = math.exp(-epsilon)
    right = (1 + delta * shrink) / (1 + shrink)
    bounds = [Fact("Right guesses at even odds (a coin reaches 50%)", _at_most(right))]
    for alarms in FALSE_ALARMS:
        found = best_true_positive_rate(epsilon, delta, alarms)
        bounds.append(Fact(f"Members found at {100 * alarms:g}% false alarms", _at_most(found)))
    return bounds


def about(seconds: float) -> str:
    """A duration with two figures: enough to plan with, too little to count records by."""
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {float(f'{seconds / size:.2g}'):g} {name}"
    return f"about {float(f'{seconds:.2g}'):g} seconds"


def _facts(report: ReleaseReport) -> list[Fact]:
    """The guarantee's own three numbers, then whatever the caller adds."""
    return [
        Fact("Epsilon", _up(report.epsilon)),
        Fact("Delta", _up(report.delta)),
        Fact("Unit of privacy", report.unit),
        *report.facts,
    ]


def _pairs(report: ReleaseReport) -> list[tuple[str, list[tuple[Origin, str, Sample]]]]:
    """One entry a caption: its rows of pictures, the release first, then the public model alone."""
    rows = [(Origin.DP, "This release", sample) for sample in report.samples]
    public = [(Origin.PUBLIC, "Public model, without the data", sample) for sample in report.public_samples]
    if not public:
        return [(row[2].caption, [row]) for row in rows]
    return [(row[2].caption, [row, other]) for row, other in zip(rows, public, strict=True)]


class _Curve(NamedTuple):
    """The budget over training, laid out in a box of 640 x 260."""

    line: str
    end: tuple[float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    steps: int
    epsilon: float


def _curve(points: Sequence[tuple[int, float]]) -> _Curve | None:
    """Place the points between x 44..600 and y 220..20, on axes from zero; fewer than two make no curve."""
    if len(points) < 2:
        return None
    x_ticks, y_ticks = _ticks(max(step for step, _ in points)), _ticks(max(value for _, value in points))

    def x(step: float) -> float:
        return round(44 + 556 * step / x_ticks[-1], 1)

    def y(value: float) -> float:
        return round(220 - 200 * value / y_ticks[-1], 1)

    steps, epsilon = points[-1]
    return _Curve(
        line=" ".join(f"{x(step)},{y(value)}" for step, value in points),
        end=(x(steps), y(epsilon)),
        x_ticks=[(x(tick), f"{tick:,g}") for tick in x_ticks],
        y_ticks=[(y(tick), f"{tick:g}") for tick in y_ticks],
        steps=steps,
        epsilon=epsilon,
    )


def _ticks(largest: float) -> list[float]:
    """Zero and up to five round numbers after it, the last at or above `largest`."""
    rough = max(largest, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    return [size * k for k in range(math.ceil(largest / size - 1e-9) + 1)]


def _up(value: float) -> str:
    """A number with three figures, rounded up so that it stays a bound: 7.9996 becomes 8."""
    exact = Decimal(str(value))
    rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding=ROUND_CEILING).normalize()
    if rounded >= Decimal("0.001"):
        return f"{rounded:f}"
    power = str(rounded.adjusted()).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{rounded.scaleb(-rounded.adjusted()):f}×10{power}"


def _at_most(share: float) -> str:
    """A share as a percentage rounded up to two decimals."""
    return f"at most {math.ceil(min(share, 1.0) * 1e4 - 1e-9) / 100:g}%"


def _template(name: str, *, escape: bool) -> Template:
    """One of the two templates beside this file, with our filters."""
    environment = Environment(
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(data_uri=_data_uri, pixels=_pixels, plain=_plain, up=_up)
    return environment.from_string(files("dpwavelet.report").joinpath(name).read_text(encoding="utf-8"))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _pixels(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, read from its header."""
    if len(png) < 24 or not png.startswith(PNG_SIGNATURE):
        raise ConfigError(f"a sample must be a PNG file, got {len(png)} bytes that start with {png[:8]!r}.")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    special = {ord(mark): f"\\{mark}" for mark in r"\`*_[]<>|#~"}
    return " ".join(text.split()).translate(special)
