"""Plots on a dark page: colours are turned, addresses are not, and the page shows the one that fits."""

from __future__ import annotations

import re

import pytest

from sr_deploy.report import html
from sr_deploy.report.dark import dark_colour, dark_svg
from sr_deploy.report.html_style import STYLE
from sr_deploy.report.plots import COLOURS


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", ["#000000", *COLOURS])
def test_what_is_drawn_stands_out_on_the_dark_page(colour):
    back = dark_colour("#ffffff")
    assert back == re.search(r"dark\).*?--back: (#\w+)", STYLE, re.DOTALL).group(1), "the page's own"
    # 3:1 is what WCAG 2.2, 1.4.11 asks of graphics.
    assert (luminance(dark_colour(colour)) + 0.05) / (luminance(back) + 0.05) > 3


def test_colours_are_turned_and_identifiers_are_not():
    source = (
        '<svg width="1"><path clip-path="url(#abcdef)" style="fill: #ffffff; stroke: #0072b2"/><use href="#123456"/>'
    )
    turned = dark_svg(source)
    assert "url(#abcdef)" in turned and 'href="#123456"' in turned
    assert f"fill: {dark_colour('#ffffff')}; stroke: {dark_colour('#0072b2')}" in turned
    # Text in black says no colour of its own.
    assert turned.startswith(f'<svg fill="{dark_colour("#000000")}" ')


def test_a_dark_screen_shows_the_dark_one_and_paper_the_light_one():
    shown = html.image("image/png", b"light", "a plot", dark=b"dark")
    assert f'<img class="light" src="{html.data_uri("image/png", b"light")}"' in shown
    assert f'<img class="dark" src="{html.data_uri("image/png", b"dark")}"' in shown
    assert html.image("image/png", b"light", "a picture").count("<img") == 1
    # A browser that prints from a dark screen looks at this again; the source of a <picture> it keeps.
    assert "<picture" not in shown and "img.dark { display: none; }" in STYLE
    rule = STYLE[STYLE.index("@media screen and (prefers-color-scheme: dark)") :]
    assert "img.light { display: none; } img.dark { display: block; }" in rule[: rule.index("details {")]


def test_a_narrow_screen_scrolls_tables_and_fits_plots():
    narrow = STYLE[STYLE.index("@media (max-width: 30rem)") : STYLE.index("@media print")]
    assert "min-width" not in narrow and "max-width: 100%" in STYLE
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", STYLE)


def test_a_picture_of_dots_is_turned_by_the_browser_on_a_dark_screen_only():
    (rule,) = re.findall(r"@media ([^{]*)\{ \.turned \{ filter: ([^;]*);", STYLE)
    assert rule == ("screen and (prefers-color-scheme: dark) ", "invert(.91) hue-rotate(180deg)")
