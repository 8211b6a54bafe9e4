"""One record's gradient: how it is measured, clipped and added up."""

from breaks.entry import breaks_of

CLIPPING = breaks_of(
    "privacy/clipping.py",
    "privacy/test_clipping.py",
    (
        "clipping skipped",
        "One record may move the sum without any bound.",
        "(bound / ((1 + self.precision.margin) * norms)).clamp(max=1.0)",
        "torch.ones_like(norms)",
        "test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "clipping to twice the norm",
        "The sensitivity is twice what the noise is made for.",
        "factors = (bound /",
        "factors = (2 * bound /",
        "test_clipping_wastes_little_of_the_bound test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "each layer clipped on its own",
        "The norm of the largest layer stands for the whole, so all layers together exceed the bound.",
        "squared = squared + self._weight(name) ** 2 * measured",
        "squared = torch.maximum(squared, self._weight(name) ** 2 * measured)",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk"
        " test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "one parameter left out of the norm",
        "A record whose gradient lies in that parameter is not clipped.",
        "squared = squared + self._weight(name) ** 2 * measured",
        "squared += 0 if gradient is next(iter(gradients.values())) else measured",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk",
    ),
    (
        "weights left out of the norm",
        "A heavy parameter moves the sum by up to 16 times the bound.",
        "squared = squared + self._weight(name) ** 2 * measured",
        "squared = squared + measured",
        "test_one_record_moves_a_weighted_sum_by_at_most_the_sensitivity_and_nearly_by_it",
    ),
    (
        "weights left out of the sum",
        "A light parameter is measured short and released whole, by up to 16 times the bound.",
        "gradient.weighted_sum(self._weight(name) * factors)",
        "gradient.weighted_sum(factors)",
        "test_one_record_moves_a_weighted_sum_by_at_most_the_sensitivity_and_nearly_by_it",
    ),
    (
        "weights in the norm as they are, not squared",
        "What is heavy is measured too short for what is released.",
        "self._weight(name) ** 2 * measured",
        "self._weight(name) * measured",
        "test_one_record_moves_a_weighted_sum_by_at_most_the_sensitivity_and_nearly_by_it",
    ),
    (
        "weights that round",
        "Rounding of each product comes on top of what the margin was measured for.",
        "frexp(weight)[0] == 0.5",
        "weight > 0",
        "test_a_weight_that_rounds_or_is_out_of_range_is_refused",
    ),
    (
        "no margin for rounding, exact",
        "The sum as computed moves by a little more than the bound.",
        "margin=2.0**-13",
        "margin=0.0",
        "privacy/test_breaks.py::test_a_clipped_record_keeps_its_distance_from_the_bound",
    ),
    (
        "no margin for rounding, fast",
        "Products rounded to bfloat16 move the sum by more than the bound.",
        "margin=2.0**-8",
        "margin=0.0",
        "privacy/test_breaks.py::test_a_clipped_record_keeps_its_distance_from_the_bound",
    ),
    (
        "norms that are not finite are counted",
        "One record makes the whole sum infinite or not a number: its presence is plain to see.",
        "good = values.isfinite() & norms.isfinite()",
        "good = values.isfinite()",
        "test_an_infinite_gradient_of_a_finite_loss_counts_as_zero",
    ),
    (
        "losses that are not finite are counted",
        "A record outside the model's range still enters, by a gradient that nobody can vouch for.",
        "good = values.isfinite() & norms.isfinite()",
        "good = norms.isfinite()",
        "test_a_loss_that_is_not_finite_counts_as_zero_even_when_its_gradient_is",
    ),
    (
        "records that are not finite are multiplied by zero",
        "Zero times not-a-number is not a number, so the record still shows in the sum.",
        "mask.masked_fill(bad, 0.0), mended)",
        "mask.masked_fill(bad, 0.0), chunk)",
        "test_a_record_that_is_not_finite_counts_as_zero"
        " test_an_infinite_gradient_of_a_finite_loss_counts_as_zero",
    ),
    (
        "a good record in the row of a bad one is counted",
        "That record is in the sum twice, which doubles its influence.",
        "mask.masked_fill(bad, 0.0), mended)",
        "mask, mended)",
        "test_a_record_that_is_not_finite_counts_as_zero"
        " test_compiled_records_that_are_not_finite_count_as_zero",
    ),
    (
        "padding rows are counted",
        "A row that fills up a chunk is a record once more, which doubles its influence.",
        "mask[records:] = 0.0",
        "pass",
        "test_padding_leaves_no_trace",
    ),
    (
        "mean over the chunk before clipping",
        "How much a record is clipped then depends on how many others are computed with it.",
        "torch.autograd.grad(values.sum(), outputs, allow_unused=True)",
        "torch.autograd.grad(values.mean(), outputs, allow_unused=True)",
        "test_opacus_hooks_find_the_same_sum test_diagnostics_are_the_losses_and_norms_of_the_chunk",
    ),
    (
        "sum kept for the next step",
        "A record's gradient is released again in every later step, and paid for once.",
        "sums, self._sums = self._sums, {}",
        "sums = self._sums",
        "test_each_sum_starts_anew",
    ),
    (
        "sensitivity understated",
        "The noise is made for half of what one record can do.",
        "sensitivity=self.max_norm)",
        "sensitivity=self.max_norm / 2)",
        "test_an_empty_batch_makes_a_zero_sum_of_the_same_sensitivity",
    ),
    (
        "losses that mix records go unnoticed",
        "Clipping single records bounds nothing when a loss belongs to several of them.",
        "require_separate_records(values, outputs)",
        "pass",
        "test_losses_that_mix_records_are_refused",
    ),
    (
        "self-check finds nothing",
        "A use of a parameter outside its layer stays out of every norm.",
        "if not error <= tolerance * (size + 0.01 * scale):",
        "if error < 0:",
        "test_the_check_finds_uses_outside_the_layer",
    ),
    (
        "mixing that gradients do not show goes unnoticed",
        "Statistics of the batch enter through the input, and clipping single records bounds nothing.",
        "self._require_own_losses(losses, records, tolerance=1e-3)",
        "pass",
        "test_the_check_finds_mixing_that_gradients_do_not_show",
    ),
    (
        "a model may remember what it saw",
        "Running statistics of private records are released without noise.",
        "if self._versions() != before:",
        "if False:",
        "test_a_model_that_remembers_what_it_saw_is_refused",
    ),
    (
        "autocast around norms and sums",
        "Norms and sums are rounded to 16 bits, so the sum moves by more than the bound.",
        "if torch.is_autocast_enabled(chunk[0].device.type):",
        "if False:",
        "test_autocast_around_the_clipper_is_refused",
    ),
    (
        "only the last use of a shared weight is kept",
        "What the other uses add is neither measured nor clipped, or is lost.",
        "uses.setdefault(name, []).append(Use(layer, attribute, call.input, grad))",
        "uses[name] = [Use(layer, attribute, call.input, grad)]",
        "test_the_sum_is_that_of_records_clipped_one_by_one",
    ),
    (
        "sums of chunks in single precision",
        "Rounding of thousands of records that agree exceeds the margin.",
        "clipped.to(torch.float64, copy=True)",
        "clipped.clone()",
        "test_thousands_of_chunks_add_up_without_rounding",
    ),
    (
        "compiled for one shape, run on all",
        "Which form a chunk runs in, and so how it rounds, depends on how many records were drawn.",
        "if losses is not self._compiled.losses or _shapes(chunk) != self._compiled.shapes:",
        "if False:",
        "test_a_compiled_clipper_runs_nothing_else",
    ),
    (
        "compiled sums are not compared",
        "A graph that leaves something out of the norm goes unnoticed.",
        "if wrong := _difference(ours, theirs, tolerance):",
        'if wrong := "":',
        "test_a_graph_that_adds_up_to_something_else_is_refused",
    ),
)

