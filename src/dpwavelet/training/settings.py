"""Public settings of private training; the promise itself is in the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from dpwavelet.adapters import is_of_pair
from dpwavelet.errors import ConfigError
from dpwavelet.images.variants import AUGMENTS, Augment
from dpwavelet.privacy.clipping import MOST

Parameters = Literal["all", "attention", "blocks", "heads", "lora"]
Emphases = Literal["measured", "even"]
Schedule = Literal["linear", "constant", "cosine"]
CHOICES: Mapping[str, tuple[str, ...]] = {
    "schedule": get_args(Schedule),
    "augment": AUGMENTS,
    "parameters": get_args(Parameters),
    "emphasis": get_args(Emphases),
}
HEADS = ("code_heads.", "final_norm.", "code_embedding.")


class Emphasis(NamedTuple):
    """How much a parameter matters in private training, beside the others."""

    weight: float = 1.0  # of its gradients before they are measured and clipped, a power of two
    rate: float = 1.0  # times the learning rate


EVEN = Emphasis()
MEASURED: Mapping[str, Emphasis] = {
    "code_heads.": Emphasis(0.5, 0.4),
    "code_embedding.": Emphasis(0.25, 0.3),
    "cell_position.": Emphasis(0.5, 0.6),
    ".mix.": Emphasis(0.5, 0.8),
    ".qkv.": Emphasis(1.0, 1.4),
    ".widen.": Emphasis(2.0, 2.0),
    ".narrow.": Emphasis(2.0, 2.0),
    "norm.": Emphasis(1.0, 2.0),
}
"""By a part of the name. How many records agree on a gradient, and what noise on the parameter costs, were
measured on public stand-ins (docs/design/0014): all that is said of codes is nearly noise, while attention
and the layers between say much and bear noise well."""


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """Public settings of the loop; the promise itself is in the plan."""

    learning_rate: float = 3e-3
    warmup: float = 0.05  # share of the steps over which the learning rate rises
    schedule: Schedule = "linear"  # how it goes on from there: down to zero, or not at all
    average: float = 0.9  # decay of the average of the weights that is released; 0 releases the last ones
    caption_weight: float = 0.03  # of what one record may say, most is for its picture
    caption_dropout: float = 0.1
    views: int = 1  # v: of one record in a step; their losses are averaged before anything is clipped
    augment: Augment = "none"  # which variants of its image a view may show
    parameters: Parameters = "all"
    rank: int = 8  # of the pairs that "lora" trains
    emphasis: Emphases = "measured"  # whether some parameters count more than others, see MEASURED
    per_unit: int = 1  # k: at most so many records of one person take part in a step
    chunk: int = 32  # views computed at once, or units if there is one view; any number gives the same sums
    mixed_precision: bool = True  # products in bfloat16, where the processor has them
    compiled: bool = False  # whether each chunk runs as one compiled graph: a minute first, then faster
    charge_every: int = 10  # steps between two checkpoints, and the block charged to the ledger at once

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and 0 <= self.warmup < 1 and 0 <= self.average < 1):
            raise ConfigError(
                "learning_rate must be above 0, warmup and average at least 0 and below 1; got "
                f"{self.learning_rate}, {self.warmup} and {self.average}."
            )
        if not (0 <= self.caption_dropout <= 1 and self.caption_weight >= 0):
            raise ConfigError(
                "caption_dropout must be in [0, 1] and caption_weight at least 0; got "
                f"{self.caption_dropout} and {self.caption_weight}."
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be {_or(choices)}, got {getattr(self, name)!r}.")
        for name in ("chunk", "charge_every", "per_unit", "views", "rank"):
            if getattr(self, name) < 1:
                option = " (--per-person)" if name == "per_unit" else ""
                raise ConfigError(f"{name}{option} must be at least 1, got {getattr(self, name)}.")
        if self.chunk > MOST:
            raise ConfigError(f"chunk must be at most {MOST}, got {self.chunk}; it changes no sum.")

    @property
    def units_at_once(self) -> int:
        """Units of a chunk: fewer where each brings several views."""
        return max(self.chunk // self.views, 1)

    def trained(self, name: str) -> bool:
        """Whether the parameter of this name, in what `learner` makes, is trained."""
        if self.parameters == "attention":
            return ".qkv." in name or ".mix." in name
        if self.parameters == "heads":
            return name.startswith(HEADS)
        if self.parameters == "lora":
            return is_of_pair(name)
        return self.parameters == "all" or name.startswith("blocks.")

    @property
    def emphases(self) -> list[list[str | float]] | None:
        """The table that it goes by, in its order, since the first part that fits counts; none if even."""
        if self.emphasis == "even":
            return None
        return [[part, *each] for part, each in MEASURED.items()]

    def emphasis_of(self, name: str) -> Emphasis:
        """That of the parameter of this name."""
        if self.emphasis == "even" or is_of_pair(name):
            return EVEN
        return next((emphasis for part, emphasis in MEASURED.items() if part in name), EVEN)


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
