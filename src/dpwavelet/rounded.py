"""Bounds as people read them: three figures, rounded up, so that what is written still bounds."""

from decimal import ROUND_CEILING, Decimal

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def rounded_up(value: float) -> Decimal:
    """The next number with three figures, so that a bound stays one: 7.9996 becomes 8."""
    exact = Decimal(str(value))
    return exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding=ROUND_CEILING).normalize()


def up(value: float) -> str:
    """The same as text."""
    rounded = rounded_up(value)
    if rounded == 0 or rounded >= Decimal("0.001"):
        return f"{rounded:f}"
    return f"{rounded.scaleb(-rounded.adjusted()):f}×10{str(rounded.adjusted()).translate(RAISED)}"
