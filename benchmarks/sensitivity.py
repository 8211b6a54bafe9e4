"""How far one record moves the clipped sum, over the bound C: measured, as the proof is about real numbers.

    python benchmarks/sensitivity.py            # the table, a few minutes on one thread
    python benchmarks/sensitivity.py --quick    # batches of 2 and 32 only

Every cell is the largest |S(D) - S(D minus one)| / C over batches of several sizes and kinds. The one is the
last record, in small batches the first and the middle one too. It goes in two ways: the batch gets shorter,
so that products have another shape and may round anew; or padding fills its chunk up to one shape, as
training does. The difference is summed in float64. Exits 1 if a cell exceeds its goal: 1 + 1e-5 where model
and products are exact (float32 or wider), 1 elsewhere.

Letters: B records, T positions, W features.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpwavelet.privacy.clipping import RecordClipper

C = 1.0
W, WORDS = 64, 16
SIZES = (2, 8, 32, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="batches of 2 and 32 only")
    parser.add_argument("--only", nargs="*", metavar="MODEL", help="names of models", choices=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    started = time.monotonic()
    names = wanted.only or list(MODELS)
    found = [worst(name, way, (2, 32) if wanted.quick else SIZES) for name in names for way in WAYS]
    cells = [cell for pair in found for cell in pair]
    print(table(names, cells))
    seconds = round(time.monotonic() - started, 1)
    facts = {"seconds": seconds, "machine": platform.machine(), "torch": torch.__version__}
    print(json.dumps(facts | {"cells": [asdict(cell) for cell in cells]}))
    over = [cell for cell in cells if not cell.moved <= goal(cell.way)]
    for cell in over:
        print(f"over its goal of {goal(cell.way)}: {cell}", file=sys.stderr)
    sys.exit(bool(over))


# Models. One more is one more line in MODELS, with the T that it shall see.


class Records(NamedTuple):
    """What any of the models needs of B records."""

    x: Tensor  # [B, T, W]
    ids: Tensor  # [B, T]
    push: Tensor  # [B, T, W], the gradient of a single layer's output
    scale: Tensor  # [B], of `push`, or of logits

    def rows(self, chosen: Tensor) -> "Records":
        return Records(*(part[chosen] for part in self))


class Model(nn.Module):
    """What is measured."""

    def losses(self, x: Tensor, ids: Tensor, push: Tensor, scale: Tensor) -> Tensor:
        """One loss for each of the records [B]."""
        raise NotImplementedError


class Single(Model):
    """One layer whose output gradients are those of the records, so that any gradient can be asked for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def losses(self, x: Tensor, ids: Tensor, push: Tensor, scale: Tensor) -> Tensor:
        given = ids if isinstance(self.layer, nn.Embedding) else x.to(next(self.parameters()).dtype)
        return (_wide(self.layer(given)) * push).sum((1, 2)) * scale


class LowRank(nn.Module):
    """A frozen layer and the pair that is trained beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(W, W).requires_grad_(False)
        self.down, self.up = nn.Linear(W, 4, bias=False), nn.Linear(4, W, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.frozen(x) + self.up(self.down(x))
        return y


class Transformer(Model):
    """Every kind of layer, one block called twice, causal attention; logits times the record's scale."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(WORDS, W), nn.Embedding(64, W)
        self.before, self.between, self.after = nn.LayerNorm(W), nn.LayerNorm(W), nn.RMSNorm(W)
        self.qkv, self.mix = nn.Linear(W, 3 * W), nn.Linear(W, W, bias=False)
        self.up, self.down = nn.Linear(W, 2 * W), nn.Linear(2 * W, W)
        self.head = nn.Linear(W, WORDS, bias=not tied)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        B, T = ids.shape
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        x = self.token(ids) + self.position(torch.arange(T).expand(B, T))
        for _ in range(2):
            q, k, v = self.qkv(self.before(x)).chunk(3, -1)
            x = x + self.mix((q @ k.mT / W**0.5).masked_fill(future, -math.inf).softmax(-1) @ v)
            x = x + self.down(F.gelu(self.up(self.between(x))))
        logits: Tensor = self.head(self.after(x))
        return logits

    def losses(self, x: Tensor, ids: Tensor, push: Tensor, scale: Tensor) -> Tensor:
        logits = _wide(self(ids)) * scale[:, None, None]
        return F.cross_entropy(logits.mT, ids.roll(-1, 1), reduction="none").mean(1)


