"""What the files of a table say: its numbers, and the words that must stand with them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpwavelet.comparison.beside import COSTS as BESIDE_COSTS
from dpwavelet.comparison.beside import NEARER, Beside, beside_ours
from dpwavelet.comparison.cells import LIKENESS, Cell, Known
from dpwavelet.comparison.consent import Price
from dpwavelet.comparison.measures import LEVELS
from dpwavelet.comparison.methods import Method
from dpwavelet.comparison.settings import NO_PRIVACY, PLAIN_PACE, TableSettings
from dpwavelet.comparison.summary import CONFIDENCE, Row, rows_of
from dpwavelet.evaluation.moments import COLUMNS
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.private import PrivateImages
from dpwavelet.pipeline.likeness import CHOICES
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.report.measured import AnyOrigin
from dpwavelet.report.origins import Origin, PrivateOrigin

NAMED = 3  # cells in a sentence
APART = {1: "+", -1: "-", 0: ""}
NO_SUM = "Cells at epsilon inf had no privacy at all, so no epsilon holds for everything that was trained."
WEIGHTS = (
    "images", "minutes", "parameters", "trained", "SHA-256", "learning rate", "clipped to", "guidance",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of the table."""

    key: str
    title: str
    unit: str = ""
    scale: float = 1.0  # what stands in a cell is divided by it
    cost: bool = True  # shown by its mean alone; the CSV and the JSON have its interval too


@dataclass(frozen=True, kw_only=True)
class Told:
    """Everything that the files say."""

    data: str
    settings: TableSettings
    known: Mapping[str, Known]
    cells: Sequence[tuple[Cell, Mapping[str, Any]]]
    cost: Price
    without_privacy: bool  # whether some cell in the folder had none: then no epsilon holds for all
    shape: PrivacyPlan
    held_out: PrivateImages
    features: Extractor

    @property
    def origin(self) -> AnyOrigin:
        """Of every number."""
        return Origin.PUBLIC if self.settings.stand_in else PrivateOrigin.PRIVATE

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return rows_of(self.cells)

    @property
    def distances(self) -> list[Column]:
        """Columns of which less is better, and the one of which more is."""
        space = self.features
        return [
            Column(key="fd_coarse", title=f"{space.label} coarse", cost=False),
            Column(key="fd_full", title=f"{space.label} full", cost=False),
            Column(key="kd_full", title=f"{space.kernel_label} full", cost=False),
            Column(key="perceptual", title="perceptual distance", cost=False),
            Column(key="class_found", title="class found", cost=False),
        ]

    @property
    def columns(self) -> list[Column]:
        """All of them."""
        return [*self.distances, *COSTS]


COSTS = (
    Column(key="seconds_per_1000", title="train seconds per 1,000 records"),
    Column(key="seconds", title="train seconds in all"),
    Column(key="peak_bytes", title="peak memory", unit="GB", scale=1e9),
    Column(key="pictures_a_second", title="images per second"),
    Column(key="clipped", title="gradients clipped", cost=False),
    Column(key="trained_parameters", title="trained parameters"),
    Column(key="records_seen", title="records seen"),
    Column(key="spent", title="epsilon spent"),
    Column(key="own_loss", title="own held-out loss", cost=False),
)


