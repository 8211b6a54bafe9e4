"""Watching a private run from outside: every released update, and how far each points along a record.

`train_privately` shows what `privatize` returned (`training.Released`), never the sum before the noise. From
the releases alone the weights of every step follow (Adam is post-processing), and with them the gradient that
each record would have had.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.records import PrivateTokens
from dpwavelet.training import Adam, PrivateTraining, learner
from dpwavelet.transformer import ImageTransformer

CHUNK = 64


class UpdateScores:
    """Adds up, over the steps of a run, how far the releases point along each record's gradient.

    A record that took part in a step pushed the release along its own gradient by its clipped norm, so its
    score is higher on average. The product of release and gradient is a directional derivative of the loss,
    found for a chunk of records at once.
    """

    def __init__(
        self, transformer: ImageTransformer, records: PrivateTokens, settings: PrivateTraining, steps: int
    ) -> None:
        self.scores: NDArray[np.float64] = np.zeros(len(records))
        self._records, self._settings = records, settings
        self._replica, trained = learner(transformer, settings)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        self._optimizer = Adam(trained, settings, steps)

    def __call__(self, step: int, released: Mapping[str, Tensor]) -> None:
        """Take in one release, in the order of the steps."""
        for start in range(0, len(self._records), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self._records)))
            self.scores[rows] += self._along(rows, released).double().numpy()
        self._optimizer.step(dict(released), step)

    def _along(self, rows: NDArray[np.int64], released: Mapping[str, Tensor]) -> Tensor:
        """d/dt loss(weights + t released) at t = 0 for each record, [B]."""
        captions, tokens = self._records.batch(rows, np.zeros_like(rows))
        names, weights = zip(*self._optimizer.parameters.items(), strict=True)
        with torch.enable_grad():
            found = self._replica.losses(captions, tokens)
            losses = found.image + self._settings.caption_weight * found.caption
            shares = torch.ones_like(losses, requires_grad=True)
            # The gradient of shares @ losses is linear in the shares, so what it adds to a product with the
            # release for each share is that record's own product. No record's gradient is ever formed.
            gradients = torch.autograd.grad(losses, weights, shares, create_graph=True, allow_unused=True)
            pairs = zip(names, gradients, strict=True)
            emphasis = self._settings.emphasis_of  # what was released is a sum of gradients so weighted
            products = [
                emphasis(name).weight * (g * released[name]).sum() for name, g in pairs if g is not None
            ]
            total = torch.stack(products).sum()
            return torch.autograd.grad(total, shares)[0]
