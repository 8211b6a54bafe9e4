"""Borrowed networks, with stand-ins for the packages that define them: what is asked of them, and the names.

The stand-ins have the interface of torch-fidelity 0.4, transformers 5 and open_clip 3. `test_published` has
what needs the packages and the published weights.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation import borrowed
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.spaces import Extractor

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def images(side: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def normalised(pixels: Tensor) -> Tensor:
    """By the formula, an image and a channel at a time."""
    found = pixels.double() / 255
    for channel in range(3):
        found[:, channel] = (found[:, channel] - MEAN[channel]) / DEVIATION[channel]
    return found.float()


def package(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    stand_in = ModuleType(name)
    vars(stand_in).update(contents)
    monkeypatch.setitem(sys.modules, name, stand_in)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("inception", "torch_fidelity", "fid"), ("dinov2", "transformers", "transformers")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(name, module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # what makes an import fail
    with pytest.raises(ConfigError, match=rf"{module}: pip install 'dpwavelet\[{extra}\]'"):
        extractor(name, tmp_path)


class Inception:
    """What torch-fidelity's extractor is: features of uint8 images, in a tuple."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
        assert features == ["2048"]
        self.scale = float(torch.load(feature_extractor_weights_path, weights_only=True)["scale"])

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8
        return (self.scale * x.float().mean((1, 2, 3))[:, None].expand(-1, 2048),)


