"""Public images to a latent diffusion model: the autoencoder first, then the denoiser on its latents.

Only `PublicImages` come in here. Stages resume as those of `dpwavelet.pretraining` do.

Letters: M images, B batch, C x h x w a latent, S side of the square in pixels.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.checkpoint import write_bytes
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.known import known_of
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import png, sheet
from dpwavelet.precision import mixed_precision
from dpwavelet.pretraining.detail_stage import Judge
from dpwavelet.pretraining.loop import Note, Schedule, run_stage
from dpwavelet.pretraining.record import Log, PublicRun, remembered, run_or_restore
from dpwavelet.pretraining.stages import PublicPixels
from dpwavelet.randomness import stream, torch_stream
from dpwavelet.rivals.contest import contest
from dpwavelet.rivals.diffusion.networks import Denoiser, LatentDiffusion, create
from dpwavelet.rivals.diffusion.records import encoded
from dpwavelet.rivals.diffusion.sampling import Ddim, draw
from dpwavelet.rivals.diffusion.training import Finetuning, record_losses
from dpwavelet.rivals.diffusion.weights import load, save
from dpwavelet.text import Vocabulary

LOOK_WEIGHT, JUDGE_WEIGHT, SPREAD_WEIGHT = 0.5, 0.05, 1e-4  # beside the distance of pixels
QUIET = 0.3  # share of the steps before the judge is listened to
UNTOLD = 0.1  # of the captions are left out
DECAY = 0.999  # of the average of the weights


@dataclass(frozen=True, kw_only=True)
class DiffusionPretraining(PublicRun):
    """A complete public training run; the defaults take about as long as ours for `thumb` on a CPU."""

    autoencoder: Schedule = field(
        default_factory=lambda: Schedule(steps=1600, batch_size=32, learning_rate=1e-3, weight_decay=0.0)
    )
    denoiser: Schedule = field(
        default_factory=lambda: Schedule(steps=5000, batch_size=32, learning_rate=5e-4, weight_decay=0.01)
    )


def pretrain(images: PublicImages, run: DiffusionPretraining, out: Path, note: Note) -> LatentDiffusion:
    """Train both networks and write `out/` as a model folder; `out` with .work holds what resuming needs."""
    work = out.with_name(out.name + ".work")
    public = PublicPixels.read(images)
    run.check_same(work, public.digest())
    diffusion = create(run.preset, Vocabulary.of(public.captions), run.seed)
    log = Log(work / "log.jsonl", note)
    first, second = work / "autoencoder.safetensors", work / "denoiser.safetensors"

    def autoencode() -> None:
        train_autoencoder(diffusion, public, run.autoencoder, run.seed, first, log, run.looker())

    def denoise() -> None:
        both = public.with_drawn_heads(run.drawn_heads, run.seed)
        train_denoiser(diffusion, both, run.denoiser, run.seed, second, log)

    run_or_restore(first, run.autoencoder, diffusion.autoencoder, "autoencoder.", autoencode, log)
    scale_latents(diffusion, public, run.seed)
    run_or_restore(second, run.denoiser, diffusion.denoiser, "average.", denoise, log)
    write_bytes(work / "denoiser.png", png(stage_sheet(diffusion, public, run.seed)))
    whole = replace(diffusion.eval(), card=run.card("DP-LDM", images, log))
    save(whole, out, half=True, known=known_of(public.pixels))
    return load(out)


def train_autoencoder(
    diffusion: LatentDiffusion,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Autoencode: by pixels, by a feature network, and past a judge of small pieces that learns beside."""
    autoencoder = diffusion.autoencoder
    device = diffusion.denoiser.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "patch judge").initial_seed())
        judge = Judge(())
    both = nn.ModuleDict({"autoencoder": autoencoder.train().requires_grad_(True), "judge": judge}).to(device)
    looker.to(device)

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = images.draw(schedule.batch_size, stream(seed, "autoencoder", step))[1].to(device)
        with mixed_precision(device):
            found = autoencoder.encode(batch).latent_dist
            made = autoencoder.decode(found.sample(torch_stream(seed, "autoencoder", step))).sample
            seen = perceptual_distance(looker, made, batch).mean()
            fooled, caught = contest(judge, batch, made)
        mean, spread = found.mean.float(), found.logvar.float()
        width = (mean.square() + spread.exp() - 1 - spread).mean() / 2  # from a normal distribution, in nats
        pixels = (made.float() - batch).abs().mean()
        listened = step >= QUIET * schedule.steps
        loss = pixels + LOOK_WEIGHT * seen + SPREAD_WEIGHT * width + caught
        numbers = {"pixels": pixels, "seen": seen, "spread": width, "judge": caught}
        return loss + (JUDGE_WEIGHT * fooled if listened else 0), {
            name: float(value.detach()) for name, value in numbers.items()
        }

    run_stage("autoencoder", both, schedule, step_loss, state, note)
    autoencoder.eval().requires_grad_(False)


