"""What the stages learn from: tokens of public images and of their mirror images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.model import Model, create
from dpwavelet.pretraining import stages
from dpwavelet.pretraining.loop import Schedule
from dpwavelet.pretraining.stages import PublicPixels, encode_all, encode_some, start_from_codes
from dpwavelet.text import Vocabulary
from dpwavelet.wavelet import analyze


@pytest.fixture(scope="module")
def images(portraits: Path) -> PublicPixels:
    return PublicPixels.read(PublicImages.open(portraits, 32)).first(12)


def made(images: PublicPixels) -> Model:
    model = create("tiny", Vocabulary.of(images.captions), 0)
    _, sample = images.draw(64, np.random.default_rng(0))
    model.tokenizer.start(analyze(sample, 2), torch.Generator().manual_seed(0))
    return model.eval()


def test_some_images_have_the_tokens_that_they_have_among_all(images: PublicPixels) -> None:
    model = made(images)
    chosen, mirrored = np.array([3, 3, 0, 11]), np.array([0, 1, 1, 0])
    tables = encode_all(model, images, 2, batch_size=5)
    for some, table in zip(encode_some(model, images, chosen, mirrored, 2), tables, strict=True):
        assert np.array_equal(some.numpy(), table[mirrored, chosen])
    flipped = from_bytes(torch.from_numpy(images.pixels)).flip(-1)
    assert np.array_equal(tables[0][1], model.tokenizer.encode(flipped)[0].numpy())


@pytest.mark.parametrize("batch_size", [2, 16])  # of 12 images: few enough to encode some, or all at once
def test_a_stage_sees_true_tokens_and_only_those_of_its_scales(
    images: PublicPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    model, seen = made(images), []
    whole = model.transformer.losses

    def losses(words: torch.Tensor, ids: list[torch.Tensor]) -> object:
        seen.append(ids)
        return whole(words, ids)

    monkeypatch.setattr(model.transformer, "losses", losses)
    schedule = Schedule(steps=3, batch_size=batch_size)
    stages.train_continuation(model, images, schedule, 0, tmp_path / "state", lambda *_: None)
    assert [len(ids) for ids in seen] == [1, 3, 1]
    known = encode_all(model, images, 3)
    for ids in seen:
        for found, table in zip(ids, known, strict=False):
            rows = {tuple(row) for row in table.reshape(-1, table.shape[-1]).tolist()}
            assert {tuple(row) for row in found.tolist()} <= rows


def test_what_is_shaken_is_restored_after_an_error_too() -> None:
    network = torch.nn.Linear(3, 3)
    before = network.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), stages.shaken(network, 1.0, torch.Generator().manual_seed(0)):
        assert not torch.equal(network.weight, before)
        raise KeyboardInterrupt
    assert torch.equal(network.weight, before)


def test_codes_that_look_alike_start_alike(images: PublicPixels) -> None:
    model = made(images)
    before = model.transformer.code_heads[0].weight.clone()
    start_from_codes(model, 0, torch.Generator().manual_seed(0))
    moved = (model.transformer.code_heads[0].weight - before).detach()
    codes = model.tokenizer.codebook(0).codes
    near = torch.cdist(codes, codes).fill_diagonal_(torch.inf).argmin(1)
    apart = (moved - moved[near]).norm(dim=1).mean()
    assert apart < 0.5 * (moved - moved[torch.randperm(len(moved))]).norm(dim=1).mean()
    details = model.transformer.code_embedding.weight[1 + len(codes) :].clone()
    start_from_codes(model, 1, torch.Generator().manual_seed(0))
    assert not torch.equal(details, model.transformer.code_embedding.weight[1 + len(codes) :])
