"""Spectral tokenizer: what a token may depend on, and that coding and decoding fit together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.tokenizer import Codebook, SpectralTokenizer, TokenizerConfig
from dpwavelet.wavelet import analyze

SMALL = TokenizerConfig(
    image_size=16, patches=(2, 2, 4), codes=32, code_width=4, heads=2,
    encoder_width=16, encoder_depth=2, decoder_width=16, decoder_depth=2,
)  # fmt: skip
WORST = st.sampled_from([math.inf, -math.inf, math.nan, 1e30, -1e30, 0.0, 1e-30])


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def tokenizer() -> SpectralTokenizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SpectralTokenizer(SMALL)
    made.measure_spread(pictures(64))
    made.start_codebooks(pictures(64), torch.Generator().manual_seed(0))
    return made.eval().requires_grad_(False)


class TestCausality:
    """No fine coefficient can reach a coarse token, not by a bit."""

    @given(value=WORST, band=st.sampled_from([1, 2]), place=st.integers(0, 10**6), seed=st.integers(0, 20))
    def test_changing_a_detail_coefficient_changes_no_coarser_token(
        self, tokenizer: SpectralTokenizer, value: float, band: int, place: int, seed: int
    ) -> None:
        bands = analyze(pictures(3, seed), 2)
        before = tokenizer.encode_bands(bands)
        spoilt = [b.clone() for b in bands]
        spoilt[band].view(-1)[place % spoilt[band].numel()] = value
        after = tokenizer.encode_bands(spoilt)
        assert all(torch.equal(before[s], after[s]) for s in range(band))

    def test_the_test_above_would_notice_a_coefficient_of_the_band_itself(
        self, tokenizer: SpectralTokenizer
    ) -> None:
        bands = analyze(pictures(3), 2)
        before = tokenizer.encode_bands(bands)[1]
        bands[1] = bands[1] + 1
        assert not torch.equal(before, tokenizer.encode_bands(bands)[1])

    def test_a_texture_that_averages_out_reaches_a_coarse_token_by_float_rounding_only(
        self, tokenizer: SpectralTokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image, generator = pictures(4) / 2, torch.Generator().manual_seed(1)
        texture = torch.rand(4, 3, 4, 4, 8, generator=generator) / 2
        texture = torch.cat((texture, -texture), -1)  # 16 pixels that add up to 0
        texture = texture[..., torch.randperm(16, generator=generator)]
        pixels = texture.unflatten(-1, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(4, 3, 16, 16)
        before, after = tokenizer.encode(image), tokenizer.encode(image + pixels)
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])
        assert not torch.equal(before[2], after[2])
        seen: list[list[Tensor]] = []
        monkeypatch.setattr(tokenizer, "encode_bands", seen.append)
        tokenizer.encode(image)
        tokenizer.encode(image + pixels)
        torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-7, rtol=0)  # what the sum is rounded by

    def test_replacing_every_detail_changes_no_vector_before_the_codebook_by_a_bit(
        self, tokenizer: SpectralTokenizer
    ) -> None:
        bands, others = analyze(pictures(5, 1), 2), analyze(pictures(5, 2), 2)
        vectors = tokenizer.encoder(tokenizer._patches(bands))
        mixed = tokenizer.encoder(tokenizer._patches([bands[0], 1e20 * others[1], others[2]]))
        assert torch.equal(vectors[0], mixed[0])
        assert not torch.equal(vectors[1], mixed[1])

    def test_encoding_the_first_scales_alone_gives_the_same_tokens(
        self, tokenizer: SpectralTokenizer
    ) -> None:
        whole = tokenizer.encode(pictures(4))
        for scales in (1, 2):
            part = tokenizer.encode(pictures(4), scales)
            assert len(part) == scales
            assert all(torch.equal(a, b) for a, b in zip(part, whole, strict=False))

    @given(seed=st.integers(0, 20), band=st.sampled_from([1, 2]))
    def test_fine_tokens_change_no_coarser_band_when_decoding(
        self, tokenizer: SpectralTokenizer, seed: int, band: int
    ) -> None:
        ids = tokenizer.encode(pictures(2, seed))
        before = tokenizer.decode_bands(ids)
        ids[band] = (ids[band] + 1) % SMALL.codes
        after = tokenizer.decode_bands(ids)
        assert all(torch.equal(before[s], after[s]) for s in range(band))
        assert not torch.equal(before[band], after[band])
        partial = tokenizer.decode_bands(ids[:band])
        assert all(torch.equal(before[s], partial[s]) for s in range(band))


class TestShapes:
    """Bands, patches and partial images fit together."""

    def test_every_scale_has_the_same_number_of_tokens_and_decodes_to_its_size(
        self, tokenizer: SpectralTokenizer
    ) -> None:
        ids = tokenizer.encode(pictures(2))
        assert [tuple(one.shape) for one in ids] == [(2, 4)] * 3
        assert [tokenizer.decode(ids[:s]).shape[-1] for s in (1, 2, 3)] == [4, 8, 16]

    def test_cutting_into_patches_can_be_undone(self, tokenizer: SpectralTokenizer) -> None:
        bands = analyze(pictures(2), 2)
        for band, again in zip(bands, tokenizer._bands(tokenizer._patches(bands)), strict=True):
            torch.testing.assert_close(again, band)

    def test_a_patch_holds_neighbouring_coefficients(self, tokenizer: SpectralTokenizer) -> None:
        bands = analyze(pictures(1), 2)
        first = tokenizer._patches(bands)[0][0, 0].reshape(3, 2, 2) * tokenizer.spread[0]
        torch.testing.assert_close(first, bands[0][0, :, :2, :2])

    @pytest.mark.parametrize(
        "wrong",
        [{"image_size": 18}, {"patches": (2,)}, {"patches": (3, 2, 4)}, {"wavelet": "x"}, {"heads": 3}],
    )
    def test_a_shape_that_does_not_fit_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            TokenizerConfig(**wrong)  # type: ignore[arg-type]  # that is what is tested


class TestCodebook:
    """Nearest codes, running means and revival."""

    def test_the_nearest_code_is_that_of_a_brute_force_search(self) -> None:
        book, vectors = Codebook(SMALL), torch.randn(50, 4)
        book.codes.normal_()
        assert torch.equal(book.nearest(vectors), torch.cdist(vectors, book.codes).argmin(1))

    def test_without_memory_a_code_moves_to_the_mean_of_what_chose_it(self) -> None:
        book, vectors = Codebook(SMALL), torch.randn(640, 4)
        book.place(torch.arange(32), torch.randn(32, 4), 1.0)
        ids = torch.arange(640) % 32
        book.adapt(vectors, ids, torch.Generator(), decay=0.0)
        torch.testing.assert_close(book.codes[5], vectors[ids == 5].mean(0))

    def test_a_code_that_nobody_chooses_comes_back_to_life_where_vectors_are(self) -> None:
        book, vectors = Codebook(SMALL), torch.randn(640, 4)
        book.place(torch.arange(32), torch.full((32, 4), 100.0), 20.0)
        book.place(torch.arange(1), torch.zeros(1, 4), 20.0)
        for _ in range(200):
            book.adapt(vectors, book.nearest(vectors), torch.Generator().manual_seed(0))
        assert len(book.nearest(vectors).unique()) > 28
        assert book.codes.abs().max() < 10

    @given(
        ids=st.lists(st.integers(0, 31), min_size=1, max_size=200),
        decay=st.sampled_from([0.0, 0.5, 0.98]),
        seed=st.integers(0, 99),
    )
    def test_no_code_stays_dead_after_a_step_whatever_was_chosen(
        self, ids: list[int], decay: float, seed: int
    ) -> None:
        book, generator = Codebook(SMALL), torch.Generator().manual_seed(seed)
        book.place(torch.arange(32), torch.randn(32, 4, generator=generator), 0.0)
        vectors = torch.randn(len(ids), 4, generator=generator) + 10
        book.adapt(vectors, torch.tensor(ids), generator, decay)
        fair = len(ids) / 32
        assert book.counts.min() >= 0.05 * fair
        assert torch.isfinite(book.codes).all()
        assert book.codes.min() > 5  # all of them lie where the vectors are

    def test_the_running_mean_forgets_at_the_rate_of_its_decay(self) -> None:
        book = Codebook(SMALL)
        book.place(torch.arange(32), torch.zeros(32, 4), 10.0)
        vectors = torch.ones(320, 4)
        for step in range(1, 4):
            book.adapt(vectors, torch.arange(320) % 32, torch.Generator(), decay=0.9)
            torch.testing.assert_close(book.codes, torch.full((32, 4), 1 - 0.9**step))

    def test_no_round_of_k_means_raises_the_error_and_some_lower_it_much(self) -> None:
        vectors, errors = torch.randn(640, 2, generator=torch.Generator().manual_seed(0)).repeat(1, 2), []
        for rounds in range(8):
            book = Codebook(SMALL)
            book.start(vectors, torch.Generator().manual_seed(0), rounds)
            errors.append(float((vectors - book.codes[book.nearest(vectors)]).square().sum(1).mean()))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.7 * errors[0]

    def test_fewer_vectors_than_codes_leave_no_code_at_its_zero(self) -> None:
        book, vectors = Codebook(SMALL), torch.full((5, 4), 7.0)
        book.start(vectors, torch.Generator().manual_seed(0))
        assert (book.codes == 7.0).all()

    def test_k_means_uses_nearly_every_code(self, tokenizer: SpectralTokenizer) -> None:
        ids = tokenizer.encode(pictures(200, 5))
        assert len(ids[0].unique()) > 0.8 * SMALL.codes


class TestLearning:
    """The loss reaches the encoder through the codes, and falls."""

    def test_a_few_steps_lower_the_error_at_every_scale(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            tokenizer = SpectralTokenizer(SMALL)
        smooth = torch.nn.functional.interpolate(pictures(32)[:, :, :4, :4], size=16, mode="bilinear")
        tokenizer.measure_spread(smooth)
        generator = torch.Generator().manual_seed(0)
        tokenizer.start_codebooks(smooth, generator)
        optimizer = torch.optim.Adam(tokenizer.parameters(), 3e-3)
        errors = []
        for _ in range(40):
            loss = tokenizer.loss(smooth, generator)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            errors.append([float(error.detach()) for error in loss.pixels])
        assert all(last < 0.5 * first for first, last in zip(errors[0], errors[-1], strict=True))

    def test_gradients_pass_straight_through_the_codes_to_the_encoder(
        self, tokenizer: SpectralTokenizer
    ) -> None:
        trained = SpectralTokenizer(SMALL)
        trained.load_state_dict(tokenizer.state_dict())
        loss = trained.loss(pictures(4))
        sum(loss.pixels).backward()  # the pixel errors alone, without commitment
        assert trained.encoder.enter[0].weight.grad.abs().sum() > 0

    def test_without_a_generator_the_codebooks_stay(self, tokenizer: SpectralTokenizer) -> None:
        before = tokenizer.codebook(0).codes.clone()
        tokenizer.loss(pictures(4))
        assert torch.equal(before, tokenizer.codebook(0).codes)
