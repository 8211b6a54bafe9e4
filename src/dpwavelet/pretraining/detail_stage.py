"""How the detail model learns to draw: two drawings of each public image, beside the image itself.

Three things are asked of them. Their distance to the image, taken between small pieces (windows of detail
coefficients, columns of a public feature network), less a part of their distance to one another: with half of
it, that is the energy score, which only drawings from the true distribution bring to its least; we take less,
so drawings vary less than pictures do and lie nearer to the image. And a judge, which learns beside them,
must not tell them from images: it looks at pixels and at the maps of the feature network.

`train_detail` shows the true coarse images. `harden_detail` goes on with coarse images as a private model
makes them: through the tokenizer, some tokens drawn anew by the transformer itself. What the details are
compared with is then the true detail around the same wrong coarse image, since no detail can mend that.
`polish_detail` comes last. A part of its coarse images were drawn by the finished transformer alone, its
weights shaken as private training shakes them; no true detail belongs to those, so a judge alone decides.
Images are greyed and toned at random, as owners have X-rays, scans and pages too.

Letters: B batch, F features, h and w sides of a map.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dpwavelet.features import FeatureNetwork
from dpwavelet.generation import PUBLIC, choose, draw_tokens
from dpwavelet.model import Model
from dpwavelet.pretraining.loop import Note, Schedule, restore, run_stage
from dpwavelet.pretraining.stages import SHAKE, PublicPixels, mixed_precision_of, shaken
from dpwavelet.randomness import stream, torch_stream
from dpwavelet.text import START
from dpwavelet.wavelet import analyze, synthesize

WINDOWS = (1, 4)  # sides of the pieces of detail coefficients
VARIETY = 0.2  # of the distance between drawings; 0.5 would be the energy score
WINDOW_WEIGHT, JUDGE_WEIGHT = 0.2, 0.05  # beside the distance between features
JUDGED_MAPS = 3  # the finest ones: what a picture is of was decided before
QUIET = 0.1  # share of the steps before the judge is listened to
TRUE_SHARE = 0.25  # of the coarse images that stay true while hardening
REDRAWN = 0.3  # at most this share of the tokens of an image is drawn anew
FREE_SHARE = 0.25  # of a batch of polishing are coarse images that the transformer drew alone
FREE = 2048  # such images, drawn once
GREYED, TONED = 0.25, 0.5  # shares of images without colours, and of those with another contrast and light


class Judge(nn.Module):
    """Scores of small pieces of a picture, above 0 for a real one: by its pixels and by maps of features."""

    def __init__(self, widths: Sequence[int], features: int = 64) -> None:
        super().__init__()

        def conv(before: int, after: int, side: int = 1, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(before, after, side, stride, padding=(side - 1) // 2))

        def bent(*layers: nn.Module) -> nn.Module:
            return nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(0.2))))

        half = features // 2
        self.pixels = nn.Sequential(
            bent(conv(3, half, 4, 2), conv(half, features, 3), conv(features, features, 4, 2)),
            conv(features, 1),
        )
        self.maps = nn.ModuleList(
            nn.Sequential(bent(conv(width, features), conv(features, features, 3)), conv(features, 1))
            for width in widths
        )

    def forward(self, images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """Images [B, 3, S, S] and their maps [B, F, h, w] to scores [B, 1, h, w] of each."""
        return [self.pixels(images), *(score(x) for score, x in zip(self.maps, maps, strict=False))]


def train_detail(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Draw details around the true coarse images."""
    config = model.tokenizer.config
    _, sample = images.draw(min(1024, 4 * len(images)), stream(seed, "detail spread"))
    model.detail.start(analyze(sample, config.levels, config.wavelet))
    _train(model, images, schedule, seed, state, note, looker, "detail", hardening=False)


