"""Private training: the one place where records and a model meet.

Each step of the plan draws a Poisson batch of units, clips every unit's gradient, adds noise to the sum and
takes one Adam step on what `privatize` returned; all else here (Adam, the average of the weights) is
post-processing. The ledger is charged before steps are taken. A run can be killed at any moment and goes on
from its checkpoint with the same key, so the steps it repeats repeat their batches and noise.

A unit is a record, or a person with all their records: see `PrivateTokens.members`. Several processes may
take the steps together: see `ranks`.

Letters: M records, U units, N private image tokens, L caption positions, B units of a batch, k records of
one unit in a step.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, stream
from dpwavelet.ranks import ALONE, Ranks
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens, drawn_tokens
from dpwavelet.text import PAD
from dpwavelet.transformer import ImageTransformer

Told = Callable[[int, dict[str, float]], None]
"""Told (steps done, numbers) after each step; the numbers are private diagnostics."""

Gradients = dict[str, Tensor]
Released = Callable[[int, Mapping[str, Tensor]], None]
"""Shown (step, what `privatize` returned): differentially private already, whatever is done with it."""


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """Public settings of the loop; the promise itself is in the plan."""

    learning_rate: float = 3e-3
    warmup: float = 0.05  # share of the steps over which the learning rate rises
    average: float = 0.9  # decay of the average of the weights that is released
    caption_weight: float = 0.03  # of what one record may say, most is for its picture
    caption_dropout: float = 0.1
    parameters: Literal["all", "attention", "blocks"] = "all"
    per_unit: int = 1  # k: at most so many records of one person take part in a step
    chunk: int = 64  # units computed at once; any number gives the same sums
    mixed_precision: bool = True
    compiled: bool = False  # whether each chunk runs as one compiled graph: a minute first, then faster
    charge_every: int = 10  # steps between two checkpoints, and the block charged to the ledger at once

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and 0 <= self.warmup < 1 and 0 <= self.average < 1):
            raise ConfigError("learning_rate must be above 0, warmup and average at least 0 and below 1.")
        if not (0 <= self.caption_dropout <= 1 and self.caption_weight >= 0):
            raise ConfigError("caption_dropout must be in [0, 1] and caption_weight at least 0.")
        if self.parameters not in ("all", "attention", "blocks"):
            raise ConfigError(f"parameters must be all, attention or blocks, got {self.parameters!r}.")
        if self.chunk < 1 or self.charge_every < 1 or self.per_unit < 1:
            raise ConfigError("chunk, charge_every and per_unit must be at least 1.")

    def trained(self, name: str) -> bool:
        """Whether the parameter of this name is trained."""
        if self.parameters == "attention":
            return ".qkv." in name or ".mix." in name
        return self.parameters == "all" or name.startswith("blocks.")


def train_privately(
    transformer: ImageTransformer,
    records: PrivateTokens,
    plan: PrivacyPlan,
    settings: PrivateTraining,
    folder: Path,
    ledger: Charges,
    run: str,
    told: Told | None = None,
    ranks: Ranks = ALONE,
    released: Released | None = None,
) -> ImageTransformer:
    """Train a copy of `transformer` under `plan`, going on from `folder` if it holds a checkpoint of `run`.

    Guarantee: the result, seen once at the end, is (plan.epsilon, plan.delta)-DP in the unit of the plan.
    Every step that may have been taken was charged to `ledger` before. Of several ranks all return the same;
    only the lead uses `folder` and `ledger`. It computes where `transformer` is.
    """
    if settings.per_unit != plan.per_unit:
        raise PrivacyError(
            f"the plan says that {plan.per_unit} records of one unit join a step, but training is told "
            f"{settings.per_unit}; set both to the same number."
        )
    checkpoint = Checkpoint(folder, plan, settings, run, ranks.count, _device(transformer).type)
    source = Source(ranks.share(lambda: checkpoint.source().key))
    student = deepcopy(transformer)
    parameters = {name: p for name, p in student.named_parameters() if settings.trained(name)}
    clipper = RecordClipper(
        student, parameters, max_norm=plan.max_norm, precision="fast" if settings.mixed_precision else "exact"
    )
    exact = partial(_unit_losses, student, replace(settings, mixed_precision=False), records.scales)
    clipper.check(exact, *_drawn_units(student, records.scales, 4, 6))
    losses_of = partial(_unit_losses, student, settings, records.scales)
    if settings.compiled:
        k = 1 if records.owners is None else settings.per_unit
        shape = (settings.chunk, records.captions.shape[2], k)
        with _repeatable(_device(student)):
            clipper.compile(losses_of, *_drawn_units(student, records.scales, *shape))
    optimizer = Adam(parameters, settings, plan.steps)
    start = int(ranks.share(lambda: str(checkpoint.load(optimizer)).encode()))
    ranks.follow([*student.state_dict().values(), *optimizer.state().values()])
    for step, batch in plan.batches(records=records.units, source=source, start=start):
        if ranks.lead and ledger.charged_steps(run) <= step:
            ledger.append(
                {"kind": "charged", "run": run, "steps": min(step + settings.charge_every, plan.steps)}
            )
        ranks.meet()  # nobody computes anything before the disk has the charge
        views = _views(source, step, len(records), settings)
        coins = source.uniforms(("members", step), len(records))
        losses, clipped_share = [0.0], [0.0]
        for chunk, own in _chunks(ranks.own(batch), settings.chunk):
            members = records.members(chunk, coins, settings.per_unit)
            rows = (*_viewed(records, members.records, views), members.shares)
            with _repeatable(_device(student)):
                found = clipper.accumulate(
                    losses_of, *(each.to(_device(student)) for each in rows), records=own
                )
            losses.extend(found.losses.tolist())
            clipped_share.extend((found.norms > plan.max_norm).float().tolist())
        update = plan.privatize(ranks.reduce(clipper.finish()), source, step)
        optimizer.step(update, step)
        if released is not None:
            released(step, update)
        if ranks.lead and ((step + 1) % settings.charge_every == 0 or step + 1 == plan.steps):
            checkpoint.save(optimizer, step + 1)
        loss, clipped = ranks.total([sum(losses), sum(clipped_share)])
        if told is not None:
            drawn = max(len(batch), 1)
            told(step + 1, {"loss": loss / drawn, "clipped": clipped / drawn, "drawn": len(batch)})
    optimizer.release()
    return student


def train_without_privacy(
    transformer: ImageTransformer,
    records: PrivateTokens,
    settings: PrivateTraining,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    told: Told | None = None,
) -> ImageTransformer:
    """The same loop with plain gradients: no clipping, no noise, no promise. For research on stand-ins.

    Its result must never enter a release; `pipeline` does not call it.
    """
    student = deepcopy(transformer)
    parameters = {name: p for name, p in student.named_parameters() if settings.trained(name)}
    optimizer = Adam(parameters, settings, steps)
    for p in parameters.values():
        p.requires_grad_(True)
    source = Source.for_test(seed)
    for step in range(steps):
        batch = stream(seed, "plain batch", step).integers(len(records), size=batch_size)
        views = _views(source, step, len(records), settings)
        sums: Gradients = {}
        total = 0.0
        for chunk in np.array_split(batch, -(-len(batch) // settings.chunk)):
            rows = (each.to(_device(student)) for each in _viewed(records, chunk, views))
            losses = _losses(student, settings, records.scales, *rows)
            total += float(losses.detach().sum())
            grads = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    sums[name] = sums[name] + grad if name in sums else grad
        optimizer.step({name: grad / batch_size for name, grad in sums.items()}, step)
        if told is not None:
            told(step + 1, {"loss": total / batch_size})
    optimizer.release()
    return student.requires_grad_(False)


@torch.no_grad()
def held_out_loss(transformer: ImageTransformer, records: PrivateTokens, chunk: int = 128) -> float:
    """Mean cross-entropy, in nats per image token, of records with their first caption.

    On private records this is a private number: it belongs in `private/` and is not covered by the promise.
    """
    total, device = 0.0, _device(transformer)
    for start in range(0, len(records), chunk):
        chosen = np.arange(start, min(start + chunk, len(records)))
        captions, tokens = records.batch(chosen, np.zeros_like(chosen))
        captions, tokens = captions.to(device), [ids.to(device) for ids in tokens]
        total += float(transformer.losses(captions, tokens).image.sum())
    return total / len(records)


class Adam:
    """Adam on named gradients with warm-up and linear decay, and the running average of what it makes.

    It sees privatized gradients only, so all of it is post-processing.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], settings: PrivateTraining, steps: int
    ) -> None:
        self.parameters, self.settings, self.steps = dict(parameters), settings, steps
        self.mean = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, gradients: Gradients, step: int) -> None:
        """Take step `step` (from 0); a parameter without a gradient stays."""
        rate = self.settings.learning_rate * self._schedule(step)
        decay = min(self.settings.average, (1 + step) / (10 + step))
        for name, gradient in gradients.items():
            mean, square, parameter = self.mean[name], self.square[name], self.parameters[name]
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.01)
            size = (square / (1 - 0.99 ** (step + 1))).sqrt_().add_(1e-8)
            parameter.addcdiv_(mean / (1 - 0.9 ** (step + 1)), size, value=-rate)
            self.average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def release(self) -> None:
        """Put the average in the place of the weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.average[name])

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, by name."""
        kinds: dict[str, Mapping[str, Tensor]] = {
            "weight": self.parameters, "mean": self.mean, "square": self.square, "average": self.average,
        }  # fmt: skip
        return {
            f"{kind}.{name}": value.detach() for kind, table in kinds.items() for name, value in table.items()
        }

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        own = self.state()
        if own.keys() != tensors.keys():
            raise PrivacyError("the checkpoint is of another model or other settings; nothing was resumed.")
        for name, value in own.items():
            value.copy_(tensors[name])

    def _schedule(self, step: int) -> float:
        warm = max(self.settings.warmup * self.steps, 1)
        return min((step + 1) / warm, (self.steps - step) / (self.steps - warm + 1), 1.0)


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
    ) -> None:
        self.key_path, self.state_path = folder / "run.json", folder / "state.safetensors"
        self.identity: dict[str, Any] = {"run": run, "plan": plan.to_json(), "settings": asdict(settings)}
        # Another number of ranks, or another device, would add up the same batch to a slightly different sum.
        self.identity |= {"ranks": ranks, "device": device}

    def source(self) -> Source:
        """The source of this run: restored if the run was begun, else keyed by the system and kept."""
        if self.key_path.is_file():
            kept = read_json(self.key_path)
            if {name: kept.get(name) for name in self.identity} != self.identity:
                raise PrivacyError(
                    f"{self.key_path.parent} belongs to another run, plan or settings, or to another number "
                    "of processes or device; resume it unchanged, or begin a new run in another --out."
                )
            return Source(bytes.fromhex(kept["key"]))
        if self.state_path.exists():
            raise PrivacyError(
                f"{self.state_path} has no run.json beside it, so its randomness is lost; begin anew."
            )
        source = Source()
        write_json(self.key_path, self.identity | {"key": source.key.hex()})
        self.key_path.chmod(0o600)
        return source

    def save(self, optimizer: Adam, steps_done: int) -> None:
        """Replace the state by the one after `steps_done` steps."""
        write_tensors(self.state_path, optimizer.state() | {"steps": torch.tensor(steps_done)})

    def load(self, optimizer: Adam) -> int:
        """Restore the optimizer; the number of steps it has taken."""
        if not self.state_path.is_file():
            return 0
        tensors = read_tensors(self.state_path)
        steps = int(tensors.pop("steps"))
        optimizer.restore(tensors)
        return steps


