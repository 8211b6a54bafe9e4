"""Super-resolution networks from files: the compact family here, others through spandrel."""

import importlib
import sys
import types
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dpwavelet.enlargers import NetworkEnlarger, open_enlarger
from dpwavelet.enlargers.network import open_network, weights_of
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.model import Model
from dpwavelet.wavelet import analyze

Tensors = dict[str, Tensor]


class Published(nn.Module):
    """The compact network as it was published: layers in one list under the name `body`."""

    def __init__(self, width: int, convolutions: int, factor: int) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)])
        for _ in range(convolutions):
            self.body += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body.append(nn.Conv2d(width, 3 * factor**2, 3, 1, 1))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        found: Tensor = nn.PixelShuffle(self.factor)(out)
        return found + F.interpolate(x, scale_factor=self.factor, mode="nearest")


def published(factor: int = 4, width: int = 8) -> Published:
    with torch.random.fork_rng():
        torch.manual_seed(factor)
        return Published(width, 2, factor).eval().requires_grad_(False)


def pictures(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(side)) * 2 - 1


def as_torch(tensors: Tensors, path: Path) -> None:
    torch.save(tensors, path)


def as_wrapped(tensors: Tensors, path: Path) -> None:
    torch.save({"params": {"other": torch.ones(1)}, "params_ema": tensors, "epoch": 3}, path)


def as_module(tensors: Tensors, path: Path) -> None:
    torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)


def as_safetensors(tensors: Tensors, path: Path) -> None:
    save_file(tensors, path)


def as_arrays(tensors: Tensors, path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})


class TestFiles:
    """From a file to the tensors of one network."""

    @pytest.mark.parametrize(
        ("write", "suffix"),
        [
            (as_torch, ".pth"), (as_wrapped, ".pt"), (as_module, ".pth"), (as_safetensors, ".safetensors"),
            (as_arrays, ".npz"),
        ],
    )  # fmt: skip
    def test_every_form_of_file_gives_the_same_tensors(
        self, write: Callable[[Tensors, Path], None], suffix: str, tmp_path: Path
    ) -> None:
        tensors = dict(published().state_dict())
        write(tensors, tmp_path / f"x{suffix}")
        found = weights_of(tmp_path / f"x{suffix}")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)

    def test_half_precision_becomes_single(self, tmp_path: Path) -> None:
        save_file({"a": torch.ones(2).half(), "b": torch.ones(2).bfloat16()}, tmp_path / "x.safetensors")
        assert {t.dtype for t in weights_of(tmp_path / "x.safetensors").values()} == {torch.float32}

    def test_files_of_other_kinds_are_refused(self, tmp_path: Path) -> None:
        for name, content, words in (
            ("x.ckpt", b"", "is none of"),
            ("x.npz", b"no zip", "plain arrays"),
            ("x.safetensors", b"no header", "cannot read"),
            ("x.pth", b"no zip", "plain tensors"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ModelError, match=words):
                weights_of(tmp_path / name)
        np.savez(tmp_path / "x.npz", a=np.array([{"a": 1}], dtype=object))
        with pytest.raises(ModelError, match="plain arrays"):
            weights_of(tmp_path / "x.npz")
        np.savez_compressed(tmp_path / "x.npz", a=np.zeros(2**16, np.uint8))
        data = bytearray((tmp_path / "x.npz").read_bytes())
        data[60] ^= 255
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(ModelError, match="plain arrays"):
            weights_of(tmp_path / "x.npz")
        torch.save({"epoch": 3}, tmp_path / "x.pth")
        with pytest.raises(ModelError, match="no tensors"):
            weights_of(tmp_path / "x.pth")

    def test_arrays_that_unpack_without_bound_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dpwavelet.torch_files.LARGEST_ARRAYS", 2**20)
        np.savez_compressed(tmp_path / "x.npz", a=np.zeros(2**22, np.uint8))
        with pytest.raises(ModelError, match=r"unpacks to 4,194,\d+ bytes"):
            weights_of(tmp_path / "x.npz")


class TestCompact:
    """The family that is built here."""

    @pytest.mark.parametrize(("factor", "width"), [(2, 8), (4, 8), (8, 6)])
    def test_it_computes_what_the_published_network_does(
        self, factor: int, width: int, tmp_path: Path
    ) -> None:
        theirs = published(factor, width)
        as_torch(dict(theirs.state_dict()), tmp_path / "x.pth")
        enlarger = open_network(tmp_path / "x.pth", 4 * factor, "haar", consistent=False)
        few = pictures(3, 4)
        found = enlarger(few, captions=[""] * 3, seed=0, first=0)
        wanted = theirs((few + 1) / 2).clamp(0, 1) * 2 - 1
        assert torch.allclose(found, wanted, atol=1e-5)
        assert enlarger.name == f"the network Compact x{factor} in x.pth"
        assert enlarger.files == {"x.pth": sha256((tmp_path / "x.pth").read_bytes()).hexdigest()}

    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_whatever_its_factor_the_picture_has_its_side_and_the_coarse_one_survives(
        self, factor: int, tiny_model: Path, tmp_path: Path
    ) -> None:
        as_torch(dict(published(factor).state_dict()), tmp_path / "x.pth")
        few = pictures(2, 8)
        full = open_enlarger(tmp_path / "x.pth", Model.from_pretrained(tiny_model))(
            few, captions=["", ""], seed=0, first=0
        )
        assert full.shape == (2, 3, 32, 32)
        assert (analyze(full, 2)[0] - few).abs().max() < 1e-5

    def test_neighbours_change_no_bit(self, tmp_path: Path) -> None:
        as_torch(dict(published().state_dict()), tmp_path / "x.pth")
        enlarger, few = open_network(tmp_path / "x.pth", 32, "haar"), pictures(3, 8)
        whole = enlarger(few, captions=[""] * 3, seed=0, first=0)
        assert torch.equal(enlarger(few[2:], captions=[""], seed=1, first=7)[0], whole[2])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda t: t.pop("body.3.weight"), "odd"),
            (lambda t: t.pop("body.4.bias"), "odd"),
            (lambda t: t.update({"body.0.weight": torch.zeros(8, 1, 3, 3)}), "widths"),
            (lambda t: t.update({"body.1.weight": torch.zeros(7)}), "widths"),
            (lambda t: t.update({"body.6.weight": torch.zeros(20, 8, 3, 3), "body.6.bias": torch.zeros(20)}),
             "widths"),
            (lambda t: t.update({"body.6.weight": torch.zeros(27, 8, 3, 3), "body.6.bias": torch.zeros(27)}),
             "enlarges 3 times"),
            (lambda t: t.update({"body.6.weight": torch.zeros(3, 8, 3, 3), "body.6.bias": torch.zeros(3)}),
             "enlarges 1 times"),
        ],
    )  # fmt: skip
    def test_tensors_that_do_not_fit_are_refused(
        self, change: Callable[[Tensors], None], words: str, tmp_path: Path
    ) -> None:
        tensors = dict(published().state_dict())
        change(tensors)
        as_torch(tensors, tmp_path / "x.pth")
        with pytest.raises(ModelError, match=words):
            open_network(tmp_path / "x.pth", 32, "haar")


