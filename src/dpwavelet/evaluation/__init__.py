"""Numbers about two sets of images, each with how sure it is and beside what a perfect generator would reach.

    by = extractor("thumb")
    found = evaluate(Pictures.open("real", by.side), Pictures.open("generated", by.side), by)
    print(found.distance, found.reference)

From rows of features, whatever made them: `statistics` adds rows up; `frechet`, `kernel` and `neighbours`
compare two sets; `intervals` tells how far a number would move with another draw; `compare` puts real against
real beside it. From images: `extractors` make rows, `sets` walks images, `folders` does it all. With captions
or classes: `perceptual`, `obedience`, `tones`, `usefulness`. A formula names its numbers by the formula, and
a comparison adds the features: the same formula by two networks gives two numbers.

What is computed from private records is private, these numbers included.
"""

from dpwavelet.evaluation.classifiers import Labelled
from dpwavelet.evaluation.clip_score import clip_from_folder, clip_score
from dpwavelet.evaluation.compare import Comparison, ComparisonSettings, compare
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.folders import evaluate
from dpwavelet.evaluation.frechet import TooFewRowsError, frechet_between, frechet_distance
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.kernel import Groups, kernel_distance
from dpwavelet.evaluation.lpips import lpips_distance
from dpwavelet.evaluation.neighbours import Neighbourhoods, neighbourhoods
from dpwavelet.evaluation.obedience import Obedience, attribute_obedience, class_obedience
from dpwavelet.evaluation.perceptual import PerceptualPairs, by_network, perceptual_pairs
from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.evaluation.probe import LinearProbe
from dpwavelet.evaluation.rows import disjoint
from dpwavelet.evaluation.scores import Scores
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.small_cnn import SmallCnn
from dpwavelet.evaluation.spaces import Extractor, FeatureSpace
from dpwavelet.evaluation.statistics import Statistics, cached
from dpwavelet.evaluation.tones import tone_obedience
from dpwavelet.evaluation.usefulness import Usefulness, usefulness

__all__ = [
    "Bootstrap",
    "Comparison",
    "ComparisonSettings",
    "Extractor",
    "FeatureSpace",
    "Groups",
    "Labelled",
    "LinearProbe",
    "Measured",
    "Neighbourhoods",
    "Obedience",
    "PerceptualPairs",
    "Pictures",
    "PrivateScore",
    "Scores",
    "SmallCnn",
    "Statistics",
    "TooFewRowsError",
    "Usefulness",
    "attribute_obedience",
    "by_network",
    "cached",
    "class_obedience",
    "clip_from_folder",
    "clip_score",
    "compare",
    "disjoint",
    "evaluate",
    "extractor",
    "frechet_between",
    "frechet_distance",
    "kernel_distance",
    "lpips_distance",
    "neighbourhoods",
    "perceptual_pairs",
    "rows_of",
    "tone_obedience",
    "usefulness",
]
