"""Several processes that train one model together, each with the units that are its own.

Every process, a *rank*, holds the same weights and the same secret key and draws the same batch of the whole
set, but computes its own units only. The clipped sums of all ranks are added up, and every rank adds the same
keyed noise to the result once, so all take the same step. The first rank leads: it alone opens images and
writes files. A rank that ends or hangs ends the others.

What ranks send each other (the key, tokens, sums without noise) is as secret as the records and travels
unencrypted: the network between them must be the owner's own.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, OutputError, PrivacyError
from dpwavelet.privacy.clipping import ClippedSum

PATIENCE = timedelta(minutes=10)  # how long a rank waits for another within a step
PREPARATION = timedelta(days=2)  # how long it waits for the lead to check and encode the images


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes that run the same steps at the same time; alone unless told otherwise."""

    rank: int = 0
    count: int = 1
    waiting: dist.ProcessGroup | None = None  # for what may take the lead hours; none if it is alone

    @property
    def lead(self) -> bool:
        """Whether this rank opens the images and writes the files."""
        return self.rank == 0

    def own(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the drawn units that this rank computes. Each unit belongs to one rank, for good."""
        own: NDArray[np.int64] = units[units % self.count == self.rank]
        return own

    def reduce(self, clipped: ClippedSum) -> ClippedSum:
        """Add up the clipped sums of all ranks, in their own float type.

        Guarantee: adding or removing one unit moves the result by at most `sensitivity`, because a unit is in
        the sum of one rank and every rank clipped to that norm; ranks that did not are refused.
        """
        norms = [norm for (norm,) in self._gather([clipped.sensitivity])]
        if any(norm != clipped.sensitivity for norm in norms):
            raise PrivacyError(
                f"the ranks clipped to different norms, {norms}, so their sum has no known sensitivity; "
                "start all of them with the same settings."
            )
        if self.waiting:
            with _ended_rank_told():
                for value in clipped.values.values():
                    dist.all_reduce(value)
        return clipped

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Each number, added up over all ranks."""
        return [sum(column) for column in zip(*self._gather(numbers), strict=True)]

    def meet(self) -> None:
        """Return once every rank is here."""
        self._gather([0.0])

    def share(self, make: Callable[[], bytes]) -> bytes:
        """What the lead makes, on every rank; only the lead calls `make`, and it may take its time."""
        content = make() if self.lead else b""
        if not self.waiting:
            return content
        size = torch.tensor([len(content)])
        with _ended_rank_told():
            dist.broadcast(size, 0, self.waiting)
            sent = torch.from_numpy(np.frombuffer(content.ljust(int(size)), np.uint8).copy())
            dist.broadcast(sent, 0, self.waiting)
        return sent.numpy().tobytes()

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Write the lead's values into the same tensors of every rank."""
        if self.waiting:
            with _ended_rank_told():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def leave(self) -> None:
        """Part for good, all at about the same time; files are then finished by the lead alone."""
        if self.waiting and dist.is_initialized():
            self.meet()
            dist.destroy_process_group()

    def _gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, in the order of ranks."""
        if not self.waiting:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.count)]
        with _ended_rank_told():
            dist.all_gather(found, own)
        return [one.tolist() for one in found]


ALONE = Ranks()


def device_named(device: str) -> torch.device:
    """What to compute on: cpu, cuda:N, or cuda, of which each process on a machine takes its own.

    Refuses a device that is not there. For a GPU it also tells cuBLAS, before it starts, to repeat itself,
    which `train_privately` needs.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise ConfigError(f"the device must be cpu, cuda or cuda:N, got {device!r}.")
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"the device {device} was asked for, but torch {torch.__version__} finds no GPU here; compute on "
            "the cpu, or install a torch that fits the GPU's driver."
        )
    several = _several()
    if several and device != "cuda":
        raise ConfigError(f"each process needs a GPU of its own, so say cuda for all of them, not {device}.")
    if several and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "the environment does not say LOCAL_RANK, by which a process takes a GPU of its own."
        )
    own = os.environ["LOCAL_RANK"] if several else device.partition(":")[2] or "0"
    if int(own) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no GPU of number {own}, only {torch.cuda.device_count()} in all; start at most one "
            "process for each, or name another with cuda:N."
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", int(own))


def _several() -> bool:
    """Whether the environment says that there are other processes; refused unless it says which this is."""
    size = os.environ.get("WORLD_SIZE", "1")
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    if size == "1":
        return False
    if not size.isdecimal() or (missing := [name for name in needed if name not in os.environ]):
        lacks = f"without {', '.join(missing)}" if size.isdecimal() else "which is no number"
        raise ConfigError(
            f"the environment has WORLD_SIZE={size}, {lacks}; start with torchrun, or unset WORLD_SIZE."
        )
    return True


@contextmanager
def joined(patience: timedelta = PATIENCE, device: str = "cpu") -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started, or be alone."""
    if not _several():
        yield ALONE
        return
    with met(patience, device_named(device)) as ranks:
        yield ranks


@contextmanager
def met(patience: timedelta, device: torch.device) -> Iterator[Ranks]:
    """Meet all processes of the environment, be it one; sums on a GPU travel by nccl, all else by gloo."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _ended_rank_told():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
        waiting = dist.new_group(timeout=PREPARATION, backend="gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), waiting)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _ended_rank_told() -> Iterator[None]:
    """Say in our words that another rank is gone."""
    try:
        yield
    except RuntimeError as error:  # the base of all that gloo, nccl and their store raise
        reason = str(error).split("] ", 1)[-1].split(". ")[0]
        raise OutputError(
            f"another process of this run has ended or hangs ({reason}). Nothing was released, and what was "
            "charged stays charged; put right what ended it, then start the same command again to go on."
        ) from error
