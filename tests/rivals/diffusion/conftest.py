"""A tiny latent diffusion model, untrained, and made-up records for it."""

import warnings

import numpy as np
import pytest

from dpwavelet.records import CAPTION_CHOICES
from dpwavelet.rivals.diffusion.networks import LatentDiffusion, create
from dpwavelet.rivals.diffusion.records import LatentRecords
from dpwavelet.text import Vocabulary


@pytest.fixture(scope="session", autouse=True)
def _libraries() -> None:
    """Every test here needs both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations, as they import
        for name in ("diffusers", "opacus"):
            pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="session")
def diffusion() -> LatentDiffusion:
    return create("tiny", Vocabulary.of(), seed=0).eval()


@pytest.fixture(scope="session")
def records(diffusion: LatentDiffusion) -> LatentRecords:
    """120 records: latents that are all of one of four values, which the caption names."""
    value = np.random.default_rng(0).integers(4, size=120)
    latents = np.broadcast_to((value - 1.5)[:, None, None, None], (120, *diffusion.latent))
    encode = diffusion.denoiser.embedder.encode
    captions = np.stack([encode([f"number {each}"] * CAPTION_CHOICES).numpy() for each in value])
    empty = encode([""])[0].numpy().astype(np.int32)
    return LatentRecords(latents.astype(np.float16), captions.astype(np.int32), empty)
