"""The gradient of one parameter for every record apart, from a layer's inputs and output gradients.

A layer that maps inputs A to outputs with gradients G has per-record gradients that follow from A and G
alone: G^T A for a Linear weight, the sum of G for a bias, rows of G for an Embedding, the sum of G times the
normalized input for a norm. Each class below holds one such gradient in the form that is cheapest to
measure and to add up. Nothing here clips, and nothing here looks at another layer.

Letters: B records, T positions (all dimensions between the first and the features), i inputs, o outputs.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SUPPORTED = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)

_ACCUMULATION = 16.0  # rounding of a long float sum, in units of the last place
_FLOOR = 1e-12  # added to lengths whose squares may underflow


class ParameterGradient(Protocol):
    """The gradients of one parameter, one for each of B records."""

    def squared_norms(self, rounding: float) -> Tensor:
        """Bound each record's squared norm [B] from above, as `weighted_sum` will release it.

        `rounding` is the relative error of one product in `weighted_sum`.
        """
        ...

    def drop(self, records: Tensor) -> None:
        """Replace the chosen records (a mask [B]) by zero, whatever they hold."""
        ...

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Add up the records, each times its factor [B], in the shape of the parameter."""
        ...


def parameter_gradient(
    layer: nn.Module,
    parameter: str,
    inputs: list[Tensor],
    gradients: list[Tensor],
    room: Tensor | None = None,
) -> ParameterGradient:
    """Describe the gradient of one parameter ("weight" or "bias") of a supported layer.

    `inputs` and `gradients` hold one tensor for each time the layer was called, records first. `room` is
    memory to write the gradients of all records into if they are to be written out and fit: a fresh block
    of that size costs more in page faults than the product that fills it.
    """
    if isinstance(layer, nn.Embedding):
        ids = torch.cat([one.flatten(1) if one.dim() > 1 else one[:, None] for one in inputs], 1)
        return RowGradient(ids, _positions(gradients, (layer.embedding_dim,)), layer.num_embeddings)
    if isinstance(layer, nn.Linear):
        G = _positions(gradients, (layer.out_features,))
        if parameter == "bias":
            return StoredGradient(G.sum(1))
        A = _positions(inputs, (layer.in_features,))
        (_, T, i), o = A.shape, G.shape[2]
        # Measured: while this holds, two T x T Gram matrices cost less than writing B x i x o floats.
        if T * (i + o) < 0.6 * i * o:
            return GramGradient(A, G)
        fits = room is not None and room.shape == (len(A), o, i) and room.dtype == A.dtype
        return StoredGradient(torch.bmm(G.mT, A, out=room if fits else None))
    assert isinstance(layer, nn.LayerNorm | nn.RMSNorm)
    shape = tuple(layer.normalized_shape)
    G = _positions(gradients, shape)
    if parameter == "weight":
        G = G * _normalized(layer, _positions(inputs, shape))
    return StoredGradient(G.sum(1).reshape(-1, *shape))


def _positions(calls: list[Tensor], features: tuple[int, ...]) -> Tensor:
    """Line up all calls of a layer along T: [B, T, features], at least in single precision."""
    size = torch.Size(features).numel()
    flat = [one.reshape(len(one), one[0].numel() // size, size) for one in calls]
    joined = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
    return joined.float() if joined.dtype in (torch.bfloat16, torch.float16) else joined


def _normalized(layer: nn.LayerNorm | nn.RMSNorm, A: Tensor) -> Tensor:
    """What the layer multiplies by its weight: A [B, T, features] with unit variance or unit mean square."""
    features = A.shape[-1:]
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(A, features, eps=layer.eps)
    normalized: Tensor = F.rms_norm(A, features, eps=layer.eps)
    return normalized


@dataclass
class StoredGradient:
    """Every record's gradient, written out: [B, *parameter]."""

    values: Tensor

    def squared_norms(self, rounding: float) -> Tensor:
        """Square and add in two stages, since one long float sum loses digits."""
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=-1)
        if norms.dim() > 1:
            norms = torch.linalg.vector_norm(norms.flatten(1), dim=1)
        return (norms * (1 + rounding)).square()

    def drop(self, records: Tensor) -> None:
        """Write zeros over the chosen records."""
        self.values[records] = 0.0

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """One pass over the stored gradients."""
        return (factors @ self.values.flatten(1)).view(self.values.shape[1:])


@dataclass
class GramGradient:
    """The weight gradient G^T A of a Linear, never written out.

    |G^T A|^2 = sum over positions s, t of (A_s . A_t)(G_s . G_t). The terms may cancel, so that rounding
    hides a norm which the released product then has. With R = sum over t of |A_t| |G_t|, the sum is off by
    a few units in the last place of R^2 at most, and the product by `rounding` times R; both are added.
    """

    A: Tensor  # [B, T, i]
    G: Tensor  # [B, T, o]

    def squared_norms(self, rounding: float) -> Tensor:
        """Two Gram matrices [B, T, T] and what rounding may hide."""
        AA, GG = self.A @ self.A.mT, self.G @ self.G.mT
        a, g = (gram.diagonal(dim1=1, dim2=2).sqrt() + _FLOOR for gram in (AA, GG))  # lengths [B, T]
        R = (a * g).sum(1)
        accumulation = _ACCUMULATION * torch.finfo(R.dtype).eps
        squared = (AA * GG).sum((1, 2)).clamp(min=0.0) + accumulation * R.square()
        return (squared.sqrt() + max(rounding, accumulation) * R).square()

    def drop(self, records: Tensor) -> None:
        """Zero both factors: a zero times a value that is not a number would not be zero."""
        self.A = self.A.masked_fill(records[:, None, None], 0.0)
        self.G = self.G.masked_fill(records[:, None, None], 0.0)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """One product over records and positions, with the factors on its smaller side."""
        A, G = self.A, self.G
        if A.shape[2] < G.shape[2]:
            A = A * factors[:, None, None]
        else:
            G = G * factors[:, None, None]
        return G.flatten(0, 1).mT @ A.flatten(0, 1)


class RowGradient:
    """The gradient of an Embedding: for each record, the sums of G over equal ids."""

    def __init__(self, ids: Tensor, G: Tensor, rows: int) -> None:
        records = torch.arange(len(ids), device=ids.device)[:, None]
        pairs, places = torch.unique(ids + rows * records, return_inverse=True)
        self.rows = rows
        self.owners, self.ids = pairs // rows, pairs % rows  # [pairs]: whose gradient, of which row
        self.values = G.new_zeros(len(pairs), G.shape[2])
        self.values.index_add_(0, places.flatten(), G.flatten(0, 1))
        self.records = len(ids)

    def squared_norms(self, rounding: float) -> Tensor:
        """Different rows are orthogonal, so their squares add."""
        squares: Tensor = torch.linalg.vector_norm(self.values, dim=1).square()
        return squares.new_zeros(self.records).index_add_(0, self.owners, squares)

    def drop(self, records: Tensor) -> None:
        """Write zeros over the rows of the chosen records."""
        self.values[records[self.owners]] = 0.0

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Add every record's rows to the table."""
        table = self.values.new_zeros(self.rows, self.values.shape[1])
        return table.index_add_(0, self.ids, self.values * factors[self.owners, None])
