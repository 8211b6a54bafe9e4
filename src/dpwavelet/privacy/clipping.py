"""Clipped sums of per-record gradients, by book-keeping: one forward, one backward, then one product a layer.

While a chunk of records runs, hooks note what goes into each trained layer, and autograd gives the gradient
of each layer's output; ordinary weight gradients are never formed. Every record's norm and the clipped sum
follow from these. This module neither samples batches nor adds noise, and does not divide: it returns a sum
over records. The batch is the first dimension of everything that enters a trained layer.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.layer_gradients import (
    SUPPORTED,
    ParameterGradient,
    StoredGradient,
    parameter_gradient,
)

_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Losses = Callable[[], Tensor]  # runs the model forward on a chunk and returns one loss for each record [B]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How matrix products round, and how far below the bound we clip to make up for it."""

    matmul: Literal["highest", "medium"]
    rounding: float  # relative error of one product of two float32 numbers, added to each record's norm
    margin: float  # for all else: the sum and the other records' activations round anew for each batch


PRECISIONS = {
    "exact": Precision(matmul="highest", rounding=0.0, margin=2.0**-14),
    "fast": Precision(
        matmul="medium", rounding=2.0**-8, margin=2.0**-8
    ),  # may round to bfloat16; sums float32
}


@dataclass(frozen=True)
class ClippedSum:
    """Sums of clipped per-record gradients by parameter name, and how far one record can move them.

    `sensitivity` is the L2 distance, over all values together, that adding or removing one record may cause.
    """

    values: dict[str, Tensor]
    sensitivity: float


@dataclass(frozen=True)
class RecordDiagnostics:
    """Losses and gradient norms [B] of the records in one chunk. Private: they describe single records."""

    losses: Tensor
    norms: Tensor


@dataclass(frozen=True)
class _Call:
    """One use of a trained layer in a forward: its input, and where its output enters the graph."""

    input: Tensor
    version: int
    output: GradientEdge


