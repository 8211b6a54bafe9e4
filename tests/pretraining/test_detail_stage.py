"""How the detail model learns: scores of drawings, the judge, and coarse images that hold mistakes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.public import PublicImages
from dpwavelet.model import Model, create
from dpwavelet.pretraining import detail_stage
from dpwavelet.pretraining.detail_stage import (
    Judge,
    energy,
    free_drawings,
    looks,
    pieces,
    polish_detail,
    redraw,
    toned,
    with_mistakes,
)
from dpwavelet.pretraining.loop import Schedule
from dpwavelet.pretraining.stages import PublicPixels
from dpwavelet.text import Vocabulary
from dpwavelet.wavelet import analyze


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images(portraits: Path) -> PublicPixels:
    return PublicPixels.read(PublicImages.open(portraits, 32)).first(24)


@pytest.fixture(scope="module")
def model(images: PublicPixels) -> Model:
    model = create("tiny", Vocabulary.of(images.captions), 0)
    _, sample = images.draw(64, np.random.default_rng(0))
    model.tokenizer.start(analyze(sample, 2), torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture(scope="module")
def coarse(images: PublicPixels) -> Tensor:
    return analyze(images.draw(24, np.random.default_rng(1))[1], 2)[0]


class TestEnergy:
    """Distance to the truth, less a part of that between drawings."""

    def test_it_is_the_formula(self) -> None:
        truth, one, other = (normals(2, 3, 1, 1, seed=seed) for seed in range(3))

        def apart(a: Tensor, b: Tensor) -> float:
            return float((a - b).flatten(1).norm(dim=1).mean())

        wanted = (apart(one, truth) + apart(other, truth)) / 2 - 0.2 * apart(one, other)
        assert float(energy([truth], [one], [other])) == pytest.approx(wanted, rel=1e-4)

    def test_maps_count_the_same_whatever_their_size(self) -> None:
        small, large = normals(2, 3, 1, 1), normals(2, 3, 8, 8)
        both = energy([small, large], [2 * small, 3 * large], [0 * small, 0 * large])
        each = [energy([m], [k * m], [0 * m]) for m, k in ((small, 2), (large, 3))]
        assert float(both) == pytest.approx(float(sum(each)) / 2, rel=1e-5)

    def test_half_of_it_is_least_for_drawings_that_vary_as_pictures_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(detail_stage, "VARIETY", 0.5)
        truth, one, other = (normals(20000, 4, 1, 1, seed=seed) for seed in range(3))
        scores = [float(energy([truth], [k * one], [k * other])) for k in (0.0, 0.5, 1.0, 1.5)]
        assert min(scores) == scores[2]

    def test_the_part_that_is_taken_draws_nearer_to_the_truth_than_that_and_still_varies(self) -> None:
        truth, one, other = (normals(20000, 4, 1, 1, seed=seed) for seed in range(3))
        scores = [float(energy([truth], [k * one], [k * other])) for k in (0.0, 0.25, 1.0)]
        assert min(scores) == scores[1]

    def test_equal_pictures_have_a_finite_slope(self) -> None:
        picture = normals(1, 3, 2, 2).requires_grad_()
        energy([picture.detach()], [picture], [picture]).backward()
        assert picture.grad is not None
        assert torch.isfinite(picture.grad).all()


def test_pieces_are_single_places_and_windows_in_units_of_the_spread() -> None:
    band = normals(2, 9, 8, 8)
    single, window = pieces([band], torch.tensor([2.0]))
    torch.testing.assert_close(single, band / 2 / 3)
    assert window.shape == (2, 9 * 16, 2, 2)
    torch.testing.assert_close(single.square().sum(1).mean(), window.square().sum(1).mean())


def test_looks_have_length_one_at_every_place() -> None:
    network = FeatureNetwork(FeatureConfig(widths=(8, 16), depth=1, classes=3)).eval()
    for seen in looks(network, normals(2, 3, 32, 32)):
        lengths = seen.norm(dim=1)
        assert ((lengths - 1).abs() < 1e-4).float().mean() > 0.9  # a column of zeros stays one


class TestContest:
    """The judge and the drawings, each learning from its own loss only."""

    def test_what_the_drawings_lose_changes_no_judge_and_what_the_judge_loses_no_drawing(self) -> None:
        judge, real = Judge((8,), features=8), normals(2, 3, 32, 32)
        drawn, maps = normals(2, 3, 32, 32, seed=1).requires_grad_(), normals(2, 8, 16, 16).requires_grad_()
        fooled, caught = detail_stage._contest(judge, real, [normals(2, 8, 16, 16)], drawn, [maps])
        caught.backward(retain_graph=True)
        assert drawn.grad is None
        assert maps.grad is None
        moved = [p.grad.clone() for p in judge.parameters() if p.grad is not None]
        assert any(grad.abs().sum() > 0 for grad in moved)
        fooled.backward()
        assert drawn.grad is not None
        assert maps.grad is not None
        again = [p.grad for p in judge.parameters() if p.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(moved, again, strict=True))
        assert all(p.requires_grad for p in judge.parameters())

    def test_a_judge_that_learns_tells_two_kinds_of_pictures_apart(self) -> None:
        torch.manual_seed(0)
        judge = Judge((), features=8)
        flat, rough = torch.zeros(8, 3, 16, 16), normals(8, 3, 16, 16)
        optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
        losses = []
        for _ in range(40):
            _, caught = detail_stage._contest(judge, rough, [], flat, [])
            optimizer.zero_grad()
            caught.backward()
            optimizer.step()
            losses.append(float(caught.detach()))
        assert losses[-1] < 0.7 * losses[0]


class TestMistakes:
    """Tokens that the transformer chose itself."""

    def test_a_token_is_drawn_after_the_true_ones_before_it_and_after_no_later_one(
        self, model: Model, coarse: Tensor
    ) -> None:
        (true,) = model.tokenizer.encode_bands([coarse])
        first = redraw(model, true, np.random.default_rng(0))
        changed = true.clone()
        changed[:, 8:] = (changed[:, 8:] + 7) % model.tokenizer.config.codes
        again = redraw(model, changed, np.random.default_rng(0))
        assert torch.equal(first[:, :9], again[:, :9])
        assert first.shape == true.shape
        assert (first != true).float().mean() > 0.5  # an untrained transformer hardly ever picks the true one

    def test_drawing_repeats_and_another_seed_draws_otherwise(self, model: Model, coarse: Tensor) -> None:
        (true,) = model.tokenizer.encode_bands([coarse])
        one, again, other = (redraw(model, true, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_without_any_redrawn_token_the_coarse_images_are_the_tokenizers_or_true(
        self, model: Model, coarse: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(detail_stage, "REDRAWN", 0.0)
        found = with_mistakes(model, coarse, np.random.default_rng(2))
        coded = model.tokenizer.decode(model.tokenizer.encode_bands([coarse]))
        is_true = (found - coarse).abs().amax((1, 2, 3)) < 1e-6
        is_coded = (found - coded).abs().amax((1, 2, 3)) < 1e-4
        assert (is_true | is_coded).all()
        assert is_true.any()
        assert is_coded.any()

    def test_redrawn_tokens_move_the_coarse_images_further(
        self, model: Model, coarse: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        errors = []
        for share in (0.0, 0.3):
            monkeypatch.setattr(detail_stage, "REDRAWN", share)
            found = with_mistakes(model, coarse, np.random.default_rng(2))
            errors.append(float((found - coarse).square().mean()))
        assert errors[1] > 1.2 * errors[0]


class TestPolishing:
    """Coarse images that no truth belongs to, and pictures of any tone."""

    def test_free_drawings_begin_with_the_transformer_as_it_is_and_end_with_a_shaken_one(
        self, model: Model, images: PublicPixels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = [p.detach().clone() for p in model.transformer.parameters()]
        weights, drawn = [], detail_stage.draw_tokens

        def watched(transformer: torch.nn.Module, *rest: object, **more: object) -> list[Tensor]:
            moved = [(p - b).flatten() for p, b in zip(transformer.parameters(), before, strict=True)]
            weights.append(float(torch.cat(moved).std()))
            return drawn(transformer, *rest, **more)

        monkeypatch.setattr(detail_stage, "draw_tokens", watched)
        free = free_drawings(model, images, 16, 0)
        assert free.shape == (16, 3, 8, 8)
        assert weights[0] == 0
        assert weights[-1] == pytest.approx(detail_stage.SHAKE, rel=0.05)
        assert weights == sorted(weights)
        assert all(torch.equal(p, b) for p, b in zip(model.transformer.parameters(), before, strict=True))
        assert torch.equal(free, free_drawings(model, images, 16, 0))

    def test_some_are_greyed_and_some_toned_and_none_leaves_the_range(self) -> None:
        pictures = normals(400, 3, 4, 4).clamp(-1, 1)
        found = toned(pictures, np.random.default_rng(0))
        grey = (found == found[:, :1]).flatten(1).all(1)
        same = (found == pictures).flatten(1).all(1)
        assert 0.2 < float(grey.float().mean()) < 0.3
        assert 0.3 < float(same.float().mean()) < 0.45  # neither greyed nor toned
        assert found.abs().max() <= 1

    def test_free_drawings_teach_through_the_judge_alone(
        self, model: Model, images: PublicPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told, shapes = [], {}
        contest, distance = detail_stage._contest, detail_stage.energy

        def judged(judge: Judge, real: Tensor, maps: list[Tensor], drawn: Tensor, seen: list[Tensor]):
            shapes["judged"] = (len(real), len(drawn), len(seen[0]))
            return contest(judge, real, maps, drawn, seen)

        def measured(truth: list[Tensor], one: list[Tensor], other: list[Tensor]) -> Tensor:
            shapes["measured"] = (len(truth[0]), len(one[0]), len(other[0]))
            return distance(truth, one, other)

        monkeypatch.setattr(detail_stage, "_contest", judged)
        monkeypatch.setattr(detail_stage, "energy", measured)
        monkeypatch.setattr(detail_stage, "FREE", 16)
        before = [p.detach().clone() for p in model.detail.parameters()]
        schedule = Schedule(steps=2, batch_size=8)
        polish_detail(
            model, images, schedule, 0, tmp_path / "state", lambda *note: told.append(note),
            FeatureNetwork.from_pretrained(),
        )  # fmt: skip
        assert shapes == {"judged": (6, 14, 14), "measured": (6, 6, 6)}
        assert any(not torch.equal(p, b) for p, b in zip(model.detail.parameters(), before, strict=True))
        assert told[-1][:3] == ("polished", 2, 2)


def test_public_pixels_keep_the_first_of_everything(images: PublicPixels) -> None:
    few = images.first(5)
    assert len(few) == len(few.names) == len(few.boxes) == len(few.pixels) == 5
    assert few.captions == images.captions[:5]
