"""Spectral image tokenizer: wavelet bands to token ids and back, coarse to fine (after arXiv 2412.09607).

Each band of the wavelet transform is one *scale*, cut into patches so that every scale has the same number of
tokens. Encoder and decoder are scale-causal: a token is a function of its own and coarser scales only, and is
computed from tensors that hold nothing else, so no fine coefficient can reach a coarse token, not by a bit.
Approximation and details have their own weights and their own codebook. Trained on public images only;
encoding a record is a fixed function of that record.

Letters: B batch, S scales, N tokens of a scale, D values of a patch, E width, K codes, C code width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.linear import Linear
from dpwavelet.wavelet import WAVELETS, analyze, synthesize

COMMITMENT = 0.1  # weight of the distance between a vector and its code, beside squared error of pixels


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Shape of a tokenizer; `patches` has one side length a scale, coarsest first."""

    image_size: int = 64
    patches: tuple[int, ...] = (2, 2, 4)
    wavelet: str = "haar"
    codes: int = 1024
    code_width: int = 16
    heads: int = 4
    encoder_width: int = 128
    encoder_depth: int = 3
    decoder_width: int = 192
    decoder_depth: int = 4

    def __post_init__(self) -> None:
        if self.wavelet not in WAVELETS:
            raise ConfigError(f"wavelet must be one of {', '.join(WAVELETS)}, got {self.wavelet!r}.")
        if len(self.patches) < 2 or self.image_size % 2**self.levels:
            raise ConfigError(
                f"image_size {self.image_size} must divide by 2 at each of {self.levels} levels."
            )
        for side, patch in zip(self.band_sides, self.patches, strict=True):
            if side % patch:
                raise ConfigError(
                    f"a band of {side} x {side} can't be cut into patches of {patch} x {patch}."
                )
        for width in (self.encoder_width, self.decoder_width):
            if width % self.heads:
                raise ConfigError(f"width {width} must divide by heads {self.heads}.")

    @property
    def levels(self) -> int:
        """Wavelet levels: one less than scales."""
        return len(self.patches) - 1

    @property
    def scales(self) -> int:
        """Number of scales S."""
        return len(self.patches)

    @property
    def band_sides(self) -> tuple[int, ...]:
        """Side of each band in coefficients, coarsest first."""
        return tuple(self.image_size >> level for level in (self.levels, *range(self.levels, 0, -1)))

    @property
    def image_sides(self) -> tuple[int, ...]:
        """Side of the partial image that the first s scales decode to."""
        return tuple(self.image_size >> (self.levels - scale) for scale in range(self.scales))

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple((side // patch) ** 2 for side, patch in zip(self.band_sides, self.patches, strict=True))

    @property
    def patch_values(self) -> tuple[int, ...]:
        """Coefficients of one patch of each scale."""
        return tuple((3 if scale == 0 else 9) * patch**2 for scale, patch in enumerate(self.patches))


class Codebook(nn.Module):
    """Vector quantizer: the nearest of K codes, learned as running means of what they stand for."""

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(config.codes, config.code_width))
        self.register_buffer("counts", torch.ones(config.codes), persistent=False)
        self.register_buffer("sums", torch.zeros(config.codes, config.code_width), persistent=False)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Ids [...] of the codes nearest to vectors [..., C]."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        # |v - c|^2 without |v|^2, which is the same for every code.
        scores = torch.addmm(self.codes.square().sum(1), flat, self.codes.T, alpha=-2)
        return scores.argmin(1).reshape(vectors.shape[:-1])

    @torch.no_grad()
    def adapt(self, vectors: Tensor, ids: Tensor, generator: torch.Generator, decay: float = 0.98) -> None:
        """Move each code towards the mean of the vectors [M, C] that chose it; revive codes nobody chose."""
        chosen = torch.bincount(ids, minlength=len(self.codes)).to(vectors)
        self.counts.lerp_(chosen, 1 - decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, ids, vectors), 1 - decay)
        self.codes.copy_(self.sums / self.counts.clamp_min(1e-6)[:, None])
        fair = len(vectors) / len(self.codes)
        dead = torch.nonzero(self.counts < 0.05 * fair).flatten()
        self.place(dead, vectors[torch.randint(len(vectors), (len(dead),), generator=generator)], fair)

    @torch.no_grad()
    def place(self, which: Tensor, vectors: Tensor, count: float) -> None:
        """Set codes `which` to `vectors`, as if each had been chosen `count` times."""
        self.codes[which], self.sums[which], self.counts[which] = vectors, vectors * count, count

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator, rounds: int = 10) -> None:
        """Start from k-means over vectors [M, C]; M should be several times K."""
        picked = torch.randperm(len(vectors), generator=generator)[: len(self.codes)]
        fair = len(vectors) / len(self.codes)
        self.place(torch.arange(len(picked)), vectors[picked], fair)
        for _ in range(rounds):
            self.adapt(vectors, self.nearest(vectors), generator, decay=0.0)


