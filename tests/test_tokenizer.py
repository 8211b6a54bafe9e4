"""Spectral tokenizer: what a token may depend on, and that coding and decoding fit together."""

import math
from dataclasses import replace

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
    made.start(analyze(pictures(64), 2), torch.Generator().manual_seed(0))
    for last in (*made.encoder.leave, *made.decoder.leave):  # as training would: the blocks have their say
        last[1].reset_parameters()
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


class TestStart:
    """Training begins where plain vector quantization ends."""

    def test_a_fresh_tokenizer_decodes_the_mean_of_what_each_code_stands_for(self) -> None:
        tokenizer, bands = SpectralTokenizer(SMALL), analyze(pictures(64), 2)
        tokenizer.start(bands, torch.Generator().manual_seed(0))
        vectors = tokenizer.encoder(tokenizer._patches(bands))
        patches = tokenizer._patches(bands)[0].flatten(0, 1)
        mean = patches.mean(0)
        kept = torch.linalg.svd(patches - mean, full_matrices=False)[2][: SMALL.code_width]
        by_hand = (patches - mean) @ kept.T
        torch.testing.assert_close(vectors[0].detach().flatten(0, 1), by_hand, atol=1e-4, rtol=1e-4)
        again = tokenizer.decoder(vectors[:1])[0].detach().flatten(0, 1)
        torch.testing.assert_close(again, by_hand @ kept + mean, atol=1e-4, rtol=1e-4)

    def test_more_code_width_than_values_leaves_the_rest_at_zero(self) -> None:
        wide = replace(SMALL, code_width=14, heads=2)
        tokenizer, bands = SpectralTokenizer(wide), analyze(pictures(64), 2)
        tokenizer.start(bands, torch.Generator().manual_seed(0))
        vectors = tokenizer.encoder(tokenizer._patches(bands[:1]))[0]
        assert (vectors[..., 12:] == 0).all()
        restored = tokenizer._bands(tokenizer.decoder([vectors]))[0]
        torch.testing.assert_close(restored, bands[0], atol=1e-4, rtol=1e-4)

    def test_each_band_is_measured_in_its_own_unit(self) -> None:
        tokenizer, bands = SpectralTokenizer(SMALL), analyze(pictures(64), 2)
        tokenizer.start(bands, torch.Generator().manual_seed(0))
        for band, unit in zip(bands, tokenizer.spread, strict=True):
            assert float(unit) == pytest.approx(float(band.square().mean().sqrt()))


class TestLearning:
    """The loss reaches the encoder through the codes, and falls."""

    @pytest.mark.parametrize("kind", ["approximation", "details"])
    def test_a_few_steps_lower_the_error_at_every_scale(self, kind: str) -> None:
        smooth = torch.nn.functional.interpolate(pictures(32)[:, :, :4, :4], size=16, mode="bilinear")
        tokenizer, generator, bands = fresh(1), torch.Generator().manual_seed(0), analyze(smooth, 2)
        tokenizer.start(analyze(pictures(64), 2), generator)  # of other pictures, so there is much to learn
        optimizer = torch.optim.Adam(tokenizer.learns(kind), 3e-3)
        errors = []
        for _ in range(40):
            loss = tokenizer.loss(bands[:1] if kind == "approximation" else bands, kind, generator)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            errors.append([float(error.detach()) for error in loss.pixels])
        assert len(errors[0]) == (1 if kind == "approximation" else 2)
        coarse = tokenizer.decode(tokenizer.encode_bands(bands[:1]))
        floor = float((coarse - bands[0]).square().mean()) if kind == "details" else 0.0  # it stays wrong
        assert all(
            last - floor < 0.9 * (first - floor) for first, last in zip(errors[0], errors[-1], strict=True)
        )

    def test_learning_details_leaves_the_approximation_and_its_tokens_to_the_bit(self) -> None:
        tokenizer, generator, bands = fresh(2), torch.Generator().manual_seed(0), analyze(pictures(8), 2)
        tokenizer.start(bands, generator)
        before, codes = tokenizer.encode_bands(bands), tokenizer.codebook(0).codes.clone()
        image, details = tokenizer.decode(before[:1]), tokenizer.encoder(tokenizer._patches(bands))[1]
        optimizer = torch.optim.Adam(tokenizer.learns("details"), 1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            tokenizer.loss(bands, "details", generator).total.backward()
            optimizer.step()
        after = tokenizer.encode_bands(bands)
        assert torch.equal(codes, tokenizer.codebook(0).codes)
        assert torch.equal(before[0], after[0])
        assert torch.equal(image, tokenizer.decode(after[:1]))
        assert not torch.equal(details, tokenizer.encoder(tokenizer._patches(bands))[1])

    def test_every_parameter_learns_with_one_kind_and_with_one_only(self) -> None:
        tokenizer = fresh(3)
        kinds = [{id(p) for p in tokenizer.learns(kind)} for kind in ("approximation", "details")]
        assert kinds[0] | kinds[1] == {id(p) for p in tokenizer.parameters()}
        assert not kinds[0] & kinds[1]

    def test_gradients_pass_straight_through_the_codes_to_the_encoder(self) -> None:
        trained, bands = fresh(4), analyze(pictures(4), 2)
        trained.start(bands, torch.Generator().manual_seed(0))
        loss = trained.loss(bands[:1], "approximation", torch.Generator().manual_seed(0))
        sum(loss.pixels).backward()  # the pixel errors alone, without commitment
        assert trained.encoder.straight[0].weight.grad.abs().sum() > 0

    def test_the_codebook_of_what_is_learnt_follows_the_batch(self) -> None:
        tokenizer, bands = fresh(5), analyze(pictures(8), 2)
        tokenizer.start(bands, torch.Generator().manual_seed(0))
        before = [tokenizer.codebook(book).codes.clone() for book in range(2)]
        others = analyze(pictures(8, 1), 2)
        tokenizer.loss(others[:1], "approximation", torch.Generator().manual_seed(0))
        assert not torch.equal(before[0], tokenizer.codebook(0).codes)
        assert torch.equal(before[1], tokenizer.codebook(1).codes)


def fresh(seed: int) -> SpectralTokenizer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SpectralTokenizer(SMALL)
