"""The methods of a table by name, and the public weights that each begins with.

dp-wavelet  dp-llamagen  dp-ldm       trained on the records
dp-wavelet:2  dp-wavelet:all          with so many private scales
dp-wavelet:chosen  dp-ldm:chosen      of several pictures the one that a likeness of the records chooses
dp-llamagen:away  dp-ldm:away         led away from their public weights when they draw, as ours always is
dp-ldm@0.25  dp-wavelet:2@0.1         with a share of the steps that all others take
dp-wavelet@0.1/4                      that share in batches of a quarter of the size, so four times the steps
public  public:dp-llamagen            the public weights alone, which no record has touched
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dpwavelet.checkpoint import canonical_json, digest
from dpwavelet.comparison.wavelet import DpWavelet
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling
from dpwavelet.model import CARD, Model, find
from dpwavelet.pipeline.settings import open_model
from dpwavelet.rivals.base import Rival

OURS, LLAMAGEN, LDM = "dp-wavelet", "dp-llamagen", "dp-ldm"
RIVALS = (LLAMAGEN, LDM)
SYSTEMS = (OURS, *RIVALS)
PUBLIC, AWAY, CHOSEN = "public", "away", "chosen"
LEADING = "away", "doubt"  # of how a method draws: what leads it away from its public weights
BUNDLED = "thumb"  # of ours, unless others are named
MOST_SHARE = 10  # of the steps of a table


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of a table, for every epsilon."""

    system: str
    scales: str = ""  # private ones of ours: a number, all, or as the weights have it
    away: bool = False  # drawn as ours is, where the authors of a rival draw otherwise
    chosen: bool = False  # of several pictures one, by a likeness of the records
    trained: bool = True  # on the records
    share: float = 1.0  # of the records that the whole of the steps sees
    parts: int = 1  # that each batch of the table is cut into

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read a name as it stands in the first lines of this module."""
        recipe, sign, effort = text.partition("@")
        found = cls._recipe(recipe, text)
        if not sign:
            return found
        if not found.trained:
            raise ConfigError(f"{recipe} takes no steps, so {text!r} can have no share of them.")
        share, cut, parts = effort.partition("/")
        return replace(found, share=_share(share, text), parts=_parts(parts, text) if cut else 1)

    @classmethod
    def _recipe(cls, recipe: str, text: str) -> "Method":
        name, sign, more = recipe.partition(":")
        if name == PUBLIC and (more or OURS) in SYSTEMS:
            return cls(system=more or OURS, trained=False)
        if name in SYSTEMS and (not sign or more == CHOSEN):
            return cls(system=name, chosen=bool(sign))
        if name in RIVALS and more == AWAY:
            return cls(system=name, away=True)
        if name == OURS and (more == "all" or (more.isdecimal() and int(more) > 0)):
            return cls(system=name, scales=more)
        raise ConfigError(
            f"there is no method {text!r}; there are {', '.join(SYSTEMS)}, {OURS}:1 and so on, {OURS}:all, "
            f"{LLAMAGEN}:{AWAY} and {LDM}:{AWAY}, {OURS}:{CHOSEN} and so on, {PUBLIC} and "
            f"{PUBLIC}:{LLAMAGEN} and so on."
        )

    @property
    def name(self) -> str:
        """As it is typed."""
        if self.parts > 1:
            return f"{self.recipe}@{self.share:g}/{self.parts}"
        return self.recipe if self.share == 1 else f"{self.recipe}@{self.share:g}"

    def batch_of(self, usual: int) -> int:
        """The records of a step, where those of the table have so many."""
        return max(round(usual / self.parts), 1)

    def steps_of(self, whole: int, usual: int) -> int:
        """Its steps, where the whole of them are so many of the table's batches."""
        return max(round(whole * self.share * usual / self.batch_of(usual)), 1)

    @property
    def recipe(self) -> str:
        """The same without its share of the steps and its batch."""
        if not self.trained:
            return PUBLIC if self.system == OURS else f"{PUBLIC}:{self.system}"
        variant = AWAY if self.away else CHOSEN if self.chosen else self.scales
        return f"{self.system}:{variant}" if variant else self.system


