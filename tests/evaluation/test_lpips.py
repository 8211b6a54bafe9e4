"""LPIPS is its published formula, takes published names, and carries its name only with published weights."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dpwavelet.evaluation.lpips as module
from dpwavelet.checkpoint import write_tensors
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.lpips import Lpips, lpips_distance

WIDTHS = (4, 6, 5, 3, 3)
CONVOLUTIONS = ((0, 11, 4, 2), (3, 5, 1, 2), (6, 3, 1, 1), (8, 3, 1, 1), (10, 3, 1, 1))


def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Made-up tensors under the published names, far smaller than the published ones."""
    generator = torch.Generator().manual_seed(0)
    trunk = {"classifier.6.bias": torch.zeros(3)}
    for (number, side, _, _), before, after in zip(CONVOLUTIONS, (3, *WIDTHS), WIDTHS, strict=False):
        trunk[f"features.{number}.weight"] = (
            torch.randn(after, before, side, side, generator=generator) / side
        )
        trunk[f"features.{number}.bias"] = torch.randn(after, generator=generator) / 10
    channels = {
        f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for k, width in enumerate(WIDTHS)
    }
    return trunk, channels


def pictures(seed: int, side: int = 40) -> Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]


def halved(x: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4))


def slow_maps(image: np.ndarray, trunk: dict[str, np.ndarray]) -> list[np.ndarray]:
    """features 0 to 11 of torchvision's AlexNet, in double precision, after every rectifier."""
    x = (image - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[
        :, None, None
    ]
    found = []
    for place, (number, _, stride, padding) in enumerate(CONVOLUTIONS):
        x = halved(x) if place in (1, 2) else x
        x = np.maximum(
            convolved(
                x, trunk[f"features.{number}.weight"], trunk[f"features.{number}.bias"], stride, padding
            ),
            0,
        )
        found.append(x)
    return found


def slow_lpips(first: np.ndarray, second: np.ndarray) -> float:
    trunk, channels = ({name: t.double().numpy() for name, t in part.items()} for part in weights())
    total = 0.0
    for k, (a, b) in enumerate(zip(slow_maps(first, trunk), slow_maps(second, trunk), strict=True)):
        a, b = (x / (np.sqrt((x**2).sum(0)) + 1e-10) for x in (a, b))
        total += float((((a - b) ** 2) * channels[f"lin{k}.model.1.weight"][0]).sum(0).mean())
    return total


def test_it_is_the_published_formula_by_a_slow_reference():
    a, b = pictures(1), pictures(2)
    expected = [slow_lpips(x.double().numpy(), y.double().numpy()) for x, y in zip(a, b, strict=True)]
    assert Lpips(*weights())(a, b).tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0.01


def test_equal_pictures_are_no_distance_apart():
    assert Lpips(*weights())(pictures(1), pictures(1)).tolist() == [0.0, 0.0, 0.0]


def saved(folder: Path) -> tuple[Path, Path]:
    paths = folder / "alexnet.safetensors", folder / "alex.safetensors"
    for path, tensors in zip(paths, weights(), strict=True):
        write_tensors(path, tensors)
    return paths


def test_other_weights_come_as_safetensors_and_never_carry_the_name(tmp_path):
    distance = lpips_distance(*saved(tmp_path))
    assert "LPIPS" not in distance.name
    assert torch.equal(
        distance.between(pictures(1), pictures(2)), Lpips(*weights())(pictures(1), pictures(2))
    )


def test_the_published_pickles_carry_the_name(tmp_path, monkeypatch):
    """Made-up files stand for the published ones here: what counts is that both digests are right."""
    paths = tmp_path / "alexnet.pth", tmp_path / "alex.pth"
    for path, tensors, name in zip(paths, weights(), ("TRUNK", "CHANNELS"), strict=True):
        torch.save(tensors, path)
        monkeypatch.setattr(module, name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert lpips_distance(*paths).name == "LPIPS"
    assert "LPIPS" not in lpips_distance(paths[0], saved(tmp_path)[1]).name


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a foreign pickle was opened",))


def test_a_foreign_pickle_stays_closed(tmp_path):
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelError, match="stays closed"):
        lpips_distance(path, saved(tmp_path)[1])


def test_a_missing_file_says_where_to_find_it(tmp_path):
    with pytest.raises(ModelError, match=r"alexnet-owt-7be5be79.pth.*alex\.pth"):
        lpips_distance(tmp_path / "no.pth", tmp_path / "no.pth")


def test_weights_of_another_shape_or_without_a_name_are_refused():
    trunk, channels = weights()
    with pytest.raises(ModelError, match=r"lack features\.3\.bias"):
        Lpips({name: t for name, t in trunk.items() if name != "features.3.bias"}, channels)
    with pytest.raises(ModelError, match=r"features\.6 is not"):
        Lpips(trunk | {"features.6.weight": torch.zeros(5, 6, 5, 5)}, channels)
    with pytest.raises(ModelError, match="lin2 does not weigh 5"):
        Lpips(trunk, channels | {"lin2.model.1.weight": torch.zeros(1, 6, 1, 1)})


def test_the_smallest_picture_is_taken_and_a_smaller_one_refused():
    network = Lpips(*weights())
    assert network(pictures(1, 31), pictures(2, 31)).isfinite().all()
    with pytest.raises(ConfigError, match="31 pixels"):
        network(pictures(1, 30), pictures(2, 30))
