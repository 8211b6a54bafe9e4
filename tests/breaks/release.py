"""What leaves the house: the run as a whole, its certificate and its report."""

from breaks.entry import breaks_of

PIPELINE = breaks_of(
    "pipeline/run.py",
    "pipeline/test_run.py",
    (
        "accountant reset on resume",
        "What was spent before an interruption is forgotten.",
        '    own = Ledger.open(private / "ledger.jsonl")\n',
        '    (private / "ledger.jsonl").unlink(missing_ok=True)\n'
        '    own = Ledger.open(private / "ledger.jsonl")\n'
        "    books.ledger.path.unlink(missing_ok=True)\n"
        "    books = Books.of(data, watch.prints.files, settings.ledger)\n",
        "pipeline/test_run_breaks.py::test_what_was_spent_before_an_interruption_stays_in_the_ledger",
    ),
    (
        "private captions as prompts",
        "Captions are part of a record, and are published word for word.",
        "    training_time = time.monotonic() - started\n",
        "    training_time = time.monotonic() - started\n"
        "    from dataclasses import replace\n\n"
        "    seen = tuple(opened.images.captions(index)[0] for index in range(settings.samples))\n"
        "    settings = replace(settings, captions=settings.captions or seen)\n",
        "pipeline/test_run_breaks.py::test_a_run_without_given_captions_takes_none_from_the_records",
    ),
)

IMAGES = breaks_of(
    "images/private.py",
    "images/test_public_private.py",
    (
        "account found by the order of the files",
        "Images that were renamed begin a new account, and what was spent on them is forgotten.",
        'b"".join(sorted(digests))',
        'b"".join(digests)',
        "test_the_fingerprint_survives_renames_and_sees_every_byte",
    ),
)

OPENING = breaks_of(
    "pipeline/opening.py",
    "pipeline/test_run.py",
    (
        "codebook fitted on private data",
        "The tokenizer becomes a second release of the records, without noise.",
        '    progress.begin("images to tokens", len(images))\n',
        '    progress.begin("images to tokens", len(images))\n'
        "    from dpwavelet.images.sheet import from_bytes\n"
        "    from dpwavelet.randomness import torch_stream\n"
        "    from dpwavelet.wavelet import analyze\n\n"
        "    pixels = from_bytes(images.pixels(range(min(len(images), 96))))\n"
        '    model.tokenizer.start(analyze(pixels, 2), torch_stream(1, "codebooks"))\n',
        "pipeline/test_run_breaks.py::test_all_but_the_transformer_leaves_as_it_came",
    ),
    (
        "private folder open to all",
        "Every user of the machine can read the tokens, the ledger and the key.",
        '(out / "private").chmod(0o700)',
        '(out / "private").chmod(0o755)',
        "pipeline/test_run_breaks.py::test_only_the_owner_may_enter_the_private_folder",
    ),
)

LEARNING = breaks_of(
    "pipeline/learning.py",
    "pipeline/test_run.py",
    (
        "private loss in the model's card",
        "Every step's loss on private records is published without noise.",
        '"started_from": dict(model.card),',
        '"started_from": dict(model.card),\n        "curve": metrics.read_text(encoding="utf-8"),',
        "pipeline/test_run_breaks.py::test_no_diagnostic_of_private_training_is_in_the_release",
    ),
)

RELEASE = breaks_of(
    "pipeline/release.py",
    "pipeline/test_run.py",
    (
        "fingerprint of the data in the certificate",
        "Whoever holds a guess of the whole set can confirm it.",
        '"settings": certified(here.settings)}',
        '"settings": certified(here.settings), "data": ledger.entries[0].get("images")}',
        "TestRelease::test_a_changed_file_is_noticed",
    ),
    (
        "training time in the release",
        "The time depends on how many records were drawn, and nothing pays for that number.",
        'return [*found, Fact("Machine", self.machine)]',
        'return [Fact("Private training", about(self.training)), *found, Fact("Machine", self.machine)]',
        "pipeline/test_run_breaks.py::test_no_release_tells_how_long_its_training_took",
    ),
    (
        "release not searched for leaks",
        "What a defect carries from the records into the folder is signed and published.",
        "seal.watch.check_release(",
        "(lambda *_, **__: None)(",
        "pipeline/test_leaks.py::TestRun::test_the_scan_runs_again_on_the_release_itself",
    ),
    (
        "release written in place",
        "An interruption leaves half a release, with files that no certificate covers.",
        "with whole_folder(folder) as building:",
        "with __import__('contextlib').nullcontext(folder) as building:",
        "pipeline/test_run_breaks.py::test_a_failure_while_the_release_is_written_leaves_none_of_it",
    ),
)

