"""What stands before the tokens of a picture: words of a caption, a class, or features of a text encoder.

Captions come as ids [B, L]: START, then what was said, then PAD. A caption of START alone says nothing, and
then the picture is drawn without one. What is said stands at the end of the prefix, next to the picture.

Letters: B records, L caption ids, P prefix positions, E width, F width of features.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.linear import Linear
from dpwavelet.text import PAD, START


@dataclass(frozen=True)
class Prefix:
    """Embeddings [B, P, E], and which of them are more than padding [B, P]."""

    embeddings: Tensor
    seen: Tensor

    def beside(self, other: "Prefix") -> "Prefix":
        """The rows of this one and then those of the other."""
        return Prefix(torch.cat((self.embeddings, other.embeddings)), torch.cat((self.seen, other.seen)))


class TextEncoder(Protocol):
    """A frozen network that is no part of the model, so no `nn.Module`."""

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        ...

    def __call__(self, captions: Tensor) -> Tensor:
        """Features [B, P, F] of captions [B, L], each by itself; zeros before those of what was said."""
        ...


class WordPrefix(nn.Module):
    """START and the words of a caption, each with its place."""

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Embedding(length, width)

    def forward(self, captions: Tensor) -> Prefix:
        """Of captions [B, L]."""
        ids, empty = to_the_end(captions)
        places = (torch.arange(ids.shape[1], device=ids.device) - empty[:, None]).clamp_min(0)
        return Prefix(self.words(ids) + self.places(places), ids != PAD)

    def untold(self, captions: Tensor) -> Prefix:
        """The prefix of as many pictures without captions."""
        nothing = torch.full_like(captions, PAD)
        nothing[:, 0] = START
        found: Prefix = self(nothing)
        return found


class ClassPrefix(nn.Module):
    """One position: the class of the picture, or that it has none."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, captions: Tensor) -> Prefix:
        """Of captions [B, L], whose second id is 2 for the first class."""
        told = F.pad(captions, (0, 1), value=PAD)[:, 1:2]
        row = torch.where(told == PAD, self.classes, told - 2)
        return Prefix(self.embedding_table(row), torch.ones_like(row, dtype=torch.bool))

    def untold(self, captions: Tensor) -> Prefix:
        """The prefix of as many pictures of no class."""
        found: Prefix = self(captions[:, :1])
        return found


class FeaturePrefix(nn.Module):
    """Features of a text encoder through two linear maps; one fixed set of features stands for no caption."""

    uncond_embedding: Tensor

    def __init__(self, length: int, features: int, width: int, text: TextEncoder | None) -> None:
        super().__init__()
        self.cap_proj = Projection(features, width)
        self.register_buffer("uncond_embedding", torch.zeros(length, features))
        self.text = text

    def forward(self, captions: Tensor) -> Prefix:
        """Of caption ids [B, L], or of features [B, P, F] themselves with zeros where nothing is."""
        features, seen = self._features(captions)
        nothing = ~seen.any(1, keepdim=True)
        told = torch.where(nothing[..., None], self.uncond_embedding, features)
        return Prefix(self.cap_proj(told), seen | nothing)

    def untold(self, captions: Tensor) -> Prefix:
        """The prefix of no caption, as long as that of these captions: so it was trained."""
        features, seen = self._features(captions)
        nothing = self.uncond_embedding.expand(len(features), -1, -1)
        return Prefix(self.cap_proj(nothing), seen | ~seen.any(1, keepdim=True))

    def _features(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, P, F] and what of it is more than padding, at the end of the prefix."""
        if not captions.is_floating_point():
            if self.text is None:
                raise ConfigError(
                    "this model reads features of a text encoder; open it with one, or give features "
                    "[B, P, F] in the place of ids."
                )
            captions = self.text(captions)
        length = len(self.uncond_embedding)
        given = F.pad(captions.float(), (0, 0, max(length - captions.shape[1], 0), 0))[:, -length:]
        return given, (given != 0).any(-1)


class Projection(nn.Module):
    """From the width of features to that of the model."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(features, width, bias=False)
        self.fc2 = Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, F] to [B, P, E]."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


def to_the_end(captions: Tensor) -> tuple[Tensor, Tensor]:
    """Captions [B, L] with their padding before them, and how much of it there is [B]."""
    length = captions.shape[1]
    empty = length - (captions != PAD).sum(1)
    order = (torch.arange(length, device=captions.device) - empty[:, None]) % length
    return captions.gather(1, order), empty
