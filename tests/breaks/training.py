"""The loop where records and a model meet, in one process and in several."""

from breaks.entry import breaks_of

SUM = "ranks.reduce(clipper.finish())"
RELEASED = f"update = plan.privatize({SUM}, source, step)\n        optimizer.step(update, step)"

LOOP = breaks_of(
    "training/loop.py",
    "test_training.py",
    (
        "a key used before the ledger knows it",
        "Copies of a folder, each with a key of its own, learn from every step that was charged once.",
        "        ledger.bind(run, source.digest)\n",
        "",
        "TestInterruption::test_steps_that_an_older_copy_of_the_ledger_lacks_are_charged_again",
    ),
    (
        "charged after the step",
        "A run that is killed has taken a step that nobody was charged for.",
        "ledger.charged_steps(run) <= step:",
        "ledger.charged_steps(run) < step:",
        "TestInterruption::test_steps_are_charged_before_they_are_taken",
    ),
    (
        "one key for two sets of records",
        "A run is trained again on other captions with the same noise; the difference of the two has none.",
        "source(records.digest, start_digest)",
        "source(None, start_digest)",
        "pipeline/test_refusals.py::TestLostAccountant::test_with_other_captions_its_key_is_refused",
    ),
    (
        "one key for two models",
        "A run is finished twice, from two models, with one noise; the difference of the two has none.",
        "source(records.digest, start_digest)",
        "source(records.digest)",
        "TestInterruption::test_another_model_to_start_from_is_refused",
    ),
    (
        "one key for two shapes of the same weights",
        "A run is finished twice, with other heads and one noise; the difference of the two sums has none.",
        ".state_dict(), transformer.identity)",
        ".state_dict())",
        "TestInterruption::test_another_model_to_start_from_is_refused",
    ),
    (
        "charges to a run of another plan",
        "The ledger and whoever composes it count one promise, and another is spent.",
        "if canonical_json(ledger.plan_of(run)) != canonical_json(plan.to_json()):",
        "if False:",
        "TestInterruption::test_another_plan_than_the_ledger_was_told_is_refused",
    ),
    (
        "people without owners accepted",
        "Each record of a person tosses a coin of its own and is clipped alone: k move the sum by k C.",
        '(plan.unit == "person") != (records.owners is not None):',
        "False:",
        "test_units.py::TestTraining::test_the_test_above_would_notice_sampling_over_records",
    ),
    (
        "steps not charged",
        "The ledger says that nothing was spent.",
        "ledger.charged_steps(run) <= step:",
        "ledger.charged_steps(run) < 0:",
        "TestInterruption::test_steps_are_charged_before_they_are_taken",
    ),
    (
        "empty batch takes no step",
        "Whether the weights moved then depends on the data.",
        "        losses, clipped_share = [0.0], [0.0]\n",
        "        losses, clipped_share = [0.0], [0.0]\n        if len(batch) == 0:\n            continue\n",
        "TestPromise::test_an_empty_batch_is_a_step_of_noise",
    ),
    (
        "large batch cut to one chunk",
        "Whether a record takes part then depends on those before it.",
        "in chunks(ranks.own(batch), settings.units_at_once):",
        "in chunks(ranks.own(batch)[: settings.chunk], settings.units_at_once):",
        "test_training_breaks.py::test_every_drawn_record_is_in_the_sum_of_its_step_once",
    ),
    (
        "padded rows enter the loss",
        "A record that fills up the last chunk is counted several times.",
        "records=own\n",
        "records=None\n",
        "test_training_breaks.py::test_every_drawn_record_is_in_the_sum_of_its_step_once",
    ),
    (
        "last records of a batch left out",
        "Whether a record takes part depends on how many others were drawn.",
        "for start in range(0, len(batch), size):",
        "for start in range(0, len(batch) // size * size, size):",
        "TestPromise::test_one_record_moves_the_sum_of_a_step_by_at_most_the_clipping_norm"
        " test_training_breaks.py::test_every_drawn_record_is_in_the_sum_of_its_step_once",
    ),
    (
        "clipping to another norm than the plan's",
        "One record moves the sum by more than the noise was made for.",
        "max_norm=plan.max_norm,",
        "max_norm=2 * plan.max_norm,",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
    (
        "model trained without the self-check",
        "A model that uses a parameter outside its layer is clipped by norms that are too small.",
        "clipper.check(exact, *drawn_units(student, records.scales, 4, 6))",
        "pass",
        "test_training_breaks.py::test_a_model_that_hides_a_use_of_its_weights_is_refused_before_anything_is_charged",
    ),
    (
        "steps of a checkpoint that the ledger lacks stay unpaid",
        "An older copy of the ledger is put back, and the run is finished for less than it took.",
        "charge(ledger, run, start)",
        "pass",
        "TestInterruption::test_steps_that_an_older_copy_of_the_ledger_lacks_are_charged_again",
    ),
    (
        "noise skipped in the loop",
        "The weights follow the clipped sum itself.",
        RELEASED,
        f"optimizer.step({SUM}.values, step)",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
    (
        "drawn batch size as divisor",
        "The size of the batch shows, and a mean has more sensitivity than the sum.",
        RELEASED,
        f"noisy = plan.privatize({SUM}, source, step)\n"
        "        drawn = max(len(batch), 1)\n"
        "        optimizer.step({name: g * plan.batch_size / drawn for name, g in noisy.items()}, step)",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
    (
        "average of the weights on raw gradients",
        "The released average follows sums without noise.",
        RELEASED,
        f"raw = {SUM}\n"
        "        optimizer.step(plan.privatize(raw, source, step), step)\n"
        "        for name, value in raw.values.items():\n"
        "            optimizer.average[name].sub_(1e-3 * value)",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
    (
        "step size that follows the private loss",
        "The weights depend on a number that got no noise.",
        RELEASED,
        f"noisy = plan.privatize({SUM}, source, step)\n"
        "        optimizer.step({name: g / (1 + sum(losses)) for name, g in noisy.items()}, step)",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
    (
        "training stopped by the private loss",
        "When a run ends is a function of the data.",
        RELEASED,
        RELEASED + "\n        if 0 < sum(losses) < 1e3 * len(losses):\n            break",
        "TestPromise::test_every_step_of_the_plan_is_taken_once_and_only_privatized_gradients_reach_the_weights",
    ),
)

RESUMING = breaks_of(
    "training/resuming.py",
    "test_training.py",
    (
        "one key for two emphases",
        "A run goes on with other weights and the same noise; the difference of two sums has none.",
        "if settings.emphases is not None:",
        "if False:",
        "TestInterruption::test_another_table_of_emphasis_is_refused",
    ),
    (
        "any state taken for this run's",
        "A run goes on from what another learnt from the records, which its certificate does not count.",
        'if not torch.equal(tensors.pop("of", torch.empty(0)), self._seal()):',
        'if not torch.equal(tensors.pop("of", torch.empty(0)), self._seal()) and False:',
        "TestInterruption::test_the_state_of_another_run_is_refused",
    ),
    (
        "noise from a source that anyone can predict",
        "Whoever reads the code can subtract the noise.",
        "        source = Source()\n",
        "        source = Source.for_test(0)\n",
        "TestInterruption::test_two_runs_draw_different_noise",
    ),
    (
        "checkpoint key renewed at resume",
        "Repeated steps release the same sums under new noise, and the mean of both shows more.",
        'return Source(bytes.fromhex(kept["key"]))',
        "return Source()",
        "TestInterruption::test_a_run_stopped_after_any_step_ends_with_the_same_weights",
    ),
    (
        "step counter reset at resume",
        "Steps are taken again on other weights with the same noise, whose difference then shows.",
        'steps = int(tensors.pop("steps"))',
        'steps = 0 * int(tensors.pop("steps"))',
        "TestInterruption::test_a_run_stopped_after_any_step_ends_with_the_same_weights",
    ),
    (
        "optimizer forgotten at resume",
        "The weights go back, and old steps are taken again from another place with the same noise.",
        "optimizer.restore(tensors)",
        "pass",
        "TestInterruption::test_a_run_stopped_after_any_step_ends_with_the_same_weights",
    ),
    (
        "resumed under another plan",
        "Steps of two plans are mixed, and the certificate speaks of one.",
        "if {name: kept.get(name) for name in self.identity} != self.identity:",
        "if False:",
        "TestInterruption::test_a_checkpoint_of_another_promise_or_settings_is_refused",
    ),
    (
        "state accepted without its key",
        "The run goes on with other noise on steps that it has taken before.",
        "if self.state_path.exists():",
        "if False:",
        "TestInterruption::test_a_state_without_its_key_is_refused",
    ),
    (
        "noise key readable by all",
        "Every user of the machine can subtract the noise.",
        "self.key_path.chmod(0o600)",
        "pass",
        "TestInterruption::test_only_the_owner_may_read_the_key",
    ),
)

LOSSES = breaks_of(
    "training/losses.py",
    "test_training.py",
    (
        "batch-normalised loss",
        "Every record's loss is divided by the mean of its chunk, so each moves the gradients of all.",
        "return losses.image + settings.caption_weight",
        "return losses.image / losses.image.mean() + settings.caption_weight",
        "TestPromise::test_one_record_moves_the_sum_of_a_step_by_at_most_the_clipping_norm"
        " test_training_breaks.py::test_a_record_has_the_same_loss_whoever_is_drawn_with_it",
    ),
    (
        "products rounded where the clipper leaves no margin",
        "Where a processor emulates them, the sum moves by more than the bound, in twenty times the time.",
        "with mixed_precision(device_of(transformer), settings.mixed_precision):",
        "with torch.autocast(device_of(transformer).type, torch.bfloat16, settings.mixed_precision):",
        "test_precision.py::test_without_them_a_private_step_computes_and_clips_as_in_float32",
    ),
)

VIEWS = breaks_of(
    "training/views.py",
    "test_training.py",
    (
        "caption chosen by place in the batch",
        "One record more changes which caption everyone after it shows.",
        "view.choice[chosen]",
        "view.choice[: len(chosen), None]",
        "test_training_breaks.py::test_a_record_has_the_same_loss_whoever_is_drawn_with_it",
    ),
    (
        "caption dropped by place in the batch",
        "One record more changes whose caption is dropped.",
        "view.drops[torch.from_numpy(chosen)]",
        "view.drops[: len(chosen), None]",
        "test_training_breaks.py::test_a_record_has_the_same_loss_whoever_is_drawn_with_it",
    ),
)

RECORDS = breaks_of(
    "records.py",
    "test_training.py",
    (
        "rows as wide as the longest private caption",
        "One long caption changes the shape of every chunk, and with it how every other record is rounded.",
        "CAPTION_CHOICES, caption_length)",
        "CAPTION_CHOICES, max(len(vocabulary.ids(text, caption_length)) for own in texts for text in own))",
        "TestTokens::test_the_width_of_rows_does_not_depend_on_the_records",
    ),
    (
        "records normalised by their batch",
        "A record's tokens then depend on the other records, outside all clipping.",
        "% len(pixels)]).to(tokenizer.spread)",
        "% len(pixels)]) - from_bytes(pixels).mean()",
        "TestTokens::test_a_record_has_the_same_tokens_whoever_stands_beside_it",
    ),
)

SEVERAL_LOOP = breaks_of(
    "training/loop.py",
    "test_ranks.py",
    (
        "rank noise doubled",
        "Every process adds the same noise to its part: the sum has it twice, and epsilon is misstated.",
        RELEASED,
        "part = clipper.finish()\n"
        "        noisy = replace(part, values=plan.privatize(part, source, step))\n"
        "        optimizer.step(ranks.reduce(noisy).values, step)",
        "TestTraining::test_all_ranks_end_with_the_same_weights_and_nearly_those_of_one_process",
    ),
    (
        "rank noise missing",
        "Processes other than the lead go on from weights that follow the sum itself.",
        RELEASED,
        f"summed = {SUM}\n"
        "        bare = {name: value.float() / plan.divisor for name, value in summed.values.items()}\n"
        "        noisy = plan.privatize(summed, source, step)\n"
        "        optimizer.step(noisy if ranks.lead else bare, step)",
        "TestTraining::test_all_ranks_end_with_the_same_weights_and_nearly_those_of_one_process",
    ),
    (
        "a key of its own for every rank",
        "Processes draw different batches and noise; what they add up is none of the planned sums.",
        "Source(ranks.share(lambda: checkpoint.source(records.digest, start_digest).key))",
        "checkpoint.source() if ranks.lead else Source()",
        "TestTraining::test_noise_of_the_planned_size_is_added_once",
    ),
)

RANKS = breaks_of(
    "ranks.py",
    "test_ranks.py",
    (
        "a unit computed by every rank",
        "One record moves the sum once for each process.",
        "units[units % self.count == self.rank]",
        "units",
        "TestTogether::test_each_unit_is_computed_by_one_rank_whatever_the_batch",
    ),
    (
        "ranks that clip to different norms",
        "One record moves the sum by the largest of them, and the noise is made for another.",
        "if any(norm != clipped.sensitivity for norm in norms):",
        "if False:",
        "TestTogether::test_ranks_that_clipped_to_different_norms_are_refused",
    ),
)

BREAKS = (
    *LOOP,
    *RESUMING,
    *LOSSES,
    *VIEWS,
    *RECORDS,
    *SEVERAL_LOOP,
    *RANKS,
)
