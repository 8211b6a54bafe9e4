"""The Llama: rotations, causality, losses of one record, per-record gradients, the cache, published sizes."""

import cmath
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.rivals.llamagen.transformer import (
    LlamaConfig,
    LlamaTransformer,
    raster_turns,
    swiglu_width,
    turned,
)

WORDS = LlamaConfig(
    words=20, caption_length=6, codes=11, side=3, width=16, inner=24, depth=2, heads=2, feature_width=5
)
CONFIGS = {
    "words": WORDS,
    "classes": replace(WORDS, prefix="classes", caption_length=2, words=7),
    "features": replace(WORDS, prefix="features", blind_prefix=True),
}


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encoder(captions: Tensor) -> Tensor:
    """Features of three positions before an end that repeats the ids; zeros where nothing is."""
    ids = captions[:, 1:]
    order = (torch.arange(ids.shape[1]) - (ids == 0).sum(1, keepdim=True)) % max(ids.shape[1], 1)
    return ids.gather(1, order)[..., None].float() * torch.tensor([0.1, -0.2, 0.3, 0.05, 1.0])


def made(kind: str = "words", seed: int = 0, **changes: object) -> LlamaTransformer:
    config = replace(CONFIGS[kind], **changes)  # type: ignore[arg-type]
    model = LlamaTransformer(config, encoder if kind == "features" else None)
    generator = torch.Generator().manual_seed(seed)
    model.initialize(generator)
    with torch.no_grad():
        for parameter in model.parameters():  # as after training: no zeros, norms that are not one
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for buffer in (b for name, b in model.named_buffers() if name.endswith("uncond_embedding")):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return model


