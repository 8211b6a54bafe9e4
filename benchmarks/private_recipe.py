"""What private training gains: held-out loss without the data, at each epsilon, and without privacy.

    python benchmarks/private_recipe.py                                   # 8,000 drawn portraits
    python benchmarks/private_recipe.py FOLDER --split train --held-out test --epsilon 1 10 --out sheets/

Every row starts from the same public weights and takes the same number of steps with the same optimizer.
The loss is nats per coarse token over held-out records. For public stand-ins: the numbers are not private,
and the row without privacy would break any promise. With --out, a sheet of samples of each row is written.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dpwavelet.generation import Sampling, draw_tokens
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png, sheet
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, make_plan
from dpwavelet.pipeline.settings import DEFAULT_TRAINING
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.training import PrivateTokens, held_out_loss, tokenize, train_privately, train_without_privacy
from dpwavelet.transformer import ImageTransformer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder or tar; drawn portraits unless given")
    parser.add_argument("--split")
    parser.add_argument("--held-out", help="split of the held-out records")
    parser.add_argument("--model", default="thumb")
    parser.add_argument("--epsilon", nargs="*", type=float, default=[8.0])
    parser.add_argument("--records", type=int, help="use only the first so many records")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--max-norm", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--average", type=float)
    parser.add_argument("--parameters", choices=["all", "attention", "blocks"])
    parser.add_argument("--no-plain", action="store_true", help="leave out the row without privacy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(wanted, Path(folder))


def compare(wanted: argparse.Namespace, work: Path) -> None:
    model = Model.from_pretrained(wanted.model)
    records, held_out, pictures = _data(wanted, model, work)
    changes = {
        name: value
        for name in ("learning_rate", "average", "parameters")
        if (value := getattr(wanted, name)) is not None
    }
    training = replace(DEFAULT_TRAINING, **changes)
    asked = RunSettings(
        epsilon=8.0, batch_size=wanted.batch_size, steps=wanted.steps, training=training,
        **({"max_norm": wanted.max_norm} if wanted.max_norm else {}),
    )  # fmt: skip
    plan = make_plan(asked, len(records))
    print(
        f"{len(records)} records, {len(held_out)} held out, batch {plan.batch_size}, steps {plan.steps}, "
        f"C {plan.max_norm}, {training}",
        flush=True,
    )
    base = held_out_loss(model.transformer, held_out)
    _tell(wanted, model, "zero-shot", model.transformer, base, 0.0, pictures)
    for epsilon in wanted.epsilon:
        started = time.monotonic()
        private = make_plan(replace(asked, epsilon=epsilon), len(records))
        ledger = Ledger.open(work / f"{epsilon}" / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "bench", "plan": private.to_json()})
        student = train_privately(
            model.transformer, records, private, training, work / f"{epsilon}", ledger, "bench"
        )
        loss = held_out_loss(student, held_out)
        _tell(wanted, model, f"epsilon {epsilon:g}", student, loss, time.monotonic() - started, pictures)
    if not wanted.no_plain:
        started = time.monotonic()
        student = train_without_privacy(
            model.transformer, records, training, steps=plan.steps, batch_size=plan.batch_size, seed=0
        )
        loss = held_out_loss(student, held_out)
        _tell(wanted, model, "without privacy", student, loss, time.monotonic() - started, pictures)


def _data(wanted: argparse.Namespace, model: Model, work: Path) -> tuple[PrivateTokens, PrivateTokens, tuple]:
    """Records, held-out records, and the first held-out captions with their images."""
    if wanted.data is None:
        draw_to(work / "train", wanted.records or 8000, seed=0, size=model.image_size)
        draw_to(work / "test", 1000, seed=1, size=model.image_size)
        sets = [PrivateImages.open(work / name, model.image_size) for name in ("train", "test")]
    else:
        sets = [
            PrivateImages.open(wanted.data, model.image_size, split)
            for split in (wanted.split, wanted.held_out)
        ]
        sets[0] = sets[0].first(wanted.records or len(sets[0]))
    length = model.transformer.config.caption_length
    train, test = (
        tokenize(
            images, model.tokenizer, model.vocabulary, scales=model.private_scales, caption_length=length
        )
        for images in sets
    )
    few = range(min(14, len(sets[1])))
    return train, test, ([sets[1].captions(i)[0] for i in few], from_bytes(sets[1].pixels(list(few))))


def _tell(
    wanted: argparse.Namespace,
    model: Model,
    name: str,
    transformer: ImageTransformer,
    loss: float,
    seconds: float,
    pictures: tuple,
) -> None:
    row = {
        "row": name,
        "held_out_loss": round(loss, 4),
        "seconds": round(seconds, 1),
        "machine": platform.machine(),
    }
    print(json.dumps(row), flush=True)
    if wanted.out is not None:
        captions, real = pictures
        words = model.vocabulary.encode(captions, transformer.config.caption_length)
        rows = [real, model.tokenizer.decode(model.tokenizer.encode(real, model.private_scales))]
        for seed in range(2):
            tokens = draw_tokens(transformer, words, model.private_scales, Sampling(), seed)
            few = model.tokenizer.decode(tokens)
            rows += [few, model.detail.enlarge(few)]
        wanted.out.mkdir(parents=True, exist_ok=True)
        (wanted.out / f"{name.replace(' ', '_')}.png").write_bytes(png(sheet(rows, 96)))


if __name__ == "__main__":
    main()
