"""Private training: the one place where records and a model meet.

Each step of the plan draws a Poisson batch of units, clips every unit's gradient, adds noise to the sum and
takes one Adam step on what `privatize` returned; all else here (Adam, the average of the weights) is
post-processing. The ledger is charged before steps are taken. A run can be killed at any moment and goes on
from its checkpoint with the same key, so the steps it repeats repeat their batches and noise.

A unit is a record, or a person with all their records: see `PrivateTokens.members`. Several processes may
take the steps together: see `ranks`.

A record may be seen in several *views* in one step, each a variant of its image and one of its captions. All
views of all records of a unit have one loss, their mean, and so one gradient, which is clipped once.

Letters: M records, U units, N private image tokens, L caption positions, B units of a batch, k records of
one unit in a step, v views of a record.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.adapters import adapt, is_of_pair, merge, size
from dpwavelet.checkpoint import canonical_json, digest_of, read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.images.variants import AUGMENTS, Augment, mirrors, numbers
from dpwavelet.privacy.clipping import MOST, RecordClipper
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, stream
from dpwavelet.ranks import ALONE, Ranks
from dpwavelet.records import CAPTION_CHOICES, Members, PrivateTokens, Shaped, drawn_tokens
from dpwavelet.text import PAD
from dpwavelet.transformer import RecordLosses

Told = Callable[[int, dict[str, float]], None]
"""Told (steps done, numbers) after each step; the numbers are private diagnostics."""

Gradients = dict[str, Tensor]
Released = Callable[[int, Mapping[str, Tensor]], None]
"""Shown (step, what `privatize` returned): differentially private already, whatever is done with it."""

Parameters = Literal["all", "attention", "blocks", "heads", "lora"]
Emphases = Literal["measured", "even"]
Schedule = Literal["linear", "constant", "cosine"]
CHOICES: Mapping[str, tuple[str, ...]] = {
    "schedule": get_args(Schedule),
    "augment": AUGMENTS,
    "parameters": get_args(Parameters),
    "emphasis": get_args(Emphases),
}
HEADS = ("code_heads.", "final_norm.", "code_embedding.")


class Emphasis(NamedTuple):
    """How much a parameter matters in private training, beside the others."""

    weight: float = 1.0  # of its gradients before they are measured and clipped, a power of two
    rate: float = 1.0  # times the learning rate


EVEN = Emphasis()
MEASURED: Mapping[str, Emphasis] = {
    "code_heads.": Emphasis(0.5, 0.4),
    "code_embedding.": Emphasis(0.25, 0.3),
    "cell_position.": Emphasis(0.5, 0.6),
    ".mix.": Emphasis(0.5, 0.8),
    ".qkv.": Emphasis(1.0, 1.4),
    ".widen.": Emphasis(2.0, 2.0),
    ".narrow.": Emphasis(2.0, 2.0),
    "norm.": Emphasis(1.0, 2.0),
}
"""By a part of the name. How many records agree on a gradient, and what noise on the parameter costs, were
measured on public stand-ins (docs/design/0014): all that is said of codes is nearly noise, while attention
and the layers between say much and bear noise well."""


class TokenModel(Shaped, Protocol):
    """What can be trained here: an `nn.Module` with one loss a record, a function of that record alone."""

    @property
    def identity(self) -> str:
        """What decides a loss beside weights and records, in words."""
        ...

    @property
    def blocks(self) -> torch.nn.Module:
        """The part whose Linears "lora" puts pairs beside."""
        ...

    def losses(self, captions: Tensor, tokens: Sequence[Tensor]) -> RecordLosses:
        """Losses of captions [B, L], padded with PAD, and token ids [B, N] of each private scale."""
        ...


M = TypeVar("M", bound=TokenModel)


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """Public settings of the loop; the promise itself is in the plan."""

    learning_rate: float = 3e-3
    warmup: float = 0.05  # share of the steps over which the learning rate rises
    schedule: Schedule = "linear"  # how it goes on from there: down to zero, or not at all
    average: float = 0.9  # decay of the average of the weights that is released; 0 releases the last ones
    caption_weight: float = 0.03  # of what one record may say, most is for its picture
    caption_dropout: float = 0.1
    views: int = 1  # v: of one record in a step; their losses are averaged before anything is clipped
    augment: Augment = "none"  # which variants of its image a view may show
    parameters: Parameters = "all"
    rank: int = 8  # of the pairs that "lora" trains
    emphasis: Emphases = "measured"  # whether some parameters count more than others, see MEASURED
    per_unit: int = 1  # k: at most so many records of one person take part in a step
    chunk: int = 32  # views computed at once, or units if there is one view; any number gives the same sums
    mixed_precision: bool = True
    compiled: bool = False  # whether each chunk runs as one compiled graph: a minute first, then faster
    charge_every: int = 10  # steps between two checkpoints, and the block charged to the ledger at once

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and 0 <= self.warmup < 1 and 0 <= self.average < 1):
            raise ConfigError("learning_rate must be above 0, warmup and average at least 0 and below 1.")
        if not (0 <= self.caption_dropout <= 1 and self.caption_weight >= 0):
            raise ConfigError("caption_dropout must be in [0, 1] and caption_weight at least 0.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be {_or(choices)}, got {getattr(self, name)!r}.")
        for name in ("chunk", "charge_every", "per_unit", "views", "rank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.chunk > MOST:
            raise ConfigError(f"chunk must be at most {MOST}, got {self.chunk}; it changes no sum.")

    @property
    def units_at_once(self) -> int:
        """Units of a chunk: fewer where each brings several views."""
        return max(self.chunk // self.views, 1)

    def trained(self, name: str) -> bool:
        """Whether the parameter of this name, in what `learner` makes, is trained."""
        if self.parameters == "attention":
            return ".qkv." in name or ".mix." in name
        if self.parameters == "heads":
            return name.startswith(HEADS)
        if self.parameters == "lora":
            return is_of_pair(name)
        return self.parameters == "all" or name.startswith("blocks.")

    def emphasis_of(self, name: str) -> Emphasis:
        """That of the parameter of this name."""
        if self.emphasis == "even" or is_of_pair(name):
            return EVEN
        return next((emphasis for part, emphasis in MEASURED.items() if part in name), EVEN)


def learner(transformer: M, settings: PrivateTraining) -> tuple[M, dict[str, torch.nn.Parameter]]:
    """A copy that computes the same, and those of its parameters that are trained; `merge` makes it plain."""
    student = deepcopy(transformer)
    if settings.parameters == "lora":
        adapt(student.blocks, settings.rank)
    named = _module(student).named_parameters()
    return student, {name: p for name, p in named if settings.trained(name)}


def trained_parameters(transformer: TokenModel, settings: PrivateTraining) -> int:
    """How many numbers get noise in every step."""
    if settings.parameters == "lora":
        return size(transformer.blocks, settings.rank)
    named = _module(transformer).named_parameters()
    return sum(p.numel() for name, p in named if settings.trained(name))


def train_privately(
    transformer: M,
    records: PrivateTokens,
    plan: PrivacyPlan,
    settings: PrivateTraining,
    folder: Path,
    ledger: Charges,
    run: str,
    told: Told | None = None,
    ranks: Ranks = ALONE,
    released: Released | None = None,
) -> M:
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
    check_unit(plan, records)
    _check_variants(records, settings)
    if ranks.lead:
        check_begun(plan, ledger, run)
    checkpoint = Checkpoint(folder, plan, settings, run, ranks.count, _device(transformer).type)
    start_digest = digest_of(_module(transformer).state_dict(), transformer.identity)
    source = Source(ranks.share(lambda: checkpoint.source(records.digest, start_digest).key))
    student, parameters = learner(transformer, settings)
    module = _module(student)
    clipper = RecordClipper(
        module,
        parameters,
        max_norm=plan.max_norm,
        precision="fast" if settings.mixed_precision else "exact",
        weights={name: settings.emphasis_of(name).weight for name in parameters},
    )
    exact = partial(_unit_losses, student, replace(settings, mixed_precision=False), records.scales)
    clipper.check(exact, *_drawn_units(student, records.scales, 4, 6))
    losses_of = partial(_unit_losses, student, settings, records.scales)
    if settings.compiled:
        k = 1 if records.owners is None else settings.per_unit
        shape = (settings.units_at_once, records.captions.shape[2], k * settings.views)
        with repeatable(_device(student)):
            clipper.compile(losses_of, *_drawn_units(student, records.scales, *shape))
    optimizer = Adam(parameters, settings, plan.steps)
    start = int(ranks.share(lambda: str(checkpoint.load(optimizer)).encode()))
    ranks.follow([*module.state_dict().values(), *optimizer.state().values()])
    if ranks.lead and ledger.charged_steps(run) < start:  # an older copy of the ledger was put back
        ledger.append({"kind": "charged", "run": run, "steps": start})
    for step, batch in plan.batches(records=records.units, source=source, start=start):
        if ranks.lead and ledger.charged_steps(run) <= step:
            ledger.append(
                {"kind": "charged", "run": run, "steps": min(step + settings.charge_every, plan.steps)}
            )
        ranks.meet()  # nobody computes anything before the disk has the charge
        views = _views(source, step, len(records), settings)
        coins = source.uniforms(("members", step), len(records))
        losses, clipped_share = [0.0], [0.0]
        for chunk, own in chunks(ranks.own(batch), settings.units_at_once):
            rows = _rows(records, records.members(chunk, coins, settings.per_unit), views)
            with repeatable(_device(student)):
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
    merge(module)
    return student


def train_without_privacy(
    transformer: M,
    records: PrivateTokens,
    settings: PrivateTraining,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    told: Told | None = None,
) -> M:
    """The same loop with plain gradients: no clipping, no noise, no promise. For research on stand-ins.

    No parameter is emphasized, since where there is no noise none needs to be. The result must never enter a
    release; `pipeline` does not call it.
    """
    _check_variants(records, settings)
    settings = replace(settings, emphasis="even")
    student, parameters = learner(transformer, settings)
    optimizer = Adam(parameters, settings, steps)
    for p in parameters.values():
        p.requires_grad_(True)
    source = Source.for_test(seed)
    for step in range(steps):
        batch = stream(seed, "plain batch", step).integers(len(records), size=batch_size)
        views = _views(source, step, len(records), settings)
        sums: Gradients = {}
        total = 0.0
        for chunk in np.array_split(batch, -(-len(batch) // settings.units_at_once)):
            alone = Members(chunk[:, None], torch.ones(len(chunk), 1))
            rows = (each.to(_device(student)) for each in _rows(records, alone, views))
            losses = _unit_losses(student, settings, records.scales, *rows)
            total += float(losses.detach().sum())
            grads = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    sums[name] = sums[name] + grad if name in sums else grad
        optimizer.step({name: grad / batch_size for name, grad in sums.items()}, step)
        if told is not None:
            told(step + 1, {"loss": total / batch_size})
    optimizer.release()
    merge(_module(student))
    _module(student).requires_grad_(False)
    return student


@torch.no_grad()
def held_out_loss(transformer: TokenModel, records: PrivateTokens, chunk: int = 128) -> float:
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
    """Adam on named gradients with warm-up and a schedule, and the running average of what it makes.

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
            parameter.addcdiv_(
                mean / (1 - 0.9 ** (step + 1)), size, value=-rate * self.settings.emphasis_of(name).rate
            )
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
        """The share of the learning rate that step `step` takes, above 0 and at most 1."""
        warm = max(self.settings.warmup * self.steps, 1)
        left = min((self.steps - step) / (self.steps - warm + 1), 1.0)  # of the steps after the warm-up
        after = {"linear": left, "cosine": math.sin(left * math.pi / 2) ** 2, "constant": 1.0}
        return min((step + 1) / warm, after[self.settings.schedule])


