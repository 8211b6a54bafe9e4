"""How good a run is, measured on the records: for its owner, and never for the release.

Pictures are drawn with the captions of some records, by the private model and by the public one alone, and
are compared with the records. Captions of records may be used here because everything that comes of it is as
private as they are: each number is a `PrivateScore`, each picture goes to `private/`.

Letters: M records, E of them that pictures were drawn for, D features, S side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.perceptual import enlarged
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, to_bytes
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.settings import RunSettings
from dpwavelet.progress import Progress
from dpwavelet.randomness import stream
from dpwavelet.wavelet import analyze

MOST_RECORDS = 10_000  # whose features are computed
MOST_OTHERS = 2_500  # that probes learn from and that classifiers are tested on
AT_ONCE = 256

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """Pictures as bytes: finished [B, 3, S, S], and as the next-token model drew them [B, 3, s, s]."""

    full: Tensor
    coarse: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """What is compared: records, and pictures drawn for some of them with and without the private model.

    Private as a whole; its repr shows nothing.
    """

    space: Extractor
    wavelet: str
    records: Rows  # [M, D], of M records at most MOST_RECORDS
    places: NDArray[np.int64]  # [E] among those
    captions: Sequence[str]  # [M], the first of each record, or nothing
    labels: Sequence[str | None]  # [M]
    numbers: NDArray[np.int64]  # [M], places in the folder
    real: Tensor  # [E, 3, S, S] bytes
    ours: Pictures  # [E]
    public: Pictures  # [E]
    images: PrivateImages
    drawings: int = 1  # pictures that were drawn for one that is compared

    @property
    def asked(self) -> list[str]:
        """The captions that pictures were drawn with."""
        return [self.captions[place] for place in self.places]

    @property
    def others(self) -> NDArray[np.int64]:
        """Records that no picture was drawn for, at most MOST_OTHERS, evenly spread."""
        rest = np.setdiff1d(np.arange(len(self.records)), self.places)
        if len(rest) <= MOST_OTHERS:
            return rest
        return rest[np.linspace(0, len(rest) - 1, MOST_OTHERS).astype(np.int64)]

    @cached_property
    def coarse_real(self) -> Tensor:
        """The coarse bands of the real pictures, enlarged as coarse samples are; bytes [E, 3, S, S]."""
        levels = (self.real.shape[-1] // self.ours.coarse.shape[-1]).bit_length() - 1
        if levels == 0:  # every scale is private, so nothing is left of them to take away
            return self.real
        bands = analyze(from_bytes(self.real), levels, self.wavelet)
        return to_bytes(enlarged(bands[0], self.real.shape[-1]))

    def smaller(self, pictures: Pictures) -> Tensor | None:
        """Coarse pictures, unless they have the full side already."""
        return pictures.coarse if pictures.coarse.shape[-1] < self.real.shape[-1] else None

    def coarse_of(self, pictures: Pictures) -> Tensor:
        """Coarse pictures, enlarged; bytes [E, 3, S, S]."""
        return to_bytes(enlarged(from_bytes(pictures.coarse), self.real.shape[-1]))

    def rows(self, pixels: Tensor) -> Rows:
        """Features [B, D] of pictures as bytes [B, 3, S, S]."""
        return self.space.rows_of_any(pixels)


def gather(
    images: PrivateImages, ours: Pipeline, public: Pipeline, settings: RunSettings, progress: Progress
) -> Evidence:
    """Draw for some records, chosen by the seed, and compute features of all."""
    space = extractor()
    chosen = _some(len(images), MOST_RECORDS, settings.seed, "records to measure")
    progress.begin("features of records", len(chosen))
    rows = []
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        rows.append(space.rows_of_any(images.pixels(part.tolist())))
        progress.advance(len(part))
    captions = [(images.captions(index) or ("",))[0] for index in chosen]
    places = _some(len(chosen), settings.judged, settings.seed, "records to draw for")
    progress.begin("drawing to compare", (ours.drawings + public.drawings) * len(places))
    drawn = []
    for pipeline in (ours, public):
        few, full = pipeline.draw(
            [captions[place] for place in places],
            seed=settings.seed,
            sampling=settings.sampling,
            told=progress.advance,
        )
        drawn.append(Pictures(to_bytes(full), to_bytes(few)))
    return Evidence(
        space=space,
        wavelet=ours.model.tokenizer.config.wavelet,
        records=np.concatenate(rows),
        places=places,
        captions=captions,
        labels=[images.label(index) for index in chosen],
        numbers=chosen,
        real=images.pixels(chosen[places].tolist()),
        ours=drawn[0],
        public=drawn[1],
        images=images,
        drawings=ours.drawings,
    )


def _some(count: int, most: int, seed: int, name: str) -> NDArray[np.int64]:
    """At most `most` of 0 ... `count`-1, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(stream(seed, name).choice(count, size=most, replace=False))