def harden_detail(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Go on with coarse images that hold the mistakes of the tokenizer and of the transformer."""
    _train(model, images, schedule, seed, state, note, looker, "hardened", hardening=True)


def polish_detail(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Go on with images of any tone, and with coarse images that the transformer drew alone."""
    free = free_drawings(model, images, FREE, seed)
    _train(model, images, schedule, seed, state, note, looker, "polished", hardening=True, free=free)


@torch.no_grad()
def free_drawings(model: Model, images: PublicPixels, count: int, seed: int) -> Tensor:
    """Coarse images [M, 3, h, w] of captions of `images`; the weights are shaken from not at all to whole."""
    drawn, parts = [], 8
    texts, length = images.texts(), model.transformer.config.caption_length
    for part in range(parts):
        generator = stream(seed, "free drawings", part)
        told = [
            texts[index].say(generator, False)
            for index in generator.integers(len(texts), size=count // parts)
        ]
        spread = SHAKE * part / (parts - 1)
        with (
            shaken(model.transformer, spread, torch_stream(seed, "shaken drawings", part)),
            mixed_precision_of(model.transformer),
        ):
            ids = draw_tokens(
                model.transformer,
                model.vocabulary.encode(told, length),
                1,
                PUBLIC,
                seed,
                first=part * len(told),
            )
        drawn += [model.tokenizer.decode([some]).float() for some in torch.split(ids[0], 64)]
    return torch.cat(drawn)


def toned(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Images [B, 3, S, S] in [-1, 1], some of them greyed, some with less contrast and another light."""
    numbers = torch.from_numpy(generator.random((4, len(images), 1, 1, 1), dtype=np.float32))
    grey = torch.where(numbers[0] < GREYED, images.mean(1, keepdim=True).expand_as(images), images)
    contrast = 0.4 + 0.8 * numbers[1]
    light = (1.2 * numbers[2] - 0.8) * (1 - contrast).clamp_min(0)
    return torch.where(numbers[3] < TONED, (contrast * grey + light).clamp(-1, 1), grey)


@torch.no_grad()
def with_mistakes(model: Model, coarse: Tensor, generator: np.random.Generator) -> Tensor:
    """Coarse images [B, 3, h, w] as a transformer would make them, but for a part that stays true."""
    true = model.tokenizer.encode_bands([coarse])[0]
    share = generator.random((len(true), 1)) * REDRAWN
    wrong = torch.from_numpy(generator.random(tuple(true.shape)) < share)
    ids = torch.where(wrong, redraw(model, true, generator), true)
    kept = torch.from_numpy(generator.random(len(true)) < TRUE_SHARE)[:, None, None, None]
    return torch.where(kept, coarse, model.tokenizer.decode([ids]).float())


@torch.no_grad()
def redraw(model: Model, ids: Tensor, generator: np.random.Generator) -> Tensor:
    """For every token [B, N] another one, drawn by the transformer after the true ones before it."""
    words = torch.full((len(ids), 1), START)  # no caption, so that the picture alone says what comes next
    with mixed_precision_of(model.transformer):
        hidden = model.transformer.hidden(words, [ids])[:, 1:]
        logits = model.transformer.code_heads[0](hidden).float()
    uniforms = torch.from_numpy(generator.random(ids.numel()))
    return choose(logits.flatten(0, 1), uniforms, PUBLIC).reshape(ids.shape)


def _train(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
    stage: str,
    *,
    hardening: bool,
    free: Tensor | None = None,
) -> None:
    detail, config = model.detail.train().requires_grad_(True), model.tokenizer.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "judge").initial_seed())
        judge = Judge(looker.config.widths[:JUDGED_MAPS])
    if hardening and free is None:
        restore(state.with_name("detail.safetensors"), judge, "judge.")  # as `train_detail` left it
    alone = 0 if free is None else int(FREE_SHARE * schedule.batch_size)
    both = nn.ModuleDict({"detail": detail, "judge": judge})
    for network in (both, looker):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs; 3x faster

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(seed, stage, step)
        _, batch = images.draw(schedule.batch_size - alone, generator)
        if free is not None:
            batch = toned(batch, generator)
        bands = analyze(batch, config.levels, config.wavelet)
        with mixed_precision_of(model.detail):
            if hardening:
                bands[0] = with_mistakes(model, bands[0], generator)
                batch = synthesize(bands, config.wavelet)
            coarse = torch.cat((bands[0], bands[0]))
            if free is not None:
                some = free[generator.integers(len(free), size=alone)]
                coarse = torch.cat((coarse, toned(some, generator)))
            details = detail.details(coarse, _noise(model, len(coarse), generator))
            drawn = synthesize([coarse, *details], config.wavelet)
            seen, shown = looks(looker, drawn), looks(looker, batch)
            listened = step >= QUIET * schedule.steps
            fooled, caught = _contest(judge, batch, shown, drawn, seen)
        paired = 2 * len(batch)
        seen, details = [x[:paired] for x in seen], [x[:paired] for x in details]
        near = energy(shown, *_halves(seen))
        windows = energy(pieces(bands[1:], detail.spread), *_halves(pieces(details, detail.spread)))
        loss = near + WINDOW_WEIGHT * windows + caught + (JUDGE_WEIGHT * fooled if listened else 0)
        numbers = {"features": near, "windows": windows, "judge": caught}
        return loss, {name: float(value.detach()) for name, value in numbers.items()}

    run_stage(stage, both, schedule, step_loss, state, note)
    detail.eval().requires_grad_(False)


def energy(truth: Sequence[Tensor], one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Mean distance of two drawings to the truth, less a part of that between them; maps [B, F, h, w]."""
    found = [
        ((_apart(a, t) + _apart(b, t)) / 2 - VARIETY * _apart(a, b)).mean()
        for t, a, b in zip(truth, one, other, strict=True)
    ]
    return torch.stack(found).mean()


def pieces(details: Sequence[Tensor], spread: Tensor) -> list[Tensor]:
    """Details [B, 9, h, w] of every level, in units of their spread, as windows of each size."""
    cut = [
        F.pixel_unshuffle(band / unit, window)
        for band, unit in zip(details, spread, strict=True)
        for window in WINDOWS
    ]
    return [each / each.shape[1] ** 0.5 for each in cut]


def looks(network: FeatureNetwork, images: Tensor) -> list[Tensor]:
    """What the feature network sees: the maps of its stages, each column of length one."""
    rows = network.maps(images.contiguous(memory_format=torch.channels_last))
    return [F.normalize(x.float(), dim=1, eps=1e-6) for x in rows]


def _contest(
    judge: Judge, real: Tensor, real_maps: list[Tensor], drawn: Tensor, drawn_maps: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """What the drawings lose by being seen through, and what the judge loses by its errors (hinge)."""
    known = judge(real.contiguous(memory_format=torch.channels_last), real_maps)
    guessed = judge(drawn.detach(), [x.detach() for x in drawn_maps])
    caught = [(F.relu(1 - r).mean() + F.relu(1 + f).mean()) for r, f in zip(known, guessed, strict=True)]
    judge.requires_grad_(False)  # the drawings must please the judge, and not change it
    fooled = [-score.mean() for score in judge(drawn, drawn_maps)]
    judge.requires_grad_(True)
    return torch.stack(fooled).mean(), torch.stack(caught).mean()


def _noise(model: Model, count: int, generator: np.random.Generator) -> list[Tensor]:
    side, config = model.tokenizer.config.image_sides[0], model.detail.config
    return [
        torch.from_numpy(
            generator.standard_normal((count, config.noise, side << level, side << level), dtype=np.float32)
        )
        for level in range(config.levels)
    ]


def _halves(rows: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The first and the second drawing of every image."""
    first, second = zip(*(each.chunk(2) for each in rows), strict=True)
    return list(first), list(second)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Length of the difference at every place; the small term keeps its slope finite at 0."""
    return ((a - b).square().sum(1) + 1e-8).sqrt()
