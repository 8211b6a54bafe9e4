"""The networks of a latent diffusion model: KL autoencoder, U-Net with cross-attention, caption embedder.

Autoencoder, U-Net and scheduler are classes of the library `diffusers`, as in the work this rival stands for.
The embedder is ours: the words of a public vocabulary through a small transformer. Nothing here is trained,
and nothing looks at records.

Letters: B records, K draws of a record, R = B K rows, L caption positions, E width of words,
C x h x w a latent, S side of the square in pixels.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import torch_stream
from dpwavelet.text import PAD, Vocabulary
from dpwavelet.transformer import Block

TIMES = 1000  # steps of noise from a picture to nothing
SCHEDULE = {
    "num_train_timesteps": TIMES, "beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0155,
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the three networks; each width in a tuple is that of a level, half the side of the last."""

    image_size: int
    autoencoder: tuple[int, ...]
    autoencoder_depth: int
    unet: tuple[int, ...]
    depth: int  # residual blocks of a level, each with its attention
    heads: int
    words_width: int  # E
    words_depth: int
    words_heads: int
    caption_length: int
    latent_channels: int = 4
    groups: int = 32  # of the group norms

    @property
    def latent_side(self) -> int:
        """Side of a latent."""
        return self.image_size >> (len(self.autoencoder) - 1)


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(
        image_size=32, autoencoder=(8, 8, 16), autoencoder_depth=1, unet=(16, 32), depth=1, heads=2,
        words_width=16, words_depth=1, words_heads=2, caption_length=24, groups=8,
    ),
    "thumb": Shape(
        image_size=64, autoencoder=(32, 64, 128), autoencoder_depth=2, unet=(64, 96, 128), depth=1, heads=4,
        words_width=128, words_depth=2, words_heads=4, caption_length=32,
    ),
    "photo": Shape(
        image_size=128, autoencoder=(128, 256, 512), autoencoder_depth=2, unet=(192, 320, 384), depth=2,
        heads=8, words_width=512, words_depth=4, words_heads=8, caption_length=64,
    ),
    "paper": Shape(
        image_size=256, autoencoder=(128, 256, 512, 512), autoencoder_depth=2, unet=(256, 512, 768), depth=2,
        heads=8, words_width=768, words_depth=8, words_heads=12, caption_length=128,
    ),
}  # fmt: skip
"""Beside the presets of the same names of `dpwavelet.model`: about as many weights in the generator."""


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
    """Shape of the caption embedder."""

    width: int
    depth: int
    heads: int
    caption_length: int

    def __post_init__(self) -> None:
        if min(self.depth, self.heads, self.caption_length) < 1 or self.width % self.heads:
            raise ConfigError(f"width must divide by heads, and all be at least 1; got {self}.")


class Embedder(Protocol):
    """Captions to what the U-Net attends to."""

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Ids [B, L] of captions, L always the same."""
        ...

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, E] of ids, and which positions [B, L] are there to be looked at."""
        ...


