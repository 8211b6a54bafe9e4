"""Private fine-tuning as in DP-LDM (arXiv 2305.15759): attention modules and the conditioning embedder only.

Each step of the plan draws a Poisson batch of records. A record is shown K times (once, as with the authors,
unless more are asked for), with another time and other noise each; the mean of these losses is its loss,
whose gradient is clipped once. Noise comes from `PrivacyPlan.privatize` alone, and Adam sees only what that
returns. The ledger is charged before steps are taken, and a run goes on from its checkpoint as that of
`dpwavelet.training` does.

Letters: M records, B records of a chunk, K draws of a record, C x h x w a latent, L caption positions.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.checkpoint import canonical_json, digest_of
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.precision import mixed_precision, rounds_products
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, stream
from dpwavelet.records import CAPTION_CHOICES
from dpwavelet.rivals.diffusion.gradients import DrawClipper
from dpwavelet.rivals.diffusion.networks import Denoiser, LatentDiffusion, attention_blocks
from dpwavelet.rivals.diffusion.records import LatentRecords
from dpwavelet.training import (
    Adam,
    Checkpoint,
    PrivateTraining,
    Schedule,
    Told,
    charge,
    check_begun,
    chunks,
    repeatable,
)

Trained = Literal["modules", "attention"]
NO_CAPTION = -1


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """Public settings of the loop; the promise itself is in the plan."""

    learning_rate: float = 2e-3
    warmup: float = 0.05
    schedule: Schedule = "linear"
    average: float = 0.9  # decay of the average of the weights that is released; 0 releases the last ones
    draws: int = 1  # K; several steady a gradient a little, at the cost of as many
    caption_dropout: float = 0.1
    trained: Trained = "modules"  # whole attention modules, or in them the attention and its norms alone
    first_block: int = 0  # attention modules before this one stay as they are
    chunk: int = 32  # rows of the U-Net at once: draws of records
    mixed_precision: bool = True
    charge_every: int = 10

    def __post_init__(self) -> None:
        if self.trained not in get_args(Trained):
            raise ConfigError(f"trained must be {' or '.join(get_args(Trained))}, got {self.trained!r}.")
        if self.draws < 1 or self.first_block < 0:
            raise ConfigError(
                "draws must be at least 1 and first_block at least 0, got "
                f"{self.draws} and {self.first_block}."
            )
        _ = self.adam  # checks the rest

    @property
    def adam(self) -> PrivateTraining:
        """What the optimizer and the checkpoint of `dpwavelet.training` read."""
        return PrivateTraining(
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            schedule=self.schedule,
            average=self.average,
            caption_dropout=self.caption_dropout,
            emphasis="even",
            chunk=self.chunk,
            mixed_precision=self.mixed_precision,
            charge_every=self.charge_every,
        )

    @property
    def records_at_once(self) -> int:
        """Records of a chunk: fewer where each takes several rows."""
        return max(self.chunk // self.draws, 1)


def trained_parameters(denoiser: Denoiser, settings: Finetuning) -> dict[str, nn.Parameter]:
    """The parameters that get noise: of the chosen attention modules, and of the embedder."""
    blocks = tuple(f"unet.{name}." for name, _ in attention_blocks(denoiser.unet)[settings.first_block :])
    return {
        name: p
        for name, p in denoiser.named_parameters()
        if name.startswith("embedder.")
        or (name.startswith(blocks) and (settings.trained == "modules" or _is_attention(name)))
    }


def _is_attention(name: str) -> bool:
    """Queries, keys, values and their way out, and the two norms that attention reads through."""
    parts = name.split(".")
    return any(part in parts for part in ("attn1", "attn2", "norm1", "norm2"))


def _shape(diffusion: LatentDiffusion) -> str:
    """What decides a loss beside weights and records: how the U-Net computes, and the steps of noise."""
    told = (diffusion.denoiser.unet.config, diffusion.scheduler.config)
    return canonical_json(
        [{k: v for k, v in each.items() if not k.startswith("_")} for each in told]
    ).decode()


def train_privately(
    diffusion: LatentDiffusion,
    records: LatentRecords,
    plan: PrivacyPlan,
    settings: Finetuning,
    folder: Path,
    ledger: Charges,
    run: str,
    told: Told | None = None,
) -> LatentDiffusion:
    """Train a copy of the denoiser under `plan`, going on from `folder` if it holds a checkpoint of `run`.

    Guarantee: the result, seen once at the end, is (plan.epsilon, plan.delta)-DP in the unit of the plan,
    which is the record. Every step that may have been taken was charged to `ledger` before. It computes where
    `diffusion` is.
    """
    if plan.unit != "record":
        raise PrivacyError(f"DP-LDM protects records, but the unit of the plan is the {plan.unit}.")
    check_begun(plan, ledger, run)
    student = deepcopy(diffusion.denoiser)
    parameters, device = trained_parameters(student, settings), student.device
    more = {"finetuning": asdict(settings)}
    checkpoint = Checkpoint(folder, plan, settings.adam, run, device=device.type, more=more)
    source = checkpoint.source(records.digest, digest_of(student.state_dict(), _shape(diffusion)))
    clipper = DrawClipper(
        student,
        parameters,
        max_norm=plan.max_norm,
        precision="fast" if rounds_products(device, settings.mixed_precision) else "exact",
    )
    learned = diffusion.with_denoiser(student)
    exact = partial(record_losses, learned, replace(settings, mixed_precision=False))
    clipper.check(exact, *_made_up(learned, settings.draws))
    optimizer = Adam(parameters, settings.adam, plan.steps)
    start = checkpoint.load(optimizer)
    ledger.bind(run, source.digest)
    charge(ledger, run, start)
    for step, batch in plan.batches(records=len(records), source=source, start=start):
        if ledger.charged_steps(run) <= step:
            charge(ledger, run, min(step + settings.charge_every, plan.steps))
        losses, clipped = [0.0], [0.0]
        for chunk, own in chunks(batch, settings.records_at_once):
            rows = _rows(learned, records, settings, source, step, chunk)
            with repeatable(device):
                found = clipper.accumulate(partial(record_losses, learned, settings), *rows, records=own)
            losses.extend(found.losses.tolist())
            clipped.extend((found.norms > plan.max_norm).float().tolist())
        optimizer.step(plan.privatize(clipper.finish(), source, step), step)
        if (step + 1) % settings.charge_every == 0 or step + 1 == plan.steps:
            checkpoint.save(optimizer, step + 1)
        if told is not None:
            drawn = max(len(batch), 1)
            numbers = {"loss": sum(losses) / drawn, "clipped": sum(clipped) / drawn, "drawn": len(batch)}
            told(step + 1, numbers)
    optimizer.release()
    return learned.eval()


def train_without_privacy(
    diffusion: LatentDiffusion,
    records: LatentRecords,
    settings: Finetuning,
    *,
    steps: int,
    batch_size: int,
    seed: int,
) -> LatentDiffusion:
    """The same loop with plain gradients: no clipping, no noise, no promise. For research on stand-ins."""
    student = deepcopy(diffusion.denoiser).requires_grad_(False)
    parameters = trained_parameters(student, settings)
    for p in parameters.values():
        p.requires_grad_(True)
    learned, optimizer = diffusion.with_denoiser(student), Adam(parameters, settings.adam, steps)
    source, at_once = Source.for_test(seed), settings.records_at_once
    for step in range(steps):
        batch = stream(seed, "plain batch", step).integers(len(records), size=batch_size)
        student.zero_grad(set_to_none=True)
        for chunk in np.array_split(batch, -(-len(batch) // at_once)):
            rows = _rows(learned, records, settings, source, step, chunk)
            loss = record_losses(learned, settings, *rows).sum() / batch_size
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        optimizer.step({name: p.grad for name, p in parameters.items() if p.grad is not None}, step)
    optimizer.release()
    student.requires_grad_(False)
    return learned.eval()


def record_losses(
    diffusion: LatentDiffusion,
    settings: Finetuning,
    latents: Tensor,
    captions: Tensor,
    times: Tensor,
    noise: Tensor,
) -> Tensor:
    """One loss a record [B]: the mean over its own K draws, never over a batch.

    Takes latents [B, C, h, w], caption ids [B, L], times [B, K] and noise [B, K, C, h, w].
    """
    rows = latents[:, None].expand_as(noise).flatten(0, 1)
    noisy, wanted = diffusion.noised(rows, noise.flatten(0, 1), times.flatten())
    with mixed_precision(noisy.device, settings.mixed_precision):
        found: Tensor = diffusion.denoiser(noisy, times.flatten(), captions)
    errors = (found.float() - wanted).square().flatten(1).mean(1)
    return errors.reshape(times.shape).mean(1)


@torch.no_grad()
def held_out_loss(
    diffusion: LatentDiffusion, records: LatentRecords, settings: Finetuning, draws: int = 8
) -> float:
    """Mean loss of records with their first caption, at the same times and noise for every model.

    On private records this is a private number: it belongs in `private/` and is not covered by the promise.
    """
    total, exact = 0.0, replace(settings, mixed_precision=False)
    for chosen in np.array_split(np.arange(len(records)), -(-len(records) // 8)):
        generators = [stream(0, "held out", int(index)) for index in chosen]
        latents, captions = records.batch(chosen, np.zeros_like(chosen))
        times = _spread(np.stack([each.random(draws) for each in generators]), diffusion.times)
        shape = (draws, *latents.shape[1:])
        noise = [each.standard_normal(shape, dtype=np.float32) for each in generators]
        rows = (latents, captions, times, torch.from_numpy(np.stack(noise)))
        device = diffusion.denoiser.device
        total += float(record_losses(diffusion, exact, *(each.to(device) for each in rows)).sum())
    return total / len(records)


def _rows(
    diffusion: LatentDiffusion,
    records: LatentRecords,
    settings: Finetuning,
    source: Source,
    step: int,
    chunk: NDArray[np.int64],
) -> tuple[Tensor, ...]:
    """What `record_losses` takes after the settings, for the records of a chunk.

    What a record is shown in a step is drawn from the secret source for it alone: who else is there changes
    nothing.
    """
    K, shape = settings.draws, diffusion.latent
    coins = np.stack([source.uniforms(("draws", step, int(each)), K + 2) for each in chunk])
    noise = np.stack(
        [source.normals(("latent noise", step, int(each)), K * int(np.prod(shape))) for each in chunk]
    )
    choice = np.minimum((coins[:, K] * CAPTION_CHOICES).astype(np.int64), CAPTION_CHOICES - 1)
    choice[coins[:, K + 1] <= settings.caption_dropout] = NO_CAPTION
    latents, captions = records.batch(chunk, choice)
    shown = (
        latents, captions, _spread(coins[:, :K], diffusion.times),
        torch.from_numpy(noise).reshape(-1, K, *shape),
    )  # fmt: skip
    return tuple(each.to(diffusion.denoiser.device) for each in shown)


def _spread(coins: NDArray[np.float64], times: int) -> Tensor:
    """Times [B, K] from uniforms: each alone is uniform, and one falls into each K-th of all times."""
    K = coins.shape[1]
    places = (np.arange(K) + coins) / K
    return torch.from_numpy(np.minimum((places * times).astype(np.int64), times - 1))


def _made_up(diffusion: LatentDiffusion, K: int, count: int = 3) -> tuple[Tensor, ...]:
    """What `record_losses` takes after the settings, for made-up records that come from no record."""
    generator, shape = stream(0, "drawn records"), diffusion.latent
    latents, noise = (
        torch.from_numpy(generator.standard_normal((count, *some, *shape), dtype=np.float32))
        for some in ((), (K,))
    )
    captions = diffusion.denoiser.embedder.encode([f"picture {number}" for number in range(count)])
    times = _spread(generator.random((count, K)), diffusion.times)
    return tuple(each.to(diffusion.denoiser.device) for each in (latents, captions, times, noise))
