"""What evaluation costs, whether its distances grow as pictures get worse, and whether others agree.

    python benchmarks/evaluation.py                      # every part; the last three need staged images
    python benchmarks/evaluation.py --only time          # seconds and peak memory, on drawn portraits
    python benchmarks/evaluation.py --only degradations  # distances along ways in which pictures get worse
    python benchmarks/evaluation.py --only sets          # a table of distances between staged sets
    python benchmarks/evaluation.py --only agreement     # ranks by ours and by two networks of others

Prints Markdown. Exits 1 if a distance falls by more than two standard errors where pictures got worse. The
staged sets are looked for in DPWAVELET_DATA or beside the repository, and none of their images is written
anywhere. All sets have the same number of images, because a Fréchet distance depends on it.

Letters: N images, S side, D features.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from _witnesses import witnesses
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from dpwavelet.comparison.stopwatch import peak_memory
from dpwavelet.evaluation import (
    Bootstrap,
    ComparisonSettings,
    Extractor,
    Measured,
    Pictures,
    disjoint,
    evaluate,
    extractor,
    frechet_distance,
    kernel_distance,
)
from dpwavelet.images.degradations import DEGRADATIONS
from dpwavelet.images.drawn import draw_to, portraits, render
from dpwavelet.memory import keep_freed_memory
from dpwavelet.progress import Silent
from dpwavelet.randomness import stream

PARTS = ("time", "degradations", "sets", "agreement")
SIDE = 64
N = 800  # of each set; flickr1k has no more
SIZES = (2_500, 10_000)
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
KEPT = 256  # directions that features of others are projected to, so that N images are enough

STAGED = {
    "tinyimagenet train": ("public/tinyimagenet64.tar.xz", "train"),
    "tinyimagenet val": ("public/tinyimagenet64.tar.xz", "val"),
    "scenes6": ("private/scenes6.tar.xz", "train"),
    "celeba_faces": ("private/celeba_faces.tar.xz", "train"),
    "flickr1k": ("private/flickr1k_captions.tar.xz", None),
    "mednist64": ("private/mednist64.tar.xz", "train"),
    "cifar10": ("bench/cifar10.tar.xz", "train"),
}
WORSENED = {
    "tinyimagenet val": "celeba_faces",
    "celeba_faces": "scenes6",
    "scenes6": "mednist64",
    "portraits": "tinyimagenet val",
}
"""Sets whose pictures get worse, and which others are mixed in. Only portraits were never JPEG files."""

FALLS = "NO"

Rows = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--features", type=Path, help="a feature network in a folder; the bundled one else")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--measure", nargs=2, type=Path, help=argparse.SUPPRESS
    )  # one size, in its own process
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    ours = extractor("thumb", wanted.features)
    if wanted.measure:
        real, generated = wanted.measure
        print(json.dumps(measure(real, generated, ours)))
        return
    print(f"{ours.label}, weights {ours.digest[:8]}, {wanted.threads} threads, torch {torch.__version__}\n")
    if "time" in wanted.only:
        time_and_memory(wanted)
    data = staged()
    parts = [part for part in wanted.only if part != "time"]
    if not parts or data is None:
        print("\n".join(f"{part}: skipped, the staged sets are absent" for part in parts))
        return
    sys.exit(not on_staged(data, ours, parts))


def staged() -> Path | None:
    """The folder of staged sets, if there is one."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DPWAVELET_DATA", beside))
    return folder if folder.is_dir() else None


# Time and memory.


