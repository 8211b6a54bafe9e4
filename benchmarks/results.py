"""The tables of results: three methods on stand-ins, from public weights to published files, in one command.

    python benchmarks/results.py --threads 1 --at-once 2              # a night; goes on after a stop
    python benchmarks/results.py --sets scenes6 --publish docs/results
    python benchmarks/results.py --sets scenes6 --epsilon 10 --seeds 1  # some cells; more can follow
    python benchmarks/results.py --sets scenes6 --methods dp-wavelet dp-ldm  # some rows, all steps
    python benchmarks/results.py --quick                              # tests the machinery, ranks nothing

1. `dpwavelet pretrain` makes the public weights of those rivals that a row asks for and benchmarks/rivals
   lacks, at full size.
   Ours are those that ship. With --quick ours are made anew too, by the same small effort as theirs.
2. `dpwavelet compare --stand-in` makes the table of each set in OUT/SET. A set that is not here is skipped.
3. --publish FOLDER copies the tables, a page of charts, the numbers of every cell, and witness.md (see
   witness.py) if it is there, to FOLDER/SET, and never a picture. A set that is not in OUT begins with the
   cells that FOLDER has of it, so that another machine can add rows. FOLDER/README.md gets one line for each
   set and budget between its marks, if it has them.

Every step keeps what it has done: after an interruption, repeat the command. For stand-ins alone.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _glance import with_glance
from torch import Tensor

from dpwavelet.checkpoint import read_json, whole_folder, write_bytes
from dpwavelet.comparison.machine import machine
from dpwavelet.comparison.methods import (
    LDM,
    LLAMAGEN,
    OURS,
    SYSTEMS,
    Method,
    open_system,
    place_of,
    weights_digest,
)
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import png
from dpwavelet.pretraining.drawn_heads import draw_heads
from dpwavelet.randomness import stream

SIDE = 64  # of the pictures of `thumb`, in pixels
PORTRAITS = "portraits"
SETS = ("celeba_faces", "scenes6", "flickr1k_captions", "mednist64", PORTRAITS)
PUBLIC_SET = "public/tinyimagenet64.tar.xz"  # what ours learned from
RIVALS = Path("benchmarks/rivals")  # their public weights, as far as they are kept
QUICK_END = "-quick"
CELLS, CALLS = "cells", "made.jsonl"
COPIED = ("table.md", "table.csv", "table.json", CALLS)
CHARTS = "charts.html"
WITNESS = "witness.md"  # of benchmarks/witness.py, if it was asked
WITH_CELLS = (CALLS, WITNESS)
NOTHING_RANKED = (
    "This is a quick run. It tests the machinery and ranks nothing: every method begins from weights that "
    "have hardly been trained, and takes a few steps on few records. Quote no number of it."
)

Words = list[str]
Call = Callable[[Words], None]


ROWS = (
    OURS, f"{OURS}@0.25", f"{OURS}@0.1/4", f"{LLAMAGEN}@0.25", f"{LLAMAGEN}@0.1/4", f"{LDM}@0.25",
    f"{LDM}@0.1/4", "public", f"public:{LLAMAGEN}", f"public:{LDM}",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done: the same for every method."""

    sets: Sequence[str]
    epsilons: Sequence[str]
    seeds: int
    methods: Sequence[str] = ROWS
    made: Sequence[str] = (LLAMAGEN, LDM)  # whose public weights are trained first
    effort: float = 1.0  # share of the usual steps of that
    portraits: tuple[int, int] = (8000, 800)  # drawn to train on, and held out
    public: int | None = None  # at most so many public images
    options: Sequence[str] = ()  # of compare, beyond its defaults
    preset: str = "thumb"
    at_once: int = 1  # cells, each with all threads that are given

    def needed(self) -> list[str]:
        """Of the systems whose weights are made, those that a row asks for."""
        asked = {Method.parse(text).system for text in self.methods}
        return [system for system in self.made if system in asked]


