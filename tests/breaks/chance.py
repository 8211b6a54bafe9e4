"""Who takes part, and the noise: everything that rests on secret randomness."""

from breaks.entry import breaks_of

SUBSAMPLING = breaks_of(
    "privacy/subsampling.py",
    "privacy/test_subsampling.py",
    (
        "sampling without Poisson",
        "Batches of one size from a shuffled list are another mechanism, with another epsilon.",
        "return np.flatnonzero(coins <= sampling_rate).astype(np.int64)",
        "return np.sort(np.argsort(coins)[: round(sampling_rate * records)]).astype(np.int64)",
        "test_batch_sizes_vary_as_a_binomial",
    ),
    (
        "batch cut to its expected size",
        "Whether a record takes part then depends on those before it.",
        "return np.flatnonzero(coins <= sampling_rate).astype(np.int64)",
        "return np.flatnonzero(coins <= sampling_rate).astype(np.int64)[: round(sampling_rate * records)]",
        "test_batch_sizes_vary_as_a_binomial test_each_record_joins_at_the_rate",
    ),
    (
        "records join more often than accounted",
        "Every record takes part in more steps than epsilon was computed for.",
        "coins <= sampling_rate",
        "coins <= 1.1 * sampling_rate",
        "test_each_record_joins_at_the_rate test_the_rate_is_exact_in_53_bits_and_never_rounded_up",
    ),
    (
        "one batch for every step",
        "A record is in all steps or in none: sampling no longer hides anything.",
        '("batch", step)',
        '("batch", 0)',
        "test_steps_are_independent_of_each_other",
    ),
    (
        "empty batches drawn again",
        "That a step has a member becomes certain, which the accounting does not know.",
        "return np.flatnonzero(coins <= sampling_rate).astype(np.int64)",
        "return np.flatnonzero(coins <= max(sampling_rate, coins.min(initial=1.0))).astype(np.int64)",
        "test_empty_batches_happen_as_often_as_they_should",
    ),
)

NOISE = breaks_of(
    "privacy/noise.py",
    "privacy/test_noise.py",
    (
        "noise x 0.9",
        "Less noise than was accounted for: epsilon is higher than stated.",
        "std = noise_multiplier * clipped.sensitivity",
        "std = 0.9 * noise_multiplier * clipped.sensitivity",
        "test_noise_on_each_parameter_is_gaussian_of_the_promised_size"
        " privacy/test_plan.py::test_the_noise_has_the_calibrated_size_for_a_batch_of_any_size",
    ),
    (
        "noise that ignores the clipping norm",
        "With a norm above one, there is too little noise.",
        "std = noise_multiplier * clipped.sensitivity",
        "std = noise_multiplier",
        "test_noise_on_each_parameter_is_gaussian_of_the_promised_size",
    ),
    (
        "noise left out",
        "The clipped sum itself is released.",
        "name: (value + gaussian_like(",
        "name: (value + 0 * gaussian_like(",
        "test_noise_on_each_parameter_is_gaussian_of_the_promised_size"
        " test_training.py::TestPromise::test_an_empty_batch_is_a_step_of_noise",
    ),
    (
        "noise of one step reused in the next",
        "The difference of two steps holds no noise.",
        '("noise", step, name)',
        '("noise", 0, name)',
        "test_parameters_and_steps_have_unrelated_noise"
        " privacy/test_plan.py::test_parameters_and_steps_get_noise_of_their_own",
    ),
    (
        "one noise for all parameters",
        "The difference of two parameters holds no noise.",
        '("noise", step, name)',
        '("noise", step)',
        "test_parameters_and_steps_have_unrelated_noise"
        " privacy/test_plan.py::test_parameters_and_steps_get_noise_of_their_own",
    ),
    (
        "one noise value for a whole parameter",
        "The differences inside a parameter hold no noise.",
        "source.normals(position, value.numel())",
        "source.normals(position, 1).repeat(value.numel())",
        "test_noise_on_each_parameter_is_gaussian_of_the_promised_size",
    ),
    (
        "noise on 16-bit sums",
        "Rounding a sum to fewer bits raises its sensitivity above what the noise covers.",
        "if value.dtype not in (torch.float32, torch.float64):",
        "if False:",
        "test_a_sum_narrower_than_float32_is_refused",
    ),
    (
        "noise of size zero accepted",
        "A wrong multiplier or norm releases the sum in the clear.",
        "if not (math.isfinite(std) and std > 0):",
        "if False:",
        "test_noise_that_hides_nothing_is_refused",
    ),
)

RANDOMNESS = breaks_of(
    "randomness.py",
    "test_randomness.py",
    (
        "seed fixed",
        "Whoever reads the code can subtract the noise.",
        "os.urandom(32) if key is None else key",
        "bytes(32) if key is None else key",
        "test_a_new_source_is_keyed_by_the_operating_system_and_a_key_restores_it"
        " test_training.py::TestInterruption::test_two_runs_draw_different_noise",
    ),
    (
        "key of 32 bits",
        "Four billion keys can be tried, and the noise of the right one subtracted.",
        "os.urandom(32) if key is None else key",
        "os.urandom(4) * 8 if key is None else key",
        "privacy/test_breaks.py::test_a_new_key_has_256_bits_from_the_operating_system",
    ),
    (
        "batches and noise from one keystream",
        "Who joined a step can be read off its noise.",
        "_spell(kind, *position)",
        "_spell(*position)",
        "test_different_kinds_of_numbers_at_one_position_share_nothing",
    ),
    (
        "noise cut off at four deviations",
        "A sum further out than that tells the neighbours apart for certain.",
        'np.sqrt(u, out=radius, casting="same_kind")',
        'np.sqrt(np.minimum(u, 16.0), out=radius, casting="same_kind")',
        "test_tails_have_the_right_weight",
    ),
    (
        "both normals of a pair alike",
        "Half of all coordinates carry the noise of their neighbour.",
        "np.multiply(radius, sine, out=piece[:, 1])",
        "np.multiply(radius, cosine, out=piece[:, 1])",
        "test_both_members_of_a_pair_are_normal_and_unrelated",
    ),
    (
        "a resumed source gets another key",
        "Repeated steps release the same sums under new noise, and the mean of both shows more.",
        "os.urandom(32) if key is None else key",
        "os.urandom(32)",
        "test_a_new_source_is_keyed_by_the_operating_system_and_a_key_restores_it"
        " privacy/test_plan.py::test_repeating_a_step_after_a_crash_releases_the_same_thing",
    ),
)

BREAKS = (
    *SUBSAMPLING,
    *NOISE,
    *RANDOMNESS,
)
