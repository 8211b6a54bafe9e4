"""What was gained since the first recipe of this package: the same stand-ins by that version and by this one.

    python benchmarks/first_recipe.py                                   # both, all steps: hours on one core
    python benchmarks/first_recipe.py --sets scenes6 --epsilon 10
    python benchmarks/first_recipe.py --share first=1 now=0.25   # this version with a quarter of the steps

The first version is checked out beside `--out` from this repository's history. Each trains under its own plan
for the same epsilon and delta, with its own public weights, batch, steps and sampling, and draws for the
captions of held-out records. All pictures are judged here, by one judge: distances by thumb and by the staged
networks of others, and how often a probe finds what was asked for. Losses are of each version's own tokens,
so they are told beside that of its public weights and not compared. For stand-ins alone.
Pictures are kept in `--out`; after a change of the code, remove those of `now`.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _witnesses import witnesses
from recipe import SETS, Real, judged, of, staged
from torch import Tensor

from dpwavelet.checkpoint import read_json, read_tensors, write_bytes
from dpwavelet.evaluation import Extractor, extractor, kernel_distance
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png, sheet
from dpwavelet.model import Model

HERE = Path(__file__).resolve().parent
COMMIT = "4436d45"  # the last one before other public weights and other recipes were tried
FIRST, NOW = "first", "now"
NOT_SHOWN = {"private_scales", "steps", "batch", "noise_multiplier", "seconds"}


@dataclass(frozen=True)
class Cell:
    """One version on one set at one epsilon."""

    version: str
    data: str
    epsilon: str
    share: str  # of that version's usual steps
    seed: int

    def folder(self, out: Path) -> Path:
        """Where its pictures are kept."""
        return out / f"{self.version}-{self.data}-{self.epsilon}-{self.share}-{self.seed}"


def main() -> None:
    wanted = arguments()
    torch.set_num_threads(wanted.threads)
    shares = {FIRST: "1", NOW: "1"} | dict(each.split("=") for each in wanted.share)
    sources = {FIRST: checked_out(wanted.out / "source") / "src", NOW: HERE.parent / "src"}
    judges = [extractor(), *witnesses(staged() / "weights")]
    model = Model.from_pretrained("thumb")
    for data in wanted.sets:
        real = held_out(staged() / "private" / f"{data}.tar.xz", model.image_size, wanted.pictures)
        for epsilon in wanted.epsilon:
            rows = {}
            for version, source in sources.items():
                cell = Cell(version, data, epsilon, shares[version], wanted.seed)
                folder = made(cell, source, wanted)
                rows[f"{version}, {read_json(folder / 'told.json')['steps']} steps"] = row(
                    folder, real, model, judges
                )
            print(f"\n{data}, epsilon {epsilon}\n\n{as_text(rows)}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epsilon", nargs="+", default=["1", "10"])
    parser.add_argument("--share", nargs="+", default=[], metavar="VERSION=SHARE", help="of the steps")
    parser.add_argument("--pictures", type=int, default=800, help="at most so many to draw and compare")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/first_recipe"))
    return parser.parse_args()


def checked_out(folder: Path) -> Path:
    """The first version's files, with the weights that it shipped."""
    if not folder.is_dir():
        subprocess.run(["git", "clone", "--quiet", str(HERE.parent), str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", COMMIT], check=True)
    return folder


def made(cell: Cell, source: Path, wanted: argparse.Namespace) -> Path:
    """The pictures of a cell and what is told of its training; from the disk if they are there."""
    folder = cell.folder(wanted.out)
    if not (folder / "told.json").is_file():
        words = [
            str(staged() / "private" / f"{cell.data}.tar.xz"), "--epsilon", cell.epsilon,
            "--share", cell.share, "--pictures", str(wanted.pictures),
            "--seed", str(cell.seed), "--threads", str(wanted.threads),
            "--out", str(folder),
        ]  # fmt: skip
        subprocess.run(
            [sys.executable, str(HERE / "_train_and_draw.py"), *words],
            env=os.environ | {"PYTHONPATH": str(source.resolve())},
            check=True,
        )
    return folder


def held_out(data: Path, side: int, pictures: int) -> Real:
    images = PrivateImages.open(data, side, "test")
    return Real.of(images.first(min(pictures, len(images))))


def row(folder: Path, real: Real, model: Model, judges: list[Extractor]) -> dict[str, Any]:
    """The numbers of one cell, by this version's judges; a sheet is left beside its pictures."""
    told: dict[str, Any] = read_json(folder / "told.json")
    pictures = read_tensors(folder / "pictures.safetensors")
    full, few = pictures["full"], from_bytes(pictures["few"])
    parts: list[Tensor] = [from_bytes(each[:16]) for each in (real.pixels, pictures["few"], full)]
    write_bytes(folder / "sheet.png", png(sheet(parts, 96)))
    nearness = {
        judge.kernel_label: round(kernel_distance(of(judge, real.pixels), of(judge, full)).value, 4)
        for judge in judges
    }
    return told | judged(judges[0], real, few, full, model.tokenizer.config) | nearness


def as_text(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line for each version."""
    columns = [name for name in next(iter(rows.values())) if name not in NOT_SHOWN]
    lines = ["| version | " + " | ".join(columns) + " | seconds |", "|---" * (len(columns) + 2) + "|"]
    for version, told in rows.items():
        shown = [f"{told[name]:.4g}" for name in columns]
        lines.append(f"| {version} | {' | '.join(shown)} | {told['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
