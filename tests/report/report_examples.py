"""Two reports with made-up numbers and every kind of block, and a reader of pages. No test is here."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

from PIL import Image

from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.report import (
    Bars,
    Bought,
    Fact,
    Mark,
    Missing,
    Near,
    Number,
    Origin,
    PrivateFact,
    PrivateReport,
    ReleaseReport,
    Row,
    Sample,
    Scored,
    Series,
    Table,
    Words,
    about,
    measured,
)
from dpwavelet.report.figures import plain

HOSTILE = "<script>alert('x')</script> \"quoted\" & `code` | cell\n# heading"


def png(size: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 90, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(caption: str, shade: int) -> Sample:
    return Sample(caption, png(16, shade), png(64, shade))


def score(value: float, error: float = 0.01, unit: str = "", words: str = "") -> PrivateScore:
    return PrivateScore(
        "KD-thumb",
        value,
        error=error,
        interval=(value - 2 * error, value + 2 * error),
        unit=unit,
        words=words,
    )


def release_report(text: str = "a smiling woman") -> ReleaseReport:
    """Everything that a release page can show; `text` is put wherever text may be."""
    return ReleaseReport(
        title=text,
        version="0.0.1",
        promise=f"One image more or less changes little. {text}",
        epsilon=7.9996,
        delta=5.0947e-5,
        unit=text,
        facts=[Fact("Noise multiplier", "0.81"), Fact(text, text, Origin.DP)],
        cost=[Fact("Private training", about(634)), Fact(text, text)],
        samples=[sample("a smiling woman", 10), sample(text, 20)],
        public_samples=[sample("a smiling woman", 30), sample(text, 40)],
        epsilon_curve=[(0, 0.0), (100, 4.1234), (200, 6.0), (400, 7.9996)],
        provenance=[Fact("Tokenizer", "sha256 00ff"), Fact(text, text)],
        not_promised=["Privacy of the public images.", text],
        bought=[
            Bought("FD-thumb", 41.3271, "plus or minus 1.9 in 95 of 100 cases", "points"),
            Bought(text, 3.0, text),
        ],
        balance=[
            Bars(
                title=text,
                categories=["glasses", text],
                series=[
                    Series("samples", [12.5, 33.25], Origin.DP),
                    Series(text, [14.0, None], Origin.PUBLIC),
                ],
                unit="%",
            ),
            Table(title=text, rows=[Row(text, (Number(value=0.731, unit=text),), Origin.DP)]),
        ],
        notes=[Words(text, Origin.PUBLIC)],
    )


def private_report(text: str = "a smiling woman") -> PrivateReport:
    """Everything that a private page can show; `text` is put wherever text may be."""
    steps = [
        {"step": k, "loss": 3.3 - k / 100, "clipped": 0.9 - k / 1000, "drawn": 200 + k % 7}
        for k in range(1, 121)
    ]
    curve = [(0.0, 0.0), (0.001, 0.004), (0.1, 0.3), (1.0, 1.0)]
    return PrivateReport(
        title=text,
        version="0.0.1",
        promise=f"One image more or less changes little. {text}",
        epsilon=7.9996,
        delta=5.0947e-5,
        unit=text,
        facts=[
            Fact("Noise multiplier", "0.81"),
            PrivateFact("Records found", "8,159"),
            PrivateFact(text, text),
        ],
        cost=[
            Fact("Machine", "CPU"),
            PrivateFact("Private training", PrivateScore("seconds", 634.25, unit="s")),
        ],
        distances=[
            Missing("Too few samples for a Fréchet distance: 64, needs 257; the kernel distance is shown."),
            measured.measure(
                text,
                [
                    Scored("Samples, finished", score(0.0123, 0.001, words="of 64 and 8,159 images")),
                    Scored(text, score(0.0412, 0.002), Mark.OTHER),
                    Scored("Records against records", score(0.0004, 0.0006), Mark.REFERENCE),
                ],
                text,
            ),
        ],
        perceptual=[measured.measure("By thumb features", [Scored("Finished", score(0.412))])],
        obedience=[Words(text, Origin.DP)],
        usefulness=[
            measured.score_table(
                text, ("Accuracy", text), {text: (score(71.24, 0.9, "%"), "84")}, names=text
            ),
            measured.calibration({text: [(0.1, 0.05), (0.9, 0.81)]}),
        ],
        balance=[
            measured.balance(text, ["glasses", text], records=[11.5, 30.0], samples=[12.5, None]),
        ],
        training=measured.training(steps, 203.5),
        epsilon_curve=[(0, 0.0), (100, 4.1234), (400, 7.9996)],
        audit=[
            measured.roc({text: curve}, [(0.001, 0.02), (1.0, 1.0)], [(0.001, 0.03), (1.0, 1.0)], title=text)
        ],
        nearness=[measured.nearness([Near(text, png(64, 3), png(64, 4), text, score(0.25, 0.0))])],
        provenance=[Fact("torch", "2.6.0"), PrivateFact(text, text)],
    )


RELEASE = release_report()
BARE_RELEASE = replace(
    RELEASE,
    samples=[],
    public_samples=[],
    epsilon_curve=[],
    cost=[],
    provenance=[],
    not_promised=[],
    facts=[],
    bought=[],
    balance=[],
    notes=[],
)
PRIVATE = private_report()
BARE_PRIVATE = PrivateReport(
    title="Portraits", version="0.0.1", promise="Little.", epsilon=1.0, delta=1e-5, unit="one image"
)

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and the texts that can be read; fails when tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []  # the tags and classes around a text, and it
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            around = tuple(f"{tag}.{name}" if name else tag for tag, name in self.open)
            self.texts.append((around, data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def within(self, tag: str) -> list[str]:
        """The texts directly in elements of this tag, which may carry a class."""
        return [text for around, text in self.texts if around and around[-1].split(".")[0] == tag]

    def read(self) -> str:
        """What can be read, but for style, and the marks of axes, which are not data."""
        return "\n".join(
            text for around, text in self.texts if "style" not in around and "text.tick" not in around
        )


def numbers_in(text: str) -> set[str]:
    """Every number in a text, as written."""
    return set(re.findall(r"\d[\d,.]*\d|\d", text))


def leaves(value: object) -> Iterator[object]:
    """Every text and number in a JSON value, names of keys left out."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def numbers_of_twin(twin: dict[str, object]) -> set[str]:
    """Every number in the texts of a twin, and its own numbers as a page writes them."""
    found: set[str] = set()
    for leaf in leaves(twin):
        if isinstance(leaf, str):
            found |= numbers_in(leaf)
        elif isinstance(leaf, int | float) and not isinstance(leaf, bool):
            found |= numbers_in(plain(leaf))
    return found
