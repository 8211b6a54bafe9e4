"""The warm start: a noisy sum before step 1, and a model that follows from it."""

from breaks.entry import breaks_of

SUM = breaks_of(
    "warm_start.py",
    "test_warm_start.py",
    (
        "surprise added up without its bound",
        "A record that the public model is sure not to see moves the sum by more than the noise hides.",
        "return bounded_sum(vectors, bound_of(transformer, codes), records.owners)",
        "return ClippedSum({NAME: torch.from_numpy(vectors.sum(0))}, bound_of(transformer, codes))",
        "TestSensitivity::test_one_record_moves_the_sum_by_at_most_the_bound",
    ),
    (
        "surprise cut to a longer bound than the noise is made for",
        "The noise hides a half of what one record may bring.",
        "bounded_sum(vectors, bound_of(transformer, codes), records.owners)",
        "bounded_sum(vectors, 2 * bound_of(transformer, codes), records.owners)",
        "TestSensitivity::test_one_record_moves_the_sum_by_at_most_the_bound "
        "TestRelease::test_a_plan_makes_it_once_and_for_its_own_bound_alone",
    ),
    (
        "whose a record is ignored by the warm start",
        "A person with many records moves the start by more than one of them may.",
        "bounded_sum(vectors, bound_of(transformer, codes), records.owners)",
        "bounded_sum(vectors, bound_of(transformer, codes))",
        "TestSensitivity::test_one_person_with_all_records_moves_the_sum_by_at_most_the_bound",
    ),
    (
        "surprise measured from the mean of the records",
        "What a record adds depends on all others, and one of them moves the sum by any amount.",
        "return bounded_sum(vectors,",
        "return bounded_sum(vectors - vectors.mean(0),",
        "TestSensitivity::test_a_record_adds_the_same_bits_whoever_else_is_there",
    ),
    (
        "surprise of a part of the records",
        "Which records are in the sum is decided by their place, and one more record shifts all places.",
        "for record in range(len(records)):",
        "for record in range(len(records) % 2, len(records), 2):",
        "TestSensitivity::test_a_record_adds_the_same_bits_whoever_else_is_there",
    ),
    (
        "surprise divided before it is added up",
        "The true number of records decides how large the sum is, and the plan divides by the declared one.",
        "return bounded_sum(vectors,",
        "return bounded_sum(vectors / max(len(vectors), 1),",
        "TestSensitivity::test_a_record_adds_the_same_bits_whoever_else_is_there",
    ),
    (
        "warm start with nine tenths of the noise",
        "It costs more than the plan says.",
        "return plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME]",
        "return 0.1 * total.values[NAME] + 0.9 * "
        "plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME]",
        "TestRelease::test_the_noise_has_the_size_that_was_paid_for",
    ),
    (
        "warm start with the noise of the metrics",
        "Two sums have one noise, and their difference shows records.",
        "sensitivity=bound, other=other)",
        "sensitivity=bound, other=0)",
        "TestRelease::test_the_noise_is_shared_with_no_other_sum_of_the_plan "
        "TestRelease::test_the_noise_has_the_size_that_was_paid_for",
    ),
    (
        "warm start without noise",
        "The starting model shows the records themselves.",
        "return plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME]",
        "return total.values[NAME]",
        "TestRelease::test_the_noise_has_the_size_that_was_paid_for "
        "TestRelease::test_a_plan_makes_it_once_and_for_its_own_bound_alone",
    ),
)

