"""Drawn portraits with a held-out split, tiny public weights of three systems, and a tiny feature network."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_tables import Here, split_portraits

from dpwavelet.comparison import Method, TableSettings, make_table
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.progress import Silent
from dpwavelet.rivals.llamagen import create
from dpwavelet.rivals.llamagen.weights import save
from dpwavelet.text import Vocabulary


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return split_portraits(tmp_path_factory.mktemp("people") / "people", 110, 20)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained feature network for pictures of 32 pixels."""
    torch.manual_seed(0)
    made = FeatureNetwork(FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=12, classes=5))
    made.train()(torch.rand(64, 3, 32, 32) * 2 - 1)
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    made.eval().save(folder, {"name": "test"})
    return folder


@pytest.fixture(scope="session")
def llamagen(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    made = create("tiny", Vocabulary.of(), 0)
    images = from_bytes(PublicImages.open(portraits, 32).pixels(range(8)))
    made.tokenizer.start(images, torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("weights") / "llamagen"
    save(replace(made, card={"trained_on": {"images": 7}}).eval(), folder)
    return folder


@pytest.fixture(scope="session")
def ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations, as they import
        pytest.importorskip("diffusers", reason="diffusers is not installed")
        pytest.importorskip("opacus", reason="opacus is not installed")
    from dpwavelet.rivals import diffusion

    folder = tmp_path_factory.mktemp("weights") / "ldm"
    diffusion.save(diffusion.create("tiny", Vocabulary.of(), seed=0).diffusion.eval(), folder)
    return folder


@pytest.fixture(scope="session")
def asked(tiny_model: Path, llamagen: Path, features: Path) -> TableSettings:
    """A table of two methods and the public weights, quickly computed."""
    return TableSettings(
        methods=tuple(map(Method.parse, ("dp-wavelet", "dp-llamagen", "public"))),
        epsilons=(8.0, float("inf")),
        seeds=2,
        weights={"dp-wavelet": str(tiny_model), "dp-llamagen": str(llamagen)},
        batch_size=20,
        steps=3,
        pictures=16,
        features=str(features),
        stand_in=True,
    )


@pytest.fixture(scope="session")
def made(people: Path, asked: TableSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that table."""
    return make_table(people, tmp_path_factory.mktemp("tables") / "out", asked, Silent(), Here())
