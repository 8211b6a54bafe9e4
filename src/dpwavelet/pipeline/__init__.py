"""Complete jobs: a private run from a folder to a release, and a model that draws pictures."""

from dpwavelet.pipeline.books import open_ledger
from dpwavelet.pipeline.forgetting import forget_key
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.learning import assist
from dpwavelet.pipeline.run import dry_run, run
from dpwavelet.pipeline.second_look import judge_again
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan, plan_for, read_captions
from dpwavelet.progress import Progress, Silent

__all__ = [
    "Pipeline",
    "Progress",
    "RunSettings",
    "Silent",
    "assist",
    "declared",
    "dry_run",
    "forget_key",
    "judge_again",
    "make_plan",
    "open_ledger",
    "plan_for",
    "read_captions",
    "run",
]
