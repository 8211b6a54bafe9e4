"""The cells of a table: what is computed, under which plan, and by what name it is kept."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dpwavelet.checkpoint import canonical_json
from dpwavelet.comparison.methods import LEADING, Method, System, open_system, place_of, weights_digest
from dpwavelet.comparison.settings import NO_PRIVACY, PLAIN_PACE, TableSettings
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.likeness import CHOICES
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan
from dpwavelet.privacy.plan import PrivacyPlan

FORMAT = 1  # of what a cell computes: another number computes all of them anew
REAL = "real against real"
CELLS = "cells"  # the folder of what cells leave, below that of the table
USUAL_SIDE = 64  # of real pictures that are named without it, as all were once
LIKENESS = 0.1  # of epsilon: what a choice among pictures costs


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method, epsilon and seed. Without a method: real pictures in the place of generated ones."""

    method: Method | None
    epsilon: float  # 0 where no record is learned from, infinity where nothing is private
    seed: int
    batch_size: int = 0
    steps: int = 0
    plan: PrivacyPlan | None = None  # of private training
    about: Mapping[str, Any] = field(default_factory=dict)  # the rest of what decides the numbers

    @property
    def name(self) -> str:
        """What stands in the table."""
        return self.method.name if self.method else REAL

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the numbers, as plain values."""
        told = {
            "format": FORMAT,
            "method": self.method.recipe if self.method else REAL,
            "epsilon": epsilon_text(self.epsilon),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "plan": self.plan.to_json() if self.plan else None,
        }
        return {**told, **self.about, **({"choices": CHOICES} if self.chooses else {})}

    @property
    def chooses(self) -> bool:
        """Whether its plan pays for a likeness of the records, by which pictures are chosen."""
        return self.method is not None and self.method.chosen and self.plan is not None

    @property
    def digest(self) -> str:
        """The name of its files."""
        return hashlib.sha256(canonical_json(self.identity)).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is told of a method in advance, without any record."""

    method: Method
    place: Path  # of its public weights
    weights: str  # their digest
    image_size: int
    trained_parameters: int
    parameters: int
    max_norm: float  # of its plans
    settings: Mapping[str, Any]  # of its private training
    sampling: Mapping[str, Any]  # how it draws
    card: Mapping[str, Any]


def know(method: Method, settings: TableSettings) -> Known:
    """Open the public weights of a method and close them again."""
    place = place_of(method.system, settings.weights)
    system: System = open_system(method, place)
    return Known(
        method=method,
        place=place,
        weights=weights_digest(place),
        image_size=system.image_size,
        trained_parameters=system.rival.trained_parameters if method.trained else 0,
        parameters=system.parameters,
        max_norm=system.rival.max_norm,
        settings=system.settings,
        sampling=system.sampling,
        card=system.card,
    )


def shape_of(settings: TableSettings, found: int) -> PrivacyPlan:
    """The plan of a table before its epsilons are put in: declared number, delta, batch and steps."""
    asked = _asked(settings, 1.0, settings.batch_size, settings.steps)
    return make_plan(asked, declared(asked, found))


def plan_of(settings: TableSettings, found: int, epsilon: float, steps: int, known: Known) -> PrivacyPlan:
    """The plan of one private cell, made by the same function for every method."""
    batch_size = known.method.batch_of(shape_of(settings, found).batch_size)
    asked = _asked(settings, epsilon, batch_size, steps)
    likeness = LIKENESS * epsilon if known.method.chosen else None
    return make_plan(replace(asked, max_norm=known.max_norm, likeness=likeness), declared(asked, found))


def cells_of(
    settings: TableSettings,
    known: Mapping[str, Known],
    steps: Mapping[str, int],
    found: int,
    about: Mapping[str, Any],
) -> list[Cell]:
    """All cells, seed by seed; `known` and `steps` are of methods by name, `about` is of the data."""
    shape = shape_of(settings, found)
    plans = {
        (method.name, epsilon): plan_of(settings, found, epsilon, steps[method.name], known[method.name])
        for method in settings.methods
        for epsilon in _finite(settings)
        if method.trained
    }
    side = next(iter(known.values())).image_size
    real = about if side == USUAL_SIDE else {**about, "image_size": side}
    cells = []
    for seed in range(settings.seeds):
        cells.append(Cell(method=None, epsilon=0.0, seed=seed, about=real))
        for method in settings.methods:
            told = known[method.name]
            own = {
                **about,
                "weights": told.weights,
                "training": without_means(told.settings),
                "sampling": with_what_is_on(told.sampling),
            }
            for epsilon in settings.epsilons if method.trained else (0.0,):
                plain = {"pace": PLAIN_PACE} if epsilon == NO_PRIVACY else {}
                cells.append(
                    Cell(
                        method=method,
                        epsilon=epsilon,
                        seed=seed,
                        batch_size=method.batch_of(shape.batch_size) if method.trained else 0,
                        steps=steps[method.name] if method.trained else 0,
                        plan=plans.get((method.name, epsilon)),
                        about={**own, **plain},
                    )
                )
    return cells


def numbers_file(out: Path, digest: str) -> Path:
    """Where a cell keeps its identity and numbers."""
    return out / CELLS / f"{digest}.json"


def pictures_file(out: Path, digest: str) -> Path:
    """Where a cell keeps its pictures."""
    return out / CELLS / f"{digest}.safetensors"


def fingerprint(images: PrivateImages) -> str:
    """SHA-256 over all that is read of records: their files, captions and labels, in order."""
    told = [(list(images.captions(index)), images.label(index)) for index in range(len(images))]
    return hashlib.sha256(canonical_json([images.fingerprint(), images.names, told])).hexdigest()


def epsilon_text(epsilon: float) -> str:
    """As it is typed."""
    return f"{epsilon:g}"


def _asked(settings: TableSettings, epsilon: float, batch_size: int | None, steps: int | None) -> RunSettings:
    return RunSettings(
        epsilon=epsilon,
        delta=settings.delta,
        records=settings.records,
        batch_size=batch_size,
        steps=steps,
    )


def _finite(settings: TableSettings) -> list[float]:
    return [epsilon for epsilon in settings.epsilons if epsilon != NO_PRIVACY]


def with_what_is_on(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Ways to draw without those that came later and are off, so that cells of before keep their names."""
    later = *LEADING, "eta"
    return {name: value for name, value in sampling.items() if value or name not in later}


def without_means(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what changes no result beyond its rounding."""
    means = "charge_every", "chunk", "compiled"
    return {name: value for name, value in settings.items() if name not in means}