REFUSALS = breaks_of(
    "pipeline/refusals.py",
    "pipeline/test_refusals.py",
    (
        "people with numbers that have a point are nobody",
        "A column with gaps has 17.0 for 17, and a person with many records is promised what one record is.",
        "(person := record.named(field)) is not None]",
        "isinstance(person := record.fields.get(field), str | int)]",
        "TestPeople::test_people_of_a_column_with_gaps_are_known_by_their_numbers",
    ),
    (
        "any field taken for people",
        "Records with a field of their own each are promised as people, and somebody owns three of them.",
        "        if group_by:\n            most",
        "        if group_by:\n            break\n            most",
        "TestPeople::test_somebody_who_is_several_people_by_the_field_that_was_named_is_refused",
    ),
    (
        "the same picture twice",
        "One record that is there k times has k times the privacy loss.",
        "if any(of_two(group[0], other) for other in group[1:]):",
        "if False:",
        "TestDuplicates::test_the_same_pixels_under_another_name_are_refused_and_may_be_allowed",
    ),
    (
        "public weights that saw the records",
        "They learned the records without any noise.",
        "if share > SEEN_SHARE:",
        "if False:",
        "TestSameData::test_weights_that_saw_the_pictures_under_other_names_are_refused",
    ),
    (
        "resumed without the ledger",
        "Nobody can tell what the run has spent.",
        "if run not in ledger.runs and (",
        "if False and (",
        "TestLostAccountant::test_without_its_ledgers",
    ),
    (
        "resumed without the key of the noise",
        "Steps that were taken are taken again with other noise.",
        "if not key.is_file() and (",
        "if False and (",
        "TestLostAccountant::test_without_the_key_of_its_noise",
    ),
)

LEAKS = breaks_of(
    "pipeline/leaks.py",
    "pipeline/test_leaks.py",
    (
        "a rare name to draw with is not told of",
        "The owner draws for captions with a name that one record has, and publishes them.",
        "if count < COMMON)",
        "if count < 1)",
        "TestGivenCaptions::test_a_rare_word_that_public_text_does_not_know_may_name_somebody",
    ),
    (
        "captions and file names not searched for",
        "What a defect copies from the records into a text is published.",
        "if words not in known:",
        "if False:",
        "TestTexts::test_the_file_name_of_a_record_is_found"
        " TestTexts::test_the_caption_of_a_record_is_found_in_other_punctuation",
    ),
    (
        "certificate not searched",
        "A secret in the certificate is published, and signed.",
        "for text in _strings(certificate):",
        "for text in ():",
        "TestTexts::test_the_certificate_is_read_too",
    ),
    (
        "pictures inside the report not searched",
        "A record shown on the page is published.",
        "if hashlib.sha256(inner).digest() not in drawn:",
        "if False:",
        "TestPictures::test_a_picture_inside_the_page_is_found",
    ),
)

SETTINGS = breaks_of(
    "pipeline/settings.py",
    "pipeline/test_run.py",
    (
        "delta compared with what is declared alone",
        "Whoever declares few records may have a delta at which some of many are published.",
        "    check_delta(plan.delta, found)\n",
        "",
        "TestPlan::test_a_delta_that_would_let_a_record_be_published_is_refused_whatever_was_declared",
    ),
    (
        "fewer records than declared change the plan",
        "A declared number tells that so many are there, and one record fewer shows.",
        "        return settings.records\n",
        "        return min(settings.records, found)\n",
        "TestPlan::test_a_declared_number_does_not_tell_that_so_many_are_there",
    ),
    (
        "number of records taken from the folder",
        "One record more changes rate, steps, noise and delta, and all of them are published.",
        "return found // GRANULARITY * GRANULARITY if found >= GRANULARITY else found",
        "return found",
        "TestPlan::test_the_number_of_records_is_declared_or_rounded_down"
        " TestPlan::test_adding_a_record_changes_no_public_number",
    ),
)

