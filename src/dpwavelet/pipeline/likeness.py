"""Of several pictures of one caption, the one whose kind is common among the records.

Every record brings one bounded vector: features of a public network, and their products. The plan adds noise
to their sum once. It tells mean and covariance of the records; those of drawn pictures are known anyway. The
ratio of the two normal densities says how much more common the like of a picture is among records than among
what the model draws. Several pictures are drawn for a caption, and one of them is kept by chance, with odds
in that ratio (sampling importance resampling, Rubin 1987). Everything after the noise is post-processing.

Letters: B pictures, M choices, D features, k features in use.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.moments import COLUMNS, PRODUCT_WEIGHT, Frame, Matrix
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.privacy.bounded_sums import NAME, bounded_sum
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, stream

FILE = "likeness.safetensors"
CHOICES = 4  # pictures for a caption
DRAWN = 256  # pictures that tell what the model draws: a constant, for what is measured depends on them
SMALLEST_BLUR = 1e-6  # in squared radii of the frame
LARGEST = 1e9  # of means and variances; true ones are 1 at most, before noise
MOST_CHOICES = 1000

Rows = NDArray[np.float32]
Draw = Callable[[int], tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Likeness:
    """What of the records may be known, beside the same of what is drawn, both in units of the frame.

    Both covariances are blurred alike, by about as much as noise moves that of the records. So where the
    noise hides the records, the ratio is the same for all pictures, and chance alone chooses.
    """

    frame: Frame
    records: tuple[Matrix, Matrix]  # mean [k] and covariance [k, k]; differentially private
    drawn: tuple[Matrix, Matrix]
    blur: float  # a variance
    features: str  # digest of the network whose features these are
    choices: int = CHOICES  # pictures that are drawn for one that is kept, unless somebody says otherwise
    enlarger: str = ""  # digest of what finished the pictures that it was measured by, where that is told

    @classmethod
    def read(
        cls, noisy: Matrix, deviation: float, drawn: Rows, features: str, choices: int = CHOICES
    ) -> "Likeness":
        """From the noisy sum over records and rows [B, D] of drawn pictures. Post-processing.

        `deviation` is the standard deviation of the noise on every number of the sum.
        """
        frame = Frame.around(drawn)
        return cls(
            frame,
            frame.moments(noisy),
            frame.moments(frame.vectors(drawn).sum(0)),
            _blur(deviation / max(float(noisy[0]), 1.0), frame.columns),
            features,
            choices,
        )

    def ratio(self, rows: Rows) -> Matrix:
        """Logarithm [B] of how much more common the like of rows [B, D] is among records than drawn."""
        y = self.frame.scaled(rows)
        return _density(y, *self.records, self.blur) - _density(y, *self.drawn, self.blur)

    def choose(self, draw: Draw, seed: int, choices: int, first: int = 0) -> tuple[Tensor, ...]:
        """One of `choices` drawings for each picture; `draw` makes one of a seed, pictures as bytes last.

        Picture i depends on what is drawn for it, on (seed, first + i) and on nothing else.
        """
        kept = draw(seed)
        luck = [stream(seed, "choice", first + i).gumbel(size=choices) for i in range(len(kept[-1]))]
        chances = np.array(luck).reshape(len(kept[-1]), choices)
        best = chances[:, 0] + self.ratio(self._rows(kept[-1]))
        for place in range(1, choices):
            other = draw(int(stream(seed, "another drawing", place).integers(2**62)))
            found = chances[:, place] + self.ratio(self._rows(other[-1]))
            better = torch.from_numpy(found > best)
            kept = tuple(_where(better, new, old) for new, old in zip(other, kept, strict=True))
            best = np.maximum(best, found)
        return kept

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        numbers = {
            "centre": self.frame.centre,
            "radius": np.array(self.frame.radius),
            "records.mean": self.records[0],
            "records.covariance": self.records[1],
            "drawn.mean": self.drawn[0],
            "drawn.covariance": self.drawn[1],
            "blur": np.array(self.blur),
        }
        tensors = {name: torch.from_numpy(np.array(value, order="C")) for name, value in numbers.items()}
        tensors["features"] = torch.frombuffer(bytearray.fromhex(self.features), dtype=torch.uint8)
        tensors["choices"] = torch.tensor(self.choices)
        if self.enlarger:
            tensors["enlarger"] = torch.frombuffer(bytearray.fromhex(self.enlarger), dtype=torch.uint8)
        write_tensors(path, tensors)

    @classmethod
    def load(cls, path: Path) -> "Likeness":
        """Read what `save` wrote; refuse shapes and numbers that make no sense, and another network's."""
        tensors = read_tensors(path)
        try:
            likeness = cls._of(tensors)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ModelError(f"{path} is no likeness of ours: {error!s:.200}; it is damaged.") from error
        likeness._space  # noqa: B018 - refuses another network now, and not when the first picture is drawn
        return likeness

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor]) -> "Likeness":
        k = COLUMNS
        shapes = {"centre": (k,), "radius": (), "blur": (), "choices": (), "features": (32,)}
        shapes |= {"enlarger": (32,)} if "enlarger" in tensors else {}  # older ones do not tell
        shapes |= {f"{of}.mean": (k,) for of in ("records", "drawn")}
        shapes |= {f"{of}.covariance": (k, k) for of in ("records", "drawn")}
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise ValueError("its tensors have other names or shapes")
        found = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ValueError("it holds what is no number")
        if min(found["radius"], found["blur"]) < SMALLEST_BLUR:
            raise ValueError("its radius or blur is too small")
        moments = [(found[f"{of}.mean"], found[f"{of}.covariance"]) for of in ("records", "drawn")]
        for mean, covariance in moments:
            low, *_, high = np.linalg.eigvalsh(covariance)
            rounding = 1e-7 * max(high, 1.0)
            if not np.allclose(covariance, covariance.T) or not -rounding <= low <= high <= LARGEST:
                raise ValueError("a covariance is none")
            if np.abs(mean).max() > LARGEST:
                raise ValueError("a mean lies outside of the frame")
        choices = int(found["choices"])
        check_choices(choices)
        features, enlarger = (
            bytes(tensors[name].to(torch.uint8).tolist()).hex() if name in tensors else ""
            for name in ("features", "enlarger")
        )
        frame = Frame(found["centre"], float(found["radius"]))
        return cls(frame, moments[0], moments[1], float(found["blur"]), features, choices, enlarger)

    def check_enlarger(self, digest: str) -> None:
        """Refuse pictures that something else has finished than those that the records were seen beside."""
        if self.enlarger not in ("", digest):
            raise ConfigError(
                "the likeness of this release was measured by pictures of another enlarger; name the one "
                "that made its samples (--enlarger, --no-consistent), or keep the first picture: --choices 1."
            )

    @cached_property
    def _space(self) -> Extractor:
        space = extractor()
        if space.digest != self.features or space.columns < self.frame.columns:
            raise ModelError(
                "the likeness of this release was measured by another feature network than the one that "
                "comes with this version; use the version that made it, or `sample --choices 1`."
            )
        return space

    def _rows(self, pixels: Tensor) -> Rows:
        return self._space.rows_of_any(pixels)


