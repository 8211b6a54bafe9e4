"""What is trained: any model with one loss a record, and those of its parameters that the settings name."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dpwavelet.adapters import adapt, size
from dpwavelet.records import Shaped
from dpwavelet.training.settings import PrivateTraining
from dpwavelet.transformer import RecordLosses


class TokenModel(Shaped, Protocol):
    """What can be trained here: an `nn.Module` with one loss a record, a function of that record alone."""

    @property
    def identity(self) -> str:
        """What decides a loss beside weights and records, in words."""
        ...

    @property
    def blocks(self) -> torch.nn.Module:
        """The part whose Linears "lora" puts pairs beside."""
        ...

    def losses(self, captions: Tensor, tokens: Sequence[Tensor]) -> RecordLosses:
        """Losses of captions [B, L], padded with PAD, and token ids [B, N] of each private scale."""
        ...


M = TypeVar("M", bound=TokenModel)


def learner(transformer: M, settings: PrivateTraining) -> tuple[M, dict[str, torch.nn.Parameter]]:
    """A copy that computes the same, and those of its parameters that are trained; `merge` makes it plain."""
    student = deepcopy(transformer)
    if settings.parameters == "lora":
        adapt(student.blocks, settings.rank)
    named = module_of(student).named_parameters()
    return student, {name: p for name, p in named if settings.trained(name)}


def trained_parameters(transformer: TokenModel, settings: PrivateTraining) -> int:
    """How many numbers get noise in every step."""
    if settings.parameters == "lora":
        return size(transformer.blocks, settings.rank)
    named = module_of(transformer).named_parameters()
    return sum(p.numel() for name, p in named if settings.trained(name))


def module_of(transformer: TokenModel) -> torch.nn.Module:
    """The same object, as torch sees it."""
    assert isinstance(transformer, torch.nn.Module)
    return transformer


def device_of(transformer: TokenModel) -> torch.device:
    """Where its weights are, and where it computes."""
    return next(module_of(transformer).parameters()).device
