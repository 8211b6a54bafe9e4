"""The release folder: model, samples, certificate, card and report, whole or absent.

Everything in it is differentially private, post-processing of that, or public. The folder is built beside its
place and renamed when it is complete, so an interrupted run leaves no half of it.
"""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet import __version__, report
from dpwavelet import model as models
from dpwavelet.checkpoint import canonical_json, read_json, whole_folder, write_bytes, write_json
from dpwavelet.enlargers import Enlarger
from dpwavelet.images.sheet import png, to_bytes
from dpwavelet.images.tones import light, main_colour
from dpwavelet.model import Model
from dpwavelet.pipeline.bought import Bought, to_json
from dpwavelet.pipeline.generator import PART, Pipeline
from dpwavelet.pipeline.leaks import Watch
from dpwavelet.pipeline.likeness import FILE
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.settings import RunSettings, certified, cycled
from dpwavelet.privacy.certificate import (
    LIKENESS,
    NOT_PROMISED,
    WARM_START,
    attack,
    make_certificate,
    software_versions,
    statement,
    write_certificate,
)
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import allowed_json
from dpwavelet.privacy.release_files import digest_release
from dpwavelet.progress import Progress
from dpwavelet.ranks import device_named
from dpwavelet.report import (
    Bars,
    Fact,
    Origin,
    ReleaseReport,
    Sample,
    Series,
    Words,
    about,
    release_json,
    render_card,
    render_release,
)

SAMPLES, METADATA = "samples", "metadata.jsonl"
SHOWN = 64  # samples on the report page; the folder holds all


@dataclass(frozen=True)
class Samples:
    """Generated pictures with their captions: bytes, coarse [B, 3, h, w] and full [B, 3, S, S]."""

    captions: Sequence[str]
    coarse: Tensor
    full: Tensor
    drawn: frozenset[bytes] = frozenset()  # SHA-256 of every picture as PNG, if it is known to be drawn

    @classmethod
    def draw(cls, pipeline: Pipeline, captions: Sequence[str], seed: int, **options: Any) -> "Samples":
        """Generate one picture a caption."""
        parts = []
        for first in range(0, max(len(captions), 1), PART):  # floats take four times the memory of bytes
            part = pipeline.draw(captions[first : first + PART], seed=seed, first=first, **options)
            parts.append([to_bytes(pictures) for pictures in part])
        coarse, full = (torch.cat(pictures) for pictures in zip(*parts, strict=True))
        files = (png(picture) for pictures in (coarse, full) for picture in pictures)
        drawn = frozenset(hashlib.sha256(file).digest() for file in files)
        return cls(captions, coarse, full, drawn)

    def shown(self) -> list[Sample]:
        """The first few, as the report shows them."""
        return [
            Sample(caption, png(coarse), png(full))
            for caption, coarse, full in zip(self.captions[:SHOWN], self.coarse, self.full, strict=False)
        ]

    def write(self, folder: Path) -> None:
        """Write them into a folder; see `write_pictures`."""
        write_pictures(folder, zip(self.captions, self.full, strict=True))


def write_pictures(folder: Path, pictures: Iterable[tuple[str, Tensor]]) -> None:
    """Write `000000.png` ... and `metadata.jsonl`, a folder that any tool of this kind reads.

    Each picture [3, S, S], bytes or in [-1, 1], is written before the next one is asked for.
    """
    lines = []
    for index, (caption, full) in enumerate(pictures):
        name = f"{index:06d}.png"
        write_bytes(folder / name, png(full))
        lines.append(canonical_json({"file_name": name, "text": caption, "synthetic": True}))
    write_bytes(folder / METADATA, b"".join(line + b"\n" for line in lines))


@dataclass(frozen=True)
class Drawn:
    """The samples of a release, with and without the private data behind them, and how long they took."""

    samples: Samples
    public_samples: Samples
    seconds: float


def draw_samples(ours: Pipeline, public: Pipeline, settings: RunSettings, progress: Progress) -> Drawn:
    """Draw the pictures that a release holds."""
    started = time.monotonic()
    captions = cycled(settings.captions, settings.samples)
    progress.begin("drawing samples", (ours.drawings + public.drawings) * len(captions))
    samples, public_samples = (
        Samples.draw(pipeline, captions, settings.seed, sampling=settings.sampling, told=progress.advance)
        for pipeline in (ours, public)
    )
    return Drawn(samples, public_samples, time.monotonic() - started)


COST = "cost.json"  # in `private/`, for a report that is made again


