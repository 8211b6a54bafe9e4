"""What every test shares: one thread, memory that is kept, properties that repeat in CI, and image sets."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dpwavelet.images.drawn import draw_to
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import create
from dpwavelet.randomness import torch_stream
from dpwavelet.text import Vocabulary
from dpwavelet.wavelet import analyze

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)
keep_freed_memory()


@pytest.fixture(scope="module", autouse=True)
def _ledgers_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the ledgers of whoever runs it, nor does a run that is made once for many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPWAVELET_LEDGERS", str(tmp_path_factory.mktemp("ledgers")))
        yield


@pytest.fixture(scope="session")
def staged_data() -> Path:
    """The folder of real image sets: DPWAVELET_DATA, or shared/data beside this repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("DPWAVELET_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the staged image sets are absent; DPWAVELET_DATA may name their folder")
    return folder


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 130 drawn portraits with captions: a private set that anyone may see."""
    folder = tmp_path_factory.mktemp("data") / "portraits"
    draw_to(folder, 130, seed=1, size=32)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    """A whole model of the `tiny` preset in a folder: untrained, but its codebooks tell patches apart."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = create("tiny", Vocabulary.of(), seed=0)
    images = from_bytes(PublicImages.open(portraits, 32).pixels(range(96)))
    model.tokenizer.start(analyze(images, 2), torch_stream(0, "codebooks"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for last in model.tokenizer.decoder.leave:  # as after training, the blocks have their say
            last[1].reset_parameters()
    model.save_pretrained(folder)
    return folder
