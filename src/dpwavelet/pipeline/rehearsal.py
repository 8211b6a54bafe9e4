"""The plan of a rehearsal on drawn pictures: the real private steps, and no record has a part in them."""

from pathlib import Path

from dpwavelet.privacy.accounting import delta_for
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import FEWEST_RECORDS

RUN = "rehearsal"
STEPS = 4  # of which the first warms up and the last writes a checkpoint


def rehearsed(folder: Path) -> tuple[PrivacyPlan, Ledger]:
    """A plan of sampling rate 1, so that every picture is in every batch, and a ledger in which RUN began."""
    plan = PrivacyPlan(
        epsilon=8.0,
        delta=delta_for(FEWEST_RECORDS),
        records=FEWEST_RECORDS,
        batch_size=FEWEST_RECORDS,
        steps=STEPS,
        max_norm=1.0,
    )
    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.append({"kind": "begun", "run": RUN, "plan": plan.to_json()})
    return plan, ledger