class CaptionEmbedder(nn.Module):
    """Words of a public vocabulary, each seen beside all others of its caption."""

    def __init__(self, config: EmbedderConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.words = nn.Embedding(len(vocabulary), config.width)
        self.places = nn.Embedding(config.caption_length, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """See `Embedder`."""
        ids = torch.full((len(captions), self.config.caption_length), PAD)
        for row, caption in zip(ids, captions, strict=True):
            found = self.vocabulary.ids(caption, self.config.caption_length)
            row[: len(found)] = torch.tensor(found)
        return ids

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See `Embedder`."""
        shown = ids != PAD
        hidden = torch.zeros(shown.shape, device=ids.device).masked_fill(~shown, float("-inf"))
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
        for block in self.blocks:
            x = block(x, hidden[:, None, None], None, 0)
        return self.norm(x), shown


class Attending:
    """Attention of a U-Net, by whichever of the two ways of `diffusers` is the faster.

    On a CPU the fused kernel is, unless there must be a way back: that one takes twice as long as the product
    of queries and keys written out, and in bfloat16 longer still.
    """

    def __init__(self) -> None:
        ways = diffusers().models.attention_processor
        self._written_out, self._fused = ways.AttnProcessor(), ways.AttnProcessor2_0()

    def __call__(self, attention: nn.Module, states: Tensor, *rest: Any, **named: Any) -> Tensor:
        """As of `diffusers`: states [R, T, E], or [R, E, h, w], to the same shape."""
        way = self._written_out if torch.is_grad_enabled() and states.device.type == "cpu" else self._fused
        found: Tensor = way(attention, states, *rest, **named)
        return found


def set_attention(unet: Any) -> None:
    """Have every plain attention of a U-Net computed by `Attending`; other kinds stay as they are."""
    plain = ("AttnProcessor", "AttnProcessor2_0")
    ways = {
        name: Attending() if type(way).__name__ in plain else way
        for name, way in unet.attn_processors.items()
    }
    unet.set_attn_processor(ways)


class Denoiser(nn.Module):
    """What is trained: the U-Net and the embedder that it reads captions by."""

    def __init__(self, unet: Any, embedder: Any) -> None:
        super().__init__()
        self.unet, self.embedder = unet, embedder

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def forward(self, noisy: Tensor, times: Tensor, ids: Tensor) -> Tensor:
        """What is wrong with noisy latents [R, C, h, w] at times [R], told captions [B, L].

        The K rows of a record stand together, and its caption is read once for all of them.
        """
        states, shown = self.embedder(ids)
        return self.said(noisy, times, states, shown)

    def said(self, noisy: Tensor, times: Tensor, states: Tensor, shown: Tensor) -> Tensor:
        """The same, told what the embedder made of the captions."""
        states, shown = (_for_rows(each, len(noisy)) for each in (states, shown))
        found: Tensor = self.unet(
            noisy, times, encoder_hidden_states=states, encoder_attention_mask=shown
        ).sample
        return found


def _for_rows(value: Tensor, rows: int) -> Tensor:
    """Each of [B, ...] as often as it has rows, [R, ...]."""
    return value[:, None].expand(-1, rows // len(value), *value.shape[1:]).flatten(0, 1)


@dataclass(frozen=True)
class LatentDiffusion:
    """Everything that turns a caption into an image, in memory."""

    image_size: int
    autoencoder: Any
    denoiser: Denoiser
    scheduler: Any
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latent(self) -> tuple[int, int, int]:
        """C, h and w."""
        levels = len(self.autoencoder.config.block_out_channels) - 1
        side = self.image_size >> levels
        return int(self.autoencoder.config.latent_channels), side, side

    @property
    def times(self) -> int:
        """How many steps of noise there are."""
        return int(self.scheduler.config.num_train_timesteps)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] in [-1, 1] to latents [B, C, h, w], the means, each from its image alone."""
        found: Tensor = self.autoencoder.encode(images).latent_dist.mode()
        return found * float(self.autoencoder.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, S, S], about in [-1, 1]."""
        images: Tensor = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample
        return images

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [R, C, h, w] at times [R] and what the denoiser should say of them."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, times)
        if self.scheduler.config.prediction_type == "epsilon":
            return noisy, noise
        return noisy, self.scheduler.get_velocity(latents, noise, times)

    def eval(self) -> "LatentDiffusion":
        """Freeze every weight and leave training mode; private training thaws what it may change."""
        for part in (self.autoencoder, self.denoiser):
            part.eval().requires_grad_(False)
        return self

    def to(self, device: torch.device) -> "LatentDiffusion":
        """Move every part, in place."""
        for part in (self.autoencoder, self.denoiser):
            part.to(device)
        return self

    def with_denoiser(self, denoiser: Denoiser) -> "LatentDiffusion":
        """The same frozen autoencoder beside another denoiser."""
        return replace(self, denoiser=denoiser)


def create(preset: str, vocabulary: Vocabulary, seed: int) -> LatentDiffusion:
    """An untrained model of a preset, its weights drawn from `seed`."""
    shape = SHAPES.get(preset)
    if shape is None:
        raise ConfigError(f"preset must be one of {', '.join(SHAPES)}, got {preset!r}.")
    library = diffusers()
    levels, below = len(shape.autoencoder), len(shape.unet)
    config = EmbedderConfig(
        width=shape.words_width,
        depth=shape.words_depth,
        heads=shape.words_heads,
        caption_length=shape.caption_length,
    )
    # These classes draw from torch's own generator: lend it the stream.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "diffusion weights").initial_seed())
        autoencoder = library.AutoencoderKL(
            block_out_channels=shape.autoencoder,
            layers_per_block=shape.autoencoder_depth,
            latent_channels=shape.latent_channels,
            norm_num_groups=shape.groups,
            sample_size=shape.image_size,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            scaling_factor=1.0,
        )
        unet = library.UNet2DConditionModel(
            sample_size=shape.latent_side,
            in_channels=shape.latent_channels,
            out_channels=shape.latent_channels,
            block_out_channels=shape.unet,
            layers_per_block=shape.depth,
            attention_head_dim=shape.heads,  # its name in diffusers for the number of heads
            cross_attention_dim=shape.words_width,
            norm_num_groups=shape.groups,
            use_linear_projection=True,
            down_block_types=("CrossAttnDownBlock2D",) * below,
            up_block_types=("CrossAttnUpBlock2D",) * below,
        )
        set_attention(unet)
        embedder = CaptionEmbedder(config, vocabulary)
    # Asked for noise, a small mistake at the noisiest times is a large one of the picture: colours go wild.
    scheduler = library.DDIMScheduler(**SCHEDULE, prediction_type="v_prediction")
    return LatentDiffusion(shape.image_size, autoencoder, Denoiser(unet, embedder), scheduler)


def attention_blocks(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module of each attention module of a U-Net, in the order in which it computes them."""
    found = [(name, m) for name, m in unet.named_modules() if type(m).__name__ == "Transformer2DModel"]
    order = ("down_blocks", "mid_block", "up_blocks")
    return sorted(found, key=lambda each: order.index(each[0].split(".")[0]))  # stable within each


def diffusers() -> Any:
    """The library, if it is there."""
    return library("diffusers", "diffusers")


def library(name: str, extra: str) -> Any:
    """A library that only this rival needs, or an error that says how to get it."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f'DP-LDM needs the package {name}: pip install "dpwavelet[{extra}]" ({error}).'
        ) from error
