"""One public training stage: steps of AdamW that can stop anywhere and go on as if they had not stopped.

What step t sees depends on (seed, stage, t) alone, so a resumed stage repeats the original. The state of a
stage is one safetensors file: weights, buffers, both Adam moments and the number of steps done.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dpwavelet.checkpoint import read_tensor, read_tensors, write_tensors
from dpwavelet.errors import ConfigError

Note = Callable[[str, int, int, dict[str, float]], None]
"""Told (stage, step, steps, numbers) now and then."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a stage lasts and how it learns: warm up over a twentieth, then a cosine down to zero."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    save_every: int = 250

    def scaled(self, share: float) -> "Schedule":
        """The same with a share of the steps."""
        if not 0 < share < math.inf:
            raise ConfigError(f"the share of steps must be above 0 and finite, got {share}.")
        return replace(self, steps=max(int(self.steps * share), 10))

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = max(self.steps // 20, 1)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1)))


def run_stage(
    name: str,
    network: nn.Module,
    schedule: Schedule,
    step_loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    state: Path,
    note: Note,
    parameters: Iterable[nn.Parameter] | None = None,
) -> None:
    """Train `network` for `schedule.steps`, going on from `state` if that file is there."""
    trained = list(network.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.95), weight_decay=schedule.weight_decay)
    done = _load(state, network, optimizer, trained) if state.is_file() else 0
    told = time.monotonic()
    for step in range(done, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss, numbers = step_loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        finished = step + 1 == schedule.steps
        if finished or (step + 1) % schedule.save_every == 0:
            _save(state, network, optimizer, trained, step + 1)
        if finished or time.monotonic() - told > 10:
            told = time.monotonic()
            note(name, step + 1, schedule.steps, {"loss": float(loss.detach()), **numbers})


def finished(path: Path, schedule: Schedule) -> bool:
    """Whether `path` holds the end of a stage."""
    return path.is_file() and int(read_tensor(path, "step")) >= schedule.steps


def restore(path: Path, network: nn.Module, within: str = "") -> None:
    """Give `network` the weights and buffers that a stage ended with; it may be a part of those."""
    tensors, prefix = read_tensors(path), f"network.{within}"
    network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    for name, buffer in network.named_buffers():
        buffer.copy_(tensors[f"buffer.{within}{name}"])


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], step: int
) -> None:
    tensors = {"step": torch.tensor(step)}
    tensors |= {f"network.{name}": tensor for name, tensor in network.state_dict(keep_vars=False).items()}
    tensors |= {f"buffer.{name}": tensor for name, tensor in network.named_buffers()}
    for index, parameter in enumerate(trained):
        if moments := optimizer.state.get(parameter):
            tensors[f"mean.{index}"] = moments["exp_avg"]
            tensors[f"square.{index}"] = moments["exp_avg_sq"]
            tensors[f"count.{index}"] = moments["step"]  # fewer than `step` if some losses leave it out
    write_tensors(path, {name: tensor.clone() for name, tensor in tensors.items()})


def _load(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, trained: list[nn.Parameter]
) -> int:
    tensors = read_tensors(path)
    step = int(tensors["step"])
    network.load_state_dict(
        {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
    )
    for name, buffer in network.named_buffers():
        buffer.copy_(tensors[f"buffer.{name}"])
    for index, parameter in enumerate(trained):
        if f"mean.{index}" in tensors:
            optimizer.state[parameter] = {
                "step": tensors.get(f"count.{index}", torch.tensor(float(step))),
                "exp_avg": tensors[f"mean.{index}"],
                "exp_avg_sq": tensors[f"square.{index}"],
            }
    return step