def check_choices(choices: int) -> None:
    """Refuse a number of pictures of which none could be kept."""
    if not 1 <= choices <= MOST_CHOICES:
        raise ConfigError(f"choices must be from 1 to {MOST_CHOICES}, got {choices}.")


def measure(pictures: Rows, records: Rows, owners: NDArray[np.int64] | None) -> ClippedSum:
    """Add up what every record brings, seen from drawn pictures [B, D]; `buy` adds noise before it is used.

    Guarantee: one unit moves the sum by at most its sensitivity. What a record brings is a function of that
    record, of generated pictures and of public names, to the last bit.
    """
    frame = Frame.around(pictures)
    return bounded_sum(frame.vectors(records), frame.bound, owners)


def buy(
    total: ClippedSum,
    drawn: Rows,
    plan: PrivacyPlan,
    other: int,
    source: Source,
    features: str,
    choices: int = CHOICES,
) -> Likeness:
    """Add noise to the sum of `measure`, once, and read the likeness off what is noisy.

    Guarantee: what is returned is a function of generated pictures and of one noisy sum, for which
    `plan.others[other]` pays.
    """
    bound = Frame.around(drawn).bound
    noisy = plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME].numpy()
    deviation = bound * plan.others[other].noise_multiplier
    return Likeness.read(noisy, deviation, drawn, features, choices)


def _blur(deviation: float, k: int) -> float:
    """Half of the norm that noise of this deviation on mean products gives a symmetric matrix [k, k]."""
    entry = deviation / PRODUCT_WEIGHT / math.sqrt(2)  # off the diagonal
    return max(entry * math.sqrt(k), SMALLEST_BLUR)


def _density(y: Matrix, mean: Matrix, covariance: Matrix, blur: float) -> Matrix:
    """Logarithm [B] of the normal density at y [B, k], up to a constant that both sides share."""
    spread = covariance + blur * np.eye(len(mean))
    away = y - mean
    found: Matrix = -0.5 * ((away @ np.linalg.inv(spread)) * away).sum(1)
    return found - 0.5 * float(np.linalg.slogdet(spread)[1])


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (new.dim() - 1)), new, old)
