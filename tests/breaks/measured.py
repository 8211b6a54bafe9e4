"""Numbers about the records: those that are bought with budget, and those that must stay private."""

from breaks.entry import breaks_of

SUMS = breaks_of(
    "privacy/bounded_sums.py",
    "privacy/test_bounded_sums.py",
    (
        "vectors added up without a bound",
        "One record moves the sum by as much as it likes, and the noise hides only the bound.",
        "np.minimum(1.0, bound / np.maximum(norms, np.finfo(np.float64).tiny))",
        "np.ones_like(norms)",
        "TestSensitivity::test_one_record_moves_the_sum_by_at_most_the_bound "
        "TestValues::test_a_longer_row_keeps_its_direction",
    ),
    (
        "sum rounded to nearest multiples",
        "Rounding away from zero makes a vector longer than the bound.",
        "np.trunc(units",
        "np.ceil(units",
        "TestSensitivity::test_near_duplicates_of_the_largest_length_add_no_rounding",
    ),
    (
        "vectors added up in floating point",
        "What one record moves depends on the rounding of all others.",
        ".astype(np.int64)  # towards zero: no longer",
        ".astype(np.float32)  # towards zero: no longer",
        "TestSensitivity::test_near_duplicates_of_the_largest_length_add_no_rounding",
    ),
    (
        "a person brings the sum of their records",
        "Somebody with thirty records moves the sum by thirty times the bound before it is cut.",
        "astype(np.float64).mean(0)",
        "astype(np.float64).sum(0)",
        "TestValues::test_a_person_brings_the_mean_of_their_records",
    ),
    (
        "people counted as records",
        "The noise protects one record of a person, and the plan says that it protects the person.",
        "members = _members(len(vectors), owners)",
        "members = _members(len(vectors), None)",
        "TestSensitivity::test_one_person_with_all_records_moves_the_sum_by_at_most_the_bound",
    ),
    (
        "the last few units left out",
        "What is published is of fewer records than the plan says, and which depends on their order.",
        "range(0, len(members), AT_ONCE)",
        "range(0, len(members) - AT_ONCE + 1, AT_ONCE)",
        "TestValues::test_rows_within_the_bound_are_added_up_as_they_are",
    ),
    (
        "values that are not finite are added up",
        "One broken record makes the published numbers infinite, and everyone sees that it is there.",
        "usable = np.isfinite(norms)",
        "usable = np.ones(len(norms), bool)",
        "TestValues::test_a_row_that_is_not_finite_counts_as_zero",
    ),
)

MOMENTS = breaks_of(
    "evaluation/moments.py",
    "evaluation/test_moments.py",
    (
        "features not cut to the radius",
        "A picture far from all others has a longer vector than the declared bound.",
        "y /= np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1.0)",
        "y /= 1.0",
        "TestVectors::test_no_row_brings_a_vector_longer_than_the_bound",
    ),
    (
        "bound of a vector without its products",
        "The noise is made for a shorter vector than is released.",
        "return math.sqrt(2 + PRODUCT_WEIGHT**2)",
        "return math.sqrt(2)",
        "TestVectors::test_no_row_brings_a_vector_longer_than_the_bound",
    ),
    (
        "features measured from the mean of the records",
        "The vector of one record depends on all others.",
        "np.float64) - self.centre) / self.radius",
        "np.float64) - rows[:, : self.columns].mean(0)) / self.radius",
        "TestVectors::test_a_vector_depends_on_its_own_row_alone",
    ),
)

BOUGHT = breaks_of(
    "pipeline/bought.py",
    "pipeline/test_bought.py",
    (
        "metrics published without noise",
        "The numbers are those of the records themselves.",
        "noisy = plan.privatize_sum(total, source, sensitivity=bound, other=BOUGHT)[NAME].numpy()",
        "noisy = total.values[NAME].numpy()",
        "test_the_same_key_gives_the_same_numbers_and_another_key_others "
        "TestPlan::test_a_plan_that_paid_for_nothing_sells_nothing",
    ),
    (
        "whose a record is ignored by metrics",
        "A person with many records moves the published numbers by more than one of them may.",
        "bounded_sum(np.hstack(vectors), math.sqrt(squares), records.owners)",
        "bounded_sum(np.hstack(vectors), math.sqrt(squares))",
        "TestSensitivity::test_a_person_with_many_records_moves_it_no_further",
    ),
)

