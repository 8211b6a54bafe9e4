"""What private training gains: held-out loss without the data, at each epsilon, and without privacy.

    python benchmarks/private_recipe.py                                   # 8,000 drawn portraits
    python benchmarks/private_recipe.py FOLDER --split train --held-out test --epsilon 1 10 --out sheets/
    python benchmarks/private_recipe.py FOLDER --split train --held-out test --group-by FIELD --per-person 1 2

Every row starts from the same public weights and uses the same optimizer. The loss is nats per coarse token
over held-out records. With --group-by, people are protected beside records, and the table that comes first
says what protecting records alone promises to people. For public stand-ins: the numbers are not private, and
the row without privacy would break any promise. With --out, a sheet of samples of each row is written.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from dp_accounting.pld import privacy_loss_distribution as pld

from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png, sheet
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, make_plan
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.settings import DEFAULT_TRAINING
from dpwavelet.privacy.accounting import COARSE_GRID, delta_for
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import held_out_loss, train_privately, train_without_privacy
from dpwavelet.transformer import ImageTransformer

Pictures = tuple[list[str], torch.Tensor]  # captions, and the images that they belong to


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder, tar or zip; drawn portraits unless given")
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
    parser.add_argument("--group-by", help="metadata field that names the person of a record")
    parser.add_argument(
        "--per-person", nargs="*", type=int, default=[1], help="records of a person in a step"
    )
    parser.add_argument("--people-only", action="store_true", help="leave out the rows that protect records")
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
    protected = [asked] * (not wanted.people_only) + [
        replace(asked, group_by=wanted.group_by, training=replace(training, per_unit=k))
        for k in (wanted.per_person if wanted.group_by else ())
    ]
    plan = make_plan(asked, len(records))
    print(f"{len(records)} records, {len(held_out)} held out, C {plan.max_norm}, {training}", flush=True)
    if records.owners is not None:
        _tell_people(wanted, asked, records)
    base = held_out_loss(model.transformer, held_out)
    _tell(wanted, model, "zero-shot", model.transformer, base, 0.0, pictures)
    for number, (epsilon, run) in enumerate((e, run) for e in wanted.epsilon for run in protected):
        started = time.monotonic()
        units = records if run.group_by else replace(records, owners=None)
        private = make_plan(replace(run, epsilon=epsilon), units.units)
        folder = work / str(number)
        ledger = Ledger.open(folder / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "bench", "plan": private.to_json()})
        student = train_privately(model.transformer, units, private, run.training, folder, ledger, "bench")
        loss = held_out_loss(student, held_out)
        name = f"epsilon {epsilon:g}" + (f" people {run.training.per_unit}" if run.group_by else "")
        facts = _facts(private, run.training.per_unit)
        _tell(wanted, model, name, student, loss, time.monotonic() - started, pictures, **facts)
    if not wanted.no_plain:
        started = time.monotonic()
        student = train_without_privacy(
            model.transformer, records, training, steps=plan.steps, batch_size=plan.batch_size, seed=0
        )
        loss = held_out_loss(student, held_out)
        _tell(wanted, model, "without privacy", student, loss, time.monotonic() - started, pictures)


def _data(
    wanted: argparse.Namespace, model: Model, work: Path
) -> tuple[PrivateTokens, PrivateTokens, Pictures]:
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
    if wanted.group_by:
        train = train.owned_by(sets[0].group(wanted.group_by))
    few = range(min(14, len(sets[1])))
    return train, test, ([sets[1].captions(i)[0] for i in few], from_bytes(sets[1].pixels(list(few))))


def _facts(plan: PrivacyPlan, per_unit: int) -> dict[str, float | str]:
    """The numbers of a plan that make a row comparable."""
    return {
        "unit": plan.unit,
        "units": plan.records,
        "records_of_unit_in_step": per_unit,
        "batch": plan.batch_size,
        "steps": plan.steps,
        "sampling_rate": round(plan.sampling_rate, 4),
        "noise_multiplier": round(plan.noise_multiplier, 4),
        "epsilon": round(plan.pld_epsilon, 4),
        "delta": plan.delta,
    }


def _tell_people(wanted: argparse.Namespace, asked: RunSettings, records: PrivateTokens) -> None:
    """How many records people have, and what a run that protects records promises to each of them."""
    assert records.owners is not None
    sizes = Counter(Counter(records.owners.tolist()).values())
    print(json.dumps({"people": records.units, "people_with_k_records": dict(sorted(sizes.items()))}))
    delta = delta_for(records.units)
    for epsilon in wanted.epsilon:
        plan = make_plan(replace(asked, epsilon=epsilon), len(records))
        print(f"\nRecords at epsilon {epsilon:g}, delta {plan.delta:.3g}; people at delta {delta:.3g}:\n")
        print("| records of the person | epsilon | by group privacy alone |\n|---|---|---|")
        for k in sorted({1, 2, 3, 5, max(sizes)}):
            bound = group_epsilon(plan, k, delta)
            shown = f"{bound:.2f}" if bound < math.inf else "none found"
            print(f"| {k} | {mixture_epsilon(plan, k, delta):.2f} | {shown} |")
    print(flush=True)


def mixture_epsilon(plan: PrivacyPlan, k: int, delta: float) -> float:
    """What a run that protects records costs someone who has `k` of them, all added or removed at once.

    Every record tosses its own coin, so j of them, binomially distributed, join a step and move its sum by
    j C at most: a mixture of Gaussians, as in Ganesh (2024, arXiv 2401.10294). Never below the truth.
    """
    q = plan.sampling_rate
    joined = list(range(k + 1))
    chances = [math.comb(k, j) * q**j * (1 - q) ** (k - j) for j in joined]
    step = pld.from_mixture_gaussian_mechanism(
        plan.noise_multiplier, joined, chances, value_discretization_interval=k * COARSE_GRID
    )
    return float(step.self_compose(plan.steps).get_epsilon_for_delta(delta))


def group_epsilon(plan: PrivacyPlan, k: int, delta: float) -> float:
    """The same by what each record is promised alone, whatever the mechanism: a witness of the above.

    If one record has (e, d), then k have (k e, (1 + exp(e) + ... + exp((k - 1) e)) d). A run keeps many
    (e, d), and this takes the least e of a fine grid for which the second number is at most `delta`.
    """
    one = pld.from_gaussian_mechanism(
        plan.noise_multiplier,
        sampling_prob=plan.sampling_rate,
        value_discretization_interval=COARSE_GRID,
    ).self_compose(plan.steps)
    for e in np.geomspace(1e-2, 100, 4000):
        growth = math.log(sum(math.exp(-i * e) for i in range(k))) + (k - 1) * e
        if one.get_delta_for_epsilon(e) <= delta * math.exp(-growth):
            return float(k * e)
    return math.inf


def _tell(
    wanted: argparse.Namespace,
    model: Model,
    name: str,
    transformer: ImageTransformer,
    loss: float,
    seconds: float,
    pictures: Pictures,
    **facts: float | str,
) -> None:
    row = {
        "row": name,
        **facts,
        "held_out_loss": round(loss, 4),
        "seconds": round(seconds, 1),
        "machine": platform.machine(),
    }
    print(json.dumps(row), flush=True)
    if wanted.out is not None:
        captions, real = pictures
        pipeline = Pipeline(model.with_transformer(transformer, model.card))
        rows = [real, model.tokenizer.decode(model.tokenizer.encode(real, model.private_scales))]
        for seed in range(2):
            rows += pipeline.draw(captions, seed=seed)
        wanted.out.mkdir(parents=True, exist_ok=True)
        (wanted.out / f"{name.replace(' ', '_')}.png").write_bytes(png(sheet(rows, 96)))


if __name__ == "__main__":
    main()
