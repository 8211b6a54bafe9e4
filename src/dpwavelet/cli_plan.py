"""`dpwavelet plan`: what each epsilon would buy, and what `run` would refuse, before anything is spent."""

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dpwavelet import cli_ledger
from dpwavelet import cli_options as option
from dpwavelet.cli_progress import tell
from dpwavelet.images.layouts import open_folder
from dpwavelet.pipeline import RunSettings, plan_for
from dpwavelet.pipeline.accounts import rooms_for
from dpwavelet.pipeline.bought import METRICS
from dpwavelet.pipeline.forecast import forecast_all
from dpwavelet.pipeline.opening import caption_advice, caption_warnings, check_data, fewer_than_declared
from dpwavelet.pipeline.refusals import check_people
from dpwavelet.pipeline.settings import open_model
from dpwavelet.privacy.refusals import Refusal, check_signal
from dpwavelet.rounded import up
from dpwavelet.training import PrivateTraining

USUAL = PrivateTraining()
console = Console()


def plan(
    data: option.Data,
    epsilon: Annotated[list[float], typer.Option(help="One or more budgets: --epsilon 1 2 4 8.")],
    delta: option.Delta = None,
    records: option.Records = None,
    preset: option.Preset = "thumb",
    batch_size: option.Batch = None,
    steps: option.Steps = None,
    passes: option.Passes = None,
    caption_words: option.CaptionWords = None,
    split: option.Split = None,
    group_by: option.GroupBy = None,
    per_person: option.PerPerson = 1,
    private_scales: option.PrivateScales = None,
    views: option.Views = USUAL.views,
    augment: option.Augmented = USUAL.augment,
    parameters: option.Trained = USUAL.parameters,
    rank: option.Rank = USUAL.rank,
    warm_start: option.WarmStart = None,
    likeness: option.LikenessEpsilon = None,
    metrics_epsilon: option.MetricsEpsilon = None,
    ledger: cli_ledger.Folder = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing",
            help="Take a few private steps on drawn portraits to tell time and memory.",
        ),
    ] = True,
    threads: option.Threads = None,
    as_json: option.AsJson = False,
) -> None:
    """Show what each epsilon would buy, in noise, time, memory and quality. Spends nothing.

    Signal to noise is C / (sigma C sqrt(d) / B): the longest that the mean of B clipped gradients can be,
    over the length of the noise on it, in one step; C is the clipping norm, sigma the noise multiplier, d
    the number of trained parameters. Time runs from images to private weights; samples come on top. Quality
    is what runs on public stand-ins of about this signal to noise gained. Where earlier runs used these
    images, it tells what all would cost together, and where a cap leaves no room.
    """
    option.use(threads)
    check_data(data)
    folder = open_folder(data, split)
    model = open_model(preset, private_scales)
    advice = caption_advice(folder, model) if caption_words is None else []
    for line in [*folder.lines(), *caption_warnings(folder, model, caption_words), *advice]:
        tell(line)
    found = len(set(folder.group(group_by))) if group_by else len(folder)
    if records is not None and records > found:
        tell(fewer_than_declared(records, found, group_by is not None))
    training = PrivateTraining(
        per_unit=per_person, views=views, augment=augment, parameters=parameters, rank=rank
    )
    option.check_rank(training)
    asked = [
        RunSettings(
            epsilon=budget, delta=delta, records=records, model=preset, batch_size=batch_size, steps=steps,
            passes=passes, caption_words=caption_words, group_by=group_by, training=training,
            private_scales=private_scales, warm_start=warm_start, likeness=likeness,
            metrics_epsilon=metrics_epsilon,
            release_metrics=() if metrics_epsilon is None else METRICS[:1],  # any: one noise
        )
        for budget in epsilon
    ]  # fmt: skip
    plans = [plan_for(settings, found) for settings in asked]
    forecasts = forecast_all(
        plans, preset, training, timing=timing, private_scales=private_scales, caption_words=caption_words
    )
    rooms = rooms_for(data, split, ledger, plans)
    refused = [
        [
            *_refused(
                partial(check_signal, each.signal_of_run, ()), partial(check_people, folder, group_by, ())
            ),
            *filter(None, [room.refused]),
        ]
        for each, room in zip(forecasts, rooms, strict=True)
    ]
    if as_json:
        rows = [
            each.to_json() | {"epsilon_with_earlier_runs": room.known, "refused": texts}
            for each, room, texts in zip(forecasts, rooms, refused, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return
    units = "people" if group_by else "records"
    table = Table(title=f"{plans[0].records:,} declared {units}, delta {up(plans[0].delta)}")
    columns = ("epsilon", "batch", "steps", "noise multiplier", "signal to noise", "by RDP", "time", "memory")
    for column in columns:
        table.add_column(column, justify="right")
    for each in forecasts:
        p = each.plan
        table.add_row(
            f"{p.epsilon:g}", f"{p.batch_size}", f"{p.steps}", f"{p.noise_multiplier:.3f}",
            f"{each.signal_to_noise:.3f}", f"{p.rdp_epsilon:.3f}", each.time_text, each.memory_text,
        )  # fmt: skip
    console.print(table)
    print("\n".join(each.quality_text for each in forecasts))
    for p, room, texts in zip(plans, rooms, refused, strict=True):
        for text in texts:
            print(f"epsilon {p.epsilon:g}: `run` would end here: {text}")
        if room.text:
            print(f"epsilon {p.epsilon:g}: {room.text}")


def _refused(*checks: Callable[[], None]) -> list[str]:
    """By which words each of these checks would end a run, of those that would."""
    words = list[str]()
    for check in checks:
        try:
            check()
        except Refusal as error:
            words.append(str(error))
    return words
