"""The page of formats is what the code describes, and every key on it says what it means."""

from __future__ import annotations

import re

from tests.formats_page import FORMATS, PAGE, page


def test_the_page_is_made_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.formats_page and commit the page"


def test_every_key_has_a_meaning():
    empty = re.findall(r"^\| `([^`]+)` \| [^|]* \|  \|$", page(), re.MULTILINE)
    assert not empty


def test_every_format_is_there():
    text = page()
    assert all(f"## {file}" in text for file, _, _ in FORMATS)
