"""What the public weights can do, on public images that none of them has seen.

    python benchmarks/public_weights.py                     # every part, on held-out Tiny ImageNet
    python benchmarks/public_weights.py --only tokenizer    # what some of its tokens leave of a picture
    python benchmarks/public_weights.py --only transformer  # nats a token, by scale, and a word
    python benchmarks/public_weights.py --only detail       # pictures from true coarse ones, and others'
    python benchmarks/public_weights.py --only mistakes     # and from coarse ones that hold mistakes

`--before FILE` adds the detail model of a work folder (detail.safetensors) to the last two: what it was
before it was hardened. Prints Markdown. Exits 1 if the detail model is not ahead of bicubic enlargement and
of the staged networks by ours, or moves the coarse band. Nothing but numbers and, with `--sheet FOLDER`,
pictures is written. Distances by our own network flatter our detail model, which learned from it: the
witnesses did not take part.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _witnesses import witnesses
from scipy.fft import dctn
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.enlargers import DetailEnlarger, Enlarger, TransformerEnlarger
from dpwavelet.enlargers.detail import NOISE
from dpwavelet.enlargers.network import open_network
from dpwavelet.evaluation import Extractor, Statistics, extractor, frechet_between
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes, png, sheet, to_bytes
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import Model
from dpwavelet.pretraining.detail_stage import REDRAWN, redraw
from dpwavelet.pretraining.stages import PublicPixels, encode_all, mixed_precision_of
from dpwavelet.randomness import stream
from dpwavelet.upsampling import DetailModel
from dpwavelet.wavelet import analyze, synthesize

NETWORKS = {
    "Real-ESRGAN general x4v3": "sr_realesr_general_x4v3.npz",
    "LSDIR compact x4": "sr_lsdir_compact_c3_x4.npz",
}
PARTS = ("tokenizer", "transformer", "detail", "mistakes")
Enlarge = Callable[[Tensor], Tensor]


def main() -> None:
    wanted = arguments()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    data = staged()
    if data is None:
        print("The staged images are not here: set DPWAVELET_DATA, or put them beside the repository.")
        return
    model = Model.from_pretrained(wanted.model)
    images = PublicImages.open(data / "public/tinyimagenet64.tar.xz", model.image_size, "val")
    public = PublicPixels.read(images).first(wanted.images)
    good = True
    if "tokenizer" in wanted.only:
        tell_tokenizer(model, from_bytes(torch.from_numpy(public.pixels)))
    if "transformer" in wanted.only:
        tell_transformer(model, public)
    judges = [extractor(), *witnesses(data / "weights")]
    with tempfile.TemporaryDirectory() as folder:
        if "detail" in wanted.only:
            good = tell_detail(model, public, data, Path(folder), judges, wanted)
        if "mistakes" in wanted.only:
            tell_mistakes(model, public, judges, wanted)
    sys.exit(0 if good else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="thumb", help="a name or a folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--before", type=Path, help="state of the detail model before it was hardened")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--noise", type=float, default=NOISE, help="of that of the detail model, 0 to 1")
    parser.add_argument("--continued", type=int, default=500, help="images that the transformer finishes")
    parser.add_argument("--sheet", type=Path, help="folder for sheets of pictures")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def staged() -> Path | None:
    """The folder of staged images, if it is here."""
    named = os.environ.get("DPWAVELET_DATA")
    place = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return place if (place / "public").is_dir() else None


@torch.no_grad()
def tell_tokenizer(model: Model, images: Tensor) -> None:
    """Error of every partial picture, and how many codes are in use."""
    tokenizer, config, network = model.tokenizer, model.tokenizer.config, FeatureNetwork.from_pretrained()
    errors: list[list[float]] = [[] for _ in range(config.scales)]
    seen: list[list[float]] = [[] for _ in range(config.scales)]
    used: list[set[int]] = [set(), set()]
    for batch in torch.split(images, 250):
        bands = analyze(batch, config.levels, config.wavelet)
        ids = tokenizer.encode_bands(bands)
        decoded = tokenizer.decode_bands(ids)
        for scale in range(config.scales):
            used[min(scale, 1)] |= set(torch.unique(ids[scale]).tolist())
            kept, wanted = (synthesize(b[: scale + 1], config.wavelet) for b in (decoded, bands))
            errors[scale].append(float(F.mse_loss(kept, wanted)) * len(batch))
            pair = (F.interpolate(each, size=config.image_size) for each in (kept, wanted))
            seen[scale] += perceptual_distance(network, *pair).tolist()
    print(
        f"\n| first scales | picture | tokens | PSNR of {len(images)} | Gaussian bound "
        "| perceptual (thumb), enlarged | codes used |\n" + "|---" * 7 + "|"
    )
    for scale, side in enumerate(config.image_sides):
        quality = 10 * math.log10(4 * len(images) / sum(errors[scale]))
        share = len(used[min(scale, 1)]) / config.codes
        tokens = sum(config.tokens[: scale + 1])
        partial = synthesize(analyze(images, config.levels, config.wavelet)[: scale + 1], config.wavelet)
        most = gaussian_bound(partial, tokens * math.log2(config.codes))
        print(
            f"| {scale + 1} | {side} x {side} | {tokens} | {quality:.2f} dB | {most:.2f} dB "
            f"| {np.mean(seen[scale]):.4f} | {share:.1%} |",
            flush=True,
        )


def gaussian_bound(images: Tensor, bits: float) -> float:
    """The best PSNR that `bits` a picture allow for Gaussian pictures of this spectrum and colour covariance.

    Reverse water-filling over the coefficients of a cosine transform, whose variances are measured on the
    pictures themselves, [N, 3, S, S] in [-1, 1]. Real pictures are not Gaussian: a code may pass it a little.
    """
    pixels = images.numpy().astype(np.float64)
    covariance = np.cov(pixels.transpose(1, 0, 2, 3).reshape(3, -1))
    axes = np.linalg.eigh(covariance)[1]
    colours = np.einsum("dc,ndij->ncij", axes, pixels - pixels.mean((0, 2, 3), keepdims=True))
    variances = (dctn(colours, axes=(2, 3), norm="ortho") ** 2).mean(0).ravel()
    low, high = 1e-9, float(variances.max())
    for _ in range(100):
        level = math.sqrt(low * high)
        needed = 0.5 * np.log2(np.maximum(variances / level, 1)).sum()
        low, high = (level, high) if needed > bits else (low, level)
    return float(-10 * np.log10(np.minimum(variances, level).mean() / 4))


@torch.no_grad()
def tell_transformer(model: Model, public: PublicPixels) -> None:
    """Cross-entropies with captions as in training, of each picture once."""
    transformer, scales = model.transformer, model.tokenizer.config.scales
    tokens, texts = encode_all(model, public, scales), public.texts()
    generator = stream(0, "held-out captions")
    words = model.vocabulary.encode(
        [text.say(generator, False) for text in texts], transformer.config.caption_length
    )
    silent = torch.full_like(words[:, :1], 1)
    sums = np.zeros((2, scales + 1))
    for row, captions in enumerate((words, silent)):
        for start in range(0, len(public), 100):
            ids = [torch.from_numpy(table[0, start : start + 100].astype(np.int64)) for table in tokens]
            with mixed_precision_of(transformer):
                found = transformer.losses(captions[start : start + 100], ids)
            sums[row] += [float(each.sum()) for each in (*found.scales, found.caption)]
    means = sums / len(public)
    columns = [*(f"scale {scale + 1}" for scale in range(scales)), "a word"]
    print("\n| nats a token | " + " | ".join(columns) + " |\n|" + "---|" * (scales + 2))
    print("| with captions | " + " | ".join(f"{value:.4f}" for value in means[0]) + " |")
    print("| without | " + " | ".join(f"{value:.4f}" for value in means[1, :-1]) + " | |", flush=True)


def tell_detail(
    model: Model,
    public: PublicPixels,
    data: Path,
    folder: Path,
    judges: list[Extractor],
    wanted: argparse.Namespace,
) -> bool:
    """Full pictures from the box-averaged ones; whether ours is ahead of those it must beat."""
    images = from_bytes(torch.from_numpy(public.pixels))
    coarse = analyze(images, model.tokenizer.config.levels, model.tokenizer.config.wavelet)[0]
    wavelet, side = model.tokenizer.config.wavelet, model.image_size
    ways: dict[str, Enlarge] = {"bicubic": bicubic(side)}
    for name, file in NETWORKS.items():
        network = open_network(published(data / "weights" / file, folder), side, wavelet, consistent=False)
        ways[name] = by(network)
    if wanted.before is not None:
        ways["detail model before hardening"] = by(
            DetailEnlarger(before(model, wanted.before), side, noise=wanted.noise)
        )
    ways["detail model"] = by(DetailEnlarger(model.detail, side, noise=wanted.noise))
    drawn = {name: way(coarse) for name, way in ways.items()}
    rows = {name: scored(full, images, coarse, wavelet, judges) for name, full in drawn.items()}
    small = coarse.shape[-1]
    print(f"\nFrom the {small} x {small} box average of {len(images)} pictures, noise {wanted.noise:g}:")
    table(rows, judges)
    if wanted.continued:
        few = slice(0, wanted.continued)
        goes_on = TransformerEnlarger(model)(coarse[few], captions=public.captions[few], seed=0, first=0)
        some = {"detail model": drawn["detail model"][few], "public transformer, fine scales": goes_on}
        print(f"\nThe first {wanted.continued} of them:")
        table({n: scored(f, images[few], coarse[few], wavelet, judges) for n, f in some.items()}, judges)
        drawn["public transformer, fine scales"] = goes_on
    shown("detail", images, coarse, drawn, wanted.sheet)
    ours = rows["detail model"]
    must = [rows[name] for name in ("bicubic", *NETWORKS)]
    ahead = all(ours.seen < other.seen and ours.distances[0] < other.distances[0] for other in must)
    print(f"\nAhead of bicubic and both networks by ours: {ahead}; coarse band moved by {ours.moved:.1e}")
    return ahead and ours.moved < 1e-5


@torch.no_grad()
def tell_mistakes(
    model: Model, public: PublicPixels, judges: list[Extractor], wanted: argparse.Namespace
) -> None:
    """Full pictures from coarse ones, a share of whose tokens the transformer has chosen."""
    images, config = from_bytes(torch.from_numpy(public.pixels)), model.tokenizer.config
    true = torch.from_numpy(encode_all(model, public, 1)[0][0].astype(np.int64))
    generator = stream(0, "measured mistakes")
    other = torch.cat([redraw(model, part, generator) for part in torch.split(true, 250)])
    ways = {"bicubic": bicubic(model.image_size)}
    if wanted.before is not None:
        ways["before hardening"] = by(
            DetailEnlarger(before(model, wanted.before), model.image_size, noise=wanted.noise)
        )
    ways["hardened"] = by(DetailEnlarger(model.detail, model.image_size, noise=wanted.noise))
    for share in (0.0, REDRAWN / 2, REDRAWN):
        wrong = torch.from_numpy(generator.random(tuple(true.shape)) < share)
        ids = torch.where(wrong, other, true)
        coarse = torch.cat([model.tokenizer.decode([part]) for part in torch.split(ids, 250)])
        drawn = {name: way(coarse) for name, way in ways.items()}
        print(f"\nCoarse pictures through the tokenizer, {share:.0%} of the tokens drawn by the transformer:")
        rows = {name: scored(full, images, coarse, config.wavelet, judges) for name, full in drawn.items()}
        table(rows, judges)
        shown(f"mistakes_{share:.0%}", images, coarse, drawn, wanted.sheet)


@dataclass(frozen=True)
class Row:
    """How near full pictures are to the true ones."""

    quality: float  # PSNR
    seen: float  # perceptual distance (thumb)
    distances: list[float]  # one for each extractor
    moved: float  # largest change of the coarse band


@torch.no_grad()
def scored(full: Tensor, images: Tensor, coarse: Tensor, wavelet: str, judges: list[Extractor]) -> Row:
    network = FeatureNetwork.from_pretrained()
    levels = (full.shape[-1] // coarse.shape[-1]).bit_length() - 1
    seen = [
        perceptual_distance(network, *p).mean() * len(p[0])
        for p in zip(torch.split(full, 250), torch.split(images, 250), strict=True)
    ]
    return Row(
        10 * math.log10(4 / float(F.mse_loss(full, images))),
        float(torch.stack(seen).sum()) / len(full),
        [
            frechet_between(*(statistics(judge, each) for each in (images, full)), despite_too_few=True)
            for judge in judges
        ],
        float((analyze(full, levels, wavelet)[0] - coarse).abs().max()),
    )


def statistics(judge: Extractor, images: Tensor) -> Statistics:
    rows = np.concatenate([judge.rows(to_bytes(part)) for part in torch.split(images, 250)])
    if rows.shape[1] > 256:  # as in benchmarks/evaluation.py: fixed random directions
        square = stream(0, "directions").standard_normal((rows.shape[1], 256))
        rows = rows @ np.linalg.qr(square)[0].astype(np.float32)
    return Statistics.of([rows])


def table(rows: Mapping[str, Row], judges: list[Extractor]) -> None:
    labels = [judge.label for judge in judges]
    print("\n| enlarged by | PSNR | perceptual (thumb) | " + " | ".join(labels) + " | coarse band moved by |")
    print("|---" * (4 + len(labels)) + "|")
    for name, row in rows.items():
        numbers = " | ".join(f"{value:.2f}" for value in row.distances)
        print(f"| {name} | {row.quality:.2f} | {row.seen:.4f} | {numbers} | {row.moved:.1e} |", flush=True)


def bicubic(side: int) -> Enlarge:
    return lambda few: F.interpolate(few, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1)


def by(enlarger: Enlarger) -> Enlarge:
    return lambda few: enlarger(few, captions=[""] * len(few), seed=0, first=0)


def published(npz: Path, folder: Path) -> Path:
    """A staged network under the names that it was published with."""
    path = folder / f"{npz.stem}.safetensors"
    tensors = {}
    with np.load(npz, allow_pickle=False) as arrays:
        for key in arrays.files:  # conv3.weight is body.6.weight, prelu3.weight is body.7.weight
            layer, what = key.split(".")
            number = 2 * int(layer.removeprefix("conv").removeprefix("prelu")) + layer.startswith("prelu")
            tensors[f"body.{number}.{what}"] = torch.from_numpy(arrays[key]).float()
    write_tensors(path, tensors)
    return path


def before(model: Model, state: Path) -> DetailModel:
    """The detail model that a work folder keeps."""
    found = DetailModel(model.detail.config)
    prefix = "network.detail."
    kept = {n.removeprefix(prefix): v for n, v in read_tensors(state).items() if n.startswith(prefix)}
    found.load_state_dict(kept)
    return found.eval().requires_grad_(False)


def shown(
    name: str, images: Tensor, coarse: Tensor, drawn: Mapping[str, Tensor], folder: Path | None
) -> None:
    if folder is None:
        return
    most = min(len(each) for each in drawn.values())
    chosen = list(range(0, most, max(most // 14, 1)))[:14]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [each[chosen].clamp(-1, 1) for each in (images, coarse, *drawn.values())]
    (folder / f"{name}.png").write_bytes(png(sheet(rows, 128)))


if __name__ == "__main__":
    main()
