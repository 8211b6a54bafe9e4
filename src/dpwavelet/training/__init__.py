"""Private training: the one place where records and a model meet.

Each step of the plan draws a Poisson batch of units, clips every unit's gradient, adds noise to the sum and
takes one Adam step on what `privatize` returned; all else here (Adam, the average of the weights) is
post-processing. The ledger is charged before steps are taken. A run can be killed at any moment and goes on
from its checkpoint with the same key, so the steps it repeats repeat their batches and noise.

A unit is a record, or a person with all their records: see `PrivateTokens.members`. Several processes may
take the steps together: see `ranks`.
"""

from dpwavelet.training.adam import Adam, Gradients
from dpwavelet.training.learners import TokenModel, learner, trained_parameters
from dpwavelet.training.loop import (
    Released,
    Told,
    charge,
    check_begun,
    check_unit,
    chunks,
    repeatable,
    train_privately,
    train_without_privacy,
)
from dpwavelet.training.losses import held_out_loss
from dpwavelet.training.resuming import Checkpoint
from dpwavelet.training.settings import (
    MEASURED,
    Emphases,
    Emphasis,
    Parameters,
    PrivateTraining,
    Schedule,
)
from dpwavelet.training.views import View

__all__ = [
    "MEASURED",
    "Adam",
    "Checkpoint",
    "Emphases",
    "Emphasis",
    "Gradients",
    "Parameters",
    "PrivateTraining",
    "Released",
    "Schedule",
    "TokenModel",
    "Told",
    "View",
    "charge",
    "check_begun",
    "check_unit",
    "chunks",
    "held_out_loss",
    "learner",
    "repeatable",
    "train_privately",
    "train_without_privacy",
    "trained_parameters",
]
