"""A number that was computed on private records, in a type of its own, so that it cannot slip out.

It has no promise of privacy: no noise was added, and nobody counted what it cost. So it refuses to become
text, a float or JSON. `reveal` is the one way to the number, for the private page or a file below `private/`,
and a reviewer finds every such place by that word. It is a seal against mistakes, not a lock.
"""

from dataclasses import dataclass
from typing import NoReturn

from dpwavelet.errors import PrivacyError
from dpwavelet.evaluation.intervals import Measured

REFUSAL = (
    "a number computed on private records; it goes to private/report.html; "
    "to publish one, buy it with --release-metrics"
)


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """What a score holds, once somebody said that they want it. Still private; only the seal is gone."""

    name: str
    value: float
    error: float | None = None  # standard error
    interval: tuple[float, float] | None = None
    confidence: float | None = None  # of the interval
    unit: str = ""
    words: str = ""  # of how many images, by which rule


class PrivateScore:
    """A named number that only `reveal` tells; it cannot be changed.

    Guarantee: `str`, `format`, `float`, `int`, JSON, pickles and copies of it are refused (`asdict` copies),
    and its repr shows the name alone.
    """

    __slots__ = ("_revealed", "name")
    name: str
    _revealed: Revealed

    def __init__(
        self,
        name: str,
        value: float,
        *,
        error: float | None = None,
        interval: tuple[float, float] | None = None,
        confidence: float | None = None,
        unit: str = "",
        words: str = "",
    ) -> None:
        revealed = Revealed(
            name=name,
            value=value,
            error=error,
            interval=interval,
            confidence=confidence,
            unit=unit,
            words=words,
        )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_revealed", revealed)

    @classmethod
    def of(cls, measured: Measured, *, name: str | None = None, unit: str = "") -> "PrivateScore":
        """Seal a measured number; `name` says the features too, as "FD-thumb" does."""
        first, second = measured.sizes
        return cls(
            name or measured.name,
            measured.value,
            error=measured.error,
            interval=measured.interval,
            confidence=measured.confidence,
            unit=unit,
            words=f"of {first:,} and {second:,} images",
        )

    def reveal(self) -> Revealed:
        """The number, for a page or a file that stays in `private/`."""
        return self._revealed

    def __repr__(self) -> str:
        return f"<PrivateScore {self.name!r}>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a private score cannot be changed; make a new one instead of setting {name}.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a private score cannot be changed; {name} stays.")

    def __str__(self) -> str:
        raise self._refusal()

    def __format__(self, form: str) -> str:
        raise self._refusal()

    def __float__(self) -> float:
        raise self._refusal()

    def __int__(self) -> int:
        raise self._refusal()

    def __getstate__(self) -> NoReturn:  # what copies and pickles ask for
        raise self._refusal()

    def _refusal(self) -> PrivacyError:
        return PrivacyError(f"{self.name!r} is {REFUSAL}.")
