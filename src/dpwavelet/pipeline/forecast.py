"""What an epsilon would buy, before anything is spent: noise, time, memory, and quality on public stand-ins.

Nothing here has seen a private record. The noise is arithmetic on the plan; time and memory come from a few
real private steps on drawn portraits; quality is read from runs on public stand-ins, listed in
`stand_ins.json` with the commit that made each.

Letters: B batch size, C clipping norm, T steps, sigma noise multiplier, d trained parameters; s is the
signal-to-noise of a whole run and k the s at which half of the gain without privacy is reached.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpwavelet.checkpoint import read_json
from dpwavelet.errors import ModelError
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.memory import most_held
from dpwavelet.model import Model
from dpwavelet.pipeline.rehearsal import RUN, rehearsed
from dpwavelet.pipeline.settings import caption_length, open_model
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import signal_to_noise
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import PrivateTraining, train_privately, trained_parameters

STAND_INS = "stand_ins.json"
TRUSTED = 2.0  # how far from what was measured, as a factor, a band is not yet a guess


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Held-out losses of one public data set: without it, trained privately on it, and plainly."""

    name: str
    preset: str
    records: int
    batch_size: int
    steps: int
    parameters: int  # d
    learning_rate: float
    commit: str
    zero_shot: float
    plain: float
    private: tuple["PrivateLoss", ...]


@dataclass(frozen=True, kw_only=True)
class PrivateLoss:
    """What training at one epsilon, with delta = records**-1.1, reached."""

    epsilon: float
    noise_multiplier: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """Between which shares of the plain gain private training is expected to end."""

    low: float
    high: float
    measured: bool  # whether runs of about this signal-to-noise, on about as many records, were measured

    def __str__(self) -> str:
        beyond = "" if self.measured else " (beyond what was measured)"
        return f"between {self.low:.0%} and {self.high:.0%}{beyond}"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long private training takes on this machine, measured on drawn portraits, and what it needs."""

    encode: float  # seconds to turn a record into tokens
    chunk: float  # seconds for the clipped gradients of a chunk of records
    step: float  # seconds for the noise and the optimizer of a step, and its share of a checkpoint
    records_in_chunk: int
    records_of_unit: int  # how many records of one record or person may join a step
    peak: int | None  # bytes at most in use; nothing where the system does not tell
    record: int  # bytes that every record stays in memory with

    def hours(self, plan: PrivacyPlan) -> float:
        """From images to private weights. Drawing samples comes on top."""
        chunks = plan.batch_size * self.records_of_unit / self.records_in_chunk + 0.5  # the last is filled up
        encoding = plan.records * self.records_of_unit * self.encode
        return (encoding + plan.steps * (chunks * self.chunk + self.step)) / 3600

    def memory(self, plan: PrivacyPlan) -> int | None:
        """Bytes at most in use. The batch size does not matter, since chunks are summed up."""
        return None if self.peak is None else self.peak + plan.records * self.records_of_unit * self.record


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One plan with everything that can be said about it in advance."""

    plan: PrivacyPlan
    parameters: int
    hours: float | None
    memory: int | None
    quality: Band | None

    @property
    def signal_to_noise(self) -> float:
        """Of one step: how long a mean gradient can be over the length of its noise."""
        return _signal(self.plan, self.parameters, steps=1)

    @property
    def signal_of_run(self) -> float:
        """Of all steps together, over which noise averages out."""
        return _signal(self.plan, self.parameters, steps=self.plan.steps)

    @property
    def time_text(self) -> str:
        """The hours in words."""
        if self.hours is None:
            return "-"
        return f"{self.hours:.1f} h" if self.hours >= 2 else f"{max(60 * self.hours, 1):.0f} min"

    @property
    def memory_text(self) -> str:
        """The memory in words."""
        return "-" if self.memory is None else f"{self.memory / 1e9:.1f} GB"

    @property
    def quality_text(self) -> str:
        """The expected quality in a sentence."""
        if self.quality is None:
            return f"epsilon {self.plan.epsilon:g}: no quality is known for this model and these parameters"
        return (
            f"epsilon {self.plan.epsilon:g}: {self.quality} of what training without privacy gains, "
            "judging by public stand-ins"
        )

    def to_json(self) -> dict[str, Any]:
        """The plan and the forecast as plain values."""
        return self.plan.to_json() | {
            "noise_multiplier": self.plan.noise_multiplier,
            "epsilon_rdp": self.plan.rdp_epsilon,
            "trained_parameters": self.parameters,
            "signal_to_noise": self.signal_to_noise,
            "signal_to_noise_of_run": self.signal_of_run,
            "hours": self.hours,
            "memory_bytes": self.memory,
            "quality": None if self.quality is None else asdict(self.quality),
        }


def forecast_all(
    plans: Sequence[PrivacyPlan],
    model: str,
    training: PrivateTraining,
    *,
    timing: bool,
    private_scales: int | None = None,
    caption_words: int | None = None,
) -> list[Forecast]:
    """What each plan would bring with the model of this name or folder; `timing` takes seconds to minutes."""
    loaded = open_model(model, private_scales)
    speed = time_training(loaded, training, caption_words) if timing else None
    return [forecast(plan, loaded, training, speed) for plan in plans]


