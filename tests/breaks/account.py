"""What is promised, what it costs, and who keeps the books."""

from breaks.entry import breaks_of

PLAN = breaks_of(
    "privacy/plan.py",
    "privacy/test_plan.py",
    (
        "planned noise x 0.9",
        "The noise no longer reaches the epsilon of the plan.",
        "return calibrate_noise(",
        "return 0.9 * calibrate_noise(",
        "test_the_noise_the_rate_and_the_steps_together_cost_what_is_promised",
    ),
    (
        "one step more than planned",
        "The last step is not in the accounting.",
        "for step in range(start, self.steps)",
        "for step in range(start, self.steps + 1)",
        "test_every_step_has_a_batch_and_the_empty_ones_count",
    ),
    (
        "empty batch dropped",
        "Whether a step happened then depends on the data.",
        "for step in range(start, self.steps)",
        "for step in range(start, self.steps)\n"
        "            if len(poisson_batch(source, step, records, self.sampling_rate))",
        "test_every_step_has_a_batch_and_the_empty_ones_count",
    ),
    (
        "sampling rate from the true number of records",
        "One record more changes every public number, and shows in the rate.",
        "poisson_batch(source, step, records, self.sampling_rate)",
        "poisson_batch(source, step, records, min(self.batch_size / max(records, 1), 1.0))",
        "test_the_true_number_of_records_changes_neither_rate_nor_divisor_nor_noise",
    ),
    (
        "accounted at half the rate",
        "Epsilon is that of a run in which records join half as often.",
        "PoissonGaussian(self.sampling_rate, self.noise_multiplier, steps)",
        "PoissonGaussian(self.sampling_rate / 2, self.noise_multiplier, steps)",
        "test_the_noise_the_rate_and_the_steps_together_cost_what_is_promised",
    ),
    (
        "steps nobody paid for are privatized",
        "Whoever calls once more gets a release outside the account.",
        "if not 0 <= step < self.steps:",
        "if False:",
        "test_a_step_that_was_not_paid_for_is_refused",
    ),
    (
        "a sum of another sensitivity accepted",
        "The noise is made for another clipping norm than the sum had.",
        '_check_sensitivity(clipped, self.max_norm, "the plan\'s own max_norm")',
        "pass",
        "test_a_sum_clipped_to_another_norm_is_refused",
    ),
    (
        "spent epsilon reported too low",
        "An owner who stops halfway is told a smaller epsilon than was spent.",
        "point = -(-steps_done // stride) * stride",
        "point = max(steps_done // stride - 1, 1) * stride",
        "test_what_is_spent_grows_to_the_promise_and_is_never_reported_too_low",
    ),
)

OTHERS = breaks_of(
    "privacy/plan.py",
    "privacy/test_plan.py",
    (
        "other mechanisms beside training are free",
        "Training gets all of epsilon, and the histogram beside it costs more.",
        "others=self.others,",
        "others=(),",
        "test_others_are_paid_for_by_the_same_epsilon",
    ),
    (
        "a subclass may replace the sampler or the noise",
        "A plan says one thing and does another.",
        "def __init_subclass__(cls) -> None:",
        "def refuse_subclass(cls) -> None:",
        "test_there_is_no_other_kind_of_plan",
    ),
)

SUM = 'noisy = add_noise_on_grid(total, event.noise_multiplier, source, f"others {other}, use {use}")'