@dataclass(frozen=True)
class Cost:
    """Clock times of a run in seconds, and where they were spent.

    That of training follows how many records were drawn, to which no noise was added: it is for the owner.
    """

    training: float
    sampling: float
    machine: str

    def facts(self, samples: int) -> list[Fact]:
        """As the report of a release lists them."""
        drawn = f"Drawing {samples} images, by this model and by the public one"
        found = [Fact(drawn, about(self.sampling))] if samples else []
        return [*found, Fact("Machine", self.machine)]


@dataclass(frozen=True)
class Seal:
    """What the owner adds to a release: its name, its place in the ledger, the key that signs it, the search.

    `watch` knows the records, and `secrets` are texts by what they are; both serve to find leaks only.
    """

    title: str
    position: int
    key: Ed25519PrivateKey
    watch: Watch
    secrets: Mapping[str, str]


def write_release(
    folder: Path,
    here: Ongoing,
    pipeline: Pipeline,
    ledger: Ledger,
    seal: Seal,
    drawn: Drawn,
    cost: Cost,
    bought: Sequence[Bought] = (),
) -> None:
    """Write the folder, search it for leaks and sign it.

    `bought` are numbers about the records that were paid for. What the settings allow, refusals that the
    owner overruled, stands in the certificate, and so does a warm start.
    """
    here.progress.begin("writing the release", 1)
    plan, samples, public_samples = here.plan, drawn.samples, drawn.public_samples
    allowed, warm = here.settings.allow, here.settings.warm_start is not None
    public_weights = public_digests(here.settings.model)
    model, enlarger = pipeline.model, pipeline.used
    public_weights = {**public_weights, **{f"enlarger {name}": d for name, d in enlarger.files.items()}}
    given = any(samples.captions)
    source = "those of the samples were given" if given else "the samples were drawn without any"
    captions = f"captions are part of a record and were trained under the same guarantee; {source}"
    told = ReleaseReport(
        title=seal.title,
        version=__version__,
        promise=statement(plan),
        epsilon=plan.epsilon,
        delta=plan.delta,
        unit=plan.unit,
        facts=[
            *_facts(plan, pipeline, captions, allowed),
            *([Fact("Likeness", LIKENESS, Origin.DP)] if pipeline.likeness else []),
            *([Fact("Warm start", WARM_START, Origin.DP)] if warm else []),
        ],
        cost=cost.facts(len(samples.captions)),
        samples=samples.shown(),
        public_samples=public_samples.shown(),
        epsilon_curve=[(step, plan.epsilon_spent(step)) for step in marks(plan.steps)],
        provenance=_provenance(public_weights, model),
        not_promised=NOT_PROMISED,
        bought=[report_of(one) for one in bought if one.value is not None],
        balance=_tones(samples, public_samples),
        notes=[
            Words(text=f"{one.name}: {one.words}, so there is no number.", origin=Origin.DP)
            for one in bought
            if one.value is None
        ],
    )
    with whole_folder(folder) as building:
        model.save_pretrained(building / "model")
        if pipeline.likeness is not None:
            pipeline.likeness.save(building / "model" / FILE)
        if samples.captions:
            samples.write(building / SAMPLES)
        write_bytes(building / "card.md", render_card(told).encode())
        write_bytes(building / "report.html", render_release(told).encode())
        write_json(building / "report.json", release_json(told))
        certificate = make_certificate(
            plan,
            files=digest_release(building),
            ledger_position=seal.position,
            ledger_head=ledger.head,
            private_scales=range(1, model.private_scales + 1),
            captions=captions,
            allowed=allowed,
            extra={"public_weights": public_weights, "settings": certified(here.settings)}
            | ({"measured": to_json(bought)} if bought else {})
            | ({"likeness": LIKENESS} if pipeline.likeness else {})
            | ({"warm_start": WARM_START} if warm else {}),
        )
        seal.watch.check_release(
            building,
            certificate,
            drawn=samples.drawn | public_samples.drawn,
            captions=samples.captions,
            secrets=seal.secrets,
        )
        write_certificate(building, certificate, seal.key)
    here.progress.advance(1)


def noise_key(private: Path) -> dict[str, str]:
    """The key that training made, as one of the texts that no release may hold."""
    return {"the key of the noise": str(read_json(private / "checkpoint" / "run.json")["key"])}


def machine(device: str) -> str:
    """The kind of machine that trained, in words, without its name."""
    used = device_named(device)
    gpu = f"{torch.cuda.get_device_name(used)}, " if used.type == "cuda" else ""
    threads = torch.get_num_threads()
    return f"{gpu}CPU, {threads} thread{'s' * (threads != 1)}"


