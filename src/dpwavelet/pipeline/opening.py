"""Open what a run works on, and refuse whatever is wrong with it before anything is spent."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpwavelet.enlargers import Enlarger, open_enlarger
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images.layouts import ImageFolder
from dpwavelet.images.private import PrivateImages, fingerprint_of
from dpwavelet.images.variants import Augment
from dpwavelet.model import Model
from dpwavelet.pipeline.leaks import COMMON, Watch
from dpwavelet.pipeline.prints import Prints
from dpwavelet.pipeline.refusals import check_duplicates, check_people, check_seen
from dpwavelet.pipeline.settings import RunSettings, caption_length, open_model, plan_for
from dpwavelet.privacy.bounded_sums import MOST_UNITS
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import check_signal, signal_to_noise
from dpwavelet.privacy.release_files import CERTIFICATE
from dpwavelet.progress import Progress
from dpwavelet.ranks import device_named
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.text import Vocabulary, split
from dpwavelet.training import trained_parameters

REHEARSED = 10  # records
STEP_OF_ROOM = 4  # words: the advice tells no more closely how long the longest caption is
WORTH_SAVING = 0.05  # share of the positions of a step
STRANGE = 1 / 3  # of all words: where captions are hardly in the language of the public ones


@dataclass(frozen=True, repr=False)
class Opened:
    """Images that nothing is wrong with, the public model and enlarger, and the plan for them."""

    data: Path
    images: PrivateImages
    model: Model
    enlarger: Enlarger
    plan: PrivacyPlan
    watch: Watch

    @property
    def fingerprint(self) -> str:
        """That of the images."""
        return fingerprint_of(self.watch.prints.files)

    @property
    def secrets(self) -> dict[str, str]:
        """Texts that no release may hold, by what they are, as far as they are known before training."""
        whole = self.data.resolve()
        paths = {"the path of the images": str(whole)} if len(whole.parts) > 2 else {}
        return {"the fingerprint of the images": self.fingerprint, **paths}


def open_all(data: Path, settings: RunSettings, progress: Progress, split: str | None = None) -> Opened:
    """Open everything that the settings name, make the plan, and check what can be checked."""
    check_data(data)
    model = open_model(settings.model, settings.private_scales).to(device_named(settings.device))
    enlarger = open_enlarger(settings.enlarger, model, consistent=settings.consistent)
    images = PrivateImages.open(data, model.image_size, split)
    advice = caption_advice(images.folder, model) if settings.caption_words is None else []
    warnings = caption_warnings(images.folder, model, settings.caption_words)
    for line in [*images.folder.lines(), *warnings, *advice]:
        progress.tell(line)
    if 0 < settings.samples < len(settings.captions):
        progress.tell(
            f"warning: of {len(settings.captions):,} captions the first {settings.samples:,} are drawn for "
            "the release; raise samples for the others, or draw them later."
        )
    units = count_units(images, settings)
    plan = plan_for(settings, units)
    watch = check_images(data, images, units, model, plan, settings, progress)
    looked_at = images.holding(watch.prints.files)  # a file that changes from here on is in no ledger
    return Opened(data, looked_at, model, enlarger, plan, watch)


def count_units(images: PrivateImages, settings: RunSettings) -> int:
    """How many units there truly are: records, or people where the settings name a field for them."""
    return len(set(images.group(settings.group_by))) if settings.group_by else len(images)


def caption_warnings(folder: ImageFolder, model: Model, most: int | None = None) -> list[str]:
    """What would not be read of the captions: what is longer than `most` words, and words never seen."""
    length, vocabulary = caption_length(model, most), model.vocabulary
    captions = _captions_of(folder)
    told = []
    if cut := sum(len(vocabulary.ids(caption, length + 1)) > length for caption in captions):
        told.append(
            f"warning: {cut:,} of {len(captions):,} captions are longer than the {length - 1} words and "
            f"pieces of words that are read{'' if most is None else ' (--caption-words)'}; what stands after "
            "them is not learned. Put first what matters."
        )
    if strange := strange_words(captions, vocabulary):
        told.append(
            f"warning: {strange} the public weights know (plain English). They are spelled in pieces, and "
            "what they mean must be learned from the records alone, under noise. Translate them, or say it "
            "in plain words, if you can."
        )
    return told


def strange_words(captions: Sequence[str], vocabulary: Vocabulary) -> str:
    """How many words public text did not have, where they are many, as the beginning of a sentence."""
    words = Counter(word for caption in captions for word in split(caption) if word.isalpha())
    strange = sum(count for word, count in words.items() if not vocabulary.holds(word))
    if strange <= STRANGE * words.total():
        return ""
    return f"{strange:,} of {words.total():,} words in the captions are none that"


def caption_advice(folder: ImageFolder, model: Model) -> list[str]:
    """How much shorter the rows of captions could be, where that saves a part of every step worth having.

    It is for the owner's eyes and decides nothing: how long the longest is may come of one record.
    """
    config, vocabulary = model.transformer.config, model.vocabulary
    longest = max((len(vocabulary.ids(caption, 10**6)) for caption in _captions_of(folder)), default=1)
    image = sum(config.tokens[: model.private_scales])
    room = -(-(longest - 1) // STEP_OF_ROOM) * STEP_OF_ROOM
    saved = (config.caption_length - 1 - room) / (config.caption_length + image)
    if saved < WORTH_SAVING:
        return []
    what = f"captions have at most {longest - 1} words and pieces" if longest > 1 else "there are no captions"
    return [
        f"note: {what}, and room for {config.caption_length - 1} is computed. --caption-words {room} "
        f"leaves out {saved:.0%} of the positions of every step. That number is public: say it where it "
        "tells nothing of a single record, as where captions are the names of kinds."
    ]


def _captions_of(folder: ImageFolder) -> list[str]:
    return [caption for index in range(len(folder)) for caption in folder.captions(index)]


def check_images(
    data: Path,
    images: PrivateImages,
    units: int,
    model: Model,
    plan: PrivacyPlan,
    settings: RunSettings,
    progress: Progress,
) -> Watch:
    """Everything that can go wrong with the data, before anything is spent."""
    if units < plan.records:
        progress.tell(fewer_than_declared(plan.records, units, plan.unit == "person"))
    if settings.release_metrics and units > MOST_UNITS:
        raise ConfigError(
            f"metrics can be bought of {MOST_UNITS:,} units at most; leave out --release-metrics."
        )
    if settings.likeness is not None and units > MOST_UNITS:
        raise ConfigError(f"a likeness is of {MOST_UNITS:,} units at most; leave out --likeness.")
    if settings.warm_start is not None and units > MOST_UNITS:
        raise ConfigError(f"a warm start adds up {MOST_UNITS:,} units at most; leave out --warm-start.")
    trained = trained_parameters(model.transformer, settings.training)
    noise = plan.noise_multiplier
    signal = signal_to_noise(
        batch_size=plan.batch_size, steps=plan.steps, noise_multiplier=noise, parameters=trained
    )
    check_signal(signal, settings.allow)
    check_people(images.folder, settings.group_by, settings.allow)
    progress.begin("checking images", len(images))
    prints = Prints.of_records(images, progress.advance)
    if dark := int(prints.dark.sum()):
        progress.tell(
            f"warning: {dark:,} of {len(images):,} pictures come out nearly black. Files of 16 bits "
            "may hold 12 or fewer: stretch their values over the whole range first."
        )
    check_seen(data, prints, settings.model, model.card)
    check_duplicates(images, prints, settings.group_by, settings.allow)
    watch = Watch(images, prints)
    watch.check_captions(settings.captions)
    if rare := watch.rare_words(settings.captions, model.vocabulary.holds):
        progress.tell(
            f"warning: captions to draw with have words that public text does not know, and that fewer than "
            f"{COMMON} records have: {', '.join(rare[:5])}. The release shows them. If one names somebody, "
            "leave it out."
        )
    return watch


def fewer_than_declared(records: int, found: int, people: bool) -> str:
    """A warning; nothing is refused, or a declared number would tell that so many are there."""
    return (
        f"warning: {records:,} {'people' if people else 'records'} were declared, and there are {found:,}. "
        "The promise holds as it stands. Each takes part as seldom as one of more would, and less is learned."
    )


def check_data(data: Path) -> None:
    """Refuse the folder of a run, or a release: their samples are no records."""
    kind = ""
    if (data / "config.yaml").is_file() and (data / "private").is_dir():
        kind = "the folder of a run"
    elif (data / CERTIFICATE).is_file():
        kind = "a release"
    if kind:
        raise ConfigError(
            f"{data} is {kind}, whose pictures are samples; name the images that it was made of."
        )


def check_apart(data: Path, out: Path, named: str = "--out") -> None:
    """Refuse to write into a file, or the folder of images: drawn ones would be taken for records later."""
    images, place = data.resolve(), out.resolve()
    if images == place or images in place.parents:
        raise ConfigError(
            f"{out} lies in {data}, the folder of images, which must stay as it is; choose another {named}."
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose another {named}, a folder.")


def check_outside_releases(place: Path, named: str) -> None:
    """Refuse to put files into a release: it would not verify any more, or give away what they tell."""
    there = place.resolve()
    if any((folder / CERTIFICATE).is_file() for folder in (there, *there.parents)):
        raise ConfigError(
            f"{place} lies in a release, whose files are certified and handed over; choose another {named}."
        )


def check_place(path: Path) -> None:
    """Find out whether a file or folder can be made, or a file written to, at this place; leaves nothing."""
    try:
        there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
        if there == path.absolute() and there.is_file():
            with there.open("ab"):
                return
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        raise OutputError(
            f"cannot write to {path}: {error.strerror or error}; choose another place."
        ) from None


def check_writable(out: Path) -> None:
    """Make `out/private`, for its owner alone, and find out whether files can be written below `out`."""
    try:
        (out / "private").mkdir(parents=True, exist_ok=True)
        (out / "private").chmod(0o700)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0" * 65536)
            file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror or error}; choose another --out."
        ) from None


def encode(
    images: PrivateImages,
    model: Model,
    group_by: str | None,
    progress: Progress,
    augment: Augment = "none",
    caption_words: int | None = None,
) -> PrivateTokens:
    """Every record as tokens, and whose it is where a field tells people apart."""
    progress.begin("images to tokens", len(images))
    tokens = tokenize(
        images,
        model.tokenizer,
        model.vocabulary,
        scales=model.private_scales,
        caption_length=caption_length(model, caption_words),
        augment=augment,
        told=progress.advance,
    )
    return tokens.owned_by(images.group(group_by)) if group_by else tokens
