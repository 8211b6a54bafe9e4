"""Clipped sums of per-record gradients, by book-keeping: one forward, one backward, then one product a layer.

While a chunk of records runs, hooks note what goes into each trained layer, and autograd gives the gradient
of each layer's output; ordinary weight gradients are never formed. Every record's norm and the clipped sum
follow from these. This module neither samples batches nor adds noise, and does not divide: it returns a sum
over records. The batch is the first dimension of everything that enters a trained layer.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import frexp, inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.compiled import compiled
from dpwavelet.privacy.layer_gradients import ParameterGradient, StoredGradient, Use, parameter_gradient
from dpwavelet.privacy.trained_layers import MIXED, owners, require_records_first, require_separate_records

SMALLEST = 1e-10  # clipping norm
LIGHTEST = 1 / 16  # weight of a parameter; the heaviest is one over this
MOST = 1024  # records of a chunk: float32 adds them up in one product, and its rounding was measured so far

Losses = Callable[..., Tensor]
"""Runs the model forward on the tensors of a chunk, records first, and returns one loss a record [B]."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How matrix products round, and how far below the bound we clip to make up for it."""

    matmul: Literal["highest", "medium"]
    rounding: float  # of one float32 factor, relative, as it enters a matrix product; bounded in each norm
    margin: float  # for all else: sums over a chunk and other records' activations round anew each time


