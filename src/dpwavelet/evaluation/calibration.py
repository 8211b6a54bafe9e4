"""Whether a classifier is right as often as it says: the reliability table and the error that sums it up.

Predictions are put into bins by their confidence, the probability of the class that was chosen. In each bin
confidence is compared with accuracy. The expected calibration error is the mean distance between the two, a
prediction each (Naeini et al. 2015). It is too large for few predictions, since chance alone parts the two.

Letters: N predictions, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Classes
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences

NAME = "expected calibration error"
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Predictions whose confidence lies from `low` to `high`."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean; nothing in an empty bin
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The reliability table of N predictions, from the least confident to the most, and its error."""

    error: Measured
    bins: tuple[Bin, ...]


def calibration(
    probabilities: NDArray[np.float64], classes: Classes, sizes: tuple[int, int], bootstrap: Bootstrap
) -> Calibration:
    """Of probabilities [N, K] for pictures of true `classes` [N]; N at least 2."""
    if len(classes) < 2 or len(probabilities) != len(classes):
        raise ConfigError(
            f"a calibration needs at least 2 predictions with a true class each, got {len(probabilities)} "
            f"and {len(classes)}."
        )
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == classes).astype(np.float64)
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    above = np.bincount(places, right - confidence, BINS)  # summed over the bin
    error = from_influences(
        NAME,
        float(np.abs(above).sum() / len(classes)),
        [np.sign(above)[places] * (right - confidence)],
        sizes,
        bootstrap,
        at_least=0.0,
        at_most=1.0,
    )
    return Calibration(
        error=error,
        bins=tuple(
            Bin(
                low=place / BINS,
                high=(place + 1) / BINS,
                count=int(counts[place]),
                confidence=float(confidence[places == place].mean()) if counts[place] else None,
                accuracy=float(right[places == place].mean()) if counts[place] else None,
            )
            for place in range(BINS)
        ),
    )
