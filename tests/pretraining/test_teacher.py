from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dpwavelet.errors import ModelError
from dpwavelet.pretraining.teacher import GROUPS, Convolution, Teacher


def shapes() -> list[tuple[int, int, int, int]]:
    """Of all 53 convolutions, from the table of the paper."""
    found, before = [(32, 3, 3, 3)], 32
    for channels, repeats, _, expansion in GROUPS:
        for _ in range(repeats):
            wide = before * expansion
            found += [(wide, before, 1, 1)] if expansion > 1 else []
            found += [(wide, 1, 3, 3), (channels, wide, 1, 1)]
            before = channels
    return [*found, (1280, before, 1, 1), (1001, 1280, 1, 1)]


def write_teacher(path: Path, leave_out: str = "") -> Path:
    """A file of the published form with weights drawn by chance, which keep activations near one."""
    generator, arrays = np.random.default_rng(0), {}
    for k, shape in enumerate(shapes()):
        arrays[f"conv{k}.q"] = generator.integers(-127, 128, shape, np.int8)
        size = 1 / (73 * np.sqrt(np.prod(shape[1:])))
        arrays[f"conv{k}.scale"] = np.full(shape[0], 1.4 * size, np.float32)
        arrays[f"conv{k}.bias"] = generator.normal(0, 0.1, shape[0]).astype(np.float32)
    arrays.pop(leave_out, None)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return Teacher(write_teacher(tmp_path_factory.mktemp("teacher") / "net.npz"))


def test_there_are_fifty_three_convolutions():
    assert len(shapes()) == 53


def test_an_image_gives_its_features_and_scores_whatever_its_neighbours(teacher):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows, scores = teacher(images)
    assert rows.shape == (3, 1280) and scores.shape == (3, 1001)
    assert torch.allclose(teacher(images[1:2])[0], rows[1:2], atol=1e-4)
    assert float(rows.std(0).mean()) > 1e-3  # different images, different rows


def test_padding_at_stride_two_goes_after_the_last_pixel():
    """TensorFlow's "same" on an even side: out[i] sees the pixels 2i, 2i + 1, 2i + 2."""
    layer = Convolution(torch.ones(1, 1, 3, 3), torch.zeros(1), 2, False)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    padded = F.pad(x, (0, 1, 0, 1))
    wanted = torch.tensor([[float(padded[0, 0, i : i + 3, j : j + 3].sum()) for j in (0, 2)] for i in (0, 2)])
    assert torch.equal(layer(x)[0, 0], wanted)


def test_activations_are_cut_at_six():
    layer = Convolution(torch.full((1, 1, 1, 1), 10.0), torch.zeros(1), 1, True)
    assert torch.equal(
        layer(torch.tensor([-1.0, 0.3, 2.0]).reshape(1, 1, 1, 3)).flatten(), torch.tensor([0, 3, 6.0])
    )


def test_a_file_without_one_of_them_is_refused(tmp_path):
    with pytest.raises(ModelError, match="53 convolutions"):
        Teacher(write_teacher(tmp_path / "net.npz", leave_out="conv17.scale"))
