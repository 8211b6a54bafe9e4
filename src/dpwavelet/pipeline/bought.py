"""Numbers about the records that the owner publishes, bought with a part of the budget.

    fd         how far generated pictures are from the records, as a Fréchet distance
    accuracy   how often a classifier that learned from generated pictures alone is right about a record

What is measured of each record is one bounded vector. All vectors are added up, noise goes onto the sum once,
through the plan, and everything after that is post-processing. The classifier and the frame of the distance
come from generated pictures, so they cost nothing.

Letters: M records, D features, K classes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.evaluation.classifiers import Classifier, Part, train
from dpwavelet.evaluation.moments import COLUMNS, Frame, noisy_frechet
from dpwavelet.evaluation.probe import LinearProbe
from dpwavelet.pipeline.kept import keep, kept, sum_of_tensors, sum_to_tensors
from dpwavelet.privacy.bounded_sums import NAME, bounded_sum
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source

METRICS = ("fd", "accuracy")
BOUGHT = 0  # their place among `plan.others`
CLEAR = 5.0  # noisy counts below so many standard deviations say nothing
CHOSEN = "; they were chosen by the same features, which flatters it"
NO_CLASS = -1
FEWEST_OF_A_CLASS = 2  # generated pictures
DRAWN = 400  # pictures to measure by: a constant, for what is bought depends on them

Rows = NDArray[np.float32]
Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Generated:
    """Rows [B, D] of generated pictures, and the class that each was drawn for; differentially private."""

    rows: Rows
    classes: Classes


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """The same of records [M], and whose each is where people are the units. Private; its repr shows none."""

    rows: Rows
    classes: Classes
    owners: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """What a purchase is made of: the exact sum over records, and the pictures that it is read by. Private.

    It is written down before the noise is made, and a run that is resumed reads it: so there is one sum for
    one noise, whatever changes between the two.
    """

    generated: Generated
    total: ClippedSum

    def save(self, path: Path, run: str) -> None:
        """Write to a safetensors file below `private/`."""
        drawn = self.generated
        rows = {"rows": torch.from_numpy(drawn.rows), "classes": torch.from_numpy(drawn.classes)}
        keep(path, run, rows | sum_to_tensors(self.total))

    @classmethod
    def load(cls, path: Path, run: str) -> "Prepared":
        """Read what `save` wrote for this run."""
        tensors = kept(path, run)
        drawn = Generated(tensors["rows"].numpy(), tensors["classes"].numpy())
        return cls(drawn, sum_of_tensors(tensors))


@dataclass(frozen=True, kw_only=True)
class Bought:
    """One number that may be published; `value` is nothing where the noise leaves nothing to tell."""

    metric: str
    name: str
    value: float | None
    noise: float  # one standard deviation of what the noise moves it by
    words: str


def check_metrics(metrics: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse names that are no metrics, and an accuracy without public names of classes."""
    if wrong := [name for name in metrics if name not in METRICS]:
        raise ConfigError(f"a metric to release is one of {', '.join(METRICS)}, got {wrong[0]!r}.")
    if "accuracy" in metrics and len(set(classes)) < 2:
        raise ConfigError(
            "an accuracy needs at least two classes, named by you because names that come from the records "
            "would not be public; give --classes cat,dog."
        )


def class_of(text: str, classes: Sequence[str]) -> int:
    """Which class a text names: the one whose words occur in it, or NO_CLASS if none or several do."""
    words = _words(text)
    found = [place for place, name in enumerate(classes) if _words(name) in words]
    return found[0] if len(found) == 1 else NO_CLASS


def classes_of(texts: Sequence[str], classes: Sequence[str]) -> Classes:
    """The class that each text names."""
    return np.array([class_of(text, classes) for text in texts], np.int64)


