"""What an audit writes: `audit.json`, a table in plain text, and the curves of membership inference as SVG.

Results on private records go to a folder named `private` and nowhere else; no function here takes both kinds.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpwavelet.audit.run import Audited, DrawnAudit, PrivateAudit
from dpwavelet.checkpoint import write_bytes, write_json
from dpwavelet.privacy.certificate import software_versions
from dpwavelet.privacy.refusals import allowed_json
from dpwavelet.report.charts import thin

EVIDENCE = (
    "Evidence, not proof. A lower bound over the claim shows a defect (or one of the rare false alarms that "
    "the confidence leaves). Bounds under the claim show that these attacks found none."
)
PRIVATE = "PRIVATE: computed on private records without any promise. Keep it where the images are kept."
CURVE_POINTS = 300  # of membership inference that are kept at most
SIDE, EDGE, LEAST = 320, 44, 1e-3  # pixels of the plot and its margin; the smallest rate that it shows


def write_drawn(found: DrawnAudit, folder: Path) -> None:
    """Write an audit on drawn portraits."""
    _write(found.audited, folder, private=False)


def write_private(found: PrivateAudit, out: Path) -> None:
    """Write an audit on private records below `out/private`."""
    _write((found.audited,), out / "private", private=True, allowed=found.allowed)


def text(audited: Sequence[Audited]) -> str:
    """The table."""
    return "\n\n".join(["\n".join(_lines(one)) for one in audited] + [EVIDENCE])


def roc_plot(one: Audited) -> str:
    """Membership inference on logarithmic axes, under what the mechanism and (epsilon, delta) allow."""
    lines = [
        *(
            (list(found.curve), colour, found.attack)
            for found, colour in zip(one.membership, _COLOURS, strict=True)
        ),
        (_pairs(one.curve.rates, one.curve.by_mechanism), "#444", "allowed by the mechanism"),
        (_pairs(one.curve.rates, one.curve.by_promise), "#aaa", "allowed by (epsilon, delta)"),
        ([(LEAST, LEAST), (1.0, 1.0)], "#ddd", "guessing"),
    ]
    size = SIDE + 2 * EDGE
    drawn = [_line(points, colour) for points, colour, _ in lines]
    names = [
        f'<text x="{EDGE + 8}" y="{EDGE + 14 + 14 * row}" fill="{colour}">{name}</text>'
        for row, (_, colour, name) in enumerate(lines)
    ]
    ticks = [
        f'<text x="{_place(rate):.0f}" y="{EDGE + SIDE + 14}" text-anchor="middle">{rate:g}</text>'
        f'<text x="{EDGE - 4}" y="{size - _place(rate) + 4:.0f}" text-anchor="end">{rate:g}</text>'
        for rate in (0.001, 0.01, 0.1, 1.0)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" '
        f'font-size="11"><title>Membership inference at epsilon {one.plan.epsilon:g}: true positives over '
        f'false positives</title><rect width="{size}" height="{size}" fill="white"/>'
        f'<rect x="{EDGE}" y="{EDGE}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
        f"{''.join(drawn)}{''.join(names)}{''.join(ticks)}"
        f'<text x="{size / 2}" y="{size - 8}" text-anchor="middle">false-positive rate</text>'
        f'<text transform="translate(12 {size / 2}) rotate(-90)" text-anchor="middle">true-positive rate'
        "</text>"
        "</svg>\n"
    )


_COLOURS = ("#0b62a4", "#b5542b")


def _write(audited: Sequence[Audited], folder: Path, *, private: bool, allowed: Sequence[str] = ()) -> None:
    marked = PRIVATE + "\n\n" if private else ""
    write_bytes(folder / "audit.txt", (marked + text(audited) + "\n").encode())
    for one in audited:
        write_bytes(folder / f"roc-epsilon-{one.plan.epsilon:g}.svg", roc_plot(one).encode())
    write_json(
        folder / "audit.json",
        {
            "format": 1,
            "software": software_versions(),
            "private": private,
            "note": marked + EVIDENCE,
            "allowed": allowed_json(allowed),
            "audits": [_json(one) for one in audited],
        },
    )


def _json(one: Audited) -> dict[str, Any]:
    parts = asdict(one) | {"plan": one.plan.to_json(), "bounds": one.bounds, "within_claim": one.within_claim}
    for attack in parts["membership"]:  # as many points as a page draws
        attack["curve"] = thin(attack["curve"], CURVE_POINTS)
    return parts


def _lines(one: Audited) -> list[str]:
    plan, copies = one.plan, one.copying
    near, chance = f"{copies.nearest_is_member:.1%}", f"{copies.expected:.1%}"
    distances = f"{copies.distance_to_members:.4f}, {copies.distance_to_others:.4f}"
    promise = f"epsilon {plan.epsilon:g}, delta {plan.delta:.3g}"
    found = [
        f"{promise}: {plan.records} declared {'people' if plan.unit == 'person' else 'records'}, "
        f"{plan.steps} steps",
        "",
        f"  epsilon at least (confidence {one.game.confidence:g} each)",
    ]
    for name, bound in one.bounds.items():
        found.append(
            f"    {name:34}{bound:8.3f}   {'under the claim' if bound <= plan.epsilon else 'OVER THE CLAIM'}"
        )
    found += [
        "",
        "  membership inference              AUC (95 %)              at 1 % false      at 0.1 % false",
    ]
    for attack in one.membership:
        at = "".join(f"{rate.true_positive_rate:15.2%}   " for rate in attack.rates)
        found.append(
            f"    {attack.attack:28}{attack.auc:.3f} ({attack.auc_from:.3f} to {attack.auc_to:.3f}){at}"
        )
    rates = one.membership[0].rates
    for name, values in (
        ("the mechanism allows", [rate.mechanism_allows for rate in rates]),
        ("(epsilon, delta) allows", [rate.promise_allows for rate in rates]),
    ):
        found.append(f"    {name:50}" + "".join(f"{value:15.2%}   " for value in values))
    return [
        *found,
        "",
        "  copying (coarse pixels)",
        f"    samples nearest to a member       {near} (by chance {chance})",
        f"    mean distance to members, others  {distances}",
        f"    samples equal to members, others  {copies.exact_members}, {copies.exact_others}",
        f"    p-value, if nobody is copied      {copies.p_value:.3f}",
    ]


def _pairs(rates: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(rates, values, strict=True))


def _line(points: list[tuple[float, float]], colour: str) -> str:
    size = SIDE + 2 * EDGE
    path = " ".join(f"{_place(x):.1f},{size - _place(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _place(rate: float) -> float:
    """Pixels from the edge; rates below the smallest shown lie on the axis."""
    return EDGE + SIDE * (1 - math.log(max(rate, LEAST)) / math.log(LEAST))
