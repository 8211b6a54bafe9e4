"""The owner's page of a run: from what was measured on records to `private/report.html` and its twin.

Every number here is sealed in a `PrivateScore` before it meets a page. A part that cannot be measured says
why in a line and stops nothing: the release does not depend on anything in this file.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpwavelet import __version__
from dpwavelet.checkpoint import read_json, write_bytes, write_json
from dpwavelet.errors import ConfigError, DataError, ModelError
from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.judgement import Evidence, gather
from dpwavelet.pipeline.owner_parts import PARTS, Blocks, Released, nearest
from dpwavelet.pipeline.release import Cost, marks, software_facts
from dpwavelet.pipeline.settings import FEWEST, RunSettings
from dpwavelet.privacy.certificate import statement
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress
from dpwavelet.report import Fact, Missing, PrivateFact, PrivateReport, about, private_json, render_private
from dpwavelet.report.measured import roc, score_table, training

CHOSEN = "one of {} pictures, by a likeness of the records: distances by the same features flatter that"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run whose release is written."""

    private: Path  # its folder, where the page goes
    title: str
    plan: PrivacyPlan
    released: Released
    cost: Cost | None  # older runs kept none
    audit: Path | None = None  # another than the one in the folder


def judge(
    finished: Finished,
    images: PrivateImages,
    ours: Pipeline,
    public: Pipeline,
    settings: RunSettings,
    progress: Progress,
) -> None:
    """Compare pictures with records, and write the owner's report into the private folder."""
    evidence = gather(images, ours, public, settings, progress) if settings.judged else None
    progress.begin("the owner's report", len(PARTS) + 2)
    report = owner_report(finished, evidence, progress.advance)
    write_bytes(finished.private / "report.html", render_private(report).encode())
    write_json(finished.private / "report.json", private_json(report))
    progress.advance(1)


def owner_report(
    finished: Finished,
    evidence: Evidence | None,
    told: Callable[[int, str], None] = lambda done, note: None,
) -> PrivateReport:
    """Everything that the page says; without `evidence`, nothing was compared with records."""
    private, plan, released = finished.private, finished.plan, finished.released
    parts: dict[str, Blocks] = {}
    if evidence is not None and len(evidence.places) >= FEWEST:
        for name, part in PARTS.items():
            parts[name] = measured(part, evidence)
            told(1, name)
        parts["nearness"] = measured(lambda here: nearest(here, released), evidence)
        told(1, "nearness")
    return PrivateReport(
        title=finished.title,
        version=__version__,
        promise=statement(plan),
        epsilon=plan.epsilon,
        delta=plan.delta,
        unit=plan.unit,
        facts=_facts(plan, evidence),
        cost=_cost(finished.cost, len(released.captions)) if finished.cost is not None else (),
        training=list(training(_steps(private / "metrics.jsonl"), plan.batch_size)),
        epsilon_curve=[(step, plan.epsilon_spent(step)) for step in marks(plan.steps)],
        audit=_audit(finished.audit or private / "audit.json"),
        provenance=software_facts(),
        **parts,
    )


def _cost(cost: Cost, samples: int) -> list[Fact | PrivateFact]:
    return [PrivateFact("Private training", about(cost.training)), *cost.facts(samples)]


def measured(part: Callable[[Evidence], Blocks], evidence: Evidence) -> Blocks:
    """A part of the page, or a line that says why it is missing."""
    try:
        return part(evidence) or [Missing("There was nothing here to measure.")]
    except (ConfigError, DataError) as error:
        return [Missing(f"This could not be measured: {error}")]


def _facts(plan: PrivacyPlan, evidence: Evidence | None) -> list[Fact | PrivateFact]:
    found: list[Fact | PrivateFact] = [
        Fact("Declared people" if plan.unit == "person" else "Declared records", f"{plan.records:,}")
    ]
    if evidence is None:
        return found
    return [
        *found,
        *(PrivateFact("Read", line) for line in evidence.images.folder.lines()),
        PrivateFact("Records whose features were measured", f"{len(evidence.records):,}"),
        PrivateFact("Pictures drawn with captions of records", f"{len(evidence.places):,}"),
        *([Fact("Chosen", CHOSEN.format(evidence.drawings))] if evidence.drawings > 1 else []),
        Fact("Features", f"{evidence.space.name}, {evidence.space.columns} columns; {evidence.space.resize}"),
    ]


# Curves and audits that lie in files


def _steps(path: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`; a step that a resumed run repeated counts once."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # a run that was killed may have left half a line
            lines.append(json.loads(text))
    return list({line["step"]: line for line in lines}.values())


def check_audit(path: Path) -> None:
    """Refuse a file that `dpwavelet audit` did not write."""
    if not path.is_file():
        raise ConfigError(f"{path} is not there; name the audit.json that `dpwavelet audit` wrote.")
    _audits(path)


def _audit(path: Path) -> Blocks:
    """What `dpwavelet audit` wrote, if it is there; a file that cannot be read says so."""
    try:
        return _audits(path) if path.is_file() else []
    except (ConfigError, ModelError) as error:
        return [Missing(f"The audit could not be read: {error}")]


def _audits(path: Path) -> Blocks:
    kept = read_json(path)
    try:
        return [block for one in kept["audits"] for block in _one_audit(one)]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{path} holds no audits of this version; name the audit.json that `dpwavelet audit` wrote."
        ) from None


def _one_audit(one: dict[str, Any]) -> Blocks:
    """Its lower bounds and the curves of membership inference."""
    claim = one["plan"]["epsilon"]
    rows: dict[str, list[PrivateScore | str]] = {
        name: [PrivateScore(name, bound), f"{claim:g}"] for name, bound in one["bounds"].items()
    }
    title = f"Epsilon from below, for a claim of {claim:g}"
    curves, curve = {attack["attack"]: attack["curve"] for attack in one["membership"]}, one["curve"]
    mechanism, promise = (
        list(zip(curve["rates"], curve[name], strict=True)) for name in ("by_mechanism", "by_promise")
    )
    return [
        score_table(title, ("at least", "claimed"), rows, "Attack"),
        roc(curves, mechanism, promise),
    ]