START = breaks_of(
    "pipeline/start.py",
    "pipeline/test_start.py",
    (
        "starting model from the exact sum",
        "The noise is made, and not used: the model shows the records themselves.",
        "started = begin_from(noisy, plan,",
        "started = begin_from(total.values['sum'], plan,",
        "TestStartingModel::test_the_start_follows_the_noise_and_not_the_sum_alone "
        "TestStartingModel::test_data_sets_with_one_noisy_sum_have_one_start",
    ),
    (
        "starting model scaled by the true number of records",
        "Two data sets with one noisy sum have two models, which tells them apart.",
        "started = begin_from(noisy, plan,",
        "started = begin_from(noisy * (plan.records / tokens.units), plan,",
        "TestStartingModel::test_data_sets_with_one_noisy_sum_have_one_start",
    ),
    (
        "surprise measured again after a crash",
        "Two different sums may meet the same noise, and their difference shows records.",
        "if not exact.is_file():",
        "if True:",
        "TestResuming::test_one_that_was_stopped_before_the_noise_adds_it_to_the_sum_that_it_had",
    ),
    (
        "starting model made again after a crash",
        "A sum is released a second time, and training may go on from another model than it began with.",
        "if not path.is_file():",
        "if True:",
        "TestResuming::test_one_that_was_stopped_in_training_goes_on_from_the_start_that_it_had",
    ),
    (
        "warm start with a source of its own",
        "A run that is resumed adds other noise to the same sum, a release that nobody paid for.",
        "noisy = release(total, plan, key, bound=bound, other=place)",
        "noisy = release(total, plan, Source(), bound=bound, other=place)",
        "TestResuming::test_a_stop_changes_no_bit_of_the_release",
    ),
    (
        "warm start of a sum that no ledger knows",
        "Two copies of a folder measure the records each in its own way, and one noise hides both.",
        "total = noted(sum_of_tensors(kept(exact, run)), ledger, run, place, key)",
        "total = sum_of_tensors(kept(exact, run))",
        "TestResuming::test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum",
    ),
)

KEPT = breaks_of(
    "pipeline/kept.py",
    "pipeline/test_start.py",
    (
        "one digest for a sum whatever its bound",
        "The same sum with noise of another size, scaled alike, gives both away.",
        "sorted(sum_to_tensors(total).items())",
        "sorted(total.values.items())",
        "TestNoted::test_values_bound_form_and_key_decide_the_digest",
    ),
    (
        "the digest of a sum without a key",
        "Whoever reads a ledger can try which records make the sum.",
        "hmac.new(source.key, ",
        "hmac.new(bytes(32), ",
        "TestNoted::test_values_bound_form_and_key_decide_the_digest",
    ),
    (
        "sum of another run believed",
        "A run starts from records that its ledger never charged.",
        "if {own for own, _ in tensors} != {run}:",
        "if False:",
        "TestStartingModel::test_a_sum_or_a_start_of_another_run_is_refused",
    ),
)

PAID = breaks_of(
    "pipeline/settings.py",
    "pipeline/test_start.py",
    (
        "warm start not in the plan",
        "Training gets all of epsilon, and the start comes on top.",
        "settings.likeness, settings.warm_start)",
        "settings.likeness)",
        "TestPlan::test_it_and_training_together_cost_what_was_asked",
    ),
    (
        "one place for two sums",
        "The metrics and the warm start have one noise, and their difference shows records.",
        "return None if settings.warm_start is None else before",
        "return None if settings.warm_start is None else 0",
        "TestPlan::test_its_place_is_the_one_after_the_metrics",
    ),
)

TOLD = breaks_of(
    "privacy/verification.py",
    "privacy/test_warm_certificate.py",
    (
        "unpaid warm start verifies",
        "A certificate speaks of a sum over records that no mechanism of its plan stands for.",
        "wrong += _wrong_sums(certificate, plan)",
        "wrong += []",
        "test_a_warm_start_that_no_mechanism_paid_for_is_noticed test_other_words_for_it_are_noticed",
    ),
    (
        "one sum pays for metrics and a warm start",
        "One of the two is not in the stated epsilon.",
        'planned >= len(told) + bool(certificate.get("measured"))',
        "planned >= 1",
        "test_one_mechanism_does_not_pay_for_metrics_and_a_start "
        "test_two_mechanisms_do_not_pay_for_three_sums",
    ),
    (
        "likeness that nothing is said of verifies",
        "Numbers about records leave in a file that no mechanism stands for.",
        'untold = "likeness" not in told',
        'untold = False and "likeness" not in told',
        "test_a_likeness_that_nothing_is_said_of_is_noticed",
    ),
)

BREAKS = (*SUM, *START, *KEPT, *PAID, *TOLD)
