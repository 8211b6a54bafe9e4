"""What stands before a picture, and how captions become ids for each kind of model."""

import sys
from copy import deepcopy
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.rivals.llamagen.prefixes import ClassPrefix, FeaturePrefix, WordPrefix, to_the_end
from dpwavelet.rivals.llamagen.transformer import LlamaConfig, LlamaTransformer
from dpwavelet.rivals.llamagen.words import T5, ClassNames, said
from dpwavelet.text import Vocabulary

NAMES = ["cat", "Tabby dog", "house"]


def test_padding_goes_before_what_was_said() -> None:
    moved, empty = to_the_end(torch.tensor([[1, 5, 0, 0], [1, 0, 0, 0], [1, 5, 6, 7]]))
    assert moved.tolist() == [[0, 0, 1, 5], [0, 0, 0, 1], [1, 5, 6, 7]]
    assert empty.tolist() == [2, 3, 0]


class TestWords:
    """Each word with its place."""

    def test_a_word_has_the_same_embedding_however_long_the_row_is(self) -> None:
        prefix = WordPrefix(9, 5, 4)
        short, long = prefix(torch.tensor([[1, 7]])), prefix(torch.tensor([[1, 7, 0, 0, 0]]))
        assert torch.equal(short.embeddings[0], long.embeddings[0, -2:])
        assert long.seen.tolist() == [[False, False, False, True, True]]

    def test_the_order_of_words_counts(self) -> None:
        prefix = WordPrefix(9, 5, 4)
        one, other = (prefix(torch.tensor([row])).embeddings.sum(1) for row in ([1, 7, 7, 8], [1, 8, 7, 7]))
        assert torch.allclose(one, other, atol=1e-5)  # as a bag they are the same
        first, second = (prefix(torch.tensor([row])).embeddings for row in ([1, 7, 7, 8], [1, 8, 7, 7]))
        assert not torch.allclose(first[0, 1], second[0, 3])

    def test_untold_is_the_start_alone(self) -> None:
        prefix = WordPrefix(9, 5, 4)
        untold = prefix.untold(torch.tensor([[1, 7, 8]]))
        empty = prefix(torch.tensor([[1, 0, 0]]))
        assert torch.equal(untold.embeddings, empty.embeddings)
        assert untold.seen.tolist() == [[False, False, True]]


class TestClasses:
    """One position."""

    def test_the_second_id_names_the_class_and_none_is_the_last_row(self) -> None:
        prefix, table = ClassPrefix(3, 4), None
        table = prefix.embedding_table.weight
        found = prefix(torch.tensor([[1, 2], [1, 4], [1, 0]])).embeddings[:, 0]
        assert torch.equal(found, table[[0, 2, 3]])
        assert torch.equal(prefix(torch.tensor([[1]])).embeddings[:, 0], table[[3]])
        assert torch.equal(prefix.untold(torch.tensor([[1, 2]])).embeddings[:, 0], table[[3]])

    def test_names_become_ids_and_captions_made_of_labels_too(self) -> None:
        names = ClassNames(NAMES)
        captions = ["cat", "a photo of a tabby dog", "House", "tabby_dog", ""]
        assert said(names, captions, 2).tolist() == [[1, 2], [1, 3], [1, 4], [1, 3], [1, 0]]

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(DataError, match="no class is called 'cow'"):
            ClassNames(NAMES).ids("cow", 2)

    def test_two_classes_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="different names"):
            ClassNames(["a cat", "A  cat"])


class TestFeatures:
    """Features come from an encoder or are given."""

    @pytest.fixture
    def prefix(self) -> FeaturePrefix:
        prefix = FeaturePrefix(4, 3, 6, None)
        prefix.uncond_embedding.copy_(torch.randn(4, 3))
        return prefix

    def test_given_features_stand_at_the_end(self, prefix: FeaturePrefix) -> None:
        features = torch.randn(2, 2, 3)
        found = prefix(features)
        assert found.seen.tolist() == [[False, False, True, True]] * 2
        assert torch.allclose(found.embeddings[:, 2:], prefix.cap_proj(features))

    def test_no_features_are_those_of_no_caption(self, prefix: FeaturePrefix) -> None:
        found = prefix(torch.zeros(1, 2, 3))
        assert torch.allclose(found.embeddings[0], prefix.cap_proj(prefix.uncond_embedding))
        assert bool(found.seen.all())

    def test_untold_is_as_long_as_the_caption(self, prefix: FeaturePrefix) -> None:
        found = prefix.untold(torch.randn(1, 2, 3))
        assert torch.allclose(found.embeddings[0], prefix.cap_proj(prefix.uncond_embedding))
        assert found.seen.tolist() == [[False, False, True, True]]

    def test_ids_without_an_encoder_are_refused(self, prefix: FeaturePrefix) -> None:
        with pytest.raises(ConfigError, match="text encoder"):
            prefix(torch.tensor([[1, 4]]))