def scale_latents(diffusion: LatentDiffusion, images: PublicPixels, seed: int) -> None:
    """Give latents of public images unit variance; the factor is kept in the config of the autoencoder."""
    diffusion.autoencoder.eval().register_to_config(scaling_factor=1.0)
    _, some = images.draw(min(512, 4 * len(images)), stream(seed, "latent scale"))
    parts = [diffusion.encode(few.to(diffusion.denoiser.device)) for few in torch.split(some, 32)]
    diffusion.autoencoder.register_to_config(scaling_factor=1 / float(torch.cat(parts).std()))


def train_denoiser(
    diffusion: LatentDiffusion, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict what is wrong with noisy latents, told the caption nine times in ten; the average is kept."""
    denoiser, texts = diffusion.denoiser.train().requires_grad_(True), images.texts()
    average = deepcopy(denoiser).eval().requires_grad_(False)
    latents = remembered(state.with_name("latents.safetensors"), lambda: encode_all(diffusion, images))
    settings = Finetuning(draws=1)

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step:
            _follow(average, denoiser, min(DECAY, (1 + step) / (10 + step)))
        generator, B = stream(seed, "denoiser", step), schedule.batch_size
        chosen, mirrored = generator.integers(len(images), size=B), generator.integers(2, size=B)
        untold = generator.random(B) < UNTOLD
        captions = [
            "" if left_out else texts[index].say(generator, bool(mirror))
            for index, mirror, left_out in zip(chosen, mirrored, untold, strict=True)
        ]
        batch = torch.from_numpy(latents[mirrored, chosen].astype(np.float32))
        times = torch.from_numpy(generator.integers(diffusion.times, size=(B, 1)))
        noise = torch.from_numpy(generator.standard_normal((B, 1, *batch.shape[1:]), dtype=np.float32))
        rows = (
            each.to(denoiser.device) for each in (batch, denoiser.embedder.encode(captions), times, noise)
        )
        return record_losses(diffusion, settings, *rows).mean(), {}

    both = nn.ModuleDict({"denoiser": denoiser, "average": average})
    run_stage("denoiser", both, schedule, step_loss, state, note, denoiser.parameters())
    denoiser.load_state_dict(average.state_dict())
    denoiser.eval().requires_grad_(False)


def encode_all(diffusion: LatentDiffusion, images: PublicPixels) -> NDArray[np.float16]:
    """Latents [2, M, C, h, w] of every image and of its mirror image."""
    pixels = torch.from_numpy(images.pixels)
    return np.stack([encoded(diffusion, view) for view in (pixels, pixels.flip(-1))])


def stage_sheet(diffusion: LatentDiffusion, images: PublicPixels, seed: int, count: int = 12) -> Tensor:
    """Images, what the autoencoder keeps of them, and drawings of their captions: one picture [3, H, W]."""
    chosen, some = images.draw(count, stream(seed, "sheet"))
    kept = diffusion.decode(diffusion.encode(some.to(diffusion.denoiser.device))).cpu()
    drawn = draw(diffusion, [images.captions[index] for index in chosen], Ddim(steps=20), seed)
    return sheet([some, kept, drawn], 96)


@torch.no_grad()
def _follow(average: Denoiser, denoiser: Denoiser, decay: float) -> None:
    for own, other in zip(average.parameters(), denoiser.parameters(), strict=True):
        own.lerp_(other, 1 - decay)