class TestInception:
    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        package(monkeypatch, "torch_fidelity", FeatureExtractorInceptionV3=Inception)
        torch.save({"scale": torch.tensor(2.0)}, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    def test_it_sees_bytes_at_299_pixels(self, file):
        by = extractor("inception", file)
        pixels = images(299)
        assert by.rows(pixels)[:, 7] == pytest.approx(2 * pixels.float().mean((1, 2, 3)).numpy(), rel=1e-5)

    def test_only_the_published_file_makes_a_fid(self, file, monkeypatch):
        other = extractor("inception", file)
        assert (other.label, other.kernel_label) == (f"FD-{other.name}", f"KD-{other.name}")
        assert other.name == f"inception-{other.digest[:8]}"
        monkeypatch.setattr(borrowed, "PUBLISHED_INCEPTION", other.digest)
        real = extractor("inception", file)
        assert (real.name, real.label, real.kernel_label) == ("inception", "FID", "KID")

    def test_a_file_that_would_run_code_is_refused_before_the_package_opens_it(self, file, tmp_path):
        class Command:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
                return (Path.touch, (tmp_path / "ran",))

        torch.save({"scale": Command()}, file)
        with pytest.raises(ModelError, match="as plain tensors"):
            extractor("inception", file)
        assert not (tmp_path / "ran").exists()

    def test_a_folder_is_no_file(self, file):
        with pytest.raises(ModelError, match="is no file"):
            extractor("inception", file.parent)


class Loader:
    """`from_pretrained` of a model that is made already; it insists on safetensors on disk."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def from_pretrained(self, place: str, local_files_only: bool, use_safetensors: bool) -> nn.Module:
        assert local_files_only
        assert use_safetensors
        if (Path(place) / "model.safetensors").stat().st_size == 0:
            raise OSError("header too small")
        return self.model


class Dino(nn.Module):
    """Tokens of a picture: its mean by channel, then something else."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.config = SimpleNamespace(layerscale_value=1.0, hidden_size=3)
        parameter = nn.Parameter(torch.tensor([1.0, scale]))
        layer = SimpleNamespace(layer_scale1=SimpleNamespace(lambda1=parameter))
        self.encoder = SimpleNamespace(layer=[layer])

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        first = pixel_values.mean((2, 3))
        return SimpleNamespace(last_hidden_state=torch.stack([first, 0 * first], 1))


class Clip(nn.Module):
    """A picture half whose projection doubles."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        vision = SimpleNamespace(image_size=20)
        self.config = SimpleNamespace(logit_scale_init_value=2.6592, projection_dim=3, vision_config=vision)
        self.logit_scale = nn.Parameter(torch.tensor(temperature))
        self.visual_projection = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.visual_projection.weight.copy_(2 * torch.eye(3))

    def vision_model(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=pixel_values.mean((2, 3)))

    def encode_image(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def write(folder: Path, model_type: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    told = {"image_mean": MEAN, "image_std": DEVIATION, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    save_file({"x": torch.ones(2)}, folder / "model.safetensors")
    return folder


class TestTransformers:
    def dino(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, scale: float = 0.3, **more: Any
    ) -> Extractor:
        package(monkeypatch, "transformers", AutoModel=Loader(Dino(scale)))
        return extractor("dinov2", write(folder, "dinov2", **more))

    def clip(self, monkeypatch: pytest.MonkeyPatch, folder: Path, temperature: float = 4.6) -> Extractor:
        package(monkeypatch, "transformers", CLIPModel=Loader(Clip(temperature)))
        return extractor("clip", write(folder, "clip"))

    @pytest.mark.parametrize("crop", [28, {"height": 28, "width": 28}])
    def test_dinov2_gives_the_first_token_of_images_normalised_as_its_folder_says(
        self, tmp_path, monkeypatch, crop
    ):
        by = self.dino(monkeypatch, tmp_path, crop_size=crop)
        assert (by.label, by.kernel_label, by.side, by.columns) == ("FD-dinov2", "KD-dinov2", 28, 3)
        expected = normalised(images(28)).mean((2, 3)).numpy()
        assert by.rows(images(28)) == pytest.approx(expected, abs=1e-6)

    def test_dinov2_looks_at_224_pixels_unless_its_folder_says_otherwise(self, tmp_path, monkeypatch):
        assert self.dino(monkeypatch, tmp_path).side == 224

    def test_clip_gives_the_projected_picture(self, tmp_path, monkeypatch):
        by = self.clip(monkeypatch, tmp_path)
        assert (by.label, by.side, by.columns) == ("FD-clip", 20, 3)
        expected = 2 * normalised(images(20)).mean((2, 3)).numpy()
        assert by.rows(images(20)) == pytest.approx(expected, abs=1e-6)

    def test_untrained_networks_do_not_take_the_name_of_trained_ones(self, tmp_path, monkeypatch):
        assert self.dino(monkeypatch, tmp_path / "d", scale=1.0).label == "FD-untrained-dinov2"
        assert self.clip(monkeypatch, tmp_path / "c", temperature=2.6592).label == "FD-untrained-clip"

    def test_other_weights_or_another_normalisation_have_another_digest(self, tmp_path, monkeypatch):
        first = self.dino(monkeypatch, tmp_path).digest
        assert self.dino(monkeypatch, tmp_path).digest == first
        assert self.dino(monkeypatch, tmp_path, image_std=[0.1, 0.1, 0.1]).digest != first
        save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
        assert extractor("dinov2", tmp_path).digest != first

    def test_a_model_of_another_kind_is_refused(self, tmp_path, monkeypatch):
        package(monkeypatch, "transformers")
        with pytest.raises(ModelError, match="holds a vit, not a dinov2"):
            extractor("dinov2", write(tmp_path, "vit"))

    def test_a_folder_without_safetensors_is_refused(self, tmp_path, monkeypatch):
        package(monkeypatch, "transformers")
        (write(tmp_path, "clip") / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
        with pytest.raises(ModelError, match=r"lacks config\.json or safetensors"):
            extractor("clip", tmp_path)

    def test_a_damaged_folder_is_named(self, tmp_path, monkeypatch):
        package(monkeypatch, "transformers", AutoModel=Loader(Dino(0.3)))
        (write(tmp_path, "dinov2") / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelError, match="whole dinov2: header too small"):
            extractor("dinov2", tmp_path)

    @pytest.mark.parametrize("more", [{"image_mean": [0.5]}, {"image_std": [0.5, 0.0, 0.5]}])
    def test_a_normalisation_that_is_none_is_refused(self, tmp_path, monkeypatch, more):
        with pytest.raises(ModelError, match="three means and deviations"):
            self.dino(monkeypatch, tmp_path, **more)

    def test_a_folder_that_says_no_normalisation_is_refused(self, tmp_path, monkeypatch):
        package(monkeypatch, "transformers", AutoModel=Loader(Dino(0.3)))
        (write(tmp_path, "dinov2") / "preprocessor_config.json").write_text("{}")
        with pytest.raises(ModelError, match="no image_mean"):
            extractor("dinov2", tmp_path)


class TestOpenClip:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        shape = {"embed_dim": 3, "vision_cfg": {"image_size": 20}}
        told = {"model_cfg": shape, "preprocess_cfg": {"mean": MEAN, "std": DEVIATION}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(told))
        save_file({"x": torch.ones(2)}, tmp_path / "open_clip_model.safetensors")
        return tmp_path

    @pytest.mark.parametrize(("temperature", "name"), [(4.6, "clip"), (math.log(1 / 0.07), "untrained-clip")])
    def test_it_reads_a_folder_in_the_form_of_open_clip(self, folder, monkeypatch, temperature, name):
        asked = []

        def create_model(place: str) -> nn.Module:
            asked.append(place)
            return Clip(temperature)

        package(monkeypatch, "open_clip", create_model=create_model)
        by = extractor("clip", folder)
        assert asked == [f"local-dir:{folder}"]
        assert (by.name, by.side, by.columns) == (name, 20, 3)
        expected = normalised(images(20)).mean((2, 3)).numpy()
        assert by.rows(images(20)) == pytest.approx(expected, abs=1e-6)

    def test_a_package_that_is_missing_is_named(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "open_clip", None)
        with pytest.raises(ConfigError, match=r"open_clip: pip install 'dpwavelet\[clip\]'"):
            extractor("clip", folder)

    def test_pickled_weights_are_refused(self, folder, monkeypatch):
        package(monkeypatch, "open_clip")
        (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
        with pytest.raises(ModelError, match="no safetensors"):
            extractor("clip", folder)

    def test_a_config_that_lacks_a_size_is_refused(self, folder, monkeypatch):
        package(monkeypatch, "open_clip", create_model=lambda place: Clip(4.6))
        (folder / "open_clip_config.json").write_text('{"model_cfg": {}, "preprocess_cfg": {}}')
        with pytest.raises(ModelError, match="does not hold a CLIP of open_clip"):
            extractor("clip", folder)

    def test_a_folder_of_neither_form_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match="is no CLIP"):
            extractor("clip", tmp_path)
