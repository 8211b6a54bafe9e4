"""One public training run of several stages: which it is, how far it has come, its curves and its card."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpwavelet.checkpoint import read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError
from dpwavelet.features import FeatureNetwork, digest_of
from dpwavelet.images.public import PublicImages
from dpwavelet.pretraining.loop import Note, Schedule, finished, restore

K = TypeVar("K", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """What every public training says; each adds a `Schedule` for every stage."""

    preset: str = "thumb"
    seed: int = 0
    drawn_heads: int = 12_000  # beside the images, where a generator learns from both
    names: tuple[str, ...] = ()  # of the data set, as others know it: private data of that name is refused
    features: Path | None = None  # folder of the network to learn details by; the one that ships unless given
    terms: str = ""  # under which the images may be used; every release that starts from here tells them

    def scaled(self, share: float) -> Self:
        """The same run with a share of its steps."""
        own = ((each.name, getattr(self, each.name)) for each in fields(self))
        changes: dict[str, Any] = {n: value.scaled(share) for n, value in own if isinstance(value, Schedule)}
        return replace(self, drawn_heads=int(self.drawn_heads * min(share, 1)), **changes)

    def check_same(self, work: Path, images: str) -> None:
        """Refuse to go on from the work of a different run, or of other images; `images` is their digest."""
        check_same(work, {**self._recipe(), "learns_from": images})

    def _recipe(self) -> dict[str, Any]:
        """What decides the weights, without what is merely said of the images."""
        told = {n: v for n, v in asdict(self).items() if n not in ("names", "terms", "features")}
        return told | ({"features": digest_of(self.features)} if self.features else {})

    def looker(self) -> FeatureNetwork:
        """The feature network by which details are learned, frozen."""
        return FeatureNetwork.from_pretrained(self.features)

    def card(self, system: str, images: PublicImages, log: "Log") -> dict[str, Any]:
        """What the folder of weights says of itself."""
        said = {"data": self.terms} if self.terms else {}
        return {
            "name": f"{system} {self.preset}, public weights",
            **said,
            "trained_on": {
                "names": list(self.names),
                "images": len(images),
                "drawn_heads": self.drawn_heads,
                "form": images.folder.layout,
                "privacy": "none: public images only; no promise is made to them",
            },
            "run": self._recipe(),
            "stages": log.summary(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        }


def check_same(work: Path, told: Mapping[str, Any]) -> None:
    """Refuse to go on from work of which something else is told; write down what this is if it is new."""
    path, wanted = work / "run.json", json.loads(json.dumps(told))
    if not path.is_file():
        if any(work.glob("*.safetensors")):
            raise ConfigError(f"{work} does not say whose work it is; delete it or choose another --out.")
        write_json(path, wanted)
    elif read_json(path) != wanted:
        raise ConfigError(
            f"{work} holds another run, or one that learned from other images (see run.json); delete it or "
            "choose another --out."
        )


class Log:
    """Curves on disk, one JSON object a line, and passed on to whoever watches."""

    def __init__(self, path: Path, note: Note, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.note, self.clock = path, note, clock
        self.since = clock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """A stage begins, or goes on: minutes count from here."""
        self.since = self.clock()

    def __call__(self, stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        """Add what a step of a stage tells, and the minutes since the last time."""
        now = self.clock()
        line = {"stage": stage, "step": step, "steps": steps, "minutes": (now - self.since) / 60, **numbers}
        self.since = now
        with self.path.open("a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")  # the line before was torn, as when a disk is full
            file.write(json.dumps(line).encode() + b"\n")
        self.note(stage, step, steps, numbers)

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        """What was told, without lines that an interruption tore."""
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else []
        for text in lines:
            with suppress(ValueError):
                if isinstance(line := json.loads(text), dict) and "stage" in line:
                    yield line

    def summary(self) -> dict[str, dict[str, float]]:
        """Minutes in all, those of interrupted sessions included, and the last numbers of each stage."""
        stages: dict[str, dict[str, float]] = {}
        for line in self._lines():
            stage = stages.setdefault(line["stage"], {"minutes": 0.0})
            minutes = stage["minutes"] + line.get("minutes", 0.0)
            stage.update({name: round(value, 4) for name, value in line.items() if name != "stage"})
            stage["minutes"] = minutes
        return {name: stage | {"minutes": round(stage["minutes"], 2)} for name, stage in stages.items()}


def run_or_restore(
    state: Path, schedule: Schedule, network: nn.Module, within: str, train: Callable[[], None], log: Log
) -> None:
    """Train a stage; or, if `state` holds its end, give `network` what lies `within` it."""
    if finished(state, schedule):
        restore(state, network, within)
        return
    log.begin()
    train()


def remembered(path: Path, compute: Callable[[], NDArray[K]]) -> NDArray[K]:
    """A table that takes long to compute, from the file that an earlier session of the same run left."""
    if path.is_file():
        found: NDArray[K] = read_tensors(path)["table"].numpy()
        return found
    table = compute()
    write_tensors(path, {"table": torch.from_numpy(table)})
    return table
