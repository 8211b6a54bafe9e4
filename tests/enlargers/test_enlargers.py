"""What every enlarger keeps: the coarse picture, and each picture's independence of its neighbours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpwavelet import Pipeline
from dpwavelet.enlargers import DetailEnlarger, Enlarger, consistent, in_batches, open_enlarger, together
from dpwavelet.enlargers.base import grown
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.model import Model
from dpwavelet.upsampling import DetailConfig, DetailModel
from dpwavelet.wavelet import WAVELETS, analyze


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.from_pretrained(tiny_model)


class TestConsistent:
    """The coarse picture put back."""

    @given(
        levels=st.integers(0, 3),
        wavelet=st.sampled_from(WAVELETS),
        side=st.sampled_from([2, 4, 6]),
        seed=st.integers(0, 99),
    )
    def test_analysing_the_result_gives_the_coarse_picture_whatever_was_made_of_it(
        self, levels: int, wavelet: str, side: int, seed: int
    ) -> None:
        few, full = pictures(2, side, seed), 5 * pictures(2, side << levels, seed + 1)
        found = consistent(full, few, wavelet)
        assert found.shape == full.shape
        assert ((analyze(found, levels, wavelet)[0] if levels else found) - few).abs().max() < 1e-5

    def test_the_details_stay_as_they_were(self) -> None:
        full = pictures(2, 16)
        bands = analyze(consistent(full, pictures(2, 4, 1), "db2"), 2, "db2")
        for band, wanted in zip(bands[1:], analyze(full, 2, "db2")[1:], strict=True):
            assert torch.allclose(band, wanted, atol=1e-5)

    @pytest.mark.parametrize(("few", "full"), [(6, 16), (16, 8), (5, 15)])
    def test_sides_that_do_not_double_into_each_other_are_refused(self, few: int, full: int) -> None:
        with pytest.raises(ConfigError, match="can't be doubled"):
            consistent(pictures(1, full), pictures(1, few), "haar")


class TestParts:
    """What adapters are made of."""

    @pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
    def test_a_network_always_sees_as_many_pictures_and_gives_back_those_it_was_asked_for(
        self, count: int
    ) -> None:
        seen = []

        def doubled(x: Tensor, y: Tensor) -> Tensor:
            seen.append(len(x))
            return 2 * x + y

        x = torch.arange(float(count))
        assert torch.equal(in_batches(doubled, x, -x), x)
        assert seen == [16] * -(-count // 16)

    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_a_network_of_pixels_is_applied_until_it_is_enough_and_the_rest_is_averaged(
        self, factor: int
    ) -> None:
        def repeated(x: Tensor) -> Tensor:
            assert 0 <= float(x.min()) <= float(x.max()) <= 1
            return x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

        few = pictures(1, 4)
        wanted = few.repeat_interleave(4, -1).repeat_interleave(4, -2)
        assert torch.allclose(grown(few, 16, repeated), wanted, atol=1e-6)

    @pytest.mark.parametrize(
        ("once", "words"),
        [
            (lambda x: x, "made"),
            (lambda x: x[:, :1].repeat(1, 1, 2, 2), "made"),
            (lambda x: x.repeat(1, 1, 2, 4), "made"),
            (lambda x: x.repeat(1, 1, 4, 4) * torch.nan, "aren't finite"),
            (lambda x: x.repeat(1, 1, 5, 5), "can't be averaged to 16"),
        ],
    )
    def test_a_network_that_makes_something_else_is_refused(
        self, once: Callable[[Tensor], Tensor], words: str
    ) -> None:
        with pytest.raises(ModelError, match=words):
            grown(pictures(1, 4), 16, once)

    def test_one_digest_of_many_files_is_that_of_the_lines_of_sha256sum(self) -> None:
        lines = f"{'b' * 64}  a.json\n{'a' * 64}  b.safetensors\n"
        found = together({"b.safetensors": "a" * 64, "a.json": "b" * 64})
        assert found == sha256(lines.encode()).hexdigest()


class TestDetail:
    """The default."""

    @pytest.mark.parametrize("private_scales", [1, 2])
    @pytest.mark.parametrize("wavelet", ["haar", "bior4.4"])
    def test_every_band_that_is_known_is_kept_and_the_others_are_made(
        self, private_scales: int, wavelet: str
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            detail = DetailModel(DetailConfig(levels=2, wavelet=wavelet, features=8, depth=2)).eval()
        few = pictures(3, 8 * private_scales)
        full = DetailEnlarger(detail, 32)(few, captions=[""] * 3, seed=0, first=0)
        assert full.shape == (3, 3, 32, 32)
        levels = 3 - private_scales
        bands = analyze(full, levels, wavelet)
        assert (bands[0] - few).abs().max() < 1e-5
        assert all(band.abs().max() > 0.01 for band in bands[1:])

    def test_less_noise_makes_drawings_more_alike_and_none_makes_them_the_same(self, model: Model) -> None:
        few = pictures(4, 8)

        def apart(noise: float) -> float:
            enlarger = DetailEnlarger(model.detail, model.image_size, noise)
            one, other = (enlarger(few, captions=[""] * 4, seed=seed, first=0) for seed in (1, 2))
            return float((one - other).square().mean())

        assert apart(0.0) == 0
        assert 0 < apart(0.25) < apart(1.0)
        with pytest.raises(ConfigError, match="from 0 to 1"):
            DetailEnlarger(model.detail, model.image_size, 1.5)

    def test_neighbours_and_their_number_change_no_bit(self, model: Model) -> None:
        enlarger, few = open_enlarger("detail", model), pictures(20, 8)
        whole = enlarger(few, captions=[""] * 20, seed=3, first=0)
        for index in (0, 7, 19):
            alone = enlarger(few[index : index + 1], captions=[""], seed=3, first=index)
            assert torch.equal(alone[0], whole[index])
            other = enlarger(few[index : index + 1], captions=[""], seed=4, first=index)
            assert not torch.equal(other[0], whole[index])  # it draws


class TestOpen:
    """What a name or a path means."""

    def test_a_pipeline_enlarges_by_the_detail_model_unless_told_otherwise(
        self, model: Model, tiny_model: Path
    ) -> None:
        few = pictures(2, 8)
        wanted = open_enlarger("detail", model)(few, captions=["", ""], seed=0, first=0)
        assert torch.equal(Pipeline(model).enlarge(few), wanted)
        assert torch.equal(Pipeline.from_pretrained(tiny_model).enlarge(few), wanted)

    @pytest.mark.parametrize("spec", ["nothing", "Detail", "", ".", "../x.pth"])
    def test_anything_else_is_refused_with_what_there_is(self, model: Model, spec: str) -> None:
        with pytest.raises(ConfigError, match=r"name detail, transformer, .*model_index\.json"):
            open_enlarger(spec, model)

    def test_the_detail_model_cannot_do_without_the_coarse_picture(self, model: Model) -> None:
        with pytest.raises(ConfigError, match="needs another --enlarger"):
            open_enlarger("detail", model, consistent=False)


@dataclass
class Noted:
    """Notes what it was asked."""

    side: int
    name: str = "noted"
    files: Mapping[str, str] = field(default_factory=dict)
    consistent: bool = False
    asked: list[tuple[int, list[str], int, int]] = field(default_factory=list)

    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        self.asked.append((len(few), list(captions), seed, first))
        return few.new_zeros(len(few), 3, self.side, self.side)


def test_a_pipeline_tells_an_enlarger_captions_seed_and_which_pictures_they_are(model: Model) -> None:
    noted = Noted(32)
    enlarger: Enlarger = noted
    captions = [f"a man {index}" for index in range(70)]
    full = Pipeline(model, enlarger).enlarge(pictures(70, 8), captions, seed=5, first=100)
    assert full.shape == (70, 3, 32, 32)
    assert noted.asked == [(64, captions[:64], 5, 100), (6, captions[64:], 5, 164)]


def test_coarse_pictures_are_drawn_without_an_enlarger(model: Model) -> None:
    noted = Noted(32)
    pipeline = Pipeline(model, noted)
    assert pipeline.generate(["a man"], coarse=True)[0].size == (8, 8)
    assert noted.asked == []
    assert pipeline.generate(["a man"])[0].size == (32, 32)
    few, full = pipeline.draw([])
    assert (few.shape, full.shape) == ((0, 3, 8, 8), (0, 3, 32, 32))
    assert len(noted.asked) == 1
