"""Numbers about two sets of images, each with how sure it is and beside what a perfect generator would reach.

    by = extractor("thumb")
    found = evaluate(Pictures.open("real", by.side), Pictures.open("generated", by.side), by)
    print(found.distance, found.reference)

From rows of features, whatever made them: `statistics` adds rows up; `frechet`, `kernel` and `neighbours`
compare two sets; `intervals` tells how far a number would move with another draw; `compare` puts real against
real beside it. From images: `extractors` make rows, `sets` walks images, `folders` does it all. A formula
names its numbers by the formula, and a comparison adds the features: the same formula by two networks gives
two numbers.

What is computed from private records is private, these numbers included.
"""

from dpwavelet.evaluation.compare import Comparison, ComparisonSettings, compare
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.folders import evaluate
from dpwavelet.evaluation.frechet import TooFewRowsError, frechet_between, frechet_distance
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.kernel import Groups, kernel_distance
from dpwavelet.evaluation.neighbours import Neighbourhoods, neighbourhoods
from dpwavelet.evaluation.rows import disjoint
from dpwavelet.evaluation.scores import Scores
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.spaces import Extractor, FeatureSpace
from dpwavelet.evaluation.statistics import Statistics, cached

__all__ = [
    "Bootstrap",
    "Comparison",
    "ComparisonSettings",
    "Extractor",
    "FeatureSpace",
    "Groups",
    "Measured",
    "Neighbourhoods",
    "Pictures",
    "Scores",
    "Statistics",
    "TooFewRowsError",
    "cached",
    "compare",
    "disjoint",
    "evaluate",
    "extractor",
    "frechet_between",
    "frechet_distance",
    "kernel_distance",
    "neighbourhoods",
    "rows_of",
]
