"""Every stage of a run before the first step is paid for, with made-up records."""

import tempfile
from dataclasses import replace
from pathlib import Path

from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.learning import learn
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.opening import REHEARSED, Opened, encode
from dpwavelet.pipeline.purchase import rehearse_likeness, rehearse_purchase
from dpwavelet.pipeline.refusals import check_losses
from dpwavelet.pipeline.rehearsal import RUN
from dpwavelet.pipeline.release import Cost, Seal, draw_samples, machine, noise_key, write_release
from dpwavelet.pipeline.settings import RunSettings
from dpwavelet.pipeline.start import REHEARSAL, starting_model
from dpwavelet.privacy.keys import signing_key
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.progress import Progress, Silent
from dpwavelet.ranks import device_named
from dpwavelet.training import Checkpoint


def rehearse(opened: Opened, settings: RunSettings, progress: Progress, title: str) -> None:
    """Walk every stage on ten records: no defect is found after paying.

    Guarantee: the records stay in memory. They are read, encoded and given a loss; what is trained, drawn
    and written into a temporary folder comes from made-up ones of their kind. So whenever the rehearsal is
    killed, what it leaves there says nothing about the records.
    """
    progress.begin("rehearsing", 1)
    model, watch = opened.model, opened.watch
    short = replace(opened.plan, steps=min(2, opened.plan.steps))
    small = replace(settings, samples=min(settings.samples, 2))
    with tempfile.TemporaryDirectory(prefix="dpwavelet-") as name:
        here = Ongoing(short, small, RUN, Path(name), Silent())
        ledger = Ledger.open(here.private / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": RUN, "plan": short.to_json()})
        few = opened.images.first(REHEARSED)
        found = encode(few, model, small.group_by, Silent(), small.training.augment, small.caption_words)
        check_losses(model, found)
        tokens = found.redrawn(model.transformer)
        kind = device_named(settings.device).type
        checkpoint = Checkpoint(here.private / "checkpoint", short, small.training, RUN, device=kind)
        start = starting_model(model, tokens, here, checkpoint.source, ledger, REHEARSAL)
        trained = learn(start, tokens, here, ledger)
        key = signing_key(here.private / "key.pem")
        ours = Pipeline(trained, opened.enlarger, rehearse_likeness(short, settings))
        drawn = draw_samples(ours, Pipeline(model, opened.enlarger), small, Silent())
        bought = rehearse_purchase(short, settings) if settings.release_metrics else []
        secrets = opened.secrets | noise_key(here.private)
        seal = Seal(title, ledger.finish(RUN), key, watch, secrets)
        cost = Cost(0.0, drawn.seconds, machine(settings.device))
        write_release(here.private / "release", here, ours, ledger, seal, drawn, cost, bought)
        watch.check_drawn(drawn.samples.full)
    progress.advance(1)
