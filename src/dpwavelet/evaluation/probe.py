"""A linear probe: multinomial logistic regression on feature rows, and nothing more clever.

What a probe finds, the features hold in plain sight. Columns are standardised; what is minimised is

    mean cross-entropy + penalty / 2 * (sum of squared weights)

in double precision by L-BFGS, until its gradient is 1e-8. It is strictly convex but for a common offset of
the biases, so the result is *the* minimum, and repeats. Biases are not penalised.

Letters: N rows, D features, K classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.classifiers import Classes, Inputs, Part, Scores
from dpwavelet.evaluation.rows import checked

PENALTIES = (1.0, 0.1, 0.01, 0.001)
UNCHOSEN = 0.1  # where nothing is held out to choose by
SLOPE = 1e-8  # of the objective, at its end
UNIT = (
    1e6  # torch's solver takes no note of a curvature below 1e-10, so the objective is counted in millionths
)
CONSTANT = 1e-10  # a column whose deviation is within this share of its mean says nothing


@dataclass(frozen=True, eq=False)
class Probe:
    """An affine function of rows; standardisation is folded into it."""

    weight: NDArray[np.float64]  # [D, K]
    bias: NDArray[np.float64]  # [K]

    def __call__(self, rows: Inputs) -> NDArray[np.float64]:
        """Scores [N, K]: log probabilities up to a constant of each row."""
        array = checked(rows)
        if array.shape[1] != len(self.weight):
            raise ModelError(
                f"the probe was trained on {len(self.weight)} features, got {array.shape[1]}; "
                "compute both by one network."
            )
        found: NDArray[np.float64] = array.astype(np.float64) @ self.weight + self.bias
        return found


def fit_probe(rows: Inputs, classes: Classes, count: int, *, penalty: float, even: bool = False) -> Probe:
    """The minimum for rows [N, D] of classes 0 ... `count`-1, all of which occur.

    With `even`, each class weighs as much as any other, however few its rows.
    """
    if penalty <= 0:
        raise ConfigError(f"the penalty of a probe must be above 0, got {penalty}; 0.1 is usual.")
    array = checked(rows).astype(np.float64)
    mean, deviation = array.mean(0), array.std(0)
    scale = np.where(deviation > CONSTANT * np.abs(mean), deviation, np.inf)
    x = torch.from_numpy((array - mean) / scale)
    y = torch.from_numpy(classes)
    each = torch.bincount(y, minlength=count).double()
    weights = (1 / (count * each[y])) if even else torch.full((len(y),), 1 / len(y), dtype=torch.float64)
    weight, bias = _minimum(x, y, weights, count, penalty)
    unscaled = weight / scale[:, None]
    return Probe(unscaled, bias - mean @ unscaled)


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """The learner: one probe for each penalty, and that one is kept whose held-out classes are likeliest."""

    penalties: tuple[float, ...] = PENALTIES
    even: bool = False  # see `fit_probe`

    name: ClassVar[str] = "linear probe"

    def __post_init__(self) -> None:
        if not self.penalties:
            raise ConfigError("a linear probe needs at least one penalty to choose from, got none.")

    def learn(self, part: Part, held_out: Part, count: int, seed: int) -> Scores:
        """See `Learner`; the seed changes nothing."""
        penalties = self.penalties if len(held_out.classes) else (UNCHOSEN,)
        probes = [
            fit_probe(part.inputs, part.classes, count, penalty=penalty, even=self.even)
            for penalty in penalties
        ]
        if len(probes) == 1:
            return probes[0]
        return min(probes, key=lambda probe: self._surprise(probe, held_out))

    def _surprise(self, probe: Probe, held_out: Part) -> float:
        """The mean negative log-likelihood, by the same weights as in training."""
        losses = F.cross_entropy(
            torch.from_numpy(probe(held_out.inputs)), torch.from_numpy(held_out.classes), reduction="none"
        ).numpy()
        if not self.even:
            return float(losses.mean())
        return float(np.mean([losses[held_out.classes == k].mean() for k in np.unique(held_out.classes)]))


def _minimum(
    x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, count: int, penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight [D, K] and bias [K] for standardised rows x [N, D] whose `weights` [N] add up to 1."""
    weight = torch.zeros(x.shape[1], count, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        history_size=20,
        tolerance_grad=UNIT * SLOPE,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        solver.zero_grad()
        losses = F.cross_entropy(x @ weight + bias, y, reduction="none")
        loss = UNIT * (weights @ losses + penalty / 2 * weight.square().sum())
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]  # torch's own
    return weight.detach().numpy(), bias.detach().numpy()
