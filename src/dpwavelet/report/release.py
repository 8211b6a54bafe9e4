"""What a release says about itself: `report.html`, its twin `report.json`, and `card.md`.

Everything here may be published, because every input is DP, computed from something DP, or public. A fact
carries its origin, and `Origin` has no member for what was measured on private records. So such a number
cannot be put on this page by mistake; it would have to be given a false name. Scores that were computed on
private records have a type that is refused here, whichever field it comes in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import best_true_positive_rate, check_delta, check_epsilon
from dpwavelet.report.blocks import (
    Bars,
    Block,
    Entry,
    Fact,
    Line,
    Lines,
    Number,
    Picture,
    Row,
    Section,
    Sheet,
    Strip,
    Table,
    Words,
    facts_table,
)
from dpwavelet.report.figures import at_most
from dpwavelet.report.origins import MEANINGS, Origin, check_publishable
from dpwavelet.report.page import Page, render, template
from dpwavelet.report.twins import page_json
from dpwavelet.rounded import rounded_up, up

LICENSE_NAME = "see Provenance: the terms of the public weights hold"
FALSE_ALARMS = (0.001, 0.01, 0.1)


class Sample(NamedTuple):
    """One generated picture as PNG files: what the next-token model drew, and the finished image."""

    caption: str
    coarse_png: bytes
    fine_png: bytes


class Bought(NamedTuple):
    """A measurement on private records that was made public with noise, from the same budget."""

    name: str
    value: float
    noise: str  # "plus or minus" in words, as "± 0.02 in 95 of 100 cases"; computed from public numbers only
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """Everything that the page and the card of one release say.

    Captions come from the user or a public list, never from the records. Clock times depend a little on
    how many records each step drew, so they are written with `about`. `balance` counts what is to be seen in
    the samples, beside what the captions asked for; the records are not in it.
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
    bought: Sequence[Bought] = ()
    balance: Sequence[Bars[Origin] | Table[Origin]] = ()
    notes: Sequence[Words[Origin]] = ()

    def __post_init__(self) -> None:
        check_publishable(self, "the release report")
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
    return render(_page(report))


def release_json(report: ReleaseReport) -> dict[str, Any]:
    """The page for programs: the same numbers, without the pictures."""
    return page_json(_page(report), "release")


def _page(report: ReleaseReport) -> Page:
    return Page(
        title=report.title,
        version=report.version,
        promise=report.promise,
        epsilon=report.epsilon,
        delta=report.delta,
        unit=report.unit,
        origins={origin: MEANINGS[origin] for origin in Origin},
        sections=release_sections(report),
    )


