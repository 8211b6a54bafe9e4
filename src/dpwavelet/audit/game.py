"""The guessing game against clipping, sampling and noise, played many times with the worst records there are.

Each of K canaries is in the data by a fair coin; nothing else is. The plan's own `batches`, the real
`RecordClipper` and the plan's own `privatize` run for all steps of a short plan, under a fresh key. The
attacker knows the weights and the canaries, sees every released update, and guesses every coin.

The weights never change: a learning rate of zero is a choice that the promise covers, and then each release
is a known multiple of a canary's direction, or nothing, under noise. The canaries' gradients are orthogonal
and far above the clipping norm, so each uses all of what one record may do and none hides another. For an
engine without defects no attack on one record is better, which is why the bound can come close to the claim.

Letters: K canaries, q sampling rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.audit.bounds import accuracy_epsilon, gaussian_epsilon, mean_at_least
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source

CANARIES = 128
STEPS = 2
LOUDNESS = 1000.0  # how far the record's loss is scaled up, so that its gradient is clipped


@dataclass(frozen=True)
class Played:
    """What many repeats of the game show."""

    epsilon: float  # the claim
    delta: float
    confidence: float
    repeats: int
    canaries: int
    accuracy: float  # share of right guesses
    accuracy_at_least: float  # with confidence
    gaussian: float  # epsilon at least, if the mechanism is a Poisson-sampled Gaussian of the plan's rate
    any_mechanism: float  # epsilon at least, whatever the mechanism is


class Victims:
    """K canaries and a small model, in which each has a row of an embedding to itself.

    The rest of the model is shared, but sees inputs so small that next to nothing of a gradient lies there.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._table, head = nn.Embedding(CANARIES, 8), nn.Linear(8, 4, bias=False)
        with torch.no_grad():
            self._table.weight.normal_(0, 1e-4, generator=generator)
            head.weight.normal_(generator=generator)
        self.model = nn.Sequential(self._table, head)
        self.directions = self._directions()

    def losses(self, canaries: Tensor) -> Tensor:
        """One loss a canary, [B]."""
        logits = self.model(canaries[:, None]).flatten(1)
        answers = torch.zeros(len(canaries), dtype=torch.int64)
        return LOUDNESS * nn.functional.cross_entropy(logits, answers, reduction="none")

    def along(self, released: dict[str, Tensor]) -> NDArray[np.float64]:
        """How far an update points along each canary's gradient, [K]."""
        found: NDArray[np.float64] = (released["0.weight"] * self.directions).sum(1).double().numpy()
        return found

    def _directions(self) -> Tensor:
        """Unit gradients [K, 8], each in its own row, by autograd and not by the clipper under test."""
        (rows,) = torch.autograd.grad(self.losses(torch.arange(CANARIES)).sum(), [self._table.weight])
        return nn.functional.normalize(rows)


def short_plan(plan: PrivacyPlan) -> PrivacyPlan:
    """The same promise in a few steps that half of the records join: what the game is played with."""
    return PrivacyPlan(
        epsilon=plan.epsilon,
        delta=plan.delta,
        records=plan.records,
        batch_size=-(-plan.records // 2),
        steps=STEPS,
        max_norm=plan.max_norm,
    )


def play(
    plan: PrivacyPlan,
    repeats: int,
    confidence: float,
    source_of: Callable[[int], Source] = lambda _: Source(),
    told: Callable[[int], None] | None = None,
) -> Played:
    """Play `repeats` times and bound epsilon; `source_of` gives every repeat its own key.

    Guarantee: of an engine that keeps the plan's promise, `any_mechanism` exceeds the true epsilon with
    probability at most 1 - confidence; so does `gaussian` if the engine is the mechanism of the plan.
    """
    victims = Victims()
    weights = {"0.weight": 2.0}  # heavy, as parameters of a run may be; of a sound clipper it changes nothing
    clipper = RecordClipper(victims.model, max_norm=plan.max_norm, weights=weights)
    right = []
    for repeat in range(repeats):
        source = source_of(repeat)
        present = source.uniforms(("audit", "coins"), CANARIES) <= 0.5
        right.append(float((_guesses(plan, victims, clipper, present, source) == present).mean()))
        if told is not None:
            told(1)
    accuracy = mean_at_least(right, confidence)
    return Played(
        epsilon=plan.epsilon,
        delta=plan.delta,
        confidence=confidence,
        repeats=repeats,
        canaries=CANARIES,
        accuracy=float(np.mean(right)),
        accuracy_at_least=accuracy,
        gaussian=gaussian_epsilon(accuracy, plan.event, plan.delta),
        any_mechanism=accuracy_epsilon(accuracy, plan.delta),
    )


def _guesses(
    plan: PrivacyPlan, victims: Victims, clipper: RecordClipper, present: NDArray[np.bool_], source: Source
) -> NDArray[np.bool_]:
    """Run every step and guess who was there, [K], by the likelihood ratio of the plan's own mechanism."""
    records = np.flatnonzero(present)
    ratios = np.zeros(CANARIES)
    for step, batch in plan.batches(records=len(records), source=source):
        if len(batch):
            clipper.accumulate(victims.losses, torch.from_numpy(records[batch]))
        released = plan.privatize(clipper.finish(), source, step)
        ratios += _log_ratio(plan, victims.along(released) * plan.divisor / plan.max_norm)
    return ratios > 0


def _log_ratio(plan: PrivacyPlan, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of ((1 - q) N(x; 0, sigma) + q N(x; 1, sigma)) / N(x; 0, sigma), [K]."""
    q, gain = plan.sampling_rate, (2 * x - 1) / (2 * plan.noise_multiplier**2)
    absent = math.log1p(-q) if q < 1 else -math.inf
    ratio: NDArray[np.float64] = np.logaddexp(absent, math.log(q) + gain)
    return ratio
