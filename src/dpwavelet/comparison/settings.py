"""What a table is asked to hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from dpwavelet.comparison.methods import SYSTEMS, Method
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import check_epsilon
from dpwavelet.privacy.refusals import check_allowed
from dpwavelet.ranks import device_named

Equal = Literal["records", "time"]
MOST_SEEDS = 10
FEWEST = 4  # pictures that a distance is told of
NO_PRIVACY = float("inf")
PLAIN_PACE = 0.25  # of a learning rate, without privacy: they were chosen for steps that are mostly noise


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where and how everything is computed: the same for all methods."""

    threads: int | None = None  # all cores unless given
    device: str = "cpu"  # or cuda, or cuda:N
    compiled: bool = False  # whether private steps are compiled, of the methods that can be

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}.")
        device_named(self.device)  # refuses one that is not there

    @property
    def identity(self) -> dict[str, str]:
        """What of it decides numbers by more than a rounding: the kind of device, if it is another."""
        kind = device_named(self.device).type
        return {} if kind == "cpu" else {"device": kind}


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Methods, budgets and seeds, and what is the same for all of them.

    One of two things must be said of the records. `stand_in`: anyone may see them. `spend`: they are private,
    and their owner accepts that the whole table costs at most this epsilon; see `consent`.
    """

    methods: tuple[Method, ...]
    epsilons: tuple[float, ...]  # infinity is training without privacy
    seeds: int = 2
    weights: Mapping[str, str] = field(default_factory=dict)  # folders of public weights, by system
    equal: Equal = "records"  # what every method gets as much of: records seen, or time to train
    delta: float | None = None
    records: int | None = None  # declared; the count, rounded down, unless given
    batch_size: int | None = None
    steps: int | None = None  # of ours, if time is equal
    split: str = "train"
    held_out: str = "test"
    pictures: int = 800
    features: str | None = None  # a folder of another feature network than the bundled one
    computing: Computing = field(default_factory=Computing)
    at_once: int = 1  # cells, each in a process with its share of the threads
    stand_in: bool = False
    spend: float | None = None
    allow: tuple[str, ...] = ()  # refusals that the owner overrules, where records are private
    ledger: Path | None = None  # the folder of the data-set ledgers, where records are private

    def __post_init__(self) -> None:
        if not self.methods or not self.epsilons:
            raise ConfigError("a table needs at least one method and one epsilon.")
        names = [method.name for method in self.methods]  # close shares print alike
        for what, given in (("methods", names), ("epsilons", self.epsilons)):
            if len(set(given)) < len(given):
                raise ConfigError(f"the {what} of a table must differ, got one twice.")
        if NO_PRIVACY in self.epsilons and any(method.chosen for method in self.methods):
            raise ConfigError(
                "pictures are chosen by a noisy sum, which has no meaning without privacy; make the table of "
                "epsilon inf without methods that are :chosen."
            )
        for epsilon in self.epsilons:
            if epsilon != NO_PRIVACY:
                check_epsilon(epsilon)
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise ConfigError(f"seeds must be from 1 to {MOST_SEEDS}, got {self.seeds}.")
        if self.equal not in get_args(Equal):
            raise ConfigError(f"equal must be {' or '.join(get_args(Equal))}, got {self.equal!r}.")
        if self.at_once < 1:
            raise ConfigError(f"at least one cell must be computed at once, got {self.at_once}.")
        if self.pictures < FEWEST:
            raise ConfigError(f"pictures must be at least {FEWEST}, got {self.pictures}.")
        if self.split == self.held_out:
            raise ConfigError(f"the held-out split must be another than {self.split!r}, which is trained on.")
        if unknown := sorted(set(self.weights) - set(SYSTEMS)):
            raise ConfigError(f"weights are given of {unknown[0]!r}; the systems are {', '.join(SYSTEMS)}.")
        check_allowed(self.allow)
        if self.stand_in and self.allow:
            raise ConfigError(
                f"--allow {self.allow[0]} overrules a refusal of private records, and of a "
                "--stand-in nothing is refused; leave it out."
            )
