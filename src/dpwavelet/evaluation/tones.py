"""Whether pictures have the colours and the light that their captions name, measured from pixels alone.

A claim of a caption, such as "mostly blue" or "a dark photo", is met if it is among the facts of the picture;
`images.tones` says how both are read. No network takes part, so nothing is lost to a probe's mistakes. Chance
is what the same pictures would score with the claims dealt out among them at random.

Letters: N pictures, H height, W width.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.evaluation.obedience import Obedience, Obeyed
from dpwavelet.evaluation.shares import share
from dpwavelet.images.sheet import to_bytes
from dpwavelet.images.tones import CLAUSES, Said, claims, facts

SCORE = "share of claims that are met"
PLACES = ("light", *CLAUSES)

Claims = Sequence[frozenset[Said]]


def tone_obedience(
    generated: Tensor,
    captions: Sequence[str],
    real: Tensor | None = None,
    real_captions: Sequence[str] = (),
    *,
    bootstrap: Bootstrap | None = None,
) -> Obedience | None:
    """Claims met by images [N, 3, H, W], uint8 or in [-1, 1], a part for light and one for each place.

    Real images with their own captions show what can be reached. Nothing is returned where no caption of a
    generated picture claims anything.
    """
    bootstrap = bootstrap or Bootstrap()
    said, shown = _read(generated, captions)
    if not any(said):
        return None
    said_real, shown_real = _read(real, real_captions) if real is not None else ([], [])
    sizes = (len(said_real), len(said))
    parts = []
    for place in PLACES:
        here, here_real = _at(place, said), _at(place, said_real)
        if hits := _hits(here, shown):
            hits_real = _hits(here_real, shown_real)
            parts.append(
                Obeyed(
                    name=place,
                    asked=len(hits),
                    generated=share(place, np.array(hits), sizes, bootstrap.confidence),
                    real=share(place, np.array(hits_real), sizes, bootstrap.confidence)
                    if hits_real
                    else None,
                    chance=_chance(here, shown),
                )
            )
    return Obedience(
        score=SCORE,
        parts=tuple(parts),
        generated=_all(said, shown, sizes, bootstrap),
        real=_all(said_real, shown_real, sizes, bootstrap) if any(said_real) else None,
        chance=_chance(said, shown),
    )


def _read(images: Tensor, captions: Sequence[str]) -> tuple[Claims, Claims]:
    """What captions claim and what pictures show."""
    if len(images) != len(captions) or len(captions) < 2:
        raise ConfigError(
            f"tones are compared for two pictures or more with a caption each, got {len(images)} and "
            f"{len(captions)}."
        )
    pixels = images if images.is_floating_point() is False else to_bytes(images)
    return [claims(caption) for caption in captions], [facts(one) for one in pixels.cpu().numpy()]


def _at(place: str, said: Claims) -> Claims:
    return [frozenset(claim for claim in one if claim[0] == place) for one in said]


def _hits(said: Claims, shown: Claims) -> list[bool]:
    """Of every claim of every caption, whether it is met."""
    return [claim in found for made, found in zip(said, shown, strict=True) for claim in sorted(made)]


def _chance(said: Claims, shown: Claims) -> float:
    """The share of claims that the other pictures meet: each claim with every picture but its own."""
    often = Counter(fact for found in shown for fact in found)
    met = [
        (often[claim] - (claim in found)) / (len(shown) - 1)
        for made, found in zip(said, shown, strict=True)
        for claim in sorted(made)
    ]
    return float(np.mean(met))


def _all(said: Claims, shown: Claims, sizes: tuple[int, int], bootstrap: Bootstrap) -> Measured:
    """The share of all claims; a picture is drawn with all of its claims at once."""
    made = np.array([len(one) for one in said], np.float64)
    met = np.array([len(one & found) for one, found in zip(said, shown, strict=True)], np.float64)
    value = float(met.sum() / made.sum())
    influences = (met - value * made) / made.mean()
    return from_influences(SCORE, value, [influences], sizes, bootstrap, at_least=0.0, at_most=1.0)
