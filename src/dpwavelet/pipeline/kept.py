"""Tensors that one run keeps in `private/` for itself: whoever resumes another run does not take them."""

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.bounded_sums import NAME
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.ledger import Charges
from dpwavelet.randomness import Source


def keep(path: Path, run: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that names the run."""
    write_tensors(path, {f"{run}.{name}": tensor for name, tensor in tensors.items()})


def kept(path: Path, run: str) -> dict[str, Tensor]:
    """What `keep` wrote for this run."""
    tensors = {name.partition(".")[::2]: tensor for name, tensor in read_tensors(path).items()}
    if {own for own, _ in tensors} != {run}:
        raise PrivacyError(f"{path} is of another run; restore the file of this one.")
    return {name: tensor for (_, name), tensor in tensors.items()}


def sum_to_tensors(total: ClippedSum) -> dict[str, Tensor]:
    """A bounded sum, exact, and how far one unit can move it."""
    return {**total.values, "sensitivity": torch.tensor(total.sensitivity, dtype=torch.float64)}


def sum_of_tensors(tensors: Mapping[str, Tensor]) -> ClippedSum:
    """What `sum_to_tensors` took apart."""
    if not {NAME, "sensitivity"} <= tensors.keys():
        raise PrivacyError("what was measured was kept by another version; go on with that one.")
    return ClippedSum({NAME: tensors[NAME]}, float(tensors["sensitivity"]))


def noted(total: ClippedSum, ledger: Charges, run: str, other: int, source: Source) -> ClippedSum:
    """The same sum, once the ledger knows that it is the one which the noise of `other` is added to.

    Its digest is keyed by the secret of the noise: without that, it tells nothing of the sum.
    """
    content = hmac.new(source.key, b"dpwavelet: an exact sum", hashlib.sha256)
    for name, tensor in sorted(sum_to_tensors(total).items()):
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        content.update(tensor.contiguous().numpy().tobytes())
    ledger.note_sum(run, other, content.hexdigest())
    return total
