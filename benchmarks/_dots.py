"""Charts of dots as one SVG: a panel for each question, a line for each variant, a dot for each seed.

For the docs, where a picture must stand alone: no script, no font file, readable on light and on dark pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

LABELS, PANEL, GAP = 250, 210, 26  # widths: of the names on the left, of a panel, between panels
TOP, LINE, BOTTOM = 74, 19, 44
INK, FAINT, COLOURS = "#57606a", "#8c959f55", ("#0969da", "#cf222e", "#1a7f37")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One question: values by variant and by series; less is better, and the default is drawn as a line."""

    title: str
    values: Mapping[str, Mapping[str, Sequence[float]]]  # of a variant, of a series, over seeds
    default: float


def svg(title: str, variants: Sequence[str], series: Sequence[str], panels: Sequence[Panel]) -> str:
    """All panels side by side; every one has its own scale."""
    width = LABELS + len(panels) * (PANEL + GAP)
    height = TOP + LINE * len(variants) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}">',
        _text(0, 16, title, size=14),
    ]
    for place, name in enumerate(series):
        x = LABELS + 140 * place
        parts += [_dot(x, 34, COLOURS[place % 3], name), _text(x + 10, 38, name)]
    for line, name in enumerate(variants):
        y = _line(line)
        parts += [_text(LABELS - 12, y + 4, name, anchor="end"), _rule(LABELS, y, width - GAP, y)]
    for place, panel in enumerate(panels):
        parts += _panel(panel, LABELS + place * (PANEL + GAP), variants, series)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, variants: Sequence[str], series: Sequence[str]) -> list[str]:
    every = [v for one in panel.values.values() for values in one.values() for v in values]
    low, high = min([*every, panel.default]), max([*every, panel.default])
    room = 0.06 * ((high - low) or 1.0)
    low, high = low - room, high + room

    def across(value: float) -> float:
        return left + PANEL * (value - low) / (high - low)

    bottom = _line(len(variants) - 1) + LINE
    middle = across(panel.default)
    parts = [
        _text(left + PANEL / 2, TOP - 18, panel.title, anchor="middle"),
        f'<line x1="{middle:.1f}" y1="{TOP - 8}" x2="{middle:.1f}" y2="{bottom}" stroke="{INK}" '
        'stroke-dasharray="3 3"/>',
        _text(middle, bottom + 16, f"{panel.default:g}", anchor="middle"),
    ]
    for end, anchor in ((low + room, "start"), (high - room, "end")):
        if abs(across(end) - middle) > 40:
            parts.append(_text(across(end), bottom + 16, f"{end:.3g}", anchor=anchor))
    for line, variant in enumerate(variants):
        for place, name in enumerate(series):
            for value in panel.values.get(variant, {}).get(name, ()):
                told = f"{variant}, {name}: {value:.4g}"
                y = _line(line) + 4 * (place - (len(series) - 1) / 2)
                parts.append(_dot(across(value), y, COLOURS[place % 3], told))
    return parts


def _line(line: int) -> float:
    return TOP + LINE * (line + 0.5)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{FAINT}"/>'


def _dot(x: float, y: float, colour: str, told: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(told)}</title></circle>'
