"""Clipped sums of per-record gradients by Opacus, where one record takes several rows of a forward.

Opacus keeps a gradient for each row of a layer's input. A record is seen K times in one forward, with another
time and other noise each, and its loss is the mean over these draws. So its gradient is what its K rows bring
together, and that alone is measured and clipped: the sum over rows, since the loss has divided by K already.
All else, padding, records that are not finite, the margin and the sum, is `RecordClipper`'s.

Letters: B records, K draws, R = B K rows.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.clipping import Losses, RecordClipper
from dpwavelet.privacy.layer_gradients import ParameterGradient, StoredGradient
from dpwavelet.rivals.diffusion.networks import library

TOGETHER = (nn.Linear, nn.LayerNorm)  # Opacus sums over all that stands between record and features


class DrawClipper(RecordClipper):
    """`RecordClipper` on the gradients of Opacus: for any layer that it knows, at its price in memory.

    Guarantee: that of `RecordClipper`. Autograd's own gradient is the witness in `check`, record by record.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        *,
        max_norm: float,
        precision: Literal["exact", "fast"] = "exact",
    ) -> None:
        model.train()  # the hooks of Opacus do nothing in evaluation mode
        super().__init__(model, {}, max_norm=max_norm, precision=precision)
        self._parameters = dict(parameters)
        self._opacus = library("opacus", "bench")

    def check(self, losses: Losses, *records: Tensor) -> None:
        """As of `RecordClipper`, and the gradient of every single one of the records is autograd's."""
        super().check(losses, *records)
        _, found = self._gradients(losses, records, {})
        with self._requiring_gradients(set(self._parameters.values())):
            for row, loss in enumerate(losses(*records)):
                expected = torch.autograd.grad(
                    loss, list(self._parameters.values()), retain_graph=True, materialize_grads=True
                )
                chosen = torch.zeros(len(records[0]), device=loss.device)
                chosen[row] = 1.0
                for (name, gradient), wanted in zip(found.items(), expected, strict=True):
                    error = float((gradient.weighted_sum(chosen) - wanted).norm())
                    if not error <= 1e-3 * float(wanted.norm()) + 1e-6:
                        raise ConfigError(
                            f"the gradient of {name} for record {row} is off by {error:.2g}, of "
                            f"{float(wanted.norm()):.2g}; leave that parameter out."
                        )

    def _gradients(
        self, losses: Losses, chunk: tuple[Tensor, ...], rooms: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, ParameterGradient]]:
        """Run forward and backward once: losses [B] and every parameter's per-record gradients."""
        B = len(chunk[0])
        with self._requiring_gradients(set(self._parameters.values())), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing")  # after frozen layers
            hooks = self._opacus.GradSampleModule(self._model, loss_reduction="sum")
            hooks.rearrange_grad_samples = partial(_together, B, hooks.rearrange_grad_samples)
            before = self._versions()
            try:
                values = losses(*chunk)
                if self._versions() != before:
                    raise PrivacyError(
                        "the forward pass changed weights or buffers of the model, which would keep what it "
                        "saw of private records without noise; freeze running statistics."
                    )
                if values.dim() != 1 or len(values) != B:
                    raise ConfigError(
                        f"losses must be one for each of {B} records; got {list(values.shape)}."
                    )
                values.sum().backward()  # type: ignore[no-untyped-call]  # torch's own signature
                found: dict[str, ParameterGradient] = {
                    name: StoredGradient(_of_records(name, p, B)) for name, p in self._parameters.items()
                }
            finally:
                hooks.to_standard_module()
                for p in self._parameters.values():
                    p.grad = None
        return values.detach(), found


def _together(
    B: int, rearranged: Any, *, module: nn.Module, backprops: Tensor, **how: Any
) -> tuple[list[Tensor], Tensor]:
    """What Opacus makes a gradient of, in single precision, the rows of a record lined up as its positions.

    One gradient a record instead of one a row: the same sum, and K times less memory.
    """
    inputs, backprops = rearranged(module=module, backprops=backprops, **how)
    inputs = [each.float() if each.is_floating_point() else each for each in inputs]
    backprops = backprops.float()
    if type(module) in TOGETHER and len(backprops) > B:
        inputs = [each.reshape(B, -1, *each.shape[1:]) for each in inputs]
        backprops = backprops.reshape(B, -1, *backprops.shape[1:])
        module.max_batch_len = B  # type: ignore[assignment]  # where Opacus keeps how many there are
    return inputs, backprops


def _of_records(name: str, parameter: Any, B: int) -> Tensor:
    """The gradients [B, *parameter] of the records, zero if the losses do not use the parameter."""
    rows: Tensor | None = parameter.grad_sample
    if rows is None:
        return torch.zeros(B, *parameter.shape, device=parameter.device)
    if len(rows) % B:
        raise ConfigError(
            f"the layer of {name} was fed {len(rows)} rows in a chunk of {B} records; the first dimension "
            "must be the record. Expand what records share, such as positions."
        )
    return rows if len(rows) == B else rows.reshape(B, -1, *rows.shape[1:]).sum(1)