MODELS: dict[str, tuple[Callable[[], Model], int]] = {
    "Linear, Gram": (lambda: Single(nn.Linear(W, W)), 4),
    "Linear, stored": (lambda: Single(nn.Linear(W, W)), 24),
    "Linear, no bias": (lambda: Single(nn.Linear(W, W, bias=False)), 4),
    "Embedding": (lambda: Single(nn.Embedding(WORDS, W)), 8),
    "LayerNorm": (lambda: Single(nn.LayerNorm(W)), 8),
    "RMSNorm": (lambda: Single(nn.RMSNorm(W)), 8),
    "LoRA pair": (lambda: Single(LowRank()), 8),
    "Transformer": (Transformer, 8),
    "tied head": (lambda: Transformer(tied=True), 8),
    "weighted": (Transformer, 8),
}


def weights(name: str, model: Model) -> dict[str, float]:
    """By how much the gradients of a model count: from 1/16 to 16 in "weighted", one in all others."""
    if name != "weighted":
        return {}
    return {
        parameter: 2.0 ** (5 * index % 9 - 4) for index, (parameter, _) in enumerate(model.named_parameters())
    }


def _wide(x: Tensor) -> Tensor:
    """At least single precision, for the loss."""
    return x if x.dtype == torch.float64 else x.float()


# Records.


def _random(B: int, T: int) -> Records:
    return Records(torch.randn(B, T, W), torch.randint(0, WORDS, (B, T)), torch.randn(B, T, W), torch.ones(B))


def _equal(B: int, T: int) -> Records:
    """All the same, so that clipped gradients add up to B C and every rounding goes one way."""
    return _random(1, T).rows(torch.zeros(B, dtype=torch.long))


def _near(B: int, T: int) -> Records:
    one, other = _equal(B, T), _random(B, T)
    ids = torch.cat([one.ids[:, :-1], other.ids[:, -1:]], 1)
    return Records(one.x + 1e-3 * other.x, ids, one.push + 1e-3 * other.push, one.scale)


