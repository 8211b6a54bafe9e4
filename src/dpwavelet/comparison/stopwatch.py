"""What a training took, over all processes that took part in it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.memory import most_held

SECONDS_BETWEEN_NOTES = 5.0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Step:
    """One step of training."""

    seconds: float
    clipped: float  # share of its gradients that were


class Stopwatch:
    """Seconds of training, share of gradients clipped, most memory: what was before an interruption included.

    A step that is taken again counts as it was taken last. What a process did after its last note is lost.
    """

    def __init__(
        self,
        path: Path,
        memory: Callable[[], float | None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        known = read_json(path) if path.is_file() else {}
        self.path, self.clock, self.memory = path, clock, memory
        self.steps = {int(step): Step(*told) for step, told in known.get("steps", {}).items()}
        self.measuring = float(known.get("measuring", 0.0))  # seconds of what is learned of records besides
        self.before: float | None = known.get("peak_bytes")
        self.last = self.noted = clock()

    @property
    def seconds(self) -> float:
        """So far."""
        return sum(step.seconds for step in self.steps.values()) + self.clock() - self.last

    @property
    def clipped(self) -> float | None:
        """The share of gradients that were, over all steps."""
        return statistics.fmean(step.clipped for step in self.steps.values()) if self.steps else None

    @property
    def peak_bytes(self) -> float | None:
        """The most that any of the processes has held."""
        known = [value for value in (self.before, self.memory()) if value is not None]
        return max(known, default=None)

    def told(self, step: int, numbers: dict[str, float]) -> None:
        """Hear of a step, numbered from 1; now and then what is known is kept."""
        now = self.clock()
        self.steps[step] = Step(now - self.last, numbers["clipped"])
        self.last = now
        if now - self.noted > SECONDS_BETWEEN_NOTES:
            self.keep()

    def measured(self, seconds: float) -> None:
        """Hear what a likeness took, and keep it."""
        self.measuring = seconds
        self.keep()

    def keep(self) -> None:
        """Write it down."""
        self.noted = self.clock()
        steps = {str(step): [told.seconds, told.clipped] for step, told in self.steps.items()}
        write_json(self.path, {"steps": steps, "measuring": self.measuring, "peak_bytes": self.peak_bytes})


def peak_memory(device: torch.device = CPU) -> float | None:
    """The most bytes that this process has held so far, of a GPU if it computes on one."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    held = most_held()
    return None if held is None else float(held)