def render_card(report: ReleaseReport) -> str:
    """The model card, as Markdown under a YAML header."""
    header = {
        "license": report.license,
        "license_name": LICENSE_NAME,
        "library_name": "dpwavelet",
        "pipeline_tag": "text-to-image",
        "tags": ["differential-privacy", "dp-sgd", "synthetic-data", "image-generation", "wavelet"],
    }
    body = template("card.md", escape=False).render(
        report=report,
        facts=guarantee(report),
        bounds=attack_bounds(report.epsilon, report.delta),
        bought=[(one.name, f"{_value(one)}, {one.noise}") for one in report.bought],
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{body}"


def attack_bounds(epsilon: float, delta: float) -> list[Fact]:
    """What the promise leaves to an attacker who knows every other record and guesses whether one was used.

    At even odds at most (e^epsilon + delta) / (e^epsilon + 1) of the guesses are right (Kairouz, Oh and
    Viswanath 2015). Percentages are rounded up.
    """
    shrink = math.exp(-epsilon)
    right = (1 + delta * shrink) / (1 + shrink)
    bounds = [Fact("Right guesses at even odds (a coin reaches 50%)", at_most(right))]
    for alarms in FALSE_ALARMS:
        found = best_true_positive_rate(epsilon, delta, alarms)
        bounds.append(Fact(f"Members found at {100 * alarms:g}% false alarms", at_most(found)))
    return bounds


def guarantee(report: ReleaseReport) -> list[Fact]:
    """The guarantee's own three numbers, then whatever the caller adds."""
    return [
        Fact("Epsilon", up(report.epsilon)),
        Fact("Delta", up(report.delta)),
        Fact("Unit of privacy", report.unit),
        *report.facts,
    ]


def budget_lines(curve: Sequence[tuple[int, float]]) -> list[Lines[Origin]]:
    """Epsilon over the steps, rounded up to three figures; fewer than two points make no curve."""
    if len(curve) < 2:
        return []
    line = Line("Epsilon", [(float(step), float(rounded_up(value))) for step, value in curve], Origin.PUBLIC)
    return [Lines(title="Epsilon after each private step", x="steps", y="epsilon", lines=[line])]


def release_sections(report: ReleaseReport) -> list[Section[Origin]]:
    """The parts of the page in order; one without content is left out."""
    parts = [
        _pictures(report),
        _guarantee(report),
        Section(
            id="bought",
            heading="Measurements bought with the budget",
            words=[
                "These were computed on the private records and published with noise. What that cost is part "
                "of the epsilon above."
            ],
            blocks=[_bought_table(report.bought)] if report.bought else [],
        ),
        Section(
            id="balance",
            heading="What the samples show",
            words=["Counted in generated pictures. How the records are balanced is not on this page."],
            blocks=report.balance,
        ),
        Section(
            id="budget",
            heading="How the budget was spent",
            words=[
                "Epsilon after each private step, known before the first one: it depends on the settings, "
                "never on a record."
            ],
            blocks=budget_lines(report.epsilon_curve),
        ),
        Section(id="limits", heading="What is not promised", items=report.not_promised),
        _verify(),
        Section(id="cost", heading="What it cost", blocks=_facts("Time and machine", report.cost)),
        Section(
            id="provenance",
            heading="What it was made from",
            blocks=_facts("Weights and software", report.provenance),
        ),
        Section(id="notes", heading="Notes", blocks=report.notes),
    ]
    return [part for part in parts if part.blocks or part.items or part.code]


def sample_entries(samples: Sequence[Sample], public_samples: Sequence[Sample]) -> list[Entry[Origin]]:
    """One entry a caption: the release first, then the public model alone."""
    ours = [_strip("This release", sample, Origin.DP) for sample in samples]
    public = [_strip("Public model alone", sample, Origin.PUBLIC) for sample in public_samples]
    strips = zip(ours, public, strict=True) if public else ((one,) for one in ours)
    return [Entry(sample.caption, tuple(together)) for sample, together in zip(samples, strips, strict=True)]


def _pictures(report: ReleaseReport) -> Section[Origin]:
    words = [
        "On the left, the coarse picture: all that the private model draws. On the right, the same picture "
        "after a model that has only seen public images added the fine detail. Detail is an invention, and "
        "evidence of nothing."
    ]
    if report.public_samples:
        words.append(
            "With each pair comes the same caption drawn by the public model alone. The difference is what "
            "training on the data changed."
        )
    entries = sample_entries(report.samples, report.public_samples)
    sheet: list[Block[Origin]] = [Sheet(title="Samples", entries=entries)] if entries else []
    return Section(id="pictures", heading="What it draws", words=words, blocks=sheet)


def _guarantee(report: ReleaseReport) -> Section[Origin]:
    return Section(
        id="guarantee",
        heading="The guarantee",
        words=[
            "How much more whoever holds this release can learn about any one unit than if it had not been "
            "in the data is bounded by epsilon and delta. Smaller is stronger; at 8 the bound is weak.",
            "The second table gives limits for the worst record and the best attacker, rounded up. Real "
            "attacks usually do worse; the guarantee does not say by how much.",
        ],
        blocks=[
            facts_table("What was promised", guarantee(report)),
            facts_table(
                "What that allows an attacker who knows every other record, and wants to tell whether one "
                "was used",
                attack_bounds(report.epsilon, report.delta),
            ),
        ],
    )


def _verify() -> Section[Origin]:
    return Section(
        id="verify",
        heading="How to check this",
        words=[
            "In the folder that holds this page, the command below recomputes epsilon from the events in "
            "certificate.json, and checks the signature and the digest of every file.",
            "The owner's public key, obtained some other way, shows whose certificate it is. What no file "
            "can prove is that the owner ran this code on that data; for that you trust the owner.",
        ],
        code="dpwavelet verify .",
    )


def _bought_table(bought: Sequence[Bought]) -> Table[Origin]:
    return Table(
        title="Measured with noise",
        columns=("Value", "Noise"),
        rows=[Row(one.name, (_value(one), one.noise), Origin.DP) for one in bought],
    )


def _value(one: Bought) -> Number:
    return Number(value=one.value, unit=one.unit)


def _facts(title: str, facts: Sequence[Fact]) -> list[Table[Origin]]:
    return [facts_table(title, facts)] if facts else []


def _strip(name: str, sample: Sample, origin: Origin) -> Strip[Origin]:
    shown = (Picture(sample.coarse_png, "coarse"), Picture(sample.fine_png, "finished"))
    return Strip(name, shown, origin)
