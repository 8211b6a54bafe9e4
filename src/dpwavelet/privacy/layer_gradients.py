"""The gradient of one parameter for every record apart, from a layer's inputs and output gradients.

A layer that maps inputs A to outputs with gradients G has per-record gradients that follow from A and G
alone: G^T A for a Linear weight, the sum of G for a bias, rows of G for an Embedding, the sum of G times the
normalized input for a norm. Each class below holds one such gradient in the form that is cheapest to
measure and to add up. Nothing here clips, and every shape follows from shapes, never from values.

Letters: B records, T positions (all dimensions between the first and the features), i inputs, o outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F

from dpwavelet.linear import Linear

SUPPORTED = (nn.Linear, Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)

_AT_ONCE = 8  # gradients in bfloat16 that are weighted at once
_IN_CACHE = 4  # of them that are made wide at once where a cache matters
_LONGEST = 1024  # row whose squares float32 may add up
_FLOOR = 1e-12  # added to lengths whose squares may underflow


@dataclass(frozen=True)
class Use:
    """One use of a parameter: the call of its layer on B records, and the losses' gradient by the output."""

    layer: nn.Module
    attribute: str  # what the layer calls the parameter, "weight" or "bias"
    input: Tensor
    gradient: Tensor


class ParameterGradient(Protocol):
    """The gradients of one parameter, one for each of B records."""

    def squared_norms(self, rounding: float) -> Tensor:
        """Bound each record's squared norm [B] from above, as `weighted_sum` will release it.

        `rounding` is how far a factor may be rounded, relatively, as it enters a matrix product.
        """
        ...

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Add up the records, each times its factor [B], in the shape of the parameter."""
        ...


def parameter_gradient(uses: Sequence[Use], room: Tensor | None = None) -> ParameterGradient:
    """Describe the gradient of one parameter, from all its uses in all the layers that share it.

    `room` is memory to write the gradients of all records into if they are to be written out and fit: a
    fresh block of that size costs more in page faults than the product that fills it.
    """
    layers = [use.layer for use in uses]
    if all(isinstance(layer, nn.Embedding) for layer in layers):
        return _rows(uses)
    if all(isinstance(use.layer, nn.Linear | nn.Embedding) and use.attribute == "weight" for use in uses):
        pairs = [_factors(use) for use in uses]
        A, G = (torch.cat(side, 1) if len(side) > 1 else side[0] for side in zip(*pairs, strict=True))
        return _product(A, G, room)
    return StoredGradient(torch.stack([_summed(use) for use in uses]).sum(0))


def _rows(uses: Sequence[Use]) -> "RowGradient":
    tables = [use.layer for use in uses if isinstance(use.layer, nn.Embedding)]
    ids = torch.cat([use.input.reshape(len(use.input), -1) for use in uses], 1)
    G = torch.cat([_positions(use.gradient, (tables[0].embedding_dim,)) for use in uses], 1)
    return RowGradient(ids, G, tables[0].num_embeddings)


def _factors(use: Use) -> tuple[Tensor, Tensor]:
    """A [B, T, i] and G [B, T, o] with the weight's gradient G^T A; a table is a Linear fed one-hot rows."""
    if isinstance(use.layer, nn.Embedding):
        A = _lined_up(use.gradient, (use.layer.embedding_dim,))
        ids = use.input.reshape(len(use.input), -1)
        rows = torch.arange(use.layer.num_embeddings, device=ids.device)
        return A, (ids[..., None] == rows).to(A.dtype)
    assert isinstance(use.layer, nn.Linear)
    features = (use.layer.in_features,), (use.layer.out_features,)
    return _lined_up(use.input, features[0]), _lined_up(use.gradient, features[1])


def _product(A: Tensor, G: Tensor, room: Tensor | None) -> ParameterGradient:
    """G^T A in the faster form."""
    (B, T, i), o = A.shape, G.shape[2]
    short = G.dtype == torch.bfloat16
    if short:
        A = A.to(torch.bfloat16)  # as the layer took it, and a function of its own record alone
    # Measured: while this holds, two T x T Gram matrices cost less than writing B x i x o numbers.
    if T * (i + o) < (_share_of_short(G.device) if short else 0.6) * i * o:
        return GramGradient(A, G, short)
    if not short:
        A, G = _single(A), _single(G)
    fits = room is not None and room.shape == (B, o, i) and room.dtype == A.dtype
    return StoredGradient(torch.bmm(G.mT, A, out=room if fits else None))


