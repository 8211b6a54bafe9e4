"""One record's gradient: how it is measured, clipped and added up."""

from breaks.entry import breaks_of

CLIPPING = breaks_of(
    "privacy/clipping.py",
    "privacy/test_clipping.py",
    (
        "clipping skipped",
        "One record may move the sum without any bound.",
        "(self.max_norm / ((1 + self.precision.margin) * norms)).clamp(max=1.0)",
        "torch.ones_like(norms)",
        "test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "clipping to twice the norm",
        "The sensitivity is twice what the noise is made for.",
        "factors = (self.max_norm /",
        "factors = (2 * self.max_norm /",
        "test_clipping_wastes_little_of_the_bound test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "each layer clipped on its own",
        "The norm of the largest layer stands for the whole, so all layers together exceed the bound.",
        "squared = squared + gradient.squared_norms(self.precision.rounding)",
        "squared = torch.maximum(squared, gradient.squared_norms(self.precision.rounding))",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk"
        " test_many_near_duplicates_do_not_add_up_to_more",
    ),
    (
        "one parameter left out of the norm",
        "A record whose gradient lies in that parameter is not clipped.",
        "squared = squared + gradient.squared_norms(self.precision.rounding)",
        "squared += 0 if gradient is next(iter(gradients.values())) else gradient.squared_norms(0.0)",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk",
    ),
    (
        "no margin for rounding, exact",
        "The sum as computed moves by a little more than the bound.",
        "margin=2.0**-14",
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
        "counted = losses.isfinite() & norms.isfinite()",
        "counted = losses.isfinite()",
        "test_an_infinite_gradient_of_a_finite_loss_counts_as_zero",
    ),
    (
        "losses that are not finite are counted",
        "A record outside the model's range still enters, by a gradient that nobody can vouch for.",
        "counted = losses.isfinite() & norms.isfinite()",
        "counted = norms.isfinite()",
        "test_a_loss_that_is_not_finite_counts_as_zero_even_when_its_gradient_is",
    ),
    (
        "records that are not finite are multiplied by zero",
        "Zero times not-a-number is not a number, so the record still shows in the sum.",
        "gradient.drop(~counted)",
        "pass",
        "test_a_record_that_is_not_finite_counts_as_zero"
        " test_an_infinite_gradient_of_a_finite_loss_counts_as_zero",
    ),
    (
        "padding rows are counted",
        "A row that fills up a chunk is a record once more, which doubles its influence.",
        "counted[records:] = False",
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
        "        self._sums = {}\n",
        "",
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
        "batch normalisation admitted",
        "One record changes the activations, so the gradients, of all others in its batch.",
        "if isinstance(layer, _MIXING):",
        "if False:",
        "test_batch_statistics_are_refused_even_when_frozen",
    ),
    (
        "losses that mix records go unnoticed",
        "Clipping single records bounds nothing when a loss belongs to several of them.",
        "_require_separate_records(values, outputs)",
        "pass",
        "test_losses_that_mix_records_are_refused",
    ),
    (
        "tied parameter admitted",
        "A parameter used by two layers is counted in the norm by one of them only.",
        "if len(found) != 1:",
        "if not found:",
        "test_what_cannot_be_clipped_exactly_is_refused_by_name",
    ),
    (
        "unknown layers admitted",
        "A layer whose per-record gradients are not known gets wrong ones.",
        'if type(layer) not in SUPPORTED or attribute not in ("weight", "bias"):',
        "if False:",
        "test_what_cannot_be_clipped_exactly_is_refused_by_name",
    ),
    (
        "self-check finds nothing",
        "A use of a parameter outside its layer stays out of every norm.",
        "if not error <= 1e-3 * size + 1e-5 * scale:",
        "if error < 0:",
        "test_the_check_finds_uses_outside_the_layer",
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
        "norms and sums in 16 bits",
        "Rounding to bfloat16 depends on the other records and exceeds the bound by half.",
        "return joined.float() if joined.dtype in (torch.bfloat16, torch.float16) else joined",
        "return joined",
        "test_sums_are_float32_where_the_model_computes_in_bfloat16",
    ),
    (
        "a repeated word counted apart in the norm",
        "Rows of one word add up in the sum but not in the norm, which is then too small.",
        "pairs, places = torch.unique(ids + rows * records, return_inverse=True)",
        "pairs, places = (ids + rows * records).flatten(), torch.arange(ids.numel(), device=ids.device)",
        "test_diagnostics_are_the_losses_and_norms_of_the_chunk",
    ),
    (
        "norm layers measured by their raw input",
        "The norm is that of another gradient than the one released.",
        "G = G * _normalized(layer, _positions(inputs, shape))",
        "G = G * _positions(inputs, shape)",
        "test_opacus_hooks_find_the_same_sum",
    ),
)

BREAKS = (
    *CLIPPING,
    *LAYER_GRADIENTS,
)
