"""What a warm start gains: held-out loss before and after private training, with and without it.

    python benchmarks/warm_start.py                                     # 8,000 drawn portraits
    python benchmarks/warm_start.py FOLDER --split train --held-out test --epsilon 1 8 --shares 0 0.1 0.3
    python benchmarks/warm_start.py FOLDER --split train --held-out test --shares 0 0.3 --no-training

Every row starts from the same public weights and costs the same epsilon in all; the share is what the warm
start costs alone. The loss is nats per coarse token over held-out records. For public stand-ins alone.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, make_plan
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.randomness import Source
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import held_out_loss, train_privately
from dpwavelet.warm_start import Moving, begin_from, bound_of, release, surprise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder, tar or zip; drawn portraits unless given")
    parser.add_argument("--split")
    parser.add_argument("--held-out", help="split of the held-out records")
    parser.add_argument("--model", default="thumb")
    parser.add_argument("--records", type=int, default=8000, help="use at most so many")
    parser.add_argument("--epsilon", nargs="*", type=float, default=[8.0])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.0, 0.1, 0.3])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--no-training", action="store_true", help="measure the starts alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(wanted, Path(folder))


def compare(wanted: argparse.Namespace, work: Path) -> None:
    model = Model.from_pretrained(wanted.model)
    records, held_out = _data(wanted, model, work)
    public, codes = model.transformer, model.tokenizer.codebook(0).codes
    _tell(row="zero-shot", records=len(records), loss=held_out_loss(public, held_out))
    total = surprise(public, codes, records)
    for epsilon in wanted.epsilon:
        for share in wanted.shares:
            began = time.monotonic()
            asked = RunSettings(
                epsilon=epsilon, warm_start=share or None, batch_size=wanted.batch_size, steps=wanted.steps
            )
            plan = make_plan(asked, len(records))
            start = public
            if share:
                noisy = release(total, plan, Source(), bound=bound_of(public, codes), other=0)
                start = begin_from(noisy, plan, 0, public, codes, Moving())
            facts = {"epsilon": epsilon, "share": share, "noise": round(plan.noise_multiplier, 4)}
            seconds = time.monotonic() - began
            _tell(row="start", **facts, loss=held_out_loss(start, held_out), seconds=seconds)
            if wanted.no_training:
                continue
            folder = work / f"{epsilon}-{share}"
            ledger = Ledger.open(folder / "ledger.jsonl")
            ledger.append({"kind": "begun", "run": "bench", "plan": plan.to_json()})
            student = train_privately(start, records, plan, asked.training, folder, ledger, "bench")
            seconds = time.monotonic() - began
            _tell(row="trained", **facts, loss=held_out_loss(student, held_out), seconds=seconds)


def _data(wanted: argparse.Namespace, model: Model, work: Path) -> tuple[PrivateTokens, PrivateTokens]:
    sets = []
    if wanted.data is None:
        for name, count, seed in (("train", wanted.records, 0), ("test", 1000, 1)):
            draw_to(work / name, count, seed=seed, size=model.image_size)
            sets.append(PrivateImages.open(work / name, model.image_size))
    else:
        for split in (wanted.split, wanted.held_out):
            sets.append(PrivateImages.open(wanted.data, model.image_size, split))
    length = model.transformer.config.caption_length
    train, test = (
        tokenize(
            images, model.tokenizer, model.vocabulary, scales=model.private_scales, caption_length=length
        )
        for images in sets
    )
    few = slice(wanted.records)
    return replace(train, image=train.image[few], captions=train.captions[few]), test


def _tell(**row: float | str) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
