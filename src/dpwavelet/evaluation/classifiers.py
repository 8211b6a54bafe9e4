"""Training a classifier and calibrating it, whatever kind it is, with nothing but its training set.

A fifth of every class is held out of the training set. The learner may choose by it, and one temperature is
fitted on it (Guo et al. 2017): scores are divided by the temperature that makes the held-out classes
likeliest. Test pictures are never seen before they are scored. Classes that the training set lacks are never
predicted.

Letters: N examples, K classes, k of them known to a classifier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream

Inputs = NDArray[np.number] | Tensor
"""What a learner takes, an example a row: feature rows [N, D], or images [N, 3, S, S]."""

Classes = NDArray[np.int64]
Scores = Callable[[Inputs], NDArray[np.float64]]
"""A trained function from inputs to one score [N, k] for each known class."""

HELD_OUT = 0.2
COLDEST, HOTTEST = 1 / 20, 20.0  # no temperature lies outside


@dataclass(frozen=True, eq=False)
class Part:
    """Examples and the number of each one's class."""

    inputs: Inputs
    classes: Classes

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.classes):
            raise ConfigError(
                f"{len(self.inputs)} examples have {len(self.classes)} classes; give one for each."
            )

    def take(self, chosen: NDArray[np.int64]) -> "Part":
        """Some of them, in this order."""
        return Part(self.inputs[chosen], self.classes[chosen])


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples and the name of each one's class, as they come from outside."""

    inputs: Inputs
    labels: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or not len(self.labels):
            raise ConfigError(
                f"{len(self.inputs)} examples have {len(self.labels)} labels; "
                "give one for each of one example or more."
            )

    def part(self, names: Sequence[str]) -> Part:
        """The same with numbers: places in `names`, which holds every label."""
        numbers = {name: number for number, name in enumerate(names)}
        return Part(self.inputs, np.array([numbers[label] for label in self.labels], np.int64))


class Learner(Protocol):
    """A way to learn: settings, and no state."""

    name: ClassVar[str]

    def learn(self, part: Part, held_out: Part, count: int, seed: int) -> Scores:
        """Learn `count` classes, each of which occurs in `part`; choose by `held_out`, which may be empty."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained and calibrated one, over all K classes."""

    scores: Scores
    known: Classes  # [k], the classes that it was trained on
    count: int  # K
    temperature: float  # 1 where nothing was held out

    def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
        """[N, K]; rows add up to 1, and classes that are not known have 0."""
        return self._spread(softmax(self.scores(inputs) / self.temperature))

    def both(self, inputs: Inputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities [N, K] before the temperature and after it, for the price of one."""
        scores = self.scores(inputs)
        return self._spread(softmax(scores)), self._spread(softmax(scores / self.temperature))

    def _spread(self, known: NDArray[np.float64]) -> NDArray[np.float64]:
        every = np.zeros((len(known), self.count))
        every[:, self.known] = known
        return every


def train(learner: Learner, part: Part, count: int, seed: int) -> Classifier:
    """Learn classes 0 ... `count`-1 from `part`; the same seed gives the same classifier."""
    if not len(part.classes):
        raise ConfigError("a classifier needs at least one example to learn from, got none.")
    known, own = np.unique(part.classes, return_inverse=True)
    part = Part(part.inputs, own.astype(np.int64))
    kept, aside = split(part.classes, seed)
    held_out = part.take(aside)
    scores = learner.learn(part.take(kept), held_out, len(known), seed)
    found = temperature(scores(held_out.inputs), held_out.classes) if len(aside) else 1.0
    return Classifier(scores, known.astype(np.int64), count, found)


def split(classes: Classes, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places to learn from and places held out: of every class a fifth, rounded down."""
    random = stream(seed, "held-out part of a training set")
    order = random.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]  # by class, at random within
    _, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
    aside = [
        order[start : start + int(count * HELD_OUT)] for start, count in zip(starts, counts, strict=True)
    ]
    held_out = np.sort(np.concatenate([*aside, np.empty(0, np.int64)]))
    return np.setdiff1d(np.arange(len(classes)), held_out), held_out


def temperature(scores: NDArray[np.float64], classes: Classes) -> float:
    """What to divide scores [N, k] by, so that the true classes are likeliest; within bounds.

    The slope of the mean log-likelihood by 1 / temperature falls, so halving an interval finds its zero.
    """
    true = scores[np.arange(len(scores)), classes]
    low, high = 1 / HOTTEST, 1 / COLDEST  # of 1 / temperature
    for _ in range(60):
        middle = (low * high) ** 0.5
        expected = (softmax(middle * scores) * scores).sum(1)
        if (true - expected).mean() > 0:
            low = middle
        else:
            high = middle
    return float(1 / (low * high) ** 0.5)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores [N, k] as probabilities."""
    raised = np.exp(scores - scores.max(1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return shares
