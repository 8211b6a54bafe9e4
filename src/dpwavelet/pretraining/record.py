"""What a public training run leaves beside its weights: which run it is, and its curves."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.checkpoint import read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError
from dpwavelet.pretraining.loop import Note

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

K = TypeVar("K", bound=np.generic)


def check_same_run(work: Path, run: "DataclassInstance") -> None:
    """Refuse to go on from the work of a different run; write down which one this is if it is new."""
    path, wanted = work / "run.json", json.loads(json.dumps(asdict(run)))
    if not path.is_file():
        write_json(path, wanted)
    elif read_json(path) != wanted:
        raise ConfigError(f"{work} holds another run (see run.json); delete it or choose another --out.")


def remembered(path: Path, compute: Callable[[], NDArray[K]]) -> NDArray[K]:
    """A table that takes long to compute, from the file that an earlier session of the same run left."""
    if path.is_file():
        found: NDArray[K] = read_tensors(path)["table"].numpy()
        return found
    table = compute()
    write_tensors(path, {"table": torch.from_numpy(table)})
    return table


class Log:
    """Curves on disk, one JSON object a line, and passed on to whoever watches."""

    def __init__(self, path: Path, note: Note) -> None:
        self.path, self.note = path, note
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        """Add what a step of a stage tells."""
        self._add({"stage": stage, "step": step, "steps": steps, **numbers})
        self.note(stage, step, steps, numbers)

    def minutes(self, stage: str, minutes: float) -> None:
        """Add the time that this session spent on a stage; a resumed stage has several such lines."""
        self._add({"stage": stage, "minutes": minutes})

    def _add(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def summary(self) -> dict[str, dict[str, float]]:
        """Minutes in all and the last numbers of each stage."""
        stages: dict[str, dict[str, float]] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for text in lines:
            line = json.loads(text)
            stage = stages.setdefault(line.pop("stage"), {"minutes": 0.0})
            stage["minutes"] += line.pop("minutes", 0.0)
            stage.update({name: round(value, 4) for name, value in line.items()})
        return stages
