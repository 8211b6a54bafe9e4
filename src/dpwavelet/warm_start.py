"""A differentially private start: the public model, moved once towards the records before step 1.

    total = surprise(...)       exact, private: what the public model does not expect of records, added up
    noisy = plan.privatize_sum  the one thing about the records that anyone may see
    begin_from(noisy, ...)      post-processing: a model that expects it

In every cell of the coarse image the public model predicts a distribution over codes. A record's *surprise*
there is its own code minus the predicted mean code, both as points in the space of the codebook. To add the
mean surprise of all records to the predictions is to tilt them, p'(k) ~ p(k) exp(tilt . point of k): of all
changes with the wanted mean the one that says least else. The tilt is fitted, and then learned by a copy of
the model, on captions and images that the public model draws itself; no record has a part in that.

Letters: M records, B drawn sequences, L caption positions, N cells, G blocks of cells, K codes, D directions.
"""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.precision import mixed_precision
from dpwavelet.privacy.bounded_sums import NAME, bounded_sum
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, torch_stream
from dpwavelet.records import PrivateTokens
from dpwavelet.text import PAD, START
from dpwavelet.transformer import ImageTransformer

SIDE = 8  # blocks along a side, at most; cells of finer images share one
MOST_DIRECTIONS = 16
REACH = 0.75  # of the root of the number of values: about how long the surprise of a public image is
RIDGE = 0.3  # strength of the prior of the tilt, which is normal and says "none"
WITHOUT_CAPTION = 6  # of the drawn sequences, one in so many


@dataclass(frozen=True, kw_only=True)
class Moving:
    """How the model learns the tilt, on sequences that it draws itself."""

    sequences: int = 128
    steps: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3
    fit_steps: int = 40  # of the tilt itself
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sequences, self.steps, self.batch_size, self.fit_steps) < 1 or self.learning_rate <= 0:
            raise ConfigError(
                f"a warm start needs at least 1 sequence and step, and a learning rate above 0; got {self}."
            )


def bound_of(transformer: ImageTransformer, codes: Tensor) -> float:
    """The longest that what one unit adds to the sum may be: a number about the public model's shape."""
    return REACH * math.sqrt(len(_blocks(transformer)) * min(codes.shape[1], MOST_DIRECTIONS))


def surprise(
    transformer: ImageTransformer,
    codes: Tensor,
    records: PrivateTokens,
    told: Callable[[int], None] = lambda done: None,
) -> ClippedSum:
    """Add up the surprise [G D] of all records, each with its first caption; `codes` [K, C] are its points.

    Private. Guarantee: adding or removing one unit, with all its records, moves the sum by at most
    `bound_of(...)` (L2). Every record has a forward of its own: who else is there changes none of its bits.
    """
    points, blocks = directions(codes), _blocks(transformer)
    vectors = np.zeros((len(records), blocks.shape[0] * points.shape[1]), np.float32)
    for record in range(len(records)):
        vectors[record] = _surprise_of(transformer, points, blocks, records, record)
        told(1)
    return bounded_sum(vectors, bound_of(transformer, codes), records.owners)


def release(total: ClippedSum, plan: PrivacyPlan, source: Source, *, bound: float, other: int) -> Tensor:
    """The sum with the noise of `plan.others[other]`, for all to see."""
    return plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME]