PRECISIONS = {
    "exact": Precision(matmul="highest", rounding=0.0, margin=2.0**-13),
    # It may round to bfloat16; sums are float32.
    "fast": Precision(matmul="medium", rounding=2.0**-8, margin=2.0**-8),
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


Sums = tuple[dict[str, Tensor], Tensor, Tensor]
"""Sums by parameter name, and losses and norms [B]."""


@dataclass(frozen=True)
class _Call:
    """One use of a trained layer in a forward: its input, and where its output enters the graph."""

    input: Tensor
    version: int
    output: GradientEdge


@dataclass(frozen=True)
class _Compiled:
    """The compiled form of one loss on chunks of one shape."""

    losses: Losses
    shapes: list[tuple[torch.Size, torch.dtype]]
    run: Callable[..., Sums]


class RecordClipper:
    """Clips every record's gradient to `max_norm` and adds the records up.

        clipper = RecordClipper(model, max_norm=1.0)
        clipper.check(losses, *public_records)
        for chunk in batch:                                # as many as fit, none if the batch is empty
            clipper.accumulate(losses, *chunk)
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
    They may live in Linear, Embedding, LayerNorm and RMSNorm layers, and several layers may share one; any
    other place is refused.

    `weights` are by how much a parameter's gradient is multiplied before anything is measured, one unless
    given: what says little for its length leaves more of the bound to the others. Powers of two, since these
    round nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter] | None = None,
        *,
        max_norm: float,
        precision: Literal["exact", "fast"] = "exact",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not SMALLEST <= max_norm <= 1 / SMALLEST:
            raise ConfigError(
                f"max_norm must be from {SMALLEST} to {1 / SMALLEST}, got {max_norm}; it bounds what one "
                "record can change, and squares of much smaller or larger norms leave the range of float32."
            )
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
        if parameters is None:
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        weights = {} if weights is None else weights
        for name, weight in weights.items():
            if not (LIGHTEST <= weight <= 1 / LIGHTEST and frexp(weight)[0] == 0.5):
                raise ConfigError(
                    f"the weight of {name} must be a power of two from {LIGHTEST} to {1 / LIGHTEST:g}, which "
                    f"rounds nothing; got {weight}."
                )
        if unknown := sorted(set(weights) - set(parameters)):
            raise ConfigError(f"weights are given of what is not trained: {', '.join(unknown)}.")
        self.max_norm = max_norm
        self.precision = PRECISIONS[precision]
        self._weights = dict(weights)
        self._model = model
        self._parameters = dict(parameters)
        self._layers = owners(model, self._parameters)
        self._compiled: _Compiled | None = None
        self._separate = False  # whether records were seen to be independent of one another
        self._sums: dict[str, Tensor] = {}
        self._whole = True  # whether every chunk of them was added to all of them
        self._rooms: dict[str, Tensor] = {}  # memory of the last chunk's gradients, for the next chunk

    def accumulate(self, losses: Losses, *chunk: Tensor, records: int | None = None) -> RecordDiagnostics:
        """Add the records of one chunk to the sum; if losses or gradients raise, the sum stays as it was.

        Should adding them up raise, as when memory ends, a part is added, and nothing is done with it: this
        clipper refuses to go on.

        Rows from `records` on are padding: chunks of one shape keep every product's rounding independent of
        how many records were drawn.
        """
        self._require_whole()
        mask = _mask(chunk, records)
        chunk = tuple(one.contiguous() for one in chunk)
        with _matmul_precision(self.precision.matmul):
            sums, values, norms = self._run(losses, self.max_norm, mask, chunk)
            good = values.isfinite() & norms.isfinite()
            if not bool(good.all()):
                sums = self._without(~good, losses, mask, chunk)
        self._whole = False
        while sums:
            name, clipped = sums.popitem()
            if name in self._sums:
                self._sums[name].add_(clipped)
            else:  # in double precision: in single, rounding of many records that agree exceeds the margin
                self._sums[name] = clipped.to(torch.float64, copy=True)
        self._whole = True
        return RecordDiagnostics(values[:records], norms[:records])

    def finish(self) -> ClippedSum:
        """Hand over the sum of all chunks since the last call and start anew. No chunk makes a zero sum."""
        self._require_whole()
        sums, self._sums = self._sums, {}
        values = {
            name: sums[name] if name in sums else torch.zeros_like(p, dtype=torch.float64)
            for name, p in self._parameters.items()
        }
        return ClippedSum(values, sensitivity=self.max_norm)

    def _require_whole(self) -> None:
        """Raise if a chunk was added to some of the sums alone: added again, it would count twice there."""
        if not self._whole:
            raise PrivacyError("an earlier chunk was added up in part only; begin with a new clipper.")

    def check(self, losses: Losses, *records: Tensor) -> None:
        """Raise unless the sum without clipping equals autograd's gradient. For public or drawn records.

        Finds uses of a trained parameter that its layer does not show, such as `F.linear(x, table.weight)`,
        and losses that depend on other records.
        """
        with _matmul_precision("highest"):
            self._require_own_losses(losses, records, tolerance=1e-3)
            with self._same_random_numbers():
                ours, _, _ = self._sums_of(losses, inf, _mask(records, None), records)
            with self._same_random_numbers(), self._requiring_gradients(set(self._parameters.values())):
                total = losses(*records).sum()
                theirs = torch.autograd.grad(total, list(self._parameters.values()), allow_unused=True)
        named = zip(self._parameters, theirs, strict=True)
        expected = {name: g for name, g in named if g is not None}
        if wrong := _difference(self._unweighted(ours), expected, tolerance=1e-3):
            raise ConfigError(
                f"the per-record gradients do not add up to the gradient ({wrong}). The model uses the "
                "parameter outside its own layer's call; train it through that layer only, or leave it out."
            )

    def compile(self, losses: Losses, *records: Tensor, backend: str = "inductor") -> None:
        """From now on run `losses` on chunks of this shape as one compiled graph. For drawn records.

        Raises unless the compiled sum equals the one without compilation. Other losses and other shapes are
        refused from here on: the two forms round differently, and private records must not decide which one
        runs. What `losses` reads beside the model and its arguments is frozen. `backend` is that of
        `torch.compile`.
        """
        if not records or len(records[0]) < 2:
            raise ConfigError(
                "compile on two records or more; one does not show whether records are separate."
            )
        mask = _mask(records, None)
        tolerance = self.precision.margin + 16 * self.precision.rounding
        with _matmul_precision(self.precision.matmul), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler uses what torch has deprecated
            self._require_own_losses(losses, records, tolerance)
            norms = self._sums_of(losses, inf, mask, records)[2]
            bounds = [torch.tensor(bound, dtype=torch.float64) for bound in (inf, 0.5 * float(norms.min()))]
            function = partial(self._sums_of, losses)
            run = compiled(self._model, function, bounds[0], mask, records, backend=backend)
            for bound in bounds:  # without clipping, and with every record clipped
                ours, theirs = (self._unweighted(each(bound, mask, records)[0]) for each in (run, function))
                if wrong := _difference(ours, theirs, tolerance):
                    raise ConfigError(
                        f"the compiled sum is not the one without compilation ({wrong}); do not compile."
                    )
        self._compiled = _Compiled(losses, _shapes(records), run)

    def _weight(self, name: str) -> float:
        """What the gradient of this parameter is multiplied by."""
        return self._weights.get(name, 1.0)

    def _unweighted(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums as they are without weights, so that a light parameter is compared like any other."""
        return {name: value / self._weight(name) for name, value in sums.items()}

    def _run(self, losses: Losses, bound: float, mask: Tensor, chunk: tuple[Tensor, ...]) -> Sums:
        """`_sums_of` in the form that this clipper uses."""
        if self._compiled is None:
            return self._sums_of(losses, bound, mask, chunk, self._rooms)
        if losses is not self._compiled.losses or _shapes(chunk) != self._compiled.shapes:
            raise ConfigError(
                f"this clipper was compiled for other losses or shapes: {self._compiled.shapes}, not "
                f"{_shapes(chunk)}. Pass the same function and fill up short chunks (see `records`)."
            )
        return self._compiled.run(torch.tensor(bound, dtype=torch.float64), mask, chunk)

    def _sums_of(
        self,
        losses: Losses,
        bound: float | Tensor,
        mask: Tensor,
        chunk: tuple[Tensor, ...],
        rooms: dict[str, Tensor] | None = None,
    ) -> Sums:
        """Clip each record to `bound`, and add up those that the mask [B] gives weight one."""
        values, gradients = self._gradients(losses, chunk, {} if rooms is None else rooms)
        squared = torch.zeros_like(values, dtype=torch.float32)
        for name in gradients:
            measured = gradients[name].squared_norms(self.precision.rounding)
            squared = squared + self._weight(name) ** 2 * measured
        norms = squared.sqrt()
        factors = (bound / ((1 + self.precision.margin) * norms)).clamp(max=1.0) * mask
        sums = {}
        for name in list(gradients):  # letting go of each, for a sum takes memory too
            sums[name] = gradients.pop(name).weighted_sum(self._weight(name) * factors)
        return sums, values, norms

    def _without(
        self, bad: Tensor, losses: Losses, mask: Tensor, chunk: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """The sums with some good record in the row of every bad one, and no weight on it.

        Zero times not-a-number is not a number, so a bad record must not enter at all; and the other records
        must be computed in the same way as if it had been good.
        """
        if bool(bad.all()):
            return {}
        good = int((~bad).nonzero()[0])
        mended = tuple(torch.where(bad.view(-1, *[1] * (one.dim() - 1)), one[good], one) for one in chunk)
        sums, values, norms = self._run(losses, self.max_norm, mask.masked_fill(bad, 0.0), mended)
        if not bool((values.isfinite() & norms.isfinite()).all()):
            raise PrivacyError(
                "a loss or gradient that is not finite stays so when another record takes its row, so it "
                "does not come from the record alone; make the losses a function of their inputs."
            )
        return sums

    def _gradients(
        self, losses: Losses, chunk: tuple[Tensor, ...], rooms: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, ParameterGradient]]:
        """Run forward and backward once: losses [B] and every used parameter's per-record gradients."""
        before = self._versions()
        with self._recording() as calls:
            values = losses(*chunk)
        if self._versions() != before:
            raise PrivacyError(
                "the forward pass changed weights or buffers of the model, which would keep what it saw of "
                "private records without noise; freeze running statistics and drop max_norm of embeddings."
            )
        if values.dim() != 1 or not values.is_floating_point():
            raise ConfigError(
                f"losses must be one float for each record, [B]; got {values.dtype} {list(values.shape)}."
            )
        for layer, call in calls:
            self._require_usable(layer, call, len(values))
        outputs = [call.output for _, call in calls]
        if not outputs or not values.requires_grad or len(values) == 0:
            return values.detach(), {}
        if not self._separate and len(values) > 1:
            require_separate_records(values, outputs)
            self._separate = True
        uses: dict[str, list[Use]] = {}
        grads = torch.autograd.grad(values.sum(), outputs, allow_unused=True)
        for (layer, call), grad in zip(calls, grads, strict=True):
            for attribute, name in self._layers[layer].items() if grad is not None else ():
                uses.setdefault(name, []).append(Use(layer, attribute, call.input, grad))
        del calls, grads, outputs
        gradients = {}
        while uses:  # from the last parameter to the first, letting go of what is done
            name, own = uses.popitem()
            found = parameter_gradient(own, rooms.get(name))
            if isinstance(found, StoredGradient):
                rooms[name] = found.values
            gradients[name] = found
        return values.detach(), gradients

    def _require_own_losses(self, losses: Losses, records: tuple[Tensor, ...], tolerance: float) -> None:
        """Raise if the loss of one of the first rows changes with what stands in all the others."""
        with torch.no_grad(), self._same_random_numbers():
            values = losses(*records)
        for row in range(min(len(values), 4) if values.dim() == 1 else 0):
            rows = torch.full((len(values),), (row + 1) % len(values), device=values.device)
            rows[row] = row
            with torch.no_grad(), self._same_random_numbers():
                alone = losses(*(one[rows] for one in records))[row]
            if not torch.allclose(alone, values[row], rtol=tolerance, atol=1e-6, equal_nan=True):
                raise PrivacyError(MIXED)

    def _versions(self) -> list[int]:
        """How often each weight and buffer of the model was written to."""
        return [tensor._version for tensor in (*self._model.parameters(), *self._model.buffers())]

    @contextmanager
    def _recording(self) -> Iterator[list[tuple[nn.Module, _Call]]]:
        """Note every call of a trained layer; parameters need no gradient meanwhile."""
        calls: list[tuple[nn.Module, _Call]] = []

        def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_()  # nothing before this layer is trained: the graph starts here
            given = (args[0] if args else kwargs["input"]).detach()
            calls.append((layer, _Call(given, given._version, get_gradient_edge(output))))

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

    def _require_usable(self, layer: nn.Module, call: _Call, B: int) -> None:
        names = " and ".join(self._layers[layer].values())
        require_records_first(layer, names, call.input, B)
        if call.input._version != call.version:
            raise ConfigError(
                f"the input of the layer of {names} was changed in place after the layer had used it, so its "
                "gradient cannot be known; write x = x + y instead of x += y."
            )


def _mask(chunk: tuple[Tensor, ...], records: int | None) -> Tensor:
    """Weights [B] of the rows of a chunk: one for a record, zero for padding."""
    if not chunk:
        raise ConfigError("give the tensors of the chunk after the losses, each with the records first.")
    if torch.is_autocast_enabled(chunk[0].device.type):
        raise ConfigError(
            "autocast is on around the clipper, so norms and sums would be rounded to 16 bits; use it inside "
            "the losses, around the model alone."
        )
    if len(chunk[0]) > MOST:
        raise ConfigError(
            f"a chunk has at most {MOST} records, got {len(chunk[0])}: how one larger sum rounds was not "
            "measured. Accumulate smaller chunks; they add up in double precision."
        )
    mask = torch.ones(len(chunk[0]), device=chunk[0].device)
    if records is not None:
        if not 0 <= records <= len(mask):
            raise ConfigError(f"records must be from 0 to the {len(mask)} rows of the chunk; got {records}.")
        mask[records:] = 0.0
    return mask


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> str:
    """Name the first sum that is not the other's, or nothing."""
    scale = max((float(expected.norm()) for expected in theirs.values()), default=0.0)
    for name, known in {**theirs, **ours}.items():
        mine, expected = (side.get(name, torch.zeros_like(known)) for side in (ours, theirs))
        error, size = float((mine - expected).norm()), float(expected.norm())
        if not error <= tolerance * (size + 0.01 * scale):
            return f"{name} is off by {error:.2g}, of {size:.2g}"
    return ""


def _shapes(chunk: tuple[Tensor, ...]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(one.shape, one.dtype) for one in chunk]


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        yield
    finally:
        torch.set_float32_matmul_precision(before)