class TypedBlock(nn.Module):
    """A transformer block over scales: attention to own and coarser scales, weights by type of band."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.approximation = BlockWeights(width)
        self.details = BlockWeights(width)
        self.heads = heads

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Map one [B, N, E] a scale to the same shapes; the result for scale s reads scales 1..s only."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        out = []
        for scale, x in enumerate(scales):
            weights = self.approximation if scale == 0 else self.details
            query, key, value = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, E / heads]
                for part in weights.qkv(weights.attention_norm(x)).chunk(3, dim=-1)
            )
            keys.append(key)
            values.append(value)
            # [B, heads, N, N']
            scores = query @ torch.cat(keys, 2).transpose(-1, -2) / query.shape[-1] ** 0.5
            mixed = scores.softmax(-1).to(query) @ torch.cat(values, 2)
            x = x + weights.mix(mixed.transpose(1, 2).flatten(2))
            out.append(x + weights.mlp(x))
        return out


class BlockWeights(nn.Module):
    """The parameters of one block for one type of band."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.mix = Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width)
        )


class ScaleCausalTransformer(nn.Module):
    """Typed blocks between a linear map in and a linear map out, each with its own weights per scale.

    Beside the blocks runs a linear map from each patch straight to its output. It starts from principal
    components and the blocks start from nothing, so training begins where plain vector quantization ends and
    only has to learn what the context adds.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        tokens: Sequence[int],
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.enter = nn.ModuleList(Linear(values, width) for values in inputs)
        self.positions = nn.ParameterList(nn.Parameter(0.02 * torch.randn(count, width)) for count in tokens)
        self.blocks = nn.ModuleList(TypedBlock(width, heads) for _ in range(depth))
        self.leave = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), Linear(width, values)) for values in outputs
        )
        self.straight = nn.ModuleList(Linear(*ends) for ends in zip(inputs, outputs, strict=True))

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Map the first s scales, [B, N, inputs] each, to [B, N, outputs] each."""
        hidden = [self.enter[s](x) + self.positions[s] for s, x in enumerate(scales)]
        for block in self.blocks:
            hidden = block(hidden)
        return [
            self.leave[s](h) + self.straight[s](x)
            for s, (h, x) in enumerate(zip(hidden, scales, strict=True))
        ]

    def parameters_of(self, kind: str) -> list[nn.Parameter]:
        """What only the "approximation" or only the "details" use."""
        own = [p for name, p in self.blocks.named_parameters() if f".{kind}." in name]
        scales = [0] if kind == "approximation" else range(1, len(self.enter))
        for scale in scales:
            own += [self.positions[scale], *self.enter[scale].parameters()]
            own += [*self.leave[scale].parameters(), *self.straight[scale].parameters()]
        return own

    @torch.no_grad()
    def start_straight(self, scale: int, weight: Tensor, bias: Tensor) -> None:
        """Let a scale start from a linear map [outputs, inputs] alone."""
        straight, leave = self.straight[scale], self.leave[scale]
        assert isinstance(straight, nn.Linear) and isinstance(leave, nn.Sequential)
        straight.weight.copy_(weight)
        straight.bias.copy_(bias)
        for parameter in leave[1].parameters():
            parameter.zero_()


@dataclass(frozen=True)
class TokenizerLoss:
    """What one public training step found, to minimise and to print."""

    total: Tensor
    pixels: list[Tensor]  # mean squared error of each partial image that was learned from
    codes_used: float  # share of the codebook
    image: Tensor  # the last partial image, for further terms


