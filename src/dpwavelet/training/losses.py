"""One loss a record and one a unit, each a function of that record or unit alone.

Letters: B units of a batch, k records of one unit in a step, v views of a record.
"""

import numpy as np
import torch
from torch import Tensor

from dpwavelet.precision import mixed_precision
from dpwavelet.records import PrivateTokens
from dpwavelet.training.learners import TokenModel, device_of
from dpwavelet.training.settings import PrivateTraining


def record_losses(
    transformer: TokenModel,
    settings: PrivateTraining,
    scales: tuple[int, ...],
    captions: Tensor,
    tokens: Tensor,
    dropped: Tensor,
) -> Tensor:
    """One loss a record [B]: means over that record's own tokens, never over a batch."""
    with mixed_precision(device_of(transformer), settings.mixed_precision):
        losses = transformer.losses(captions, torch.split(tokens, list(scales), dim=1))
    # A dropped caption teaches drawing without one, not that captions are empty.
    return losses.image + settings.caption_weight * losses.caption * ~dropped


def unit_losses(
    transformer: TokenModel,
    settings: PrivateTraining,
    scales: tuple[int, ...],
    captions: Tensor,
    tokens: Tensor,
    dropped: Tensor,
    shares: Tensor,
) -> Tensor:
    """One loss a unit [B], from [B, k v] views of its records: their mean.

    Each view runs in a forward of its own, in the unit's row of the chunk. The clipper adds up all uses of a
    layer within a row, so it measures and clips the gradient of the whole unit.
    """
    of_each = zip(*(each.unbind(1) for each in (captions, tokens, dropped, shares)), strict=True)
    return torch.stack(
        [record_losses(transformer, settings, scales, *record) * share for *record, share in of_each]
    ).sum(0)


@torch.no_grad()
def held_out_loss(transformer: TokenModel, records: PrivateTokens, chunk: int = 128) -> float:
    """Mean cross-entropy, in nats per image token, of records with their first caption.

    On private records this is a private number: it belongs in `private/` and is not covered by the promise.
    """
    total, device = 0.0, device_of(transformer)
    for start in range(0, len(records), chunk):
        chosen = np.arange(start, min(start + chunk, len(records)))
        captions, tokens = records.batch(chosen, np.zeros_like(chosen))
        captions, tokens = captions.to(device), [ids.to(device) for ids in tokens]
        total += float(transformer.losses(captions, tokens).image.sum())
    return total / len(records)
