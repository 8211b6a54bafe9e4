"""What a run is told, and the model and plan that follow from it. Nothing here has seen a record.

The number of records is declared by the owner, or rounded down to a stated granularity; batch and steps
follow from that declared number, never from the length of the data.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import yaml

from dpwavelet.enlargers import DETAIL
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling
from dpwavelet.model import Model
from dpwavelet.pipeline.bought import check_captions, check_metrics
from dpwavelet.pipeline.likeness import CHOICES, check_choices
from dpwavelet.privacy.accounting import Event, Gaussian, calibrate_noise, delta_for
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import check_allowed, check_delta, check_numbers
from dpwavelet.ranks import device_named
from dpwavelet.training import PrivateTraining

GRANULARITY = 100  # an undeclared number of records is rounded down to a multiple of this
JUDGED = 600  # pictures that are drawn to be compared with the records
FEWEST = 20  # pictures below which nothing is compared
PASSES = {"record": 6, "person": 12}  # how often a unit takes part on average; of a person, one record a time
SHARE = {"record": 16, "person": 8}  # of the units, one in so many is the batch
WORK = 40_000  # records that even a run over few of them sees, as far as the largest batches allow
LARGEST = 1 / 2  # share of the units that a step may be made of, unless the owner says otherwise
MOST_PASSES = 1000
DEFAULT_TRAINING = PrivateTraining()


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One private run, as the owner asks for it; what is left out is chosen by public rules."""

    epsilon: float
    delta: float | None = None
    records: int | None = None
    model: str = "thumb"
    private_scales: int | None = (
        None  # so many coarse ones learn from records; those of the model unless given
    )
    batch_size: int | None = None
    steps: int | None = None
    passes: float | None = None  # how often a unit takes part on average, instead of steps
    caption_words: int | None = None  # most words and pieces that are learned of a caption; all that can be
    max_norm: float = 1.0
    samples: int = 64
    enlarger: str = DETAIL  # what makes full pictures of coarse ones, as `open_enlarger` reads it
    consistent: bool = True  # whether it must leave the coarse picture as it is
    captions: tuple[str, ...] = ()
    seed: int = 0
    group_by: str | None = None  # metadata field that names the person of a record: then people are the units
    ledger: Path | None = None  # the folder of the data-set ledgers; where it stands changes no result
    key: Path | None = None  # the file of the key that signs; one for all runs, or one each in private/keys
    device: str = "cpu"  # what everything is computed on: cpu, cuda or cuda:N
    allow: tuple[str, ...] = ()  # refusals that the owner overrules
    judged: int = JUDGED  # pictures to compare with the records, for the owner's eyes; 0 compares none
    release_metrics: tuple[str, ...] = ()  # numbers about the records to buy and publish
    metrics_epsilon: float | None = None  # the part of epsilon that they cost
    classes: tuple[str, ...] = ()  # public names that an accuracy tells apart
    warm_start: float | None = None  # the part of epsilon that a start nearer to the records costs
    likeness: float | None = None  # the part of epsilon that a choice among pictures costs
    choices: int = CHOICES  # pictures that are drawn for one that is kept, where there is a likeness
    training: PrivateTraining = DEFAULT_TRAINING
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        self._check_kinds()
        check_allowed(self.allow)
        device_named(self.device)
        if self.samples < 0:
            raise ConfigError(f"samples must be at least 0, got {self.samples}.")
        if self.passes is not None and not 0 < self.passes <= MOST_PASSES:
            raise ConfigError(f"passes must be above 0 and at most {MOST_PASSES}, got {self.passes}.")
        if self.passes is not None and self.steps is not None:
            raise ConfigError(
                f"passes and steps both say how long to train, got {self.passes:g} and {self.steps}; "
                "give one of them."
            )
        if self.judged < 0 or 0 < self.judged < FEWEST:
            raise ConfigError(
                f"judged (--judge) must be 0, which compares nothing, or at least {FEWEST} pictures, got "
                f"{self.judged}."
            )
        check_metrics(self.release_metrics, self.classes)
        if "accuracy" in self.release_metrics:
            check_captions(self.classes, self.captions)
        elif self.classes:
            raise ConfigError(
                "classes are what an accuracy tells apart, and none is bought; add --release-metrics "
                "accuracy, or leave out --classes."
            )
        if bool(self.release_metrics) != (self.metrics_epsilon is not None):
            raise ConfigError(
                "metrics to release and the epsilon that pays for them go together; give both "
                "--release-metrics and --metrics-epsilon, or neither."
            )
        for name in ("metrics_epsilon", "warm_start", "likeness"):
            part = getattr(self, name)
            if part is not None and not 0 < part < self.epsilon:
                raise ConfigError(
                    f"{name} must be above 0 and below epsilon, of which it is a part, got {part} of "
                    f"{self.epsilon}."
                )
        if self.caption_words is not None and self.caption_words < 0:
            raise ConfigError(f"caption_words must be at least 0, got {self.caption_words}.")
        check_choices(self.choices)
        if self.likeness is None and self.choices != CHOICES:
            raise ConfigError(
                f"{self.choices} choices need something to choose by; add --likeness, or leave out --choices."
            )
        if self.likeness is not None and self.choices == 1:
            raise ConfigError(
                "a likeness chooses among several pictures, and one leaves no choice; raise --choices."
            )
        if self.training.per_unit > 1 and self.group_by is None:
            raise ConfigError(
                f"{self.training.per_unit} records per person need people; name the field that tells whose a "
                "record is with --group-by."
            )

    def _check_kinds(self) -> None:
        """Refuse a text where a list is meant, which would be taken for a list of letters, and the like."""
        for name in ("allow", "captions", "classes", "release_metrics"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not all(isinstance(each, str) for each in value):
                raise ConfigError(f"{name} must be a list of texts, got {value!r}; one text is [text].")
            object.__setattr__(self, name, tuple(value))
        always = ("samples", "judged", "choices")
        for name in ("records", "private_scales", "batch_size", "steps", "caption_words", *always):
            value = getattr(self, name)
            if value is None and name not in always:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ConfigError(f"{name} must be a whole number, got {value!r}.")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.model, str | Path):
            raise ConfigError(f"model must be the name or folder of public weights, got {self.model!r}.")
        object.__setattr__(self, "model", str(self.model))

    @property
    def unit(self) -> str:
        """What is protected as one."""
        return "record" if self.group_by is None else "person"

    def to_json(self) -> dict[str, Any]:
        """The settings that make the result, as plain values, for `config.yaml`."""
        values = asdict(self) | {"allow": list(check_allowed(self.allow))}
        values |= {name: list(values[name]) for name in ("captions", "release_metrics", "classes")}
        for name in ("ledger", "key", "device", "judged"):  # the checkpoint keeps the kind of device
            del values[name]
        if self.likeness is None:  # runs of before knew neither
            del values["likeness"], values["choices"]
        if self.caption_words is None:
            del values["caption_words"]
        return values


