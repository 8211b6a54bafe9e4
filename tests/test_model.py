"""A model folder: whole, checked, and without code."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.model import PARTS, PRESETS, Model, bundled, create, digests, find
from dpwavelet.text import Vocabulary


def same(first: Model, second: Model, tolerance: float = 0.0) -> bool:
    return all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance * 0.1)
        for part in PARTS
        for a, b in zip(
            getattr(first, part).state_dict().values(),
            getattr(second, part).state_dict().values(),
            strict=True,
        )
    )


def test_a_saved_model_comes_back_exactly(tiny_model: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path / "again")
    again = Model.from_pretrained(tmp_path / "again")
    assert same(model, again)
    assert (again.vocabulary.words, again.preset, again.card) == (model.vocabulary.words, "tiny", model.card)


def test_half_precision_halves_the_files_and_rounds_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path / "half", half=True)
    assert same(model, Model.from_pretrained(tmp_path / "half"), tolerance=0.01)
    sizes = [
        (folder / "transformer.safetensors").stat().st_size for folder in (tmp_path / "half", tiny_model)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_folder_holds_tensors_and_json_only(tiny_model: Path) -> None:
    assert {path.suffix for path in tiny_model.iterdir()} == {".json", ".safetensors"}
    assert set(digests(tiny_model)) == {path.name for path in tiny_model.iterdir()}


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.mark.parametrize(
    "name", ["config.json", "vocabulary.json", "detail.safetensors", "tokenizer.safetensors"]
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError, match="config.json" if name == "config.json" else name):
        Model.from_pretrained(copy)


def test_a_truncated_file_is_named(copy: Path) -> None:
    path = copy / "transformer.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"transformer\.safetensors"):
        Model.from_pretrained(copy)


@pytest.mark.parametrize(
    ("part", "field", "value"), [("transformer", "width", 32), ("tokenizer", "codes", 128)]
)
def test_weights_of_another_shape_are_refused(copy: Path, part: str, field: str, value: int) -> None:
    config = json.loads((copy / "config.json").read_text())
    config[part][field] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not fit"):
        Model.from_pretrained(copy)


def test_an_unknown_field_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["tokenizer"]["surprise"] = 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="surprise"):
        Model.from_pretrained(copy)


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="no model at nowhere"):
        find("nowhere")


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="thumb"):
        create("huge", Vocabulary.of(), 0)


@pytest.mark.parametrize(
    ("preset", "size", "bands", "tokens", "values"),
    [
        ("tiny", 32, (8, 8, 16), (16, 16, 16), (12, 36, 144)),
        ("thumb", 64, (16, 16, 32), (64, 64, 64), (12, 36, 144)),
        ("photo", 128, (32, 32, 64), (256, 256, 256), (12, 36, 144)),
        ("paper", 256, (32, 32, 64, 128), (256,) * 4, (12, 36, 144, 576)),
    ],
)
def test_presets_have_the_geometry_of_the_design(
    preset: str, size: int, bands: tuple[int, ...], tokens: tuple[int, ...], values: tuple[int, ...]
) -> None:
    shape = PRESETS[preset]
    found = shape.tokenizer
    assert (found.image_size, found.band_sides, found.tokens, found.patch_values) == (
        size,
        bands,
        tokens,
        values,
    )
    assert shape.detail.levels == found.levels
    assert shape.transformer(500).tokens == tokens


def test_bundled_weights_are_small_and_load() -> None:
    named = bundled()
    assert "thumb" in named
    assert sum(path.stat().st_size for folder in named.values() for path in folder.iterdir()) < 40e6
    model = Model.from_pretrained("thumb")
    assert model.image_size == 64
    assert model.card["trained_on"]["images"] > 30_000
