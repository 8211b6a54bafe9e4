"""What a run tells its owner: `private/report.html` and its twin `private/report.json`.

The page is as sensitive as the images, and says so above everything. It shows what no promise covers:
distances to the records, accuracies on them, curves of training, records beside samples.

Every part but the head may be missing, and then a line says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpwavelet.privacy.accounting import check_delta, check_epsilon
from dpwavelet.report.blocks import Block, Fact, Missing, Section
from dpwavelet.report.measured import AnyOrigin, PrivateFact, any_facts
from dpwavelet.report.origins import MEANINGS
from dpwavelet.report.page import Page, render
from dpwavelet.report.release import budget_lines
from dpwavelet.report.twins import page_json
from dpwavelet.rounded import up

WARNING = (
    "Private: this page is as sensitive as your images.",
    "Most numbers and some pictures on this page come from your records without any noise, and no promise "
    "covers them. Keep it in private/. Do not send, publish or paste it. What may leave the house is "
    "release/. Choosing settings, a run, or whether to publish by this page is covered by no promise either.",
)
Blocks = Sequence[Block[AnyOrigin]]


@dataclass(frozen=True, kw_only=True)
class PrivateReport:
    """Everything that the private page says. A block that is `Missing` says why."""

    title: str
    version: str
    promise: str
    epsilon: float
    delta: float
    unit: str
    facts: Sequence[Fact | PrivateFact] = ()
    cost: Sequence[Fact | PrivateFact] = ()
    distances: Blocks = ()
    perceptual: Blocks = ()
    obedience: Blocks = ()
    usefulness: Blocks = ()
    balance: Blocks = ()
    training: Blocks = ()
    epsilon_curve: Sequence[tuple[int, float]] = ()
    audit: Blocks = ()
    nearness: Blocks = ()
    provenance: Sequence[Fact | PrivateFact] = ()

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)


def render_private(report: PrivateReport) -> str:
    """The page, as HTML that needs no other file."""
    return render(_page(report))


def private_json(report: PrivateReport) -> dict[str, Any]:
    """The page for programs: the same numbers, without the pictures. It stays in `private/` too."""
    return page_json(_page(report), "private")


def _page(report: PrivateReport) -> Page:
    return Page(
        title=report.title,
        version=report.version,
        promise=report.promise,
        epsilon=report.epsilon,
        delta=report.delta,
        unit=report.unit,
        origins=MEANINGS,
        sections=private_sections(report),
        warning=WARNING,
    )


def private_sections(report: PrivateReport) -> list[Section[AnyOrigin]]:
    """The parts of the page in order; none is left out."""
    return [
        Section(id="cost", heading="What was promised, and what it cost", blocks=_promised(report)),
        _part(
            "distances",
            "How near the samples come to the records",
            report.distances,
            "No distances between samples and records were measured.",
            "Distances between two sets of pictures. What two sets of records have between them is the best "
            "that can be hoped for; it is drawn as a band behind the rest.",
        ),
        _part(
            "perceptual",
            "Picture by picture",
            report.perceptual,
            "No distances between single pictures were measured.",
            "How far a sample looks from the record that has the same caption. The coarse picture tells of "
            "private training, the finished one also of the public model that adds detail.",
        ),
        _part(
            "obedience",
            "Whether samples show what was asked for",
            report.obedience,
            "Whether samples follow their captions was not measured.",
        ),
        _part(
            "usefulness",
            "What the samples are good for",
            report.usefulness,
            "No classifier was trained on the samples.",
            "A classifier learns from samples and is tested on records that were kept aside; beside it, one "
            "that learns from as many records.",
        ),
        _part(
            "balance",
            "Balance",
            report.balance,
            "Classes and attributes were not counted.",
        ),
        _part(
            "training",
            "Training",
            report.training,
            "There are no curves of training.",
        ),
        _part(
            "budget",
            "How the budget was spent",
            budget_lines(report.epsilon_curve),
            "The report was given no curve of epsilon.",
            "Epsilon after each private step; it depends on the settings, never on a record.",
        ),
        _part(
            "audit",
            "Audit",
            report.audit,
            "No audit was made. The command dpwavelet audit attacks a run like this one.",
            "What attacks found, under what the guarantee allows. A curve above its limit shows a defect; "
            "one below it is no proof that there is none.",
        ),
        _part(
            "nearness",
            "The nearest records",
            report.nearness,
            "No samples were compared with single records.",
            "A sample that looks like its nearest record is not yet a copy: the promise bounds how much one "
            "record can have changed it. Holding such samples back would undo the promise.",
        ),
        _part(
            "provenance",
            "What it was made from",
            [any_facts("Weights and software", report.provenance)] if report.provenance else [],
            "The report was given no weights or versions.",
        ),
    ]


def _part(id: str, heading: str, blocks: Blocks, otherwise: str, words: str = "") -> Section[AnyOrigin]:
    return Section(
        id=id,
        heading=heading,
        words=[words] if words and blocks else [],
        blocks=blocks or [Missing(otherwise)],
    )


def _promised(report: PrivateReport) -> Blocks:
    told = [Fact("Epsilon", up(report.epsilon)), Fact("Delta", up(report.delta)), Fact("Unit", report.unit)]
    cost: Block[AnyOrigin] = Missing("The report was given no cost of this run.")
    if report.cost:
        cost = any_facts("What it cost", report.cost)
    return [any_facts("What was promised", [*told, *report.facts]), cost]
