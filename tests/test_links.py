"""Every link of the documents leads to a file or a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path for pattern in ("*.md", ".github/*.md", "[a-z]*/**/*.md") for path in ROOT.glob(pattern) if path.is_file()
)


def prose(document: Path) -> str:
    """The text without its code blocks, whose brackets are no links and whose # are no headings."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    """The links of a document that lead nowhere; those to other sites are not followed."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = document.parent / path if path else document
        readme = target / "README.md" if target.is_dir() else target
        if not target.exists() or (anchor and anchor not in anchors(readme)):
            found.append(link)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One, two\n[x](a.md#one-two) [y](b.md) [z](#three) [w](https://example.org)\n")
    assert broken(tmp_path / "a.md") == ["b.md", "#three"]