PRIVATIZE_SUM = breaks_of(
    "privacy/plan.py",
    "privacy/test_plan.py",
    (
        "sum beside training released without noise",
        "A histogram of the records is published as it is.",
        SUM,
        "noisy = dict(total.values)",
        "TestPrivatizeSum::test_the_noise_has_the_size_of_its_mechanism",
    ),
    (
        "sum beside training gets the noise of training",
        "Its noise is not the one that was paid for.",
        SUM,
        SUM.replace("event.noise_multiplier", "self.noise_multiplier"),
        "TestPrivatizeSum::test_the_noise_has_the_size_of_its_mechanism",
    ),
    (
        "uses of one mechanism share their noise",
        "The difference of two sums holds no noise.",
        SUM,
        SUM.replace(", use {use}", ""),
        "TestPrivatizeSum::test_no_step_and_no_other_use_shares_the_noise",
    ),
    (
        "sum of another sensitivity than declared",
        "The noise is made for less than one unit can do.",
        '_check_sensitivity(total, sensitivity, "the sensitivity that was declared")',
        "pass",
        "TestPrivatizeSum::test_a_sum_of_another_sensitivity_is_refused"
        " TestPrivatizeSum::test_a_sensitivity_that_bounds_nothing_is_refused",
    ),
    (
        "a use repeated",
        "Two sums have the same noise, and their difference shows.",
        "if (other, use) in self._made:",
        "if False:",
        "TestPrivatizeSum::test_each_use_happens_once_in_the_life_of_a_plan_object",
    ),
    (
        "a use that nobody paid for",
        "More sums are released than were accounted for.",
        "if type(use) is not int or not 0 <= use < event.count:",
        "if False:",
        "TestPrivatizeSum::test_a_use_that_was_not_paid_for_is_refused",
    ),
)

ACCOUNTING = breaks_of(
    "privacy/accounting.py",
    "privacy/test_accounting.py",
    (
        "epsilon rounded down to the coarse grid",
        "An estimate that may lie below the truth is printed as a bound.",
        "_privacy_loss(events, grid).get_epsilon_for_delta(visible)",
        "_privacy_loss(events, grid).get_epsilon_for_delta(visible) // 1e-3 * 1e-3",
        "test_without_sampling_epsilon_is_the_closed_form_of_the_gaussian",
    ),
    (
        "one step too few accounted",
        "A step of the run is not in its epsilon.",
        ".self_compose(event.steps)",
        ".self_compose(max(event.steps - 1, 1))",
        "test_epsilon_of_a_typical_run_is_the_known_one",
    ),
    (
        "a mechanism counted once however often it ran",
        "All its repetitions are free.",
        "event.noise_multiplier / math.sqrt(event.count), 1.0",
        "event.noise_multiplier, 1.0",
        "test_without_sampling_epsilon_is_the_closed_form_of_the_gaussian test_events_add_up",
    ),
    (
        "only the first mechanism accounted",
        "A histogram or an evaluation on private records costs nothing.",
        "(_loss_of(event, grid) for event in events))",
        "(_loss_of(event, grid) for event in events[:1]))",
        "test_events_add_up",
    ),
    (
        "accounted with more noise than was added",
        "Epsilon is that of a quieter run than this one.",
        "sampled_gaussian(event.noise_multiplier, event.sampling_rate",
        "sampled_gaussian(1.05 * event.noise_multiplier, event.sampling_rate",
        "test_epsilon_of_a_typical_run_is_the_known_one",
    ),
    (
        "calibration accepts a near miss",
        "The noise costs more than the epsilon that was asked for.",
        "if epsilon <= target:",
        "if epsilon <= 1.002 * target:",
        "privacy/test_breaks.py::test_calibration_takes_no_noise_that_nearly_reaches_the_target",
    ),
    (
        "a coarse answer is taken without a last look",
        "What a coarse grid allows may cost more on the one of every report.",
        "return _smallest(cost(FINE_GRID), epsilon, noise, slope, SLACK)[0]",
        "return noise",
        "test_what_calibration_returns_was_looked_at_on_the_finest_grid",
    ),
    (
        "a delta that rounding hides",
        "The epsilon found lies below what an attack in closed form proves.",
        "if not _is_number(delta) or not SMALLEST_DELTA <= delta < 1:",
        "if not _is_number(delta) or not 0 < delta < 1:",
        "test_a_delta_too_small_to_bound_is_refused_and_not_promised",
    ),
    (
        "what rounding hides of many steps",
        "The epsilon found lies below what an attack on all steps together proves.",
        "visible = delta - _hidden_of(events, delta)",
        "visible = delta",
        "test_what_rounding_hides_of_many_steps_is_no_part_of_a_promise",
    ),
    (
        "what cannot be bounded is promised",
        "An infinite epsilon passes for a number.",
        "if not math.isfinite(epsilon) or epsilon < 0:",
        "if False:",
        "test_an_epsilon_that_is_not_finite_is_refused",
    ),
    (
        "delta of one over N by default",
        "The usual delta would allow publishing one record.",
        "return float(records**-1.1)",
        "return float(records**-1.0)",
        "test_delta_lies_below_one_over_the_number_of_records",
    ),
    (
        "delta forgotten in the attacker's bound",
        "The card says that an attacker can do less than is true.",
        "by_gain = math.exp(epsilon) * false_positive_rate + delta",
        "by_gain = math.exp(epsilon) * false_positive_rate",
        "test_the_best_attack_on_a_promise_is_the_known_trade_off",
    ),
)

