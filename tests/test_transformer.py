"""Next-token model: caches, masks, and losses that belong to one record each."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.transformer import PAD, START, Cache, ImageTransformer, TransformerConfig

CONFIG = TransformerConfig(words=30, codes=16, tokens=(4, 4, 4), caption_length=8, width=32, depth=2, heads=2)


@pytest.fixture(scope="module")
def model() -> ImageTransformer:
    made = ImageTransformer(CONFIG)
    made.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():  # large weights, so that a wrong mask shows
        for p in made.parameters():
            p.mul_(4.0) if p.dim() > 1 else None
    return made.eval().requires_grad_(False)


def captions() -> Tensor:
    return torch.tensor([[START, 5, 6, 7, 8], [START, 9, PAD, PAD, PAD], [START, PAD, PAD, PAD, PAD]])


def tokens(scales: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(16, (3, 4), generator=generator) for _ in range(scales)]


def logits(model: ImageTransformer, words: Tensor, ids: list[Tensor]) -> Tensor:
    """Logits [B, N, K] of every image token, without a cache."""
    hidden = model.hidden(words, ids)[:, words.shape[1] :]
    heads = [model.code_heads[min(model.scale_of(i), 1)] for i in range(hidden.shape[1])]
    return torch.stack([head(hidden[:, i]) for i, head in enumerate(heads)], 1)


class TestCache:
    """One token at a time gives what the whole sequence gives."""

    @pytest.mark.parametrize("scales", [1, 2, 3])
    def test_cached_logits_agree_with_uncached_ones_at_every_position(
        self, model: ImageTransformer, scales: int
    ) -> None:
        ids = tokens(scales)
        expected = logits(model, captions(), ids)
        flat = torch.cat(ids, 1)
        found, cache, mask = model.begin(captions())
        torch.testing.assert_close(found, expected[:, 0], atol=1e-5, rtol=1e-5)
        for index in range(1, 4 * scales):
            found, mask = model.advance(flat[:, index - 1], index, cache, mask)
            torch.testing.assert_close(found, expected[:, index], atol=1e-5, rtol=1e-5)

    def test_the_next_word_is_predicted_from_the_words_so_far(self, model: ImageTransformer) -> None:
        whole = model.word_head(model.hidden(captions(), [])[:, :5])
        found = model.next_words(captions())
        torch.testing.assert_close(
            found, torch.stack((whole[0, 4], whole[1, 1], whole[2, 0])), atol=1e-5, rtol=1e-5
        )


class TestMask:
    """A position sees its own caption and earlier tokens, and nothing else."""

    def test_later_tokens_do_not_change_earlier_logits(self, model: ImageTransformer) -> None:
        first, second = tokens(3, 0), tokens(3, 1)
        second[0][:, :2] = first[0][:, :2]
        before, after = (logits(model, captions(), ids) for ids in (first, second))
        torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)

    def test_padding_changes_nothing(self, model: ImageTransformer) -> None:
        longer = F.pad(captions(), (0, 3), value=PAD)
        short, long = (logits(model, words, tokens(2)) for words in (captions(), longer))
        torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)

    def test_words_change_the_image(self, model: ImageTransformer) -> None:
        other = captions().clone()
        other[0, 2] = 20
        before, after = (logits(model, words, tokens(1)) for words in (captions(), other))
        assert not torch.allclose(before[0], after[0], atol=1e-3)
        assert torch.equal(before[1:], after[1:])


class TestLosses:
    """Each record has a loss of its own."""

    def test_the_loss_of_a_record_is_the_mean_over_its_own_tokens(self, model: ImageTransformer) -> None:
        ids = tokens(2)
        found = model.losses(captions(), ids)
        flat = torch.cat(ids, 1)
        scores = logits(model, captions(), ids).log_softmax(-1)
        for record in range(3):
            each = -torch.stack([scores[record, i, flat[record, i]] for i in range(8)])
            torch.testing.assert_close(found.image[record], each.mean())
            torch.testing.assert_close(found.scales[1][record], each[4:].mean())

    def test_the_caption_loss_counts_own_words_and_the_end_of_the_caption(
        self, model: ImageTransformer
    ) -> None:
        found = model.losses(captions(), tokens(1)).caption
        scores = model.word_head(model.hidden(captions(), [])[:, :5]).log_softmax(-1)
        torch.testing.assert_close(found[1], -(scores[1, 0, 9] + scores[1, 1, START]) / 2)
        torch.testing.assert_close(found[2], -scores[2, 0, START])

    def test_other_records_change_nothing(self, model: ImageTransformer) -> None:
        together = model.losses(captions(), tokens(2))
        for record in range(3):
            alone = model.losses(
                captions()[record : record + 1], [ids[record : record + 1] for ids in tokens(2)]
            )
            torch.testing.assert_close(alone.image[0], together.image[record])
            torch.testing.assert_close(alone.caption[0], together.caption[record])

    def test_other_records_of_the_same_batch_change_no_bit(self, model: ImageTransformer) -> None:
        others, words = tokens(2, seed=9), captions()
        before = model.losses(words, tokens(2))
        for scale, ids in enumerate(tokens(2)):
            others[scale][1] = ids[1]
        words[0], words[2] = torch.tensor([START, 22, PAD, PAD, PAD]), torch.tensor([START, 3, 4, 3, 4])
        after = model.losses(words, others)
        assert torch.equal(before.image[1], after.image[1])
        assert torch.equal(before.caption[1], after.caption[1])
        assert not torch.equal(before.image[0], after.image[0])

    def test_a_scale_counts_in_proportion_to_its_tokens(self) -> None:
        uneven = ImageTransformer(
            TransformerConfig(words=30, codes=16, tokens=(2, 6), caption_length=8, width=16, depth=1, heads=2)
        )
        uneven.initialize(torch.Generator().manual_seed(0))
        uneven.word_head.weight.detach().zero_()
        uneven.code_heads[0].weight.detach().zero_()  # knows nothing: log 16 a token
        found = uneven.losses(captions(), [tokens(1)[0][:, :2], tokens(2)[1].repeat(1, 2)[:, :6]])
        torch.testing.assert_close(found.scales[0], torch.full((3,), 16.0).log())
        torch.testing.assert_close(found.image, (2 * found.scales[0] + 6 * found.scales[1]) / 8)
        torch.testing.assert_close(found.caption, torch.full((3,), 30.0).log())

    def test_later_words_do_not_change_what_was_expected_before_them(self, model: ImageTransformer) -> None:
        other = captions()
        other[0, 3:] = torch.tensor([11, 12])
        before, after = (model.word_head(model.hidden(words, [])[0, :5]) for words in (captions(), other))
        assert torch.equal(before[:3], after[:3])
        assert not torch.allclose(before[3:], after[3:], atol=1e-3)

    def test_only_the_scales_that_are_passed_enter_the_sequence(self, model: ImageTransformer) -> None:
        assert model.hidden(captions(), tokens(1)).shape[1] == 5 + 4
        assert len(model.losses(captions(), tokens(1)).scales) == 1


def test_a_position_past_the_end_is_refused(model: ImageTransformer) -> None:
    assert [model.scale_of(index) for index in (0, 3, 4, 11)] == [0, 0, 1, 2]
    with pytest.raises(ConfigError, match="12"):
        model.scale_of(12)


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError):
        TransformerConfig(words=30, width=30, heads=4)
    with pytest.raises(ConfigError):
        TransformerConfig(words=2)


def test_a_seed_fixes_the_weights() -> None:
    made = []
    for seed in (0, 0, 1):
        model = ImageTransformer(CONFIG)
        model.initialize(torch.Generator().manual_seed(seed))
        made.append(model.blocks[0].qkv.weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_cache_holds_all_that_was_put_into_it_however_it_grows() -> None:
    put = [torch.randn(2, 1, 3, count, 4) for count in (5, 1, 1, 7, 1, 30, 1)]  # keys and values of one row
    one, whole = Cache(2), Cache(2)
    for count, (key, value) in enumerate(put, 1):
        for block in range(2):
            found = one.extend(block, key, value)
            for side, each in enumerate(found):
                assert torch.equal(each, torch.cat([pair[side] for pair in put[:count]], 2))
    for block in range(2):
        whole.extend(block, *torch.cat(put, 3))
    both = Cache.joined([one, whole], 3)
    more = torch.randn(2, 6, 3, 1, 4)
    for block in range(2):
        for side, each in enumerate(both.extend(block, *more)):
            held = torch.cat([pair[side] for pair in put], 2).expand(6, -1, -1, -1)
            assert torch.equal(each, torch.cat((held, more[side]), 2))
