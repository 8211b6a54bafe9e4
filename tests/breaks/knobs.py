"""Options of private training: views of a record, variants of its image, low-rank pairs, private scales."""

from breaks.entry import breaks_of

SUM = "ranks.reduce(clipper.finish())"
RELEASED = f"update = plan.privatize({SUM}, source, step)\n        optimizer.step(update, step)"
ROWS = "rows = rows_of(records, records.members(chunk, coins, settings.per_unit), views)"

TOGETHER = breaks_of(
    "training/loop.py",
    "test_training_views.py",
    (
        "each view clipped alone and then added up",
        "A record that is seen in eight views moves the sum by eight times the clipping norm.",
        ROWS,
        "members = records.members(chunk, coins, settings.per_unit)\n"
        "            for view in views[1:]:\n"
        "                found = rows_of(records, members, [view])\n"
        "                clipper.accumulate(losses_of, *found, records=own)\n"
        "            rows = rows_of(records, members, views[:1])",
        "TestPromise::test_removing_a_record_moves_the_sum_of_a_step_of_training_by_no_more",
    ),
    (
        "no margin in a run whose products are rounded",
        "Products rounded to bfloat16 move the sum by more than the bound, and clipping leaves no room.",
        'precision="fast" if rounds_products(device_of(student), settings.mixed_precision) else "exact"',
        'precision="exact"',
        "test_precision.py::test_without_them_a_private_step_computes_and_clips_as_in_float32",
    ),
)

VIEWS = breaks_of(
    "training/views.py",
    "test_training_views.py",
    (
        "variant chosen by place in the batch",
        "One record more changes in which variants everyone after it is seen.",
        "view.variant[chosen]",
        "view.variant[: len(chosen), None]",
        "TestPromise::test_a_record_has_the_same_loss_whoever_is_drawn_with_it",
    ),
    (
        "views added to the batch as records",
        "A record with several views is several rows, and each of them is clipped alone.",
        "return (*(torch.cat(each, 1) for each in seen), torch.cat([shares] * len(views), 1))",
        "rows = (*(torch.cat(each, 1) for each in seen), torch.cat([shares] * len(views), 1))\n"
        "    return tuple(each.flatten(0, 1)[:, None] for each in rows)",
        "TestPromise::test_removing_a_record_moves_the_sum_by_at_most_the_clipping_norm"
        " TestPromise::test_equal_views_are_worth_one",
    ),
)

PERSONS = breaks_of(
    "training/views.py",
    "test_units.py",
    (
        "shares of a person's records not divided among their views",
        "The loss of a unit is no mean any more, so what is clipped is not what the text says.",
        "shares = members.shares / len(views)",
        "shares = members.shares",
        "TestPromise::test_every_view_of_every_record_of_a_person_has_the_same_share",
    ),
)

SEEN = breaks_of(
    "records.py",
    "test_training_views.py",
    (
        "variants of another record",
        "A row shows a picture of whoever stands at the other end of its chunk: two records move with one.",
        "others, first = self.variants[records, np.maximum(number - 1, 0)], number == 0",
        "others, first = self.variants[records[::-1], np.maximum(number - 1, 0)], number == 0",
        "TestPromise::test_a_record_has_the_same_loss_whoever_is_drawn_with_it"
        " TestPromise::test_removing_a_record_moves_the_sum_of_a_step_of_training_by_no_more",
    ),
    (
        "caption mirrored by the order of the batch",
        "Whether a caption is exchanged depends on the variant of another record that was drawn.",
        "for n in range(self.variant_count)])[number]",
        "for n in range(self.variant_count)])[number[::-1]]",
        "TestPromise::test_a_record_has_the_same_loss_whoever_is_drawn_with_it"
        " TestSeen::test_captions_and_tokens_are_those_of_record_caption_and_variant",
    ),
)

VARIANTS = breaks_of(
    "images/variants.py",
    "images/test_variants.py",
    (
        "crops normalised by their batch",
        "The tokens of a variant depend on the other records, outside all clipping.",
        "return torch.clamp(seen, -1, 1)",
        "return torch.clamp(seen - seen.mean(), -1, 1)",
        "test_a_picture_has_the_same_variants_whoever_stands_beside_it",
    ),
    (
        "window chosen by the number of pictures",
        "The windows are no public list: how many records there are decides what each of them shows.",
        "window = WINDOWS[number // 2]",
        "window = WINDOWS[(number // 2 + (len(pictures) > 64)) % len(WINDOWS)]",
        "test_a_picture_has_the_same_variants_whoever_stands_beside_it",
    ),
)

PAIRS = breaks_of(
    "adapters.py",
    "test_adapters.py",
    (
        "pair folded into one weight where it is used",
        "The clipper sees no use of the pair, so it bounds nothing of what a record does to it.",
        "self.frozen(x) + self.up(self.down(x))",
        "self.frozen(x) + nn.functional.linear(x, self.up.weight @ self.down.weight)",
        "test_the_released_weights_follow_from_what_was_released_and_from_nothing_else"
        " test_one_record_moves_the_sum_over_pairs_by_at_most_the_clipping_norm",
    ),
)

FROZEN = breaks_of(
    "training/loop.py",
    "test_adapters.py",
    (
        "frozen weights follow the sum before the noise",
        "Beside the pairs the weights under them move too, by gradients that got no noise.",
        RELEASED,
        f"raw = {SUM}\n"
        "        update = plan.privatize(raw, source, step)\n"
        "        optimizer.step(update, step)\n"
        "        for name, value in raw.values.items():\n"
        '            if name.endswith(".up.weight"):\n'
        '                pair = student.get_submodule(name.removesuffix(".up.weight"))\n'
        "                pair.frozen.weight.data.sub_(1e-3 * value.float() @ pair.down.weight.data)",
        "test_the_released_weights_follow_from_what_was_released_and_from_nothing_else",
    ),
)

SCALES = breaks_of(
    "pipeline/opening.py",
    "pipeline/test_knobs.py",
    (
        "finer scales learn than were asked for",
        "Fine detail of the records is learned, and the certificate says that public models added it.",
        "scales=model.private_scales,",
        "scales=model.tokenizer.config.scales,",
        "TestPrivateScales::test_a_release_draws_so_many_scales_privately_and_says_so",
    ),
)

BREAKS = (
    *TOGETHER,
    *VIEWS,
    *PERSONS,
    *SEEN,
    *VARIANTS,
    *PAIRS,
    *FROZEN,
    *SCALES,
)