def notes(told: Told) -> list[str]:
    """What must be said with the numbers."""
    settings, shape = told.settings, told.shape
    private = [cell for cell, _ in told.cells if cell.plan]
    said = [
        (
            NO_SUM
            if told.without_privacy
            else "There is no private cell."
            if not private
            else f"All private cells together cost epsilon {told.cost.epsilon:g} at delta "
            f"{told.cost.delta:.3g}, the sums of theirs, earlier ones in this folder included."
        )
        + " "
        + (
            "The records are public stand-ins, by the word of whoever made this table."
            if settings.stand_in
            else "The owner of the records accepted that. The numbers are exact, and as private as they are."
        ),
        f"One promise for all: add or remove one record of {shape.records:,}, delta {shape.delta:.3g}, "
        f"Poisson batches of {shape.batch_size} expected, epsilon by privacy-loss distributions. Each clips "
        "gradients to a norm that most of its own exceed.",
        f"The same number of records seen: every method takes {shape.steps:,} steps."
        if settings.equal == "records"
        else "The same time to train: each method takes as many steps as, by a rehearsal on drawn portraits, "
        "fit into the seconds of ours. Training without privacy takes as many steps as with it.",
        *_shares(settings),
        f"Pictures are drawn for the captions of the same {settings.pictures:,} held-out records at most. "
        f"Coarse is the Haar approximation {LEVELS} levels down, enlarged. Real against real: as many of the "
        "records that were trained on.",
        f"In brackets: {100 * CONFIDENCE:g} % intervals of the mean over seeds, by Student's t. Noise and "
        "batches are never seeded: a seed draws pictures, and batches without privacy.",
        "Time is that of private training, and in all that of the encoding of records too; peak memory is "
        "that of a process that opens the weights and trains. Own loss is of another kind for each system: "
        "compare it within one.",
    ]
    if any(told.features.columns >= found["numbers"]["pictures"] for _, found in told.cells):
        said.append(
            f"{told.features.label} needs more than {told.features.columns:,} pictures of either kind, and "
            "is left out where there are fewer; the kernel distance is unbiased for any number."
        )
    seen = {name: _images(known) for name, known in told.known.items()}
    if len(set(seen.values())) > 1:
        said.append(
            "The public weights did not all learn from as many images: "
            + ", ".join(f"{name} {count}" for name, count in seen.items())
            + "."
        )
    if ways := _ways(told):
        said.append(f"Computed on {settings.computing.device}: {'; '.join(ways)}.")
    if len(ways) > 1:
        said.append("Cells were not computed alike: their seconds do not compare.")
    return said


def _shares(settings: TableSettings) -> list[str]:
    """Said of methods that take a share of those steps, have batches of their own, or draw as ours does."""
    said = []
    if NO_PRIVACY in settings.epsilons:
        said.append(
            f"Without privacy (inf) learning rates are {PLAIN_PACE:g} of those below, which were chosen for "
            "steps that are mostly noise."
        )
    if any(method.share != 1 for method in settings.methods):
        said.append("With @ a method takes that share of these steps, and the noise that so many ask for.")
    if any(method.parts > 1 for method in settings.methods):
        said.append("With / it sees as many records as without, each batch cut into so many: more steps.")
    if any(method.away for method in settings.methods):
        said.append("With :away it leads away from its public weights when it draws, as dp-wavelet does.")
    if any(method.chosen for method in settings.methods):
        said.append(
            f"With :chosen {CHOICES} pictures are drawn for a caption, and one is kept by a noisy sum over "
            f"the records, of {COLUMNS} features of the bundled network; distances by it flatter that. "
            f"A share of {LIKENESS:g} of epsilon pays for it, and its seconds count as training."
        )
    return said


def _ways(told: Told) -> list[str]:
    """How the cells with a training of their own were computed, in words, each once.

    Of several ways each says whose it is, or of how many cells.
    """
    found: dict[tuple[str, int, int, bool], list[str]] = {}
    for cell, kept in told.cells:
        if cell.steps:
            way = (
                str(kept.get("machine", "")),  # not written down once
                int(kept["threads"]),
                int(kept.get("at_once", 1)),
                bool(kept.get("compiled")),
            )
            found.setdefault(way, []).append(f"{cell.name}, epsilon {cell.epsilon:g}, seed {cell.seed}")
    return [
        (f"{machine}, " if machine else "")
        + f"threads {threads}, "
        + ("" if at_once == 1 else f"{at_once} cells at once, ")
        + ("private steps compiled, but for DP-LDM" if compiled else "nothing compiled")
        + ("" if len(found) == 1 else f" ({'; '.join(own) if len(own) <= NAMED else f'{len(own)} cells'})")
        for (machine, threads, at_once, compiled), own in sorted(found.items())
    ]