def forecast(
    plan: PrivacyPlan, model: Model, training: PrivateTraining, speed: Speed | None = None
) -> Forecast:
    """What `plan` would bring with this model; without a `speed`, time and memory are left open."""
    d = trained_parameters(model.transformer, training)
    s = _signal(plan, d, steps=plan.steps)
    quality = expected_quality(
        s, plan.records, [known for known in stand_ins() if known.preset == model.preset]
    )
    if training.parameters != "all":  # fewer parameters have less noise, and were measured to learn less too
        quality = None
    elif quality is not None and plan.unit != "record":
        quality = replace(quality, measured=False)
    return Forecast(
        plan=plan,
        parameters=d,
        hours=speed.hours(plan) if speed else None,
        memory=speed.memory(plan) if speed else None,
        quality=quality,
    )


def _signal(plan: PrivacyPlan, parameters: int, *, steps: int) -> float:
    return signal_to_noise(
        batch_size=plan.batch_size,
        steps=steps,
        noise_multiplier=plan.noise_multiplier,
        parameters=parameters,
    )


def expected_quality(s: float, records: int, known: Sequence[StandIn]) -> Band | None:
    """The share of the plain gain at signal-to-noise `s`, from every run on stand-ins; nothing without runs.

    The share is 0 without signal and 1 without noise; s / (s + k) joins the two, and each measured run fixes
    a k. The band is what the least and the most fortunate of these runs would lead one to expect.
    """
    runs = [run for each in known for run in _runs(each)]
    if not runs:
        return None
    shares = [s / (s + at * (1 - share) / share) for at, share in runs]
    least, most = min(at for at, _ in runs), max(at for at, _ in runs)
    enough = records * TRUSTED >= min(each.records for each in known)  # few teach less, however loudly
    return Band(low=min(shares), high=max(shares), measured=enough and least / TRUSTED <= s <= most * TRUSTED)


def stand_ins() -> tuple[StandIn, ...]:
    """The runs on public stand-ins that ship with the package."""
    path = Path(str(resources.files("dpwavelet.pipeline"))) / STAND_INS
    try:
        return tuple(
            StandIn(**{**each, "private": tuple(PrivateLoss(**loss) for loss in each["private"])})
            for each in read_json(path)
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}; install the package again.") from error


def time_training(model: Model, training: PrivateTraining, caption_words: int | None = None) -> Speed:
    """Take a few private steps on drawn portraits with this model; nothing is kept.

    At sampling rate 1 every record is in every batch, so a step of one chunk and a step of two tell what a
    chunk takes and what a step takes besides.
    """
    size = training.units_at_once
    with tempfile.TemporaryDirectory(prefix="dpwavelet-") as name:
        folder = Path(name)
        draw_to(folder / "portraits", size, seed=0, size=model.image_size)
        images = PrivateImages.open(folder / "portraits", model.image_size)
        started = time.perf_counter()
        tokens = tokenize(
            images,
            model.tokenizer,
            model.vocabulary,
            scales=model.private_scales,
            caption_length=caption_length(model, caption_words),
            augment=training.augment,
        )
        encode = (time.perf_counter() - started) / size
        one, saving = _step_time(model, training, tokens, folder / "one")
        two, _ = _step_time(model, training, _twice(tokens), folder / "two")
    chunk = two - one if two > one else one
    coins = 2 + (training.augment != "none")  # of a record for each view
    return Speed(
        encode=encode,
        chunk=chunk,
        step=max(one - chunk, 0.0) + saving / training.charge_every,
        records_in_chunk=size,
        records_of_unit=training.per_unit,
        peak=most_held(),
        record=sum(table[0].nbytes for table in tokens.tables.values()) + coins * training.views * 8,
    )


def _runs(known: StandIn) -> list[tuple[float, float]]:
    """(signal-to-noise of the whole run, share of the plain gain) at each epsilon."""
    return [
        (
            signal_to_noise(
                batch_size=known.batch_size,
                steps=known.steps,
                noise_multiplier=run.noise_multiplier,
                parameters=known.parameters,
            ),
            (known.zero_shot - run.loss) / (known.zero_shot - known.plain),
        )
        for run in known.private
    ]


def _step_time(
    model: Model, training: PrivateTraining, tokens: PrivateTokens, folder: Path
) -> tuple[float, float]:
    """Seconds of a step, and seconds more of the last one, which writes a checkpoint."""
    plan, ledger = rehearsed(folder)
    ends: list[float] = []
    quiet = replace(training, charge_every=plan.steps, per_unit=1)
    train_privately(
        model.transformer, tokens, plan, quiet, folder, ledger, RUN,
        lambda *_: ends.append(time.perf_counter()),
    )  # fmt: skip
    *steps, last = np.diff(ends).tolist()
    usual = statistics.median(steps)
    return usual, max(last - usual, 0.0)


def _twice(tokens: PrivateTokens) -> PrivateTokens:
    tables = {name: torch.from_numpy(np.concatenate([table] * 2)) for name, table in tokens.tables.items()}
    return PrivateTokens.from_tensors(tokens.to_tensors() | tables)
