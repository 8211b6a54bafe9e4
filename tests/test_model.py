"""A model folder: whole, checked, and without code."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dpwavelet.checkpoint import read_json, read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError, ModelError, OutputError
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.model import PARTS, PRESETS, Model, bundled, create, digests, find
from dpwavelet.text import Vocabulary
from dpwavelet.wavelet import analyze, synthesize


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


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


def test_a_trained_model_brings_along_what_it_began_from(tiny_model: Path, tmp_path: Path) -> None:
    public = Model.from_pretrained(tiny_model)
    assert public.reference is None
    one, two = (create("tiny", public.vocabulary, seed).transformer for seed in (1, 2))
    trained = public.with_transformer(one, {}).with_transformer(two, {"name": "trained twice"})
    assert trained.reference is public.transformer
    trained.eval().save_pretrained(tmp_path / "trained")
    again = Model.from_pretrained(tmp_path / "trained")
    assert same(trained, again)
    assert again.reference is not None
    for name, tensor in again.reference.state_dict().items():
        assert torch.equal(tensor, public.transformer.state_dict()[name])
    assert not any(weight.requires_grad for weight in again.reference.parameters())
    assert not again.reference.training
    (tmp_path / "trained" / "reference.safetensors").unlink()
    with pytest.raises(ModelError, match=r"reference\.safetensors"):
        Model.from_pretrained(tmp_path / "trained")


@pytest.mark.parametrize("scales", [0, 4, -1])
def test_private_scales_that_the_tokenizer_has_not_are_refused(
    tiny_model: Path, tmp_path: Path, scales: int
) -> None:
    Model.from_pretrained(tiny_model).save_pretrained(tmp_path / "m")
    told = read_json(tmp_path / "m" / "config.json")
    write_json(tmp_path / "m" / "config.json", {**told, "private_scales": scales})
    with pytest.raises(ModelError, match=f"says {scales} private scales of 3"):
        Model.from_pretrained(tmp_path / "m")


def test_a_private_model_is_no_public_one_to_what_is_trained_from_it(tiny_model: Path) -> None:
    public = Model.from_pretrained(tiny_model)
    one, two = (create("tiny", public.vocabulary, seed).transformer for seed in (1, 2))
    told = {"started_from": dict(public.card)}
    silent = replace(public.with_transformer(one, told), reference=None)  # as models were once saved
    assert silent.with_transformer(two, {"started_from": told}).reference is None


def test_weights_that_fit_into_half_the_bytes_are_stored_so(tiny_model: Path, tmp_path: Path) -> None:
    Model.from_pretrained(tiny_model).save_pretrained(tmp_path / "half", half=True)
    rounded = Model.from_pretrained(tmp_path / "half")
    with torch.no_grad():
        rounded.detail.state_dict()["spread"].add_(1e-4)  # one network that does not fit any more
    rounded.save_pretrained(tmp_path / "again")
    assert same(rounded, Model.from_pretrained(tmp_path / "again"))
    kinds = {
        part: {tensor.dtype for tensor in read_tensors(tmp_path / "again" / f"{part}.safetensors").values()}
        for part in PARTS
    }
    half, whole = {torch.bfloat16}, {torch.float32}
    assert kinds == {"tokenizer": half, "transformer": half, "detail": whole}


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
    assert digests(tiny_model) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tiny_model.iterdir()
    }


def test_what_is_loaded_is_frozen(tiny_model: Path) -> None:
    model = Model.from_pretrained(tiny_model)
    for part in PARTS:
        assert not getattr(model, part).training
        assert not any(weight.requires_grad for weight in getattr(model, part).parameters())


def test_a_seed_fixes_a_new_model_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    one, again, other = (create("tiny", Vocabulary.of(), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(one, again)
    assert not same(one, other)


def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before, model = digests(copy), Model.from_pretrained(copy)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        model.save_pretrained(copy, half=True)
    assert digests(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize(
    "name",
    ["config.json", "vocabulary.json", "card.json", *(f"{part}.safetensors" for part in PARTS)],
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
    ("part", "field", "value"), [("transformer", "width", 32), ("tokenizer", "code_width", 4)]
)
def test_weights_of_another_shape_are_refused(copy: Path, part: str, field: str, value: int) -> None:
    config = json.loads((copy / "config.json").read_text())
    config[part][field] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not fit"):
        Model.from_pretrained(copy)


@pytest.mark.parametrize(
    ("part", "field", "value", "named"),
    [
        ("transformer", "codes", 128, "tokenizer makes .* of 256 codes"),
        ("transformer", "tokens", [16, 16, 4], "parts are mixed up"),
        ("transformer", "words", 99, r"vocabulary\.json holds .* the transformer knows 99"),
        ("transformer", "heads", 0, r"config\.json"),
        ("transformer", "heads", 3, r"config\.json .*must divide by heads"),
        ("tokenizer", "patches", [2, 2, 5], r"config\.json .*can't be cut"),
        ("detail", "features", "many", r"config\.json"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(
    copy: Path, part: str, field: str, value: object, named: str
) -> None:
    config = json.loads((copy / "config.json").read_text())
    config[part][field] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=named):
        Model.from_pretrained(copy)


@pytest.mark.parametrize(
    ("part", "field", "value", "named"),
    [
        ("transformer", "width", 2**22, r"transformer\.safetensors does not fit"),  # hundreds of terabytes
        ("detail", "features", 2**20, r"detail\.safetensors does not fit"),
        ("tokenizer", "decoder_depth", 10**9, "decoder_depth must be from 0 to 1024"),
        ("transformer", "depth", 10**9, "depth must be from 0 to 1024"),
        ("detail", "levels", 10**9, "levels must be from 0 to 1024"),
    ],
)
def test_no_config_takes_memory_or_time_that_its_files_do_not_fill(
    copy: Path, part: str, field: str, value: int, named: str
) -> None:
    config = json.loads((copy / "config.json").read_text())
    config[part][field] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=named):
        Model.from_pretrained(copy)


@pytest.mark.parametrize("content", ["[]", "{}", "7", '{"preset": "tiny", "private_scales": "one"}'])
def test_a_config_of_something_else_is_refused(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json does not describe a model of ours"):
        Model.from_pretrained(copy)


def test_the_folder_of_a_run_is_told_from_its_release(tmp_path: Path) -> None:
    (tmp_path / "run" / "release").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"name its release, .*run/release"):
        Model.from_pretrained(tmp_path / "run")


def test_a_model_of_an_older_format_is_named_as_such(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"format": 1}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"has format 1, and format 2 is wanted"):
        Model.from_pretrained(copy)


def test_the_vocabulary_of_another_model_is_refused(copy: Path) -> None:
    Vocabulary.of(["zyxgrl"]).save(copy / "vocabulary.json")
    with pytest.raises(ModelError, match=r"vocabulary\.json"):
        Model.from_pretrained(copy)


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    tensors["other"] = tensors.pop(sorted(tensors)[0])


def lost(tensors: dict[str, torch.Tensor]) -> None:
    tensors.popitem()


def added(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.zeros(1)


def turned(tensors: dict[str, torch.Tensor]) -> None:
    name = max(tensors, key=lambda name: tensors[name].shape)
    tensors[name] = tensors[name].transpose(0, -1)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", [renamed, lost, added, turned])
def test_weights_of_other_names_or_shapes_are_refused_by_the_name_of_their_file(
    copy: Path, part: str, damage: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    path = copy / f"{part}.safetensors"
    tensors = read_tensors(path)
    damage(tensors)
    write_tensors(path, tensors)
    with pytest.raises(ModelError, match=rf"{part}\.safetensors does not fit config\.json"):
        Model.from_pretrained(copy)


def test_an_unknown_field_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["tokenizer"]["surprise"] = 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="surprise"):
        Model.from_pretrained(copy)


def test_a_name_that_is_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # what lies beside the checkout is not asked
    for name in ("nowhere", "thum", "../thumb"):
        with pytest.raises(ModelError, match=f"no model at {name}: it is neither a folder"):
            find(name)


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


@pytest.mark.data
def test_bundled_weights_reconstruct_public_images_that_they_have_not_seen(staged_data: Path) -> None:
    model = Model.from_pretrained("thumb")
    images = PublicImages.open(staged_data / "public" / "tinyimagenet64.tar.xz", 64, "val")
    truth = from_bytes(images.pixels(range(0, 3000, 15)))
    tokens = model.tokenizer.encode(truth)
    for scales, least in ((1, 25.5), (3, 19.0)):  # decibels; k-means codes of 2 x 2 patches alone reach 25.6
        bands = analyze(truth, 2)[:scales]
        error = (model.tokenizer.decode(tokens[:scales]) - synthesize(bands)).square().mean()
        assert 10 * torch.log10(4 / error) > least
    coarse = analyze(truth, 2)[0]
    plain = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic")
    drawn = model.detail.enlarge(coarse, model.detail.draw_noise(len(coarse), 16, seed=0))
    network = FeatureNetwork.from_pretrained()
    far, near = (perceptual_distance(network, images, truth).mean() for images in (plain, drawn))
    assert near < 0.8 * far