def _views(
    source: Source, step: int, records: int, settings: PrivateTraining
) -> tuple[NDArray[np.int64], Tensor]:
    """For every record its caption of this step and whether the caption is dropped.

    Drawn for each record on its own from the secret source: who else is there changes nothing.
    """
    choices, drops = (source.uniforms((name, step), records) for name in ("views", "dropped captions"))
    choice = np.minimum((choices * CAPTION_CHOICES).astype(np.int64), CAPTION_CHOICES - 1)
    return choice, torch.from_numpy(drops <= settings.caption_dropout)


def _viewed(
    records: PrivateTokens, chosen: NDArray[np.int64], views: tuple[NDArray[np.int64], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Captions [..., L], tokens [..., N] and whether the caption is dropped [...] of chosen records [...]."""
    choice, drops = views
    dropped = drops[torch.from_numpy(chosen)]
    captions = torch.from_numpy(records.captions[chosen, choice[chosen]].astype(np.int64))
    captions[..., 1:].masked_fill_(dropped[..., None], PAD)
    return captions, torch.from_numpy(records.image[chosen].astype(np.int64)), dropped


def _losses(
    transformer: ImageTransformer,
    settings: PrivateTraining,
    scales: tuple[int, ...],
    captions: Tensor,
    tokens: Tensor,
    dropped: Tensor,
) -> Tensor:
    """One loss a record [B]: means over that record's own tokens, never over a batch."""
    with _autocast(transformer, settings.mixed_precision):
        losses = transformer.losses(captions, torch.split(tokens, list(scales), dim=1))
    # A dropped caption teaches drawing without one, not that captions are empty.
    return losses.image + settings.caption_weight * losses.caption * ~dropped


def _unit_losses(
    transformer: ImageTransformer,
    settings: PrivateTraining,
    scales: tuple[int, ...],
    captions: Tensor,
    tokens: Tensor,
    dropped: Tensor,
    shares: Tensor,
) -> Tensor:
    """One loss a unit [B], from [B, k] records: their mean.

    Each of a unit's records runs in a forward of its own, in the unit's row of the chunk. The clipper adds up
    all uses of a layer within a row, so it measures and clips the gradient of the whole unit.
    """
    of_each = zip(*(each.unbind(1) for each in (captions, tokens, dropped, shares)), strict=True)
    return torch.stack(
        [_losses(transformer, settings, scales, *record) * share for *record, share in of_each]
    ).sum(0)


def _drawn_units(
    transformer: ImageTransformer, scales: tuple[int, ...], count: int, length: int, k: int = 1
) -> tuple[Tensor, ...]:
    """What `_unit_losses` takes, for made-up units of k records."""
    drawn = drawn_tokens(transformer, scales, count * k, length)
    views = np.zeros(count * k, np.int64), torch.zeros(count * k, dtype=torch.bool)
    rows = _viewed(drawn, np.arange(count * k).reshape(count, k), views)
    return tuple(each.to(_device(transformer)) for each in (*rows, torch.full((count, k), 1 / k)))


def _chunks(batch: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Cut a batch into chunks of one shape; the last is filled up with rows that do not count."""
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        yield np.resize(chunk, size), len(chunk)


def _device(transformer: ImageTransformer) -> torch.device:
    return next(transformer.parameters()).device


@contextmanager
def _autocast(transformer: ImageTransformer, enabled: bool) -> Iterator[None]:
    with torch.autocast(_device(transformer).type, torch.bfloat16, enabled=enabled):
        yield


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU allow only what gives the same bits again; a step that is repeated must repeat its sum.

    torch raises where it knows no such way, in the rehearsal of a run and so before anything is charged.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before)
