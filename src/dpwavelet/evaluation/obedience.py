"""Whether generated pictures show what their captions say, judged by probes that learned it from real ones.

Linear probes on feature rows learn from one part of the real images that the generator has never seen; the
other part, with its own captions, is what can be reached. Beside both stands chance: what pictures that look
as the generated ones do would score if their captions were dealt out at random. A probe may be wrong about a
picture that is right, so read a score between its chance and its real value, and not as a share of obedience.

Letters: N pictures, D features, T attributes, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.attributes import Answers, answers, candidates, distinct
from dpwavelet.evaluation.classifiers import Classes, Labelled, train
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.probe import LinearProbe, Probe, fit_probe
from dpwavelet.evaluation.rows import Features, Rows, checked_pair, disjoint
from dpwavelet.evaluation.shares import balanced, share

PENALTY = 0.3  # of the probe of an attribute
FEWEST = 10  # real images of either answer, in every part of the real ones
SURE = 0.99  # that an attribute can be told at all
ATTRIBUTES = 20


@dataclass(frozen=True, kw_only=True)
class Obeyed:
    """One thing that captions ask for."""

    name: str
    asked: int  # how many captions of generated pictures ask for it
    generated: Measured
    real: Measured | None  # the same score of real pictures with their own captions; nothing if none has it
    chance: float


@dataclass(frozen=True, kw_only=True)
class Obedience:
    """All that is asked for in one way, and the average; sizes are real pictures and generated ones."""

    score: str  # what each number is
    parts: tuple[Obeyed, ...]
    generated: Measured
    real: Measured | None
    chance: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def class_obedience(
    real: Labelled, generated: Labelled, *, seed: int = 0, confidence: float = 0.95
) -> Obedience:
    """How often pictures asked to be of a class are found to be, by a probe of half of the real rows.

    Labels of generated pictures are those that they were asked for. A part is the share found within a class,
    and the average counts every class the same. A class that real images lack is never found.
    """
    checked_pair(real.inputs, generated.inputs)
    names = sorted({*real.labels, *generated.labels})
    known, asked = real.part(names), generated.part(names)
    if len(known.classes) < 2:
        raise ConfigError(
            f"half of the real images train a probe, so at least 2 are needed, got {len(known.classes)}."
        )
    learn, judge = disjoint(len(known.classes), _halves(len(known.classes)), seed)
    probe = train(LinearProbe(), known.take(learn), len(names), seed)
    reference = known.take(judge)
    found, found_real = (probe.probabilities(part.inputs).argmax(1) for part in (asked, reference))
    hits, hits_real = found == asked.classes, found_real == reference.classes
    sizes = (len(judge), len(hits))
    parts = []
    for k in np.unique(asked.classes).tolist():
        own, own_real = asked.classes == k, reference.classes == k
        parts.append(
            Obeyed(
                name=names[k],
                asked=int(own.sum()),
                generated=share(names[k], hits[own], sizes, confidence),
                real=share(names[k], hits_real[own_real], sizes, confidence) if own_real.any() else None,
                chance=float((found == k).mean()),
            )
        )
    shared = np.isin(reference.classes, asked.classes)
    name = "balanced accuracy"
    return Obedience(
        score=name,
        parts=tuple(parts),
        generated=balanced(name, hits, asked.classes, sizes, confidence),
        real=balanced(name, hits_real[shared], reference.classes[shared], sizes, confidence)
        if shared.any()
        else None,
        chance=float(np.mean([part.chance for part in parts])),
    )


def attribute_obedience(
    real_rows: Features,
    real_captions: Sequence[str],
    generated_rows: Features,
    generated_captions: Sequence[str],
    *,
    most: int = ATTRIBUTES,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Obedience | None:
    """How often probes find in pictures what their captions say, attribute by attribute; chance is a half.

    Real images are split three ways: half train a probe for each candidate of `attributes`, a quarter chooses
    up to `most` that are told better than by chance, and the last quarter is the reference. Scores are
    balanced accuracies: the mean of how often yes and how often no is found. An attribute that fewer than two
    generated captions have, or lack, is left out. Nothing is left, and nothing returned, where rows tell of
    no word that captions share.
    """
    bootstrap = bootstrap or Bootstrap()
    real, generated = checked_pair(real_rows, generated_rows)
    if len(real) != len(real_captions) or len(generated) != len(generated_captions):
        raise ConfigError(
            f"{len(real)} real and {len(generated)} generated rows have {len(real_captions)} and "
            f"{len(generated_captions)} captions; give one for each."
        )
    learn, choose, judge = _quarters(len(real), seed)
    names = candidates(real_captions)
    table, asked = answers(real_captions, names), answers(generated_captions, names)
    usable = [k for k in range(len(names)) if _enough(table[:, k], asked[:, k], (learn, choose, judge))]
    probes = {k: _probe(real[learn], table[learn, k]) for k in usable}
    kept = distinct(_told(probes, real[choose], table[choose]), table, most)
    if not kept:
        return None
    chosen = [probes[k] for k in kept]
    return _judged(
        [names[k] for k in kept],
        _Answered(asked[:, kept], _hits(chosen, generated, asked[:, kept])),
        _Answered(table[judge][:, kept], _hits(chosen, real[judge], table[judge][:, kept])),
        bootstrap,
    )


@dataclass(frozen=True, eq=False)
class _Answered:
    """What captions said [N, T], and whether probes found that in their pictures [N, T]."""

    said: Answers
    hits: Answers

    def of(self, place: int, name: str, sizes: tuple[int, int], confidence: float) -> Measured:
        """The balanced accuracy of one attribute."""
        return balanced(name, self.hits[:, place], self.said[:, place].astype(np.int64), sizes, confidence)

    def mean(self, name: str, sizes: tuple[int, int], bootstrap: Bootstrap) -> Measured:
        """The mean over attributes; a picture is drawn with all its attributes at once."""
        value = 0.0
        influences: NDArray[np.float64] = np.zeros(len(self.hits))
        for answer in (self.said, ~self.said):
            counts = answer.sum(0)
            each = (self.hits & answer).sum(0) / counts  # [T]
            value += float(each.mean()) / 2
            influences += ((self.hits - each) * answer * (len(answer) / counts)).mean(1) / 2
        return from_influences(name, value, [influences], sizes, bootstrap, at_least=0.0, at_most=1.0)


def _judged(names: Sequence[str], generated: _Answered, real: _Answered, bootstrap: Bootstrap) -> Obedience:
    sizes = (len(real.said), len(generated.said))
    mean = "mean balanced accuracy"
    return Obedience(
        score=mean,
        parts=tuple(
            Obeyed(
                name=name,
                asked=int(generated.said[:, place].sum()),
                generated=generated.of(place, name, sizes, bootstrap.confidence),
                real=real.of(place, name, sizes, bootstrap.confidence),
                chance=0.5,
            )
            for place, name in enumerate(names)
        ),
        generated=generated.mean(mean, sizes, bootstrap),
        real=real.mean(mean, sizes, bootstrap),
        chance=0.5,
    )


def _quarters(count: int, seed: int) -> tuple[Classes, Classes, Classes]:
    """Places of a half and of two quarters."""
    learn, rest = _halves(count)
    first, second, third = disjoint(count, (learn, *_halves(rest)), seed)
    return first, second, third


def _halves(count: int) -> tuple[int, int]:
    return count - count // 2, count // 2


def _enough(real: Answers, generated: Answers, parts: Sequence[Classes]) -> bool:
    """Whether both answers occur often enough to learn, to choose, to judge and to score."""
    fewest = min(min(int(real[part].sum()), int((~real[part]).sum())) for part in parts)
    return fewest >= FEWEST and 2 <= int(generated.sum()) <= len(generated) - 2


def _probe(rows: Rows, said: Answers) -> Probe:
    return fit_probe(rows, said.astype(np.int64), 2, penalty=PENALTY, even=True)


def _told(probes: dict[int, Probe], rows: Rows, table: Answers) -> list[int]:
    """Attributes that are surely told better than by chance, the surest first."""
    least = {}
    for k, probe in probes.items():
        hits = _hits([probe], rows, table[:, [k]])[:, 0]
        least[k] = balanced("", hits, table[:, k].astype(np.int64), (0, 0), SURE).interval[0]
    return sorted((k for k in least if least[k] > 0.5), key=lambda k: (-least[k], k))


def _hits(probes: Sequence[Probe], rows: Rows, said: Answers) -> Answers:
    """Whether each probe finds [N, T] what was said."""
    found = np.stack([probe(rows).argmax(1) == 1 for probe in probes], 1)
    hits: Answers = found == said
    return hits
