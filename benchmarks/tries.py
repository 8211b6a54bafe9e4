"""How each method is tuned: the same tries for all of them, on a public stand-in, from their public weights.

    python benchmarks/tries.py --set scenes6.tar.xz --weights dp-llamagen=FOLDER dp-ldm=FOLDER

First the learning rate: private training at each rate, and pictures for the captions of records that were
kept back, beside those records. Then, with the rate whose pictures come nearest by the kernel distance, other
guidance. The loss on those records is told too, but decides nothing: that of a slow rate is often the
lowest, and its pictures are the public ones. What is kept back is of the training split, by which no table
of results judges. A rate is tried with `--share` of the usual steps. Everything that is done is kept in
--out, so an interrupted call goes on. `--training`, `--sampling`, `--max-norm` and `--rates` try other
things than those that all methods get, and `--parts` cuts batches of the same records into more steps. For
stand-ins alone: choosing by such numbers on real records would spend what nobody counts.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from dpwavelet.checkpoint import canonical_json, read_json, write_bytes, write_json
from dpwavelet.comparison.cells import fingerprint
from dpwavelet.comparison.measures import HeldOut, Numbers, judge_of, some_of
from dpwavelet.comparison.methods import SYSTEMS, Method, open_system, place_of, weights_digest
from dpwavelet.evaluation import extractor
from dpwavelet.features import NAME
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png, sheet
from dpwavelet.memory import keep_freed_memory
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rivals.base import Rival

RATES = (0.5, 1.0, 2.0)  # times the usual learning rate of each
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)  # and the usual one of each
FURTHER = (7.5, 10.0)  # one after the other, while the last one was the best
RUN = "tries"
ROWS = ("loss", "kd_full", "perceptual", "class_found")  # what so few pictures can tell


@dataclass(frozen=True)
class Tries:
    """One method with everything that its tries need."""

    method: str
    rival: Rival[Any]
    plan: PrivacyPlan
    images: PrivateImages
    kept_back: PrivateImages
    out: Path
    features: str | None
    told: Mapping[str, Any]  # what decides the numbers beside rate and drawing

    def rated(self, rate: float) -> tuple[Rival[Any], dict[str, Any]]:
        """The system trained at so many times its usual rate, and what came of it."""
        rival: Any = self.rival
        settings = replace(rival.settings, learning_rate=rival.settings.learning_rate * rate)
        trained_by = asdict(settings)
        folder = self.out / "work" / self._name(training=trained_by)
        ledger = Ledger.open(folder / "ledger.jsonl")
        if RUN not in ledger.runs:
            ledger.append({"kind": "begun", "run": RUN, "plan": self.plan.to_json()})
        started = time.monotonic()
        student = replace(rival, settings=settings)
        trained = student.train(student.prepare(self.images), self.plan, folder, ledger, RUN)
        seconds = time.monotonic() - started

        def loss() -> dict[str, Any]:
            return {"loss": trained.held_out_loss(trained.prepare(self.kept_back)), "seconds": seconds}

        return trained, self._kept(loss, training=trained_by)

    def guided(self, trained: Rival[Any], guidance: float, pictures: int) -> dict[str, Any]:
        """Pictures of a trained system, drawn with so much guidance, beside the records kept back."""
        drawing: Any = trained
        sampling = replace(drawing.sampling, guidance=guidance)
        told = {"training": asdict(drawing.settings), "sampling": asdict(sampling), "pictures": pictures}
        asked = HeldOut.read(self.kept_back, pictures)

        def numbers() -> Numbers:
            drawn = replace(drawing, sampling=sampling).draw(list(asked.captions), 0)
            some = sheet([from_bytes(asked.pixels[:16]), from_bytes(drawn[:16])], 96)
            write_bytes(self.out / "sheets" / f"{self._name(**told)}.png", png(some))
            return judge_of(asked, self.features).numbers(drawn, asked.labels, paired=True)

        return self._kept(numbers, **told)

    def _name(self, **more: Any) -> str:
        return sha256(canonical_json({**self.told, **more})).hexdigest()[:16]

    def _kept(self, compute: Any, **more: Any) -> dict[str, Any]:
        path = self.out / f"{self._name(**more)}.json"
        if not path.is_file():
            write_json(path, {**self.told, **more, "found": compute(), "commit": commit()})
            print(json.dumps({"method": self.method, **more, **read_json(path)["found"]}), flush=True)
        found: dict[str, Any] = read_json(path)["found"]
        return found


def main() -> None:
    wanted = arguments()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    weights = dict(pair.split("=", 1) for pair in wanted.weights)
    lines = []
    for method in wanted.methods:
        tries = opened(method, weights, wanted)
        usual: Any = tries.rival
        guidance = usual.sampling.guidance
        found: dict[float, Numbers] = {}
        systems = {}
        for rate in wanted.rates:
            systems[rate], told = tries.rated(rate)
            found[rate] = told | tries.guided(systems[rate], guidance, wanted.pictures)
            lines.append(line(method, f"rate x {rate:g}, guidance {guidance:g}", found[rate]))
        best = nearest(found)
        led = {guidance: found[best]}
        for other in (*GUIDANCES, *FURTHER):
            if other in FURTHER and other != guidance and nearest(led) != max(led):
                break
            if other != guidance:
                led[other] = tries.guided(systems[best], other, wanted.pictures)
                lines.append(line(method, f"rate x {best:g}, guidance {other:g}", led[other]))
    print(f"\n{wanted.set}, epsilon {wanted.epsilon:g}, {wanted.share:g} of the usual steps\n")
    print("| method | try | " + " | ".join(ROWS) + " |\n|" + "---|" * (2 + len(ROWS)))
    print("\n".join(lines))


def nearest(found: Mapping[float, Numbers]) -> float:
    """The rate or the guidance of the least kernel distance."""
    distances = {tried: numbers["kd_full"] for tried, numbers in found.items()}
    return min((value, tried) for tried, value in distances.items() if value is not None)[1]


def line(method: str, tried: str, numbers: Numbers) -> str:
    """A row of the table."""
    values = [numbers.get(row) for row in ROWS]
    shown = ["" if value is None else f"{value:.4g}" for value in values]
    return "| " + " | ".join([method, tried, *shown]) + " |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, help="folder, tar or zip of the stand-in")
    parser.add_argument("--methods", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--weights", nargs="+", default=[], metavar="METHOD=FOLDER")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.25, help="of the usual steps")
    parser.add_argument(
        "--max-norm", type=float, help="what gradients are clipped to; that of each unless given"
    )
    parser.add_argument("--parts", type=int, default=1, help="that batches are cut into")
    parser.add_argument("--training", nargs="+", default=[], metavar="NAME=VALUE", help="such as draws=4")
    parser.add_argument("--sampling", nargs="+", default=[], metavar="NAME=VALUE", help="such as steps=200")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="times the usual one")
    parser.add_argument("--keep-back", type=int, default=500, help="records that nothing is trained on")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--features", help="folder of another feature network than the bundled one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/tries"))
    return parser.parse_args()


def opened(method: str, weights: Mapping[str, str], wanted: argparse.Namespace) -> Tries:
    """A method and the records of its tries."""
    place = place_of(method, weights)
    system = open_system(Method.parse(method), place)
    whole = PrivateImages.open(wanted.set, system.image_size, "train")
    count = len(whole) - wanted.keep_back
    asked = RunSettings(epsilon=wanted.epsilon)
    usual = make_plan(asked, declared(asked, count))
    cut = Method(system=method, share=wanted.share, parts=wanted.parts)
    batch_size = cut.batch_of(usual.batch_size)
    asked = replace(asked, batch_size=batch_size, steps=max(cut.steps_of(usual.steps, usual.batch_size), 2))
    asked = replace(asked, max_norm=wanted.max_norm or system.rival.max_norm)
    plan = make_plan(asked, declared(asked, count))
    told = {
        "method": method,
        "set": fingerprint(whole),
        "weights": weights_digest(place),
        "plan": plan.to_json(),
        "kept_back": wanted.keep_back,
        "features": extractor(NAME, wanted.features).digest,
    }
    rival: Any = system.rival
    rival = replace(
        rival,
        settings=replace(rival.settings, **values_of(wanted.training)),
        sampling=replace(rival.sampling, **values_of(wanted.sampling)),
    )
    kept = set(some_of(whole, wanted.keep_back, "kept back", 0))
    return Tries(
        method, rival, plan,
        images=those(whole, lambda index: index not in kept),
        kept_back=those(whole, lambda index: index in kept),
        out=wanted.out, features=wanted.features, told=told,
    )  # fmt: skip


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """Settings as they were typed: numbers, true, false and null as in JSON, all else as text."""
    found = {}
    for name, _, value in (word.partition("=") for word in words):
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def those(images: PrivateImages, wanted: Callable[[int], bool]) -> PrivateImages:
    """The records at some of the places."""
    records = [record for index, record in enumerate(images.folder.records) if wanted(index)]
    return replace(images, folder=replace(images.folder, records=records))


def commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    main()
