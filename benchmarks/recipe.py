"""Which recipe gets the most out of an epsilon, on public stand-ins for private records.

    python benchmarks/recipe.py --list                                  # the variants
    python benchmarks/recipe.py --sets celeba_faces --epsilon 10 --variants default "lora 8" --seeds 1
    python benchmarks/recipe.py                                         # everything: days on two cores
    python benchmarks/recipe.py --share 0.25                            # a quarter of the steps
    python benchmarks/recipe.py --share 0.1 0.25 --table --plot docs/pictures   # what is there, as charts

A cell is one set, one epsilon, one variant and one seed: private training on the training split under the
variant's own plan, then the held-out loss and pictures for the captions of held-out records, compared with
those records: Fréchet distance of full and of coarse pictures (thumb), and how often a probe of real pictures
finds the class that was asked for. Cells are kept in `--out` by what decides them, so an interrupted table
goes on; `--published FILE` has the cells of other machines too, and takes those of this one. `--table` prints
what is there and computes nothing. Each variant costs its epsilon whole, its warm
start included. For stand-ins alone: choosing by such a table on real records would spend what nobody counts.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from _dots import Panel, svg
from torch import Tensor

from dpwavelet.checkpoint import canonical_json, read_json, write_bytes, write_json
from dpwavelet.comparison.methods import weights_digest
from dpwavelet.evaluation import (
    Extractor,
    Labelled,
    Statistics,
    class_obedience,
    extractor,
    frechet_between,
)
from dpwavelet.generation import Sampling
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png, sheet, to_bytes
from dpwavelet.images.variants import Augment
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import Model, find
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan, open_model, warm_place
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.tokenizer import TokenizerConfig
from dpwavelet.training import PrivateTraining, held_out_loss, train_privately, train_without_privacy
from dpwavelet.transformer import ImageTransformer
from dpwavelet.warm_start import Moving, begin_from, bound_of, release, surprise
from dpwavelet.wavelet import analyze

SETS = ("celeba_faces", "scenes6", "mednist64")
Changes = Mapping[str, Any]  # of the settings of a run, or of its training

VARIANTS: Mapping[str, Changes] = {
    "default": {},
    "rate x 1/2": {"learning_rate": 0.5},  # times the default
    "rate x 2": {"learning_rate": 2.0},
    "cosine": {"schedule": "cosine"},
    "constant": {"schedule": "constant"},
    "last weights": {"average": 0.0},
    "longer average": {"average": 0.97},
    "batch x 2, same steps": {"batch": 2.0},
    "batch x 4, same steps": {"batch": 4.0},
    "batch x 2, half the steps": {"batch": 2.0, "steps": 0.5},
    "batch x 1/2, twice the steps": {"batch": 0.5, "steps": 2.0},
    "batch x 1/4, four times the steps": {"batch": 0.25, "steps": 4.0},
    "batch x 3, a third of the steps": {"batch": 2.97, "steps": 0.337, "learning_rate": 1.72},
    "steps x 2": {"steps": 2.0},
    "steps x 1/4": {"steps": 0.25},
    "clip 0.1": {"max_norm": 0.1},
    "attention": {"parameters": "attention"},
    "blocks": {"parameters": "blocks"},
    "heads": {"parameters": "heads"},
    "lora 8": {"parameters": "lora", "rank": 8},
    "lora 32": {"parameters": "lora", "rank": 32},
    "lora 8, rate x 4": {"parameters": "lora", "rank": 8, "learning_rate": 4.0},
    "no emphasis": {"emphasis": "even"},
    "mirrored": {"augment": "mirror"},
    "2 views, shifts": {"augment": "shifts", "views": 2},
    "4 views, crops": {"augment": "crops", "views": 4},
    "8 views, crops": {"augment": "crops", "views": 8},
    "warm start 3 %": {"warm_start": 0.03},  # of epsilon
    "warm start 10 %": {"warm_start": 0.1},
    "scales 1 and 2": {"private_scales": 2},
    "all scales": {"private_scales": 3},
    "captions count 0.1": {"caption_weight": 0.1},
    "captions count 0": {"caption_weight": 0.0},
    "without privacy": {"private": False},  # what the others are measured by; one cell for all epsilons
}
DRAWING = Sampling(doubt=0.0)  # of all cells, so that recipes differ in nothing else; what came first


@dataclass(frozen=True)
class Cell:
    """One row of a table, before seeds are averaged."""

    data: str
    epsilon: float
    variant: str
    seed: int
    records: int | None
    pictures: int
    weights: str  # digest of the public weights
    share: float = 1.0  # of the steps that a variant takes

    @property
    def label(self) -> str:
        """A name for files that people look at."""
        plain = f"{self.data}_{self.epsilon:g}_{self.variant}_{self.seed}_{self.weights[:4]}"
        plain += f"_{self.share:g}" if self.share != 1 else ""
        return plain.replace(" ", "-").replace("/", "-")

    def name(self, changes: Changes) -> str:
        """What decides the result, in short."""
        drawing = {name: value for name, value in asdict(DRAWING).items() if name != "doubt" or value}
        told = {**self.__dict__, "changes": dict(changes), "drawing": drawing}
        if self.share == 1:
            del told["share"]  # it was not there once
        return sha256(canonical_json(told)).hexdigest()[:16]


def main() -> None:
    wanted = arguments()
    if wanted.list:
        for name, changes in VARIANTS.items():
            print(f"{name}: {dict(changes)}")
        return
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    weights = weights_digest(find(wanted.model))[:16]
    rows: list[dict[str, Any]] = []
    for data, share, seed, epsilon, variant in itertools.product(
        wanted.sets, wanted.share, range(wanted.seeds), wanted.epsilon, wanted.variants
    ):
        cell = Cell(data, epsilon, variant, seed, wanted.records, wanted.pictures, weights, share)
        if (row := computed(cell, wanted)) is not None:
            rows.append(row)
    tell(rows)
    if wanted.published and not wanted.table:
        publish(wanted.out, wanted.published)
    if wanted.plot:
        for name, text in charts(rows).items():
            write_bytes(wanted.plot / name, text.encode())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--epsilon", nargs="+", type=float, default=[1.0, 10.0])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--records", type=int, help="at most so many to train on")
    parser.add_argument("--pictures", type=int, default=800, help="at most so many to draw and compare")
    parser.add_argument(
        "--share", nargs="+", type=float, default=[1.0], help="of the steps that each variant takes"
    )
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the table too, as SVG")
    parser.add_argument("--model", default="thumb")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--published", type=Path, metavar="FILE", help="such as docs/results/recipe.json")
    parser.add_argument("--keep", action="store_true", help="keep what was trained, as model folders")
    parser.add_argument("--compiled", action="store_true", help="train in compiled chunks, as --compile does")
    parser.add_argument("--table", action="store_true", help="compute nothing")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def computed(cell: Cell, wanted: argparse.Namespace) -> dict[str, Any] | None:
    """The numbers of a cell, from the disk if they are there."""
    changes = VARIANTS[cell.variant]
    name = (cell if is_private(changes) else replace(cell, epsilon=0.0)).name(changes)
    path = wanted.out / f"{name}.json"
    if path.is_file():
        found: dict[str, Any] = read_json(path)
        return {**found, "epsilon": cell.epsilon}
    if name in (known := known_cells(wanted.published)):
        return {**known[name], "epsilon": cell.epsilon}
    if wanted.table:
        return None
    row = {**cell.__dict__, **run(cell, changes, wanted), "commit": commit()}
    write_json(path, row)
    print(json.dumps(row), flush=True)
    return row


def known_cells(published: Path | None) -> dict[str, dict[str, Any]]:
    """The cells of a published file by name, of which there may be none yet."""
    if published is None or not published.is_file():
        return {}
    return {name: dict(row) for name, row in read_json(published).items()}


def publish(out: Path, published: Path) -> None:
    """Add the cells that are kept in `out` to those of the file."""
    own = {path.stem: read_json(path) for path in out.glob("*.json")}
    write_json(published, dict(sorted((known_cells(published) | own).items())))


def is_private(changes: Changes) -> bool:
    """Whether a variant keeps any promise."""
    return bool(changes.get("private", True))


def run(cell: Cell, changes: Changes, wanted: argparse.Namespace) -> dict[str, Any]:
    """Train, draw and compare."""
    usual = {"learning_rate", "batch", "steps", "warm_start", "private_scales", "max_norm", "private"}
    first = RunSettings(epsilon=cell.epsilon)
    training = replace(
        first.training, compiled=wanted.compiled, **{n: v for n, v in changes.items() if n not in usual}
    )
    if "learning_rate" in changes:
        training = replace(training, learning_rate=training.learning_rate * changes["learning_rate"])
    model = open_model(wanted.model, changes.get("private_scales"))
    records, held_out, real, zero = read(
        cell.data, cell.records, cell.pictures, wanted.model, model.private_scales, training.augment
    )
    plain = make_plan(first, declared(first, records.units))
    settings = replace(
        first,
        training=training,
        batch_size=round(plain.batch_size * changes.get("batch", 1)),
        steps=max(round(plain.steps * changes.get("steps", 1) * cell.share), 1),
        max_norm=changes.get("max_norm", first.max_norm),
        warm_start=cell.epsilon * changes["warm_start"] if "warm_start" in changes else None,
    )
    plan = make_plan(settings, declared(settings, records.units))
    started = time.monotonic()
    start = warmed(model, records, plan, settings, cell.seed)
    before = zero if start is model.transformer else held_out_loss(start, held_out)
    student = trained_by(start, records, plan, training, None if is_private(changes) else cell.seed)
    seconds = time.monotonic() - started
    trained = model.with_transformer(student, model.card)
    if wanted.keep:
        trained.save_pretrained(wanted.out / "models" / cell.label)
    found = compared(trained, real, cell, wanted.out)
    return {
        "zero_shot": round(zero, 4),
        "after_warm_start": round(before, 4),
        "held_out_loss": round(held_out_loss(student, held_out), 4),
        **found,
        "seconds": round(seconds, 1),
        "noise_multiplier": round(plan.noise_multiplier, 4) if is_private(changes) else 0.0,
        "batch": plan.batch_size,
        "steps": plan.steps,
        "spent": round(plan.pld_epsilon, 4) if is_private(changes) else None,
        "delta": plan.delta,
    }


def trained_by(
    start: ImageTransformer,
    records: PrivateTokens,
    plan: PrivacyPlan,
    training: PrivateTraining,
    plain: int | None,
) -> ImageTransformer:
    """A student under `plan`, or one of as many steps without privacy, by the seed `plain`."""
    if plain is not None:
        return train_without_privacy(
            start, records, training, steps=plan.steps, batch_size=plan.batch_size, seed=plain
        )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "recipe", "plan": plan.to_json()})
        return train_privately(start, records, plan, training, Path(folder), ledger, "recipe")


@dataclass(frozen=True)
class Real:
    """Held-out records: pictures, captions, and classes where there are any."""

    pixels: Tensor
    captions: list[str]
    labels: list[str]

    @classmethod
    def of(cls, images: PrivateImages) -> "Real":
        indices = range(len(images))
        captions = [images.captions(index)[0] for index in indices]
        return cls(images.pixels(list(indices)), captions, [str(images.label(index)) for index in indices])


class Read(NamedTuple):
    """What cells of one set share."""

    records: PrivateTokens
    held_out: PrivateTokens
    real: Real
    zero: float  # held-out loss of the public model


@lru_cache(maxsize=1)
def read(data: str, records: int | None, pictures: int, weights: str, scales: int, augment: Augment) -> Read:
    """Everything of a set that has nothing to do with how it is trained on."""
    path, model = staged() / "private" / f"{data}.tar.xz", open_model(weights, scales)
    train = PrivateImages.open(path, model.image_size, "train")
    test = PrivateImages.open(path, model.image_size, "test")
    train = train.first(records or len(train))
    test = test.first(min(pictures, len(test)))
    length = model.transformer.config.caption_length
    asked: list[tuple[PrivateImages, Augment]] = [(train, augment), (test, "none")]
    tokens = [
        tokenize(images, model.tokenizer, model.vocabulary, scales=scales, caption_length=length, augment=how)
        for images, how in asked
    ]
    return Read(tokens[0], tokens[1], Real.of(test), held_out_loss(model.transformer, tokens[1]))


def warmed(
    model: Model, records: PrivateTokens, plan: PrivacyPlan, settings: RunSettings, seed: int
) -> ImageTransformer:
    """The transformer that training starts from."""
    if (place := warm_place(settings)) is None:
        return model.transformer
    codes = model.tokenizer.codebook(0).codes
    total = surprise(model.transformer, codes, records)
    noisy = release(total, plan, Source(), bound=bound_of(model.transformer, codes), other=place)
    return begin_from(noisy, plan, place, model.transformer, codes, Moving(seed=seed))


def compared(model: Model, real: Real, cell: Cell, out: Path) -> dict[str, float]:
    """Pictures for the captions of held-out records beside those records."""
    few, full = Pipeline(model).draw(real.captions, seed=cell.seed, sampling=DRAWING)
    coarse = (
        analyze(few, model.private_scales - 1, model.tokenizer.config.wavelet)[0]
        if model.private_scales > 1
        else few
    )
    picture = sheet([from_bytes(real.pixels[:16]), *(each[:16].clamp(-1, 1) for each in (few, full))], 96)
    write_bytes(out / "sheets" / f"{cell.label}.png", png(picture))
    return judged(extractor(), real, coarse, to_bytes(full), model.tokenizer.config)


def judged(
    judge: Extractor, real: Real, coarse: Tensor, full: Tensor, config: TokenizerConfig
) -> dict[str, float]:
    """How near drawn pictures are to held-out ones, and how often what was asked for is found in them.

    coarse: [B, 3, h, w] in [-1, 1], of the side of the first scale. full: bytes.
    """
    side = real.pixels.shape[-1]
    few = analyze(from_bytes(real.pixels), config.levels, config.wavelet)[0]
    rows = {
        "real": of(judge, real.pixels),
        "full": of(judge, full),
        "real_coarse": of(judge, enlarged(few, side)),
        "coarse": of(judge, enlarged(coarse, side)),
    }
    stats = {name: Statistics.of([row]) for name, row in rows.items()}
    return {
        "fd_full": round(frechet_between(stats["real"], stats["full"], despite_too_few=True), 3),
        "fd_coarse": round(frechet_between(stats["real_coarse"], stats["coarse"], despite_too_few=True), 3),
        **obeyed("class", rows, real.labels),
        **obeyed("hair", rows, [hair(caption) for caption in real.captions]),
    }


def obeyed(what: str, rows: Mapping[str, np.ndarray], asked: list[str]) -> dict[str, float]:
    """How often a probe of real pictures finds what was asked for, where anything was."""
    told = np.flatnonzero(np.array(asked) != "")
    if len(told) < 200:
        return {}
    labels = [asked[index] for index in told]
    found = class_obedience(
        Labelled(rows["real"][told], labels), Labelled(rows["full"][told], labels), seed=0
    )
    return {
        f"{what}_found": round(found.generated.value, 4),
        f"{what}_found_real": round(found.real.value, 4) if found.real else float("nan"),
        f"{what}_chance": round(found.chance, 4),
    }


def hair(caption: str) -> str:
    """The colour of hair that a caption asks for, if it asks for one."""
    said = set(re.findall(r"\b(black|brown|blond|gray) hair", caption))
    return said.pop() if len(said) == 1 else ""


def of(judge: Extractor, pixels: Tensor) -> np.ndarray:
    return np.concatenate([judge.rows(part) for part in torch.split(pixels, 250)])


def enlarged(few: Tensor, side: int) -> Tensor:
    return to_bytes(F.interpolate(few, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1))


def tell(rows: list[dict[str, Any]]) -> None:
    """A table for each set, epsilon and share: means over seeds, and half the spread where there are two."""
    numbers = ("held_out_loss", "fd_coarse", "fd_full", "class_found", "hair_found", "seconds")
    for place in sorted({place_of(row) for row in rows}):
        own = [row for row in rows if place_of(row) == place]
        first, (data, epsilon, share) = own[0], place
        print(
            f"\n{data}, epsilon {epsilon:g}"
            + ("" if share == 1 else f", {share:g} of the steps")
            + f"; zero-shot {first['zero_shot']}, chance of the class "
            f"{first['class_chance']}, real {first['class_found_real']}"
            + (f"; hair {first['hair_chance']}, {first['hair_found_real']}" if "hair_found" in first else "")
            + "\n"
        )
        print("| variant | seeds | loss | FD coarse | FD full | class | hair | seconds |\n|" + "---|" * 8)
        for variant in dict.fromkeys(row["variant"] for row in own):
            of_it = [row for row in own if row["variant"] == variant]
            shown = []
            for number in numbers:
                values = [row[number] for row in of_it if number in row]
                if number == "held_out_loss" and learns_more(variant):
                    values = []
                spread = f" ± {(max(values) - min(values)) / 2:.3g}" if len(values) > 1 else ""
                shown.append(f"{statistics.mean(values):.4g}{spread}" if values else "")
            print(f"| {variant} | {len(of_it)} | " + " | ".join(shown) + " |")


def place_of(row: Mapping[str, Any]) -> tuple[str, float, float]:
    """The set, the epsilon and the share of steps: rows that share them can be compared."""
    return row["data"], row["epsilon"], row.get("share", 1.0)


def line_of(row: Mapping[str, Any]) -> str:
    """The variant, and the share of steps it was tried with."""
    share = row.get("share", 1.0)
    return row["variant"] if share == 1 else f"{row['variant']} ({share:g})"


def learns_more(variant: str) -> bool:
    """Whether more scales than usual learn: then its loss is a mean over other tokens."""
    return "private_scales" in VARIANTS.get(variant, {})


def charts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Loss and distance of every variant beside the default of its set and epsilon: SVG by file name.

    Those that learn more scales are left to the tables: their distances are several times the others'.
    """
    rows = [row for row in rows if not learns_more(row["variant"])]
    variants = list(dict.fromkeys(line_of(row) for row in rows))
    budgets = sorted({row["epsilon"] for row in rows})
    asked = {
        "recipe-loss.svg": (
            "held_out_loss",
            "Held-out loss less the default's, nats a token (behind a name: the share of the steps)",
            0.0,
        ),
        "recipe-distance.svg": (
            "fd_full",
            "FD-thumb of full pictures over the default's (behind a name: the share of the steps)",
            1.0,
        ),
    }
    return {
        file: svg(
            title,
            variants,
            [f"epsilon {budget:g}" for budget in budgets],
            [
                Panel(title=data, values=beside_default(rows, data, budgets, number), default=default)
                for data in dict.fromkeys(row["data"] for row in rows)
            ],
        )
        for file, (number, title, default) in asked.items()
    }


def beside_default(
    rows: list[dict[str, Any]], data: str, budgets: list[float], number: str
) -> dict[str, dict[str, list[float]]]:
    """By variant and epsilon, over seeds: losses less the default's mean, distances over it."""
    found: dict[str, dict[str, list[float]]] = {}
    for budget in budgets:
        for place in {place_of(row) for row in rows if (row["data"], row["epsilon"]) == (data, budget)}:
            own = [row for row in rows if place_of(row) == place]
            usual = [row[number] for row in own if row["variant"] == "default"]
            for row in own if usual else ():
                mean = statistics.mean(usual)
                value = row[number] - mean if number == "held_out_loss" else row[number] / mean
                found.setdefault(line_of(row), {}).setdefault(f"epsilon {budget:g}", []).append(value)
    return found


def commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "src"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def staged() -> Path:
    named = os.environ.get("DPWAVELET_DATA")
    place = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (place / "private").is_dir():
        raise SystemExit(
            "The staged sets are not here: set DPWAVELET_DATA, or put them beside the repository."
        )
    return place


if __name__ == "__main__":
    main()
