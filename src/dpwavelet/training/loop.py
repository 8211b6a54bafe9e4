"""The steps of a private run, and the same without privacy for research.

Letters: U units, k records of one unit in a step.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.adapters import merge
from dpwavelet.checkpoint import canonical_json, digest_of
from dpwavelet.errors import PrivacyError
from dpwavelet.precision import rounds_products
from dpwavelet.privacy.clipping import Losses, RecordClipper
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source, stream
from dpwavelet.ranks import ALONE, Ranks
from dpwavelet.records import Members, PrivateTokens
from dpwavelet.training.adam import Adam, Gradients
from dpwavelet.training.learners import M, device_of, learner, module_of
from dpwavelet.training.losses import unit_losses
from dpwavelet.training.resuming import Checkpoint
from dpwavelet.training.settings import PrivateTraining
from dpwavelet.training.views import check_variants, drawn_units, rows_of, views_of

Told = Callable[[int, dict[str, float]], None]
"""Told (steps done, numbers) after each step; the numbers are private diagnostics."""
Released = Callable[[int, Mapping[str, Tensor]], None]
"""Shown (step, what `privatize` returned): differentially private already, whatever is done with it."""


def train_privately(
    transformer: M,
    records: PrivateTokens,
    plan: PrivacyPlan,
    settings: PrivateTraining,
    folder: Path,
    ledger: Charges,
    run: str,
    told: Told | None = None,
    ranks: Ranks = ALONE,
    released: Released | None = None,
) -> M:
    """Train a copy of `transformer` under `plan`, going on from `folder` if it holds a checkpoint of `run`.

    Guarantee: the result, seen once at the end, is (plan.epsilon, plan.delta)-DP in the unit of the plan.
    Every step that may have been taken was charged to `ledger` before. Of several ranks all return the same;
    only the lead uses `folder` and `ledger`. It computes where `transformer` is.
    """
    if settings.per_unit != plan.per_unit:
        raise PrivacyError(
            f"the plan says that {plan.per_unit} records of one unit join a step, but training is told "
            f"{settings.per_unit}; set both to the same number."
        )
    check_unit(plan, records)
    check_variants(records, settings)
    if ranks.lead:
        check_begun(plan, ledger, run)
    checkpoint = Checkpoint(folder, plan, settings, run, ranks.count, device_of(transformer).type)
    start_digest = digest_of(module_of(transformer).state_dict(), transformer.identity)
    source = Source(ranks.share(lambda: checkpoint.source(records.digest, start_digest).key))
    student, parameters = learner(transformer, settings)
    module = module_of(student)
    clipper, losses_of = _checked_clipper(student, parameters, records, plan, settings)
    optimizer = Adam(parameters, settings, plan.steps)
    start = int(ranks.share(lambda: str(checkpoint.load(optimizer)).encode()))
    ranks.follow([*module.state_dict().values(), *optimizer.state().values()])
    if ranks.lead:
        ledger.bind(run, source.digest)
        charge(ledger, run, start)
    for step, batch in plan.batches(records=records.units, source=source, start=start):
        if ranks.lead and ledger.charged_steps(run) <= step:
            charge(ledger, run, min(step + settings.charge_every, plan.steps))
        ranks.meet()  # nobody computes anything before the disk has the charge
        views = views_of(source, step, len(records), settings)
        coins = source.uniforms(("members", step), len(records))
        losses, clipped_share = [0.0], [0.0]
        for chunk, own in chunks(ranks.own(batch), settings.units_at_once):
            rows = rows_of(records, records.members(chunk, coins, settings.per_unit), views)
            with repeatable(device_of(student)):
                found = clipper.accumulate(
                    losses_of, *(each.to(device_of(student)) for each in rows), records=own
                )
            losses.extend(found.losses.tolist())
            clipped_share.extend((found.norms > plan.max_norm).float().tolist())
        update = plan.privatize(ranks.reduce(clipper.finish()), source, step)
        optimizer.step(update, step)
        if released is not None:
            released(step, update)
        if ranks.lead and ((step + 1) % settings.charge_every == 0 or step + 1 == plan.steps):
            checkpoint.save(optimizer, step + 1)
        loss, clipped = ranks.total([sum(losses), sum(clipped_share)])
        if told is not None:
            drawn = max(len(batch), 1)
            told(step + 1, {"loss": loss / drawn, "clipped": clipped / drawn, "drawn": len(batch)})
    optimizer.release()
    merge(module)
    return student


def _checked_clipper(
    student: M,
    parameters: dict[str, nn.Parameter],
    records: PrivateTokens,
    plan: PrivacyPlan,
    settings: PrivateTraining,
) -> tuple[RecordClipper, Losses]:
    """What clips, and the losses of units, tried on made-up records; of private ones it sees shapes only."""
    clipper = RecordClipper(
        module_of(student),
        parameters,
        max_norm=plan.max_norm,
        precision="fast" if rounds_products(device_of(student), settings.mixed_precision) else "exact",
        weights={name: settings.emphasis_of(name).weight for name in parameters},
    )
    exact = partial(unit_losses, student, replace(settings, mixed_precision=False), records.scales)
    clipper.check(exact, *drawn_units(student, records.scales, 4, 6))
    losses_of = partial(unit_losses, student, settings, records.scales)
    if settings.compiled:
        k = 1 if records.owners is None else settings.per_unit
        shape = (settings.units_at_once, records.captions.shape[2], k * settings.views)
        with repeatable(device_of(student)):
            clipper.compile(losses_of, *drawn_units(student, records.scales, *shape))
    return clipper, losses_of


def train_without_privacy(
    transformer: M,
    records: PrivateTokens,
    settings: PrivateTraining,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    told: Told | None = None,
) -> M:
    """The same loop with plain gradients: no clipping, no noise, no promise. For research on stand-ins.

    No parameter is emphasized, since where there is no noise none needs to be. The result must never enter a
    release; `pipeline` does not call it.
    """
    check_variants(records, settings)
    settings = replace(settings, emphasis="even")
    student, parameters = learner(transformer, settings)
    optimizer = Adam(parameters, settings, steps)
    for p in parameters.values():
        p.requires_grad_(True)
    source = Source.for_test(seed)
    for step in range(steps):
        batch = stream(seed, "plain batch", step).integers(len(records), size=batch_size)
        views = views_of(source, step, len(records), settings)
        sums: Gradients = {}
        total = 0.0
        for chunk in np.array_split(batch, -(-len(batch) // settings.units_at_once)):
            alone = Members(chunk[:, None], torch.ones(len(chunk), 1))
            rows = (each.to(device_of(student)) for each in rows_of(records, alone, views))
            losses = unit_losses(student, settings, records.scales, *rows)
            total += float(losses.detach().sum())
            grads = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    sums[name] = sums[name] + grad if name in sums else grad
        optimizer.step({name: grad / batch_size for name, grad in sums.items()}, step)
        if told is not None:
            told(step + 1, {"loss": total / batch_size})
    optimizer.release()
    merge(module_of(student))
    module_of(student).requires_grad_(False)
    return student


def charge(ledger: Charges, run: str, steps: int) -> None:
    """See to it that so many steps of the run are charged: also those that an older copy, put back, lacks."""
    if ledger.charged_steps(run) < steps:
        ledger.append({"kind": "charged", "run": run, "steps": steps})


def check_unit(plan: PrivacyPlan, records: PrivateTokens) -> None:
    """Refuse records that tell no people apart under a plan for people, and the other way round.

    A person whose records each toss a coin of their own would move a sum by more than the plan allows.
    """
    if (plan.unit == "person") != (records.owners is not None):
        known = "whose they are is known" if records.owners is not None else "nothing says whose they are"
        raise PrivacyError(
            f"the unit of the plan is the {plan.unit}, but of the records {known}; make both for one unit."
        )


def check_begun(plan: PrivacyPlan, ledger: Charges, run: str) -> None:
    """Refuse to charge steps of one plan to a run that was begun with another."""
    if canonical_json(ledger.plan_of(run)) != canonical_json(plan.to_json()):
        raise PrivacyError(
            f"the ledger says that run {run} was begun with another plan, or not at all, so its charges "
            "would not be what is spent. Begin a run with this plan first."
        )


def chunks(batch: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Cut a batch into chunks of one shape; the last is filled up with rows that do not count."""
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        yield np.resize(chunk, size), len(chunk)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU allow only what gives the same bits again; a step that is repeated must repeat its sum.

    torch raises where it knows no such way, in the rehearsal of a run and so before anything is charged.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before)
