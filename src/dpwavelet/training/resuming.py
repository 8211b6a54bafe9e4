"""A private run on disk, from which it goes on with the same key after it was killed."""

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpwavelet.checkpoint import read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import PrivacyError
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.training.adam import Adam
from dpwavelet.training.settings import PrivateTraining

KEY, STATE = "run.json", "state.safetensors"  # the names of its files

_OTHER = {
    "records": "other records, or for the same in another order or with other captions; restore those, or "
    "begin a new run in another --out",
    "start": "another model to start from; restore its folder, or begin a new run in another --out",
}


def kept_source(folder: Path) -> Source:
    """The source of the run that was begun in this folder."""
    return Source(bytes.fromhex(read_json(folder / KEY)["key"]))


class Checkpoint:
    """A private run on disk: the key of its randomness, its plan, and the optimizer after some step."""

    def __init__(
        self,
        folder: Path,
        plan: PrivacyPlan,
        settings: PrivateTraining,
        run: str,
        ranks: int = 1,
        device: str = "cpu",
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more` is what else decides the sums that noise is added to."""
        self.run, self.folder, self.key_path, self.state_path = run, folder, folder / KEY, folder / STATE
        self.identity: dict[str, Any] = {"run": run, "plan": plan.to_json(), "settings": asdict(settings)}
        # Another number of ranks, or another device, would add up the same batch to a slightly different sum.
        self.identity |= {"ranks": ranks, "device": device}
        if settings.emphases is not None:  # another table would put the same noise on another sum
            self.identity["emphasis"] = settings.emphases
        self.identity |= more or {}

    def source(self, records: str | None = None, start: str | None = None) -> Source:
        """The source of this run: restored if the run was begun, else keyed by the system and kept.

        `records` and `start` are digests, of the records and of the model that training starts from. The
        key is for these alone: the same noise on another sum would show the difference of the two sums.
        """
        bound = {"records": records, "start": start}
        bound = {name: digest for name, digest in bound.items() if digest is not None}
        if self.key_path.is_file():
            kept = read_json(self.key_path)
            for name, digest in bound.items():
                if kept.setdefault(name, digest) != digest:
                    raise PrivacyError(f"{self.key_path.parent} holds the key for {_OTHER[name]}.")
            if {name: kept.get(name) for name in self.identity} != self.identity:
                raise PrivacyError(
                    f"{self.key_path.parent} belongs to another run, plan or settings, or to another number "
                    "of processes or device; resume it unchanged, or begin a new run in another --out."
                )
            self._keep(kept)
            return Source(bytes.fromhex(kept["key"]))
        if self.state_path.exists():
            raise PrivacyError(
                f"{self.state_path} has no run.json beside it, so its randomness is lost; begin anew."
            )
        source = Source()
        self._keep(self.identity | bound | {"key": source.key.hex()})
        return source

    def _keep(self, told: Mapping[str, Any]) -> None:
        if not self.key_path.is_file() or read_json(self.key_path) != told:
            write_json(self.key_path, told)
            self.key_path.chmod(0o600)

    def save(self, optimizer: Adam, steps_done: int) -> None:
        """Replace the state by the one after `steps_done` steps."""
        own = {"steps": torch.tensor(steps_done), "of": self._seal()}
        write_tensors(self.state_path, optimizer.state() | own)

    def _seal(self) -> Tensor:
        """What marks a state as this run's: a digest of its key."""
        key = bytes.fromhex(read_json(self.key_path)["key"])
        return torch.frombuffer(bytearray(sha256(key).digest()), dtype=torch.uint8)

    def load(self, optimizer: Adam) -> int:
        """Restore the optimizer; the number of steps it has taken."""
        if not self.state_path.is_file():
            return 0
        tensors = read_tensors(self.state_path)
        steps = int(tensors.pop("steps"))
        if not torch.equal(tensors.pop("of", torch.empty(0)), self._seal()):
            raise PrivacyError(
                f"{self.state_path} was not written by this run, which would go on from what another learnt; "
                "restore its own, or begin a new run in another --out."
            )
        optimizer.restore(tensors)
        return steps
