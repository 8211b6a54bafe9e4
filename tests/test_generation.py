"""Drawing tokens: the numbers are those of the distribution, and no image depends on its neighbours.

The chi-square tests use fixed seeds; each would raise a false alarm for one seed in a hundred.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from dpwavelet import generation
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling, _most_likely_first, choose, draw_tokens, guided_by
from dpwavelet.randomness import stream
from dpwavelet.transformer import PAD, START, ImageTransformer, TransformerConfig

CONFIG = TransformerConfig(words=20, codes=12, tokens=(4, 4, 4), caption_length=7, width=16, depth=2, heads=2)
PLAIN = Sampling(temperature=1.0, top_p=1.0, guidance=1.0, batch_size=4)
GUIDED = Sampling(guidance=1.5, batch_size=4)
LOGITS = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 1.5


def loud(seed: int) -> ImageTransformer:
    """A model of large weights, so that captions and earlier tokens matter."""
    made = ImageTransformer(CONFIG)
    made.initialize(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(6.0 if weight.dim() > 1 else 1.0)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> ImageTransformer:
    return loud(0)


@pytest.fixture(scope="module")
def public() -> ImageTransformer:
    return loud(1)


def both_scales(model: ImageTransformer, words: Tensor, tokens: list[Tensor]) -> Tensor:
    """Logits [B, 8, K] of the tokens of two scales, after captions [B, 5], without a cache."""
    hidden = model.hidden(words, tokens)[:, 5:]
    return torch.cat((model.code_heads[0](hidden[:, :4]), model.code_heads[1](hidden[:, 4:])), 1)


def captions(count: int = 9) -> Tensor:
    """Captions [count, 5] of unequal length; those of image i do not depend on `count`."""
    rows = torch.full((count, 5), PAD)
    rows[:, 0] = START
    for index in range(count):
        words = index % 5
        rows[index, 1 : 1 + words] = torch.arange(words) + 3 + index % 7
    return rows


def chosen(logits: Tensor, sampling: Sampling, count: int, seed: int = 0) -> Tensor:
    """Ids [count] drawn from one row of logits."""
    uniforms = torch.from_numpy(np.random.default_rng(seed).random(count))
    return choose(logits.expand(count, -1), uniforms, sampling)


def one_word(favourite: int) -> ImageTransformer:
    """A model that always finds one word far more likely than the rest, which are equally likely."""
    made = ImageTransformer(CONFIG)
    made.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.final_norm.weight.zero_()
        made.final_norm.bias.fill_(1.0)
        made.word_head.weight.zero_()
        made.word_head.weight[favourite] = 3.0
    return made


class TestChoose:
    """One token from its logits and a uniform."""

    @pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
    def test_codes_come_as_often_as_their_probability_says(self, temperature: float) -> None:
        found = chosen(LOGITS, Sampling(temperature=temperature, top_p=1.0), 20_000).bincount(minlength=12)
        expected = (LOGITS.double() / temperature).softmax(0).numpy() * 20_000
        assert chisquare(found.numpy(), expected).pvalue > 0.01

    @pytest.mark.parametrize("wrong", [0.9, 1.1])
    def test_the_test_above_would_notice_a_temperature_off_by_a_tenth(self, wrong: float) -> None:
        found = chosen(LOGITS, Sampling(temperature=1.0, top_p=1.0), 20_000).bincount(minlength=12)
        expected = (LOGITS.double() / wrong).softmax(0).numpy() * 20_000
        assert chisquare(found.numpy(), expected).pvalue < 0.01

    def test_top_p_keeps_the_fewest_codes_that_hold_it_in_their_own_proportions(self) -> None:
        probabilities = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1], dtype=torch.float64)
        for top_p, kept in ((0.39, [1]), (0.41, [1, 3]), (0.8, [1, 3, 2]), (0.96, [1, 3, 2, 4, 0])):
            found = chosen(probabilities.log(), Sampling(temperature=1.0, top_p=top_p), 20_000).bincount(
                minlength=5
            )
            assert set(found.nonzero().flatten().tolist()) == set(kept)
            expected = probabilities[kept] / probabilities[kept].sum() * 20_000
            if len(kept) > 1:
                assert chisquare(found[kept].numpy(), expected.numpy()).pvalue > 0.01

    @given(
        quarters=st.lists(st.integers(-40, 40), min_size=2, max_size=9, unique=True),
        uniform=st.floats(0, 1, exclude_max=True),
        top_p=st.floats(0.01, 1),
        temperature=st.floats(0.05, 20),
    )
    def test_the_choice_is_the_code_whose_share_of_the_line_holds_the_uniform(
        self, quarters: list[int], uniform: float, top_p: float, temperature: float
    ) -> None:
        sampling = Sampling(top_p=top_p, temperature=temperature)
        logits, uniforms = torch.tensor([quarters]) / 4, torch.tensor([uniform], dtype=torch.float64)
        code = int(choose(logits, uniforms, sampling))
        order = sorted(range(len(quarters)), key=lambda index: -quarters[index])  # likeliest first
        weights = np.exp((np.array(quarters) - max(quarters)) / 4 / temperature)[order]
        ends = np.cumsum(weights / weights.sum())
        last = int(np.searchsorted(ends, top_p - 1e-9))  # the first code with which the kept ones hold top_p
        point, rank = uniform * ends[min(last, len(ends) - 1)], order.index(code)
        assert ends[rank] >= point - 1e-8
        assert rank == 0 or ends[rank - 1] <= max(point, 0) + 1e-8

    def test_codes_are_ranked_as_a_stable_sort_ranks_them(self) -> None:
        logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(5)).round(decimals=1)
        logits[:, 7], logits[:, 9] = float("-inf"), float("inf")
        ranked = _most_likely_first(logits)
        assert torch.equal(ranked, logits.sort(dim=-1, descending=True, stable=True).indices)
        assert (logits.gather(1, ranked).diff(dim=1) == 0).any()  # there were equals to rank

    def test_a_cold_draw_is_the_likeliest_code_and_an_impossible_code_never_comes(self) -> None:
        assert (chosen(LOGITS, Sampling(temperature=1e-3), 500) == LOGITS.argmax()).all()
        barred = LOGITS.clone()
        barred[LOGITS.argmax()] = -torch.inf
        found = chosen(barred, Sampling(top_p=1.0, temperature=5.0), 2_000)
        assert (found != LOGITS.argmax()).all()
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        assert (
            choose(barred.expand(2, -1), ends, Sampling(temperature=1.0, top_p=1.0)) != LOGITS.argmax()
        ).all()


class TestTokens:
    """Images, one stream each."""

    @pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_how_a_request_is_split_changes_nothing(
        self, model: ImageTransformer, sampling: Sampling
    ) -> None:
        whole = draw_tokens(model, captions(), 2, sampling, seed=5)
        assert [tuple(scale.shape) for scale in whole] == [(9, 4), (9, 4)]
        for cut in (1, 3, 4, 8):
            parts = [
                draw_tokens(model, captions()[:cut], 2, sampling, seed=5),
                draw_tokens(model, captions()[cut:], 2, sampling, seed=5, first=cut),
            ]
            for scale in range(2):
                assert torch.equal(torch.cat([part[scale] for part in parts]), whole[scale])

    def test_other_images_and_their_captions_change_nothing(self, model: ImageTransformer) -> None:
        whole = draw_tokens(model, captions(), 1, GUIDED, seed=5)[0]
        for index in range(9):
            alone = captions()[index : index + 1, : index % 5 + 1]  # not padded to the longest either
            assert torch.equal(draw_tokens(model, alone, 1, GUIDED, seed=5, first=index)[0][0], whole[index])

    @pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_companions_change_no_bit_of_the_logits_that_an_image_is_drawn_from(
        self, model: ImageTransformer, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Tensor] = []

        def noted(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
            seen.append(logits[0])
            return choose(logits, uniforms, sampling)

        monkeypatch.setattr(generation, "choose", noted)
        draw_tokens(model, captions()[3:4, :4], 3, sampling, seed=5, first=3)
        alone = torch.stack(seen)
        seen.clear()
        longer = torch.cat((captions()[3:6], torch.tensor([[START, 9, 8, 7, 6]])))
        longer = torch.nn.functional.pad(longer, (0, 2), value=PAD)
        longer[3, 5:] = 4  # the longest caption there can be
        draw_tokens(model, longer, 3, sampling, seed=5, first=3)
        assert torch.equal(torch.stack(seen), alone)

    def test_the_seed_and_the_index_choose_the_image(self, model: ImageTransformer) -> None:
        same = captions()[4:5].expand(6, -1)
        drawn = draw_tokens(model, same, 3, PLAIN, seed=5)
        rows = {tuple(row) for row in torch.cat(drawn, 1).tolist()}
        other = {tuple(row) for row in torch.cat(draw_tokens(model, same, 3, PLAIN, seed=6), 1).tolist()}
        assert len(rows | other) == 12

    @pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5])
    def test_every_token_is_the_choice_from_guided_uncached_logits(
        self, model: ImageTransformer, guidance: float
    ) -> None:
        sampling = Sampling(guidance=guidance, batch_size=4)
        tokens = draw_tokens(model, captions(), 2, sampling, seed=5)
        nothing = torch.where(torch.arange(5) == 0, START, PAD).expand(9, -1)
        told, untold = (both_scales(model, words, tokens) for words in (captions(), nothing))
        mixed = guidance * told + (1 - guidance) * untold
        for image in range(9):
            uniforms = torch.from_numpy(stream(5, "image", image).random(8))
            assert torch.equal(choose(mixed[image], uniforms, sampling), torch.cat(tokens, 1)[image])

    @pytest.mark.parametrize(("away", "doubt"), [(0.0, 0.1), (0.3, 0.0), (1.0, 0.0), (0.5, 0.1), (1.0, 0.5)])
    def test_guidance_leads_away_from_the_public_model_as_far_as_it_is_told_to(
        self, model: ImageTransformer, public: ImageTransformer, away: float, doubt: float
    ) -> None:
        sampling = Sampling(guidance=1.5, away=away, doubt=doubt, batch_size=4)
        given = torch.randint(0, 12, (9, 4), generator=torch.Generator().manual_seed(8))
        for known in ([], [given]):
            tokens = draw_tokens(model, captions(), 2, sampling, 5, given=known, reference=public)
            nothing = torch.where(torch.arange(5) == 0, START, PAD).expand(9, -1)
            told, own, other = (
                both_scales(network, words, tokens)
                for network, words in ((model, captions()), (model, nothing), (public, nothing))
            )
            p, q = own.double().softmax(-1), other.double().softmax(-1)
            divergence = (p * (p / q).log()).sum(-1, keepdim=True)
            share = away * (divergence / (divergence + doubt)).float() if doubt else torch.tensor(away)
            mixed = 1.5 * told - 0.5 * torch.lerp(own, other, share)
            for image in range(9):
                uniforms = torch.from_numpy(stream(5, "image", image).random(8))
                wanted = choose(mixed[image], uniforms, sampling)
                assert torch.equal(wanted[4 * len(known) :], torch.cat(tokens, 1)[image, 4 * len(known) :])

    def test_without_a_share_or_a_public_model_the_other_says_nothing(
        self, model: ImageTransformer, public: ImageTransformer
    ) -> None:
        shared, alone = (Sampling(guidance=1.5, away=away, batch_size=4) for away in (0.5, 0.0))
        plain = draw_tokens(model, captions(), 2, alone, 5)
        for sampling, reference in ((alone, public), (shared, None)):
            same = draw_tokens(model, captions(), 2, sampling, 5, reference=reference)
            assert all(torch.equal(a, b) for a, b in zip(same, plain, strict=True))
        other = draw_tokens(model, captions(), 2, shared, 5, reference=public)
        assert not all(torch.equal(a, b) for a, b in zip(other, plain, strict=True))

    def test_doubt_follows_a_plain_difference_and_leaves_a_faint_one(self) -> None:
        public = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        own = torch.tensor([[9.0, 0.0, 0.0], [0.01, 0.0, 0.0]])
        told = own + torch.tensor([0.0, 1.0, 0.0])
        doubting, believing, alone = (
            guided_by(versions, 3.0, 0.5, doubt)
            for versions, doubt in (
                ((told, own, public), 0.1),
                ((told, own, public), 0.0),
                ((told, own), 0.1),
            )
        )
        plain, faint = (doubting - alone) / (believing - alone).clamp_min(1e-9)
        assert 0.9 < float(plain[0]) < 1
        assert 0 <= float(faint[0]) < 0.001
        same = guided_by((told, public, public), 3.0, 0.5, 0.1)
        assert torch.equal(same, guided_by((told, public), 3.0, 0.5))

    @pytest.mark.parametrize(
        ("away", "doubt"),
        [(-0.1, 0.0), (1.1, 0.0), (float("nan"), 0.0), (0.5, -1.0), (0.5, float("inf")), (0.5, float("nan"))],
    )
    def test_a_share_or_a_doubt_outside_its_bounds_is_refused(self, away: float, doubt: float) -> None:
        with pytest.raises(ConfigError, match="share of the guidance"):
            Sampling(away=away, doubt=doubt)

    @pytest.mark.parametrize("name", ["temperature", "guidance"])
    @pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
    def test_what_gives_no_distribution_is_refused(self, name: str, value: float) -> None:
        with pytest.raises(ConfigError, match="none of them infinite"):
            Sampling(**{name: value})  # type: ignore[arg-type]

    def test_guidance_of_one_draws_what_the_model_says(self, model: ImageTransformer) -> None:
        one = draw_tokens(model, captions(), 2, Sampling(guidance=1.0, batch_size=4), seed=5)
        nearly = draw_tokens(model, captions(), 2, Sampling(guidance=1 + 1e-7, batch_size=4), seed=5)
        more = draw_tokens(model, captions(), 2, Sampling(guidance=4.0, batch_size=4), seed=5)
        assert all(torch.equal(a, b) for a, b in zip(one, nearly, strict=True))
        assert not torch.equal(torch.cat(one, 1), torch.cat(more, 1))

    def test_fewer_scales_are_the_beginning_of_more(self, model: ImageTransformer) -> None:
        few, many = (draw_tokens(model, captions(), scales, PLAIN, seed=5) for scales in (1, 3))
        assert torch.equal(few[0], many[0])

    def test_no_captions_give_no_images_and_progress_counts_every_image_once(
        self, model: ImageTransformer
    ) -> None:
        told: list[int] = []
        assert [
            ids.shape[0] for ids in draw_tokens(model, captions()[:0], 2, PLAIN, 5, told=told.append)
        ] == [0, 0]
        assert told == []
        draw_tokens(model, captions(), 1, PLAIN, 5, told=told.append)
        assert told == [4, 4, 1]


class TestGiven:
    """Tokens that are known already."""

    @pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_what_was_drawn_and_is_given_again_changes_nothing(
        self, model: ImageTransformer, sampling: Sampling
    ) -> None:
        whole = draw_tokens(model, captions(), 3, sampling, seed=5)
        for scales in (1, 2):
            again = draw_tokens(model, captions(), 3, sampling, seed=5, given=whole[:scales])
            assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))

    @pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_given_tokens_are_kept_and_the_rest_follows_them(
        self, model: ImageTransformer, sampling: Sampling
    ) -> None:
        given = torch.randint(0, 12, (9, 4), generator=torch.Generator().manual_seed(8))
        found = draw_tokens(model, captions(), 2, sampling, seed=5, given=[given])
        assert torch.equal(found[0], given)
        nothing = torch.where(torch.arange(5) == 0, START, PAD).expand(9, -1)
        told, untold = (
            model.code_heads[1](model.hidden(words, found)[:, 9:]) for words in (captions(), nothing)
        )
        mixed = untold + sampling.guidance * (told - untold)
        for image in range(9):
            uniforms = torch.from_numpy(stream(5, "image", image).random(8))[4:]
            assert torch.equal(choose(mixed[image], uniforms, sampling), found[1][image])
        other = draw_tokens(model, captions(), 2, sampling, seed=5, given=[(given + 1) % 12])
        assert not torch.equal(other[1], found[1])

    def test_how_a_request_is_split_changes_nothing(self, model: ImageTransformer) -> None:
        given = torch.randint(0, 12, (9, 4), generator=torch.Generator().manual_seed(8))
        whole = draw_tokens(model, captions(), 3, GUIDED, seed=5, given=[given])
        for cut in (1, 4, 7):
            parts = [
                draw_tokens(model, captions()[:cut], 3, GUIDED, seed=5, given=[given[:cut]]),
                draw_tokens(model, captions()[cut:], 3, GUIDED, seed=5, first=cut, given=[given[cut:]]),
            ]
            for scale in range(3):
                assert torch.equal(torch.cat([part[scale] for part in parts]), whole[scale])

    @pytest.mark.parametrize(("rows", "counts"), [(9, [3]), (9, [4, 5]), (8, [4]), (9, [4, 4])])
    def test_half_a_scale_too_many_scales_or_other_images_are_refused(
        self, model: ImageTransformer, rows: int, counts: list[int]
    ) -> None:
        given = [torch.zeros(rows, count, dtype=torch.long) for count in counts]
        with pytest.raises(ConfigError, match="whole scales"):
            draw_tokens(model, captions(), 2, PLAIN, seed=5, given=given)