def certified(settings: RunSettings) -> dict[str, Any]:
    """What a certificate tells of the settings beside the plan: public choices, and no place of a file."""
    values = settings.to_json()
    told = ("training", "sampling", "caption_words", "passes", "seed")
    return {name: values[name] for name in told if values.get(name) is not None}


def open_model(name: str, private_scales: int | None = None) -> Model:
    """The public weights of this name or in this folder, with so many private scales if a number is given."""
    model = Model.from_pretrained(name)
    if private_scales is None:
        return model
    most = model.tokenizer.config.scales
    if not 1 <= private_scales <= most:
        raise ConfigError(
            f"private_scales must be from 1 to {most}, the scales of {name}; got {private_scales}."
        )
    return replace(model, private_scales=private_scales)


def caption_length(model: Model, words: int | None) -> int:
    """Positions of a caption in private training, its beginning included: a public number, for every record.

    Attention skips what is empty, so a shorter row of which nothing is cut off gives the same losses in less
    time.
    """
    most = model.transformer.config.caption_length
    if words is None:
        return most
    if words >= most:
        raise ConfigError(
            f"caption_words must be at most {most - 1}, the most that the model reads; got {words}."
        )
    return words + 1


def declared(settings: RunSettings, found: int) -> int:
    """The number of records, or people, that is taken to be public: the owner's, or `found` rounded down."""
    if settings.records is not None:
        return settings.records
    return found // GRANULARITY * GRANULARITY if found >= GRANULARITY else found


def usual_delta(settings: RunSettings, records: int) -> float:
    """The delta of a declared number of records: below one over as many as may be there after rounding."""
    usual = delta_for(records)
    return usual if settings.records is not None else min(usual, 1 / (records + GRANULARITY))