LOSSES = breaks_of(
    "privacy/losses.py",
    "privacy/test_losses.py",
    (
        "the attacker's threshold in the wrong place",
        "Losses are those of a poor attack, and epsilon lies below what a better one proves.",
        "thresholds = -sign * (0.5 + unsampled * s**2)",
        "thresholds = -sign * (0.4 + unsampled * s**2)",
        "test_every_delta_is_that_of_the_library test_no_threshold_of_an_attack_gains_more",
    ),
    (
        "a record that is added costs what one that is removed does",
        "Of the two neighbours only one is accounted for.",
        "added = _on_grid(noise_multiplier, sampling_rate, grid, AdjacencyType.ADD)",
        "added = removed",
        "test_both_sides_of_the_distribution_are_those_of_the_library",
    ),
    (
        "the gain of an attack told too small",
        "Every delta is a little below what an attack proves, and so is epsilon.",
        "loss.mu_upper_cdf(thresholds) - lower",
        "loss.mu_upper_cdf(thresholds) - 1.01 * lower",
        "test_every_delta_is_that_of_the_library test_one_noisy_sum_costs_what_the_closed_form_says",
    ),
)

LEDGER = breaks_of(
    "privacy/ledger.py",
    "privacy/test_ledger.py",
    (
        "a run finished that was not charged whole",
        "The cap and the ledger count fewer steps than the release was made of.",
        "if known and known.charged < known.planned:",
        "if False:",
        "privacy/test_budget.py::TestComposition::test_a_run_whose_steps_were_not_all_charged_is_not_finished",
    ),
    (
        "a run takes another key",
        "Two copies of a folder each learn, with noise of their own, from every step that was charged once.",
        'if kind == "keyed" and known.key not in ("", entry["key"]):',
        "if False:",
        "test_a_run_is_bound_to_one_key_and_every_reader_knows_it",
    ),
    (
        "another sum under the same noise",
        "Two copies of a folder measure the records each in its own way, and one noise hides both.",
        "if known.get(other, digest) != digest:",
        "if False:",
        "test_a_mechanism_adds_its_noise_to_one_sum_and_every_reader_knows_it",
    ),
    (
        "ledger not synced",
        "After a power cut, steps that were taken are not in the ledger.",
        "        os.fsync(file)\n        if not size:",
        "        if not size:",
        "test_an_entry_is_on_disk_before_append_returns",
    ),
    (
        "chain not checked",
        "A charge can be taken out of the middle, and its cost with it.",
        '(value["position"], value["previous"]) != (position, self.head)',
        "False",
        "test_every_change_of_the_past_is_refused_with_its_line_number",
    ),
    (
        "digest of a line not checked",
        "A charge can be rewritten to a smaller one.",
        "if _seal(value) != line or",
        "if",
        "test_every_change_of_the_past_is_refused_with_its_line_number",
    ),
    (
        "torn line overlooked",
        "A charge that was cut off passes for one that was never made.",
        "if self._take_in(file):",
        "if self._take_in(file) is None:",
        "test_a_torn_last_line_is_refused_with_its_number_and_what_to_do",
    ),
    (
        "shortened ledger accepted",
        "Charges cut off at the end are forgotten.",
        "if size < self._size:",
        "if False:",
        "test_a_ledger_that_became_shorter_takes_no_more_entries",
    ),
    (
        "any number of steps may be charged",
        "A later, smaller charge hides an earlier one, and a run may take more than it planned.",
        "if type(steps) is not int or not known.charged < steps <= known.planned:",
        "if False:",
        "test_an_entry_that_would_hide_a_cost_is_refused_and_leaves_no_trace",
    ),
    (
        "a finished run charged again",
        "Its certificate is written; what it does now is in no certificate.",
        'if known.closed and not (kind == "summed" and known.closed == "finished"):',
        "if False:",
        "test_nothing_is_charged_to_a_finished_run",
    ),
    (
        "charge refused silently",
        "The run believes that it has paid, and takes the step.",
        "            self._admit(entry)\n",
        "            try:\n                self._admit(entry)\n"
        "            except PrivacyError:\n                return len(self._entries) - 1\n",
        "test_an_entry_that_would_hide_a_cost_is_refused_and_leaves_no_trace",
    ),
    (
        "others' charges not read before appending",
        "Two processes spend the same budget.",
        "            self._catch_up(file)\n            self._admit",
        "            self._admit",
        "test_two_ledgers_open_on_one_file_see_each_others_charges",
    ),
    (
        "ledger without a lock",
        "Two processes write at once, and one charge is lost.",
        "fcntl.flock(file, fcntl.LOCK_EX if to_write else fcntl.LOCK_SH)",
        "pass",
        "privacy/test_breaks.py::test_a_charge_waits_while_somebody_else_writes",
    ),
    (
        "entries without a salt",
        "Who guesses an entry can confirm it by the published head.",
        '"salt": secrets.token_hex(16)',
        '"salt": "0" * 32',
        "test_the_head_says_nothing_about_the_entries",
    ),
)