VERIFICATION = breaks_of(
    "privacy/verification.py",
    "privacy/test_verification.py",
    (
        "a statement may say a tenth of a percent less",
        "At small budgets that is most of what an attacker gains, and verify prints the sentence as true.",
        "* (1 + REFINEMENT) < 100 * mechanisms_allow(events):",
        "* (1 + REFINEMENT) < 100 * mechanisms_allow(events) - 0.1:",
        "test_a_statement_may_not_promise_three_thousandths_too_much",
    ),
    (
        "a name that stands twice in a card",
        "Some readers believe the first of two, and verify looked at the second.",
        "if len(found) != len(pairs):",
        "if False:",
        "test_another_promise_in_another_file_fails",
    ),
    (
        "overruled refusals left out of a certificate",
        "The owner allowed too few records, and the certificate says that nothing was overruled.",
        'if begun.get("allowed", overruled) != overruled:',
        "if False:",
        "privacy/test_certificate_fields.py::TestLedger::test_a_run_that_overruled_other_refusals_fails",
    ),
    (
        "another epsilon shown in the report accepted",
        "Programs and people read a smaller epsilon than the certificate has, and verify says ok.",
        'wrong += [] if found["shown"] == shown else ["epsilon or delta as shown"]',
        "wrong += []",
        "test_another_promise_in_another_file_fails",
    ),
    (
        "measurements that nobody paid for accepted in the report",
        "A number about the records stands in a release, and no mechanism made it.",
        'wrong += [] if not measured or certificate.get("measured") else ["set of measurements"]',
        "wrong += []",
        "test_another_promise_in_another_file_fails",
    ),
    (
        "another promise in the report accepted",
        "A signed release tells its readers a smaller epsilon than its certificate, and still verifies.",
        "wrong = [name for name, value in claim.items() if found[name] != value]",
        "wrong = [name for name in claim if name not in found]",
        "test_another_promise_in_another_file_fails",
    ),
    (
        "a release writes into what verify prints",
        "A file name or a field forges lines that say what was never checked.",
        "lines=[(ok, _printable(text)) for ok, text in lines],",
        "lines=list(lines),",
        "test_a_release_writes_no_lines_of_its_own",
    ),
    (
        "folders that cannot be listed are passed over",
        "What lies in them was seen by nobody, and the release verifies.",
        'return [*lines, (False, f"a folder of the release cannot be listed: {error}")]',
        "return lines",
        "test_a_listing_that_fails_is_a_failure",
    ),
    (
        "digests of files not compared",
        "Somebody replaces the weights by others, and the release still verifies.",
        "if digest(folder / path) != files[path]]",
        "if path not in files]",
        "test_a_changed_file_fails",
    ),
    (
        "files that are not listed accepted",
        "Private files beside the certified ones go unnoticed.",
        "for path in sorted(present - listed)]",
        "for path in sorted(listed - listed)]",
        "test_an_extra_file_fails",
    ),
    (
        "signature not checked",
        "Anybody can change the promise.",
        '.verify(bytes.fromhex(claim["signature"]), content)',
        "",
        "test_any_change_of_the_certificate_breaks_the_signature",
    ),
    (
        "signer not compared with the owner",
        "Anybody can sign another promise with a key of their own.",
        "if public_key is not None and public_key != embedded:",
        "if False:",
        "test_a_signature_by_somebody_else_fails_when_the_owner_is_known",
    ),
    (
        "epsilon believed and not recomputed",
        "The certificate may state any epsilon.",
        "ok = claimed * (1 + tolerance) >= cost",
        "ok = claimed * (1 + tolerance) > 0",
        "test_a_certificate_that_contradicts_itself_fails_though_its_owner_signed_it",
    ),
    (
        "claims not compared with the plan",
        "Unit, delta or clipping norm may be stated as better than they were.",
        "wrong = [name for name, value in stated.items() if certificate[name] != value]",
        "wrong: list[str] = []",
        "test_a_certificate_that_contradicts_itself_fails_though_its_owner_signed_it",
    ),
    (
        "mechanisms of the plan left out of the certificate",
        "What was spent beside training is not in the stated epsilon, nor in what a reviewer recomputes.",
        "return len(certified) == len(planned) and",
        "return len(certified) <= len(planned) and",
        "test_a_certificate_lists_the_mechanisms_of_its_plan_and_no_other",
    ),
    (
        "mechanisms that no plan has in the certificate",
        "The certificate speaks of another run than its plan.",
        "return len(certified) == len(planned) and",
        "return len(certified) >= len(planned) and",
        "test_a_certificate_lists_the_mechanisms_of_its_plan_and_no_other",
    ),
    (
        "cheaper mechanisms certified than planned",
        "Epsilon is recomputed for more noise than was added.",
        "all(map(same, planned, certified))",
        "True",
        "test_a_certificate_lists_the_mechanisms_of_its_plan_and_no_other",
    ),
    (
        "what bounds a person not compared with the plan",
        "The certificate names another field than the one that told people apart.",
        '"contribution": contribution(plan),',
        "",
        "test_a_certificate_for_people_that_says_something_else_in_words_fails",
    ),
    (
        "certified place not looked up in the ledger",
        "Any ledger confirms any run.",
        'if entry.get("kind") != "finished":',
        "if False:",
        "privacy/test_certificate_fields.py::TestLedger::test_another_place_fails",
    ),
    (
        "ledger's head not compared",
        "A ledger that was rewritten since still confirms the run.",
        "if head not in heads[position + 1 :]:",
        "if False:",
        "privacy/test_certificate_fields.py::TestLedger::test_another_head_fails"
        " privacy/test_certificate_fields.py::TestLedger::test_another_ledger_a_torn_one_and_none_fail",
    ),
    (
        "ledger confirms a run of another plan",
        "The certified epsilon is that of a cheaper run than the ledger has.",
        'for name in ("plan", "events")):',
        "for name in ()):",
        "privacy/test_certificate_fields.py::TestLedger::test_a_run_of_another_plan_or_with_other_noise_fails",
    ),
    (
        "ledger confirms a run that it did not charge",
        "Steps were taken that the owner's ledger knows nothing of.",
        'if ledger.charged_steps(entry["run"]) != begun["plan"]["steps"]:',
        "if False:",
        "privacy/test_certificate_fields.py::TestLedger::test_a_run_that_was_not_charged_whole_fails",
    ),
)