def _share(share: str, text: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_SHARE:
        raise ConfigError(
            f"after @ stands a share of the steps, above 0 and at most {MOST_SHARE}, as in {OURS}@0.25; "
            f"got {text!r}."
        )
    return value


def _parts(parts: str, text: str) -> int:
    if not (parts.isdecimal() and int(parts) > 0):
        raise ConfigError(
            f"after / stands how many parts each batch is cut into, as in {OURS}@0.1/4; got {text!r}."
        )
    return int(parts)


@dataclass(frozen=True, eq=False)
class System:
    """One system with its public weights, and what a table says of it."""

    rival: Rival[Any]
    image_size: int
    parameters: int  # of all its networks together
    settings: Mapping[str, Any]  # of its private training
    sampling: Mapping[str, Any]  # how it draws
    card: Mapping[str, Any]


def place_of(system: str, weights: Mapping[str, str]) -> Path:
    """The folder of the public weights of a system; one that was not named is a ConfigError."""
    if system == OURS:
        return find(weights.get(system, BUNDLED))
    if system not in weights:
        raise ConfigError(
            f"{system} begins with public weights, which do not come with the package. Make them with "
            f"`dpwavelet pretrain PUBLIC_IMAGES --method {system} --out FOLDER`, then give "
            f"--weights {system}=FOLDER."
        )
    if not (place := Path(weights[system])).is_dir():
        raise ConfigError(f"there is no folder {place}, which --weights names for {system}.")
    return place


def open_system(method: Method, place: Path) -> System:
    """Read the public weights of a method."""
    if method.system == OURS:
        return _ours(place, method.scales)
    system = _llamagen(place) if method.system == LLAMAGEN else _ldm(place)
    return _led_away(system) if method.away else system


def weights_digest(place: Path) -> str:
    """SHA-256 of every file below a folder of weights together, with their names.

    Not of the card: it says what they were made from, and decides no number.
    """
    files = sorted(path for path in place.rglob("*") if path.is_file() and path != place / CARD)
    told = {path.relative_to(place).as_posix(): digest(path) for path in files}
    return hashlib.sha256(canonical_json(told)).hexdigest()


def _ours(place: Path, scales: str) -> System:
    model = Model.from_pretrained(place)
    if scales:
        wanted = model.tokenizer.config.scales if scales == "all" else int(scales)
        model = open_model(str(place), wanted)
    rival = DpWavelet(model)
    networks = (model.tokenizer, model.transformer, model.detail)
    return _system(rival, model.image_size, _count(*networks), model.card)


def _llamagen(place: Path) -> System:
    from dpwavelet.rivals.llamagen.weights import PUBLISHED_BY, load, open_published

    rival = open_published(place) if (place / PUBLISHED_BY).is_file() else load(place)
    size = rival.tokenizer.config.image_size
    parameters = _count(rival.tokenizer, rival.transformer)
    return _system(rival, size, parameters, rival.card)


def _ldm(place: Path) -> System:
    from dpwavelet.rivals.diffusion import DpLdm
    from dpwavelet.rivals.diffusion.weights import DESCRIPTION, from_diffusers, load

    others = not (place / DESCRIPTION).exists() and (place / "unet").is_dir()
    diffusion = from_diffusers(place) if others else load(place)
    rival = DpLdm(diffusion).eval()
    parameters = _count(diffusion.autoencoder, diffusion.denoiser)
    return _system(rival, diffusion.image_size, parameters, diffusion.card)


def _led_away(system: System) -> System:
    """The same, drawn with that share of its guidance, and that doubt, that DP-Wavelet has.

    What DP-LDM says are no logits, so it knows no doubt.
    """
    rival: Any = system.rival
    ours = {name: getattr(Sampling(), name) for name in LEADING if hasattr(rival.sampling, name)}
    sampling = replace(rival.sampling, **ours)
    return replace(system, rival=replace(rival, sampling=sampling), sampling=asdict(sampling))


def _system(rival: Any, image_size: int, parameters: int, card: Mapping[str, Any]) -> System:
    return System(rival, image_size, parameters, asdict(rival.settings), asdict(rival.sampling), card)


def _count(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())
