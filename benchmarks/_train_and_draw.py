"""Train on a stand-in and draw for held-out captions, by whichever `dpwavelet` is on the path.

    PYTHONPATH=CHECKOUT/src python benchmarks/_train_and_draw.py ARCHIVE --epsilon 10 --share 1 --out FOLDER

For `first_recipe.py`, which calls it with an old version and with this one: so it uses nothing that either of
them lacks. Everything is as that version's `run` would have it.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.records import tokenize
from dpwavelet.training import held_out_loss, train_privately


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual steps")
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    model = Model.from_pretrained("thumb")
    train = PrivateImages.open(wanted.data, model.image_size, "train")
    test = PrivateImages.open(wanted.data, model.image_size, "test")
    test = test.first(min(wanted.pictures, len(test)))
    length = model.transformer.config.caption_length
    records, held_out = (
        tokenize(
            images, model.tokenizer, model.vocabulary, scales=model.private_scales, caption_length=length
        )
        for images in (train, test)
    )
    asked = RunSettings(epsilon=wanted.epsilon)
    usual = make_plan(asked, declared(asked, len(train)))
    asked = replace(asked, batch_size=usual.batch_size, steps=max(round(usual.steps * wanted.share), 1))
    plan = make_plan(asked, declared(asked, len(train)))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "bench", "plan": plan.to_json()})
        student = train_privately(
            model.transformer, records, plan, asked.training, Path(folder), ledger, "bench"
        )
    seconds = time.monotonic() - started
    captions = [test.captions(index)[0] for index in range(len(test))]
    trained = model.with_transformer(student, model.card)
    few, full = Pipeline(trained).draw(captions, seed=wanted.seed)
    told = {
        "zero_shot": round(held_out_loss(model.transformer, held_out), 4),
        "held_out_loss": round(held_out_loss(student, held_out), 4),
        "private_scales": model.private_scales,
        "steps": plan.steps,
        "batch": plan.batch_size,
        "noise_multiplier": round(plan.noise_multiplier, 4),
        "seconds": round(seconds, 1),
    }
    wanted.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {"few": to_bytes(few).contiguous(), "full": to_bytes(full).contiguous()},
        wanted.out / "pictures.safetensors",
    )
    (wanted.out / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