CERTIFICATE = breaks_of(
    "privacy/certificate.py",
    "privacy/test_certificate.py",
    (
        "epsilon rounded down in the certificate",
        "The stated cost lies below the real one.",
        '"epsilon_pld": plan.pld_epsilon,',
        '"epsilon_pld": plan.pld_epsilon * 100 // 1 / 100,',
        "privacy/test_breaks.py::test_no_number_of_a_certificate_is_rounded_in_its_own_favour",
    ),
    (
        "what is promised rounded to the nearest",
        "The sentence in the certificate names a smaller delta or epsilon than the plan.",
        "rounding=ROUND_CEILING",
        'rounding="ROUND_HALF_EVEN"',
        "test_the_statement_rounds_what_it_promises_up",
    ),
    (
        "attacker's success rounded down",
        "The statement in words bounds an attacker by less than is true.",
        "best = math.ceil(1000 *",
        "best = math.floor(1000 *",
        "privacy/test_breaks.py::test_no_number_of_a_certificate_is_rounded_in_its_own_favour",
    ),
)

KEYS = breaks_of(
    "privacy/keys.py",
    "privacy/test_certificate.py",
    (
        "signing key readable by all",
        "Every user of the machine can sign as the owner.",
        "os.link(name, path)",
        "os.chmod(name, 0o644) or os.link(name, path)",
        "test_a_signing_key_is_made_once_and_only_the_owner_may_read_it",
    ),
)

ROUNDED = breaks_of(
    "rounded.py",
    "report/test_figures.py",
    (
        "epsilon rounded to nearest in the card",
        "The card may print less than the certificate.",
        "rounding=ROUND_CEILING).normalize()",
        'rounding="ROUND_HALF_EVEN").normalize()',
        "test_a_printed_bound_is_never_below_the_number_and_within_one_percent",
    ),
)

REPORT = breaks_of(
    "report/figures.py",
    "report/test_figures.py",
    (
        "clock times with all their digits",
        "How long something took tells more than anybody asked for.",
        "return f\"about {float(f'{seconds:.2g}'):g} seconds\"",
        'return f"about {seconds} seconds"',
        "test_durations_keep_two_figures",
    ),
)

PERSONS = breaks_of(
    "pipeline/settings.py",
    "test_units.py",
    (
        "what bounds a person left out of the plan",
        "The certificate does not say by which field people were told apart, nor how many records they add.",
        "        group_by=settings.group_by,\n        per_unit=settings.training.per_unit,\n",
        "",
        "TestRun::test_a_release_promises_it_to_people_and_counts_people",
    ),
)

FORGOTTEN = breaks_of(
    "pipeline/forgetting.py",
    "test_cli.py",
    (
        "the key of the noise left behind",
        "Whoever finds the folder of a finished run can take the noise off.",
        "        key.unlink()\n",
        "",
        "TestRefusals::test_the_key_of_the_noise_is_gone_when_a_release_is_there",
    ),
    (
        "the key of a run that goes on deleted",
        "The steps that were paid for can't be repeated as they were.",
        'if not (Path(out) / "release" / CERTIFICATE).is_file() or not ledger.is_file():',
        "if False:",
        "TestRefusals::test_the_key_of_a_run_that_goes_on_stays",
    ),
)

BREAKS = (
    *FORGOTTEN,
    *PERSONS,
    *PIPELINE,
    *IMAGES,
    *OPENING,
    *LEARNING,
    *RELEASE,
    *REFUSALS,
    *LEAKS,
    *SETTINGS,
    *VERIFICATION,
    *CERTIFICATE,
    *KEYS,
    *REPORT,
    *ROUNDED,
)
