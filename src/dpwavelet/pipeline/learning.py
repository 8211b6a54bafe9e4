"""Private training as a stage of a run, and the part that other processes have in it."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load as unpack_tensors
from safetensors.torch import save as pack_tensors

from dpwavelet.checkpoint import canonical_json
from dpwavelet.model import Model
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.privacy.ledger import Charges, Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.ranks import ALONE, Ranks, device_named
from dpwavelet.records import PrivateTokens
from dpwavelet.training import PrivateTraining, train_privately


def learn(model: Model, tokens: PrivateTokens, here: Ongoing, ledger: Charges, ranks: Ranks = ALONE) -> Model:
    """The model after private training under the plan, by this process and those that `assist`."""
    plan, settings = here.plan, here.settings
    here.progress.begin("private training", plan.steps)
    if ranks.count > 1:
        job = {"model": settings.model, "run": here.name, "plan": plan.to_json(), "device": settings.device}
        ranks.share(lambda: canonical_json(job | {"training": asdict(settings.training)}))
        ranks.share(lambda: pack_tensors(tokens.to_tensors()))
    metrics = here.private / "metrics.jsonl"
    shown = 0

    def told(step: int, numbers: dict[str, float]) -> None:
        nonlocal shown
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        here.progress.advance(step - shown, f"epsilon {plan.epsilon_spent(step):.2f} of {plan.epsilon:g}")
        shown = step

    transformer = train_privately(
        model.transformer, tokens, plan, settings.training,
        here.private / "checkpoint", ledger, here.name, told, ranks,
    )  # fmt: skip
    ranks.leave()
    card = {
        "name": "dpwavelet, trained under differential privacy",
        "plan": plan.to_json(),
        "started_from": dict(model.card),
    }
    return model.with_transformer(transformer, card)


def assist(ranks: Ranks) -> None:
    """What every rank but the lead does: its part of private training. It opens no image, writes no file."""
    job = json.loads(ranks.share(bytes))
    train_privately(
        Model.from_pretrained(job["model"]).transformer.to(device_named(job["device"])),
        PrivateTokens.from_tensors(unpack_tensors(ranks.share(bytes))),
        PrivacyPlan.from_json(job["plan"]),
        PrivateTraining(**job["training"]),
        Path(),
        Ledger(Path()),
        job["run"],
        ranks=ranks,
    )
    ranks.leave()
