"""Text and paths from outside: no control character, no markup, no command, no way out."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text as Drawn
from rich.text import Text

from sr_deploy.core import text
from sr_deploy.core.confine import confined
from sr_deploy.core.errors import BadInput

NASTY = st.text(st.characters(), max_size=40) | st.sampled_from(
    ["a\n::error ::x", "::error::x", "  ::set-output", "##[error]x", "a ##vso[task.x]y", "[/b]", "net[fp16]",
     "\x1b]0;t\x07", "<img src=x>", "\udcff", "\u202eabc", "\u2028x", "a|b", "\x00", "\\", "a\\\\", "[b]\\"]
)  # fmt: skip


@given(NASTY)
def test_plain_is_one_printable_line(found):
    shown = text.plain(found)
    assert len(shown.splitlines()) <= 1
    assert all(letter.isprintable() or letter == "\u3000" or letter.isspace() for letter in shown)
    shown.encode("utf-8")


@given(NASTY)
def test_no_line_is_a_command(found):
    line = text.log_line(found)
    assert not line.lstrip().startswith("::") and not re.search(r"##\w*\[", line) and "\n" not in line


@given(NASTY)
def test_rich_shows_what_was_there(found):
    # rich's own escaping loses or doubles a backslash beside a bracket or at the end: nothing else may change.
    shown = Text.from_markup(text.markup(found), emoji=False).plain
    assert shown.replace("\\", "") == text.log_line(found).replace("\\", "")


@given(NASTY)
def test_xml_parses_and_gives_it_back(found):
    parsed = ElementTree.fromstring(f'<a b="{text.xml(found)}">{text.xml(found)}</a>')
    assert (parsed.text or "") == text.plain(found)


def test_readable_text_stays():
    assert text.plain("NVIDIA GeForce RTX™ 3090, größer") == "NVIDIA GeForce RTX™ 3090, größer"
    assert text.plain("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert text.plain("abcdef", 4) == "abc…"
    assert text.log_line("::error x") == "\\x3a:error x"
    assert "<img" not in text.markdown("<img src=x onerror=y>|") and text.markdown("a|b") == "a\\|b"


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "C:x", "a\\b", "a\x00b", "a\nb", "."]
)
def test_names_that_lead_out(tmp_path, name):
    with pytest.raises(BadInput, match="names"):
        confined(tmp_path, name, "the board")


def test_a_name_of_this_system_alone(tmp_path):
    assert confined(tmp_path, "12:30.png", "the board", portable=False) == tmp_path / "12:30.png"
    for name in ("../x", "a\nb", "/x"):
        with pytest.raises(BadInput, match="names"):
            confined(tmp_path, name, "the board", portable=False)


def test_links_that_lead_out(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="names"):
        confined(inside, "link/x", "the board")
    assert confined(inside, "a/b.png", "the board") == inside / "a" / "b.png"
    assert confined(inside, "größe 1.png", "the board").name == "größe 1.png"


@given(NASTY)
def test_several_lines_stay_several_and_none_is_a_command(found):
    lines = text.log_lines(f"one\n{found}").split("\n")
    assert lines[0] == "one" and len(lines) == 2 + found.count("\n")
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in lines)
    assert "::error" not in text.log_line(f"a {found} ::error ::x").lower()


@given(NASTY | st.sampled_from(["$x$", "a$", "\\$", "$\\frac{", "_hidden"]))
def test_matplotlib_takes_no_name_for_mathematics(found):
    drawn = Drawn(0, 0, text.mathtext(found))
    shown, is_math = drawn._preprocess_math(drawn.get_text())
    assert is_math is False and shown.lstrip(" ") == text.plain(found).lstrip(" ")
    assert not drawn.get_text().startswith("_")


@pytest.mark.parametrize(
    ("loss", "told"), [(0.12345, "0.1235 dB lost"), (-0.0996, "0.0996 dB gained"), (-1e-9, "0.0000 dB lost")]
)
def test_a_loss_has_its_word_and_no_sign(loss, told):
    assert text.decibels_lost(loss) == told
