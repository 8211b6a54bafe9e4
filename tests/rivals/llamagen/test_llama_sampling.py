"""Drawing: one stream a picture, the same with and without the cache, and from the chances of the model."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream
from dpwavelet.rivals.llamagen.sampling import LlamaSampling, draw_tokens, pick
from dpwavelet.rivals.llamagen.transformer import LlamaConfig, LlamaTransformer

SAMPLING = LlamaSampling(top_k=8, batch_size=3)
CAPTIONS = torch.tensor([[1, 4, 5, 0], [1, 6, 0, 0], [1, 0, 0, 0], [1, 7, 7, 7], [1, 3, 0, 0]])


@pytest.fixture(scope="module")
def model() -> LlamaTransformer:
    config = LlamaConfig(words=8, caption_length=4, codes=11, side=3, width=16, inner=24, depth=2, heads=2)
    model = LlamaTransformer(config)
    generator = torch.Generator().manual_seed(0)
    model.initialize(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def public(model: LlamaTransformer) -> LlamaTransformer:
    other, generator = deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return other


def slowly(
    model: LlamaTransformer,
    caption: Tensor,
    index: int,
    sampling: LlamaSampling,
    public: LlamaTransformer | None = None,
) -> list[int]:
    """Every token from a whole new pass, by the definition."""

    def untold_by(one: LlamaTransformer) -> Tensor:
        return one.logits(one.cls_embedding(torch.tensor([[1, 0, 0, 0]])), row)[0, place].double()

    uniforms = stream(3, "image", index).random(9)
    ids: list[int] = []
    for place in range(9):
        row = torch.tensor([[*ids, *[0] * (9 - place)]])
        told = model.logits(model.cls_embedding(caption[None]), row)[0, place].double()
        untold = untold_by(model)
        if public is not None:
            said, before = untold.softmax(0), untold_by(public).softmax(0)
            divergence = float((said * (said / before).log()).sum())
            share = sampling.away * (divergence / (divergence + sampling.doubt))
            untold = (1 - share) * untold + share * untold_by(public)
        logits = (untold + sampling.guidance * (told - untold)) / sampling.temperature
        order = logits.argsort(descending=True)[: sampling.top_k]
        chances = logits[order].softmax(0).cumsum(0)
        ids.append(int(order[int((chances < uniforms[place]).sum())]))
    return ids


@pytest.mark.parametrize("guidance", [1.0, 0.0, 2.5])
def test_tokens_are_those_of_a_slow_reference_without_a_cache(
    model: LlamaTransformer, guidance: float
) -> None:
    sampling = LlamaSampling(temperature=0.8, top_k=6, guidance=guidance, batch_size=2)
    drawn = draw_tokens(model, CAPTIONS, sampling, 3)
    assert drawn.tolist() == [slowly(model, caption, n, sampling) for n, caption in enumerate(CAPTIONS)]


@pytest.mark.parametrize(("away", "doubt"), [(0.0, 0.0), (0.4, 0.0), (1.0, 0.0), (1.0, 0.2)])
def test_a_share_of_the_guidance_leads_away_from_the_public_network(
    model: LlamaTransformer, public: LlamaTransformer, away: float, doubt: float
) -> None:
    sampling = LlamaSampling(temperature=0.8, top_k=6, guidance=2.5, away=away, doubt=doubt, batch_size=2)
    drawn = draw_tokens(model, CAPTIONS, sampling, 3, reference=public).tolist()
    assert drawn == [slowly(model, caption, n, sampling, public) for n, caption in enumerate(CAPTIONS)]
    alone = draw_tokens(model, CAPTIONS, sampling, 3).tolist()
    assert (alone == drawn) == (away == 0)


def test_the_same_seed_draws_the_same_and_another_does_not(model: LlamaTransformer) -> None:
    first, again, other = (draw_tokens(model, CAPTIONS, SAMPLING, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert draw_tokens(model, CAPTIONS[:0], SAMPLING, 1).shape == (0, 9)


def test_a_picture_does_not_depend_on_the_request_that_it_is_part_of(model: LlamaTransformer) -> None:
    whole = draw_tokens(model, CAPTIONS, SAMPLING, 1)
    assert torch.equal(draw_tokens(model, CAPTIONS[2:4], SAMPLING, 1, first=2), whole[2:4])


def test_one_code_is_the_likeliest() -> None:
    logits = torch.randn(50, 11, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(50, dtype=torch.float64)
    assert torch.equal(pick(logits, uniforms, LlamaSampling(top_k=1)), logits.argmax(1))


def test_codes_are_drawn_as_often_as_the_softmax_of_the_likeliest_says() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(20_000, -1)
    uniforms = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = pick(logits, uniforms, LlamaSampling(top_k=3, temperature=0.5))
    found = torch.bincount(ids, minlength=4) / 20_000
    wanted = (torch.tensor([0.0, 1.0, float("-inf"), 2.0]) / 0.5).softmax(0)
    assert torch.allclose(found, wanted, atol=0.012)  # more than four standard errors
    assert found[2] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"top_k": 0},
        {"guidance": -1.0},
        {"batch_size": 0},
        {"away": 2.0},
        {"doubt": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"temperature must be above 0|away is a share"):
        LlamaSampling(**wrong)  # type: ignore[arg-type]