BUDGET = breaks_of(
    "privacy/budget.py",
    "privacy/test_budget.py",
    (
        "a key noted in the run's own ledger alone",
        "A copy of the folder, whose own ledger is older, takes the steps of another by its own noise.",
        "        self.data.bind(run, key)\n",
        "",
        "TestAccount::test_of_two_copies_with_keys_of_their_own_one_learns",
    ),
    (
        "a copy of a folder goes on after the other has finished",
        "Both train under the charges of one, each with the noise of its key.",
        'if there and there.closed == "finished" and here and here.charged < there.charged:',
        "if False:",
        "TestAccount::test_a_copy_left_behind_does_not_take_the_steps_of_a_finished_run",
    ),
    (
        "a run goes on under another clip",
        "The warm start is released under a bound that the ledger was never told.",
        'for told in ("events", "plan")',
        'for told in ("events",)',
        "TestAccount::test_another_plan_does_not_go_on_under_the_same_name",
    ),
    (
        "several runs have the room of one",
        "A table begins cells that do not fit under the cap together, and stops when part of it is spent.",
        "[event for plan in plans for event in plan.events], units",
        "[event for plan in plans[:1] for event in plan.events], units",
        "TestCap::test_check_room_takes_several_plans_together",
    ),
    (
        "people by two fields added up",
        "Somebody is three people by another field, and pays three times what is told.",
        'return f"{unit} by {field}" if field else str(unit)',
        "return str(unit)",
        "TestCap::test_people_by_two_fields_are_two_units"
        " TestCap::test_people_by_another_field_are_not_admitted_under_a_cap",
    ),
    (
        "cap not asked",
        "Runs on the same images may cost more than their owner allows.",
        "if not _affords(self.cap, after):",
        "if False:",
        "TestCap::test_a_run_that_fits_exactly_is_admitted_and_the_next_is_not",
    ),
    (
        "runs in flight hold nothing",
        "Two runs that are begun together may spend the same rest.",
        "run.charged if run.closed else run.planned",
        "run.charged",
        "TestCap::test_a_run_in_flight_blocks_the_rest_until_it_is_abandoned",
    ),
    (
        "other images accepted on resume",
        "One run and one certificate for two sets of records.",
        'if here and here.begun.get("images") != images:',
        "if False:",
        "TestAccount::test_other_images_do_not_continue_a_run",
    ),
    (
        "lost ledger of the data set begun again",
        "What was spent on the images before is forgotten.",
        "if here and (there is None or there.charged < here.charged):",
        "if False:",
        "TestAccount::test_a_lost_ledger_of_the_data_set_is_not_begun_again"
        " TestAccount::test_an_old_copy_of_the_ledger_of_the_data_set_is_refused",
    ),
    (
        "lost private folder taken for a new run",
        "Steps are taken a second time, under other noise, and paid for once.",
        "if there and there.charged and here is None:",
        "if False:",
        "TestAccount::test_a_lost_private_folder_is_no_free_second_try",
    ),
    (
        "data set charged after the run",
        "A crash between the two leaves steps that the data set never paid for.",
        "        self.data.append(entry)\n        return self.own.append(entry)",
        "        position = self.own.append(entry)\n        self.data.append(entry)\n        return position",
        "TestAccount::test_the_data_set_pays_first",
    ),
)

