"""Published values, for whoever has the published weights: these run when the environment names them.

    DPWAVELET_INCEPTION   weights-inception-2015-12-05-6726825d.pth, of torch-fidelity 0.2
    DPWAVELET_CIFAR10     a folder with train/ and test/, the 60,000 images of CIFAR-10 as PNG
    DPWAVELET_DINOV2      facebook/dinov2-base in the form of transformers
    DPWAVELET_CLIP        openai/clip-vit-base-patch32 in the form of transformers, with its tokenizer
    DPWAVELET_COCO_CATS   image 39769 of COCO val2017, two cats, as the PNG that transformers tests with

What is known: the digest of the Inception file (torch-fidelity names its first eight digits, which torch.hub
checks; the rest was compared with records of several projects). That FID of CIFAR-10 train and test is 3.1,
by images of 32 pixels that the network enlarges itself; a reader reported it (NVlabs/stylegan2-ada, issue
53), and no authors did, so the test allows for its rounding and more. What the tests of transformers expect
of DINOv2 and CLIP for the cats. Nobody publishes values by our resize.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpwavelet.checkpoint import digest
from dpwavelet.evaluation.borrowed import PUBLISHED_INCEPTION
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.frechet import frechet_between, frechet_distance
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.statistics import Statistics


def named(variable: str) -> Path:
    """The path that a variable names, or the test is skipped."""
    if not (value := os.environ.get(variable)):
        pytest.skip(f"{variable} names no published file")
    return Path(value)


def cats(shorter: int, side: int) -> torch.Tensor:
    """The picture as the processors of transformers bring it to a network: bicubic, then the centre."""
    with Image.open(named("DPWAVELET_COCO_CATS")) as image:
        scale = shorter / min(image.size)
        small = image.convert("RGB").resize(
            (int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC
        )
    left, top = (small.width - side) // 2, (small.height - side) // 2
    pixels = np.array(small.crop((left, top, left + side, top + side)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


class TestInception:
    @pytest.fixture
    def file(self) -> Path:
        file = named("DPWAVELET_INCEPTION")
        pytest.importorskip("torch_fidelity")
        return file

    def test_the_published_file_makes_a_fid(self, file):
        assert digest(file) == PUBLISHED_INCEPTION
        by = extractor("inception", file)
        assert (by.label, by.kernel_label, by.columns) == ("FID", "KID", 2048)

    @pytest.mark.slow
    def test_a_set_and_itself_are_at_fid_0(self, file, portraits):
        rows = rows_of(Pictures.open(portraits, 299), extractor("inception", file))
        assert frechet_distance(rows, rows, despite_too_few=True).value == 0.0

    @pytest.mark.slow
    def test_cifar10_train_and_test_are_at_the_reported_fid(self, file):
        by, place = extractor("inception", file), named("DPWAVELET_CIFAR10")

        def statistics(part: str) -> Statistics:
            batches = Pictures.open(place / part, 32).batches(64)
            return Statistics.of(by.compute(pixels) for _, pixels in batches)  # enlarged by the network

        assert frechet_between(statistics("train"), statistics("test")) == pytest.approx(3.1, abs=0.15)


def test_dinov2_gives_the_published_features_of_two_cats():
    folder, pixels = named("DPWAVELET_DINOV2"), cats(256, 224)
    pytest.importorskip("transformers")
    by = extractor("dinov2", folder)
    assert by.label == "FD-dinov2"
    assert by.rows(pixels)[0, :3] == pytest.approx([-2.1747, -0.4729, 1.0936], abs=1e-2)


def test_clip_tells_two_cats_from_a_dog_as_published():
    folder, pixels = named("DPWAVELET_CLIP"), cats(224, 224)
    transformers = pytest.importorskip("transformers")
    by = extractor("clip", folder)
    assert by.label == "FD-clip"
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
    tokens = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)(
        ["a photo of a cat", "a photo of a dog"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        said = model.text_projection(model.text_model(**tokens).pooler_output)
        shown = torch.from_numpy(by.rows(pixels))
        found = model.logit_scale.exp() * torch.cosine_similarity(shown, said)
    assert found.numpy() == pytest.approx([24.5701, 19.3049], abs=0.05)