class RecordClipper:
    """Clips every record's gradient to `max_norm` and adds the records up.

        clipper = RecordClipper(model, max_norm=1.0)
        clipper.check(lambda: losses(public_records))
        for chunk in batch:                                # as many as fit, none if the batch is empty
            clipper.accumulate(lambda: losses(chunk))
        clipped = clipper.finish()

    Guarantee: adding or removing one record moves the sum by at most `max_norm` (L2), whatever the gradients
    are. A record whose loss or norm is not finite counts as zero. What it rests on: a record's loss depends
    on no other record. The first chunk of two records or more tests that, at the price of two backwards;
    `check` tests it too, on as few as two records. The margin allows for other records' rounding, which may
    change with the shape of a chunk. That allowance is measured, not proved, and chunks of one shape (see
    `records` of `accumulate`) need least of it.

    Memory: where the sequence is long beside the layer, a chunk holds one gradient for each record, and
    keeps that memory for the next chunk.

    `parameters` are those to train, by the names the sum shall have; by default all that require gradients.
    They may live in Linear, Embedding, LayerNorm and RMSNorm layers; any other place is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter] | None = None,
        *,
        max_norm: float,
        precision: Literal["exact", "fast"] = "exact",
    ) -> None:
        if not (isfinite(max_norm) and max_norm > 0):
            raise ConfigError(
                f"max_norm must be a positive number, got {max_norm}; it bounds what one record can change."
            )
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
        if parameters is None:
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.max_norm = max_norm
        self.precision = PRECISIONS[precision]
        self._model = model
        self._parameters = dict(parameters)
        self._layers = _owners(model, self._parameters)
        self._separate = False  # whether records were seen to be independent of one another
        self._sums: dict[str, Tensor] = {}
        self._rooms: dict[str, Tensor] = {}  # memory of the last chunk's gradients, for the next chunk

    def accumulate(self, losses: Losses, records: int | None = None) -> RecordDiagnostics:
        """Add one chunk of records to the sum; on an exception the sum stays as it was.

        `losses` runs the forward and returns one loss per record. Rows from `records` on are padding: chunks
        of one shape keep every product's rounding independent of how many records were drawn.
        """
        with _matmul_precision(self.precision.matmul):
            values, gradients = self._gradients(losses)
            norms = self._norms(values, gradients)
            factors = (self.max_norm / ((1 + self.precision.margin) * norms)).clamp(max=1.0)
            for name, clipped in _weighted_sums(gradients, factors, _counted(values, norms, records)).items():
                self._sums[name] = self._sums[name].add_(clipped) if name in self._sums else clipped
        return RecordDiagnostics(values[:records], norms[:records])

    def finish(self) -> ClippedSum:
        """Hand over the sum of all chunks since the last call and start anew. No chunk makes a zero sum."""
        values = {name: self._sums.get(name, _zero_sum(p)) for name, p in self._parameters.items()}
        self._sums = {}
        return ClippedSum(values, sensitivity=self.max_norm)

    def check(self, losses: Losses) -> None:
        """Raise unless the sum without clipping equals autograd's gradient. For public or drawn records.

        Finds uses of a trained parameter that its layer does not show, such as `F.linear(x, table.weight)`.
        """
        with _matmul_precision("highest"):
            with self._same_random_numbers():
                values, gradients = self._gradients(losses)
                ones = torch.ones_like(values)
                ours = _weighted_sums(gradients, ones, ones.bool())
            with self._same_random_numbers(), self._requiring_gradients(set(self._parameters.values())):
                total = losses().sum()
                theirs = torch.autograd.grad(total, list(self._parameters.values()), allow_unused=True)
        scale = max((float(expected.norm()) for expected in theirs if expected is not None), default=0.0)
        for (name, p), expected in zip(self._parameters.items(), theirs, strict=True):
            expected = torch.zeros_like(p) if expected is None else expected
            error, size = (
                float((ours.get(name, torch.zeros_like(p)) - expected).norm()),
                float(expected.norm()),
            )
            if not error <= 1e-3 * size + 1e-5 * scale:
                raise ConfigError(
                    f"the per-record gradients of {name} do not add up to its gradient (off by {error:.2g}, "
                    f"of {size:.2g}). The model uses it outside its own layer's call; train it through that "
                    "layer only, or leave it out."
                )

    def _gradients(self, losses: Losses) -> tuple[Tensor, dict[str, ParameterGradient]]:
        """Run forward and backward once: losses [B] and every used parameter's per-record gradients."""
        with self._recording() as calls:
            values = losses()
        if values.dim() != 1 or not values.is_floating_point():
            raise ConfigError(
                f"losses must be one float for each record, [B]; got {values.dtype} {list(values.shape)}."
            )
        for layer, uses in calls.items():
            self._require_records_first(layer, uses, len(values))
        outputs = [call.output for uses in calls.values() for call in uses]
        if not outputs or not values.requires_grad or len(values) == 0:
            return values.detach(), {}
        if not self._separate and len(values) > 1:
            _require_separate_records(values, outputs)
            self._separate = True
        grads = list(torch.autograd.grad(values.sum(), outputs, allow_unused=True))
        gradients = {}
        while calls:  # from the last layer to the first, letting go of what is done
            layer, uses = calls.popitem()
            used = [(call.input, g) for call in reversed(uses) if (g := grads.pop()) is not None]
            for parameter, name in self._layers[layer].items() if used else ():
                inputs, output_grads = map(list, zip(*used, strict=True))
                found = parameter_gradient(layer, parameter, inputs, output_grads, self._rooms.get(name))
                if isinstance(found, StoredGradient):
                    self._rooms[name] = found.values
                gradients[name] = found
        return values.detach(), gradients

    def _norms(self, values: Tensor, gradients: dict[str, ParameterGradient]) -> Tensor:
        """Norm [B] of each record's whole gradient, over all parameters together."""
        squared = torch.zeros_like(values, dtype=torch.float32)
        for gradient in gradients.values():
            squared = squared + gradient.squared_norms(self.precision.rounding)
        return squared.sqrt()

    @contextmanager
    def _recording(self) -> Iterator[dict[nn.Module, list[_Call]]]:
        """Note every call of a trained layer; parameters need no gradient meanwhile."""
        calls: dict[nn.Module, list[_Call]] = {}

        def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_()  # nothing before this layer is trained: the graph starts here
            given = (args[0] if args else kwargs["input"]).detach()
            calls.setdefault(layer, []).append(_Call(given, given._version, get_gradient_edge(output)))

        handles = []
        try:
            with self._requiring_gradients(set()):
                for layer in self._layers:
                    handles.append(layer.register_forward_hook(note, prepend=True, with_kwargs=True))
                yield calls
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _requiring_gradients(self, chosen: set[nn.Parameter]) -> Iterator[None]:
        before = [(p, p.requires_grad) for p in self._model.parameters()]
        try:
            for p, _ in before:
                p.requires_grad_(p in chosen)
            with torch.enable_grad():
                yield
        finally:
            for p, required in before:
                p.requires_grad_(required)

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        """Let dropout repeat itself."""
        devices = {p.device for p in self._parameters.values() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(0)
            yield

    def _require_records_first(self, layer: nn.Module, uses: list[_Call], B: int) -> None:
        name = " and ".join(self._layers[layer].values())
        features = 0 if isinstance(layer, nn.Embedding) else len(getattr(layer, "normalized_shape", (1,)))
        for call in uses:
            if call.input.dim() <= features or len(call.input) != B:
                raise ConfigError(
                    f"the layer of {name} was fed {list(call.input.shape)} in a chunk of {B} records; the "
                    "first dimension must be the record. Expand what records share, such as positions."
                )
            if call.input._version != call.version:
                raise ConfigError(
                    f"the input of the layer of {name} was changed in place after the layer had used it, so "
                    "its gradient cannot be known; write x = x + y instead of x += y."
                )


def _owners(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[nn.Module, dict[str, str]]:
    """Find the layer of each parameter: {layer: {"weight" or "bias": name}}. Refuse what we cannot clip."""
    places: dict[nn.Parameter, list[tuple[str, nn.Module, str]]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, _MIXING):
            raise PrivacyError(
                f"layer {path} ({type(layer).__name__}) mixes the records of a batch; use LayerNorm."
            )
        for attribute, p in layer.named_parameters(recurse=False):
            places.setdefault(p, []).append((path, layer, attribute))
    owners: dict[nn.Module, dict[str, str]] = {}
    for name, p in parameters.items():
        found = places.get(p, [])
        if len(found) != 1:
            where = " and ".join(f"{path}.{attribute}" for path, _, attribute in found) or "none of the model"
            raise ConfigError(f"parameter {name} must belong to one layer, but belongs to {where}.")
        path, layer, attribute = found[0]
        if type(layer) not in SUPPORTED or attribute not in ("weight", "bias"):
            kinds = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise ConfigError(
                f"parameter {name} sits in {path or 'the model itself'} ({type(layer).__name__}), whose "
                f"per-record gradients are not known; train {kinds} only, and freeze the rest."
            )
        if isinstance(layer, nn.Embedding):
            options = ("padding_idx", "max_norm", "sparse", "scale_grad_by_freq")
            unusual = [o for o in options if getattr(layer, o) is not None and getattr(layer, o) is not False]
            if unusual:
                raise ConfigError(
                    f"embedding {path} sets {', '.join(unusual)}, which changes its gradient in a way that "
                    "clipping each record does not follow; leave it out."
                )
        owners.setdefault(layer, {})[attribute] = name
    return owners


def _require_separate_records(losses: Tensor, outputs: list[GradientEdge]) -> None:
    """Raise if the loss of an even row depends on a layer's output for an odd row, or the other way."""
    for rows in (0, 1):
        if any(
            g is not None and bool((g[1 - rows :: 2].abs() > 0).any())
            for g in torch.autograd.grad(losses[rows::2].sum(), outputs, retain_graph=True, allow_unused=True)
        ):
            raise PrivacyError(
                "a record's loss depends on other records of its chunk, so clipping cannot bound its "
                "influence. Remove what mixes records: batch statistics, shared position ids, a batch loss."
            )


def _counted(losses: Tensor, norms: Tensor, records: int | None) -> Tensor:
    """Mask [B] of the records that count: finite, and not padding."""
    counted = losses.isfinite() & norms.isfinite()
    if records is not None:
        if not 0 <= records <= len(losses):
            raise ConfigError(
                f"records must be from 0 to the {len(losses)} rows of the chunk; got {records}."
            )
        counted[records:] = False
    return counted


def _weighted_sums(
    gradients: dict[str, ParameterGradient], factors: Tensor, counted: Tensor
) -> dict[str, Tensor]:
    """Add up the counted records times their factors; the others leave no trace."""
    if not bool(counted.all()):
        factors = factors.masked_fill(~counted, 0.0)
        for gradient in gradients.values():
            gradient.drop(~counted)
    return {name: gradient.weighted_sum(factors) for name, gradient in gradients.items()}


def _zero_sum(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        yield
    finally:
        torch.set_float32_matmul_precision(before)
