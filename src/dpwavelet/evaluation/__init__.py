"""Numbers about two sets of images, each with how sure it is; here on feature rows, whatever made them.

`statistics` adds rows up; `frechet`, `kernel` and `neighbours` compare two sets; `intervals` tells how far a
number would move with another draw. A number is named by its formula. Whoever computed the features adds the
name of the network, because the same formula by two networks gives two numbers.

What is computed from private records is private, these numbers included.
"""

from dpwavelet.evaluation.frechet import TooFewRowsError, frechet_between, frechet_distance
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.kernel import Groups, kernel_distance
from dpwavelet.evaluation.neighbours import Neighbourhoods, neighbourhoods
from dpwavelet.evaluation.rows import disjoint
from dpwavelet.evaluation.statistics import Statistics, cached

__all__ = [
    "Bootstrap",
    "Groups",
    "Measured",
    "Neighbourhoods",
    "Statistics",
    "TooFewRowsError",
    "cached",
    "disjoint",
    "frechet_between",
    "frechet_distance",
    "kernel_distance",
    "neighbourhoods",
]
