"""Numbers as the pages write them: shares are rounded up, clock times coarse, measurements by their error."""

import math

from dpwavelet.rounded import RAISED

MOST_DECIMALS = 8


def at_most(share: float) -> str:
    """A share as a percentage rounded up to two decimals."""
    return f"at most {math.ceil(min(share, 1.0) * 1e4 - 1e-9) / 100:g}%"


def about(seconds: float) -> str:
    """A duration with two figures: enough to plan with, too little to count records by."""
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {float(f'{seconds / size:.2g}'):g} {name}"
    return f"about {float(f'{seconds:.2g}'):g} seconds"


def plain(value: float) -> str:
    """A number of no known error: whole numbers in full, others with four figures."""
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if 1e-4 <= abs(value) < 1e15:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}×10{str(int(power)).translate(RAISED)}"


def measured(
    value: float, error: float | None = None, interval: tuple[float, float] | None = None, unit: str = ""
) -> str:
    """A number with how sure it is; as many decimals as give two figures of that."""
    width = interval[1] - interval[0] if interval else (error or 0.0)
    if not (math.isfinite(width) and width > 0):
        return _with_unit(plain(value), unit)
    decimals = min(MOST_DECIMALS, max(0, 1 - math.floor(math.log10(width))))
    told, *ends = (f"{each:,.{decimals}f}" for each in (value, *(interval or (width,))))
    spread = f"({ends[0]} to {ends[1]})" if interval else f"± {ends[0]}"
    return f"{_with_unit(told, unit)} {spread}"


def _with_unit(text: str, unit: str) -> str:
    """A percent sign clings to its number; other units stand apart."""
    return f"{text}{unit}" if unit in ("", "%") else f"{text} {unit}"
