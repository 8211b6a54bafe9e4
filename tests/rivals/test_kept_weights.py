"""The rivals' public weights that the repository keeps: whole, small, public, of a full training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dpwavelet import shipped
from dpwavelet.comparison.methods import LDM, LLAMAGEN, Method, open_system
from dpwavelet.images.known import KNOWN
from dpwavelet.rivals.diffusion.pretrain import DiffusionPretraining
from dpwavelet.rivals.llamagen.pretrain import LlamaPretraining

KEPT = Path(__file__).parents[2] / "benchmarks" / "rivals"
STAGES = {
    LDM: {"autoencoder": DiffusionPretraining().autoencoder, "denoiser": DiffusionPretraining().denoiser},
    LLAMAGEN: {"tokenizer": LlamaPretraining().tokenizer, "transformer": LlamaPretraining().transformer},
}


@pytest.fixture(params=sorted(path.name for path in KEPT.iterdir() if path.suffix != ".work"))
def place(request: pytest.FixtureRequest) -> Path:
    return KEPT / request.param


def test_they_draw_pictures_of_the_size_of_thumb(place: Path) -> None:
    system = open_system(Method(system=place.name, trained=False), place)
    pictures = system.rival.draw(["a photograph of a dog", "the sea"], 0)
    assert pictures.shape == (2, 3, 64, 64)
    assert pictures.dtype == torch.uint8
    assert pictures.float().std() > 20  # not one flat colour
    assert (pictures[0].float() - pictures[1].float()).abs().mean() > 10


def test_they_were_trained_for_the_usual_steps_and_say_so(place: Path) -> None:
    run = open_system(Method(system=place.name, trained=False), place).card["run"]
    for stage, usual in STAGES[place.name].items():
        assert (run[stage]["steps"], run[stage]["batch_size"]) == (usual.steps, usual.batch_size)


def test_every_file_is_tensors_in_two_bytes_or_json_without_paths(place: Path) -> None:
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 25e6
    for path in files:
        if path.suffix == ".json":
            json.loads(text := path.read_text(encoding="utf-8"))
            assert "/work" not in text
            assert "/tmp" not in text
        elif path.name != KNOWN:
            with safe_open(path, "pt") as tensors:
                kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - not a dict
            assert kinds == {"BF16"}


def test_every_file_is_what_the_card_says(place: Path) -> None:
    found = shipped.compare(str(place))
    assert found.ok, found.lines
    assert len(found.lines) == len([path for path in place.rglob("*") if path.is_file()]) - 1


def test_their_digests_say_which_public_pictures_they_saw(place: Path) -> None:
    with safe_open(place / KNOWN, "pt") as tensors:
        assert len(tensors.get_tensor("digests")) > 30_000
