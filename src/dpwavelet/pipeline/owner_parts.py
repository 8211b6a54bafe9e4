"""The parts of the owner's page that compare pictures with records.

Every number here is sealed in a `PrivateScore` before it meets a page, or marked private by its block.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.evaluation.attributes import answers, candidates
from dpwavelet.evaluation.classifiers import Labelled, train
from dpwavelet.evaluation.compare import Comparison, ComparisonSettings, compare
from dpwavelet.evaluation.intervals import Measured
from dpwavelet.evaluation.obedience import Obedience, attribute_obedience, class_obedience
from dpwavelet.evaluation.perceptual import by_network, perceptual_pairs
from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.evaluation.probe import LinearProbe, fit_probe
from dpwavelet.evaluation.small_cnn import SmallCnn
from dpwavelet.evaluation.tones import tone_obedience
from dpwavelet.evaluation.usefulness import Tested, Usefulness, usefulness
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.files import decode
from dpwavelet.images.sheet import from_bytes, png
from dpwavelet.pipeline.judgement import Evidence, Rows
from dpwavelet.pipeline.release import METADATA, SAMPLES, Samples, tone
from dpwavelet.pipeline.settings import FEWEST
from dpwavelet.report import Mark, Missing, Near, PrivateOrigin, Scored, Words
from dpwavelet.report.blocks import Block
from dpwavelet.report.measured import AnyOrigin, balance, calibration, measure, nearness, score_table

Blocks = list[Block[AnyOrigin]]
Places = NDArray[np.int64]

COMPARED = 2000  # records in a comparison of sets; the others serve real against real
PENALTY = 0.1  # of the probe of a word
SHOWN = 12  # samples beside their nearest record
MOST_SHOWN = 16  # classes or words in a chart
ALL_DRAWN_FOR = (
    "Pictures were drawn for nearly all records, so none are left for probes and classifiers to learn from "
    "or be tried on. `dpwavelet report` with a smaller --judge shows them."
)
OURS, PUBLIC = "this release", "public model without your data"


@dataclass(frozen=True)
class Released:
    """The samples of a release: captions, and pictures as bytes [B, 3, S, S]."""

    captions: Sequence[str]
    pictures: Tensor

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Those that were just drawn."""
        return cls(samples.captions, samples.full)

    @classmethod
    def read(cls, release: Path, side: int) -> Self:
        """Those that lie in a release."""
        folder = release / SAMPLES
        if not folder.is_dir():
            return cls((), torch.zeros(0, 3, side, side, dtype=torch.uint8))
        lines = (folder / METADATA).read_text(encoding="utf-8").split("\n")
        told = [json.loads(line) for line in lines if line]
        names = [f"{index:06d}.png" for index in range(len(told))]
        pictures = [decode((folder / name).read_bytes(), side, name) for name in names]
        return cls([str(line["text"]) for line in told], torch.stack(pictures))


# Distances between sets


def _distances(here: Evidence) -> Blocks:
    coarse_records = here.rows(here.coarse_real)
    settings = ComparisonSettings(at_most=max(COMPARED, len(here.places)))
    finished = {
        name: compare(here.records, here.rows(one.full), here.space, settings)
        for name, one in ((OURS, here.ours), (PUBLIC, here.public))
    }
    coarse = {
        name: compare(coarse_records, here.rows(here.coarse_of(one)), here.space, settings)
        for name, one in ((OURS, here.ours), (PUBLIC, here.public))
    }
    return [
        *_compared("Finished pictures", finished),
        *_compared("Coarse pictures, enlarged, and coarse bands of records, enlarged too", coarse),
    ]


def _compared(title: str, found: Mapping[str, Comparison]) -> Blocks:
    """A chart for each formula: this release, the public model alone, and two sets of records."""
    (ours, _) = found.values()
    blocks: Blocks = []
    for formula in ("frechet", "kernel", "precision", "recall", "density", "coverage"):
        rows = {name: getattr(one.fair, formula) for name, one in found.items()}
        rows["one set of records and another"] = getattr(ours.reference, formula, None)
        marks = (Mark.OURS, Mark.OTHER, Mark.REFERENCE)
        scored = [
            _scored(name, one, mark)
            for (name, one), mark in zip(rows.items(), marks, strict=True)
            if one is not None
        ]
        if scored:
            name = next(one.name for one in rows.values() if one is not None)
            blocks.append(measure(f"{title}: {name}", scored))
    notes = dict.fromkeys(note for one in found.values() for note in one.notes)
    return [*blocks, *(Words(text=note, origin=PrivateOrigin.PRIVATE) for note in notes)]


# Picture by picture