class Pieces:
    """A tokenizer like that of the library: letters from 3 on, 1 at the end."""

    def __call__(self, text: str, *, max_length: int, truncation: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[*(3 + ord(sign) - ord("a") for sign in text[: max_length - 1]), 1])


class Encoder(nn.Module):
    """An encoder whose feature of a piece is its id and the sum of all that its row may see."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(
            vocab_size=40, d_model=2, to_dict=lambda: {"d_model": 2, "_name_or_path": str(id(self))}
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        total = (input_ids * attention_mask).sum(1, keepdim=True).expand_as(input_ids)
        return SimpleNamespace(last_hidden_state=torch.stack((input_ids, total), -1) * self.scale)


class TestT5:
    """A borrowed encoder, frozen and beside the model."""

    def test_captions_become_start_and_pieces(self) -> None:
        t5 = T5(Pieces(), Encoder())
        assert said(t5, ["AB ", "", "abcdefg"], 5).tolist() == [
            [1, 3, 4, 1, 0],
            [1, 0, 0, 0, 0],
            [1, 3, 4, 5, 1],
        ]

    def test_features_stand_at_the_end_and_nothing_before(self) -> None:
        t5 = T5(Pieces(), Encoder())
        found = t5(said(t5, ["ab", "", "abc"], 6))
        assert found.shape == (3, 5, 2)
        assert found[0].tolist() == [[0, 0], [0, 0], [3, 8], [4, 8], [1, 8]]
        assert not found[1].any()
        assert found[2].tolist() == [[0, 0], [3, 13], [4, 13], [5, 13], [1, 13]]

    def test_a_copy_of_a_model_reads_with_the_same_encoder(self) -> None:
        t5 = T5(Pieces(), Encoder())
        prefix = FeaturePrefix(4, 2, 6, t5)
        copy = deepcopy(prefix)
        assert copy.text is t5
        assert copy.cap_proj.fc1.weight is not prefix.cap_proj.fc1.weight
        assert not [name for name, _ in prefix.named_parameters() if "text" in name]

    def test_other_weights_of_it_are_another_start_of_a_run(self) -> None:
        """The key of the noise is bound to what a model is, and the encoder is no part of its weights."""
        config = LlamaConfig(
            prefix="features", feature_width=2, words=40, caption_length=5,
            codes=8, side=2, width=8, inner=8, depth=1, heads=1,
        )  # fmt: skip
        other = Encoder()
        other.scale.data += 1e-6
        first, second, third = (
            LlamaTransformer(config, T5(Pieces(), encoder)).identity
            for encoder in (Encoder(), Encoder(), other)
        )
        assert first == second != third

    def test_the_library_is_asked_for_what_lies_on_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []

        def opened(kind: Any) -> Any:
            def from_pretrained(folder: str, **options: Any) -> Any:
                asked.append((folder, options))
                return kind()

            return SimpleNamespace(from_pretrained=from_pretrained)

        module: Any = ModuleType("transformers")
        module.AutoTokenizer, module.T5EncoderModel = opened(Pieces), opened(Encoder)
        monkeypatch.setitem(sys.modules, "transformers", module)
        t5 = T5.open("somewhere")
        assert asked == [("somewhere", {"local_files_only": True})] * 2
        assert not any(p.requires_grad for p in t5.encoder.parameters())
        assert t5.pieces == 40

    def test_without_the_library_it_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r"dpwavelet\[transformers\]"):
            T5.open("somewhere")


def test_ids_are_as_wide_for_any_request() -> None:
    vocabulary = Vocabulary.of()
    alone = said(vocabulary, ["a red house"], 9)
    beside = said(vocabulary, ["a red house", "a smiling woman with short black hair"], 9)
    assert alone.shape == (1, 9)
    assert torch.equal(alone[0], beside[0])
    assert alone[0, :4].tolist() == vocabulary.ids("a red house", 9)