def batch(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Captions of several lengths, one of them empty, and tokens."""
    generator = torch.Generator().manual_seed(seed)
    captions = torch.randint(2, 7, (count, 6), generator=generator)
    captions[:, 0] = 1
    for row in range(count):
        captions[row, 1 + row % 6 :] = 0
    return captions, torch.randint(11, (count, 9), generator=generator)


class TestRotation:
    """Positions are turns of pairs: the first half by the row, the second by the column."""

    def test_it_is_a_turn_of_complex_numbers_written_out(self) -> None:
        side, head = 3, 8
        x = normals(1, 1, side * side, head)
        found = turned(x, raster_turns(side, head))
        for row in range(side):
            for column in range(side):
                place = row * side + column
                for pair in range(head // 2):
                    along = row if pair < head // 4 else column
                    speed = 10000 ** (-2 * (pair % (head // 4)) / (head // 2))
                    was = complex(*x[0, 0, place, 2 * pair : 2 * pair + 2].tolist())
                    now = was * cmath.exp(1j * along * speed)
                    got = complex(*found[0, 0, place, 2 * pair : 2 * pair + 2].tolist())
                    assert abs(got - now) < 1e-5

    def test_likeness_depends_on_how_far_apart_two_places_are_and_not_on_where(self) -> None:
        turns, side = raster_turns(5, 16), 5
        query, key = normals(16), normals(16, seed=1)

        def likeness(first: tuple[int, int], second: tuple[int, int]) -> float:
            rows = [turns[None, r * side + c] for r, c in (first, second)]
            return float(
                turned(query[None, None, None], rows[0]).flatten()
                @ turned(key[None, None, None], rows[1]).flatten()
            )

        assert likeness((0, 1), (2, 0)) == pytest.approx(likeness((2, 4), (4, 3)), abs=1e-5)
        assert likeness((0, 1), (2, 0)) != pytest.approx(likeness((0, 1), (1, 1)), abs=1e-3)

    def test_half_precision_is_turned_in_single(self) -> None:
        x = normals(1, 2, 9, 8).bfloat16()
        assert torch.equal(turned(x, raster_turns(3, 8)), turned(x.float(), raster_turns(3, 8)).bfloat16())


class TestSizes:
    """Parameters as the authors count them; sizes without captions, in a network that has no numbers yet."""

    @pytest.mark.parametrize(
        ("depth", "heads", "width", "millions"),
        [(12, 12, 768, 111), (24, 16, 1024, 343), (36, 20, 1280, 775)],
    )
    def test_published_shapes_have_as_many(self, depth: int, heads: int, width: int, millions: int) -> None:
        config = LlamaConfig(
            prefix="classes", words=1002, caption_length=2, codes=16384, side=16, width=width,
            inner=swiglu_width(width), depth=depth, heads=heads, blind_prefix=True,
        )  # fmt: skip
        with torch.device("meta"):
            network = LlamaTransformer(config)
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("kind", list(CONFIGS))
class TestCausality:
    """A token's chances follow from the caption and from the tokens before it, and from nothing else."""

    def test_a_token_changes_only_what_comes_after_it(self, kind: str) -> None:
        model, (captions, ids) = made(kind), batch()
        prefix = model.cls_embedding(captions)
        before = model.logits(prefix, ids)
        for place in (0, 4, 8):
            other = ids.clone()
            other[:, place] = (ids[:, place] + 1) % 11
            moved = (model.logits(prefix, other) - before).abs().amax((0, 2))
            assert not moved[: place + 1].any()
            assert bool((moved[place + 1 :] > 1e-4).all())

    def test_what_is_said_changes_every_token(self, kind: str) -> None:
        model, (captions, ids) = made(kind), batch()
        other = captions.clone()
        other[1:, 1] = 7 - captions[1:, 1] + 1
        moved = model.logits(model.cls_embedding(other), ids) - model.logits(
            model.cls_embedding(captions), ids
        )
        assert bool((moved[1:].abs().amax(2) > 1e-6).all())
        assert not moved[0].any()

    def test_padding_changes_nothing(self, kind: str) -> None:
        model, (captions, ids) = made(kind), batch()
        short = captions[:3, :3]  # these three end there
        wide, narrow = model.losses(captions[:3], [ids[:3]]).image, model.losses(short, [ids[:3]]).image
        assert torch.allclose(wide, narrow, atol=1e-5)


class TestLosses:
    """One number a record, of that record alone."""

    def test_it_is_the_mean_surprise_of_the_tokens_of_the_record(self) -> None:
        model, (captions, ids) = made().requires_grad_(False), batch()
        losses = model.losses(captions, [ids])
        logits = model.logits(model.cls_embedding(captions), ids)
        for row in range(len(ids)):
            each = [-float(logits[row, n].double().softmax(0)[ids[row, n]].log()) for n in range(9)]
            assert float(losses.image[row]) == pytest.approx(sum(each) / 9, rel=1e-4)
        assert not losses.caption.any()
        assert torch.equal(losses.scales[0], losses.image)

    @pytest.mark.parametrize("kind", list(CONFIGS))
    def test_other_records_do_not_matter(self, kind: str) -> None:
        model, (captions, ids) = made(kind), batch()
        losses = model.losses(captions, [ids]).image
        others, tokens = batch(seed=9)
        others[2], tokens[2] = captions[2], ids[2]
        assert torch.allclose(model.losses(others, [tokens]).image[2], losses[2], atol=1e-6)

    def test_an_untrained_model_knows_nothing(self) -> None:
        model, (captions, ids) = LlamaTransformer(WORDS), batch()
        model.initialize(torch.Generator().manual_seed(0))
        assert torch.allclose(model.losses(captions, [ids]).image, torch.tensor(11.0).log())


@pytest.mark.parametrize("kind", list(CONFIGS))
class TestGradients:
    """Every parameter has a gradient of its own for each record."""

    def test_the_clipper_agrees_with_autograd(self, kind: str) -> None:
        model = made(kind)
        RecordClipper(model, max_norm=1.0).check(lambda c, i: model.losses(c, [i]).image, *batch())

    def test_each_record_is_clipped_as_autograd_alone_would(self, kind: str) -> None:
        model, (captions, ids) = made(kind), batch()
        parameters = dict(model.named_parameters())
        clipper = RecordClipper(model, max_norm=0.3)
        found = clipper.accumulate(lambda c, i: model.losses(c, [i]).image, captions, ids)
        sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
        for row in range(len(ids)):
            loss = model.losses(captions[row : row + 1], [ids[row : row + 1]]).image.sum()
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            norm = torch.stack([g.double().square().sum() for g in grads if g is not None]).sum().sqrt()
            assert float(found.norms[row]) == pytest.approx(float(norm), rel=1e-4)
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    sums[name] += grad.double() * min(1.0, 0.3 / float(norm))
        for name, value in clipper.finish().values.items():
            assert torch.allclose(value, sums[name], atol=2e-4, rtol=1e-3), name


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_one_token_at_a_time_gives_the_same_chances_as_all_at_once(kind: str) -> None:
    model, (captions, ids) = made(kind), batch()
    prefix = model.cls_embedding(captions)
    whole = model.logits(prefix, ids)
    logits, cache, mask = model.begin(prefix)
    assert torch.allclose(logits, whole[:, 0], atol=1e-5)
    for index in range(1, 9):
        logits, mask = model.advance(ids[:, index - 1], index, cache, mask)
        assert torch.allclose(logits, whole[:, index], atol=1e-5)


def test_positions_of_a_blind_prefix_are_all_equally_near() -> None:
    captions, ids = batch()
    for blind in (True, False):
        model = made(blind_prefix=blind)
        prefix = model.cls_embedding(captions)
        before = model.logits(prefix, ids)[:, 0]  # nothing but the prefix stands before it
        with torch.no_grad():
            for attention in model.blocks:
                attention.get_parameter("wqkv.weight")[:32].normal_(
                    generator=torch.Generator().manual_seed(4)
                )
        same = torch.allclose(model.logits(prefix, ids)[:, 0], before, atol=1e-6)
        assert same is blind  # queries and keys say nothing


def test_the_attention_is_that_of_the_library() -> None:
    model = made(depth=1)
    attention = model.blocks[0]
    x, turns = normals(2, 9, 16), model.turns[1:]
    mask = torch.full((9, 9), float("-inf")).triu(1)[None, None]
    query, key, value = (
        part.unflatten(-1, (2, 8)).transpose(1, 2)
        for part in (x @ attention.wqkv.weight.T).split(16, -1)  # type: ignore[union-attr, operator]
    )
    mixed = F.scaled_dot_product_attention(turned(query, turns), turned(key, turns), value, is_causal=True)
    wanted = mixed.transpose(1, 2).flatten(2) @ attention.wo.weight.T  # type: ignore[union-attr, operator]
    assert torch.allclose(attention(x, turns, mask, None, 0), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"width": 12}, "four times"), ({"prefix": "smoke"}, "prefix must be"), ({"words": 2}, "3 words")],
)
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(WORDS, **wrong)  # type: ignore[arg-type]