class SpectralTokenizer(nn.Module):
    """Images in [-1, 1] to token ids per scale and back; see the module's first lines."""

    spread: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        codes = [config.code_width] * config.scales
        self.encoder = ScaleCausalTransformer(
            config.patch_values,
            codes,
            config.tokens,
            config.encoder_width,
            config.encoder_depth,
            config.heads,
        )
        self.decoder = ScaleCausalTransformer(
            codes,
            config.patch_values,
            config.tokens,
            config.decoder_width,
            config.decoder_depth,
            config.heads,
        )
        self.codebooks = nn.ModuleList((Codebook(config), Codebook(config)))
        # Standard deviation of each band over public images: the unit in which its patches are fed and read.
        self.register_buffer("spread", torch.ones(config.scales))

    def codebook(self, scale: int) -> Codebook:
        """The codebook of a scale: one for the approximation, one for all details."""
        book = self.codebooks[min(scale, 1)]
        assert isinstance(book, Codebook)
        return book

    @torch.no_grad()
    def encode(self, image: Tensor, scales: int | None = None) -> list[Tensor]:
        """Token ids [B, N] of the first `scales` scales of images [B, 3, H, W] in [-1, 1]."""
        return self.encode_bands(analyze(image, self.config.levels, self.config.wavelet)[:scales])

    @torch.no_grad()
    def encode_bands(self, bands: Sequence[Tensor]) -> list[Tensor]:
        """Token ids [B, N] of the first bands, as `wavelet.analyze` gives them: a partial encode."""
        vectors = self.encoder(self._patches(bands))
        return [self.codebook(scale).nearest(vector) for scale, vector in enumerate(vectors)]

    @torch.no_grad()
    def decode(self, tokens: Sequence[Tensor]) -> Tensor:
        """Image [B, 3, h, w] of the first scales given; with one scale, the coarse thumbnail."""
        return synthesize(self.decode_bands(tokens), self.config.wavelet)

    @torch.no_grad()
    def decode_bands(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Wavelet bands of the first scales, from token ids [B, N] each."""
        return self._bands(self.decoder([self.codebook(s).codes[ids] for s, ids in enumerate(tokens)]))

    def learns(self, kind: str) -> list[nn.Parameter]:
        """The parameters of the "approximation" or of the "details"."""
        return [*self.encoder.parameters_of(kind), *self.decoder.parameters_of(kind)]

    def loss(self, bands: Sequence[Tensor], kind: str, generator: torch.Generator) -> TokenizerLoss:
        """Mean squared error of the partial images of one kind of band, plus commitment, for public images.

        "approximation" needs the first band only. "details" learns from every later partial image and leaves
        the weights and codes of the approximation as they are. The codebook of that kind learns along.
        """
        first = 0 if kind == "approximation" else 1
        vectors = [vector.float() for vector in self.encoder(self._patches(bands))]
        with torch.autocast(bands[0].device.type, enabled=False):  # which code is nearest is decided in fp32
            ids = [self.codebook(s).nearest(vector.detach()) for s, vector in enumerate(vectors)]
            codes = [self.codebook(s).codes[chosen] for s, chosen in enumerate(ids)]
            learned = list(zip(vectors, codes, strict=True))[first:]
            commitment = torch.stack([F.mse_loss(v, c) for v, c in learned]).sum()
            chosen = torch.cat([i.flatten() for i in ids[first:]])
            self.codebook(first).adapt(
                torch.cat([v.detach().flatten(0, 1) for v, _ in learned]), chosen, generator
            )
            passed = [v + (c - v).detach() for v, c in zip(vectors, codes, strict=True)]
        decoded = self._bands([values.float() for values in self.decoder(passed)])
        pixels, image = [], decoded[0]
        for s in range(first, len(bands)):
            image = synthesize(decoded[: s + 1], self.config.wavelet)
            pixels.append(F.mse_loss(image, synthesize(bands[: s + 1], self.config.wavelet)))
        used = len(torch.unique(chosen)) / self.config.codes
        return TokenizerLoss(sum(pixels, COMMITMENT * commitment), pixels, used, image)

    @torch.no_grad()
    def start(self, bands: Sequence[Tensor], generator: torch.Generator) -> None:
        """Start from the bands of public images: units, principal components, k-means."""
        self.spread.copy_(torch.stack([band.square().mean().sqrt().clamp_min(1e-3) for band in bands]))
        width = self.config.code_width
        for scale, patches in enumerate(self._patches(bands)):
            flat = patches.flatten(0, 1)
            mean = flat.mean(0)
            _, _, directions = torch.linalg.svd(flat - mean, full_matrices=False)  # [D, D], strongest first
            axes = F.pad(directions[:width], (0, 0, 0, max(width - len(directions), 0)))  # [C, D]
            self.encoder.start_straight(scale, axes, -axes @ mean)
            self.decoder.start_straight(scale, axes.T, mean)
        vectors = self.encoder(self._patches(bands))
        for book, members in ((0, vectors[:1]), (1, vectors[1:])):
            self.codebook(book).start(torch.cat([v.flatten(0, 1) for v in members]), generator)

    def _patches(self, bands: Sequence[Tensor]) -> list[Tensor]:
        """Cut each band [B, c, h, w] into patches [B, N, c p p], in units of its spread."""
        return [
            F.pixel_unshuffle(band / spread, patch).flatten(2).transpose(1, 2)
            for band, patch, spread in zip(bands, self.config.patches, self.spread, strict=False)
        ]

    def _bands(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Invert `_patches`."""
        return [
            F.pixel_shuffle(torch.unflatten(values.mT, 2, (side // patch, side // patch)), patch) * spread
            for values, patch, side, spread in zip(
                patches, self.config.patches, self.config.band_sides, self.spread, strict=False
            )
        ]