TIES = breaks_of(
    "pipeline/bought.py",
    "pipeline/test_bought.py",
    (
        "the classifier learns from records",
        "One record turns the guesses about all others, which nobody paid for.",
        "_guesses(_classifier(generated, classes, seed), records.rows)",
        "_guesses(_classifier(Generated(records.rows, records.classes), classes, seed), records.rows)",
        "TestOtherRecords::test_the_classifier_learns_from_generated_pictures_alone",
    ),
    (
        "all records classified in one product",
        "A product rounds each row by how many there are, so one record may turn the class of others.",
        "return np.array([int(classifier.probabilities(row[None]).argmax()) for row in rows], np.int64)",
        "return classifier.probabilities(rows).argmax(1)",
        "TestOtherRecords::test_a_tie_is_broken_the_same_whoever_else_is_there",
    ),
)

GRID = breaks_of(
    "privacy/noise.py",
    "privacy/test_plan.py",
    (
        "published sums not rounded to a grid",
        "Which numbers the noise can be shows in the last bits, and rules some true sums out.",
        "/ grid).round_() * grid",
        "/ grid) * grid",
        "TestPrivatizeSum::test_what_is_published_lies_on_a_grid_that_says_nothing_about_the_sum",
    ),
)

PAID = breaks_of(
    "pipeline/settings.py",
    "pipeline/test_bought.py",
    (
        "metrics not in the plan",
        "Training gets all of epsilon, and the numbers come on top.",
        "shares = (settings.metrics_epsilon, settings.likeness",
        "shares = (None, settings.likeness",
        "TestPlan::test_metrics_and_training_together_cost_what_was_asked",
    ),
    (
        "metrics cheaper than they are",
        "The noise on the numbers costs more than the part of epsilon that the owner gave them.",
        "return Gaussian(calibrate_noise(epsilon=epsilon, delta",
        "return Gaussian(calibrate_noise(epsilon=2 * epsilon, delta",
        "TestPlan::test_metrics_and_training_together_cost_what_was_asked",
    ),
)

ONCE = breaks_of(
    "pipeline/purchase.py",
    "pipeline/test_judgement.py",
    (
        "exact sum measured again after a crash",
        "Two different sums may meet the same noise, and their difference shows records.",
        "if not exact.is_file():",
        "if True:",
        "TestResuming::test_a_run_that_was_stopped_before_the_noise_adds_it_to_the_sum_that_it_had",
    ),
    (
        "pictures to measure by depend on how the run is judged",
        "A run finished twice, judged differently, publishes two sums under one noise.",
        "max(DRAWN, FEWEST_OF_A_CLASS * len(settings.captions))",
        "max(settings.judged, 30)",
        "TestRun::test_a_judged_run_gives_the_same_release_as_one_that_is_not",
    ),
    (
        "metrics measured again after a crash",
        "A second sum with the same noise may be published, and the difference shows a record.",
        "if (found := kept_numbers(path, run)) is not None:",
        "if (found := None) is not None:",
        "TestResuming::test_a_run_that_was_stopped_after_buying_releases_what_it_bought",
    ),
    (
        "numbers of a sum that no ledger knows",
        "Two copies of a folder measure the records each in its own way, and one noise hides both.",
        "noted(prepared.total, ledger, run, BOUGHT, source)",
        "pass",
        "TestResuming::test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum",
    ),
)

PAGES = breaks_of(
    "report/origins.py",
    "report/test_origins.py",
    (
        "private scores let onto the release page",
        "A number that was measured on records without noise is published.",
        "if isinstance(value, PrivateScore | Revealed):",
        "if False:",
        "test_a_private_score_is_refused_in_every_field_at_any_depth",
    ),
    (
        "private blocks let onto the release page",
        "A chart or a picture of records is published.",
        "if isinstance(value, PrivateOrigin):",
        "if False:",
        "test_what_is_private_is_refused_on_the_release_page",
    ),
)

UNPAID = breaks_of(
    "privacy/verification.py",
    "privacy/test_certificate_fields.py",
    (
        "unpaid numbers about records verify",
        "Somebody adds numbers without noise to a certificate, and a reader takes them for private.",
        'wrong += ["measured"] if certificate.get("measured") and not plan.measures else []',
        "wrong += []",
        "test_numbers_about_records_that_no_mechanism_paid_for_are_noticed",
    ),
)

PAGE = breaks_of(
    "report/release.py",
    "report/test_origins.py",
    (
        "release page not checked for private numbers",
        "A number that was measured on records without noise is published.",
        'check_publishable(self, "the release report")',
        "pass",
        "test_what_is_private_is_refused_on_the_release_page",
    ),
)