FULL = Size(sets=SETS, epsilons=("1", "10", "inf"), seeds=2)
QUICK = Size(
    sets=(PORTRAITS, "flickr1k_captions"),
    epsilons=("10",),
    seeds=1,
    made=SYSTEMS,
    effort=0.005,
    portraits=(1000, 100),
    public=1000,
    methods=(OURS, LLAMAGEN, LDM, "public", f"public:{LLAMAGEN}", f"public:{LDM}"),
    options=("--batch-size", "50", "--steps", "8", "--pictures", "32"),
)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything lies."""

    out: Path  # a folder for each set
    weights: Path  # a folder for each method that is pretrained

    @classmethod
    def of(cls, out: Path, quick: bool) -> "Places":
        """A quick run has folders of its own, named after those of a full one."""
        if out.name.endswith(QUICK_END):
            raise SystemExit(
                f"--out may not end with {QUICK_END}: such folders are of quick runs, which add it."
            )
        if not quick:
            return cls(out=out, weights=RIVALS)
        own = out.with_name(out.name + QUICK_END)
        return cls(out=own, weights=own / "weights")

    def weights_of(self, size: Size) -> dict[str, str]:
        """The folders of public weights that compare is told of, by system."""
        return {system: str(self.weights / system) for system in size.needed()}


def main() -> None:
    wanted = arguments()
    size = narrowed(QUICK if wanted.quick else FULL, wanted)
    places = Places.of(wanted.out, wanted.quick)
    if wanted.quick and wanted.publish:
        raise SystemExit("A quick run ranks nothing, so it is not published: leave out --publish or --quick.")
    if wanted.quick:
        tell_quick(places.out)
    make_weights(size, places, wanted.threads, called)
    for name in size.sets:
        if wanted.publish:
            take_up(name, wanted.publish, places)
        if make_table(name, size, places, wanted.threads, called) and wanted.publish:
            publish(name, size, places, command_of(wanted), wanted.publish)
    if wanted.quick:
        print(NOTHING_RANKED)


def arguments(words: Words | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, help="all of them; with --quick two")
    parser.add_argument("--epsilon", nargs="+", help="all of them unless given")
    parser.add_argument("--seeds", type=int, help="all of them unless given")
    parser.add_argument("--methods", nargs="+", help="rows, as of `dpwavelet compare`; all unless given")
    parser.add_argument("--quick", action="store_true", help="a small run that ranks nothing")
    parser.add_argument("--out", type=Path, default=Path("build/results"), help=f"--quick adds {QUICK_END}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--at-once", type=int, help="cells, each with so many threads; one unless given")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="such as docs/results")
    return parser.parse_args(words)


def narrowed(size: Size, wanted: argparse.Namespace) -> Size:
    """The same for what was asked for alone."""
    asked = {
        "sets": wanted.sets, "epsilons": wanted.epsilon, "seeds": wanted.seeds,
        "methods": wanted.methods,
        "at_once": wanted.at_once,
    }  # fmt: skip
    return replace(size, **{name: value for name, value in asked.items() if value is not None})


def called(words: Words) -> None:
    """Run `dpwavelet` with these words; whatever it refuses ends this program too."""
    print("dpwavelet", *words, flush=True)
    if status := subprocess.run([sys.executable, "-m", "dpwavelet", *words], check=False).returncode:
        raise SystemExit(status)


def tell_quick(out: Path) -> None:
    print(NOTHING_RANKED, flush=True)
    write_bytes(out / "README.md", f"{NOTHING_RANKED}\n".encode())


def make_weights(size: Size, places: Places, threads: int, call: Call) -> None:
    """Pretrain every method whose folder is not there yet; `pretrain` goes on from its own checkpoints."""
    for method in size.needed():
        if not (folder := places.weights / method).is_dir():
            data, split = public_images(size, places.out)
            call(pretrain_words(method, data, split, folder, size, threads))


def pretrain_words(method: str, data: Path, split: str | None, out: Path, size: Size, threads: int) -> Words:
    return [
        "pretrain", str(data), "--method", method, "--preset", size.preset, "--effort", f"{size.effort:g}",
        *(["--split", split] if split else []), "--threads", str(threads), "--out", str(out),
    ]  # fmt: skip


def make_table(name: str, size: Size, places: Places, threads: int, call: Call) -> bool:
    """The table of one set; False, and one line, where the set is not here."""
    data = records(name, size, places.out)
    if data is None:
        print(f"{name} is skipped: it is not here. DPWAVELET_DATA names the folder of the staged sets.")
        return False
    with noted(places.out / name, threads):
        call(compare_words(data, places.out / name, size, places, threads))
    return True


def take_up(name: str, published: Path, places: Places) -> None:
    """Begin a set that is not here with the cells that were published of it: their numbers, no pictures."""
    table = places.out / name
    if table.is_dir() or not (published / name / CELLS).is_dir():
        return
    with whole_folder(table) as building:
        for path in [
            *(published / name / CELLS).glob("*.json"),
            *map((published / name).joinpath, WITH_CELLS),
        ]:
            if path.is_file():
                write_bytes(building / path.relative_to(published / name), path.read_bytes())


def records(name: str, size: Size, out: Path) -> Path | None:
    """The records of a set, if they are here."""
    if name == PORTRAITS:
        return draw_portraits(out / "data" / PORTRAITS, *size.portraits)
    return staged(f"private/{name}.tar.xz")


def compare_words(data: Path, out: Path, size: Size, places: Places, threads: int) -> Words:
    weights = [f"{system}={folder}" for system, folder in places.weights_of(size).items()]
    return [
        "compare", str(data), "--stand-in", "--epsilon", *size.epsilons, "--methods", *size.methods,
        *(["--weights", *weights] if weights else []),
        "--seeds", str(size.seeds),
        *size.options, "--threads", str(threads), "--at-once", str(size.at_once), "--out", str(out),
    ]  # fmt: skip


def staged(name: str) -> Path | None:
    """A file of the staged sets, if it is here."""
    named = os.environ.get("DPWAVELET_DATA")
    place = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if (path := place / name).is_file() else None


def draw_portraits(folder: Path, train: int, test: int) -> Path:
    """Drawn portraits, of which the last are held out."""
    if not folder.is_dir():
        with whole_folder(folder) as building:
            draw_to(building, train + test, seed=0, size=SIDE)
            lines = (building / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [
                json.loads(line) | {"split": "train" if place < train else "test"}
                for place, line in enumerate(lines)
            ]
            write_rows(building, rows)
    return folder


def public_images(size: Size, out: Path) -> tuple[Path, str | None]:
    """What public weights learn from, and its split."""
    path = staged(PUBLIC_SET)
    if size.public is None:
        if path is None:
            raise SystemExit(
                f"The public set {PUBLIC_SET} is not here, and the rivals have no weights yet: set "
                f"DPWAVELET_DATA, or put weights into {RIVALS}."
            )
        return path, "train"
    folder = out / "data" / "public"
    if not folder.is_dir():
        write_pictures(folder, *(few_of(path, size.public) if path else drawn_heads(size.public)))
    return folder, None


def few_of(path: Path, count: int) -> tuple[Tensor, list[str]]:
    """The first images of the public set with their captions."""
    images = PublicImages.open(path, SIDE, "train")
    indices = range(min(count, len(images)))
    return images.pixels(indices), [images.captions(index)[0] for index in indices]


def drawn_heads(count: int) -> tuple[Tensor, list[str]]:
    """Heads drawn by rule before smooth colours; by another hand than the portraits of the table."""
    colours = torch.from_numpy(stream(0, "behind heads").integers(256, size=(64, 3, 4, 4)).astype(np.float32))
    behind = F.interpolate(colours, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels, captions = draw_heads(count, behind.to(torch.uint8).numpy(), seed=1)
    return torch.from_numpy(pixels), captions


def write_pictures(folder: Path, pixels: Tensor, captions: Sequence[str]) -> None:
    with whole_folder(folder) as building:
        names = [f"{place:06d}.png" for place in range(len(pixels))]
        for name, picture in zip(names, pixels, strict=True):
            (building / name).write_bytes(png(picture))
        write_rows(building, [{"file_name": n, "text": t} for n, t in zip(names, captions, strict=True)])


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_bytes(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


@contextmanager
def noted(table: Path, threads: int) -> Iterator[None]:
    """Write down which cells were computed inside, where and by which code, if any were."""
    before, began = cells_in(table), commit()
    try:
        yield
    finally:
        if new := sorted(cells_in(table) - before):
            line = {
                "cells": new,
                "commit": began,
                "date": datetime.now(UTC).date().isoformat(),
                "machine": machine(),
                "threads": threads,
            }
            with (table / CALLS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def made_by(table: Path) -> list[str]:
    """Each call that computed cells which are still here, in words."""
    file, here = table / CALLS, cells_in(table)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    calls = [json.loads(line) for line in lines]
    told = [
        f"{count} cells on {call['date']} at commit {call['commit']}, {call['machine']}, "
        f"threads: {call['threads']}"
        for call in calls
        if (count := len(here & set(call["cells"])))
    ]
    unknown = here - {name for call in calls for name in call["cells"]}
    return [*told, f"{len(unknown)} cells by calls that were cut short"] if unknown else told


def cells_in(table: Path) -> set[str]:
    """The names of the cells that are done."""
    return {path.stem for path in (table / CELLS).glob("*.json")}


def publish(name: str, size: Size, places: Places, command: str, to: Path) -> None:
    """Copy the table of a set, its charts and what made it to `to`/name: the files named here, no others."""
    table = places.out / name
    if read_json(table / "table.json")["private"]:
        raise SystemExit(f"{table} is made of private records; it is never published.")
    files = {file: (table / file).read_bytes() for file in COPIED}
    if (table / WITNESS).is_file():
        files[WITNESS] = (table / WITNESS).read_bytes()
    files[CHARTS] = charts_of((table / "report.html").read_text(encoding="utf-8")).encode()
    files["README.md"] = head_of(name, size, places, command).encode()
    for path in sorted((table / CELLS).glob("*.json")):
        files[f"{CELLS}/{path.name}"] = path.read_bytes()
    with whole_folder(to / name) as building:
        for file, content in files.items():
            write_bytes(building / file, content)
    if (page := to / "README.md").is_file():
        write_bytes(page, with_glance(page.read_text(encoding="utf-8"), to).encode())


def charts_of(page: str) -> str:
    """The page of a table without its sheets, which show held-out records."""
    page = re.sub(r'<section aria-labelledby="sheets">.*?</section>', "", page, flags=re.DOTALL)
    page = re.sub(r'<li><a href="#sheets">.*?</li>', "", page)
    if re.search(r"<(img|image|picture|object|embed)\b|data:image|base64", page):
        raise SystemExit("The page of charts still holds a picture; nothing is published.")
    return page


def head_of(name: str, size: Size, places: Places, command: str) -> str:
    """What made a table, above links to it."""
    told = places.weights_of(size)
    judged = f", [by other judges]({WITNESS})" if (places.out / name / WITNESS).is_file() else ""
    systems = dict.fromkeys(Method.parse(text).system for text in size.methods)
    weights = []
    for system in systems:
        place = place_of(system, told)
        card = open_system(Method.parse(system), place).card
        weights.append(f"| {system} | `{weights_digest(place)}` | {steps_of(card.get('run'))} |")
    return "\n".join(
        [
            f"# {name}",
            "",
            f"[Table](table.md), [CSV](table.csv), [JSON](table.json), [charts]({CHARTS}){judged}. Made by "
            f"`{command}`. Sheets that the table names are not here: they show held-out "
            "pictures. [What is fair and what is not](../README.md).",
            "",
            "Computed in these calls:",
            "",
            *(f"- {line}" for line in made_by(places.out / name)),
            "",
            "| public weights | SHA-256 of all files | steps of their training |",
            "|---|---|---|",
            *weights,
            "",
        ]
    )


def steps_of(run: Any) -> str:
    """The stages of a public training with their steps, as a card tells them."""
    stages = run.items() if isinstance(run, dict) else ()
    told = [
        f"{name} {stage['steps']:,}" for name, stage in stages if isinstance(stage, dict) and "steps" in stage
    ]
    return ", ".join(told) or "not said"


def command_of(wanted: argparse.Namespace) -> str:
    """The command in what decides its results; folders are left out."""
    sets = ["--sets", *wanted.sets] if wanted.sets else []
    epsilons = ["--epsilon", *wanted.epsilon] if wanted.epsilon else []
    seeds = ["--seeds", str(wanted.seeds)] if wanted.seeds else []
    methods = ["--methods", *wanted.methods] if wanted.methods else []
    own = [*sets, *methods, *epsilons, *seeds, "--threads", str(wanted.threads)]
    at_once = ["--at-once", str(wanted.at_once)] if wanted.at_once else []
    return " ".join(["python benchmarks/results.py", *own, *at_once])


def commit() -> str:
    """The commit, with a plus where the code differs from it."""
    told, dirty = (
        subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "src"])
    )
    return told + ("+" if dirty else "")


if __name__ == "__main__":
    main()