def _facts(plan: PrivacyPlan, pipeline: Pipeline, captions: str, allowed: Sequence[str]) -> list[Fact]:
    members = math.ceil(1e4 * attack(plan)["from_mechanisms"]) / 100
    model = pipeline.model
    side = model.tokenizer.config.image_sides[model.private_scales - 1]
    return [
        Fact("Neighbours", plan.neighbours),
        Fact("Declared people" if plan.unit == "person" else "Declared records", f"{plan.records:,}"),
        Fact("Sampling rate", f"{plan.sampling_rate:.4g} (Poisson)"),
        Fact("Expected batch", f"{plan.batch_size:,}"),
        Fact("Steps", f"{plan.steps:,}"),
        Fact("Noise multiplier", f"{plan.noise_multiplier:.4g}"),
        Fact("Clipping norm", f"{plan.max_norm:g}"),
        Fact("Epsilon by privacy-loss distributions", f"{plan.pld_epsilon:.4f}"),
        Fact("Epsilon by Rényi accounting (second opinion)", f"{plan.rdp_epsilon:.4f}"),
        Fact("Members found at 1% false alarms, by these mechanisms", f"at most {members:g}%"),
        *(Fact(f"Allowed by the owner: {rule['name']}", rule["sentence"]) for rule in allowed_json(allowed)),
        Fact(
            "Learnt from the private images",
            f"the coarse image, {side} x {side} pixels, and captions",
            Origin.DP,
        ),
        Fact("Added by public models", _added(side, model.image_size)),
        Fact("What added it", _enlarged_by(pipeline.used)),
        Fact("Captions", captions),
    ]


def _added(few: int, full: int) -> str:
    return f"all detail from {few} to {full} pixels" if few < full else "nothing: all scales are private"


def _enlarged_by(enlarger: Enlarger) -> str:
    """Which enlarger it was, and what follows for the promise and for the coarse images."""
    kept = (
        "the coarse images are as they were"
        if enlarger.consistent
        else "it may have changed the coarse images"
    )
    return f"{enlarger.name}: public and frozen, so it is post-processing and costs no privacy; {kept}"


def _provenance(public_weights: Mapping[str, str], model: Model) -> list[Fact]:
    weights = [
        Fact(f"Public weights, {name}", f"sha256 {value[:16]}…") for name, value in public_weights.items()
    ]
    return [Fact("Preset", model.preset), *_terms(model.card), *weights, *software_facts()]


def _terms(card: Mapping[str, Any]) -> list[Fact]:
    """What the public weights learned from, and under which terms, as their cards say it."""
    found = list[Fact]()
    while isinstance(before := card.get("started_from"), dict):
        card = before
        if isinstance(said := card.get("data"), str):
            found.append(Fact("Public weights learned from", said))
    return found


def software_facts() -> list[Fact]:
    """What computed the promise."""
    return [Fact(name, value) for name, value in software_versions().items()]


def _tones(samples: Samples, public_samples: Samples) -> list[Bars[Origin]]:
    """Light and main colour of the samples; they are private already, so counting them costs nothing."""
    if not len(samples.full):
        return []
    ours, public = (Counter(map(tone, one.full.numpy())) for one in (samples, public_samples))
    names = sorted(ours | public)
    return [
        Bars(
            title="Light and main colour of the samples, read off the pixels",
            categories=names,
            series=[
                Series(name, [100 * one[each] / len(samples.full) for each in names], origin)
                for name, one, origin in (
                    ("this release", ours, Origin.DP),
                    ("public model, without the data", public, Origin.PUBLIC),
                )
            ],
            unit="%",
            names="Tone",
        )
    ]


def tone(pixels: NDArray[np.uint8]) -> str:
    """Light and main colour of one picture [3, H, W], in a word or two."""
    return " ".join(filter(None, (light(pixels), main_colour(pixels))))


def report_of(bought: Bought) -> report.Bought:
    """A number that was bought, as the page shows it."""
    assert bought.value is not None
    noise = f"± {2 * bought.noise:.2g} by the noise in 95 of 100 cases; {bought.words}"
    return report.Bought(name=bought.name, value=bought.value, noise=noise)


def marks(steps: int) -> list[int]:
    """At most about forty steps at which the page shows epsilon, the first and the last among them."""
    stride = -(-steps // 40)
    return [*range(0, steps, stride), steps]


def public_digests(name: str) -> dict[str, str]:
    """Digests of the starting weights, for the certificate."""
    return {file: value for file, value in models.digests(Path(name)).items() if file != "card.json"}
