"""The attacks on our own training: an audit that cannot notice, or that sees what no attacker sees."""

from breaks.entry import breaks_of
from breaks.training import RELEASED

BOUNDS = breaks_of(
    "audit/bounds.py",
    "audit/test_bounds.py",
    (
        "wrong end of the tail",
        "Right guesses seem rarer than they are, and sound engines are found broken.",
        "return float(chances[successes:].sum())",
        "return float(chances[successes + 1 :].sum())",
        "TestOneRun::test_the_p_value_is_that_of_the_formula_by_scipy"
        " TestProportions::test_limits_are_those_of_the_beta_distribution",
    ),
    (
        "delta left out of the one-run bound",
        "A run that tells everything with probability delta is said to break its promise.",
        "2 * m * delta * worst",
        "0 * m * delta * worst",
        "TestOneRun::test_a_run_that_sometimes_tells_everything_needs_its_delta",
    ),
    (
        "one-run bound at less confidence than stated",
        "The bound exceeds the truth more often than it says.",
        "return one_run_p_value(m, r, v, epsilon, delta) <= 1 - confidence",
        "return one_run_p_value(m, r, v, epsilon, delta) <= 3 * (1 - confidence)",
        "TestOneRun::test_randomized_response_is_exceeded_as_rarely_as_promised_and_nearly_reached"
        " TestOneRun::test_the_published_bounds_come_out",
    ),
    (
        "accuracy bounded at less confidence than stated",
        "The game finds sound engines broken.",
        "goal = -math.log(1 - confidence)\n    stakes",
        "goal = -math.log(1 - confidence) / 3\n    stakes",
        "TestMean::test_it_exceeds_the_truth_as_rarely_as_promised",
    ),
    (
        "delta left out of the bound from accuracy",
        "The bound lies above the truth of a mechanism that may fail.",
        "odds = (accuracy - delta) / (1 - accuracy)",
        "odds = accuracy / (1 - accuracy)",
        "TestAccuracy::test_randomized_response_has_the_epsilon_of_its_accuracy",
    ),
)

CANARIES = breaks_of(
    "audit/canaries.py",
    "audit/test_canaries.py",
    (
        "best of three guesses at the confidence of one",
        "Taking the best of several bounds makes a false alarm likelier than stated.",
        "each = 1 - (1 - confidence) / len(GUESSED)",
        "each = confidence",
        "test_scores_without_meaning_exceed_nothing_as_often_as_promised",
    ),
    (
        "guesses by the truth",
        "Canaries are found whatever the engine does.",
        'order = np.argsort(scores, kind="stable")',
        'order = np.argsort(present, kind="stable")',
        "test_scores_without_meaning_exceed_nothing_as_often_as_promised",
    ),
    (
        "coins of records where people are the units",
        "A person is half in and half out, and neighbours differ by less than the promise says.",
        "return coins if records.owners is None else coins[records.owners]",
        "return coins if records.owners is None else np.resize(coins, len(records))",
        "test_a_person_is_in_with_all_records_or_with_none",
    ),
)

GAME = breaks_of(
    "audit/game.py",
    "audit/test_game.py",
    (
        "the game guesses by the truth",
        "Every engine is found broken, so the audit says nothing.",
        "return ratios > 0",
        "return present",
        "test_guesses_come_from_the_releases_alone",
    ),
    (
        "the game sees the sum before the noise",
        "The bound is that of an attacker whom nobody promised anything against.",
        "released = plan.privatize(clipper.finish(), source, step)",
        "bare = clipper.finish()\n"
        "        released = {name: value / plan.divisor for name, value in bare.values.items()}",
        "test_guesses_come_from_the_releases_alone",
    ),
    (
        "the game is played by hand",
        "Sampling is not under audit: an engine that takes every record each time passes.",
        "for step, batch in plan.batches(records=len(records), source=source):",
        "for step in range(plan.steps):\n"
        '        batch = np.flatnonzero(source.uniforms(("by hand", step), len(records)) <= 0.5)',
        "test_a_broken_engine_is_found_over_its_claim",
    ),
    (
        "canaries too quiet to be clipped",
        "An engine that does not clip passes.",
        "LOUDNESS = 1000.0",
        "LOUDNESS = 0.1",
        "test_canaries_are_orthogonal_and_louder_than_the_clipping_norm",
    ),
)

RUN = breaks_of(
    "audit/run.py",
    "audit/test_audit_run.py",
    (
        "audit of private images without the checks of a run",
        "An audit spends on records that a run would have refused.",
        "watch = check_images(data, images, units, model, plan, asked, progress)",
        "from dpwavelet.pipeline.leaks import Watch\n"
        "    from dpwavelet.pipeline.prints import Prints\n\n"
        "    watch = Watch(images, Prints.of_records(images, progress.advance))",
        "test_what_a_run_refuses_an_audit_refuses_before_anything_is_spent",
    ),
    (
        "audit of private images charged to itself alone",
        "The images have paid for a training run that their ledger does not know.",
        "account = open_account(books, own, ",
        'account = open_account(Books.of(data, watch.prints.files, private / "other"), own, ',
        "test_results_on_private_images_stay_private_and_are_charged",
    ),
    (
        "people audited as records",
        "The bound is about records, and the promise about people.",
        "tokens = encode(images.holding(watch.prints.files), model, asked.group_by, progress)",
        "tokens = encode(images.holding(watch.prints.files), model, None, progress)",
        "test_people_are_audited_as_people",
    ),
    (
        "coins of canaries turned round",
        "Every right guess counts as a wrong one, and a broken engine passes.",
        "by_updates=one_run(updates.scores, planted,",
        "by_updates=one_run(updates.scores, ~planted,",
        "test_every_attack_is_judged_by_who_took_part",
    ),
    (
        "coins of records turned round",
        "An attacker who finds members is told to find others.",
        'membership("likelihood gained", likely - before, own, at_rates)',
        'membership("likelihood gained", likely - before, ~own, at_rates)',
        "test_every_attack_is_judged_by_who_took_part",
    ),
    (
        "copies counted for the wrong half",
        "Copying what was trained on is reported as copying what was not.",
        "copying(samples, pictures, own,",
        "copying(samples, pictures, ~own,",
        "test_every_attack_is_judged_by_who_took_part",
    ),
)

SHOWN = breaks_of(
    "training/loop.py",
    "audit/test_updates.py",
    (
        "the audit is shown the sum before the noise",
        "Canaries are scored by what no attacker sees, and sound training is found broken.",
        RELEASED,
        "bare = ranks.reduce(clipper.finish())\n"
        "        optimizer.step(plan.privatize(bare, source, step), step)\n"
        "        update = {name: value / plan.divisor for name, value in bare.values.items()}",
        "test_what_is_shown_of_a_run_is_what_its_weights_follow_from_and_no_more",
    ),
)

BREAKS = (
    *BOUNDS,
    *CANARIES,
    *GAME,
    *RUN,
    *SHOWN,
)