def make_plan(settings: RunSettings, records: int) -> PrivacyPlan:
    """The plan for a declared number of records; batch and steps are chosen where the owner did not."""
    delta = usual_delta(settings, records) if settings.delta is None else settings.delta
    check_numbers(records, delta)
    passes = usual_passes(records, settings.unit) if settings.passes is None else settings.passes
    batch_size, steps = settings.batch_size, settings.steps
    if batch_size is None:
        batch_size = default_batch(records, settings.unit, settings.passes)
    if steps is None:
        steps = max(math.ceil(passes * records / max(batch_size, 1)), 1)
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
        others=_others(settings, delta),
    )


def plan_for(settings: RunSettings, found: int) -> PrivacyPlan:
    """The plan of a run on `found` units; a delta at which one of them could be published is refused."""
    plan = make_plan(settings, declared(settings, found))
    check_delta(plan.delta, found)
    return plan


def _others(settings: RunSettings, delta: float) -> tuple[Event, ...]:
    """Noisy sums over all records, for metrics, likeness and warm start, where there are any.

    Each has just the noise that it may cost. Their order is fixed, for by its place among them a sum finds
    its noise: `bought.BOUGHT`, `likeness_place` and `warm_place`.
    """
    shares = (settings.metrics_epsilon, settings.likeness, settings.warm_start)
    return tuple(_one_sum(share, delta) for share in shares if share is not None)


def _one_sum(epsilon: float, delta: float) -> Gaussian:
    return Gaussian(calibrate_noise(epsilon=epsilon, delta=delta, sampling_rate=1.0, steps=1), 1)


def likeness_place(settings: RunSettings) -> int | None:
    """The place of the likeness among `plan.others`: the first one, or that after the metrics."""
    return None if settings.likeness is None else int(settings.metrics_epsilon is not None)


def warm_place(settings: RunSettings) -> int | None:
    """The place of the warm start among `plan.others`: the first one that neither of those has."""
    before = sum(share is not None for share in (settings.metrics_epsilon, settings.likeness))
    return None if settings.warm_start is None else before


def cycled(captions: tuple[str, ...], count: int) -> list[str]:
    """So many captions to draw with, one after the other and again; empty ones where none are given."""
    given = captions or ("",)
    return [given[i % len(given)] for i in range(count)]


def usual_passes(records: int, unit: str = "record") -> float:
    """How often a unit takes part on average, where nothing else is asked for.

    Few units take part more often, in larger batches: the noise of a step is spread over more of them, and a
    run still takes no longer than over thousands.
    """
    most = PASSES[unit] * SHARE[unit] * LARGEST
    return max(PASSES[unit], min(WORK / max(records, 1), most))


def default_batch(records: int, unit: str = "record", passes: float | None = None) -> int:
    """A power of two near a sixteenth of the records, or an eighth of the people, from 16 to 4,096.

    People lend one record each time, so they take part in twice as many steps of twice the size. More passes
    make batches larger, as far as half of the units, and leave the number of steps. With fewer than usual the
    batch falls with their root, for too few steps waste what the records say.
    """
    usual = usual_passes(records, unit)
    wanted = usual if passes is None else passes
    size = records / SHARE[unit] / PASSES[unit] * max(wanted, math.sqrt(wanted * usual))
    return min(max(1 << round(math.log2(max(min(size, records * LARGEST), 1))), 16), 4096)


def spread(captions: tuple[str, ...], count: int) -> list[str]:
    """So many captions to draw with, from all of them evenly where there are more."""
    if len(captions) <= count:
        return cycled(captions, count)
    return [captions[i * len(captions) // count] for i in range(count)]


def read_captions(path: Path) -> tuple[str, ...]:
    """Captions to sample with, one a line; they are the owner's public choice."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read captions from {path}: {error}; give a text file, one caption a line."
        ) from None
    captions = tuple(line.strip() for line in lines if line.strip())
    if captions and all(line.startswith("{") and line.endswith("}") for line in captions):
        raise ConfigError(f"{path} holds JSON; give a text file of captions alone, one a line.")
    if not captions:
        raise ConfigError(f"{path} holds no caption; give a text file, one caption a line.")
    return captions


def read_config(path: Path) -> dict[str, Any]:
    """What a run was begun with, as its `config.yaml` says; the values are not checked."""
    try:
        kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {told}; restore it, or choose another --out.") from None
    if not isinstance(kept, dict) or not {"run", "settings", "plan"} <= kept.keys():
        raise ConfigError(
            f"{path} does not say what the run was begun with; restore it, or choose another --out."
        )
    return kept