_OTHER = {
    "records": "other records, or for the same in another order or with other captions; restore those, or "
    "begin a new run in another --out",
    "start": "another model to start from; restore its folder, or begin a new run in another --out",
}


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
        if settings.emphasis == "measured":  # another table would put the same noise on another sum
            self.identity["emphasis"] = [
                [part, *each] for part, each in MEASURED.items()
            ]  # the first part counts

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


@dataclass(frozen=True)
class View:
    """How every record is seen in one view of a step: all [M]."""

    variant: NDArray[np.int64]  # of its image
    choice: NDArray[np.int64]  # of its captions
    drops: Tensor  # whether the caption is left out


def _views(source: Source, step: int, records: int, settings: PrivateTraining) -> list[View]:
    """The views of a step.

    Drawn for each record and view on its own from the secret source: who else is there changes nothing.
    """
    return [_view(source, step, number, records, settings) for number in range(settings.views)]


def _view(source: Source, step: int, number: int, records: int, settings: PrivateTraining) -> View:
    place = (step, number) if number else (step,)  # the first view has the coins of a step with no other
    variant = np.zeros(records, np.int64)
    if (variants := len(numbers(settings.augment))) > 1:
        variant = _one_of(variants, source.uniforms(("variants", *place), records))
    choices, drops = (source.uniforms((name, *place), records) for name in ("views", "dropped captions"))
    return View(
        variant, _one_of(CAPTION_CHOICES, choices), torch.from_numpy(drops <= settings.caption_dropout)
    )


