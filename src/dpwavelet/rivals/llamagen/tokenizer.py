"""Convolutional picture tokenizer (VQGAN as in LlamaGen, arXiv 2406.06525): one raster of codes a picture.

An encoder halves the side a few times, each place of what is left chooses the nearest of K codes, and a
decoder makes the picture again. Vectors and codes are compared by angle: both have length one. The parts have
the names of the published files, so those load as they are. Trained on public images only; encoding a record
is a fixed function of that record.

Letters: B batch, S side in pixels, h side of the raster, N = h h tokens, C channels, K codes, D code width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError

COMMITMENT = 0.25  # of a vector to its code, beside the pull of the code to the vector
SHARPNESS = 100.0  # of the choice between codes that the entropy is taken of
AT_ONCE = 16  # pictures, always: how many there are must not change how one of them is rounded


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """Shape of a tokenizer; `multipliers` has one entry a resolution, and the side halves between them."""

    image_size: int = 64
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    depth: int = 2  # residual blocks of a resolution in the encoder; the decoder has one more
    groups: int = 32  # of the norms
    latent: int = 64  # channels between the networks and the codes
    codes: int = 2048
    code_width: int = 8
    entropy_weight: float = 0.0  # of choices that are sure one by one and even altogether

    def __post_init__(self) -> None:
        if not self.multipliers or self.image_size % self.downsampling:
            raise ConfigError(
                f"image_size {self.image_size} must divide by {self.downsampling}, the factor between a "
                "picture and its raster."
            )
        if odd := [m for m in self.multipliers if self.channels * m % self.groups]:
            raise ConfigError(
                f"{self.channels * odd[0]} channels can't be cut into {self.groups} groups; change one."
            )

    @property
    def downsampling(self) -> int:
        """Pixels of one token, along a side."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def side(self) -> int:
        """Side h of the raster."""
        return self.image_size // self.downsampling

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each scale: there is one scale."""
        return (self.side**2,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution, finest first."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


@dataclass(frozen=True)
class Autoencoded:
    """What one public training step sees of a batch."""

    image: Tensor  # [B, 3, S, S]
    quantization: Tensor  # how far vectors and codes are apart, with the entropy term
    used: float  # share of the codes that were chosen


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions of normalised inputs, beside a shortcut."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, eps=1e-6)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, after, eps=1e-6)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C', h, w]."""
        change: Tensor = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + change