COMPILED = breaks_of(
    "privacy/compiled.py",
    "privacy/test_clipping.py",
    (
        "compiled with the weights of the first step",
        "Later norms are those of gradients at other weights.",
        "return lambda *arguments: graph(_weights(call), *arguments)",
        "weights = {name: one.clone() for name, one in _weights(call).items()}\n"
        "    return lambda *arguments: graph(weights, *arguments)",
        "test_the_compiled_sum_is_the_same_for_new_weights_and_records",
    ),
    (
        "compiled without the rounding that bounds rest on",
        "What was rounded once when measured is rounded in another way when released.",
        '{"emulate_precision_casts": True} if backend == "inductor" else None',
        "None",
        "test_factors_of_a_compiled_graph_are_what_bfloat16_holds",
    ),
)

TRAINED_LAYERS = breaks_of(
    "privacy/trained_layers.py",
    "privacy/test_clipping.py",
    (
        "batch normalisation admitted",
        "One record changes the activations, so the gradients, of all others in its batch.",
        "if isinstance(layer, _MIXING):",
        "if False:",
        "test_batch_statistics_are_refused_even_when_frozen",
    ),
    (
        "unknown layers admitted",
        "A layer whose per-record gradients are not known gets wrong ones.",
        'if type(layer) not in SUPPORTED or attribute not in ("weight", "bias"):',
        "if False:",
        "test_what_cannot_be_clipped_exactly_is_refused_by_name",
    ),
)