def _not_finite(B: int, T: int) -> Records:
    """Among near-duplicates, every second record is infinite or not a number, somewhere."""
    records = _near(B, T)
    for row in range(0, B, 2):
        bad = math.inf if row % 4 else math.nan
        part = (records.x[row, 0], records.push[row, -1], records.scale[row : row + 1])[row // 4 % 3]
        part[:1] = bad
        records.scale[row] = bad if row // 4 % 3 == 0 else records.scale[row]  # ids cannot be infinite
    return records


def _scaled(B: int, T: int) -> Records:
    """Near-duplicates with huge, tiny and ordinary gradients, or logits."""
    records = _near(B, T)
    return Records(
        records.x, records.ids, records.push, torch.tensor([1e-12, 1e12, 1.0, 1e3, 1e-3]).repeat(B)[:B]
    )


def _outliers(B: int, T: int) -> Records:
    """Pairs of positions that nearly cancel beside one large feature: long sums lose most of their digits."""
    records, pairs = _random(B, T), T // 2
    large, small = 28 * (0.3 + torch.rand(B, 1, 1)), 0.7 + 0.3 * torch.rand(B, 1, 1)
    one = torch.cat([large, small.expand(B, 1, W - 1)], 2)
    other = one * (1 + 2.0**-7 * torch.randn(B, 1, W).sign())
    x, push = torch.cat([one, other], 1).repeat(1, pairs, 1), torch.randn(B, 1, W)
    return records._replace(x=x, push=torch.cat([push, -push], 1).repeat(1, pairs, 1))


def _crossed(B: int, T: int) -> Records:
    """The last record's positions are huge and cancel, in one place, where others have put odd numbers."""
    records = _random(B, T)
    push = torch.zeros(B, T, W)
    push[:, 0] = 0.05 / B * torch.rand(B, 1)
    push[0, 0], push[-1, 0] = 10.0, 1e6
    push[-1, 1] = -1e6
    return records._replace(x=torch.ones(B, T, W), ids=torch.ones_like(records.ids), push=push)


KINDS: dict[str, Callable[[int, int], Records]] = {
    "random": _random,
    "equal": _equal,
    "near-duplicates": _near,
    "infinite and not a number": _not_finite,
    "huge and tiny": _scaled,
    "outliers": _outliers,
    "crossed": _crossed,
}


# Ways to compute.


@dataclass(frozen=True)
class Way:
    """In which type the model computes, and how products are rounded."""

    model: Literal["float64", "float32", "bfloat16", "float16", "autocast"]
    precision: Literal["exact", "fast"]


WAYS = (
    Way("float64", "exact"),
    Way("float32", "exact"),
    Way("float32", "fast"),
    Way("bfloat16", "exact"),
    Way("bfloat16", "fast"),
    Way("float16", "exact"),
    Way("float16", "fast"),
    Way("autocast", "exact"),
    Way("autocast", "fast"),
)


def goal(way: Way) -> float:
    """How far a record may move the sum, over C."""
    return 1 + 1e-5 if way.precision == "exact" and way.model in ("float64", "float32") else 1.0


@dataclass(frozen=True)
class Cell:
    """The farthest that a record moved the sum of a model, over C, and where."""

    model: str
    way: Way
    removed: Literal["shorter", "padded"]
    moved: float
    records: str
    size: int
    chunk: int
    left_out: int


def worst(name: str, way: Way, sizes: tuple[int, ...]) -> tuple[Cell, Cell]:
    """The largest of all neighbours, for records that leave a shorter batch and for those that are padded."""
    cells = list(_measure(name, way, sizes))
    found = [
        max((c for c in cells if c.removed == removed), key=lambda c: (math.isnan(c.moved), c.moved))
        for removed in ("shorter", "padded")
    ]
    return found[0], found[1]


def _measure(name: str, way: Way, sizes: tuple[int, ...]) -> Iterator[Cell]:
    torch.manual_seed(0)
    build, T = MODELS[name]
    dtype = torch.float32 if way.model == "autocast" else getattr(torch, way.model)
    model = build().to(dtype)
    clipper = RecordClipper(model, max_norm=C, precision=way.precision, weights=weights(name, model))
    for size in sizes:
        for kind, make in KINDS.items():
            records = make(size, T)
            for chunk, padded in _layouts(size):
                whole = _sum(clipper, model, way, records, chunk, padded)
                for left_out in sorted({0, size // 2, size - 1} if size < 100 else {size - 1}):
                    rest = records.rows(torch.arange(size) != left_out)
                    moved = whole - _sum(clipper, model, way, rest, chunk, padded)
                    yield Cell(
                        name, way, "padded" if padded else "shorter", float(moved.norm()) / C, kind, size,
                        chunk, left_out,
                    )  # fmt: skip


def _layouts(size: int) -> list[tuple[int, bool]]:
    """Rows of a chunk, and whether the last is filled up: one chunk, a ragged rest, and as in training."""
    ragged = 100 if size > 100 else 20
    return [(size, False), *([(ragged, False)] if size > ragged else []), (min(2 * size, 64), True)]


def _sum(
    clipper: RecordClipper, model: Model, way: Way, records: Records, chunk: int, padded: bool
) -> Tensor:
    """The clipped sum as one float64 vector, from chunks of at most, or if padded exactly, `chunk` rows."""

    def losses(*part: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.model == "autocast"):
            return model.losses(*part)

    for rows in torch.split(torch.arange(len(records.scale)), chunk):
        filled = rows.repeat(chunk)[:chunk] if padded else rows
        clipper.accumulate(losses, *records.rows(filled), records=len(rows))
    return torch.cat([value.double().flatten() for value in clipper.finish().values.values()])


def table(names: list[str], cells: list[Cell]) -> str:
    """Markdown: a row for each way to compute and to remove, a column for each model."""
    lines = [f"| model computes in | products | record is | {' | '.join(names)} |"]
    lines.append("|---" * (3 + len(names)) + "|")
    for way in WAYS:
        for removed in ("shorter", "padded"):
            found = {cell.model: cell.moved for cell in cells if (cell.way, cell.removed) == (way, removed)}
            shown = " | ".join(
                f"{found[name]:.5f}" if found[name] <= goal(way) else f"**{found[name]:.5f}**"
                for name in names
            )
            how = "left out" if removed == "shorter" else "padded over"
            lines.append(f"| {way.model} | {way.precision} | {how} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
