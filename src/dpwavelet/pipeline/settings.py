"""What a run is told, and the plan that follows from it. Nothing here has seen a record.

The number of records is declared by the owner, or rounded down to a stated granularity; batch and steps
follow from that declared number, never from the length of the data.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling
from dpwavelet.privacy.accounting import delta_for
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import check_allowed, check_numbers
from dpwavelet.ranks import place
from dpwavelet.training import PrivateTraining

GRANULARITY = 100  # an undeclared number of records is rounded down to a multiple of this
EPOCHS = 6  # how often a record takes part on average
DEFAULT_TRAINING = PrivateTraining()


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One private run, as the owner asks for it; what is left out is chosen by public rules."""

    epsilon: float
    delta: float | None = None
    records: int | None = None
    model: str = "thumb"
    batch_size: int | None = None
    steps: int | None = None
    max_norm: float = 1.0
    samples: int = 64
    captions: tuple[str, ...] = ()
    seed: int = 0
    group_by: str | None = None  # metadata field that names the person of a record: then people are the units
    ledger: Path | None = None  # the folder of the data-set ledgers; where it stands changes no result
    key: Path | None = None  # the file of the key that signs; one for all runs, or one each in private/keys
    device: str = "cpu"  # what everything is computed on: cpu, cuda or cuda:N
    allow: tuple[str, ...] = ()  # refusals that the owner overrules
    training: PrivateTraining = DEFAULT_TRAINING
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        check_allowed(self.allow)
        place(self.device)
        if self.samples < 0:
            raise ConfigError(f"samples must be at least 0, got {self.samples}.")
        if self.training.per_unit > 1 and self.group_by is None:
            raise ConfigError(
                f"{self.training.per_unit} records per person need people; name the field that tells whose a "
                "record is with --group-by."
            )

    @property
    def unit(self) -> str:
        """What is protected as one."""
        return "record" if self.group_by is None else "person"

    def to_json(self) -> dict[str, Any]:
        """The settings that make the result, as plain values, for `config.yaml`."""
        values = asdict(self) | {"captions": list(self.captions), "allow": list(check_allowed(self.allow))}
        del values["ledger"], values["key"], values["device"]  # the checkpoint keeps the kind of device
        return values


def declared(settings: RunSettings, found: int) -> int:
    """The number of records, or people, that is taken to be public: the owner's, or `found` rounded down."""
    if settings.records is not None:
        return settings.records
    return found // GRANULARITY * GRANULARITY if found >= GRANULARITY else found


def make_plan(settings: RunSettings, records: int) -> PrivacyPlan:
    """The plan for a declared number of records; batch and steps are chosen where the owner did not."""
    delta = delta_for(records) if settings.delta is None else settings.delta
    check_numbers(records, delta)
    batch_size = settings.batch_size or default_batch(records)
    steps = settings.steps or max(math.ceil(EPOCHS * records / batch_size), 1)
    return PrivacyPlan(
        epsilon=settings.epsilon,
        delta=delta,
        records=records,
        batch_size=batch_size,
        steps=steps,
        max_norm=settings.max_norm,
        unit=settings.unit,
        group_by=settings.group_by,
        per_unit=settings.training.per_unit,
    )


def default_batch(records: int) -> int:
    """A power of two near a sixteenth of the records, from 16 to 4,096."""
    return min(max(1 << max(round(math.log2(max(records, 1) / 16)), 0), 16), 4096)


def read_captions(path: Path) -> tuple[str, ...]:
    """Captions to sample with, one a line; they are the owner's public choice."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read captions from {path}: {error}; give a text file, one caption a line."
        ) from None
    captions = tuple(line.strip() for line in lines if line.strip())
    if not captions:
        raise ConfigError(f"{path} holds no caption; give a text file, one caption a line.")
    return captions
