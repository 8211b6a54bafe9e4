"""All numbers of one pair of sets of rows, each named by its formula and its features.

What a pair is too small for is left out, and a note says so; nothing is replaced in silence.

Letters: D features.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dpwavelet.evaluation.frechet import TooFewRowsError, frechet_distance
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.kernel import kernel_distance
from dpwavelet.evaluation.neighbours import neighbourhoods
from dpwavelet.evaluation.rows import Rows, disjoint
from dpwavelet.evaluation.spaces import FeatureSpace
from dpwavelet.evaluation.stored import some

PAIRED = 20_000  # rows of a set at most for what looks at all pairs, whose time grows with the square
PAIR_STEPS = 3  # that `told` hears of
FOUR = ("precision", "recall", "density", "coverage")

Told = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The numbers of one pair of sets; None is one that they are too small for."""

    sizes: tuple[int, int]
    frechet: Measured | None
    kernel: Measured
    precision: Measured | None
    recall: Measured | None
    density: Measured | None
    coverage: Measured | None

    @property
    def measured(self) -> tuple[Measured, ...]:
        """Those that there are."""
        found = (self.frechet, self.kernel, *(getattr(self, name) for name in FOUR))
        return tuple(one for one in found if one is not None)

    def to_json(self) -> dict[str, Any]:
        """As plain values, each number by its name."""
        numbers = {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in self.measured}
        return {"sizes": list(self.sizes), "numbers": numbers}


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Measures pair after pair in one feature space, the largest first, and collects notes.

    Of each kind there is one note: what a pair is too small for, smaller ones are too.
    """

    space: FeatureSpace
    nearest: int
    bootstrap: Bootstrap
    seed: int
    told: Told
    notes: dict[str, str] = field(default_factory=dict)  # by kind

    def scores(self, real: Rows, generated: Rows, which: str = "") -> Scores:
        """All numbers of a pair; `which` says in a note which one it is."""
        sizes = (len(real), len(generated))
        frechet = self._frechet(real, generated, which)
        self.told(1)
        if max(sizes) > PAIRED:
            self.notes.setdefault(
                "pairs",
                f"{self.space.kernel_label}, {', '.join(FOUR)} look at pairs of images: of a larger set "
                f"they take {PAIRED:,}, drawn at random.",
            )
            real, generated = (drawn(rows, min(PAIRED, len(rows)), self.seed) for rows in (real, generated))
        kernel = kernel_distance(real, generated, bootstrap=self.bootstrap)
        self.told(1)
        four = self._four(real, generated, which)
        self.told(1)
        kernel = replace(kernel, name=self.space.kernel_label)
        return Scores(sizes=sizes, frechet=frechet, kernel=kernel, **four)

    def _frechet(self, real: Rows, generated: Rows, which: str) -> Measured | None:
        try:
            found = frechet_distance(real, generated, bootstrap=self.bootstrap)
        except TooFewRowsError:
            self.notes.setdefault(
                "few",
                f"{self.space.label}{which} is left out: {self.space.columns} features need "
                f"{self.space.columns + 1:,} images in each set, got {len(real):,} and {len(generated):,}. "
                f"{self.space.kernel_label} is used instead, which is unbiased for any number.",
            )
            return None
        return replace(found, name=self.space.label)

    def _four(self, real: Rows, generated: Rows, which: str) -> dict[str, Measured | None]:
        if min(len(real), len(generated)) <= self.nearest:
            self.notes.setdefault(
                "very few",
                f"{', '.join(FOUR)}{which} are left out: {self.nearest} neighbours need {self.nearest + 1} "
                f"images in each set, got {len(real)} and {len(generated)}.",
            )
            return dict.fromkeys(FOUR)
        found = neighbourhoods(real, generated, nearest=self.nearest, bootstrap=self.bootstrap)
        return {name: replace(getattr(found, name), name=self.space.named(name)) for name in FOUR}


def drawn(rows: Rows, count: int, seed: int) -> Rows:
    """So many of the rows at random; all of them as they are."""
    return rows if count == len(rows) else some(rows, disjoint(len(rows), (count,), seed)[0])
