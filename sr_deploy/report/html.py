"""Pieces of a self-contained page: everything is in the file, nothing is fetched, all text of others is escaped."""

from __future__ import annotations

import base64
from typing import Optional, Sequence, Tuple, Union

from sr_deploy.core.text import xml
from sr_deploy.report.html_style import STYLE
from sr_deploy.report.numbers import filled

#: A cell: text, or (text, class) with a class of the style sheet.
Cell = Union[str, Tuple[str, str]]
#: The browser itself refuses any request that the page might make.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
    """A whole document.

    Args:
        title: plain text.
        body: HTML made by the functions of this file.
    """
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{xml(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, body: str, anchor: str, level: int = 2) -> str:
    """A section with its heading; empty without a body."""
    if not body:
        return ""
    return f'<section id="{xml(anchor)}">\n<h{level}>{xml(heading)}</h{level}>\n{body}</section>\n'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; ``kind`` is a class of the style sheet: "note", "warn" or "small"."""
    return f"<p{_class(kind)}>{xml(text)}</p>\n"


def items(texts: Sequence[str], kind: str = "") -> str:
    """A list of plain texts; nothing for none."""
    rows = "".join(f"<li>{xml(text)}</li>\n" for text in texts)
    return f"<ul{_class(kind)}>\n{rows}</ul>\n" if rows else ""


def command(text: str) -> str:
    """A command that a reader can copy."""
    return f"<pre><code>{_lines(text)}</code></pre>\n"


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    numbers_from: int = 1,
    foot: int = 0,
    groups: Sequence[Tuple[str, int]] = (),
) -> str:
    """A table whose first column names its rows; of the others those that any row fills.

    Args:
        caption: plain text, above the table.
        headings: of the columns.
        rows: cells, as many as headings.
        numbers_from: from this column on, cells are numbers: right-aligned, digits of equal width.
        foot: so many of the last rows are set apart: a mean, a sum.
        groups: (heading, so many columns) above the headings, from the second column on; with them all are shown.
    """
    if rows and not groups:
        shown = filled(rows)
        numbers_from = sum(column < numbers_from for column in shown)
        headings, rows = [headings[one] for one in shown], [[row[one] for one in shown] for row in rows]
    kinds = ["" if column < numbers_from else "number" for column in range(len(headings))]
    # A heading without text is no heading: screen readers would announce it.
    head = "".join(
        f'<th scope="col"{_class(kind)}>{xml(text)}</th>' if text else "<td></td>"
        for text, kind in zip(headings, kinds)
    )
    over = "".join(f'<th scope="colgroup" colspan="{span}">{xml(text)}</th>' for text, span in groups)
    head = f"<tr><td></td>{over}</tr>\n<tr>{head}</tr>" if groups else f"<tr>{head}</tr>"
    lines = [_row(row, kinds) for row in rows]
    body, last = lines[: len(lines) - foot], lines[len(lines) - foot :]
    closing = f"<tfoot>\n{''.join(last)}</tfoot>\n" if last else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{xml(caption)}"><table>\n'
        f"<caption>{xml(caption)}</caption>\n"
        f"<thead>\n{head}\n</thead>\n<tbody>\n{''.join(body)}</tbody>\n{closing}</table></div>\n"
    )


def facts(pairs: Sequence[Tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    rows = "".join(f"<div><dt>{xml(name)}</dt><dd>{xml(value)}</dd></div>\n" for name, value in pairs)
    return f"<dl>\n{rows}</dl>\n" if rows else ""


def details(summary: str, body: str) -> str:
    """What is folded away until somebody asks; printed in full."""
    return f"<details>\n<summary>{xml(summary)}</summary>\n{body}</details>\n" if body else ""


def image(media_type: str, data: bytes, alt: str, kind: str = "", dark: Optional[bytes] = None) -> str:
    """A picture within the page; ``dark`` is shown in its place on a dark screen, and never printed."""
    shown = f'<img{_class(kind)} src="{data_uri(media_type, data)}" alt="{xml(alt)}">'
    if dark is None:
        return shown
    # Not <picture>: browsers choose its source for the screen and print that one.
    return image(media_type, data, alt, f"{kind} light".strip()) + image(media_type, dark, alt, f"{kind} dark".strip())


def figure(body: str, caption: str, kind: str = "") -> str:
    """A picture or several, with a caption in plain text."""
    return f"<figure{_class(kind)}>\n{body}\n<figcaption>{xml(caption)}</figcaption>\n</figure>\n"


def data_uri(media_type: str, data: bytes) -> str:
    """Bytes as an address that holds them itself (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _row(cells: Sequence[Cell], kinds: Sequence[str]) -> str:
    out = []
    for index, (cell, kind) in enumerate(zip(cells, kinds)):
        text, extra = cell if isinstance(cell, tuple) else (cell, "")
        classes = _class(" ".join(filter(None, (kind, extra))))
        opening, closing = ('<th scope="row"', "</th>") if index == 0 else ("<td", "</td>")
        out.append(f"{opening}{classes}>{xml(text)}{closing}")
    return f"<tr>{''.join(out)}</tr>\n"


def _lines(text: str) -> str:
    return "\n".join(map(xml, text.split("\n")))


def _class(kind: Optional[str]) -> str:
    return f' class="{xml(kind)}"' if kind else ""