NUMBERS = breaks_of(
    "privacy/refusals.py",
    "privacy/test_plan.py",
    (
        "delta of 1/N accepted",
        "Publishing one record in full would keep such a promise.",
        "if delta >= 1 / records:",
        "if False:",
        "test_a_delta_that_would_allow_publishing_a_record_is_refused",
    ),
    (
        "a dozen records accepted",
        "Noise that hides one of them hides all they have in common, and owners learn so after paying.",
        "if records < FEWEST_RECORDS:",
        "if False:",
        "test_a_dozen_images_are_refused",
    ),
)

RUNS = breaks_of(
    "pipeline/refusals.py",
    "pipeline/test_refusals.py",
    (
        "a finished run trained again",
        "Whoever deletes what it trained gets a second model that no ledger was charged for.",
        "if closed and not state.is_file():",
        "if False:",
        "TestLostAccountant::test_a_finished_run_is_not_trained_again",
    ),
    (
        "a release taken for public weights",
        "What an earlier run learned from the same records at epsilon 20 is released again as epsilon 1.",
        'if "started_from" in card or "plan" in card:',
        "if False:",
        "TestSameData::test_a_release_is_no_model_to_start_from"
        " comparison/test_comparison_table.py::TestConsent::test_a_release_is_no_public_model",
    ),
)