def time_and_memory(wanted: argparse.Namespace) -> None:
    """Each size in a process of its own, whose peak memory is then its own."""
    print("| images of each set | seconds | of which comparing | peak memory, MiB | before the images, MiB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for count in SIZES:
            folders = [Path(place) / f"{name}{count}" for name in ("real", "generated")]
            for seed, folder in enumerate(folders):
                draw_to(folder, count, seed, SIDE)
            more = ["--features", str(wanted.features)] if wanted.features else []
            call = [sys.executable, __file__, "--threads", str(wanted.threads), *more, "--measure"]
            done = subprocess.run([*call, *map(str, folders)], check=True, capture_output=True, text=True)
            facts = json.loads(done.stdout)
            print(
                f"| {count:,} | {facts['seconds']:.0f} | {facts['comparing']:.0f} | {facts['peak']:.0f} | "
                f"{facts['before']:.0f} |",
                flush=True,
            )
    print()


class Clock(Silent):
    """Notes when the last stage began."""

    def begin(self, stage: str, total: int) -> None:
        self.began = time.monotonic()


def measure(real: Path, generated: Path, ours: Extractor) -> dict[str, float]:
    """A whole comparison from files to numbers, real against real included."""
    before, started, clock = peak(), time.monotonic(), Clock()
    truth, made = (Pictures.open(folder, ours.side) for folder in (real, generated))
    evaluate(truth, made, ours, ComparisonSettings(), progress=clock)
    ended = time.monotonic()
    return {
        "seconds": ended - started,
        "comparing": ended - clock.began,
        "peak": peak(),
        "before": before,
    }


def peak() -> float:
    """MiB of memory that this process has had at most, where the system tells."""
    return (peak_memory() or 0) / 2**20


# Distances on staged images.


@dataclass(frozen=True, eq=False)
class Space:
    """An extractor, and the directions that are kept of its features, if not all."""

    extractor: Extractor
    directions: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, extractor: Extractor) -> "Space":
        if extractor.columns <= KEPT:
            return cls(extractor)
        square = stream(0, "directions").standard_normal((extractor.columns, KEPT))
        return cls(extractor, np.linalg.qr(square)[0].astype(np.float32))

    @property
    def label(self) -> str:
        return self.extractor.label

    def rows(self, pixels: Tensor) -> Rows:
        found = self.extractor.rows(pixels)
        return found if self.directions is None else found @ self.directions


@dataclass(frozen=True)
class Set:
    """N images of one set, and two disjoint draws of it: of N too, or halves where it is small."""

    images: Tensor
    draws: tuple[Tensor, Tensor]


def on_staged(data: Path, ours: Extractor, parts: list[str]) -> bool:
    """Whether every distance grew that should."""
    sets = dict(read(data))
    space = Space.of(ours)
    others = [Space.of(each) for each in witnesses(data / "weights")] if "agreement" in parts else []
    good = True
    worse = {name: worsened(sets[name], sets[other], space) for name, other in WORSENED.items()}
    if "degradations" in parts:
        told = [tell_worsened(name, found, space) for name, found in worse.items()]
        good = all(told)
    between = set_distances(sets, space)
    if "sets" in parts:
        tell_sets(list(sets), between, space)
    if "agreement" in parts:
        agreement(sets, worse["tinyimagenet val"], between, space, others)
    return good


