"""Count, mean and scatter of feature rows: all that a Fréchet distance needs of a set.

They can be added up from pieces in any order, kept in a folder and read back. Double precision throughout;
every piece is centred before it is squared, so a large common offset costs no digits (Chan, Golub and LeVeque
1983). Memory is D squared, whatever the number of rows.

What is computed from private records is private: keep its cache where the records may be.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.checkpoint import (
    canonical_json,
    read_json,
    read_tensors,
    whole_folder,
    write_json,
    write_tensors,
)
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.rows import Features, blocks, checked

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Statistics:
    """N rows by their mean [D] and their scatter [D, D], the sum of outer products of centred rows."""

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def of(cls, pieces: Iterable[Features]) -> "Statistics":
        """Of all rows of all pieces; a piece may be of any size."""
        total: Statistics | None = None
        for piece in pieces:
            for _, block in blocks(checked(piece)):
                mean = block.mean(0)
                block = block - mean
                part = cls(len(block), mean, block.T @ block)
                total = part if total is None else total + part
        if total is None:
            raise ConfigError("statistics need at least one row, got none; is the set empty?")
        return total

    def __add__(self, other: "Statistics") -> "Statistics":
        """Of the rows of both."""
        if len(self.mean) != len(other.mean):
            raise ConfigError(
                f"statistics of {len(self.mean)} and {len(other.mean)} features cannot be added; "
                "compute both by one network."
            )
        count = self.count + other.count
        step = other.mean - self.mean
        between = np.outer(step, step) * (self.count * other.count / count)
        return Statistics(
            count, self.mean + step * (other.count / count), self.scatter + other.scatter + between
        )

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The unbiased covariance [D, D]; it needs two rows."""
        if self.count < 2:
            raise ConfigError(f"a covariance needs at least 2 rows, got {self.count}; give more images.")
        return self.scatter / (self.count - 1)

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        """Write a folder, whole or not at all; `about` says of what the statistics are."""
        told = {"format": FORMAT, "count": self.count, "features": len(self.mean), "about": dict(about)}
        with whole_folder(folder) as building:
            write_json(building / "statistics.json", told)
            write_tensors(
                building / "statistics.safetensors",
                {"mean": torch.from_numpy(self.mean), "scatter": torch.from_numpy(self.scatter)},
            )

    @classmethod
    def load(cls, folder: Path) -> "Statistics":
        """Read what `save` wrote; a missing, damaged or foreign folder is a ModelError."""
        told, tensors = read_json(folder / "statistics.json"), read_tensors(folder / "statistics.safetensors")
        try:
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']!r}, not {FORMAT}")
            count, features = int(told["count"]), int(told["features"])
            mean, scatter = tensors["mean"].numpy(), tensors["scatter"].numpy()
            if mean.shape != (features,) or scatter.shape != (features, features) or count < 1:
                raise ValueError(f"{count} rows of {features} features do not fit its tensors")
            if mean.dtype != np.float64 or scatter.dtype != np.float64:
                raise ValueError("its tensors are not in double precision")
            if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
                raise ValueError("its tensors are not finite")
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder} does not hold statistics of features: {error}; remove it, to compute them again."
            ) from error
        return cls(count, mean, scatter)


def cached(folder: Path, about: Mapping[str, str], compute: Callable[[], Statistics]) -> Statistics:
    """The statistics of what `about` describes: kept below `folder` already, or computed and kept now.

    `about` must hold all that the numbers depend on: the digests of the images, of the network, the resize.
    """
    place = folder / hashlib.sha256(canonical_json({"format": FORMAT, **about})).hexdigest()
    if not place.is_dir():
        compute().save(place, about)
    return Statistics.load(place)