BOOKS = breaks_of(
    "pipeline/books.py",
    "pipeline/test_accounts.py",
    (
        "people taken for strangers in every split",
        "A person with pictures in two splits pays twice what the cap on the folder allows.",
        "    if people:\n        return [tuple(linked)]",
        "    if False:\n        return [tuple(linked)]",
        "TestCaps::test_people_may_be_in_every_split",
    ),
    (
        "people taken for strangers when a cap is set",
        "A cap is put in force that some people are over already.",
        'people = any(unit.startswith("person") for unit in units)',
        'people = any(plan.unit == "person" for plan in plans)',
        "TestCaps::test_a_cap_on_the_folder_is_held_against_all_that_people_paid"
        " TestCaps::test_records_after_people_are_refused_under_a_cap_as_people_after_records",
    ),
    (
        "people of sets that are linked over others taken for strangers",
        "A person with a picture in each half of a capped folder pays for both halves, and no cap knows.",
        "        reached = np.unique(np.concatenate([reached, *(files for _, files in found.values())]))",
        "        break",
        "TestCaps::test_a_cap_counts_people_of_sets_that_share_nothing_but_the_capped_one",
    ),
    (
        "a list of images that others may read",
        "Every user of the machine can tell whether a picture that he holds is in a set.",
        "write_bytes(path, content, OWNER_ALONE)",
        "write_bytes(path, content)",
        "TestBeside::test_what_is_not_the_list_of_a_ledger_s_images_is_refused",
    ),
    (
        "a record in two splits counted in pairs",
        "It pays for both splits, and the cap on the folder sees either alone.",
        "groups = {frozenset(map(int, np.flatnonzero(pattern))) for pattern in patterns}",
        "groups = {frozenset((int(place),)) for pattern in patterns for place in np.flatnonzero(pattern)}",
        "TestCaps::test_a_record_of_two_splits_pays_for_both_under_the_cap_of_the_folder"
        " TestCaps::test_a_cap_on_the_folder_is_held_against_every_split_or_all_of_a_shared_record"
        " TestBeside::test_of_sets_that_lie_within_each_other_one_record_may_pay_for_all",
    ),
    (
        "a set that has grown by an image taken for another",
        "With every image that is added, all records may spend the whole cap once more.",
        "        if kept is None:",
        "        if True:",
        "TestCaps::test_a_cap_holds_for_a_set_that_has_grown_and_for_what_it_was"
        " TestBeside::test_a_set_that_has_grown_is_found_by_the_pictures_that_it_had",
    ),
    (
        "any list of images believed",
        "Whoever shortens the list takes records out of the account that they paid into.",
        "if hashlib.sha256(kept).hexdigest() != ledger.stem:",
        "if False:",
        "TestBeside::test_what_is_not_the_list_of_a_ledger_s_images_is_refused",
    ),
)

ACCOUNTS = breaks_of(
    "pipeline/accounts.py",
    "pipeline/test_accounts.py",
    (
        "a cap on a folder that its splits escape",
        "Whoever names --split trains on records whose owner let nobody spend so much.",
        "    for group in near.groups:\n        ledgers",
        "    for group in []:\n        ledgers",
        "TestCaps::test_a_cap_counts_what_is_asked_of_images_that_share_records"
        " TestCaps::test_a_run_and_its_rehearsal_ask",
    ),
    (
        "what the split has paid is left out under the cap of the folder",
        "Every split spends the whole cap once more.",
        "[other for other in ledgers if other is not ledger]",
        "[other for other in ledgers if other not in (ledger, near.own)]",
        "TestCaps::test_a_cap_counts_what_was_paid_on_either_side",
    ),
    (
        "what the folder has paid is left out under the cap of a split",
        "The records of the split have paid already, and the cap of the split does not know.",
        "        for ledger in ledgers:\n            ledger.check",
        "        for ledger in ledgers[1:]:\n            ledger.check",
        "TestCaps::test_a_cap_counts_what_was_paid_on_either_side",
    ),
    (
        "ledgers that do not know their images passed over in silence",
        "What an early version spent on the same images counts for nothing, and nobody is told.",
        "if near.warning:",
        "if False:",
        "TestBeside::test_a_ledger_that_does_not_know_its_images_is_told_of_until_they_are_seen_again",
    ),
    (
        "a ledger that does not know its images",
        "A later set that holds the same records finds no account of what they have paid.",
        "_say_nothing)\n        keep_images(books)",
        "_say_nothing)",
        "TestBeside::test_a_set_that_has_grown_is_found_by_the_pictures_that_it_had",
    ),
    (
        "a cap that does not know its images",
        "A cap that was set before the first run does not hold for the set once it has grown.",
        "groups = around(books).groups\n        keep_images(books)",
        "groups = around(books).groups",
        "TestCaps::test_a_cap_that_nobody_has_spent_under_holds_for_a_set_that_has_grown",
    ),
    (
        "no last look before a run is begun",
        "Two runs that begin at one moment, on a folder and on a split of it, spend the same budget.",
        "check_beside(books, [plan], _say_nothing)",
        "pass",
        "TestInTurn::test_of_two_runs_that_both_passed_the_second_is_refused",
    ),
    (
        "a last look that others overtake",
        "Between the look and the entry another run begins on the same records.",
        "    with locked(ledger.path.parent / LOCK):\n        yield",
        "    yield",
        "TestInTurn::test_nobody_else_begins_or_sets_a_cap_between_the_last_look_and_the_entry",
    ),
    (
        "earlier runs on the same images not told of",
        "An owner who reads certificates believes each of several releases to cost what it costs alone.",
        "if near.own.runs and plans:",
        "if False:",
        "TestCaps::test_what_earlier_runs_and_this_one_cost_together_is_told",
    ),
    (
        "capped records taken for a stand-in",
        "Somebody's records are trained on without privacy, and charged to nobody.",
        "if one.ledger.cap is not None:",
        "if False:",
        "TestStandIns::test_what_somebody_capped_is_no_stand_in"
        " comparison/test_comparison_table.py::TestConsent::test_records_with_a_cap_are_no_stand_in",
    ),
)