class UnsupportedModelError(Exception):
    """What spandrel raises on tensors that it doesn't know."""


class ImageModelDescriptor:
    """Called with one picture in [0, 1]; gives one in [0, 1]."""

    def __init__(self, model: nn.Module, scale: int, channels: int = 3) -> None:
        self.model, self.scale = model, scale
        self.architecture = types.SimpleNamespace(id="Toy", name="Toy")
        self.input_channels = self.output_channels = channels

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        assert image.ndim == 4
        found: Tensor = self.model(image)
        return found.clamp_(0, 1)


class MaskedImageModelDescriptor:
    """A network that wants a mask too."""


class Toy(nn.Module):
    """Nearest pixels, of one weight."""

    def __init__(self, weight: Tensor, scale: int) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.interpolate(x, scale_factor=self.scale, mode="nearest")


class ModelLoader:
    """Knows one network, by the name of its weight."""

    def load_from_state_dict(self, state_dict: Tensors) -> Any:
        if "mask" in state_dict:
            return MaskedImageModelDescriptor()
        if "toy.weight" not in state_dict:
            raise UnsupportedModelError
        torch.rand(1)  # networks draw weights before they are filled
        channels = int(state_dict.get("channels", torch.tensor(3)))
        scale = int(state_dict["scale"])
        return ImageModelDescriptor(Toy(state_dict.pop("toy.weight"), scale), scale, channels)