def begin_from(
    noisy: Tensor,
    plan: PrivacyPlan,
    other: int,
    transformer: ImageTransformer,
    codes: Tensor,
    moving: Moving,
    told: Callable[[int], None] = lambda done: None,
) -> ImageTransformer:
    """A copy of the public model that expects the surprise [G D] whose noisy sum this is.

    A function of its arguments, all of them public. What the noise hides leaves the model as it is.
    """
    deviation = bound_of(transformer, codes) * plan.others[other].noise_multiplier / plan.records
    points, blocks = directions(codes), _blocks(transformer)
    mean = shrunk(noisy.double() / plan.records, deviation).float().to(codes.device)
    if not mean.any():
        return deepcopy(transformer)
    mean = mean.reshape(len(blocks), -1)
    captions = draw_captions(transformer, moving)
    plain = _draw(transformer, captions, None, moving)
    tilt = fit_tilt(_log_predictions(transformer, captions, plain), points, blocks, mean, moving.fit_steps)
    bias = tilt @ points.T  # [N, K]
    tilted = _draw(transformer, captions, bias, moving)
    return _learned(transformer, captions, tilted, bias, moving, told)


def directions(codes: Tensor) -> Tensor:
    """The codes [K, C] as points [K, D] along their principal directions, with variance 1 along each."""
    centred = codes.double() - codes.double().mean(0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    kept = min(codes.shape[1], MOST_DIRECTIONS)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # which end is up is arbitrary
    sizes = sizes[:kept].clamp_min(max(1e-6 * float(sizes[0]), 1e-30)) / math.sqrt(len(codes))
    points: Tensor = (centred @ axes[:kept].T / sizes).to(codes)
    return points


def shrunk(mean: Tensor, deviation: float) -> Tensor:
    """Closer to zero by what noise of this standard deviation adds to the length, as James and Stein do."""
    share = 1 - mean.numel() * deviation**2 / max(float(mean.square().sum()), 1e-300)
    return mean * max(share, 0.0)


def fit_tilt(predictions: Tensor, points: Tensor, blocks: Tensor, mean: Tensor, steps: int) -> Tensor:
    """The tilt [N, D] that moves predicted means by `mean` [G, D], averaged over log predictions [B, N, K].

    It minimises a convex function, the negative likelihood of the mean under the tilted predictions.
    """
    expected = predictions.exp() @ points
    tilt = torch.zeros_like(mean, requires_grad=True)
    optimizer = torch.optim.Adam([tilt], lr=0.1, betas=(0.9, 0.99))
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
            by_cell = blocks.T @ tilt
            grown = (predictions + by_cell @ points.T).logsumexp(-1) - (by_cell * expected).sum(-1)
            loss = grown.mean(0).sum() - (tilt * mean).sum() + RIDGE / 2 * tilt.square().sum()
            (tilt.grad,) = torch.autograd.grad(loss, [tilt])
            optimizer.step()
    found: Tensor = blocks.T @ tilt.detach()
    return found


@torch.no_grad()
def draw_captions(transformer: ImageTransformer, moving: Moving) -> Tensor:
    """Captions [B, L] as the public model writes them; the first of them are empty."""
    device = next(transformer.parameters()).device
    generator = torch_stream(moving.seed, "warm start", "captions")
    captions = torch.full((moving.sequences, transformer.config.caption_length), PAD)
    captions[:, 0] = START
    open_ended = torch.arange(moving.sequences) >= moving.sequences // WITHOUT_CAPTION
    for place in range(1, captions.shape[1]):
        chances = transformer.next_words(captions[:, :place].to(device)).float().softmax(-1).cpu()
        chances[:, PAD] = 0
        words = torch.multinomial(chances, 1, generator=generator)[:, 0]
        open_ended &= words != START
        captions[:, place] = torch.where(open_ended, words, PAD)
    return captions.to(device)


@torch.no_grad()
def _surprise_of(
    transformer: ImageTransformer, points: Tensor, blocks: Tensor, records: PrivateTokens, record: int
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    own = np.array([record])
    captions, scales = records.batch(own, np.zeros_like(own))
    tokens = scales[0].to(points.device)
    chances = _log_predictions(transformer, captions.to(points.device), tokens).exp()
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = (
        (blocks @ (points[tokens] - chances @ points)[0]).flatten().float().numpy(force=True)
    )
    return found


@torch.no_grad()
def _log_predictions(transformer: ImageTransformer, captions: Tensor, tokens: Tensor) -> Tensor:
    """What the model expects in each cell [B, N, K], after the cells before it; a few sequences at a time."""
    parts = zip(torch.split(captions, 32), torch.split(tokens, 32), strict=True)
    return torch.cat([_predict(transformer, *part) for part in parts])


def _predict(transformer: ImageTransformer, captions: Tensor, tokens: Tensor) -> Tensor:
    states = transformer.hidden(captions, [tokens])[:, captions.shape[1] :]
    logits: Tensor = transformer.code_heads[0](states)
    return logits.float().log_softmax(-1)


@torch.no_grad()
def _draw(transformer: ImageTransformer, captions: Tensor, bias: Tensor | None, moving: Moving) -> Tensor:
    """Codes [B, N] of the coarse scale, as the model draws them with this bias [N, K]."""
    generator = torch_stream(moving.seed, "warm start", "plain" if bias is None else "tilted")
    rows = []
    for some in torch.split(captions, moving.batch_size):
        logits, cache, mask = transformer.begin(some)
        ids: list[Tensor] = []
        for cell in range(transformer.config.tokens[0]):
            if ids:
                logits, mask = transformer.advance(ids[-1], cell, cache, mask)
            wanted = logits if bias is None else logits + bias[cell]
            chances = wanted.float().softmax(-1).cpu()
            ids.append(torch.multinomial(chances, 1, generator=generator)[:, 0].to(some.device))
        rows.append(torch.stack(ids, 1))
    return torch.cat(rows)


def _learned(
    transformer: ImageTransformer,
    captions: Tensor,
    tokens: Tensor,
    bias: Tensor,
    moving: Moving,
    told: Callable[[int], None],
) -> ImageTransformer:
    """A copy that predicts by itself what the model predicts with the bias; words and details stay."""
    targets = (_log_predictions(transformer, captions, tokens) + bias).log_softmax(-1)
    student = deepcopy(transformer)
    moved = [p.requires_grad_() for name, p in student.named_parameters() if _moves(name)]
    optimizer = torch.optim.Adam(moved, lr=moving.learning_rate, betas=(0.9, 0.99))
    generator = torch_stream(moving.seed, "warm start", "batches")
    with torch.enable_grad():
        for step in range(moving.steps):
            warm = min((step + 1) / 5, 1.0)
            optimizer.param_groups[0]["lr"] = moving.learning_rate * warm * (1 - step / moving.steps)
            batch = torch.randint(len(captions), (moving.batch_size,), generator=generator).to(tokens.device)
            with mixed_precision(tokens.device):
                found = _predict(student, captions[batch], tokens[batch])
            loss = F.kl_div(found, targets[batch], log_target=True, reduction="sum") / found[..., 0].numel()
            for parameter, gradient in zip(moved, torch.autograd.grad(loss, moved), strict=True):
                parameter.grad = gradient
            optimizer.step()
            told(1)
    return with_weights(transformer, student.state_dict())


def with_weights(transformer: ImageTransformer, weights: Mapping[str, Tensor]) -> ImageTransformer:
    """A copy with these weights instead."""
    copy = deepcopy(transformer)
    copy.load_state_dict(dict(weights))
    return copy


def _moves(name: str) -> bool:
    return not name.startswith(("word_", "code_heads.1"))


def _blocks(transformer: ImageTransformer) -> Tensor:
    """Which cells share a block, as orthonormal rows [G, N]; each has one of its own where they are few."""
    weight = transformer.cell_position.weight
    side = math.isqrt(transformer.config.tokens[0])
    if side <= SIDE or side % SIDE:
        return torch.eye(transformer.config.tokens[0], dtype=weight.dtype, device=weight.device)
    width = side // SIDE
    rows = torch.arange(side, device=weight.device) // width
    member = (rows[:, None] * SIDE + rows).flatten()
    return F.one_hot(member, SIDE**2).T.to(weight) / width