def weights_of(known: Known) -> dict[str, str]:
    """What a method begins from and does with it, under the titles of `WEIGHTS`."""
    stages = known.card.get("stages")
    minutes = [stage.get("minutes") for stage in stages.values()] if isinstance(stages, dict) else []
    told = [float(each) for each in minutes if each is not None]
    values = (
        _images(known),
        f"{sum(told):.0f}" if told else "not said",
        f"{known.parameters:,}",
        f"{known.trained_parameters:,}",
        known.weights[:8],
        f"{known.settings['learning_rate']:g}" if known.method.trained else "-",
        f"{known.max_norm:g}" if known.method.trained else "-",
        f"{known.sampling['guidance']:g}" + _away(known),
    )
    return dict(zip(WEIGHTS, values, strict=True))


def _away(known: Known) -> str:
    """How much of the guidance leads away from the public model, where a method knows such a thing."""
    share = known.sampling.get("away", 0.0) if known.method.trained else 0.0
    doubt = known.sampling.get("doubt", 0.0)
    return f", {share:g} of it away from public" + (f", doubt {doubt:g}" if doubt else "") if share else ""


def _images(known: Known) -> str:
    said = known.card.get("trained_on")
    count = said.get("images") if isinstance(said, dict) else None
    return f"{count:,}" if isinstance(count, int) else "not said"


def beside_titles(told: Told) -> list[str]:
    """Of the table of others beside ours, but for the name of the method."""
    distances = [column.title for column in told.distances if column.key in NEARER]
    costs = [column.title for column in COSTS if column.key in BESIDE_COSTS]
    return ["epsilon", "beside", *distances, *costs, "seconds to be as near"]


def beside_lines(told: Told) -> list[tuple[str, list[str]]]:
    """Each other method over ours: its name, and what stands under `beside_titles`."""
    return [
        (
            one.method,
            [
                f"{one.epsilon:g}",
                one.ours,
                *(_ratio(one, key) for key in (*NEARER, *BESIDE_COSTS)),
                _reached(one),
            ],
        )
        for one in beside_ours(told.rows)
    ]


def _ratio(one: Beside, key: str) -> str:
    if key not in one.ratios:
        return "-"
    return f"{one.ratios[key]:.3g} {APART[one.apart.get(key, 0)]}".strip()


def _reached(one: Beside) -> str:
    if one.reached is None:
        return "never"
    if not Method.parse(one.their).trained:
        return f"theirs in no time: {one.their}"
    if not Method.parse(one.reached).trained:
        return f"ours in no time: {one.reached}"
    if one.seconds_to_reach is None:
        return f"not timed, {one.reached}"
    whose = "" if one.their == one.method else f" for {one.their}"
    return f"{one.seconds_to_reach:.3g}, {one.reached}{whose}"


def beside_words(told: Told) -> list[str]:
    """How the table of others beside ours is to be read."""
    seeds = told.settings.seeds
    return [
        "Others over ours at the same epsilon: above 1, theirs is further off, or takes more. Beside is the "
        "row of ours that saw as many records, or has the same share, or saw the most. +: every seed of ours "
        "is nearer than every one of theirs. -: the other way round. Of two methods that are alike, one in "
        f"{math.comb(2 * seeds, seeds)} would get a +, and as many a -.",
        "Seconds to be as near: those of their cheapest row over those of ours, where a row is as near if "
        "its means of all finished distances (Fréchet, kernel, perceptual) are as small or smaller. In no "
        "time: the public weights are as near without the records. The more rows a system has, the cheaper "
        f"its cheapest may be: at one epsilon there are {_rows_of_each(told)}. With as many records for each "
        "the ratio is that of train seconds in all.",
    ]


def _rows_of_each(told: Told) -> str:
    """How many trained rows each system has to choose from, at one epsilon."""
    trained = [method.system for method in told.settings.methods if method.trained]
    return ", ".join(f"{trained.count(system)} of {system}" for system in dict.fromkeys(trained))
