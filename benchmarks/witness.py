"""A table of results judged again, by two networks that others trained.

    python benchmarks/witness.py build/results/celeba_faces        # its set is that of the folder's name
    python benchmarks/witness.py TABLE --set path/to/images --write witness.md

The distances of a table are by our feature network, which also taught our detail model and both rivals'
autoencoders. Here the pictures that its cells kept are compared with the same held-out records by the staged
MobileNetV2, which taught our feature network, and SqueezeNet, which took no part in anything: by kernel
distances, which are unbiased for any number of pictures, and by Fréchet distances where a network has fewer
features than there are pictures. Cells without all of their pictures are left out.
"""

import argparse
import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _witnesses import witnesses
from torch import Tensor

from dpwavelet.checkpoint import canonical_json, read_json, read_tensors, write_bytes
from dpwavelet.comparison.cells import REAL
from dpwavelet.comparison.measures import HeldOut, some_of
from dpwavelet.evaluation import Extractor, extractor, frechet_distance, kernel_distance
from dpwavelet.images.private import PrivateImages

AT_ONCE = 250
SIDE = 64


@dataclass(frozen=True)
class Kept:
    """The pictures of one cell."""

    method: str
    epsilon: str
    steps: int
    alike: str  # the same for cells that differ in their seed alone
    pixels: Tensor


def main() -> None:
    wanted = arguments()
    data = Path(wanted.set) if wanted.set else staged() / "private" / f"{wanted.table.name}.tar.xz"
    held_out = PrivateImages.open(data, SIDE, "test")
    cells = kept(wanted.table, data)
    if not cells:
        raise SystemExit(f"No cell in {wanted.table} has kept its pictures.")
    torch.set_num_threads(wanted.threads)
    pictures = max(len(cell.pixels) for cell in cells)
    judges = [extractor(), *witnesses(Path(wanted.weights) if wanted.weights else staged() / "weights")]
    text = as_text(cells, HeldOut.read(held_out, pictures).pixels, judges)
    print(text)
    if wanted.write:
        write_bytes(wanted.write, text.encode())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path, help="folder of a table, as `dpwavelet compare` writes it")
    parser.add_argument(
        "--set", help="folder or archive of its records; that of the folder's name unless given"
    )
    parser.add_argument("--weights", help="folder of the staged networks")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def kept(table: Path, data: Path) -> list[Kept]:
    """Every cell whose pictures are all there; real pictures are read again."""
    train = PrivateImages.open(data, SIDE, "train")
    found = []
    for path in sorted((table / "cells").glob("*.json")):
        cell: dict[str, Any] = read_json(path)
        told, count = cell["identity"], int(cell["numbers"]["pictures"])
        if told["method"] == REAL:
            pixels = train.pixels(some_of(train, count, "real against real", told["seed"]))
        elif (pictures := path.with_suffix(".safetensors")).is_file():
            pixels = read_tensors(pictures)["pictures"]
        else:
            continue
        if len(pixels) == count:
            alike = canonical_json({name: value for name, value in told.items() if name != "seed"})
            digest = hashlib.sha256(alike).hexdigest()[:4]
            found.append(Kept(told["method"], told["epsilon"], told["steps"], digest, pixels))
    return sorted(found, key=lambda one: (float(one.epsilon), one.method != REAL, one.method, one.steps))


def as_text(cells: Sequence[Kept], real: Tensor, judges: Sequence[Extractor]) -> str:
    """Markdown: a line for cells that differ in their seed alone; the mean, and every seed.

    Lines that look alike and were trained or drawn otherwise have a short digest behind the method. Fréchet
    distances of those networks that have fewer features than there are pictures.
    """
    truth = [rows(judge, real) for judge in judges]
    groups: dict[tuple[str, str, int, str], list[Kept]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.epsilon, cell.steps, cell.alike), []).append(cell)
    looks = Counter(key[:3] for key in groups)
    fewest = min(len(pixels) for pixels in (real, *(cell.pixels for cell in cells)))
    exact = [judge.columns < fewest for judge in judges]
    titles = [
        *("method", "epsilon", "steps", "seeds"),
        *(judge.label for judge, enough in zip(judges, exact, strict=True) if enough),
        *(judge.kernel_label for judge in judges),
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for (method, epsilon, steps, alike), own in groups.items():
        name = f"{method} ({alike})" if looks[method, epsilon, steps] > 1 else method
        frechet, kernel = [], []
        for judge, known, enough in zip(judges, truth, exact, strict=True):
            seen = [rows(judge, cell.pixels) for cell in own]
            frechet += [shown([frechet_distance(known, each).value for each in seen])] if enough else []
            kernel.append(shown([kernel_distance(known, each).value for each in seen]))
        budget = "-" if epsilon == "0" else epsilon
        lines.append(f"| {' | '.join([name, budget, str(steps), str(len(own)), *frechet, *kernel])} |")
    return "\n".join(lines) + "\n"


def shown(values: Sequence[float]) -> str:
    """The mean, and every seed where there are several."""
    seeds = f" ({', '.join(f'{value:.4g}' for value in values)})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{seeds}"


def rows(judge: Extractor, pixels: Tensor) -> np.ndarray:
    """Features of many pictures, some at once."""
    return np.concatenate([judge.rows(part) for part in torch.split(pixels, AT_ONCE)])


def staged() -> Path:
    named = os.environ.get("DPWAVELET_DATA")
    place = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not place.is_dir():
        raise SystemExit("The staged data is not here: set DPWAVELET_DATA, or put it beside the repository.")
    return place


if __name__ == "__main__":
    main()
