"""The public transformer goes on where the private one stopped, and draws the tokens of the fine scales.

It has seen no record: it is the transformer of the public weights and not the one that was trained privately.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dpwavelet.enlargers.base import consistent, in_batches, known_levels
from dpwavelet.errors import ConfigError
from dpwavelet.generation import PUBLIC, Sampling, draw_tokens
from dpwavelet.model import Model, bundled, read_card
from dpwavelet.wavelet import analyze


@dataclass(frozen=True)
class TransformerEnlarger:
    """See the module's first lines. The coarse picture is read as tokens, and the others follow them."""

    public: Model
    files: Mapping[str, str] = field(default_factory=dict)
    consistent: bool = True
    sampling: Sampling = PUBLIC

    @property
    def name(self) -> str:
        """What it is."""
        return f"the public transformer ({self.public.preset}), which draws the fine scales"

    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """See `Enlarger`."""
        config = self.public.tokenizer.config
        known = known_levels(few.shape[-1], self.public.image_size, config.levels)
        if known == config.levels:
            return few
        self.public.to(few.device)
        ids = in_batches(lambda part: self._read(part, known), few)
        counts = list(config.tokens[: known + 1])
        full = self.continued(list(torch.split(ids, counts, 1)), captions=captions, seed=seed, first=first)
        return consistent(full, few, config.wavelet) if self.consistent else full

    def continued(self, given: Sequence[Tensor], *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """Full pictures [B, 3, S, S] around given tokens [B, N] of the coarse scales."""
        public = self.public
        words = public.vocabulary.encode(captions, public.transformer.config.caption_length)
        tokens = draw_tokens(
            public.transformer, words.to(given[0].device), public.tokenizer.config.scales, self.sampling,
            seed, first, given=given,
        )  # fmt: skip
        return in_batches(lambda *ids: public.tokenizer.decode(ids), *tokens)

    def _read(self, few: Tensor, known: int) -> Tensor:
        """Token ids [B, N], all scales in one row."""
        config = self.public.tokenizer.config
        bands = analyze(few, known, config.wavelet) if known else [few]
        return torch.cat(self.public.tokenizer.encode_bands(bands), 1)


def public_weights_of(model: Model) -> Model:
    """The public weights that a model is or began from.

    A model brings them along; for one that was made before it did, they may ship with the package.
    """
    card = model.card
    while isinstance(before := card.get("started_from"), dict):
        card = before
    if model.reference is not None:
        return replace(model, transformer=model.reference, reference=None, card=card)
    if "started_from" not in model.card:
        return model
    for folder in bundled().values():
        if read_card(folder) == card and _same(found := Model.from_pretrained(folder), model):
            return found
    raise ConfigError(
        "this model's transformer was trained on private records, and detail may come from the public one "
        "alone; give the folder of the weights that it began from as the enlarger."
    )


def _same(first: Model, second: Model) -> bool:
    """Whether two models read pictures as the same tokens."""
    one, other = first.tokenizer.state_dict(), second.tokenizer.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name].cpu()) for name in one)
