"""Two sets of feature rows, and beside them what a perfect generator would reach.

`compare` measures how far generated rows are from real ones, and how far real ones are from other real ones.
The second is the attainable reference. A Fréchet distance, precision, recall, density and coverage depend on
the sizes of the sets, so they are compared at the same sizes only: where the real set is too small for two of
the size that is measured, the reference is smaller, and generated rows are measured at its sizes too.

What is computed from private records is private, these numbers included.

Letters: N real rows, M generated ones; n and m of them are compared.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.kernel import FEWEST
from dpwavelet.evaluation.rows import BLOCK, Features, Rows, checked_pair, disjoint
from dpwavelet.evaluation.scores import PAIR_STEPS, Scorer, Scores, Told, drawn
from dpwavelet.evaluation.spaces import FeatureSpace
from dpwavelet.evaluation.stored import some

STEPS = 3 * PAIR_STEPS  # what `told` counts up to


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How two sets are compared; the same settings and rows give the same numbers."""

    nearest: int = 5  # neighbours that a ball reaches to
    at_most: int | None = None  # rows of each set; further real ones serve the reference
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    seed: int = 0  # of the subsets

    def __post_init__(self) -> None:
        if self.nearest < 1:
            raise ConfigError(f"nearest must be at least 1, got {self.nearest}; 5 is usual.")
        if self.at_most is not None and self.at_most < FEWEST:
            raise ConfigError(f"{self.at_most} images of a set are too few; take {FEWEST} or more.")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found."""

    space: FeatureSpace
    settings: ComparisonSettings
    scores: Scores  # of generated against real
    reference: Scores | None  # of real against real
    same_sizes: Scores | None  # of generated against real at the sizes of the reference, where those differ
    notes: tuple[str, ...]  # what must be said with the numbers

    @property
    def distance(self) -> Measured:
        """The Fréchet distance, or where it is refused the kernel distance."""
        return self.scores.frechet or self.scores.kernel

    @property
    def fair(self) -> Scores:
        """Generated against real at the sizes of the reference, to be compared with it."""
        return self.same_sizes or self.scores

    def to_json(self) -> dict[str, Any]:
        """As plain values, each number by its name."""
        return {
            "features": {
                "name": self.space.name,
                "columns": self.space.columns,
                "sha256": self.space.digest,
                "resize": self.space.resize,
            },
            "settings": asdict(self.settings),
            "distance": self.distance.name,
            "generated_against_real": self.scores.to_json(),
            "real_against_real": self.reference and self.reference.to_json(),
            "generated_against_real_same_sizes": self.same_sizes and self.same_sizes.to_json(),
            "notes": list(self.notes),
        }


def compare(
    real: Features,
    generated: Features,
    space: FeatureSpace,
    settings: ComparisonSettings | None = None,
    *,
    told: Told = lambda done: None,
) -> Comparison:
    """Measure generated rows [M, D] against real ones [N, D], and real ones against real ones.

    `told` hears of finished steps, `STEPS` in all.
    """
    settings = settings or ComparisonSettings()
    first, second = checked_pair(real, generated)
    if first.shape[1] != space.columns:
        raise ConfigError(
            f"{space.name} makes {space.columns} features, got {first.shape[1]}; give rows of this space."
        )
    if min(len(first), len(second)) < FEWEST:
        raise ConfigError(
            f"a comparison needs at least {FEWEST} images in each set, got {len(first)} and {len(second)}; "
            "give more images."
        )
    chosen = _choose(first, second, settings)
    scorer = Scorer(
        space=space, nearest=settings.nearest, bootstrap=settings.bootstrap, seed=settings.seed, told=told
    )
    scores = scorer.scores(chosen.real, chosen.generated)
    reference = same_sizes = None
    if chosen.two_real is not None:
        reference = scorer.scores(*chosen.two_real, " of real against real")
    if chosen.fewer is not None:
        same_sizes = scorer.scores(*chosen.fewer)
    told(PAIR_STEPS * ((reference is None) + (same_sizes is None)))
    notes = [*chosen.notes, *scorer.notes.values()]
    if _equal(chosen.real, chosen.generated):
        notes.append(
            f"Both sets are the same {len(chosen.real):,} images: they are at distance 0. "
            f"{space.kernel_label} is meant for two draws, and of a set and itself it is below 0."
        )
    return Comparison(
        space=space,
        settings=settings,
        scores=scores,
        reference=reference,
        same_sizes=same_sizes,
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The pairs of rows that are measured."""

    real: Rows
    generated: Rows
    two_real: tuple[Rows, Rows] | None  # disjoint
    fewer: tuple[Rows, Rows] | None  # real and generated rows as many as `two_real`, if those are fewer
    notes: list[str]


def _choose(real: Rows, generated: Rows, settings: ComparisonSettings) -> _Chosen:
    N, M, seed = len(real), len(generated), settings.seed
    most = settings.at_most or max(N, M)
    n, m = min(N, most), min(M, most)
    compared = drawn(generated, m, seed)
    notes = [] if (n, m) == (N, M) else [f"{n:,} and {m:,} images, drawn at random, are compared."]
    others = min(m, N // 2)
    left = min(n, N - others)
    if others < FEWEST:
        notes.append(f"{N} real images are too few to set real against real.")
        return _Chosen(drawn(real, n, seed), compared, None, None, notes)
    one, other = (some(real, places) for places in disjoint(N, (left, others), seed))
    if (left, others) == (n, m):
        return _Chosen(one, compared, (one, other), None, notes)
    notes.append(
        f"There are {N:,} real images, so real against real has {left:,} and {others:,}: compare it with the "
        "column of the same sizes."
    )
    return _Chosen(drawn(real, n, seed), compared, (one, other), (one, drawn(compared, others, seed)), notes)


def _equal(first: Rows, second: Rows) -> bool:
    """Whether both sets hold the same rows in the same order."""
    return first.shape == second.shape and all(
        np.array_equal(first[start : start + BLOCK], second[start : start + BLOCK])
        for start in range(0, len(first), BLOCK)
    )
