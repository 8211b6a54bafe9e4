"""Drawing tokens: seeds belong to images, and the draw follows the distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling, choose, draw_captions, draw_tokens
from dpwavelet.transformer import PAD, START, ImageTransformer, TransformerConfig

CONFIG = TransformerConfig(words=30, codes=16, tokens=(4, 4), caption_length=8, width=32, depth=2, heads=2)


@pytest.fixture(scope="module")
def model() -> ImageTransformer:
    made = ImageTransformer(CONFIG)
    made.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(4.0) if p.dim() > 1 else None
    return made.eval().requires_grad_(False)


def captions(count: int) -> Tensor:
    rows = torch.full((count, 4), PAD)
    rows[:, 0] = START
    rows[:, 1] = torch.arange(count) % 20 + 5
    rows[::2, 2] = 7
    return rows


class TestSeeds:
    """Image i depends on the seed and on i, not on how the request is cut."""

    @pytest.mark.parametrize("guidance", [1.0, 1.5])
    def test_splitting_a_request_changes_nothing(self, model: ImageTransformer, guidance: float) -> None:
        sampling = Sampling(guidance=guidance, batch_size=4)
        whole = draw_tokens(model, captions(10), 2, sampling, seed=3)
        first = draw_tokens(model, captions(10)[:3], 2, sampling, seed=3)
        rest = draw_tokens(model, captions(10)[3:], 2, sampling, seed=3, first=3)
        for scale in range(2):
            assert torch.equal(whole[scale], torch.cat((first[scale], rest[scale])))

    def test_another_seed_or_place_draws_another_image(self, model: ImageTransformer) -> None:
        same = captions(1).expand(2, -1)
        first, second = (torch.cat(draw_tokens(model, same, 2, Sampling(), seed=s), 1) for s in (0, 1))
        assert not torch.equal(first, second)
        assert not torch.equal(first[0], first[1])

    def test_only_the_asked_scales_are_drawn(self, model: ImageTransformer) -> None:
        assert [ids.shape for ids in draw_tokens(model, captions(3), 1, Sampling(), 0)] == [(3, 4)]

    def test_no_captions_make_no_images(self, model: ImageTransformer) -> None:
        assert [ids.shape for ids in draw_tokens(model, captions(3)[:0], 2, Sampling(), 0)] == [
            (0, 4),
            (0, 4),
        ]

    def test_tokens_follow_the_probabilities_that_the_model_gives(self, model: ImageTransformer) -> None:
        ids = draw_tokens(model, captions(1).expand(4000, -1), 1, Sampling(top_p=1.0, guidance=1.0), seed=0)[
            0
        ]
        logits = model.begin(captions(1))[0]
        expected = logits.softmax(-1)[0].double().numpy() * 4000
        found = np.bincount(ids[:, 0].numpy(), minlength=16)
        expected *= found.sum() / expected.sum()
        assert expected.min() > 5
        assert chisquare(found, expected).pvalue > 1e-3
        assert chisquare(found, np.roll(expected, 1)).pvalue < 1e-6  # it would notice a shift by one code


class TestChoice:
    """One number picks one code."""

    LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))

    def shares(self, sampling: Sampling) -> list[float]:
        uniforms = (torch.arange(1000) + 0.5).double() / 1000
        ids = choose(self.LOGITS.expand(1000, -1), uniforms, sampling)
        return [round(float((ids == code).double().mean()), 2) for code in range(4)]

    def test_evenly_spread_numbers_give_the_probabilities(self) -> None:
        assert self.shares(Sampling(top_p=1.0)) == [0.5, 0.3, 0.15, 0.05]

    def test_top_p_keeps_the_likeliest_codes_that_hold_it(self) -> None:
        assert self.shares(Sampling(top_p=0.6)) == [0.62, 0.38, 0, 0]
        assert self.shares(Sampling(top_p=0.4)) == [1, 0, 0, 0]

    def test_a_low_temperature_prefers_the_likeliest(self) -> None:
        assert self.shares(Sampling(top_p=1.0, temperature=0.1))[0] > 0.95

    def test_the_largest_number_still_picks_a_code(self) -> None:
        assert int(choose(self.LOGITS, torch.ones(1, dtype=torch.float64), Sampling(top_p=1.0))) == 3

    @pytest.mark.parametrize(
        "wrong", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"guidance": -1.0}, {"batch_size": 0}]
    )
    def test_settings_out_of_range_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ConfigError):
            Sampling(**wrong)  # type: ignore[arg-type]  # that is what is tested


def test_invented_captions_begin_with_the_mark_and_end_with_padding(model: ImageTransformer) -> None:
    rows = draw_captions(model, 20, seed=0)
    assert (rows[:, 0] == START).all()
    for row in rows:
        words = row[1:].tolist()
        end = words.index(PAD) if PAD in words else len(words)
        assert START not in words
        assert not any(words[end:])
    assert torch.equal(rows, draw_captions(model, 20, seed=0))
    assert draw_captions(model, 0, seed=0).shape == (0, 8)
