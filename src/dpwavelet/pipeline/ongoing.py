"""What the stages of one run have in common."""

from dataclasses import dataclass
from pathlib import Path

from dpwavelet.pipeline.settings import RunSettings
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress


@dataclass(frozen=True, repr=False)
class Ongoing:
    """One run on its way: what was promised and asked for, its name, and where its private files lie."""

    plan: PrivacyPlan
    settings: RunSettings
    name: str
    private: Path
    progress: Progress