def _share_of_short(device: torch.device) -> float:
    """Gram matrices are made of wide numbers, so they cost more beside memory where those multiply slowly."""
    return 1.0 if device.type != "cpu" or torch.cpu._is_amx_tile_supported() else 0.25


def _summed(use: Use) -> Tensor:
    """The gradient [B, *parameter] of a bias, or of a norm's weight."""
    if isinstance(use.layer, nn.Linear):
        return _positions(use.gradient, (use.layer.out_features,)).sum(1)
    assert isinstance(use.layer, nn.LayerNorm | nn.RMSNorm)
    shape = tuple(use.layer.normalized_shape)
    G = _positions(use.gradient, shape)
    if use.attribute == "weight":
        G = G * _normalized(use.layer, _positions(use.input, shape))
    return G.sum(1).reshape(-1, *shape)


def _positions(tensor: Tensor, features: tuple[int, ...]) -> Tensor:
    """Line up everything between record and features: [B, T, features], at least in single precision."""
    return _single(_lined_up(tensor, features))


def _lined_up(tensor: Tensor, features: tuple[int, ...]) -> Tensor:
    size = torch.Size(features).numel()
    return tensor.reshape(len(tensor), tensor[0].numel() // size, size)


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _normalized(layer: nn.LayerNorm | nn.RMSNorm, A: Tensor) -> Tensor:
    """What the layer multiplies by its weight: A [B, T, features] with unit variance or unit mean square."""
    features = A.shape[-1:]
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(A, features, eps=layer.eps)
    normalized: Tensor = F.rms_norm(A, features, eps=layer.eps)
    return normalized


def _accumulation(sums: Tensor, terms: int) -> float:
    """How far sums of so many terms are off at most, in whatever order they are added, over their lengths.

    Half a unit in the last place for each term, and some more for what is done to the sums.
    """
    return (0.5 * terms + 16.0) * torch.finfo(sums.dtype).eps


@dataclass(frozen=True)
class StoredGradient:
    """Every record's gradient, written out: [B, *parameter]; also in bfloat16, but never added up in it."""

    values: Tensor

    def squared_norms(self, rounding: float) -> Tensor:
        """Square and add short rows, then these in double precision, since a long float sum loses digits.

        The product that adds records up rounds both the stored values and the factors.
        """
        norms = torch.cat([_row_lengths(some) for some in self._parts()])
        length: Tensor = torch.linalg.vector_norm(norms.flatten(1).double(), dim=1)
        return (length * (1 + 2 * rounding)).square().to(norms.dtype)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """One pass over the stored gradients, in single precision or more."""
        if self.values.dtype != torch.bfloat16:
            return (factors @ self.values.flatten(1)).view(self.values.shape[1:])
        total = torch.zeros_like(self.values[0], dtype=torch.float32)
        if self._in_cache:
            for one, factor in zip(chain.from_iterable(self._parts()), factors, strict=True):
                total.addcmul_(one, factor)
            return total
        for some, own in zip(torch.split(self.values, _AT_ONCE), torch.split(factors, _AT_ONCE), strict=True):
            total = total + (some * own.view(-1, *[1] * total.dim())).sum(0)
        return total

    @property
    def _in_cache(self) -> bool:
        """Whether short numbers are to stay in a processor's cache while they are wide.

        Not in a graph that is being recorded: it merges steps by itself, and more of them take longer to
        compile.
        """
        short = self.values.dtype == torch.bfloat16
        return short and self.values.device.type == "cpu" and get_proxy_mode() is None

    def _parts(self) -> Iterator[Tensor]:
        """The records as they are, all at once; or a few at a time, made wide."""
        if self._in_cache:
            yield from (some.float() for some in torch.split(self.values, _IN_CACHE))
        else:
            yield self.values


def _row_lengths(values: Tensor) -> Tensor:
    """The length of every row, long ones in parts: [B, ..., parts]."""
    wide = torch.promote_types(values.dtype, torch.float32)
    rows = torch.split(values, _LONGEST, dim=-1)
    return torch.stack([torch.linalg.vector_norm(row, dim=-1, dtype=wide) for row in rows], -1)


@dataclass(frozen=True)
class GramGradient:
    """The weight gradient G^T A of a Linear, never written out.

    |G^T A|^2 = sum over positions s, t of (A_s . A_t)(G_s . G_t). The terms may cancel, so that rounding
    hides a norm which the released product then has. With R = sum over t of |A_t| |G_t|, the sum is off by
    i + o + 2 T roundings of R^2 at most, whatever the order of its additions. Rounding both factors moves
    G^T A by 2 `rounding` R at most, once where it is measured and once more, differently, where it is
    released; all is added.

    Short factors, which bfloat16 holds (also in a compiled graph, see `compiled`), are rounded by no product
    until a record's weight has made the narrower one, say A, longer, so only what is released is. That moves
    G^T A by `rounding` |A| |G|_2 at most, and the square of the largest singular value of G is no more than
    the largest row of G G^T adds up to, signs left out.
    """

    A: Tensor  # [B, T, i], made wide only while it is used: all layers wide at once would fill memory
    G: Tensor  # [B, T, o]
    short: bool

    @property
    def _weighs_inputs(self) -> bool:
        """Whether a record's weight is given to A, the narrower, and not to G."""
        return self.A.shape[2] <= self.G.shape[2]

    def squared_norms(self, rounding: float) -> Tensor:
        """Two Gram matrices [B, T, T] and what rounding may hide."""
        A, G = _single(self.A), _single(self.G)
        AA, GG = A @ A.mT, G @ G.mT
        del A, G
        a, g = (gram.diagonal(dim1=1, dim2=2).sqrt() + _FLOOR for gram in (AA, GG))  # lengths [B, T]
        R = (a * g).sum(1)
        accumulation = _accumulation(R, self.A.shape[2] + self.G.shape[2] + 2 * self.A.shape[1])
        squared = (AA * GG).sum(2).sum(1).clamp(min=0.0) + accumulation * R.square()
        moved = 4 * rounding * R
        if self.short:
            weighted, other = (a, GG) if self._weighs_inputs else (g, AA)
            widest = other.abs().sum(2).amax(1).sqrt() + _FLOOR
            moved = rounding * torch.minimum(torch.linalg.vector_norm(weighted, dim=1) * widest, R)
        return (squared.sqrt() + moved + accumulation * R).square()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """One product over records and positions."""
        A, G, each = _single(self.A), _single(self.G), factors[:, None, None]
        A, G = (A * each, G) if self._weighs_inputs else (A, G * each)
        return G.flatten(0, 1).mT @ A.flatten(0, 1)


@dataclass(frozen=True)
class RowGradient:
    """The gradient of an Embedding: each record adds G to the rows of its ids."""

    ids: Tensor  # [B, T]
    G: Tensor  # [B, T, o]
    rows: int

    def squared_norms(self, rounding: float) -> Tensor:
        """Positions of one id share a row: the row's square, split evenly among them.

        G may cancel within a row but its rounding does not, so the row's R = sum of |G| comes in as above.
        """
        same = self.ids[:, :, None] == self.ids[:, None, :]  # [B, T, T]
        norms = torch.linalg.vector_norm(same.to(self.G.dtype) @ self.G, dim=2)
        R = (same * torch.linalg.vector_norm(self.G, dim=2)[:, None]).sum(2)
        bounds = norms + max(rounding, _accumulation(R, sum(self.G.shape[1:]))) * R
        squares: Tensor = bounds.square() / same.sum(2)
        return squares.sum(1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Add every record's rows to the table, in double precision.

        Rows of one record may cancel and so be much longer than its gradient. Passing through a row, they
        would round away what other records have put there.
        """
        table = self.G.new_zeros(self.rows, self.G.shape[2], dtype=torch.float64)
        rows = self.G.double() * factors[:, None, None]
        return table.index_add(0, self.ids.flatten(), rows.flatten(0, 1))