def whose(names: Sequence[str]) -> NDArray[np.int64]:
    """Whose each record is, as numbers; equal names are one person."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def check_captions(classes: Sequence[str], captions: Sequence[str]) -> None:
    """Refuse classes of which one is named by no caption alone: nothing would be drawn to learn it from."""
    named = set(classes_of(captions, classes).tolist())
    if missing := [name for place, name in enumerate(classes) if place not in named]:
        raise ConfigError(
            f"no caption to draw with names the class {missing[0]!r} alone, so nothing could learn it; add "
            "one to --captions, or leave the class out of --classes."
        )


def prepare(
    metrics: Sequence[str], classes: Sequence[str], generated: Generated, records: Measured, seed: int
) -> Prepared:
    """Measure every record, and add up: nothing of it may be seen before `buy` adds noise.

    Guarantee: one unit moves the sum by at most its sensitivity. What a record brings is a function of that
    record, of generated pictures and of public names, to the last bit.
    """
    check_metrics(metrics, classes)
    vectors, squares = [np.empty((len(records.rows), 0))], 0.0
    if "accuracy" in metrics:
        known = records.classes != NO_CLASS
        guesses = _guesses(_classifier(generated, classes, seed), records.rows)
        vectors.append(np.stack([known, known & (guesses == records.classes)], 1).astype(np.float64))
        squares += 2.0
    if "fd" in metrics:
        frame = Frame.around(generated.rows)
        vectors.append(frame.vectors(records.rows))
        squares += frame.bound**2
    return Prepared(generated, bounded_sum(np.hstack(vectors), math.sqrt(squares), records.owners))


def buy(
    metrics: Sequence[str],
    classes: Sequence[str],
    prepared: Prepared,
    plan: PrivacyPlan,
    source: Source,
    seed: int,
    *,
    chosen: bool = False,
) -> list[Bought]:
    """Add noise to the sum once, and read the metrics off what is noisy.

    `chosen` says that the pictures were chosen by a likeness, which flatters a distance.

    Guarantee: what is returned is a function of generated pictures and of one noisy sum, for which
    `plan.others[BOUGHT]` pays. The plan makes that noise once.
    """
    total, generated = prepared.total, prepared.generated.rows
    bound = total.sensitivity
    noisy = plan.privatize_sum(total, source, sensitivity=bound, other=BOUGHT)[NAME].numpy()
    deviation = bound * plan.others[BOUGHT].noise_multiplier
    found = []
    if "accuracy" in metrics:
        found.append(_accuracy(float(noisy[0]), float(noisy[1]), deviation, len(classes)))
        noisy = noisy[2:]
    if "fd" in metrics:
        distance = _distance(noisy, deviation, generated, Frame.around(generated), plan.unit, seed)
        found.append(replace(distance, words=distance.words + CHOSEN) if chosen else distance)
    return sorted(found, key=lambda one: METRICS.index(one.metric))


def keep_numbers(path: Path, run: str, found: Sequence[Bought]) -> None:
    """Write down what `run` bought."""
    write_json(path, {"run": run, "bought": to_json(found)})


def kept_numbers(path: Path, run: str) -> list[Bought] | None:
    """What `run` bought, as `keep_numbers` wrote it, or nothing."""
    if not path.is_file():
        return None
    told = read_json(path)
    if told["run"] != run:
        raise PrivacyError(f"{path} is of another run; restore the file of this one.")
    return [Bought(**one) for one in told["bought"]]


def to_json(found: Sequence[Bought]) -> list[dict[str, Any]]:
    """As the certificate says it."""
    return [asdict(one) for one in found]


def _guesses(classifier: Classifier, rows: Rows) -> Classes:
    """The class that each row is taken for, one row at a time.

    A product of many rows at once rounds each by how many there are, and a tie may then be broken by another
    record: the vector of a record must depend on that record alone.
    """
    return np.array([int(classifier.probabilities(row[None]).argmax()) for row in rows], np.int64)


def _words(text: str) -> str:
    return " " + " ".join(re.findall(r"[^\W_]+", text.lower())) + " "


def _classifier(generated: Generated, classes: Sequence[str], seed: int) -> Classifier:
    counts = np.bincount(generated.classes[generated.classes != NO_CLASS], minlength=len(classes))
    if counts.min() < FEWEST_OF_A_CLASS:
        raise ConfigError(
            f"no or too few generated pictures are of class {classes[int(counts.argmin())]!r}; every class "
            "must be named by some caption of --captions, alone."
        )
    used = generated.classes != NO_CLASS
    return train(LinearProbe(), Part(generated.rows[used], generated.classes[used]), len(classes), seed)


def _accuracy(known: float, right: float, deviation: float, classes: int) -> Bought:
    clear = known > CLEAR * deviation
    share = min(max(right / known, 0.0), 1.0) if clear else None
    noise = deviation * math.sqrt(1 + (share or 0.0) ** 2) / max(known, deviation)
    words = (
        f"a linear classifier that learned {classes} classes from generated pictures alone, on the records"
        if clear
        else "too few records name one of the classes for this noise"
    )
    return Bought(metric="accuracy", name="Accuracy on the records", value=share, noise=noise, words=words)


def _distance(
    total: NDArray[np.float64], deviation: float, generated: Rows, frame: Frame, unit: str, seed: int
) -> Bought:
    found = noisy_frechet(total, deviation, generated, frame, seed)
    enough = total[0] > CLEAR * deviation
    if not enough:
        words = f"too few {unit}s for this noise"
    elif not found.clear:
        words = "the noise is too large for a distance: how far off it is cannot be told"
    else:
        words = (
            f"Fréchet distance of {len(generated)} generated pictures to the records, by the first {COLUMNS} "
            "features of the bundled public network"
        )
    return Bought(
        metric="fd",
        name=f"FD-thumb-{COLUMNS} to the records",
        value=found.value if enough and found.clear else None,
        noise=found.noise,
        words=words,
    )