LIKENESS = breaks_of(
    "pipeline/likeness.py",
    "pipeline/test_likeness.py",
    (
        "likeness without noise",
        "The moments that are released, and which pictures are kept, follow the exact sum over records.",
        "noisy = plan.privatize_sum(total, source, sensitivity=bound, other=other)[NAME].numpy()",
        "noisy = total.values[NAME].numpy()",
        "TestBuying::test_the_noise_has_the_size_that_was_paid_for",
    ),
    (
        "likeness with the noise of the metrics",
        "Two sums have one noise, and their difference shows records.",
        "sensitivity=bound, other=other)",
        "sensitivity=bound, other=0)",
        "TestBuying::test_the_noise_is_shared_with_no_other_sum_of_the_plan",
    ),
    (
        "likeness with nine tenths of the noise",
        "It costs more than the plan says.",
        "other=other)[NAME].numpy()",
        "other=other)[NAME].numpy() * 0.9 + 0.1 * total.values[NAME].numpy()",
        "TestBuying::test_the_noise_has_the_size_that_was_paid_for",
    ),
    (
        "whose a record is ignored by the likeness",
        "A person with many records moves the sum by more than one of them may.",
        "frame.vectors(records), frame.bound, owners)",
        "frame.vectors(records), frame.bound)",
        "TestSensitivity::test_a_person_with_many_records_moves_it_no_further",
    ),
    (
        "frame of the likeness around the records",
        "Centre and radius are released, and nobody paid for them.",
        "frame = Frame.around(pictures)",
        "frame = Frame.around(records)",
        "TestSensitivity::test_what_a_record_brings_is_its_own",
    ),
)

PLANNED = breaks_of(
    "pipeline/settings.py",
    "pipeline/test_likeness.py",
    (
        "likeness not in the plan",
        "Training gets all of epsilon, and the likeness comes on top.",
        "settings.likeness, settings.warm_start)",
        "None, settings.warm_start)",
        "TestPlan::test_it_and_training_together_cost_what_was_asked",
    ),
    (
        "one place for metrics and likeness",
        "Both have one noise, and their difference shows records.",
        "else int(settings.metrics_epsilon is not None)",
        "else 0",
        "TestPlan::test_every_sum_has_a_place_of_its_own",
    ),
)

COMPARED = breaks_of(
    "comparison/work.py",
    "comparison/test_comparison_table.py",
    (
        "a likeness with a key that no ledger knows",
        "Every copy of a folder adds noise of its own to the same sum, and their mean has less.",
        "kept_source(folder)",
        "type(kept_source(folder))()",
        "TestCells::test_a_chosen_cell_that_was_interrupted_has_no_second_likeness",
    ),
    (
        "a cell's likeness of a sum that no ledger knows",
        "Two copies of a folder measure the records each in its own way, and one noise hides both.",
        "total = noted(prepared.total, _account(job, plan), run, 0, source)",
        "total = prepared.total",
        "TestCells::test_a_chosen_cell_that_was_interrupted_has_no_second_likeness",
    ),
)

RESUMED = breaks_of(
    "pipeline/purchase.py",
    "pipeline/test_likeness.py",
    (
        "likeness with a source of its own",
        "A run that is resumed adds other noise to the same sum, a release that nobody paid for.",
        "rows, here.plan, place, source,",
        "rows, here.plan, place, Source(),",
        "TestRun::test_a_run_that_was_stopped_reads_the_same_likeness_again",
    ),
    (
        "likeness of a sum that no ledger knows",
        "Two copies of a folder measure the records each in its own way, and one noise hides both.",
        "total = noted(prepared.total, ledger, here.name, place, source)",
        "total = prepared.total",
        "TestRun::test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum",
    ),
    (
        "people ignored where sums are bought",
        "A person with many records moves every bought sum by as many times its bound.",
        "return whose(images.group(settings.group_by)) if settings.group_by else None",
        "return None",
        "test_units.py::TestRun::test_what_is_bought_takes_all_pictures_of_a_person_for_one",
    ),
)

BREAKS = (
    *SUMS, *MOMENTS, *BOUGHT, *TIES, *GRID, *PAID, *ONCE, *LIKENESS, *PLANNED, *RESUMED, *COMPARED, *PAGES,
    *UNPAID, *PAGE,
)  # fmt: skip