class PlaceAttention(nn.Module):
    """Every place looks at every other, with one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        y = self.norm(x)
        query, key, value = (layer(y).flatten(2).mT for layer in (self.q, self.k, self.v))  # [B, h w, C]
        mixed = (query @ key.mT / x.shape[1] ** 0.5).softmax(-1) @ value
        change: Tensor = self.proj_out(torch.unflatten(mixed.mT, 2, tuple(x.shape[2:])))
        return x + change


class Halve(nn.Module):
    """A convolution of every second place; the odd pixel of padding lies right and below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h / 2, w / 2]."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Double(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, 2 h, 2 w]."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Level(nn.Module):
    """The residual blocks of one resolution, attention after each at the coarsest, and a change of side."""

    def __init__(self, before: int, after: int, depth: int, groups: int, attends: bool) -> None:
        super().__init__()
        widths = (before, *[after] * depth)
        self.res = nn.ModuleList(ResidualBlock(*ends, groups) for ends in pairwise(widths))
        self.attn = nn.ModuleList(PlaceAttention(after, groups) for _ in range(depth if attends else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C', h', w']."""
        for place, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[place](x)
        for resize in (self.downsample, self.upsample):
            x = x if resize is None else resize(x)
        return x


def _middle(width: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(
        (
            ResidualBlock(width, width, groups),
            PlaceAttention(width, groups),
            ResidualBlock(width, width, groups),
        )
    )


class Encoder(nn.Module):
    """Pictures to the vectors of their places."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for place, (before, after) in enumerate(pairwise((widths[0], *widths))):
            level = Level(before, after, config.depth, config.groups, place == last)
            if place != last:
                level.downsample = Halve(after)
            self.conv_blocks.append(level)
        self.mid = _middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, latent, h, h]."""
        x = self.conv_in(x)
        for part in (*self.conv_blocks, *self.mid):
            x = part(x)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return y


class Decoder(nn.Module):
    """The other way, with one residual block more at each resolution."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.mid = _middle(widths[0], config.groups)
        self.conv_blocks = nn.ModuleList()
        for place, (before, after) in enumerate(pairwise((widths[0], *widths))):
            level = Level(before, after, config.depth + 1, config.groups, place == 0)
            if place != len(widths) - 1:
                level.upsample = Double(after)
            self.conv_blocks.append(level)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, latent, h, h] to [B, 3, S, S]."""
        x = self.conv_in(x)
        for part in (*self.mid, *self.conv_blocks):
            x = part(x)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return y


class Codes(nn.Module):
    """K codes of length one, learned by gradients."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        with torch.no_grad():
            self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=1))

    @property
    def table(self) -> Tensor:
        """[K, D], each row of length one."""
        return F.normalize(self.embedding.weight.float(), dim=1)


class VQTokenizer(nn.Module):
    """Images in [-1, 1] to token ids in reading order and back; see the module's first lines."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = Codes(config.codes, config.code_width)
        self.quant_conv = nn.Conv2d(config.latent, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Token ids [B, N] of images [B, 3, S, S] in [-1, 1]."""
        table = self.quantize.table
        return _at_once(lambda part: (self._vectors(part) @ table.T).argmax(-1), images)

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """Images [B, 3, S, S] of token ids [B, N]."""
        table = self.quantize.table
        return _at_once(lambda part: self._image(table[part]), ids).clamp(-1, 1)

    def forward(self, images: Tensor) -> Autoencoded:
        """What the picture becomes, and what is asked of vectors and codes; gradients pass the choice."""
        vectors = self._vectors(images)
        with torch.autocast(images.device.type, enabled=False):  # which code is nearest is decided in fp32
            table = self.quantize.table
            likeness = vectors @ table.T  # [B, N, K]
            ids = likeness.argmax(-1)
            codes = table[ids]
            apart = F.mse_loss(codes, vectors.detach()) + COMMITMENT * F.mse_loss(vectors, codes.detach())
            if self.config.entropy_weight:
                apart = apart + self.config.entropy_weight * entropy(likeness.flatten(0, 1))
            passed = vectors + (codes - vectors).detach()
        used = len(torch.unique(ids)) / self.config.codes
        return Autoencoded(self._image(passed), apart, used)

    @torch.no_grad()
    def start(self, images: Tensor, generator: torch.Generator) -> None:
        """Let the codes be vectors of public images, drawn by chance; if there are too few, they repeat."""
        vectors = self._vectors(images).flatten(0, 1).cpu()
        chosen = torch.randperm(len(vectors), generator=generator)
        rows = chosen.repeat(-(-self.config.codes // len(chosen)))[: self.config.codes]
        self.quantize.embedding.weight.copy_(vectors[rows])

    def _vectors(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, N, D], each of length one."""
        found: Tensor = self.quant_conv(self.encoder(images))
        return F.normalize(found.float().flatten(2).mT, dim=-1)

    def _image(self, codes: Tensor) -> Tensor:
        """[B, N, D] to [B, 3, S, S]."""
        raster = torch.unflatten(codes.mT, 2, (self.config.side, self.config.side))
        image: Tensor = self.decoder(self.post_quant_conv(raster)).float()
        return image


def entropy(likeness: Tensor) -> Tensor:
    """Mean entropy of each choice, less the entropy of the mean choice; of cosines [M, K]."""
    chances = (2 * SHARPNESS * likeness).softmax(-1)  # squared distance is 2 - 2 cosine
    return _entropy(chances).mean() - _entropy(chances.mean(0))


def _entropy(chances: Tensor) -> Tensor:
    return -(chances * chances.clamp_min(1e-12).log()).sum(-1)


def _at_once(each: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply `each` to `AT_ONCE` rows at a time; the last ones are filled up."""
    found = []
    for part in torch.split(rows, AT_ONCE):
        filled = torch.cat((part, part[-1:].expand(AT_ONCE - len(part), *part.shape[1:])))
        found.append(each(filled)[: len(part)])
    return torch.cat(found) if len(rows) else each(rows)