def _perceptual(here: Evidence) -> Blocks:
    distance = by_network(FeatureNetwork.from_pretrained())
    ours, public = (
        perceptual_pairs(distance, here.real, one.full, here.smaller(one), wavelet=here.wavelet)
        for one in (here.ours, here.public)
    )
    rows = [
        _scored(OURS, ours.full),
        _scored(PUBLIC, public.full, Mark.OTHER),
        _scored("this release, captions exchanged", ours.swapped, Mark.OTHER),
        _scored("one record and another", ours.other, Mark.REFERENCE),
    ]
    blocks: Blocks = [
        measure(f"Finished picture and record: {ours.distance}", rows, "Further left is nearer.")
    ]
    if ours.stages is not None and public.stages is not None:
        blocks.append(
            measure(
                f"Stage by stage: {ours.distance}",
                [
                    _scored("coarse picture and coarse band of the record", ours.stages.coarse),
                    _scored("the same, " + PUBLIC, public.stages.coarse, Mark.OTHER),
                    _scored("coarse picture and record", ours.stages.enlarged, Mark.OTHER),
                    _scored("finished picture and record", ours.full),
                    _scored("coarse band of the record and record", ours.stages.band, Mark.REFERENCE),
                ],
                "The first row is what private training reached; the last is a perfect coarse picture "
                "without detail.",
            )
        )
    return blocks


# Captions and classes


def _obedience(here: Evidence) -> Blocks:
    rows = here.rows(here.ours.full)
    real = here.records[here.others]
    captions = [here.captions[place] for place in here.others]
    found: dict[str, Obedience | None] = {}
    if len(real) >= FEWEST:
        labelled, asked = _labelled(here, here.others, real), _labelled(here, here.places, rows)
        if labelled is not None and asked is not None:
            found["Classes, by a probe that learned from records"] = class_obedience(labelled, asked)
        if any(captions):
            found["Words of captions, by probes that learned from records"] = attribute_obedience(
                real, captions, rows, here.asked
            )
    found["Colour and light, read off the pixels"] = tone_obedience(
        here.ours.full, here.asked, here.real, here.asked
    )
    shown: Blocks = [_obeyed(title, one) for title, one in found.items() if one is not None]
    return shown if len(real) >= FEWEST else [*shown, Missing(ALL_DRAWN_FOR)]


def _obeyed(title: str, found: Obedience) -> Block[AnyOrigin]:
    def cells(generated: Measured, real: Measured | None, chance: float) -> list[PrivateScore | str]:
        return [
            PrivateScore.of(generated),
            PrivateScore.of(real) if real is not None else "none",
            PrivateScore("chance", chance),
        ]

    rows = {"all": cells(found.generated, found.real, found.chance)}
    rows |= {
        f"{part.name} ({part.asked} asked)": cells(part.generated, part.real, part.chance)
        for part in found.parts
    }
    return score_table(f"{title}: {found.score}", ("samples", "records", "chance"), rows, "Asked for")


# What classifiers learn


def _usefulness(here: Evidence) -> Blocks:
    tested = here.others
    test, real = (
        _labelled(here, tested, here.records[tested]),
        _labelled(here, here.places, here.records[here.places]),
    )
    synthetic = _labelled(here, here.places, here.rows(here.ours.full))
    if test is None or real is None or synthetic is None:
        few = len(tested) < FEWEST
        return [Missing(ALL_DRAWN_FOR if few else "The records have no classes, or fewer than two.")]
    by_rows = usefulness(LinearProbe(), synthetic, real, test)
    pixels = _labelled(here, tested, here.images.pixels(here.numbers[tested].tolist()))
    ours, theirs = (_labelled(here, here.places, one) for one in (here.ours.full, here.real))
    assert pixels is not None and ours is not None and theirs is not None  # as their rows were
    by_pixels = usefulness(SmallCnn(), ours, theirs, pixels)
    return [block for found in (by_rows, by_pixels) for block in _useful(found)]


