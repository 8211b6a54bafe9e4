"""The one place where Gaussian noise is made and added.

Noise is float32, made on the CPU from the source and moved to where the sum lives, so that every rank and
every device gets the same. It is added to the sum in the sum's own float type, and only what is noisy is
rounded to float32; dividing is left to the plan.
"""

import math

import torch
from torch import Tensor

from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.randomness import Position, Source

GRID_BITS = 8  # how much finer than the noise published numbers are


def add_noise(
    clipped: ClippedSum, noise_multiplier: float, source: Source, step: int | str
) -> dict[str, Tensor]:
    """Add to each parameter its own Gaussian noise of standard deviation noise_multiplier * sensitivity.

    Guarantee: together the results are one Gaussian mechanism with this noise multiplier, also for an empty
    batch. The noise is a pure function of the source's key, the step and the parameter's name: two different
    sums released at one step under one key would share their noise, which the ledger is there to prevent.
    A sum beside training has a name of its own for `step`; no number and no text make the same noise.
    """
    std = noise_multiplier * clipped.sensitivity
    return {
        name: (value + gaussian_like(value, std, source, ("noise", step, name))).float()
        for name, value in clipped.values.items()
    }


def add_noise_on_grid(
    total: ClippedSum, noise_multiplier: float, source: Source, name: str
) -> dict[str, Tensor]:
    """The same mechanism for sums that are published as they are: in double precision, on a public grid.

    Guarantee: results are whole multiples of a power of two that depends on the noise alone, from a 512th to
    a 256th of its standard deviation. So every result could have come from a neighbour, and which numbers
    the noise can be, in its last bits, is not to be seen: rounding follows the noise and costs no privacy.
    """
    std = checked_deviation(noise_multiplier * total.sensitivity)
    grid = 2.0 ** (math.floor(math.log2(std)) - GRID_BITS)
    found = {}
    for key, value in total.values.items():
        check_wide(value)
        noise = torch.from_numpy(source.fine_normals(("noise", name, key), value.numel())).mul_(std)
        found[key] = ((value.double() + noise.reshape(value.shape).to(value.device)) / grid).round_() * grid
    return found


def check_wide(value: Tensor) -> None:
    """Refuse sums of few bits."""
    if value.dtype not in (torch.float32, torch.float64):
        raise PrivacyError(
            f"noise goes onto float32 or float64 sums, got {value.dtype}: "
            "rounding a sum to fewer bits raises its sensitivity."
        )


def checked_deviation(std: float) -> float:
    """The same number, if it is the standard deviation of real noise."""
    if not (math.isfinite(std) and std > 0):
        raise PrivacyError(f"the standard deviation of noise must be finite and above 0, got {std}.")
    return std


def gaussian_like(value: Tensor, std: float, source: Source, position: Position) -> Tensor:
    """Gaussian noise in the shape and place of `value`; no narrow sum is accepted, only real noise made."""
    check_wide(value)
    noise = torch.from_numpy(source.normals(position, value.numel())).mul_(checked_deviation(std))
    return noise.reshape(value.shape).to(value.device)