def _one_of(count: int, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """0 to count - 1 with equal chances, from uniforms in (0, 1]."""
    return np.minimum((uniforms * count).astype(np.int64), count - 1)


def _viewed(records: PrivateTokens, chosen: NDArray[np.int64], view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Captions [..., L], tokens [..., N] and whether the caption is dropped [...] of chosen records [...]."""
    dropped = view.drops[torch.from_numpy(chosen)]
    captions, tokens = records.seen(chosen, view.choice[chosen], view.variant[chosen])
    captions[..., 1:].masked_fill_(dropped[..., None], PAD)
    return captions, tokens, dropped


def _rows(records: PrivateTokens, members: Members, views: Sequence[View]) -> tuple[Tensor, ...]:
    """What `_unit_losses` takes: every view of every record of a unit, [B, k v], and their shares."""
    seen = zip(*(_viewed(records, members.records, view) for view in views), strict=True)
    shares = members.shares / len(views)
    return (*(torch.cat(each, 1) for each in seen), torch.cat([shares] * len(views), 1))


def check_unit(plan: PrivacyPlan, records: PrivateTokens) -> None:
    """Refuse records that tell no people apart under a plan for people, and the other way round.

    A person whose records each toss a coin of their own would move a sum by more than the plan allows.
    """
    if (plan.unit == "person") != (records.owners is not None):
        known = "whose they are is known" if records.owners is not None else "nothing says whose they are"
        raise PrivacyError(
            f"the unit of the plan is the {plan.unit}, but of the records {known}; make both for one unit."
        )


def check_begun(plan: PrivacyPlan, ledger: Charges, run: str) -> None:
    """Refuse to charge steps of one plan to a run that was begun with another."""
    if canonical_json(ledger.plan_of(run)) != canonical_json(plan.to_json()):
        raise PrivacyError(
            f"the ledger says that run {run} was begun with another plan, or not at all, so its charges "
            "would not be what is spent. Begin a run with this plan first."
        )


def _check_variants(records: PrivateTokens, settings: PrivateTraining) -> None:
    wanted = len(numbers(settings.augment))
    if records.variant_count < wanted or (
        wanted > 1 and (records.mirrored is not None) != mirrors(settings.augment)
    ):
        kind = "with" if records.mirrored is not None else "without"
        raise ConfigError(
            f"augment={settings.augment!r} needs {wanted} variants of every image, but the records have "
            f"{records.variant_count} {kind} mirror images; tokenize them with the same augment."
        )


def _losses(
    transformer: TokenModel,
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
    transformer: TokenModel,
    settings: PrivateTraining,
    scales: tuple[int, ...],
    captions: Tensor,
    tokens: Tensor,
    dropped: Tensor,
    shares: Tensor,
) -> Tensor:
    """One loss a unit [B], from [B, k v] views of its records: their mean.

    Each view runs in a forward of its own, in the unit's row of the chunk. The clipper adds up all uses of a
    layer within a row, so it measures and clips the gradient of the whole unit.
    """
    of_each = zip(*(each.unbind(1) for each in (captions, tokens, dropped, shares)), strict=True)
    return torch.stack(
        [_losses(transformer, settings, scales, *record) * share for *record, share in of_each]
    ).sum(0)


def _drawn_units(
    transformer: TokenModel, scales: tuple[int, ...], count: int, length: int, k: int = 1
) -> tuple[Tensor, ...]:
    """What `_unit_losses` takes, for made-up units of k records."""
    drawn = drawn_tokens(transformer, scales, count * k, length)
    first = np.zeros(count * k, np.int64)
    view = View(first, first, torch.zeros(count * k, dtype=torch.bool))
    rows = _viewed(drawn, np.arange(count * k).reshape(count, k), view)
    return tuple(each.to(_device(transformer)) for each in (*rows, torch.full((count, k), 1 / k)))


def chunks(batch: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Cut a batch into chunks of one shape; the last is filled up with rows that do not count."""
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        yield np.resize(chunk, size), len(chunk)


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _module(transformer: TokenModel) -> torch.nn.Module:
    assert isinstance(transformer, torch.nn.Module)
    return transformer


def _device(transformer: TokenModel) -> torch.device:
    return next(_module(transformer).parameters()).device


@contextmanager
def _autocast(transformer: TokenModel, enabled: bool) -> Iterator[None]:
    with torch.autocast(_device(transformer).type, torch.bfloat16, enabled=enabled):
        yield


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
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
