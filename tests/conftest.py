"""What every test shares: one thread, properties that repeat in CI, and the staged image sets."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def staged_data() -> Path:
    """The folder of real image sets: DPWAVELET_DATA, or shared/data beside this repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("DPWAVELET_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the staged image sets are absent; DPWAVELET_DATA may name their folder")
    return folder
