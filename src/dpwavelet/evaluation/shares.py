"""Shares: how often something holds over pictures, in all or class by class, and how sure that is.

Closed forms and no bootstrap: drawn again, hits without a single miss would look certain. The interval of
a share is Wilson's (1927). In an average over classes each class gets one hit and one miss more before its
spread is taken, so a class that was always right still has some.

Letters: N pictures, K classes.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Measured

Hits = NDArray[np.bool_]
Classes = NDArray[np.int64]


def share(name: str, hits: Hits, sizes: tuple[int, int], confidence: float = 0.95) -> Measured:
    """The share of N hits that are true, with Wilson's interval; N at least 1."""
    n = len(hits)
    if n < 1:
        raise ConfigError(f"{name} needs at least one picture, got none.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = float(hits.mean())
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Measured(
        name=name,
        value=p,
        error=math.sqrt(p * (1 - p) / n),
        interval=(max(0.0, min(p, middle - reach)), min(1.0, max(p, middle + reach))),
        confidence=confidence,
        sizes=sizes,
    )


def balanced(
    name: str, hits: Hits, classes: Classes, sizes: tuple[int, int], confidence: float = 0.95
) -> Measured:
    """The mean of the share of hits within each class that occurs; every class counts the same."""
    if len(hits) < 1 or len(hits) != len(classes):
        raise ConfigError(f"{name} needs a class for each of one or more pictures, got {len(classes)}.")
    _, places, counts = np.unique(classes, return_inverse=True, return_counts=True)
    right = np.bincount(places, hits, len(counts))  # [K]
    likely = (right + 1) / (counts + 2)
    value = float((right / counts).mean())
    error = math.sqrt(float((likely * (1 - likely) / counts).sum())) / len(counts)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Measured(
        name=name,
        value=value,
        error=error,
        interval=(max(0.0, value - reach), min(1.0, value + reach)),
        confidence=confidence,
        sizes=sizes,
    )
