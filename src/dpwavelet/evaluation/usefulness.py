"""What synthetic images are good for: learn from them, and be tested on real ones.

A learner is trained on synthetic images with their labels, and again on the same number of real ones. Both
classifiers are tested on real images that neither has seen, so the second is what a perfect generator would
reach. Everything fitted, penalty and temperature, is fitted on the training set of each. Intervals are for
other test images; another draw of training images would move the numbers too.

What is computed from private records is private, these results included.

Letters: N tested images, K classes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.calibration import Calibration, calibration
from dpwavelet.evaluation.classifiers import Labelled, Learner, Part, train
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.rows import disjoint
from dpwavelet.evaluation.shares import balanced, share


@dataclass(frozen=True, kw_only=True)
class OfClass:
    """How one class fared."""

    name: str
    trained: int  # images of it that were learned from
    tested: int
    accuracy: Measured | None  # of the tested ones; nothing if there are none


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One classifier on the real test images."""

    trained: int  # images that it learned from
    missing: tuple[str, ...]  # tested classes that it never saw; it is wrong about all of them
    accuracy: Measured
    balanced: Measured  # every tested class counts the same
    classes: tuple[OfClass, ...]
    temperature: float  # fitted on a held-out part of the training set; above 1, it was too sure
    calibration: Calibration  # with that temperature
    uncalibrated: Measured  # calibration error without it
    confusion: tuple[tuple[int, ...], ...]  # [K, K], a row for each true class, a column for each chosen one


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """Trained on synthetic beside trained on real; sizes in the numbers are tested and learned from."""

    learner: str
    seed: int
    guessing: float  # the share of the most common tested class: what needs no picture
    synthetic: Tested
    real: Tested
    difference: Measured  # accuracy by synthetic less accuracy by real, on the same images

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def usefulness(
    learner: Learner,
    synthetic: Labelled,
    real: Labelled,
    tested: Labelled,
    *,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Usefulness:
    """Train `learner` on `synthetic` and on `real`, as many of each as the smaller has, and test both."""
    if len(tested.labels) < 2:
        raise ConfigError(f"a test needs at least 2 images, got {len(tested.labels)}.")
    bootstrap = bootstrap or Bootstrap()
    names = tuple(sorted({*synthetic.labels, *real.labels, *tested.labels}))
    number = min(len(synthetic.labels), len(real.labels))
    test = tested.part(names)
    results, hits = [], []
    for labelled in (synthetic, real):
        part = labelled.part(names)
        chosen = disjoint(len(part.classes), (number,), seed)[0]
        found, right = _tested(learner, part.take(chosen), test, names, seed, bootstrap)
        results.append(found)
        hits.append(right.astype(np.float64))
    more = hits[0] - hits[1]
    return Usefulness(
        learner=learner.name,
        seed=seed,
        guessing=float(np.bincount(test.classes).max() / len(test.classes)),
        synthetic=results[0],
        real=results[1],
        difference=from_influences(
            "difference of accuracy",
            float(more.mean()),
            [more],
            (len(more), number),
            bootstrap,
            at_least=-1.0,
            at_most=1.0,
        ),
    )


def _tested(
    learner: Learner, part: Part, test: Part, names: tuple[str, ...], seed: int, bootstrap: Bootstrap
) -> tuple[Tested, NDArray[np.bool_]]:
    """Train on `part`, and say how it fares on `test`, and on which of its images it is right."""
    classifier = train(learner, part, len(names), seed)
    before, after = classifier.both(test.inputs)
    chosen = after.argmax(1)
    right = chosen == test.classes
    sizes = (len(right), len(part.classes))
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (test.classes, chosen), 1)
    known = set(classifier.known.tolist())
    return Tested(
        trained=len(part.classes),
        missing=tuple(names[k] for k in np.unique(test.classes) if k not in known),
        accuracy=share("accuracy", right, sizes, bootstrap.confidence),
        balanced=balanced("balanced accuracy", right, test.classes, sizes, bootstrap.confidence),
        classes=tuple(_of_class(k, name, part, test, right, bootstrap) for k, name in enumerate(names)),
        temperature=classifier.temperature,
        calibration=calibration(after, test.classes, sizes, bootstrap),
        uncalibrated=calibration(before, test.classes, sizes, bootstrap).error,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    ), right


def _of_class(
    k: int, name: str, part: Part, test: Part, right: NDArray[np.bool_], bootstrap: Bootstrap
) -> OfClass:
    own = right[test.classes == k]
    trained = int((part.classes == k).sum())
    sizes = (len(own), trained)
    accuracy = share(f"accuracy of {name}", own, sizes, bootstrap.confidence) if len(own) else None
    return OfClass(name=name, trained=trained, tested=len(own), accuracy=accuracy)
