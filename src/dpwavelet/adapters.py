"""Low-rank pairs beside frozen layers (LoRA, arXiv 2106.09685), and from them back to plain weights.

y = W x + U D x with W frozen. D is drawn from a public stream and U starts at zero, so an adapted model
computes at first what the model without pairs does, to the last bit. D and U are plain Linear layers and are
called as such, so clipping sees every use of every number that is trained.

Letters: i inputs, o outputs, r rank.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import torch_stream


class Adapted(nn.Module):
    """A frozen layer and the pair that is trained beside it."""

    def __init__(self, frozen: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        i, o = frozen.in_features, frozen.out_features
        if not 1 <= rank <= min(i, o):
            raise ConfigError(f"rank must be from 1 to {min(i, o)}, the smaller side of a layer; got {rank}.")
        self.frozen = frozen
        self.down, self.up = _empty(i, rank, frozen), _empty(rank, o, frozen)
        with torch.no_grad():
            self.down.weight.copy_(torch.randn(rank, i, generator=generator) / i**0.5)
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] to [..., o]."""
        y: Tensor = self.frozen(x) + self.up(self.down(x))
        return y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The frozen layer, with the pair added to its weight in place."""
        self.frozen.weight.add_(self.up.weight @ self.down.weight)
        return self.frozen


def adapt(model: nn.Module, rank: int) -> None:
    """Put a pair beside every Linear of `model`, in place; the same pairs every time."""
    for name, layer in list(_linears(model)):
        model.set_submodule(name, Adapted(layer, rank, torch_stream(0, "low-rank pairs", name)))


def merge(model: nn.Module) -> None:
    """Add every pair to the weights beside it, in place; the model has its plain form again."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Adapted):
            model.set_submodule(name, layer.merged())


def is_of_pair(name: str) -> bool:
    """Whether the parameter of this name, in an adapted model, belongs to a pair."""
    return name.endswith((".down.weight", ".up.weight"))


def size(model: nn.Module, rank: int) -> int:
    """How many numbers the pairs of `adapt` have."""
    return sum(rank * (layer.in_features + layer.out_features) for _, layer in _linears(model))


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))


def _empty(inputs: int, outputs: int, like: nn.Linear) -> nn.Linear:
    """A layer without values, which draws nothing from torch's own generator."""
    layer = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=like.weight.dtype)
    return layer.to_empty(device=like.weight.device)