class TestSpandrel:
    """Every other network. The module stands in for spandrel where that cannot be installed."""

    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("spandrel")
        for each in (ModelLoader, ImageModelDescriptor, MaskedImageModelDescriptor, UnsupportedModelError):
            setattr(module, each.__name__, each)
        monkeypatch.setitem(sys.modules, "spandrel", module)

    def opened(self, path: Path, **tensors: Tensor) -> NetworkEnlarger:
        named = {"toy.weight": torch.tensor(0.5), "scale": torch.tensor(2)} | tensors
        save_file(named, path / "x.safetensors")
        return open_network(path / "x.safetensors", 32, "haar", consistent=False)

    def test_a_network_that_spandrel_knows_is_applied_until_it_is_enough(self, tmp_path: Path) -> None:
        state = torch.get_rng_state()
        enlarger = self.opened(tmp_path)
        assert torch.equal(torch.get_rng_state(), state)
        few = pictures(2, 8)
        full = enlarger(few, captions=["", ""], seed=0, first=0)
        wanted = (few + 1).repeat_interleave(4, -1).repeat_interleave(4, -2) / 4 - 1  # halved twice
        assert torch.allclose(full, wanted, atol=1e-6)
        assert enlarger.name == "the network Toy x2 in x.safetensors"
        assert not full.is_inference()
        assert not any(parameter.requires_grad for parameter in enlarger.network.parameters())

    @pytest.mark.parametrize(
        ("tensors", "words"),
        [
            ({"mask": torch.ones(1)}, "pictures of pictures alone"),
            ({"channels": torch.tensor(1)}, "1 to 1 channels"),
            ({"scale": torch.tensor(1)}, "enlarges 1 times"),
            ({"scale": torch.tensor(3)}, "enlarges 3 times"),
        ],
    )
    def test_networks_that_do_something_else_are_refused(
        self, tensors: Tensors, words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match=words):
            self.opened(tmp_path, **tensors)

    def test_tensors_that_nobody_knows_are_refused(self, tmp_path: Path) -> None:
        save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
        with pytest.raises(ModelError, match="no network that spandrel knows: UnsupportedModelError"):
            open_network(tmp_path / "x.safetensors", 32, "haar")

    def test_without_spandrel_the_error_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "spandrel", None)
        with pytest.raises(ConfigError, match=r"pip install 'dpwavelet\[spandrel\]'"):
            self.opened(tmp_path)


def test_the_real_spandrel_opens_an_esrgan_by_its_names(tmp_path: Path) -> None:
    """Without a stand-in: what its own class makes is found again in a file, and drawn with as it is."""
    try:
        architectures = importlib.import_module("spandrel.architectures.ESRGAN")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the second
        pytest.skip(f"spandrel cannot be imported: {error}; pip install 'dpwavelet[spandrel]'")
    network = architectures.ESRGAN(num_filters=8, num_blocks=1, scale=4).eval()
    save_file(network.state_dict(), tmp_path / "esrgan.safetensors")
    enlarger = open_network(tmp_path / "esrgan.safetensors", 32, "haar", consistent=False)
    few = pictures(2, 8)
    with torch.inference_mode():
        wanted = 2 * network((few + 1) / 2).clamp(0, 1) - 1
    assert torch.allclose(enlarger(few, captions=["", ""], seed=0, first=0), wanted, atol=1e-5)
    assert enlarger.name == "the network ESRGAN x4 in esrgan.safetensors"


@pytest.mark.data
@pytest.mark.parametrize("name", ["sr_realesr_general_x4v3", "sr_lsdir_compact_c3_x4"])
def test_real_networks_enlarge_real_pictures_around_the_coarse_ones(
    name: str, staged_data: Path, tmp_path: Path
) -> None:
    arrays = np.load(staged_data / "weights" / f"{name}.npz")
    tensors = {}
    for key in arrays.files:  # conv3.weight is body.6.weight, prelu3.weight is body.7.weight
        kind, what = key.split(".")
        number = 2 * int(kind.removeprefix("conv").removeprefix("prelu")) + kind.startswith("prelu")
        tensors[f"body.{number}.{what}"] = torch.from_numpy(arrays[key])
    torch.save({"params_ema": tensors}, tmp_path / f"{name}.pth")
    photos = PublicImages.open(staged_data / "sr" / "sr_photos.tar.xz", 64, "val")
    truth = from_bytes(photos.pixels(range(6)))
    few = analyze(truth, 2)[0]
    full = open_network(tmp_path / f"{name}.pth", 64, "haar")(few, captions=[""] * 6, seed=0, first=0)
    assert full.shape == (6, 3, 64, 64)
    assert (analyze(full, 2)[0] - few).abs().max() < 1e-5
    free = open_network(tmp_path / f"{name}.pth", 64, "haar", consistent=False)
    loose = free(few, captions=[""] * 6, seed=0, first=0)
    # The true coarse picture can only bring the whole nearer to the truth than the network's own.
    assert (full - truth).square().mean() < 0.97 * (loose - truth).square().mean()
