"""A function of a model and tensors as one graph, for `torch.compile` to take whole."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

Result = TypeVar("Result")


class _Call(nn.Module):
    """The function as a module, so that the weights of `model` can be given with each call."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def compiled(
    model: nn.Module, function: Callable[..., Result], *example: Any, backend: str
) -> Callable[..., Result]:
    """`function`, compiled for arguments shaped like `example`; it sees the model's weights of each call.

    What runs is recorded once, backward included. So the function must not branch on values, and whatever
    it reads beside the model and its arguments is frozen. A number that the function rounds to bfloat16 is
    rounded in the graph too, where Inductor would leave that out between two steps that it merges: bounds on
    norms rest on it.
    """
    options: dict[str, Any] | None = {"emulate_precision_casts": True} if backend == "inductor" else None

    def pure(weights: dict[str, torch.Tensor], *arguments: Any) -> Any:
        return functional_call(call, weights, arguments)

    call = _Call(model, function)
    recorded = make_fx(pure)(_weights(call), *example)
    graph = torch.compile(recorded, fullgraph=True, backend=backend, options=options)
    return lambda *arguments: graph(_weights(call), *arguments)


def _weights(call: nn.Module) -> dict[str, torch.Tensor]:
    named = (*call.named_parameters(), *call.named_buffers())
    return {name: tensor.detach() for name, tensor in named}