def read(data: Path) -> Iterator[tuple[str, Set]]:
    """Every set by its name, and drawn portraits."""
    for name, (file, split) in STAGED.items():
        pictures = Pictures.open(data / file, SIDE, split)
        count = min(N, len(pictures) // 2)
        first, second = (
            pixels_of(pictures.some(places)) for places in disjoint(len(pictures), (count, count), 0)
        )
        yield name, Set(first if count == N else torch.cat([first, second]), (first, second))
    people = portraits(2 * N, 0)
    drawn = torch.from_numpy(render(people, SIDE)).permute(0, 3, 1, 2).contiguous()
    yield "portraits", Set(drawn[:N], (drawn[:N], drawn[N:]))


def pixels_of(pictures: Pictures) -> Tensor:
    return torch.cat([pixels for _, pixels in pictures.batches(256)])


@dataclass(frozen=True)
class Cell:
    """Both distances of one pair of sets."""

    frechet: Measured
    kernel: Measured

    @classmethod
    def between(cls, real: Rows, generated: Rows) -> "Cell":
        few = Bootstrap(draws=40)  # intervals are not shown
        return cls(*(of(real, generated, bootstrap=few) for of in (frechet_distance, kernel_distance)))


Worsened = dict[str, list[Cell]]


def worsened(pictures: Set, others: Set, space: Space) -> Worsened:
    """Distances of one draw to the other one, which gets worse; by the name of how."""
    first, second = pictures.draws
    real = space.rows(first)
    ways = {name: _worse(second, name) for name in DEGRADATIONS}
    ways["mixing"] = _mixed(second, others.images)
    return {
        name: [Cell.between(real, space.rows(make(k))) for k in range(len(STRENGTHS))]
        for name, make in ways.items()
    }


def _worse(pixels: Tensor, name: str) -> Callable[[int], Tensor]:
    return lambda k: DEGRADATIONS[name](pixels, STRENGTHS[k], stream(0, "worse", name))


def _mixed(pixels: Tensor, others: Tensor) -> Callable[[int], Tensor]:
    def make(k: int) -> Tensor:
        replaced = round(SHARES[k] * len(pixels))
        return torch.cat([others[:replaced], pixels[replaced:]])

    return make


def tell_worsened(name: str, found: Worsened, space: Space) -> bool:
    """A table, and whether neither distance falls along any line."""
    print(f"{space.label} of {len(STRENGTHS)} strengths on {name}, {N} against {N} images; mixing: ", end="")
    print(f"shares {', '.join(map(str, SHARES))} of {WORSENED[name]}\n")
    print(f"| | {' | '.join(map(str, STRENGTHS))} | grows | {space.extractor.kernel_label} grows |")
    print("|---" * (len(STRENGTHS) + 3) + "|")
    good = True
    for way, cells in found.items():
        grows = [grow([getattr(cell, formula) for cell in cells]) for formula in ("frechet", "kernel")]
        good = good and FALLS not in grows
        print(
            f"| {way} | {' | '.join(f'{cell.frechet.value:.3g}' for cell in cells)} | {' | '.join(grows)} |"
        )
    print(flush=True)
    return good


def grow(line: list[Measured]) -> str:
    """Whether every step is up; a step down by no more than two standard errors is level."""
    steps = [
        (after.value - before.value, math.hypot(before.error, after.error))
        for before, after in pairwise(line)
    ]
    if all(step > 0 for step, _ in steps):
        return "yes"
    return "level" if all(step > -2 * error for step, error in steps) else FALLS


def set_distances(sets: dict[str, Set], space: Space) -> dict[tuple[str, str], Cell]:
    """Of every pair of sets, and of two draws of each."""
    rows = {name: space.rows(each.images) for name, each in sets.items()}
    found = {(a, b): Cell.between(rows[a], rows[b]) for a, b in combinations(sets, 2)}
    draws = {name: Cell.between(*map(space.rows, each.draws)) for name, each in sets.items()}
    return found | {(name, name): cell for name, cell in draws.items()}


def tell_sets(names: list[str], between: dict[tuple[str, str], Cell], space: Space) -> None:
    """The Fréchet distance above the diagonal, the kernel distance below it; both on it."""
    kernel = space.extractor.kernel_label
    print(f"Above the diagonal {space.label}, below it {kernel}, on it both, of two draws of one set.\n")
    print(f"| | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for row, a in enumerate(names):
        cells = []
        for column, b in enumerate(names):
            cell = between.get((a, b)) or between[b, a]
            above, below = f"{cell.frechet.value:.3g}", f"{cell.kernel.value:.2g}"
            cells.append(f"{above}; {below}" if row == column else above if row < column else below)
        print(f"| {a} | {' | '.join(cells)} |")
    print(flush=True)


def agreement(
    sets: dict[str, Set],
    worse: Worsened,
    between: dict[tuple[str, str], Cell],
    space: Space,
    others: list[Space],
) -> None:
    """Spearman's rank correlation of our distances with those by the networks of others."""
    pictures, mixed = sets["tinyimagenet val"], sets[WORSENED["tinyimagenet val"]]
    many = sum(map(len, worse.values()))
    print(f"| {space.label} and | over {many} worsened sets | over {len(between)} pairs of sets |")
    print("|---|---|---|")
    pairs = sorted(between)
    for other in others:
        theirs_worse, theirs_between = worsened(pictures, mixed, other), set_distances(sets, other)
        ranks = (
            rank(flat(worse), flat(theirs_worse)),
            rank([between[pair] for pair in pairs], [theirs_between[pair] for pair in pairs]),
        )
        print(f"| {other.label} | {ranks[0]:.3f} | {ranks[1]:.3f} |", flush=True)


def rank(ours: list[Cell], theirs: list[Cell]) -> float:
    """Spearman's correlation of two lists of Fréchet distances."""
    found = spearmanr([cell.frechet.value for cell in ours], [cell.frechet.value for cell in theirs])
    return float(found.statistic)


def flat(found: Worsened) -> list[Cell]:
    return [cell for name in sorted(found) for cell in found[name]]


if __name__ == "__main__":
    main()
