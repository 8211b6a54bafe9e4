"""What hardening does to pictures of privately trained models: two detail models, alike but for the mistakes.

    python benchmarks/recipe.py --keep --share 0.25 --variants default --epsilon 10 --seeds 1
    python benchmarks/hardening.py build/recipe/models/*           # three of them: 44 minutes of a busy core

1. A detail model learns from scratch on public images, for `--steps` (what ships took 2,000).
2. It goes on twice from there for `--more` steps, as the stage *hardened* does: with the mistakes of the
   tokenizer and of the transformer in its coarse images, and with true ones. All else is the same.
3. Every model folder, named SET_... as recipe.py names them, draws coarse pictures for held-out captions,
   and all three finish the same ones.

Prints Markdown: distances to held-out records, how often a probe finds the class that was asked for, and
the same for true coarse pictures. For stand-ins alone.
"""

import argparse
import copy
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from _witnesses import witnesses
from public_weights import by, staged, statistics
from recipe import DRAWING, Real, obeyed
from torch import Tensor

from dpwavelet.enlargers import DetailEnlarger
from dpwavelet.evaluation import Extractor, extractor, frechet_between
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes, png, sheet, to_bytes
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pretraining import Pretraining, detail_stage
from dpwavelet.pretraining.detail_stage import harden_detail, train_detail
from dpwavelet.pretraining.stages import PublicPixels
from dpwavelet.upsampling import DetailModel
from dpwavelet.wavelet import analyze

BEFORE, HARDENED, TRUE = "as it was before both", "with mistakes", "with true ones"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("students", nargs="+", type=Path, help="model folders of privately trained models")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--more", type=int, default=120)
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--sheet", type=Path, help="folder for sheets of pictures")
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    data = staged()
    if data is None:
        print("The staged images are not here: set DPWAVELET_DATA, or put them beside the repository.")
        return
    model = Model.from_pretrained("thumb")
    public = PublicPixels.read(PublicImages.open(data / "public/tinyimagenet64.tar.xz", 64, "train"))
    with tempfile.TemporaryDirectory() as folder:
        details = learned(model, public, Path(folder), wanted.steps, wanted.more)
    judges = [extractor(), *witnesses(data / "weights")]
    for student in wanted.students:
        tell(student, details, judges, data, wanted)


def learned(
    model: Model, public: PublicPixels, folder: Path, steps: int, more: int
) -> dict[str, DetailModel]:
    """The three detail models by name."""
    usual = Pretraining()
    torch.manual_seed(0)
    first = replace(model, detail=DetailModel(model.detail.config))
    schedule, looker = replace(usual.detail, steps=steps), usual.looker()
    train_detail(first, public, schedule, 0, folder / "detail.safetensors", told, looker)
    ways: dict[str, AbstractContextManager[object]] = {
        HARDENED: nullcontext(),
        TRUE: patch.object(detail_stage, "with_mistakes", lambda model, coarse, generator: coarse),
    }
    found = {BEFORE: first.detail}
    for number, (name, way) in enumerate(ways.items()):
        own = folder / str(number)
        own.mkdir()
        shutil.copy(folder / "detail.safetensors", own)
        going_on = replace(model, detail=copy.deepcopy(first.detail))
        with way:
            schedule = replace(usual.hardened, steps=more)
            harden_detail(going_on, public, schedule, 0, own / "hardened.safetensors", told, looker)
        found[name] = going_on.detail
    return found


def told(stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
    if step % 100 == 0 or step == steps:
        print(f"{stage} {step}/{steps} " + " ".join(f"{n} {v:.4f}" for n, v in numbers.items()), flush=True)


@torch.no_grad()
def tell(
    student: Path,
    details: dict[str, DetailModel],
    judges: list[Extractor],
    data: Path,
    wanted: argparse.Namespace,
) -> None:
    """The table of one privately trained model."""
    name = next(s for s in ("celeba_faces", "scenes6", "mednist64") if student.name.startswith(s))
    model = Model.from_pretrained(student)
    images = PrivateImages.open(data / "private" / f"{name}.tar.xz", model.image_size, "test")
    real = Real.of(images.first(min(wanted.pictures, len(images))))
    config, pixels = model.tokenizer.config, from_bytes(real.pixels)
    drawn = Pipeline(model).draw_coarse(real.captions, seed=0, sampling=DRAWING)
    true = analyze(pixels, config.levels, config.wavelet)[0]
    labels = " | ".join(judge.label for judge in judges)
    print(f"\n{student.name}, {len(pixels)} held-out captions:\n")
    print(f"| coarse pictures | details learned | perceptual (thumb) | {labels} | class found |")
    print("|---" * (4 + len(judges)) + "|")
    rows = [pixels, drawn]
    for kind, coarse in (("drawn", drawn), ("true", true)):
        for way, detail in details.items():
            full = by(DetailEnlarger(detail, model.image_size))(coarse)
            rows += [full] if kind == "drawn" else []
            numbers = " | ".join(f"{value:.4g}" for value in scores(full, pixels, judges))
            print(f"| {kind} | {way} | {numbers} | {found(full, real, judges[0])} |", flush=True)
    if wanted.sheet:
        wanted.sheet.mkdir(parents=True, exist_ok=True)
        (wanted.sheet / f"{student.name}.png").write_bytes(
            png(sheet([each[:14].clamp(-1, 1) for each in rows], 128))
        )


def scores(full: Tensor, real: Tensor, judges: list[Extractor]) -> list[float]:
    """Perceptual distance to the record of the same caption, and Fréchet distances to all of them."""
    network = FeatureNetwork.from_pretrained()
    pairs = zip(torch.split(full, 250), torch.split(real, 250), strict=True)
    seen = torch.cat([perceptual_distance(network, *pair) for pair in pairs])
    apart = [
        frechet_between(*(statistics(judge, each) for each in (real, full)), despite_too_few=True)
        for judge in judges
    ]
    return [float(seen.mean()), *apart]


def found(full: Tensor, real: Real, judge: Extractor) -> str:
    """How often a probe finds the class that was asked for, of how often in real pictures."""
    rows = {
        name: np.concatenate([judge.rows(part) for part in torch.split(pixels, 250)])
        for name, pixels in (("real", real.pixels), ("full", to_bytes(full)))
    }
    told = obeyed("class", rows, real.labels)
    return f"{told['class_found']:.3f} of {told['class_found_real']:.3f}" if told else "-"


if __name__ == "__main__":
    main()
