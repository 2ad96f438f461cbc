"""Text that came from outside, made fit for where it goes: a terminal, a CI log, XML, Markdown, HTML.

Device names, layer names, keys of files, log lines of a board: whoever made them may have put control characters,
newlines or markup in. ``plain`` takes away their power and stays readable; the others build on it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Callable, Match

#: Unicode categories that are escaped: controls, formats (bidirectional overrides, zero width), surrogates, private
#: use, unassigned, line and paragraph separators.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
#: What a CI log takes for a command: ``::name`` at the start of a line, ``##[name]`` or ``##vso[name]`` anywhere. A
#: table may break a line anywhere, so the names that GitHub knows count wherever they stand.
_CI_COMMAND = re.compile(
    r"^(\s*):(?=:)|():(?=:(?:error|warning|notice|debug|group|endgroup|add-|remove-|set-|save-|stop-|echo))|##(?=\w*\[)",
    re.IGNORECASE,
)


def plain(text: str, most: int = 0) -> str:
    """One line of printable text: what is not printable is written as an escape, such as ``\\x1b`` or ``\\n``.

    Args:
        text: from outside; may hold surrogates of a file name that is not UTF-8.
        most: characters at most, an ellipsis included; 0 for all.

    Example:
        >>> plain("GPU\\n::error")
        'GPU\\\\n::error'
    """
    if most and len(text) > most:
        text = text[: most - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) if unicodedata.category(letter) in _ESCAPED else letter for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def counted(count: int, thing: str) -> str:
    """So many of a thing whose plural has an s: ``1 group``, ``1,200 groups``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def decibels_lost(loss: float, digits: int = 4) -> str:
    """A loss in dB with its word: "0.0996 dB gained" where it is negative."""
    amount = f"{abs(loss):.{digits}f}"
    return f"{amount} dB {'gained' if loss < 0 and float(amount) else 'lost'}"


def renaming(say: Callable[[str], None], made_as: object, known_as: object) -> Callable[[str], None]:
    """``say``, told of a path where something is only while it is made, names the path where it will be."""
    return lambda text: say(text.replace(str(made_as), str(known_as)))


def log_line(text: str) -> str:
    """``plain``, and no CI log takes the line for a command of its own."""
    return _CI_COMMAND.sub(_shown_command, plain(text))


def _shown_command(found: Match[str]) -> str:
    return "#\\x23" if found.group().startswith("#") else f"{found.group()[:-1]}\\x3a"


def log_lines(text: str) -> str:
    """``log_line`` for each line of a text of several lines, such as an error's."""
    return "\n".join(map(log_line, text.split("\n")))


def markup(text: str) -> str:
    """``log_line`` for rich's console markup and tables: brackets are shown, not obeyed."""
    from rich.markup import escape

    return escape(log_line(text))


def markup_lines(text: str) -> str:
    """``markup`` for each line of a text of several lines, such as a caption."""
    return "\n".join(map(markup, text.split("\n")))


def markdown(text: str) -> str:
    """``plain`` for a cell or a paragraph of Markdown that may hold HTML: shown as written."""
    return _MARKDOWN.sub(r"\\\1", html.escape(log_line(text), quote=False))


def xml(text: str) -> str:
    """``plain`` for an XML attribute or text, escaped; XML 1.0 allows no control characters at all."""
    return html.escape(plain(text), quote=True)


def mathtext(text: str) -> str:
    """``plain`` for a title or label that matplotlib draws: dollars are shown, and a leading ``_`` hides no label."""
    shown = plain(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