LAYER_GRADIENTS = breaks_of(
    "privacy/layer_gradients.py",
    "privacy/test_clipping.py",
    (
        "Gram form without its rounding bound",
        "Where the terms of a norm cancel, rounding hides a gradient that is then released.",
        "+ accumulation * R.square()",
        "",
        "test_the_gram_form_bounds_what_it_releases",
    ),
    (
        "Gram form with one allowance for sums of any length",
        "Long sums of terms that nearly cancel lose more digits; a record was seen to move one by 1.47 C.",
        "(0.5 * terms + 16.0)",
        "16.0",
        "test_the_gram_form_bounds_what_it_releases",
    ),
    (
        "rounding measured on the other factor",
        "A record's weight rounds the factor that it is given to, and the bound must follow that one.",
        "(a, GG) if self._weighs_inputs else (g, AA)",
        "(a, GG)",
        "test_the_weight_of_a_record_goes_to_the_narrower_factor_and_its_rounding_is_measured",
    ),
    (
        "norms and sums in 16 bits",
        "Rounding to bfloat16 depends on the other records and exceeds the bound by half.",
        "return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor",
        "return tensor",
        "test_sums_are_not_rounded_to_what_the_model_computes_in",
    ),
    (
        "a repeated word counted apart in the norm",
        "Rows of one word add up in the sum but not in the norm, which is then too small.",
        "norms = torch.linalg.vector_norm(same.to(self.G.dtype) @ self.G, dim=2)",
        "norms = torch.linalg.vector_norm(self.G, dim=2) * same.sum(2).sqrt()",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk",
    ),
    (
        "stored gradients added up in 16 bits",
        "Each addition rounds the sum so far, and with it what all other records gave.",
        "total = torch.zeros_like(self.values[0], dtype=torch.float32)",
        "total, factors = torch.zeros_like(self.values[0]), factors.to(self.values.dtype)",
        "test_stored_gradients_in_sixteen_bits_add_up_in_single_precision",
    ),
    (
        "Gram form allows for one rounding of two",
        "Where products round to 16 bits, scaling a record changes how it rounds, by more than was added.",
        "moved = 4 * rounding * R",
        "moved = rounding * R",
        "test_the_gram_form_bounds_what_it_releases_when_scaling_changes_how_factors_round",
    ),
    (
        "short factors released as if scaling did not round",
        "A weight makes factors longer than 16 bits, and the product that adds records up rounds them.",
        "moved = rounding * torch.minimum(torch.linalg.vector_norm(weighted, dim=1) * widest, R)",
        "moved = torch.zeros_like(R)",
        "test_rounding_of_scaled_short_factors_is_bounded_and_nearly_as_large_as_that",
    ),
    (
        "long factors measured as if they were short",
        "Of factors in single precision both round, once where measured and once where released.",
        "short = G.dtype == torch.bfloat16",
        "short = True",
        "test_what_no_product_rounds_is_measured_as_short_only_in_sixteen_bits",
    ),
    (
        "rows of a table added up in single precision",
        "Rows of one record that are long and cancel round away more of the others than the bound.",
        "table = self.G.new_zeros(self.rows, self.G.shape[2], dtype=torch.float64)\n"
        "        rows = self.G.double() * factors[:, None, None]",
        "table = self.G.new_zeros(self.rows, self.G.shape[2])\n"
        "        rows = self.G * factors[:, None, None]",
        "test_rows_that_cancel_round_away_nothing_of_what_others_put_there",
    ),
    (
        "long rows squared in one sum",
        "In single precision many small numbers beside a large one are not measured, and are released.",
        "_LONGEST = 1024",
        "_LONGEST = 1 << 30",
        "test_many_small_numbers_beside_a_large_one_are_all_measured",
    ),
    (
        "norm layers measured by their raw input",
        "The norm is that of another gradient than the one released.",
        "G = G * _normalized(use.layer, _positions(use.input, shape))",
        "G = G * _positions(use.input, shape)",
        "test_opacus_hooks_find_the_same_sum",
    ),
)

BREAKS = (
    *CLIPPING,
    *COMPILED,
    *TRAINED_LAYERS,
    *LAYER_GRADIENTS,
)
