"""What both rivals' autoencoders learn beside: a judge of small pieces that tells real pictures from made."""

import torch.nn.functional as F
from torch import Tensor

from dpwavelet.pretraining.detail_stage import Judge


def contest(judge: Judge, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """What the pictures lose by being seen through, and what the judge loses by its errors (hinge)."""
    (known,), (guessed,) = judge(real, ()), judge(made.detach(), ())
    caught = F.relu(1 - known.float()).mean() + F.relu(1 + guessed.float()).mean()
    judge.requires_grad_(False)  # the pictures must please the judge, and not change it
    (score,) = judge(made, ())
    judge.requires_grad_(True)
    return -score.float().mean(), caught