TOKENS = breaks_of(
    "pipeline/run.py",
    "pipeline/test_refusals.py",
    (
        "tokens of other images kept",
        "A run trains on one set of records and charges the ledger of another.",
        "if here.name not in own.runs:",
        "if False:",
        "TestLostAccountant::test_tokens_of_images_that_no_ledger_was_charged_for_are_made_anew",
    ),
)

IMAGES = breaks_of(
    "images/private.py",
    "pipeline/test_refusals.py",
    (
        "files that changed since they were looked at",
        "A run trains on a picture that no ledger and no refusal has seen.",
        "if self.expected and",
        "if False and",
        "TestLostAccountant::test_a_picture_that_is_replaced_once_it_was_looked_at_is_not_trained_on",
    ),
)

COMPARISON = breaks_of(
    "comparison/work.py",
    "comparison/test_comparison_table.py",
    (
        "one name for a cell in every folder",
        "Two folders train it, each with noise of its own, and the ledger of the images counts one.",
        'run = f"{cell.digest}-{secrets.token_hex(8)}"',
        "run = cell.digest",
        "TestConsent::test_the_same_cell_in_another_folder_is_charged_too",
    ),
)

OWNED = breaks_of(
    "comparison/owned.py",
    "comparison/test_comparison_table.py",
    (
        "cells of a table begin without room for all",
        "Some of the budget is spent on a table that the cap never lets anybody finish.",
        "check_beside(books, plans, progress.tell)",
        "check_beside(books, [], progress.tell)",
        "TestConsent::test_a_cap_that_not_all_cells_fit_under_lets_none_begin",
    ),
    (
        "a table pays for noise alone",
        "Private records are spent on cells that can learn nothing from so few of them.",
        "_check_signal(cell, known[cell.name].trained_parameters, settings)",
        "pass",
        "TestConsent::test_a_table_that_would_pay_for_noise_alone_is_refused",
    ),
)

CONSENT = breaks_of(
    "comparison/consent.py",
    "comparison/test_comparison_table.py",
    (
        "epsilon summed over earlier cells and delta not",
        "The page tells a promise that was not kept: its two numbers are of different things.",
        "delta=math.fsum(each.delta for each in found)",
        "delta=max(each.delta for each in found)",
        "TestSums::test_both_sums_are_over_earlier_cells_too",
    ),
)

BREAKS = (
    *PLAN,
    *NUMBERS,
    *OTHERS,
    *PRIVATIZE_SUM,
    *ACCOUNTING,
    *LOSSES,
    *LEDGER,
    *BUDGET,
    *RUNS,
    *BOOKS,
    *ACCOUNTS,
    *TOKENS,
    *IMAGES,
    *COMPARISON,
    *OWNED,
    *CONSENT,
)