def _useful(found: Usefulness) -> Blocks:
    def cells(one: Tested) -> list[PrivateScore | str]:
        return [
            PrivateScore.of(one.accuracy), PrivateScore.of(one.balanced),
            PrivateScore.of(one.calibration.error), PrivateScore.of(one.uncalibrated),
        ]  # fmt: skip

    pictures = found.synthetic.trained
    sides = {"samples": found.synthetic, "records": found.real}
    classes = {
        synthetic.name: [
            PrivateScore.of(one.accuracy) if one.accuracy is not None else "none tested"
            for one in (synthetic, real)
        ]
        for synthetic, real in zip(found.synthetic.classes, found.real.classes, strict=True)
    }
    return [
        score_table(
            f"{found.learner}, trained on {pictures} pictures, tested on records that nothing was drawn for",
            ("accuracy", "mean over classes", "calibration error", "before calibration"),
            {f"learned from {name}": cells(one) for name, one in sides.items()}
            | {"guessing": [PrivateScore("guessing", found.guessing), "", "", ""]},
            "Learned from",
        ),
        score_table(
            f"{found.learner}, class by class: accuracy",
            ("learned from samples", "learned from records"), classes, "Class",
        ),
        calibration(
            {
                f"learned from {name}": [
                    (bin.confidence, bin.accuracy)
                    for bin in one.calibration.bins
                    if bin.confidence is not None and bin.accuracy is not None
                ]
                for name, one in sides.items()
            },
            f"{found.learner}: calibration",
        ),
    ]  # fmt: skip


# How often each class, word and colour occurs


def _balance(here: Evidence) -> Blocks:
    rows = here.rows(here.ours.full)
    parts = (_classes(here, rows), _words(here, rows), _tones(here))
    return [part for part in parts if part is not None]


def _classes(here: Evidence, rows: Rows) -> Block[AnyOrigin] | None:
    known = _labelled(here, here.others, here.records[here.others])
    if known is None:
        return None
    every = sorted(set(known.labels))
    probe = train(LinearProbe(), known.part(every), len(every), 0)
    guessed = Counter(every[k] for k in probe.probabilities(rows).argmax(1))
    counts = Counter(label for label in here.labels if label is not None)
    names = [name for name, _ in counts.most_common(MOST_SHOWN)]
    return balance(
        "Classes; those of samples by a probe that learned from records",
        names,
        records=[100 * counts[name] / len(here.labels) for name in names],
        samples=[100 * guessed[name] / len(rows) for name in names],
    )


def _words(here: Evidence, rows: Rows) -> Block[AnyOrigin] | None:
    words = candidates(here.captions)[:MOST_SHOWN]
    if not words or len(here.others) < FEWEST:
        return None
    said = answers(here.captions, words)
    shown: list[float | None] = []
    for one in said[here.others].astype(np.int64).T:
        both = len(np.unique(one)) == 2
        probe = fit_probe(here.records[here.others], one, 2, penalty=PENALTY) if both else None
        shown.append(100 * float(probe(rows).argmax(1).mean()) if probe is not None else None)
    return balance(
        "Words of captions; those of samples by probes that learned from records",
        words,
        records=(100 * said.mean(0)).tolist(),
        samples=shown,
        names="Word",
    )


def _tones(here: Evidence) -> Block[AnyOrigin]:
    real, ours = (Counter(map(tone, one.numpy())) for one in (here.real, here.ours.full))
    names = sorted(real | ours)
    return balance(
        "Light and main colour, read off the pixels",
        names,
        records=[100 * real[name] / len(here.real) for name in names],
        samples=[100 * ours[name] / len(here.real) for name in names],
        names="Tone",
    )


# Samples beside records


def nearest(here: Evidence, released: Released) -> Blocks:
    """The first samples of the release, each with the record whose features are nearest."""
    if not len(released.pictures):
        return [Missing("The release has no samples.")]
    pictures = released.pictures[:SHOWN]
    rows = here.rows(pictures)
    places = [int(np.square(here.records - row).sum(1).argmin()) for row in rows]
    numbers = [int(here.numbers[place]) for place in places]
    records = here.images.pixels(numbers)
    apart = perceptual_distance(FeatureNetwork.from_pretrained(), from_bytes(pictures), from_bytes(records))
    pairs = [
        Near(
            caption, png(picture), png(record), here.images.names[number],
            PrivateScore("perceptual distance", float(distance)),
        )
        for caption, picture, record, number, distance in zip(
            released.captions, pictures, records, numbers, apart, strict=False
        )
    ]  # fmt: skip
    return [nearness(pairs)]


# Small things


def _scored(name: str, found: Measured, mark: Mark = Mark.OURS) -> Scored:
    return Scored(name, PrivateScore.of(found), mark)


def _labelled(here: Evidence, places: Places, inputs: Rows | Tensor) -> Labelled | None:
    """Those that have a class, or nothing where fewer than two classes are left."""
    kept = [k for k, place in enumerate(places) if here.labels[place] is not None]
    labels = [str(here.labels[places[k]]) for k in kept]
    return Labelled(inputs[kept], labels) if len(set(labels)) > 1 else None


PARTS: dict[str, Callable[[Evidence], Blocks]] = {
    "distances": _distances,
    "perceptual": _perceptual,
    "obedience": _obedience,
    "usefulness": _usefulness,
    "balance": _balance,
}
