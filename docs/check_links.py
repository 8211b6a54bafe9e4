"""Check that every link between our Markdown files leads to a file, and to its heading where it names one.

Addresses on the web are left alone: this runs without a network.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def broken_links(page: Path) -> list[str]:
    """The links of one page that lead nowhere, each as a line to print."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = (markdown or html for markdown, html in LINK.findall(text))
    return [f"{page.relative_to(ROOT)}: {target}" for target in targets if not _resolves(page, target)]


def _resolves(page: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    return file.exists() and (not anchor or anchor in _anchors(file))


def _anchors(page: Path) -> set[str]:
    """The headings of a page as a browser of the repository names them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main() -> None:
    """Check the pages at the root and under docs/; exit with the list of broken links, if any."""
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    broken = [line for page in pages for line in broken_links(page)]
    sys.exit("These links lead nowhere:\n" + "\n".join(broken) if broken else 0)


if __name__ == "__main__":
    main()
