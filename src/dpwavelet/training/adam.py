"""The optimizer. In private training it sees privatized gradients only, so there it is post-processing."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dpwavelet.errors import PrivacyError
from dpwavelet.training.settings import PrivateTraining

Gradients = dict[str, Tensor]


class Adam:
    """Adam on named gradients with warm-up and a schedule, and the running average of what it makes."""

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], settings: PrivateTraining, steps: int
    ) -> None:
        self.parameters, self.settings, self.steps = dict(parameters), settings, steps
        self.mean = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, gradients: Gradients, step: int) -> None:
        """Take step `step` (from 0); a parameter without a gradient stays."""
        rate = self.settings.learning_rate * self._schedule(step)
        decay = min(self.settings.average, (1 + step) / (10 + step))
        for name, gradient in gradients.items():
            mean, square, parameter = self.mean[name], self.square[name], self.parameters[name]
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.01)
            size = (square / (1 - 0.99 ** (step + 1))).sqrt_().add_(1e-8)
            parameter.addcdiv_(
                mean / (1 - 0.9 ** (step + 1)), size, value=-rate * self.settings.emphasis_of(name).rate
            )
            self.average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def release(self) -> None:
        """Put the average in the place of the weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.average[name])

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, by name."""
        kinds: dict[str, Mapping[str, Tensor]] = {
            "weight": self.parameters, "mean": self.mean, "square": self.square, "average": self.average,
        }  # fmt: skip
        return {
            f"{kind}.{name}": value.detach() for kind, table in kinds.items() for name, value in table.items()
        }

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        own = self.state()
        if own.keys() != tensors.keys():
            raise PrivacyError("the checkpoint is of another model or other settings; nothing was resumed.")
        for name, value in own.items():
            value.copy_(tensors[name])

    def _schedule(self, step: int) -> float:
        """The share of the learning rate that step `step` takes, above 0 and at most 1."""
        warm = max(self.settings.warmup * self.steps, 1)
        left = min((self.steps - step) / (self.steps - warm + 1), 1.0)  # of the steps after the warm-up
        after = {"linear": left, "cosine": math.sin(left * math.pi / 2) ** 2, "constant": 1.0}
        return min((step + 1) / warm, after[self.settings.schedule])
