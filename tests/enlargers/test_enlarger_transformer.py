"""The public transformer goes on from coarse pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.enlargers import TransformerEnlarger, open_enlarger
from dpwavelet.errors import ConfigError
from dpwavelet.generation import PUBLIC, draw_tokens
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.model import Model, create
from dpwavelet.text import Vocabulary
from dpwavelet.wavelet import analyze

CAPTIONS = ["a man with a beard", "a woman", "", "a smiling man"] * 5


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def few(portraits: Path) -> Tensor:
    """Coarse portraits [20, 3, 8, 8]."""
    return analyze(from_bytes(PublicImages.open(portraits, 32).pixels(range(20))), 2)[0]


def test_the_coarse_picture_survives_and_its_tokens_are_where_it_goes_on_from(
    model: Model, few: Tensor
) -> None:
    full = open_enlarger("transformer", model)(few, captions=CAPTIONS, seed=4, first=0)
    assert full.shape == (20, 3, 32, 32)
    assert (analyze(full, 2)[0] - few).abs().max() < 1e-5
    free = open_enlarger("transformer", model, consistent=False)(few, captions=CAPTIONS, seed=4, first=0)
    given = model.tokenizer.encode_bands([few])
    words = model.vocabulary.encode(CAPTIONS, model.transformer.config.caption_length)
    tokens = draw_tokens(model.transformer, words, 3, PUBLIC, seed=4, given=given)
    assert torch.allclose(free, model.tokenizer.decode(tokens), atol=1e-5)
    assert torch.allclose(analyze(full, 2)[1], analyze(free, 2)[1], atol=1e-5)


def test_two_known_scales_are_both_kept(model: Model, portraits: Path) -> None:
    known = analyze(from_bytes(PublicImages.open(portraits, 32).pixels(range(3))), 1)[0]
    full = open_enlarger("transformer", model)(known, captions=CAPTIONS[:3], seed=4, first=0)
    assert full.shape == (3, 3, 32, 32)
    assert (analyze(full, 1)[0] - known).abs().max() < 1e-5


def test_neighbours_and_their_number_change_no_bit_and_seed_and_index_do(model: Model, few: Tensor) -> None:
    enlarger = open_enlarger("transformer", model)
    whole = enlarger(few, captions=CAPTIONS, seed=4, first=10)
    for index in (0, 13):
        one, caption = few[index : index + 1], CAPTIONS[index : index + 1]
        assert torch.equal(enlarger(one, captions=caption, seed=4, first=10 + index)[0], whole[index])
        assert not torch.equal(enlarger(one, captions=caption, seed=4, first=9 + index)[0], whole[index])
        assert not torch.equal(enlarger(one, captions=caption, seed=5, first=10 + index)[0], whole[index])


@pytest.mark.parametrize("name", ["detail", "transformer"])
def test_pictures_that_are_too_small_are_refused(name: str, model: Model) -> None:
    with pytest.raises(ConfigError, match="goes on from 8 or more"):
        open_enlarger(name, model)(torch.zeros(1, 3, 4, 4), captions=[""], seed=0, first=0)


class TestPublic:
    """Which transformer it is."""

    def test_the_weights_of_a_private_model_are_never_it(self, model: Model) -> None:
        private = replace(model, card={"started_from": {"name": "weights that nobody has"}})
        with pytest.raises(ConfigError, match="the public one alone"):
            open_enlarger("transformer", private)

    @pytest.mark.parametrize("brought", [True, False], ids=["brought along", "shipped"])
    def test_the_weights_that_a_private_model_began_from_are_found(self, brought: bool) -> None:
        public = Model.from_pretrained("thumb")
        with torch.no_grad():
            trained = Model.from_pretrained("thumb").transformer
            trained.word_head.weight.zero_()
        private = public.with_transformer(trained, {"started_from": dict(public.card)})
        enlarger = open_enlarger("transformer", private if brought else replace(private, reference=None))
        assert isinstance(enlarger, TransformerEnlarger)
        assert torch.equal(enlarger.public.transformer.word_head.weight, public.transformer.word_head.weight)

    def test_they_are_found_behind_two_runs_and_keep_their_own_card(self) -> None:
        public = Model.from_pretrained("thumb")
        once = public.with_transformer(create("thumb", public.vocabulary, 0).transformer, {})
        card = {"started_from": {"started_from": dict(public.card)}}
        for private in (replace(once, card=card), replace(once, card=card, reference=None)):
            enlarger = open_enlarger("transformer", private)
            assert isinstance(enlarger, TransformerEnlarger)
            assert enlarger.public.card == public.card
            weights = enlarger.public.transformer.word_head.weight
            assert torch.equal(weights, public.transformer.word_head.weight)

    def test_a_folder_of_public_weights_is_taken_with_its_digest(
        self, model: Model, few: Tensor, tiny_model: Path
    ) -> None:
        private = replace(model, card={"started_from": {}})
        enlarger = open_enlarger(tiny_model, private)
        assert list(enlarger.files) == ["tiny"]
        wanted = open_enlarger("transformer", model)(few, captions=CAPTIONS, seed=4, first=0)
        assert torch.equal(enlarger(few, captions=CAPTIONS, seed=4, first=0), wanted)

    def test_a_folder_of_private_weights_or_of_another_size_is_refused(
        self, model: Model, tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path / "private")
        card = read_json(tmp_path / "private" / "card.json")
        write_json(tmp_path / "private" / "card.json", card | {"started_from": {}})
        with pytest.raises(ConfigError, match="trained on private records"):
            open_enlarger(tmp_path / "private", model)
        other = create("tiny", Vocabulary.of(), 0)
        sizes = replace(other.tokenizer.config, image_size=64)
        other.tokenizer.config = sizes
        with pytest.raises(ConfigError, match="pictures of 32 pixels"):
            model.save_pretrained(tmp_path / "small")
            open_enlarger(tmp_path / "small", other)
