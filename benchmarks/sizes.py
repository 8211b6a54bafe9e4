"""What a private gradient costs at other sizes: three untrained systems of one preset, on made-up records.

    python benchmarks/sizes.py                       # thumb, photo and paper; half an hour on one thread
    python benchmarks/sizes.py --presets thumb photo --rounds 5

The tables of results compare `thumb` alone, the size that two cores can train. This asks how the ratios of
time and memory move as models grow to the sizes of the paper. Each measurement is a process of its own, so
that its peak of memory is its own; systems take turns, and the table gives medians over the rounds. A process
builds the networks, sums the clipped gradients of one chunk to warm up, and of another by the clock
(processor time). Noise and optimizer, the same work for each trained weight, are left out. Chunks shrink as
presets grow, the same for all. Encoding is that of one picture.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpwavelet import model as ours
from dpwavelet.comparison.methods import LDM, LLAMAGEN, OURS
from dpwavelet.memory import keep_freed_memory, most_held
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.rivals.diffusion import rival as diffusion
from dpwavelet.rivals.diffusion import training as finetuning
from dpwavelet.rivals.diffusion.gradients import DrawClipper
from dpwavelet.rivals.llamagen import rival as llamagen
from dpwavelet.text import Vocabulary
from dpwavelet.training.learners import TokenModel, learner, module_of
from dpwavelet.training.losses import unit_losses
from dpwavelet.training.settings import PrivateTraining
from dpwavelet.training.views import drawn_units

CHUNKS = {"thumb": 32, "photo": 8, "paper": 2}  # records at once
CAPTION = 16  # words and pieces of a made-up caption
SYSTEMS = (OURS, LLAMAGEN, LDM)


class Work(NamedTuple):
    """One chunk of private training, and one picture to encode."""

    parameters: int
    whole: int
    step: Callable[[], object]
    encode: Callable[[], object]


class Cost(NamedTuple):
    """What one process measured."""

    parameters: int
    whole: int
    seconds: float  # for a record's clipped gradient
    encoding: float  # for a picture
    gigabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=list(CHUNKS), default=list(CHUNKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("SYSTEM", "PRESET"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measured(*wanted.one)))
        return
    print(
        "| preset | records at once | system | trained parameters of all | seconds a record | over ours | "
        "seconds to encode | peak memory | over ours |\n|---|---|---|---|---|---|---|---|---|"
    )
    found = {}
    for preset in wanted.presets:
        rounds = [[alone(system, preset) for system in SYSTEMS] for _ in range(wanted.rounds)]
        for system, costs in zip(SYSTEMS, zip(*rounds, strict=True), strict=True):
            found[preset, system] = Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))
        print(rows(preset, [found[preset, system] for system in SYSTEMS]), flush=True)
    facts = {"machine": platform.machine(), "torch": torch.__version__, "rounds": wanted.rounds}
    kept = [
        {"preset": preset, "system": system, **cost._asdict()} for (preset, system), cost in found.items()
    ]
    print(json.dumps(facts | {"costs": kept}))


def rows(preset: str, costs: list[Cost]) -> str:
    """The lines of the table for one preset, ours first."""
    mine = costs[0]
    return "\n".join(
        f"| {preset} | {CHUNKS[preset]} | {system} | {cost.parameters:,.0f} of {cost.whole:,.0f} | "
        f"{cost.seconds:.3g} | {cost.seconds / mine.seconds:.2f} | {cost.encoding:.2g} | "
        f"{cost.gigabytes:.2f} GB | {cost.gigabytes / mine.gigabytes:.2f} |"
        for system, cost in zip(SYSTEMS, costs, strict=True)
    )


def alone(system: str, preset: str) -> Cost:
    """Measured in a process of its own, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    call = [sys.executable, __file__, "--one", system, preset]
    told = subprocess.run(call, env=os.environ | threads, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(*json.loads(told.stdout))


def measured(system: str, preset: str) -> Cost:
    """Build, warm up, and take the time of one chunk."""
    torch.set_num_threads(1)
    keep_freed_memory()
    work = {OURS: our_work, LLAMAGEN: llamagen_work, LDM: diffusion_work}[system](preset)
    seconds = []
    for _ in range(2):
        started = time.process_time()
        work.step()
        seconds.append(time.process_time() - started)
    held = most_held() or 0
    work.encode()
    started = time.process_time()
    work.encode()
    encoding = time.process_time() - started
    return Cost(work.parameters, work.whole, seconds[1] / CHUNKS[preset], encoding, held / 1e9)


def our_work(preset: str) -> Work:
    model = ours.create(preset, Vocabulary.of(), 0)
    scales = model.tokenizer.config.tokens[: model.private_scales]
    step, parameters = token_step(model.transformer, scales, PrivateTraining(), CHUNKS[preset])
    encode = partial(model.tokenizer.encode, picture(model.image_size), model.private_scales)
    return Work(parameters, count(model.transformer), step, encode)


def llamagen_work(preset: str) -> Work:
    rival = llamagen.create(preset, Vocabulary.of(), 0)
    scales = rival.transformer.config.tokens
    step, parameters = token_step(rival.transformer, scales, llamagen.LlamaTraining(), CHUNKS[preset])
    encode = partial(rival.tokenizer.encode, picture(rival.tokenizer.config.image_size))
    return Work(parameters, count(rival.transformer), step, encode)


def token_step(
    transformer: TokenModel, scales: tuple[int, ...], settings: PrivateTraining, chunk: int
) -> tuple[Callable[[], object], int]:
    """The clipped sum over a chunk of made-up token records, as `training.loop` takes it."""
    student, parameters = learner(transformer, settings)
    clipper = RecordClipper(
        module_of(student),
        parameters,
        max_norm=1.0,
        precision="fast",
        weights={name: settings.emphasis_of(name).weight for name in parameters},
    )
    clipper.check(
        partial(unit_losses, student, replace(settings, mixed_precision=False), scales),
        *drawn_units(student, scales, 2, 6),
    )
    rows = drawn_units(student, scales, chunk, CAPTION)
    losses = partial(unit_losses, student, settings, scales)
    return partial(clipper.accumulate, losses, *rows), sum(each.numel() for each in parameters.values())


def diffusion_work(preset: str) -> Work:
    rival = diffusion.create(preset, Vocabulary.of(), 0).eval()
    settings = finetuning.Finetuning()
    parameters = finetuning.trained_parameters(rival.diffusion.denoiser, settings)
    clipper = DrawClipper(rival.diffusion.denoiser, parameters, max_norm=0.1, precision="fast")
    rows = finetuning._made_up(rival.diffusion, settings.draws, CHUNKS[preset])
    losses = partial(finetuning.record_losses, rival.diffusion, settings)
    step = partial(clipper.accumulate, losses, *rows)
    encode = partial(rival.diffusion.encode, picture(rival.diffusion.image_size))
    return Work(
        sum(each.numel() for each in parameters.values()), count(rival.diffusion.denoiser), step, encode
    )


def picture(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
